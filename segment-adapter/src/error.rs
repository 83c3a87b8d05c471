//! Why a call on a Kafka log did not succeed, and the code a broker answers for it.
//!
//! Every variant has exactly one code ([`LogError::code`]); the match is exhaustive, so a new variant needs a decision.
//! It does not know request versions: mapping a code down for an old client is the broker's.

use std::fmt;
use std::sync::Arc;

use crate::compress::Codec;

/// The most record errors that are listed for one batch; a batch with more has further ones left off.
pub const RECORD_ERRORS_MAX: usize = 4096;

/// What is wrong with one record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// A compacted topic needs a key in every record.
    NullKey,
    /// The timestamp is further from the broker's clock than the topic allows.
    TimestampOutOfRange {
        /// Milliseconds since the epoch.
        timestamp: i64,
    },
    /// The client set the log-append-time bit, which is the broker's to set.
    UnexpectedLogAppendTime,
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullKey => f.write_str("compacted topic cannot accept a record without a key"),
            Self::TimestampOutOfRange { timestamp } => {
                write!(
                    f,
                    "timestamp {timestamp} is out of the range the topic allows"
                )
            }
            Self::UnexpectedLogAppendTime => {
                f.write_str("a producer cannot set the timestamp type to log append time")
            }
        }
    }
}

/// One bad record of a rejected batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordError {
    /// Index of the record in its batch, from 0.
    pub batch_index: u32,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// Why a call on a Kafka log did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The bytes are damaged: a header that cannot be, a wrong checksum.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// The batch is whole but breaks a rule of the protocol; nothing was appended.
    #[error("invalid record: {message}")]
    InvalidRecord {
        /// What is wrong.
        message: String,
        /// The bad records, when single records are to blame; at most [`RECORD_ERRORS_MAX`].
        record_errors: Vec<RecordError>,
    },
    /// At least one record has a timestamp the topic does not allow; nothing was appended.
    #[error("invalid timestamp: {message}")]
    InvalidTimestamp {
        /// What is wrong.
        message: String,
        /// The bad records; at most [`RECORD_ERRORS_MAX`].
        record_errors: Vec<RecordError>,
    },
    /// A batch is larger than the topic allows, as sent or after decompression.
    #[error("batch of {len} bytes is larger than {max} bytes")]
    MessageTooLarge {
        /// Size of the batch, or how much of it had been decompressed when the limit was passed.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The batch does not fit a segment.
    #[error("{len} bytes do not fit a segment of {max} bytes")]
    BatchTooLarge {
        /// Size of the append.
        len: u64,
        /// `segment.bytes`.
        max: u64,
    },
    /// The codec bits name no codec.
    #[error("compression codec {0} is unknown")]
    UnsupportedCompression(u8),
    /// The batch uses what this log does not serve: an old format.
    #[error("unsupported batch: {0}")]
    UnsupportedFormat(String),
    /// The compressed records cannot be decompressed although the checksum is right.
    #[error("{codec} records cannot be decompressed: {reason}")]
    Undecodable {
        /// The codec of the batch.
        codec: Codec,
        /// What the codec said.
        reason: String,
    },
    /// The offset is below the log start or above what can be read.
    #[error("offset {offset} is outside {start}..={end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// Log start offset.
        start: i64,
        /// The highest offset that would have been accepted.
        end: i64,
    },
    /// Another node owns the streams of this log now.
    #[error("the log was taken over: {0}")]
    NotLeader(#[source] s3stream::Error),
    /// The storage below did not do it; the log answers so until it is opened again.
    #[error("storage: {0}")]
    Storage(#[source] s3stream::Error),
    /// What is stored does not make sense to this version; the log must not be written to.
    #[error("stored log state: {0}")]
    StoredState(String),
    /// An earlier append failed, so what follows it cannot be known: open the log again.
    #[error("the log stopped after an earlier failure: {0}")]
    Stopped(#[source] Arc<LogError>),
    /// The batch does not follow the last one of its producer, and is none of those that are remembered.
    #[error(
        "sequence {sequence} of producer {producer_id} epoch {epoch} is out of order, expected {expected}"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Its epoch, as the batch says.
        epoch: i16,
        /// The first sequence of the batch.
        sequence: i32,
        /// The only one that would have been taken.
        expected: i32,
    },
    /// A newer instance of the producer has written here.
    #[error("epoch {epoch} of producer {producer_id} is old, its epoch is {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The newest that is known.
        current: i16,
    },
    /// The batch, or what it comes with, does not go with the state of its producer's transaction.
    #[error("producer {producer_id}: {reason}")]
    InvalidTxnState {
        /// The producer.
        producer_id: i64,
        /// Why.
        reason: &'static str,
    },
    /// A newer transaction coordinator has written a marker for this producer.
    #[error(
        "coordinator epoch {epoch} for producer {producer_id} is old, the newest known is {current}"
    )]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The epoch in the marker.
        epoch: i32,
        /// The newest that is known.
        current: i32,
    },
    /// A marker was appended without its transaction version: the caller is at fault.
    #[error("a marker needs a transaction version")]
    NoTransactionVersion,
    /// What a follower got begins below the log end; a follower acts on it, no client sees it.
    #[error("offsets {first}..={last} begin below the log end {leo}")]
    UnexpectedAppendOffset {
        /// The first offset of the append.
        first: i64,
        /// The last offset of its first batch.
        last: i64,
        /// The log end.
        leo: i64,
    },
    /// The batches that a follower got do not ascend; no client sees it.
    #[error("a batch at offset {offset} follows one that ends at {last}")]
    OffsetsOutOfOrder {
        /// The base offset of the batch that is out of order.
        offset: i64,
        /// The last offset before it.
        last: i64,
    },
    /// A leader epoch or its start is negative: the caller is at fault.
    #[error("leader epoch {epoch} at offset {start} cannot be")]
    InvalidEpoch {
        /// The leader epoch.
        epoch: i32,
        /// Where it should have begun.
        start: i64,
    },
    /// The log is that of another topic.
    #[error("topic id {asked:032x} for the log of topic {known:032x}")]
    InconsistentTopicId {
        /// What the caller said.
        asked: u128,
        /// What the log has.
        known: u128,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The log was deleted.
    #[error("the log is deleted")]
    Deleted,
    /// The configuration breaks a rule.
    #[error("invalid configuration: {}", .0.join("; "))]
    InvalidConfig(Vec<String>),
    /// The topic's policy does not allow the call.
    #[error("policy violation: {0}")]
    PolicyViolation(String),
    /// Something else has to end first; nothing was done. Worth a retry.
    #[error("not now: {0}")]
    Busy(String),
    /// The engine has no room for the append now; nothing was appended. Worth a retry.
    #[error("no room for the append: {0}")]
    Overloaded(#[source] s3stream::Error),
}

impl LogError {
    /// The error code of the Kafka protocol.
    pub fn code(&self) -> i16 {
        match self {
            Self::Undecodable { .. }
            | Self::InvalidEpoch { .. }
            | Self::NoTransactionVersion
            | Self::UnexpectedAppendOffset { .. }
            | Self::OffsetsOutOfOrder { .. } => -1,
            Self::OffsetOutOfRange { .. } => 1,
            Self::Corrupt(_) => 2,
            Self::Deleted => 3,
            Self::NotLeader(_) => 6,
            Self::Overloaded(_) | Self::Busy(_) => 7,
            Self::MessageTooLarge { .. } => 10,
            Self::BatchTooLarge { .. } => 18,
            Self::InvalidTimestamp { .. } => 32,
            Self::InvalidConfig(_) => 40,
            Self::UnsupportedFormat(_) => 43,
            Self::PolicyViolation(_) => 44,
            Self::OutOfOrderSequence { .. } => 45,
            Self::InvalidProducerEpoch { .. } => 47,
            Self::InvalidTxnState { .. } => 48,
            Self::CoordinatorFenced { .. } => 52,
            Self::Storage(_) | Self::StoredState(_) | Self::Closed => 56,
            Self::UnsupportedCompression(_) => 76,
            Self::InvalidRecord { .. } => 87,
            Self::InconsistentTopicId { .. } => 103,
            Self::Stopped(cause) => cause.code(),
        }
    }

    /// The bad records of a rejected batch, empty when no single record is to blame.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            Self::InvalidRecord { record_errors, .. }
            | Self::InvalidTimestamp { record_errors, .. } => record_errors,
            _ => &[],
        }
    }

    /// Whether the append that failed so may nevertheless become durable (S5).
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Storage(error) | Self::NotLeader(error) => error.may_have_happened(),
            Self::Stopped(cause) => cause.may_have_happened(),
            _ => false,
        }
    }

    pub(crate) fn invalid_record(message: impl Into<String>) -> Self {
        Self::InvalidRecord {
            message: message.into(),
            record_errors: Vec::new(),
        }
    }
}

impl From<s3stream::Error> for LogError {
    fn from(error: s3stream::Error) -> Self {
        use s3stream::ErrorKind;
        match error.kind() {
            ErrorKind::Fenced => Self::NotLeader(error),
            ErrorKind::Full => Self::Overloaded(error),
            // Streams are not found only when they were destroyed under an open log.
            ErrorKind::NotFound => Self::Deleted,
            // Whatever else went wrong, or kinds to come: the storage did not do it.
            _ => Self::Storage(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_log_answers_with_the_code_of_its_first_failure() {
        let storage = LogError::from(s3stream::Error::unavailable("disk gone").ambiguous());
        assert_eq!(storage.code(), 56);
        let stopped = LogError::Stopped(Arc::new(storage));
        assert_eq!(stopped.code(), 56);
        assert!(stopped.may_have_happened());
    }

    #[test]
    fn errors_of_the_streams_become_what_a_client_can_act_on() {
        assert_eq!(LogError::from(s3stream::Error::fenced("by 7")).code(), 6);
        assert_eq!(LogError::from(s3stream::Error::full("budget")).code(), 7);
        assert_eq!(LogError::from(s3stream::Error::not_found("x")).code(), 3);
    }

    #[test]
    fn every_error_has_kafkas_code() {
        let storage = || s3stream::Error::unavailable("gone");
        let batch = || "x".to_string();
        let record_errors = Vec::new;
        let (len, max) = (1, 1);
        let (offset, start, end) = (1, 2, 3);
        let (producer_id, epoch, current) = (1, 2, 3);
        let errors = [
            (LogError::Corrupt(batch()), 2),
            (
                LogError::InvalidRecord {
                    message: batch(),
                    record_errors: record_errors(),
                },
                87,
            ),
            (
                LogError::InvalidTimestamp {
                    message: batch(),
                    record_errors: record_errors(),
                },
                32,
            ),
            (LogError::MessageTooLarge { len, max }, 10),
            (LogError::BatchTooLarge { len, max }, 18),
            (LogError::UnsupportedCompression(7), 76),
            (LogError::UnsupportedFormat(batch()), 43),
            (
                LogError::Undecodable {
                    codec: Codec::Zstd,
                    reason: batch(),
                },
                -1,
            ),
            (LogError::OffsetOutOfRange { offset, start, end }, 1),
            (LogError::NotLeader(storage()), 6),
            (LogError::Storage(storage()), 56),
            (LogError::StoredState(batch()), 56),
            (LogError::Closed, 56),
            (LogError::Deleted, 3),
            (LogError::InvalidConfig(Vec::new()), 40),
            (LogError::PolicyViolation(batch()), 44),
            (LogError::Overloaded(storage()), 7),
            (LogError::Busy(batch()), 7),
            (
                LogError::OutOfOrderSequence {
                    producer_id,
                    epoch,
                    sequence: 4,
                    expected: 5,
                },
                45,
            ),
            (
                LogError::InvalidProducerEpoch {
                    producer_id,
                    epoch,
                    current,
                },
                47,
            ),
            (
                LogError::InvalidTxnState {
                    producer_id,
                    reason: "x",
                },
                48,
            ),
            (
                LogError::CoordinatorFenced {
                    producer_id,
                    epoch: 4,
                    current: 5,
                },
                52,
            ),
            (LogError::NoTransactionVersion, -1),
            (LogError::InconsistentTopicId { asked: 1, known: 2 }, 103),
            (LogError::InvalidEpoch { epoch: -1, start }, -1),
            (
                LogError::UnexpectedAppendOffset {
                    first: start,
                    last: end,
                    leo: 4,
                },
                -1,
            ),
            (
                LogError::OffsetsOutOfOrder {
                    offset: start,
                    last: end,
                },
                -1,
            ),
        ];
        for (error, code) in errors {
            assert_eq!(error.code(), code, "{error}");
            let stopped = LogError::Stopped(Arc::new(error));
            assert_eq!(stopped.code(), code, "{stopped}");
        }
    }
}
