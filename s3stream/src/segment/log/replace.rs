//! Replacing segments by others, in other streams too, and giving up what no slice shows any more.
//!
//! A replacement takes effect when it is durable. Who prepares one fills an attached stream above all that slices name of it;
//! what was filled for a replacement that never came is below the next one, and goes with what that leaves behind.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::{SegmentLog, State, out_of_range};
use crate::segment::edit::{self, Edit};
use crate::segment::{Segment, Slice};
use crate::{Error, Result, Stream, StreamId};

/// Room for a change of the owner's state beside the segments; a longer one takes its chance.
const CHANGE_BYTES: usize = 4 << 10;

impl SegmentLog {
    /// Replaces the sealed segments that make up exactly `run` by `with`, in one step. Readers see all of it or
    /// nothing; offsets do not move. Every stream that `with` names must be the data stream or attached, and what it
    /// names must be durable. What lies in these streams below all that is named is given up, so what is appended first
    /// must be named first.
    ///
    /// `change` gives a change of the owner's state that is kept in the same step, and something that keeps the owner from
    /// changing it meanwhile: it is dropped when the replacement is queued, or refused. Waits for room in the log, in line with
    /// others. What could not be given up goes another time.
    ///
    /// # Errors
    /// `Invalid`: `run` is not made of whole sealed segments, `with` does not fit in it, or names what is not there.
    /// `OutOfRange`: `run` is not durable to its end. Else as [`Stream::append`].
    pub async fn replace<G>(
        &self,
        run: Range<u64>,
        with: Vec<Segment>,
        change: impl FnOnce() -> (G, Option<Bytes>),
    ) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        let replace = [Edit::Replace {
            run: run.clone(),
            segments: with.clone(),
        }];
        let room = edit::encode(&replace).len() + CHANGE_BYTES;
        // What was written for it is lost if those who wait pass it.
        let permit = self.meta.ready(room).await?;
        let (durable, before) = {
            // The owner's lock before this one, as for its appends.
            let (_held, change) = change();
            let mut state = self.usable()?;
            let confirm = self.confirm_of(&state);
            if run.end > confirm {
                return Err(out_of_range(run.end, state.list.start(), confirm));
            }
            for slice in with.iter().flat_map(|segment| &segment.slices) {
                self.check_durable(&state, slice)?;
            }
            state.confirm_floor = state.confirm_floor.max(run.end);
            let before = state.list.closed_ends();
            let mut edits = Vec::with_capacity(2);
            edits.extend(change.map(|change| Edit::State { change }));
            edits.extend(replace);
            let durable = self.edit_with(&mut state, edits, Some(permit))?;
            (durable, before)
        };
        self.kept(durable).await?;
        if let Err(error) = self.trim_streams(before).await {
            drop(self.usable()?);
            tracing::debug!(%error, "what was replaced stays for now");
        }
        Ok(())
    }

    /// Gives up what lies in an attached stream and no slice shows, when nobody is filling it: what a replacement that
    /// never came has left there. What lies above a slice stays until that slice is gone.
    ///
    /// # Errors
    /// As [`Stream::append`] and [`Stream::trim`]; nothing is lost, call again.
    pub async fn trim_unnamed(&self, stream: StreamId) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        let end = {
            let state = self.usable()?;
            let stream = self.stream_of(&state, stream);
            stream.map_or(0, |stream| stream.confirm())
        };
        self.trim_streams(BTreeMap::from([(stream, end)])).await
    }

    /// Gives up what no slice shows any more, of the data stream and of those that slices name or named before. A stream that
    /// is being filled for a replacement to come is filled above what is named, and that is not touched.
    ///
    /// Some edits take effect when they are queued: a trim must not be there before them, or a list that lost them would show
    /// what is gone. So it waits for one more, which changes nothing and comes after them all.
    pub(super) async fn trim_streams(&self, mut before: BTreeMap<StreamId, u64>) -> Result<()> {
        before.entry(self.data.id()).or_insert(0);
        let (bounds, last) = {
            let mut state = self.usable()?;
            for id in state.list.closed_ends().into_keys() {
                before.entry(id).or_insert(0);
            }
            // What an edit shows whose caller went away is not to be given up before it is in effect, nor what it hides.
            let to_come = state.list_to_come()?;
            let bounds: Vec<(Stream, u64)> = before
                .into_iter()
                .filter_map(|(id, end)| {
                    let stream = self.stream_of(&state, id)?;
                    let lowest = [&state.list, &to_come].map(|list| list.lowest_offset_of(id));
                    let bound = lowest.into_iter().flatten().min().unwrap_or(end);
                    let bound = bound.min(stream.confirm());
                    (bound > stream.start()).then_some((stream, bound))
                })
                .collect();
            if bounds.is_empty() {
                return Ok(());
            }
            let start = state.list.start();
            (
                bounds,
                self.edit_when_durable(&mut state, vec![Edit::Trim { start }])?,
            )
        };
        self.kept(last).await?;
        drop(self.usable()?);
        for (stream, bound) in bounds {
            stream.trim(..bound).await?;
        }
        Ok(())
    }

    /// Refuses a slice of records that are not there.
    fn check_durable(&self, state: &State, slice: &Slice) -> Result<()> {
        let stream = self.stream_of(state, slice.stream).ok_or_else(|| {
            Error::invalid("a slice of a stream that is not attached").with("stream", slice.stream)
        })?;
        let (start, confirm) = (stream.start(), stream.confirm());
        if slice.start < start || slice.end.is_none_or(|end| end > confirm) {
            return Err(Error::invalid("a slice of records that are not there")
                .with("slice", format!("{slice:?}"))
                .with("start", start)
                .with("confirm", confirm));
        }
        Ok(())
    }
}
