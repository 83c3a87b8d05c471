//! The shared log under the state machine: append-if-next, load, look, snapshot. It knows bytes and the chain, not commands.
//!
//! All nodes see the same entries in the same order; an entry that was seen stays (M8). It does not apply anything.

mod bucket;
mod memory;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "testing")]
pub use self::bucket::{head_again, segment_again};
pub use self::{
    bucket::{BucketLimits, BucketSequencer},
    memory::MemorySequencer,
};
use super::entry::{EncodedEntry, Tip};
use crate::Result;

/// A whole log: where it starts from, and all that follows.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The state's bytes at the tip given; `None` is the empty state.
    pub snapshot: Option<(Tip, Bytes)>,
    /// All entries after it, each following the one before.
    pub entries: Vec<EncodedEntry>,
}

/// What came after a tip.
#[derive(Clone, Debug)]
pub enum News {
    /// These entries, each following the one before; the first follows the tip. None: it is still the tip.
    Entries(Vec<EncodedEntry>),
    /// The entries after the tip are not kept any more: start from this.
    Reload(Loaded),
}

/// One node's access to the log. A failure is `Unavailable` if trying again can help, and definite: what was asked was not done and
/// will not be. Anything else (`Corrupt`, `Invalid`) is final: the caller stops.
#[async_trait]
pub trait Sequencer: Send + Debug {
    /// The whole log as of now.
    async fn load(&mut self) -> Result<Loaded>;

    /// Appends `entry` iff it follows the log's tip, and gives what came after the entry's predecessor: beginning with `entry` itself
    /// if it was taken, without it if another's came first; then it never will be. It returns only when that is certain, however long
    /// the store leaves it open.
    async fn append(&mut self, entry: &EncodedEntry) -> Result<News>;

    /// What came after `tip`. Costs one small request when nothing did.
    async fn look(&mut self, tip: Tip) -> Result<News>;

    /// Whether loading would be cheaper by a snapshot at the tip.
    fn wants_snapshot(&self) -> bool;

    /// Keeps `state`, the state's bytes at `tip`. Nothing is lost if it fails.
    async fn snapshot(&mut self, tip: Tip, state: Bytes) -> Result<()>;
}
