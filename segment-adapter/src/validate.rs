//! What a leader checks and sets before a client's batch goes into the log: Kafka's rules for format 2, in Kafka's order.
//!
//! A batch that passes has dense offsets, a right checksum, records that are all readable, and timestamps the topic
//! allows. Nothing is copied: the answer is a new header and the records as they came. Rejections consume no offsets.
//! Producer ids and transactions are refused: they need state that this log does not keep yet.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::batch::{Batch, Batches};
use crate::compress::Codec;
use crate::config::LogConfig;
use crate::error::{LogError, RECORD_ERRORS_MAX, RecordError, RecordFault};
use crate::header::{BATCH_HEADER_LEN, BatchHeader, TimestampType};

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
    let mut first = None;
    let mut batches = 0usize;
    for batch in Batches::new(records.clone()) {
        let batch = batch?;
        check_as_sent(&batch, config)?;
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
    check_header(batch.header())?;
    let codec = batch.header().attributes.codec()?;
    let max_timestamp = check_records(&batch, codec, config, now_ms)?;
    let header = set_timestamp(&batch, config.timestamp_type, max_timestamp, now_ms);
    Ok(Some(Validated {
        header,
        records: batch.records(),
        codec,
    }))
}

fn check_as_sent(batch: &Batch, config: &LogConfig) -> Result<(), LogError> {
    let header = batch.header();
    if header.base_offset != 0 {
        return Err(LogError::invalid_record(format!(
            "base offset {} of a producer's batch is not 0",
            header.base_offset
        )));
    }
    let len = batch.bytes().len() as u64;
    if len > config.max_message_bytes {
        return Err(LogError::MessageTooLarge {
            len,
            max: config.max_message_bytes,
        });
    }
    batch.verify_checksum()
}

fn check_header(header: &BatchHeader) -> Result<(), LogError> {
    let offsets = i64::from(header.last_offset_delta) + 1;
    if offsets <= 0 || header.records_count <= 0 || offsets != i64::from(header.records_count) {
        return Err(LogError::invalid_record(format!(
            "{} records for {offsets} offsets",
            header.records_count
        )));
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
    if header.attributes.is_transactional() {
        return Err(LogError::UnsupportedFormat(
            "transactional batches are not served".into(),
        ));
    }
    if header.producer_id >= 0 {
        return Err(LogError::UnsupportedFormat(format!(
            "producer id {}: idempotent batches are not served",
            header.producer_id
        )));
    }
    Ok(())
}

/// Reads every record and gives the largest timestamp.
fn check_records(
    batch: &Batch,
    codec: Codec,
    config: &LogConfig,
    now_ms: i64,
) -> Result<i64, LogError> {
    let header = batch.header();
    let mut max_timestamp = -1;
    let mut dense = true;
    let mut faults = RecordFaults::default();
    batch.visit_records(config.decompressed_bytes_max, |index, record| {
        dense &= i64::from(record.offset_delta) == i64::from(index);
        let timestamp = header.record_timestamp(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if config.compact && !record.has_key {
            faults.push(index, RecordFault::NullKey);
        } else if let Some(fault) = timestamp_fault(header, timestamp, config, now_ms) {
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
    Ok(max_timestamp)
}

fn timestamp_fault(
    header: &BatchHeader,
    timestamp: i64,
    config: &LogConfig,
    now_ms: i64,
) -> Option<RecordFault> {
    if config.timestamp_type == TimestampType::LogAppendTime {
        return None;
    }
    let behind = i128::from(now_ms) - i128::from(timestamp);
    let in_range = timestamp == -1
        || (behind <= i128::from(config.timestamp_before_max_ms)
            && -behind <= i128::from(config.timestamp_after_max_ms));
    if !in_range {
        Some(RecordFault::TimestampOutOfRange { timestamp })
    } else if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        Some(RecordFault::UnexpectedLogAppendTime)
    } else {
        None
    }
}

/// The header to store: timestamp type and largest timestamp set, the checksum computed again only if they changed.
fn set_timestamp(
    batch: &Batch,
    timestamp_type: TimestampType,
    max_timestamp: i64,
    now_ms: i64,
) -> BatchHeader {
    let mut header = *batch.header();
    match timestamp_type {
        TimestampType::CreateTime => header.max_timestamp = max_timestamp,
        TimestampType::LogAppendTime => {
            header.attributes = header.attributes.with_log_append_time();
            header.max_timestamp = now_ms;
        }
    }
    if header != *batch.header() {
        header.crc = header.checksum(&batch.records());
    }
    header
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
