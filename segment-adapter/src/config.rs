//! The settings of a log: a topic's configuration, as far as the log layer acts on it.
//!
//! Names, units and defaults are Kafka's. `validate` reports every problem and changes nothing.

use crate::compress::Codec;
use crate::error::LogError;
use crate::header::TimestampType;

const MIB: u64 = 1 << 20;
const PRODUCERS_LIMIT: usize = 1_000_000;
const ABORTED_LIMIT: usize = 10_000_000;
const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Settings of one log. May be changed while the log is open.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is closed before it would grow past this. Default 1 GiB, at least 1 MiB.
    /// Retention deletes whole segments, so a smaller value follows `retention_bytes` more closely.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is closed when record time in it has advanced by this many milliseconds, on a compacted
    /// log also by `max_compaction_lag_ms`. Default 7 days.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: taken off `segment_ms` once per segment, at random up to this, so that many logs do not
    /// roll at the same moment. Default 0; more than `segment_ms` is taken as that.
    pub segment_jitter_ms: i64,
    /// `retention.ms`: a segment whose newest record is older than this many milliseconds is deleted; negative for
    /// never. Default 7 days.
    pub retention_ms: i64,
    /// `retention.bytes`: the oldest segments are deleted while what stays is at least this; negative for no limit.
    /// Default -1.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` contains `delete`. Default true.
    pub delete: bool,
    /// Whether `cleanup.policy` contains `compact`: every record then needs a key. Default false.
    pub compact: bool,
    /// `min.cleanable.dirty.ratio`: a log is compacted when more of it was never compacted, 0 to 1. Default 0.5. Smaller
    /// keeps it shorter and writes more.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: a segment whose newest record is younger than this many milliseconds is not compacted.
    /// Default 0.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: a log is compacted, however little of it is dirty, when a segment that was never compacted
    /// begins with a record that is older than this many milliseconds. Segments are closed in this time too, for the active
    /// one is not compacted. Default no limit, at least `min_compaction_lag_ms`.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone or the marker of a transaction of which nothing is left can still be
    /// read after it was first compacted, in milliseconds. Default 1 day.
    pub delete_retention_ms: i64,
    /// `max.message.bytes`: the largest batch as sent, in bytes. Default 1048588.
    pub max_message_bytes: u64,
    /// The most bytes that are decompressed to check one batch or to find a time in it, or `max_message_bytes` if
    /// that is more. Default 128 MiB. A batch that needs more is too large.
    pub decompressed_bytes_max: u64,
    /// `compression.type`: what batches are compressed anew with unless they are so already, each at the codec's usual
    /// level; `None` keeps what the producer chose. Default `None`.
    pub compression: Option<Codec>,
    /// `message.timestamp.type`. Default create time.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record's time may lie behind the clock. Default no limit.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a record's time may lie ahead of the clock. Default 1 hour.
    pub timestamp_after_max_ms: i64,
    /// `producer.id.expiration.ms`: a producer is forgotten when its newest timestamp is this old. Default 1 day.
    pub producer_expiration_ms: i64,
    /// The most producers that are remembered; past it the one that has been silent for longest is forgotten. Each takes
    /// about 300 bytes of memory. So many transactions may be open at one time. Default 10,000, at most 1,000,000.
    pub producers_max: usize,
    /// The most aborted transactions that are kept, together with those that are open and may be aborted yet. One more does
    /// not begin until retention has let older ones go; a reader is always told of all. Each takes about 50 bytes of memory
    /// and 33 of metadata. Default 100,000, at most 10,000,000.
    pub aborted_max: usize,
    /// `transaction.partition.verification.enable`: whether a transaction must have been verified with its coordinator to
    /// begin here. Default true.
    pub verify_transactions: bool,
    /// `transaction.max.timeout.ms`: after this and five minutes an open transaction is late. Default 15 minutes.
    pub transaction_timeout_max_ms: i64,
    /// After how many bytes of batches a time index entry is kept. Default 4 MiB. A look-up by time and a reopening
    /// after a crash read about this much; smaller costs memory and metadata.
    pub index_interval_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1024 * MIB,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            delete: true,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: DAY_MS,
            max_message_bytes: 1_048_588,
            decompressed_bytes_max: 128 * MIB,
            compression: None,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: HOUR_MS,
            producer_expiration_ms: DAY_MS,
            producers_max: 10_000,
            aborted_max: 100_000,
            verify_transactions: true,
            transaction_timeout_max_ms: 15 * 60 * 1000,
            index_interval_bytes: 4 * MIB,
        }
    }
}

impl LogConfig {
    /// The longest that a segment is open, in milliseconds of record time.
    pub(crate) fn segment_ms_max(&self) -> i64 {
        if self.compact {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }

    /// The most bytes that are decompressed of one batch: what is taken uncompressed is not too large compressed.
    pub(crate) fn decompressed_limit(&self) -> u64 {
        self.decompressed_bytes_max.max(self.max_message_bytes)
    }

    /// Refuses settings that make no sense, naming all of them.
    pub fn validate(&self) -> Result<(), LogError> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, problem: &str| {
            if !ok {
                problems.push(problem.to_string());
            }
        };
        check(self.segment_bytes >= MIB, "segment.bytes is below 1048576");
        check(
            self.segment_bytes <= i32::MAX as u64,
            "segment.bytes is above 2147483647",
        );
        check(self.segment_ms >= 1, "segment.ms is below 1");
        check(self.segment_jitter_ms >= 0, "segment.jitter.ms is negative");
        self.validate_compaction(&mut check);
        check(
            self.max_message_bytes <= i32::MAX as u64,
            "max.message.bytes is above 2147483647",
        );
        check(
            self.timestamp_before_max_ms >= 0,
            "message.timestamp.before.max.ms is negative",
        );
        check(
            self.timestamp_after_max_ms >= 0,
            "message.timestamp.after.max.ms is negative",
        );
        check(
            self.producer_expiration_ms >= 1,
            "producer.id.expiration.ms is below 1",
        );
        check(
            (1..=PRODUCERS_LIMIT).contains(&self.producers_max),
            "the limit on producers is outside 1 to 1000000",
        );
        check(
            (1..=ABORTED_LIMIT).contains(&self.aborted_max),
            "the limit on aborted transactions is outside 1 to 10000000",
        );
        check(
            self.transaction_timeout_max_ms >= 1,
            "transaction.max.timeout.ms is below 1",
        );
        check(
            self.index_interval_bytes >= 4096,
            "the index interval is below 4096 bytes",
        );
        if problems.is_empty() {
            Ok(())
        } else {
            Err(LogError::InvalidConfig(problems))
        }
    }

    fn validate_compaction(&self, check: &mut impl FnMut(bool, &str)) {
        check(
            (0.0..=1.0).contains(&self.min_cleanable_dirty_ratio),
            "min.cleanable.dirty.ratio is outside 0 to 1",
        );
        check(
            self.min_compaction_lag_ms >= 0,
            "min.compaction.lag.ms is negative",
        );
        check(
            self.max_compaction_lag_ms >= self.min_compaction_lag_ms.max(1),
            "max.compaction.lag.ms is below 1 or min.compaction.lag.ms",
        );
        check(
            self.delete_retention_ms >= 0,
            "delete.retention.ms is negative",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        LogConfig::default().validate().unwrap();
    }

    #[test]
    fn what_kafka_takes_is_taken() {
        let config = LogConfig {
            segment_ms: 1,
            segment_jitter_ms: i64::MAX,
            max_message_bytes: i32::MAX as u64,
            ..LogConfig::default()
        };
        config.validate().unwrap();
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let config = LogConfig {
            segment_bytes: 1,
            segment_ms: 0,
            timestamp_after_max_ms: -1,
            ..LogConfig::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.code(), 40);
        let LogError::InvalidConfig(problems) = error else {
            panic!("{error}");
        };
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
