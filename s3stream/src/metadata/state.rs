//! The cluster's metadata: one deterministic state machine.
//!
//! Same entries, same state, byte for byte (M1): deciding reads nothing but the state and the entry.
//! `stream.start <= stream.end`; both only grow. `next_*` counters only grow, so no id is given twice (M3).
//! An object id is in at most one of prepared, committed and condemned. A group's owner runs under the group's `log_epoch`.
//! It does no I/O and knows no time; it does not decide what is safe to delete from the bucket, only what may never be referenced again (O4).

mod apply;
mod commit;
mod group;
mod kv;
mod node;
mod object;
mod query;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wal::{LogUuid, Position};

pub use self::{
    apply::Outcome,
    query::{Extent, StreamView},
};
use super::{
    answer::{Answer, Registered},
    entry::Tip,
};
use crate::{
    GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId,
    object::{ObjectKind, StreamRange},
};

/// The highest feature level this version understands (M7).
pub const KNOWN_LEVEL: u32 = 1;

/// Everything the cluster has agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    tip: Tip,
    level: u32,
    next: Counters,
    nodes: BTreeMap<NodeId, Node>,
    /// By log epoch, which is a node epoch and so unique in the cluster (M6).
    debts: BTreeMap<NodeEpoch, Debt>,
    groups: BTreeMap<GroupId, Group>,
    streams: BTreeMap<StreamId, StreamState>,
    kv: BTreeMap<Bytes, KvEntry>,
    /// Reserved ids with the node epoch that may commit them.
    prepared: BTreeMap<ObjectId, NodeEpoch>,
    /// Ids that are never to be committed, with the index of the entry that said so.
    condemned: BTreeMap<ObjectId, u64>,
    objects: BTreeMap<ObjectId, Object>,
    // What follows is derived from the above and never written.
    /// Stream-set objects in commit order.
    sets: BTreeMap<u64, ObjectId>,
    /// Stream objects by stream and first offset.
    extents: BTreeMap<(StreamId, u64), ObjectId>,
    tags: BTreeMap<(String, String), BTreeSet<GroupId>>,
    owned: BTreeMap<NodeId, BTreeSet<GroupId>>,
}

/// The next id of each kind.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Counters {
    epoch: u64,
    group: u64,
    stream: u64,
    object: u64,
    /// Of keys.
    version: u64,
    /// Of commits.
    order: u64,
}

impl Default for Counters {
    /// Zero is nobody's: it can stand for "none" in logs and formats of others.
    fn default() -> Self {
        Self {
            epoch: 1,
            group: 1,
            stream: 1,
            object: 1,
            version: 1,
            order: 1,
        }
    }
}

/// A node's current life.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    epoch: NodeEpoch,
    incarnation: u128,
    attempt: u64,
    /// Lives that were fenced, newest last, so that a late retry of one cannot fence its successor (M5). At most [`PAST_LIVES`].
    past: Vec<u128>,
    /// It left for good under `epoch`.
    left: bool,
    /// The answer to its registration, until its first batch.
    registered: Option<Registered>,
    /// Sequence of its last batch; 0 before the first.
    sequence: u64,
    /// The answers to that batch.
    answers: Vec<Answer>,
}

const PAST_LIVES: usize = 16;

/// A log epoch that may owe data (M6).
#[derive(Clone, PartialEq, Eq, Debug)]
struct Debt {
    log: LogUuid,
    url: String,
    node: NodeId,
    holder: NodeId,
    trim: Position,
    durable_end: Position,
    sealed_end: Option<Position>,
    started: bool,
}

/// Streams with one owner and one epoch (M3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Who may append.
    pub owner: Option<NodeId>,
    /// One more each time it is opened; 0 before the first time.
    pub epoch: StreamEpoch,
    /// The log epoch that holds, or held, the records of `epoch`.
    pub log_epoch: NodeEpoch,
    /// Its streams, ascending.
    pub streams: Vec<StreamId>,
    /// Its names, ascending.
    pub tags: Vec<(String, String)>,
}

/// A stream.
#[derive(Clone, PartialEq, Eq, Debug)]
struct StreamState {
    group: GroupId,
    start: u64,
    /// The committed end.
    end: u64,
    /// Ends of past epochs, ascending, each kept while its log epoch may still be replayed (S7).
    sealed: Vec<SealedEnd>,
}

/// Where a stream epoch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SealedEnd {
    epoch: StreamEpoch,
    log_epoch: NodeEpoch,
    end: u64,
}

/// A key's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvEntry {
    /// When it was last set; never repeated in a cluster.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// A committed object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Its place among all commits.
    pub order: u64,
    /// What it is.
    pub kind: ObjectKind,
    /// Its length in bytes.
    pub size: u64,
    /// The node epoch that wrote it.
    pub node_epoch: NodeEpoch,
    /// Its first and last stream.
    pub streams: (StreamId, StreamId),
    /// What counts in it: of a stream object the committed offsets, of a stream-set object nothing (its index and the exceptions say).
    pub offsets: std::ops::Range<u64>,
    /// How many ranges its index has.
    pub ranges: u32,
    /// Ranges of its index that do not count, or not whole (O6). Of stream-set objects only.
    pub exceptions: Vec<Exception>,
}

/// A range of an object's index that was dropped, refused or clipped (O6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    /// The range as the index has it.
    pub range: StreamRange,
    /// What of it counts; may be empty.
    pub valid: std::ops::Range<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            tip: Tip::default(),
            level: 1,
            next: Counters::default(),
            nodes: BTreeMap::new(),
            debts: BTreeMap::new(),
            groups: BTreeMap::new(),
            streams: BTreeMap::new(),
            kv: BTreeMap::new(),
            prepared: BTreeMap::new(),
            condemned: BTreeMap::new(),
            objects: BTreeMap::new(),
            sets: BTreeMap::new(),
            extents: BTreeMap::new(),
            tags: BTreeMap::new(),
            owned: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
