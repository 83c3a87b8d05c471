//! Where a segment log is, and waiting for it to move on.
//!
//! `start <= confirm <= next`. A log that has stopped is for ever where it last was: what the streams say then may be
//! of another, who goes on from there.

use parking_lot::MutexGuard;

use super::{SegmentLog, State};
use crate::segment::list::SegmentList;
use crate::stream::progress::Bounds;
use crate::{Error, Result};

/// Where a segment log is: `start <= confirm <= next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogBounds {
    /// The first offset that can be read.
    pub start: u64,
    /// One past the last offset that is durable and readable.
    pub confirm: u64,
    /// The offset that the next append will get.
    pub next: u64,
    /// Where the active segment begins.
    pub active_base: Option<u64>,
}

impl SegmentLog {
    /// Where the log is, at one moment; of one that has stopped, where it was.
    pub fn bounds(&self) -> LogBounds {
        let (mut state, data) = self.look();
        let is_current = data.epoch == self.epoch;
        let kept = if is_current {
            Some(data.confirm)
        } else {
            self.data.confirm_in(self.epoch)
        };
        let Some(kept) = kept else {
            return state.last;
        };
        let confirm = self.confirm_at(&state, kept);
        state.last = LogBounds {
            start: state.list.start(),
            confirm,
            // What was not durable when the log stopped is not the log's.
            next: if is_current && state.stopped.is_none() {
                next_at(&state.list, data.next).max(confirm)
            } else {
                confirm
            },
            active_base: state.list.active_base(),
        };
        state.last
    }

    /// Waits until `confirm` is beyond `offset`, and returns it.
    ///
    /// # Errors
    /// `Closed`, `Fenced`, `NotFound` when the stream is over. When the log below is reopened this may wait until
    /// something is appended; [`Self::stopped`] tells.
    pub async fn wait_confirm(&self, offset: u64) -> Result<u64> {
        Ok(self.wait_past(offset, u64::MAX).await?.confirm)
    }

    /// Waits until `confirm` is beyond this, or `start` beyond that, and tells where the log is then.
    ///
    /// # Errors
    /// As [`Self::wait_confirm`].
    pub async fn wait_past(&self, confirm: u64, start: u64) -> Result<LogBounds> {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // From here on a move is not missed.
            moved.as_mut().enable();
            let data = self.data.confirm();
            let edit = {
                let state = self.usable()?;
                state.pending.front().map(|(end, _)| end.saturating_sub(1))
            };
            let bounds = self.bounds();
            if bounds.confirm > confirm || bounds.start > start {
                return Ok(bounds);
            }
            tokio::select! {
                biased;
                waited = self.data.wait_confirm(data) => { waited?; }
                waited = self.meta.wait_confirm(edit.unwrap_or(0)), if edit.is_some() => { waited?; }
                () = moved => {}
            }
        }
    }

    /// Waits until everything that was appended or changed before the call is durable.
    ///
    /// # Errors
    /// As [`Append`](crate::Append): some of it may be lost.
    pub async fn flushed(&self) -> Result<()> {
        drop(self.usable()?);
        self.data.drained().await?;
        self.meta_kept().await
    }

    /// Waits until every edit that was queued is durable.
    pub(super) async fn meta_kept(&self) -> Result<()> {
        self.meta.drained().await?;
        // What was drained may be of a later epoch.
        self.usable().map(drop)
    }

    pub(super) fn next_of(&self, list: &SegmentList) -> u64 {
        next_at(list, self.data.next())
    }

    pub(super) fn confirm_of(&self, state: &State) -> u64 {
        self.confirm_at(state, self.data.confirm())
    }

    /// `confirm`, if the data stream is durable up to this.
    fn confirm_at(&self, state: &State, confirm: u64) -> u64 {
        let list = &state.list;
        // From the end: the newest slice that begins at or below what is durable.
        let newest = list
            .segments()
            .iter()
            .rev()
            .flat_map(|segment| segment.slices.iter().rev())
            .find(|slice| slice.stream == self.data.id() && slice.start <= confirm);
        let durable = match newest {
            Some(slice) => slice.log_offset(confirm.min(slice.end.unwrap_or(confirm))),
            None => list.start(),
        };
        durable.max(list.start()).max(state.confirm_floor)
    }

    /// The state, unless the log has stopped.
    pub(super) fn usable(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.settled();
        match &state.stopped {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    /// The state with every durable edit in effect.
    pub(super) fn settled(&self) -> MutexGuard<'_, State> {
        self.look().0
    }

    /// The state with every durable edit in effect, and where the data stream was then.
    pub(super) fn look(&self) -> (MutexGuard<'_, State>, Bounds) {
        let mut state = self.state.lock();
        // Each with its epoch: what belongs to a later one is told by that.
        let (meta, data) = (self.meta.bounds(), self.data.bounds());
        if meta.epoch == self.epoch && data.epoch == self.epoch {
            state.settle(meta.confirm);
        } else {
            let error = Error::unavailable("the log below was reopened")
                .with("epoch", self.epoch)
                .with("now", meta.epoch);
            state.stop(error);
        }
        (state, data)
    }
}

/// The next offset of a log whose data stream goes on at `next`.
pub(super) fn next_at(list: &SegmentList, next: u64) -> u64 {
    match list.active_slice() {
        Some(slice) => slice.log_offset(next.max(slice.start)),
        None => list.sealed_end(),
    }
}

impl State {
    /// The meta stream is durable up to `confirm`.
    fn settle(&mut self, confirm: u64) {
        let written = self.next_checkpoint.take_if(|next| next.end <= confirm);
        if let Some(checkpoint) = written {
            self.checkpoint = Some(checkpoint.start);
        }
        while self.pending.front().is_some_and(|(end, _)| *end <= confirm) {
            let Some((_, edits)) = self.pending.pop_front() else {
                break;
            };
            for edit in &edits {
                self.take_effect(edit);
            }
        }
    }
}
