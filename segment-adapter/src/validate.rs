//! What a leader checks and sets before a client's or coordinator's batch goes into the log: Kafka's rules for format 2, in Kafka's order.
//!
//! A batch that passes has dense offsets, a right checksum, records that are all readable, and timestamps the topic
//! allows. Nothing is copied unless the topic wants another codec: the answer is a new header and the records as they
//! came. Rejections consume no offsets. What needs the state of the log, like sequences, is not judged here.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;

use crate::batch::{Batch, Batches};
use crate::compress::{Codec, DecodeFault, RecompressLimits};
use crate::config::LogConfig;
use crate::error::{LogError, RECORD_ERRORS_MAX, RecordError, RecordFault};
use crate::header::{BATCH_HEADER_LEN, BATCH_LENGTH_OVERHEAD, BatchHeader, TimestampType};
use crate::marker::Marker;
use crate::position::Origin;
use crate::producers::Entry;
use crate::record::renumbered;

/// A client's batch that may be appended once it has an offset.
#[derive(Clone, Debug)]
pub struct Validated {
    header: BatchHeader,
    records: Bytes,
    codec: Codec,
}

impl Validated {
    /// How many offsets the batch takes; at least 1.
    pub fn count(&self) -> u64 {
        u64::from(self.header.last_offset_delta as u32) + 1
    }

    /// Size of the batch in bytes, header included.
    pub fn size(&self) -> u64 {
        (BATCH_HEADER_LEN + self.records.len()) as u64
    }

    /// The largest timestamp, or the time of the append on a topic that keeps that.
    pub fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The batch as far as producers are concerned; no offset yet.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry::new(&self.header, &self.records)
    }

    /// The codec of the records.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The header with its offset and leader epoch, and the records: together the batch.
    pub fn stamp(mut self, base_offset: i64, leader_epoch: i32) -> (BatchHeader, Bytes) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch;
        (self.header, self.records)
    }
}

/// Checks what a client sent; `Ok(None)` if there is not one whole batch in it. `now_ms` is the broker's clock.
pub fn validate_as_leader(
    records: &Bytes,
    config: &LogConfig,
    now_ms: i64,
) -> Result<Option<Validated>, LogError> {
    validate(records, config, now_ms, Origin::Client)
}

/// The same for whoever may append as leader.
pub(crate) fn validate(
    records: &Bytes,
    config: &LogConfig,
    now_ms: i64,
    origin: Origin,
) -> Result<Option<Validated>, LogError> {
    let mut first = None;
    let mut batches = 0usize;
    for batch in Batches::new(records.clone()) {
        let batch = batch?;
        check_as_sent(&batch, config, origin)?;
        first.get_or_insert(batch);
        batches += 1;
    }
    let Some(batch) = first else {
        return Ok(None);
    };
    if batches > 1 {
        return Err(LogError::invalid_record(format!(
            "{batches} batches in one append, only 1 is allowed"
        )));
    }
    check_header(batch.header(), origin)?;
    let codec = batch.header().attributes.codec()?;
    let is_control = batch.header().attributes.is_control();
    if is_control && Marker::of(batch.header(), &batch.records()).is_none() {
        return Err(LogError::invalid_record(
            "a control batch that is no marker",
        ));
    }
    // A marker stays as it is, or it would not be one.
    let target = config.compression.filter(|_| !is_control).unwrap_or(codec);
    let checked = check_records(&batch, codec, config, now_ms)?;
    let records = if target == codec {
        batch.records()
    } else {
        rebuild(&batch, codec, target, checked.dense, config)?
    };
    let mut header = *batch.header();
    header.attributes = header.attributes.with_codec(target);
    header.batch_length = (BATCH_HEADER_LEN - BATCH_LENGTH_OVERHEAD + records.len()) as i32;
    match config.timestamp_type {
        TimestampType::CreateTime => header.max_timestamp = checked.max_timestamp,
        TimestampType::LogAppendTime => {
            header.attributes = header.attributes.with_log_append_time();
            header.max_timestamp = now_ms;
        }
    }
    // Another codec is another header, so the checksum is computed again whenever a byte it covers has changed.
    if header != *batch.header() {
        header.crc = header.checksum(&records);
    }
    Ok(Some(Validated {
        header,
        records,
        codec: target,
    }))
}

/// The records in the topic's codec, with offset deltas 0, 1, 2 and so on.
fn rebuild(
    batch: &Batch,
    codec: Codec,
    target: Codec,
    dense: bool,
    config: &LogConfig,
) -> Result<Bytes, LogError> {
    let limits = RecompressLimits {
        decompressed_bytes_max: config.decompressed_limit(),
        out_max: config
            .max_message_bytes
            .saturating_sub(BATCH_HEADER_LEN as u64),
    };
    let records = batch.records();
    let rebuilt = if dense {
        codec.recompress(&records, target, limits)
    } else {
        // Only an uncompressed batch may have others.
        let dense = renumbered(&records, batch.header().records_count)?;
        codec.recompress(&dense, target, limits)
    };
    rebuilt.map(Bytes::from).map_err(|fault| match fault {
        DecodeFault::TooLarge { len } => LogError::MessageTooLarge {
            len: len.saturating_add(BATCH_HEADER_LEN as u64),
            max: config.max_message_bytes,
        },
        DecodeFault::Damaged(reason) => LogError::Undecodable { codec, reason },
    })
}

fn check_as_sent(batch: &Batch, config: &LogConfig, origin: Origin) -> Result<(), LogError> {
    let header = batch.header();
    if header.base_offset != 0 {
        return Err(LogError::invalid_record(format!(
            "base offset {} of a producer's batch is not 0",
            header.base_offset
        )));
    }
    let len = batch.bytes().len() as u64;
    // No setting keeps a transaction from its end.
    let is_marker = origin == Origin::Coordinator && header.attributes.is_control();
    if len > config.max_message_bytes && !is_marker {
        return Err(LogError::MessageTooLarge {
            len,
            max: config.max_message_bytes,
        });
    }
    batch.verify_checksum()
}

fn check_header(header: &BatchHeader, origin: Origin) -> Result<(), LogError> {
    let offsets = i64::from(header.last_offset_delta) + 1;
    if offsets <= 0 || header.records_count <= 0 || offsets != i64::from(header.records_count) {
        return Err(LogError::invalid_record(format!(
            "{} records for {offsets} offsets",
            header.records_count
        )));
    }
    if header.attributes.is_transactional() && header.producer_id < 0 {
        return Err(LogError::invalid_record(
            "a batch of a transaction without a producer id",
        ));
    }
    if origin == Origin::Coordinator {
        return Ok(());
    }
    if header.attributes.is_control() {
        return Err(LogError::invalid_record(
            "a producer cannot write control records",
        ));
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return Err(LogError::invalid_record(format!(
            "base sequence {} with producer id {}",
            header.base_sequence, header.producer_id
        )));
    }
    Ok(())
}

struct Checked {
    max_timestamp: i64,
    /// Whether the offset deltas are 0, 1, 2 and so on.
    dense: bool,
}

/// Reads every record.
fn check_records(
    batch: &Batch,
    codec: Codec,
    config: &LogConfig,
    now_ms: i64,
) -> Result<Checked, LogError> {
    let header = batch.header();
    let mut max_timestamp = -1;
    let mut dense = true;
    let mut faults = RecordFaults::default();
    let times = times_in_range(config, now_ms);
    batch.visit_records(config.decompressed_limit(), |index, record| {
        dense &= i64::from(record.offset_delta) == i64::from(index);
        let timestamp = header.record_timestamp(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if config.compact && !record.has_key {
            faults.push(index, RecordFault::NullKey);
        } else if let Some(fault) = timestamp_fault(header, timestamp, &times) {
            faults.push(index, fault);
        }
        ControlFlow::Continue(())
    })?;
    faults.into_result()?;
    // Kafka does not look at the offset deltas of an uncompressed batch (vector 26).
    if codec != Codec::None && !dense {
        return Err(LogError::invalid_record(
            "offset deltas of a compressed batch are not 0, 1, 2 and so on",
        ));
    }
    Ok(Checked {
        max_timestamp,
        dense,
    })
}

/// The times that a producer may give its records; any, where they are not kept.
fn times_in_range(config: &LogConfig, now_ms: i64) -> RangeInclusive<i64> {
    match config.timestamp_type {
        TimestampType::LogAppendTime => i64::MIN..=i64::MAX,
        TimestampType::CreateTime => {
            now_ms.saturating_sub(config.timestamp_before_max_ms)
                ..=now_ms.saturating_add(config.timestamp_after_max_ms)
        }
    }
}

fn timestamp_fault(
    header: &BatchHeader,
    timestamp: i64,
    times: &RangeInclusive<i64>,
) -> Option<RecordFault> {
    if timestamp != -1 && !times.contains(&timestamp) {
        Some(RecordFault::TimestampOutOfRange { timestamp })
    } else if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        Some(RecordFault::UnexpectedLogAppendTime)
    } else {
        None
    }
}

/// The bad records of a batch, as far as they are listed.
#[derive(Default)]
struct RecordFaults {
    errors: Vec<RecordError>,
    total: u64,
    timestamp: bool,
}

impl RecordFaults {
    fn push(&mut self, batch_index: u32, fault: RecordFault) {
        self.total += 1;
        self.timestamp |= fault != RecordFault::NullKey;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError { batch_index, fault });
        }
    }

    fn into_result(self) -> Result<(), LogError> {
        let Some(first) = self.errors.first() else {
            return Ok(());
        };
        let message = format!(
            "{} records are invalid, the first at index {}: {}",
            self.total, first.batch_index, first.fault
        );
        // A bad timestamp decides the error of the batch, whatever else is wrong with it.
        Err(if self.timestamp {
            LogError::InvalidTimestamp {
                message,
                record_errors: self.errors,
            }
        } else {
            LogError::InvalidRecord {
                message,
                record_errors: self.errors,
            }
        })
    }
}

#[cfg(test)]
mod tests;
