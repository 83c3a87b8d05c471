//! A log over streams: appends go through the active slice, and the list of segments is kept by small edits.
//!
//! `start <= confirm <= next`, as for a stream (S2, S3). The list lives in the meta stream: one record per change, so a
//! change of several segments happens at once; now and then the whole list is written and what came before is trimmed.
//! An edit that others must not see undone (a trim, a replacement, a jump of offsets) takes effect when it is durable;
//! one that only concerns the next append takes effect when it is queued, because both streams share one log and its
//! order. When that log is reopened the segment log stops: its view may be ahead of what is kept. Open it again.
//! It does not compress, index or interpret records, and it has no tasks of its own: call [`SegmentLog::maintain`].
//!
//! The owner may keep a state of its own with the list: it gives changes, and the whole of it for a checkpoint, and gets
//! back what the newest checkpoint had and the changes since. The log holds none of it while it is open.

mod bounds;
mod checkpoint;
mod open;
mod read;
mod replace;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::ops::{Range, RangeTo};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use bounds::LogBounds;
use bounds::next_at;
pub use read::{FetchedLog, LogRecord};

use super::Segment;
use super::edit::{self, Edit};
use super::list::SegmentList;
use crate::{Append, Error, Permit, Result, Stream, StreamEpoch, StreamId};
use checkpoint::META_RECORDS_KEPT;

/// A log of segments; see the module.
pub struct SegmentLog {
    data: Stream,
    meta: Stream,
    epoch: StreamEpoch,
    state: Mutex<State>,
    /// Edits that take effect when durable are made one at a time.
    exclusive: tokio::sync::Mutex<()>,
    /// Told when `confirm` moves although the data stream does not.
    moved: tokio::sync::Notify,
}

struct State {
    list: SegmentList,
    /// Other streams of the group that slices may name.
    others: BTreeMap<StreamId, Stream>,
    /// Edits in the meta stream that take effect when it is durable up to the offset beside them.
    pending: VecDeque<(u64, Vec<Edit>)>,
    /// What is known to be durable whatever the data stream says: its slices may have been replaced.
    confirm_floor: u64,
    /// A jump of offsets is pending; appends would not know where they go.
    jumping: bool,
    /// Edits since the last checkpoint.
    edits: u64,
    /// The owner's state as it was when the log was opened, until it is taken.
    owner_state: Vec<Bytes>,
    /// Size of the owner's state in the last checkpoint.
    owner_state_bytes: usize,
    /// Where the last durable checkpoint begins in the meta stream.
    checkpoint: Option<u64>,
    /// Beginning and end of a later one, which is on its way to being durable.
    next_checkpoint: Option<Range<u64>>,
    /// Where the log was when that was last looked at.
    last: LogBounds,
    stopped: Option<Error>,
}

impl SegmentLog {
    /// Makes another stream of the group known, so that slices of it can be read and trimmed.
    ///
    /// # Errors
    /// `Corrupt`: a slice speaks of records that the stream does not have. `Invalid`: it is the data stream.
    pub fn attach(&self, stream: Stream) -> Result<()> {
        if stream.id() == self.data.id() {
            return Err(Error::invalid("the data stream is not another").with("id", stream.id()));
        }
        let mut state = self.settled();
        open::check_slices(&state.list, &stream)?;
        state.others.insert(stream.id(), stream);
        Ok(())
    }

    /// The segments, oldest first; the last may be active.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.settled().list.segments().to_vec()
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.settled().list.segments().len()
    }

    /// The notes to the active segment, oldest first.
    pub fn annotations(&self) -> Vec<Bytes> {
        self.settled().list.annotations().to_vec()
    }

    /// The error that every call answers once the log below was reopened or closed; `None` while all is well.
    pub fn stopped(&self) -> Option<Error> {
        self.settled().stopped.clone()
    }

    /// Appends one record of `count` offsets at `at`, which must be the next offset. Begins a segment if none is active.
    ///
    /// Queued when it returns, as [`Stream::append`]; the future resolves to offsets of the data stream.
    ///
    /// # Errors
    /// As [`Stream::append`]; `Invalid` also when `at` is not the next offset.
    pub fn append(&self, at: u64, count: u64, payload: &[&[u8]]) -> Result<Append> {
        let (mut state, data) = self.look();
        if let Some(error) = &state.stopped {
            return Err(error.clone());
        }
        if state.jumping {
            return Err(jumping());
        }
        let next = next_at(&state.list, data.next);
        if at != next {
            return Err(Error::invalid("not the next offset of the log")
                .with("at", at)
                .with("next", next));
        }
        if state.list.active_slice().is_none() {
            let begin = self.begin_edit(at);
            let _order_is_enough = self.edit_now(&mut state, vec![begin])?;
        }
        let append = self.data.append(count, payload)?;
        let mapped = state
            .list
            .active_slice()
            .is_some_and(|slice| slice.log_offset(append.offsets().start) == at);
        if !mapped || append.epoch() != self.epoch {
            let error = Error::unavailable("the stream moved under the log").with("at", at);
            return Err(state.stop(error).ambiguous());
        }
        Ok(append)
    }

    /// Notes `note` to the active segment: at most [`ANNOTATION_BYTES_MAX`](super::ANNOTATION_BYTES_MAX) bytes, kept
    /// until the segment is sealed. Begins a segment if none is active. With `change`, a change of the owner's state in
    /// the same edit.
    ///
    /// # Errors
    /// As [`Stream::append`]; `Invalid` also past [`ANNOTATIONS_MAX`](super::ANNOTATIONS_MAX).
    pub fn annotate(&self, note: Bytes, change: Option<Bytes>) -> Result<Append> {
        let mut state = self.usable()?;
        let mut edits = Vec::with_capacity(2);
        if state.list.active_slice().is_none() {
            if state.jumping {
                return Err(jumping());
            }
            edits.push(self.begin_edit(self.next_of(&state.list)));
        }
        edits.push(Edit::Annotate { note });
        edits.extend(change.map(|change| Edit::State { change }));
        self.edit_now(&mut state, edits)
    }

    /// Seals the active segment with `attributes` and begins the next at its end, with `note` as its first if there is
    /// one, and a change of the owner's state, all in one edit. An empty segment is begun anew.
    ///
    /// # Errors
    /// As [`Stream::append`]; `Invalid` also without an active segment.
    pub fn roll(
        &self,
        attributes: Bytes,
        note: Option<Bytes>,
        change: Option<Bytes>,
    ) -> Result<Append> {
        let mut state = self.usable()?;
        let end = self.next_of(&state.list);
        let mut edits = vec![Edit::Seal { end, attributes }, self.begin_edit(end)];
        edits.extend(note.map(|note| Edit::Annotate { note }));
        edits.extend(change.map(|change| Edit::State { change }));
        self.edit_now(&mut state, edits)
    }

    /// Keeps a change of the owner's state.
    ///
    /// # Errors
    /// As [`Stream::append`].
    pub fn change_state(&self, change: Bytes) -> Result<Append> {
        self.edit_now(&mut *self.usable()?, vec![Edit::State { change }])
    }

    /// The owner's state when the log was opened: as the newest checkpoint had it, then the changes since, oldest first.
    /// Only the first call gets it.
    pub fn take_state(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.settled().owner_state)
    }

    /// Seals the active segment; the next append, or [`Self::begin`], starts another. An empty one just goes.
    ///
    /// # Errors
    /// As [`Stream::append`]; `Invalid` also without an active segment.
    pub fn seal(&self, attributes: Bytes) -> Result<Append> {
        let mut state = self.usable()?;
        let end = self.next_of(&state.list);
        self.edit_now(&mut state, vec![Edit::Seal { end, attributes }])
    }

    /// Begins a segment at `base`, at or past the next offset; what lies between stays empty for ever.
    ///
    /// # Errors
    /// `Invalid`: a segment is active, or `base` is below the end. Else as [`Stream::append`].
    pub async fn begin(&self, base: u64) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        let durable = {
            let mut state = self.usable()?;
            let begin = vec![self.begin_edit(base)];
            let durable = self.edit_when_durable(&mut state, begin)?;
            state.jumping = true;
            durable
        };
        // Who waits for the end to move now waits for this, too.
        self.moved.notify_waiters();
        self.kept(durable).await
    }

    /// Moves the start to the bound and gives up segments that lie below it. The active one stays, and a segment that
    /// the bound lies in is only hidden up to it. Kept when this returns.
    ///
    /// # Errors
    /// `OutOfRange`: the bound is past `confirm`. Else as [`Stream::append`] and [`Stream::trim`].
    pub async fn trim_front(&self, below: RangeTo<u64>) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        let start = below.end;
        let (durable, before) = {
            let mut state = self.usable()?;
            let confirm = self.confirm_of(&state);
            if start > confirm {
                return Err(out_of_range(start, state.list.start(), confirm));
            }
            let before = state.list.closed_ends();
            let durable = if start > state.list.start() {
                Some(self.edit_when_durable(&mut state, vec![Edit::Trim { start }])?)
            } else {
                None
            };
            (durable, before)
        };
        // Who waits for the start to move now waits for this, too.
        self.moved.notify_waiters();
        match durable {
            Some(durable) => self.kept(durable).await?,
            // The start may be there by an edit whose caller went away: it is kept when that is.
            None => self.meta_kept().await?,
        }
        self.trim_streams(before).await?;
        self.trim_meta(META_RECORDS_KEPT).await
    }

    fn begin_edit(&self, base: u64) -> Edit {
        Edit::Begin {
            base,
            stream: self.data.id(),
            start: self.data.next(),
        }
    }

    /// Queues edits and applies them at once: for those that matter only to what is appended after them.
    fn edit_now(&self, state: &mut State, edits: Vec<Edit>) -> Result<Append> {
        let mut list = state.list.clone();
        for edit in &edits {
            list.apply(edit)?;
        }
        let append = self.meta.append(1, &[&edit::encode(&edits)])?;
        state.list = list;
        state.edits += edits.len() as u64;
        Ok(append)
    }

    /// Queues edits that take effect once they are durable, all at once, whether or not the caller is still there.
    fn edit_when_durable(&self, state: &mut State, edits: Vec<Edit>) -> Result<Append> {
        self.edit_with(state, edits, None)
    }

    /// The same, with a permit if it is large enough.
    fn edit_with(
        &self,
        state: &mut State,
        edits: Vec<Edit>,
        permit: Option<Permit>,
    ) -> Result<Append> {
        // An edit whose caller went away may still be in flight; these build on it.
        let mut list = state.list_to_come()?;
        for edit in &edits {
            list.apply(edit)?;
        }
        let record = edit::encode(&edits);
        let permit = permit.filter(|permit| permit.has_room_for(record.len()));
        let append = match permit {
            Some(permit) => self.meta.append_with(permit, 1, &[&record])?,
            None => self.meta.append(1, &[&record])?,
        };
        state.edits += edits.len() as u64;
        state.pending.push_back((append.offsets().end, edits));
        Ok(append)
    }

    /// Waits for an edit to be durable; then it is in effect.
    async fn kept(&self, durable: impl Future<Output = Result<Range<u64>>>) -> Result<()> {
        let outcome = durable.await;
        let mut state = self.settled();
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => {
                state.stop(error.clone());
                Err(error)
            }
        }
    }

    fn stream_of(&self, state: &State, id: StreamId) -> Option<Stream> {
        if id == self.data.id() {
            return Some(self.data.clone());
        }
        state.others.get(&id).cloned()
    }
}

impl State {
    /// The list once every queued edit is in effect.
    fn list_to_come(&self) -> Result<SegmentList> {
        let mut list = self.list.clone();
        for edit in self.pending.iter().flat_map(|(_, edits)| edits) {
            list.apply(edit)?;
        }
        Ok(list)
    }

    /// An edit is durable.
    fn take_effect(&mut self, edit: &Edit) {
        if let Edit::Begin { base, .. } = edit {
            // What was appended before the jump comes before it in the log, so it is durable as well.
            self.confirm_floor = self.confirm_floor.max(*base);
            self.jumping = false;
        }
        if let Err(error) = self.list.apply(edit) {
            self.stop(Error::internal("an edit that was checked does not apply").caused_by(error));
        }
    }

    /// Stops the log with the first error, and gives that.
    fn stop(&mut self, error: Error) -> Error {
        self.stopped.get_or_insert(error).clone()
    }
}

impl fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentLog")
            .field("data", &self.data.id())
            .field("meta", &self.meta.id())
            .field("segments", &self.segment_count())
            .finish()
    }
}

fn jumping() -> Error {
    Error::unavailable("a segment is being begun at a later offset")
}

fn out_of_range(offset: u64, start: u64, confirm: u64) -> Error {
    Error::out_of_range("no such offset in the log")
        .with("offset", offset)
        .with("start", start)
        .with("confirm", confirm)
}
