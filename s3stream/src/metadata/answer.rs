//! What the state machine answers. `docs/format.md` §Metadata.
//!
//! One answer for each command, in order. They are kept for the last batch of every node, so a retry gives the first answer (M5).

use std::ops::Range;

use wal::{LogUuid, Position};

use super::wire::{wire_enum, wire_struct};
use crate::{GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId};

/// The outcome of one command. Lists have one item for each item of the command.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The log epoch is started; these groups are served under these epochs.
    Started {
        /// Groups of the node with their new epochs.
        groups: Vec<(GroupId, StreamEpoch)>,
    },
    /// The group exists.
    GroupCreated {
        /// Its id.
        group: GroupId,
        /// Its streams.
        streams: Vec<StreamId>,
        /// Its epoch: 1 if it was opened, else 0.
        epoch: StreamEpoch,
    },
    /// Per group.
    Opened(Vec<Result<OpenedGroup, Refusal>>),
    /// Per group.
    Closed(Vec<Result<GroupId, Refusal>>),
    /// Per stream: where it starts now.
    Trimmed(Vec<Result<u64, Refusal>>),
    /// Per group.
    Destroyed(Vec<Result<GroupId, Refusal>>),
    /// These ids are the node's.
    Prepared {
        /// Object ids.
        objects: Range<u64>,
    },
    /// The commit was decided range by range.
    Committed(Committed),
    /// Per object.
    Condemned(Vec<Result<ObjectId, Refusal>>),
    /// Per object.
    Forgotten(Vec<Result<ObjectId, Refusal>>),
    /// Per log epoch.
    Retired(Vec<Result<NodeEpoch, Refusal>>),
    /// The key was set or removed.
    KvDone {
        /// The version of this change; never repeated in a cluster.
        version: u64,
    },
    /// The key is not as expected.
    KvConflict {
        /// The version that is there; `None` if the key does not exist.
        current: Option<u64>,
    },
    /// The node has left.
    Left,
    /// The level is at least what was asked.
    Level {
        /// The level.
        level: u32,
    },
    /// Per log epoch: its trim position afterwards.
    LogTrimmed(Vec<(NodeEpoch, Result<Position, Refusal>)>),
    /// Nothing was changed.
    Refused(Refusal),
}

// Persisted: never renumber.
wire_enum!(Answer as "answer" {
    1 => Started { groups },
    2 => GroupCreated { group, streams, epoch },
    3 => Opened(groups),
    4 => Closed(groups),
    5 => Trimmed(streams),
    6 => Destroyed(groups),
    7 => Prepared { objects },
    8 => Committed(committed),
    9 => Condemned(objects),
    10 => Forgotten(objects),
    11 => Retired(epochs),
    12 => KvDone { version },
    13 => KvConflict { current },
    14 => Left,
    15 => Level { level },
    16 => Refused(refusal),
    17 => LogTrimmed(trims),
});

/// The answer to a registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// The granted node epoch; also the number of the new log epoch.
    pub epoch: NodeEpoch,
    /// What the node owes in the registered log, ascending by epoch, without the granted one.
    pub log_state: Vec<DebtView>,
    /// A first batch of prepared object ids.
    pub objects: Range<u64>,
}
wire_struct!(Registered {
    epoch,
    log_state,
    objects
});

/// One log epoch that may owe data (M6, W7, W8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DebtView {
    /// The log.
    pub log: LogUuid,
    /// Where it is.
    pub url: String,
    /// The log epoch.
    pub epoch: NodeEpoch,
    /// The node whose epoch it is.
    pub node: NodeId,
    /// Who must settle it.
    pub holder: NodeId,
    /// Nothing below is looked at.
    pub trim: Position,
    /// The log's durable end when `trim` was recorded.
    pub durable_end: Position,
    /// Where the epoch ends, once it is known.
    pub sealed_end: Option<Position>,
    /// Whether the epoch may have acknowledged anything.
    pub started: bool,
}
wire_struct!(DebtView {
    log,
    url,
    epoch,
    node,
    holder,
    trim,
    durable_end,
    sealed_end,
    started
});

/// A group that the node now owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenedGroup {
    /// The group.
    pub group: GroupId,
    /// Its epoch.
    pub epoch: StreamEpoch,
    /// Its streams with start and committed end, where appends go on.
    pub streams: Vec<(StreamId, Range<u64>)>,
}
wire_struct!(OpenedGroup {
    group,
    epoch,
    streams
});

/// How a commit went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Whether the object is visible now; if not, nothing in it counts and it is condemned.
    pub visible: bool,
    /// What became of ranges, by their index in the command; a range that is not listed was committed whole.
    pub exceptions: Vec<(u32, RangeOutcome)>,
    /// The trim positions of the named log epochs afterwards.
    pub trims: Vec<(NodeEpoch, Result<Position, Refusal>)>,
}
wire_struct!(Committed {
    visible,
    exceptions,
    trims
});

impl Committed {
    /// Whether every range is settled: committed, or never to be needed again.
    pub fn settles_all(&self) -> bool {
        self.exceptions
            .iter()
            .all(|(_, outcome)| outcome.is_settled())
    }
}

/// What became of one range of a commit, in M4's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RangeOutcome {
    /// The stream is destroyed. Settled.
    Dropped,
    /// The stream starts past it. Settled.
    Trimmed,
    /// It was committed before. Settled.
    AlreadyThere,
    /// Of an ended epoch: what lies past the sealed end was never acknowledged. Settled; what lies before it is committed.
    PastSealedEnd {
        /// The sealed end of the range's epoch.
        sealed_end: u64,
    },
    /// What precedes it is not committed: to be sent again after that, under a new object id.
    NotSettled {
        /// Where the stream's committed end is.
        committed_end: u64,
    },
    /// A defect: the stream becomes unavailable and its records need a quarantine (M4).
    Impossible(Refusal),
}
wire_enum!(RangeOutcome as "range outcome" {
    1 => Dropped,
    2 => Trimmed,
    3 => AlreadyThere,
    4 => PastSealedEnd { sealed_end },
    5 => NotSettled { committed_end },
    6 => Impossible(refusal),
});

impl RangeOutcome {
    /// Whether nothing of the range is owed any more.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Dropped | Self::Trimmed | Self::AlreadyThere | Self::PastSealedEnd { .. } => true,
            Self::NotSettled { .. } | Self::Impossible(_) => false,
        }
    }
}

/// Why nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such group, stream, object or log epoch.
    #[error("not found")]
    NotFound,
    /// Another node owns it (M3).
    #[error("owned by node {0}")]
    OwnedBy(NodeId),
    /// Nobody owns it, or not under the current life of this node.
    #[error("not owned by this node")]
    NotOwner,
    /// It has another epoch now (M2).
    #[error("stream epoch is {0}")]
    StaleEpoch(StreamEpoch),
    /// Something is not committed yet.
    #[error("stream {stream} is committed up to {committed_end}, not up to {end}")]
    NotSettled {
        /// The stream.
        stream: StreamId,
        /// Its committed end.
        committed_end: u64,
        /// The end that was claimed or is sealed.
        end: u64,
    },
    /// The node owes data in another log: settle that one first, or abandon it (M6).
    #[error("the node owes data in log {uuid} at {url}")]
    OtherLog {
        /// That log.
        uuid: LogUuid,
        /// Where it is.
        url: String,
    },
    /// The log's debts are another node's.
    #[error("the log's debts are held by node {0}")]
    HeldBy(NodeId),
    /// The node's log epoch is not started, so it may acknowledge nothing (F0).
    #[error("the node's log epoch is not started")]
    NotStarted,
    /// It was started before.
    #[error("the log epoch is started already")]
    AlreadyStarted,
    /// A started log epoch was given no end, or one that differs from what is recorded.
    #[error("log epoch {0} needs its sealed end")]
    SealedEnd(NodeEpoch),
    /// A replay ended below what is known to be durable: data was lost, or the replay is wrong.
    #[error("log epoch {epoch} ends at {found}, durable was {known}")]
    EndBelowDurable {
        /// The log epoch.
        epoch: NodeEpoch,
        /// Where the replay ended.
        found: Position,
        /// The recorded trim position or durable end.
        known: Position,
    },
    /// The replay says that a stream ends below its committed end: a defect.
    #[error("stream {stream} is committed up to {committed_end}, the replay says {end}")]
    EndBelowCommitted {
        /// The stream.
        stream: StreamId,
        /// Its committed end.
        committed_end: u64,
        /// The end the replay gave.
        end: u64,
    },
    /// The object is condemned, or was never this node epoch's: nothing may refer to it (O4).
    #[error("object {0} may not be committed")]
    NotPrepared(ObjectId),
    /// Something that lives refers to it.
    #[error("object {0} is referenced")]
    Referenced(ObjectId),
    /// The object is not condemned.
    #[error("object {0} is not condemned")]
    NotCondemned(ObjectId),
    /// The log epoch may still take records.
    #[error("log epoch {0} is in use")]
    InUse(NodeEpoch),
    /// The range overlaps what is committed, but is not it: two histories of one stream.
    #[error("range {start}..{end} overlaps the committed end {committed_end}")]
    Overlap {
        /// The range's start.
        start: u64,
        /// The range's end.
        end: u64,
        /// The stream's committed end.
        committed_end: u64,
    },
    /// The range's epoch is neither current nor one with a sealed end in a log that this node settles.
    #[error("stream epoch {0} is neither current nor sealed")]
    UnknownEpoch(StreamEpoch),
    /// The command is malformed.
    #[error("{0}")]
    Malformed(String),
    /// A limit of the format or of the cluster.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The node owns groups or owes data, so it cannot leave.
    #[error("the node still owns {groups} groups and owes data in {debts} log epochs")]
    NotIdle {
        /// Groups it owns.
        groups: u64,
        /// Log epochs it must settle.
        debts: u64,
    },
    /// The command needs a higher feature level (M7).
    #[error("the cluster's feature level is {0}")]
    Level(u32),
}
wire_enum!(Refusal as "refusal" {
    1 => NotFound,
    2 => OwnedBy(node),
    3 => NotOwner,
    4 => StaleEpoch(epoch),
    5 => NotSettled { stream, committed_end, end },
    6 => OtherLog { uuid, url },
    7 => HeldBy(node),
    8 => NotStarted,
    9 => AlreadyStarted,
    10 => SealedEnd(epoch),
    11 => EndBelowDurable { epoch, found, known },
    12 => EndBelowCommitted { stream, committed_end, end },
    13 => NotPrepared(object),
    14 => Referenced(object),
    15 => NotCondemned(object),
    16 => InUse(epoch),
    17 => Overlap { start, end, committed_end },
    18 => UnknownEpoch(epoch),
    19 => Malformed(why),
    20 => TooLarge(why),
    21 => NotIdle { groups, debts },
    22 => Level(level),
});
