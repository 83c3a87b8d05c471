//! What an append answers: a future of the offsets it took.

use std::{
    fmt,
    future::Future,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::progress::{Progress, Ticket};
use crate::{Result, StreamEpoch};

/// An append that is queued in the log. Resolves to its offsets once they are durable and readable.
///
/// Appends of one stream resolve in order. Dropping it does not cancel the append.
///
/// # Errors
/// Every error may have happened ([`Error::may_have_happened`](crate::Error::may_have_happened)): the record was
/// queued, and only its outcome is unknown.
#[must_use = "the record is durable only when this resolves"]
pub struct Append {
    progress: Arc<Progress>,
    epoch: StreamEpoch,
    offsets: Range<u64>,
    ticket: Option<Ticket>,
}

impl Append {
    pub(crate) fn new(progress: Arc<Progress>, epoch: StreamEpoch, offsets: Range<u64>) -> Self {
        Self {
            progress,
            epoch,
            offsets,
            ticket: None,
        }
    }

    /// The ownership under which it was queued.
    pub(crate) fn epoch(&self) -> StreamEpoch {
        self.epoch
    }

    /// The offsets it took; known before it is durable.
    pub fn offsets(&self) -> Range<u64> {
        self.offsets.clone()
    }
}

impl Future for Append {
    type Output = Result<Range<u64>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let end = this.offsets.end;
        this.progress
            .poll_append(this.epoch, end, &mut this.ticket, context)
            .map_ok(|()| this.offsets.clone())
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.progress.leave(ticket);
        }
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("stream", &self.progress.stream)
            .field("epoch", &self.epoch)
            .field("offsets", &self.offsets)
            .finish()
    }
}

/// Resolves to `confirm` once it is beyond an offset.
pub(crate) struct Confirmed {
    progress: Arc<Progress>,
    beyond: u64,
    ticket: Option<Ticket>,
}

impl Confirmed {
    pub(crate) fn new(progress: Arc<Progress>, beyond: u64) -> Self {
        Self {
            progress,
            beyond,
            ticket: None,
        }
    }
}

impl Future for Confirmed {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.progress
            .poll_confirm(this.beyond, &mut this.ticket, context)
    }
}

impl Drop for Confirmed {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.progress.leave(ticket);
        }
    }
}
