//! One batch with some of its records: new bytes with the same offsets, sequences, producer, codec and leader epoch.
//!
//! Records are kept as they are, byte for byte, unless the base timestamp changes: it gives way to the delete horizon,
//! and then the deltas of the records change so that their times do not.

use super::{Places, plain};
use crate::batch::Batch;
use crate::compress::Codec;
use crate::error::LogError;
use crate::header::{BatchHeader, TimestampType};
use crate::record::{RecordView, Records};

/// Memory that is used for one batch after the other.
#[derive(Default)]
pub(super) struct Scratch {
    decompressed: Vec<u8>,
    kept: Vec<u8>,
    moved: Vec<u8>,
}

/// What was kept of a batch.
pub(super) struct Kept {
    /// How many were read.
    pub(super) read: u32,
    /// How many of them are kept.
    pub(super) count: u32,
    /// How many of those are tombstones.
    pub(super) tombstones: u32,
    /// The offset of the last of these.
    pub(super) last_tombstone: Option<i64>,
    /// The largest timestamp of those that are kept.
    max_timestamp: i64,
}

impl Kept {
    pub(super) fn is_whole(&self) -> bool {
        self.count == self.read
    }
}

impl Scratch {
    /// Reads the records of a batch and keeps those that `keep` says, by offset.
    pub(super) fn filter(
        &mut self,
        batch: &Batch,
        decompressed_bytes_max: u64,
        mut keep: impl FnMut(i64, &RecordView) -> bool,
    ) -> Result<Kept, LogError> {
        let header = batch.header();
        let records = plain(batch, decompressed_bytes_max, &mut self.decompressed)?;
        self.kept.clear();
        let mut kept = Kept {
            read: 0,
            count: 0,
            tombstones: 0,
            last_tombstone: None,
            max_timestamp: -1,
        };
        let mut places = Places::of(header);
        // Where the records begin that are kept and not copied yet: runs are copied at once, and a whole batch never.
        let (mut run, mut at) = (0, 0);
        for record in Records::new(records, header.records_count) {
            let record = record?;
            let offset = places.next(&record);
            kept.read += 1;
            let before = at;
            at += record.bytes.len();
            if !keep(offset, &record) {
                if run == 0 {
                    self.kept.reserve_exact(records.len());
                }
                self.kept.extend_from_slice(&records[run..before]);
                run = at;
                continue;
            }
            kept.count += 1;
            if !record.has_value {
                kept.tombstones += 1;
                kept.last_tombstone = Some(offset);
            }
            let timestamp = header.record_timestamp(record.timestamp_delta);
            kept.max_timestamp = kept.max_timestamp.max(timestamp);
        }
        if run > 0 {
            self.kept.extend_from_slice(&records[run..at]);
        }
        Ok(kept)
    }

    /// The batch with what was kept of it, not all of it unless there is a new `horizon`, and something.
    pub(super) fn rewrite(
        &mut self,
        batch: &Batch,
        kept: &Kept,
        horizon: Option<i64>,
    ) -> Result<Batch, LogError> {
        let mut header = *batch.header();
        let codec = header.attributes.codec()?;
        let mut records = match (kept.is_whole(), codec) {
            (false, _) => self.kept.as_slice(),
            (true, Codec::None) => batch.record_bytes(),
            (true, _) => self.decompressed.as_slice(),
        };
        header.records_count = i32::try_from(kept.count).unwrap_or(i32::MAX);
        if header.attributes.timestamp_type() == TimestampType::CreateTime {
            header.max_timestamp = kept.max_timestamp;
        }
        if let Some(horizon) = horizon {
            if header.attributes.timestamp_type() == TimestampType::CreateTime {
                self.moved.clear();
                for record in Records::new(records, header.records_count) {
                    let record = record?;
                    let timestamp = header.record_timestamp(record.timestamp_delta);
                    let delta = timestamp.wrapping_sub(horizon);
                    record.put_with_timestamp_delta(delta, &mut self.moved);
                }
                records = &self.moved;
            }
            header.base_timestamp = horizon;
            header.attributes = header.attributes.with_delete_horizon();
        }
        if codec == Codec::None {
            return Batch::new(header, records);
        }
        let compressed = codec
            .compress(records)
            .map_err(|error| LogError::Undecodable {
                codec,
                reason: format!("compressing them again: {error}"),
            })?;
        Batch::new(header, &compressed)
    }
}

/// The batch without records: 61 bytes that hold its offsets and the place of its producer.
pub(super) fn emptied(header: &BatchHeader) -> Result<Batch, LogError> {
    let attributes = header.attributes;
    let empty = BatchHeader {
        // There is nothing to decompress, and nothing that could be deleted.
        attributes: attributes.with_codec(Codec::None).without_delete_horizon(),
        base_timestamp: -1,
        records_count: 0,
        ..*header
    };
    Batch::new(empty, &[])
}
