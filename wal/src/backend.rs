//! Where a log lives and how it comes back: the contract between a log and whoever keeps its state.
//!
//! The order of calls is the contract's first half (F0): [`Backend::open`] fences and scans and changes nothing a later open with the same
//! state would not accept; the caller records [`Replay::ends`] and [`Replay::start_position`]; only then [`Replay::start`]. A crash between any
//! two of them leaves what the next opening needs.

use std::{fmt::Debug, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{EpochEnd, Error, Identity, Log, LogEpoch, LogState, Position, Sink};

/// What is at a place, as far as reading alone can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing: no log was ever made here.
    Blank,
    /// A log that owes nothing: closed when all of it was trimmed, or made and never started. It may be made anew under another identity.
    Closed(Identity),
    /// A log that may owe data.
    Live(Identity),
}

/// A place where one log can live.
///
/// Every implementation keeps the W contracts, and passes `testing::conformance` (feature `testing`):
///
/// - **W1** Replay order is append order, without gaps.
/// - **W2** An acknowledged record replays until trimmed; an unacknowledged one may.
/// - **W3** Acknowledgements resolve in order.
/// - **W4** A record replays whole or not at all.
/// - **W5** Every record that an epoch below E ever acknowledges, whenever the acknowledgement is delivered, is in what `open(E)` replays.
/// - **W6** A write has *failed* only when its outcome can no longer be made certain; after that every append fails until the log is reopened.
///   Nothing that failed is retried. A failure by fencing is final and says by whom.
/// - **W7** Trim is monotone. The caller records a trim before it calls [`Log::trim`], and tells it at open. Below it nothing is looked at; a
///   trimmed record may still replay and the caller drops it.
/// - **W8** What `open` replayed is final: it is durable before `open` returns, a later open with the recorded sealed ends replays exactly that,
///   and past a seal nothing of a lower epoch is valid.
#[async_trait]
pub trait Backend: Send + Sync + Debug {
    /// The place, for messages and registration. Never a secret.
    fn url(&self) -> String;

    /// What is there. Reads only. Refused while another process has exclusive use, where the place knows: a caller
    /// asks this before it registers, so that a process started by mistake does not fence the owner.
    ///
    /// # Errors
    /// `InUse`, `Io`, `Corrupt`, `UnknownFormat`.
    async fn identify(&self) -> Result<Found, Error>;

    /// Takes the log for `state.epoch`: exclusive use, fence, scan; what will replay is durable when this returns (W8).
    ///
    /// # Errors
    /// `InUse`, `Fenced`, `Mismatch`, `NotNew`, `Missing`, `UnknownFormat`, `Unguarded`, `Corrupt`, `Io`, `Invalid`. After any of them the place
    /// takes the same state again; a fence that was put stays.
    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error>;
}

/// One record that came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// The epoch that wrote it.
    pub epoch: LogEpoch,
    /// Where it is. Ranges ascend; between two of them lie headers and padding.
    pub position: Range<Position>,
    /// What was appended.
    pub payload: Bytes,
    /// Its share of the log's and the memory's bytes, headers and padding included. The shares of a commit add up to the commit.
    pub footprint: usize,
}

/// An opened log before it takes appends. Dropping it gives the place back unchanged.
#[async_trait]
pub trait Replay: Send {
    /// Per started, owed epoch in the state, ascending: where it ends. The caller records them as sealed ends before [`start`](Self::start), and
    /// before it serves anything that was replayed (W8). For an epoch that was sealed already it is the same end.
    fn ends(&self) -> &[EpochEnd];

    /// Where the granted epoch will begin. The caller records it as that epoch's first trim.
    fn start_position(&self) -> Position;

    /// The next records, in order (W1), in pieces of a few MiB at most, or of one record if that is larger; `None` at the end, and again
    /// after it.
    ///
    /// # Errors
    /// `Io`, `Corrupt`. The replay cannot be continued, only [rewound](Self::rewind).
    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error>;

    /// Begins again at the trim positions. A caller may replay as often as it likes: once to index, once to load.
    ///
    /// # Errors
    /// `Io`.
    async fn rewind(&mut self) -> Result<(), Error>;

    /// Writes the new epoch and begins to take appends. Only after the ends were recorded.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error>;
}
