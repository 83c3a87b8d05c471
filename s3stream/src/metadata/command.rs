//! What a node may ask of the cluster. `docs/format.md` §Metadata.
//!
//! Every command is data: it names what it expects, so that deciding it needs nothing but the state (M1).
//! A command carries no time, no address and no credential.

use bytes::Bytes;
use wal::{LogUuid, Position};

use super::wire::{Reader, Wire, WireError, Writer, wire_enum, wire_struct};
use crate::{
    GroupId, NodeEpoch, ObjectId, StreamEpoch, StreamId,
    object::{ObjectKind, StreamRange},
};

/// One thing to decide. The commands of a batch are decided in order; a refused one stops none of the others.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Command {
    /// The log was replayed: seal what was, and serve (F0 step 5).
    Started(Started),
    /// A new group with as many new streams.
    CreateGroup(CreateGroup),
    /// Become the owner of groups that nobody owns (M3).
    Open {
        /// The groups; each is decided by itself.
        groups: Vec<GroupId>,
    },
    /// A move to nobody: accepted for a group iff all its streams are committed up to the ends given.
    Close {
        /// The groups; each is decided by itself.
        groups: Vec<CloseGroup>,
    },
    /// Streams begin later. Changes no extent (M4).
    Trim {
        /// The streams; each is decided by itself.
        streams: Vec<TrimStream>,
    },
    /// Groups and their streams are no more. Changes no extent (M4).
    Destroy {
        /// The groups with their current epochs; each is decided by itself.
        groups: Vec<(GroupId, StreamEpoch)>,
    },
    /// Reserve object ids.
    Prepare {
        /// How many.
        count: u32,
    },
    /// An object becomes visible (O1).
    Commit(Commit),
    /// Objects must never be committed, and may be deleted after a grace (O4). What is committed must be referenced by nothing that lives.
    Condemn {
        /// The objects; each is decided by itself.
        objects: Vec<ObjectId>,
    },
    /// A committed stream-set object of which nothing lives becomes condemned (O4, O6).
    Collect {
        /// The object.
        object: ObjectId,
        /// All ranges of its index.
        ranges: Vec<StreamRange>,
    },
    /// Condemned objects were deleted.
    Forget {
        /// The objects; each is decided by itself.
        objects: Vec<ObjectId>,
    },
    /// Log epochs in which nothing is owed any more (M6).
    Retire {
        /// The log.
        log: LogUuid,
        /// Its epochs; each is decided by itself.
        epochs: Vec<NodeEpoch>,
    },
    /// Set or remove a key.
    KvPut(KvPut),
    /// The node goes for good: it owns nothing and owes nothing.
    Leave,
    /// From now on commands of this level may be sent (M7).
    RaiseLevel {
        /// The level.
        level: u32,
    },
    /// Log epochs may give up what is below although no object was needed, as when all of it was trimmed or destroyed (W7).
    /// It never goes alone when a commit is at hand.
    TrimLog {
        /// The log.
        log: LogUuid,
        /// Its epochs; each is decided by itself. `with_this` counts.
        trim: Vec<LogTrim>,
    },
}

// Persisted: never renumber.
wire_enum!(Command as "command" {
    1 => Started(started),
    2 => CreateGroup(create),
    3 => Open { groups },
    4 => Close { groups },
    5 => Trim { streams },
    6 => Destroy { groups },
    7 => Prepare { count },
    8 => Commit(commit),
    9 => Condemn { objects },
    10 => Collect { object, ranges },
    11 => Forget { objects },
    12 => Retire { log, epochs },
    13 => KvPut(put),
    14 => Leave,
    15 => RaiseLevel { level },
    16 => TrimLog { log, trim },
});

impl Command {
    /// Whether it decides who serves what: such commands go first (M5).
    pub(crate) fn is_ownership(&self) -> bool {
        matches!(
            self,
            Self::Started(_)
                | Self::CreateGroup(_)
                | Self::Open { .. }
                | Self::Close { .. }
                | Self::Destroy { .. }
                | Self::Leave
        )
    }
}

/// The log a node brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRegistration {
    /// The log's own name, drawn when it was made.
    pub uuid: LogUuid,
    /// Where it is, without credentials: for people, and for a later taker.
    pub url: String,
}
wire_struct!(LogRegistration { uuid, url });

/// What a replay found (F0 step 5, W8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Started {
    /// The log.
    pub log: LogUuid,
    /// Where the granted epoch begins: its first trim position.
    pub start: Position,
    /// The sealed end of every started epoch of this log that has none yet. One that has must be the same.
    pub ends: Vec<(NodeEpoch, Position)>,
    /// Where each stream of the node ends according to the replay. A stream that is not listed ends at its committed end.
    pub streams: Vec<(StreamId, u64)>,
}
wire_struct!(Started {
    log,
    start,
    ends,
    streams
});

/// A group to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateGroup {
    /// How many streams, at least one.
    pub streams: u32,
    /// Names to find it by; kept sorted and without repetition.
    pub tags: Vec<(String, String)>,
    /// Whether the node opens it at once.
    pub open: bool,
}
wire_struct!(CreateGroup {
    streams,
    tags,
    open
});

/// A group to be closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseGroup {
    /// The group.
    pub group: GroupId,
    /// Its current epoch.
    pub epoch: StreamEpoch,
    /// For each of its streams, where its last acknowledged record ends.
    pub ends: Vec<(StreamId, u64)>,
}
wire_struct!(CloseGroup { group, epoch, ends });

/// A stream that begins later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrimStream {
    /// The stream.
    pub stream: StreamId,
    /// Its current epoch.
    pub epoch: StreamEpoch,
    /// What is below is removed (`..start`).
    pub start: u64,
}
wire_struct!(TrimStream {
    stream,
    epoch,
    start
});

// Persisted: never renumber.
wire_enum!(ObjectKind as "object kind" { 1 => StreamSet, 2 => Stream });

impl Wire for StreamRange {
    const LEAST: usize = 4;
    fn put(&self, out: &mut Writer) {
        self.stream.put(out);
        self.epoch.put(out);
        self.offsets.put(out);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            stream: Wire::get(from)?,
            epoch: Wire::get(from)?,
            offsets: Wire::get(from)?,
        })
    }
}

/// An object that is complete in the bucket, and what of the log it settles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// A prepared id of this node epoch.
    pub object: ObjectId,
    /// What it is.
    pub kind: ObjectKind,
    /// Its length in bytes.
    pub size: u64,
    /// All ranges of its index, ascending by stream, then start; those of one stream touch or leave gaps but never overlap.
    pub ranges: Vec<StreamRange>,
    /// The log whose records it holds. A stale stream epoch is accepted only from the holder of that log's debt (M4).
    pub log: LogUuid,
    /// Log epochs that may give up what is below (W7).
    pub trim: Vec<LogTrim>,
}

/// A trim of one log epoch, monotone; positions below what is recorded change nothing (W7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogTrim {
    /// The log epoch.
    pub epoch: NodeEpoch,
    /// Below this everything was settled before this commit.
    pub settled: Position,
    /// Below this everything is settled if this commit settles every one of its ranges. At least `settled`.
    pub with_this: Position,
    /// The log's durable end when this was sent; at least both.
    pub durable_end: Position,
}
wire_struct!(LogTrim {
    epoch,
    settled,
    with_this,
    durable_end
});

impl Wire for Commit {
    const LEAST: usize = 20;
    fn put(&self, out: &mut Writer) {
        self.object.put(out);
        self.kind.put(out);
        self.size.put(out);
        put_ranges(&self.ranges, out);
        self.log.put(out);
        self.trim.put(out);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            object: Wire::get(from)?,
            kind: Wire::get(from)?,
            size: Wire::get(from)?,
            ranges: get_ranges(from)?,
            log: Wire::get(from)?,
            trim: Wire::get(from)?,
        })
    }
}

/// Delta-coded when sorted, which every commit that is accepted is; a first byte says so, so that any list has a form.
fn put_ranges(ranges: &[StreamRange], out: &mut Writer) {
    let sorted = ranges.is_sorted_by_key(|range| range.stream);
    sorted.put(out);
    out.varint(ranges.len() as u64);
    let mut before = 0;
    for range in ranges {
        let stream = range.stream.get();
        out.varint(if sorted { stream - before } else { stream });
        before = stream;
        range.epoch.put(out);
        range.offsets.put(out);
    }
}

fn get_ranges(from: &mut Reader<'_>) -> Result<Vec<StreamRange>, WireError> {
    let sorted = bool::get(from)?;
    let count = from.count(StreamRange::LEAST)?;
    let mut ranges = Vec::with_capacity(count.min(1024));
    let mut before = 0u64;
    for _ in 0..count {
        let base = if sorted { before } else { 0 };
        before = base
            .checked_add(from.varint()?)
            .ok_or(WireError::Impossible("stream above 64 bits"))?;
        ranges.push(StreamRange {
            stream: StreamId::new(before),
            epoch: Wire::get(from)?,
            offsets: Wire::get(from)?,
        });
    }
    // One form only: a list that is sorted is never written as if it were not.
    if !sorted && ranges.is_sorted_by_key(|range| range.stream) {
        return Err(WireError::Impossible("sorted ranges in unsorted form"));
    }
    Ok(ranges)
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvPut {
    /// The key.
    pub key: Bytes,
    /// What must be there now; `None` accepts anything.
    pub expect: Option<Expect>,
    /// The value; `None` removes the key.
    pub value: Option<Bytes>,
}
wire_struct!(KvPut { key, expect, value });

/// What a [`KvPut`] requires of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It was last set with this version.
    Version(u64),
}
wire_enum!(Expect as "expectation" { 1 => Absent, 2 => Version(version) });
