//! Writing the whole list: now and then, to keep the meta stream short, and when the log is cut.
//!
//! A checkpoint is a run of records that hold the owner's state and the list; it counts when its last is durable, and only
//! then is anything trimmed. A truncation is a checkpoint of the list as it is afterwards: both streams share one log, so
//! whatever is appended after it comes after it.

use bytes::{BufMut, Bytes};

use super::{SegmentLog, State};
use crate::segment::Truncation;
use crate::segment::codec::put_bytes;
use crate::segment::edit::{self, Edit};
use crate::segment::list::SegmentList;
use crate::{Append, Error, Result};

/// The most bytes of the list in one record.
const CHECKPOINT_PART_BYTES: usize = 128 * 1024;
/// A checkpoint is due after this many edits, or as many as there are segments or KiB of the owner's state if that is
/// more: its cost per edit is then bounded however much there is.
const CHECKPOINT_EDITS_MIN: u64 = 64;
const OWNER_BYTES_PER_EDIT: usize = 1024;
/// So many records before the last checkpoint stay until [`SegmentLog::maintain`] comes: trimming costs a commit.
pub(super) const META_RECORDS_KEPT: u64 = 64;

impl SegmentLog {
    /// Writes the whole list when many edits have gathered and trims the edits before it. Call it now and then.
    ///
    /// `state` gives the whole of the owner's state then, and something that keeps the owner from changing it and from
    /// appending: it is dropped when the checkpoint is queued.
    ///
    /// # Errors
    /// As [`Stream::append`](crate::Stream::append) and [`Stream::trim`](crate::Stream::trim); nothing is lost, call again.
    pub async fn maintain<G>(&self, state: impl FnOnce() -> (G, Bytes)) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        if self.is_checkpoint_due()? {
            self.write_checkpoint(state).await?;
        }
        self.trim_meta(1).await
    }

    /// As [`Self::maintain`], however few edits there were: opening the log reads this and what comes after.
    ///
    /// # Errors
    /// As [`Self::maintain`].
    pub async fn checkpoint<G>(&self, state: impl FnOnce() -> (G, Bytes)) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        self.write_checkpoint(state).await?;
        self.trim_meta(1).await
    }

    async fn write_checkpoint<G>(&self, state: impl FnOnce() -> (G, Bytes)) -> Result<()> {
        let last = {
            // The owner's lock before this one, as for its appends.
            let (_held, owner_state) = state();
            let mut state = self.usable()?;
            // What is queued but not in effect comes before the checkpoint in the stream, so it must be in it.
            let list = state.list_to_come()?;
            self.queue_checkpoint(&mut state, &list, &owner_state)?
        };
        self.kept(last).await
    }

    /// Trims what comes before the last durable checkpoint, if that is so many records.
    pub(super) async fn trim_meta(&self, records: u64) -> Result<()> {
        let checkpoint = self.usable()?.checkpoint;
        match checkpoint {
            Some(first) if first >= self.meta.start().saturating_add(records) => {
                self.meta.trim(..first).await
            }
            _ => Ok(()),
        }
    }

    /// Cuts the log, and begins a new segment where it goes on. It is in effect when this returns, and kept when the future
    /// resolves; a crash before that leaves the log uncut. Give up what it no longer shows with [`Self::trim_front`].
    ///
    /// # Errors
    /// `Unavailable`: an append or an edit is in flight. `Invalid`: the bounds do not go together. Else as
    /// [`Stream::append`](crate::Stream::append). In all cases nothing was cut.
    pub fn truncate(&self, truncation: &Truncation) -> Result<Append> {
        let mut state = self.usable()?;
        let bounds = (self.confirm_of(&state), self.next_of(&state.list));
        if state.jumping || !state.pending.is_empty() || bounds.0 < bounds.1 {
            return Err(Error::unavailable("the log is not quiet"));
        }
        let Truncation {
            cut, end, start, ..
        } = *truncation;
        if cut > end || start > end || cut > bounds.1 {
            return Err(Error::invalid(
                "a cut past the log end, or a log that ends below its start",
            )
            .with("cut", cut)
            .with("end", end)
            .with("start", start));
        }
        let mut list = state.list.cut(cut, &truncation.attributes)?;
        list.start_at(start.min(cut))?;
        list.apply(&self.begin_edit(end))?;
        list.start_at(start)?;
        if let Some(note) = &truncation.note {
            list.apply(&Edit::Annotate { note: note.clone() })?;
        }
        let last = self.queue_checkpoint(&mut state, &list, &truncation.state)?;
        state.list = list;
        // Nothing was in flight, so all that is left is durable.
        state.confirm_floor = end;
        drop(state);
        // The end may have moved up, and no append tells.
        self.moved.notify_waiters();
        Ok(last)
    }

    fn is_checkpoint_due(&self) -> Result<bool> {
        let state = self.usable()?;
        let due = state.list.segments().len();
        let due = due.max(state.owner_state_bytes / OWNER_BYTES_PER_EDIT);
        Ok(state.edits >= CHECKPOINT_EDITS_MIN.max(due as u64))
    }

    /// Queues owner's state and list in parts; gives the append of the last.
    fn queue_checkpoint(
        &self,
        state: &mut State,
        list: &SegmentList,
        owner_state: &[u8],
    ) -> Result<Append> {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, owner_state);
        bytes.put_slice(&list.encode());
        let bytes = Bytes::from(bytes);
        let count = bytes.len().div_ceil(CHECKPOINT_PART_BYTES) as u32;
        let (mut first, mut last) = (None, None);
        for index in 0..count {
            let from = index as usize * CHECKPOINT_PART_BYTES;
            let part = bytes.slice(from..(from + CHECKPOINT_PART_BYTES).min(bytes.len()));
            let record = edit::encode(&[Edit::Checkpoint { index, count, part }]);
            let append = self.meta.append(1, &[&record])?;
            first.get_or_insert(append.offsets().start);
            last = Some(append);
        }
        let (Some(first), Some(last)) = (first, last) else {
            return Err(Error::internal("a checkpoint without a part"));
        };
        state.edits = 0;
        state.owner_state_bytes = owner_state.len();
        state.next_checkpoint = Some(first..last.offsets().end);
        Ok(last)
    }
}
