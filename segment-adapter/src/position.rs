//! What calls on a log take and answer: plain values, without behaviour.

use bytes::Bytes;

use crate::verification::Guard;

/// Where a log is: `log_start <= lso <= hw <= confirmed <= leo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first offset that can be read.
    pub log_start: i64,
    /// Last stable offset: no transaction is open or undecided below it (floored at the log start).
    pub lso: i64,
    /// High watermark: one past the last offset that consumers read. What is durable, unless the broker has set it lower.
    pub hw: i64,
    /// One past the last offset that is durable (K2).
    pub confirmed: i64,
    /// Log end offset: what the next record will get.
    pub leo: i64,
}

/// How far a reader sees. What is not durable is nobody's, so a follower sees no further than that (K2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// All that is durable, to copy it: a follower's reads.
    LogEnd,
    /// Below the high watermark, whatever becomes of its transactions: "read uncommitted".
    #[default]
    HighWatermark,
    /// Below the last stable offset, with the aborted transactions named: "read committed".
    TxnCommitted,
}

impl Offsets {
    /// Where a reader's sight ends.
    pub fn bound(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::LogEnd => self.confirmed,
            Isolation::HighWatermark => self.hw,
            Isolation::TxnCommitted => self.lso,
        }
    }
}

/// Who makes an append as leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Origin {
    /// A producer: everything is checked.
    #[default]
    Client,
    /// A coordinator of groups or transactions: no sequences, and it may write markers.
    Coordinator,
}

/// The feature level `transaction.version` that a transaction is under. 0 and 1 do not differ here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionVersion {
    /// Before flexible records of the coordinator.
    V0,
    /// The epoch of a producer stays over its transactions.
    V1,
    /// The epoch of a producer rises with each transaction; a marker carries the next one (KIP-890).
    V2,
}

/// What an append as leader comes with besides its records.
#[derive(Clone, Debug, Default)]
pub struct AppendOptions {
    /// Who appends.
    pub origin: Origin,
    /// Of the verification that was started for a transaction that may begin with this batch.
    pub guard: Guard,
    /// Needed for a marker.
    pub version: Option<TransactionVersion>,
}

/// A producer as the log knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The last sequence of its last batch in this epoch, -1 for none.
    pub last_sequence: i32,
    /// The largest timestamp of its last batch or marker, -1 for none.
    pub last_timestamp: i64,
    /// The epoch of the coordinator that wrote its last marker, -1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, -1 for none.
    pub txn_first_offset: i64,
}

/// A transaction that was aborted, as a reader is told: from this offset on, to the next abort marker of the producer, its
/// transactional batches do not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// The first offset of the transaction.
    pub first_offset: i64,
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
    /// For a reader of committed data, the aborted transactions of what it got, and perhaps others near by.
    pub aborted: Option<Vec<AbortedTxn>>,
}

/// What to look for in [`KafkaLog::fetch_offset_for_timestamp`](crate::KafkaLog::fetch_offset_for_timestamp).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampSpec {
    /// The log start offset.
    Earliest,
    /// Where a reader's sight ends.
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
