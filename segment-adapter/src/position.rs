//! What calls on a log take and answer: plain values, without behaviour.

use bytes::Bytes;

/// Where a log is: `log_start <= hw <= leo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first offset that can be read.
    pub log_start: i64,
    /// High watermark: one past the last offset that is durable and readable (K2).
    pub hw: i64,
    /// Log end offset: what the next record will get.
    pub leo: i64,
}

/// What an append did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendInfo {
    /// Offset of the first record; -1 if there was no whole batch and nothing was appended.
    pub first_offset: i64,
    /// Offset of the last record; -1 as above.
    pub last_offset: i64,
    /// The largest timestamp of the batch; -1 for none.
    pub max_timestamp: i64,
    /// The time of the append on a topic that keeps it, else -1.
    pub log_append_time: i64,
    /// Log start offset at the time of the append.
    pub log_start: i64,
    /// Bytes of the batch; what followed it was cut off and is not kept.
    pub valid_bytes: u64,
    /// The batch was appended before: offsets are those of then, both times the largest timestamp of then.
    pub duplicate: bool,
}

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchData {
    /// Whole stored batches in offset order, the first holding the offset asked for or the next there is.
    pub records: Vec<Bytes>,
    /// Where the log was before the read.
    pub offsets: Offsets,
}

/// What to look for in [`KafkaLog::fetch_offset_for_timestamp`](crate::KafkaLog::fetch_offset_for_timestamp).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or after this time, in milliseconds.
    At(i64),
}

/// An offset found by time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampOffset {
    /// The offset, -1 if there is none.
    pub offset: i64,
    /// The timestamp of the record, -1 if no record was looked for or there is none.
    pub timestamp: i64,
    /// The leader epoch of the record's batch, -1 if it is not known.
    pub leader_epoch: i32,
}

impl TimestampOffset {
    /// Nothing there.
    pub const NONE: Self = Self {
        offset: -1,
        timestamp: -1,
        leader_epoch: -1,
    };
}
