//! A log that takes appends, and the sink that hears when they are durable.
//!
//! - `trim ≤ durable end ≤ end`, each of them monotone.
//! - Commits reach the sink in append order, one call at a time, each record once.
//!
//! It does not look into records, does not wait, and does not repeat a write that failed (W6).

use std::{fmt::Debug, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Position};

/// Room in a log, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// What it can hold.
    pub capacity: u64,
    /// What it holds: from the lowest byte that cannot be reused yet to the end, headers and padding included.
    pub used: u64,
    /// What may wait to be written.
    pub queue_capacity: u64,
    /// What waits. A record is let in whatever its size when this is 0.
    pub queued: u64,
    /// What a record takes at most beside its own bytes.
    pub overhead: u64,
    /// What a record takes at least, if that is more.
    pub least: u64,
}

impl Usage {
    /// The most that a record of `len` bytes adds to `used` and to `queued`.
    pub fn room_for(&self, len: u64) -> u64 {
        (len + self.overhead).max(self.least)
    }

    /// Whether records that take `promised`, and one more of `len` bytes, are not refused as `Full` (S9).
    pub fn admits(&self, promised: u64, len: u64) -> bool {
        let more = promised + self.room_for(len);
        let alone = self.queued == 0 && promised == 0;
        self.used + more <= self.capacity && (alone || self.queued + more <= self.queue_capacity)
    }
}

/// Takes appends for one epoch. Dropping it without [`close`](Self::close) is a crash: what was acknowledged replays.
#[async_trait]
pub trait Log: Send + Sync + Debug {
    /// Queues one record made of `parts`, gathered by one copy. Never waits; the order of calls is the order of records (W1). The sink hears of it
    /// when it is durable, never from inside this call. The range is where the record will be.
    ///
    /// # Errors
    /// `Full` until a trim or a completion makes room, never while [`Usage::admits`] the record; `TooLarge`, `Invalid` for an empty record, `Closed`, `Failed` and `Fenced`. None of them has
    /// reserved anything.
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error>;

    /// Gives up everything below `to`, which the caller has recorded before (W7). Monotone: a lower one is ignored, one past the durable end counts
    /// as the durable end. Works in the background; then [`Sink::room`].
    fn trim(&self, to: Position);

    /// Room taken and room there is.
    fn usage(&self) -> Usage;

    /// The longest record that is ever accepted, in bytes.
    fn max_record_len(&self) -> usize;

    /// The end of the last acknowledged record, or where the epoch began. This is the value to record with a trim (W7, F2).
    fn durable_end(&self) -> Position;

    /// Takes no more appends, waits for those in flight and their delivery to the sink, records the durable end and, if all is trimmed, that nothing is
    /// owed ([`Found::Closed`](crate::Found::Closed)). Exclusive use ends. A second call does nothing. Must not be awaited inside a sink call.
    ///
    /// # Errors
    /// `Failed` or `Fenced` if the log was, `Io` if the closing write is refused.
    async fn close(&self) -> Result<(), Error>;
}

/// Hears what became of appends: on the log's completion context, in order, one call at a time. Must not block. Never called from inside
/// [`Log::append`], nor under a lock of the log: a sink may append and trim.
pub trait Sink: Send + Sync {
    /// These records are durable (W2), in append order and next to the last commit (W3).
    fn durable(&self, commit: Commit);

    /// The log takes nothing more (W6). Called once, after it no other call. What was appended and not reported durable may or may not replay.
    fn failed(&self, error: &Error);

    /// Appends that were refused as `Full` may fit now.
    fn room(&self);
}

/// Records that became durable together.
#[derive(Clone, Debug)]
pub struct Commit {
    /// What it takes in the log, header and padding included.
    pub range: Range<Position>,
    /// The bytes of memory and log it holds, header and padding included.
    pub footprint: usize,
    /// The records, in append order.
    pub records: Vec<Durable>,
}

/// One record that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Durable {
    /// The range its append returned.
    pub position: Range<Position>,
    /// Its bytes: a slice of the log's own memory, no copy.
    pub payload: Bytes,
}

impl<S: Sink + ?Sized> Sink for Arc<S> {
    fn durable(&self, commit: Commit) {
        (**self).durable(commit);
    }

    fn failed(&self, error: &Error) {
        (**self).failed(error);
    }

    fn room(&self) {
        (**self).room();
    }
}
