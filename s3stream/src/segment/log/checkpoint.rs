//! Keeping the meta stream short: now and then the whole list is written, and the edits before it are trimmed.
//!
//! A checkpoint is a run of records; it counts when its last is durable, and only then is anything trimmed.

use bytes::Bytes;

use super::{SegmentLog, State};
use crate::segment::edit::{self, Edit};
use crate::{Append, Result};

/// The most bytes of the list in one record.
const CHECKPOINT_PART_BYTES: usize = 128 * 1024;
/// A checkpoint is due after this many edits, or as many as there are segments if that is more: its cost per edit is
/// then bounded however long the log is.
const CHECKPOINT_EDITS_MIN: u64 = 64;

impl SegmentLog {
    /// Writes the whole list when many edits have gathered and trims the edits before it. Call it now and then.
    ///
    /// # Errors
    /// As [`Stream::append`](crate::Stream::append) and [`Stream::trim`](crate::Stream::trim); nothing is lost, call again.
    pub async fn maintain(&self) -> Result<()> {
        let _exclusive = self.exclusive.lock().await;
        let (first, last) = {
            let mut state = self.usable()?;
            let due = CHECKPOINT_EDITS_MIN.max(state.list.segments().len() as u64);
            if state.edits >= due {
                self.checkpoint(&mut state)?
            } else {
                match state.checkpoint {
                    Some(first) if first > self.meta.start() => (first, None),
                    _ => return Ok(()),
                }
            }
        };
        if let Some(last) = last {
            self.kept(last).await?;
            self.state.lock().checkpoint = Some(first);
        }
        self.meta.trim(..first).await
    }

    /// Queues the list in parts; gives the meta offset of the first and the append of the last.
    fn checkpoint(&self, state: &mut State) -> Result<(u64, Option<Append>)> {
        // What is queued but not in effect comes before the checkpoint in the stream, so it must be in it.
        let mut list = state.list.clone();
        for (_, edit) in &state.pending {
            list.apply(edit)?;
        }
        let bytes = Bytes::from(list.encode());
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
        state.edits = 0;
        let first = first.expect("the encoded list is never empty");
        Ok((first, last))
    }
}
