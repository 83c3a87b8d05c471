//! A reader that follows a stream: what is there, then what comes.
//!
//! It holds at most one fetch. A passing failure is yielded and the next poll tries again; a final one ends it.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;

use super::Stream;
use crate::{ErrorKind, RecordBatch, Result};

/// How long a reader pauses after a passing failure, so that one that polls in a loop does not spin.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes asked for at once.
const FETCH_BYTES: usize = 1024 * 1024;

/// The records of a stream as a [`futures::Stream`]. Made by [`Stream::tail`].
///
/// It ends after a final error: `OutOfRange` when it is overtaken by a trim, `Closed`, `Fenced`, `NotFound`,
/// `Corrupt`. After `Unavailable` it goes on when it is polled again, after a short pause of its own.
pub struct Tail {
    stream: Stream,
    next: u64,
    fetched: VecDeque<RecordBatch>,
    fetching: Option<BoxFuture<'static, Result<Vec<RecordBatch>>>>,
    /// The last fetch failed for now.
    failed: bool,
    ended: bool,
}

impl Tail {
    pub(crate) fn new(stream: Stream, from: u64) -> Self {
        Self {
            stream,
            next: from,
            fetched: VecDeque::new(),
            fetching: None,
            failed: false,
            ended: false,
        }
    }

    /// The offset after the last record that was yielded.
    pub fn next_offset(&self) -> u64 {
        self.next
    }
}

impl futures::Stream for Tail {
    type Item = Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some(record) = this.fetched.pop_front() {
                this.next = record.offsets.end;
                return Poll::Ready(Some(Ok(record)));
            }
            let pause = this.failed.then_some(PAUSE);
            let fetching = this
                .fetching
                .get_or_insert_with(|| Box::pin(fetch(this.stream.clone(), this.next, pause)));
            let fetched = ready!(fetching.as_mut().poll(context));
            this.fetching = None;
            this.failed = fetched.is_err();
            match fetched {
                Ok(records) => this.fetched = records.into(),
                Err(error) => {
                    this.ended = error.kind() != ErrorKind::Unavailable;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

/// Never empty.
async fn fetch(stream: Stream, from: u64, pause: Option<Duration>) -> Result<Vec<RecordBatch>> {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
    loop {
        let fetched = stream.fetch(from, FETCH_BYTES).await?;
        if !fetched.records.is_empty() {
            return Ok(fetched.records);
        }
        stream.wait_confirm(from).await?;
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("stream", &self.stream.id())
            .field("next", &self.next)
            .finish()
    }
}
