//! Log compaction as functions of batches: what to clean, what the newest record of every key is, and what becomes of
//! each batch. It reads and writes nothing, waits for nothing and knows no clock.
//!
//! In this order: [`pick`] says which segments a pass may clean and which go together; [`DirtyFold`] fills an
//! [`OffsetMap`] with the newest offset of every key that was written since the last pass; [`Pass`] goes over all batches
//! from the first segment on and gives the [`Fate`] of each. What is kept stays at its offset and in its order. Both read
//! transactions out of [`Aborts`], so neither may go past the last stable offset.
//!
//! A batch that is damaged is a typed error and ends the pass. One whose records say offsets outside of it or in no order,
//! which a client can send, is none: they count as lying within it, so they supersede nothing that came later.

mod aborts;
mod dirty;
mod map;
mod pass;
mod pick;
mod rewrite;

pub(crate) use aborts::Aborts;
pub(crate) use dirty::{DirtyFold, Folded};
pub(crate) use map::{OffsetMap, SLOT_BYTES};
pub(crate) use pass::{Fate, Pass, Round};
pub(crate) use pick::{Bounds, Dirtiness, Limits, Span, groups};

use crate::batch::Batch;
use crate::compress::{Codec, DecodeFault};
use crate::error::LogError;
use crate::header::BatchHeader;
use crate::record::RecordView;

/// Checks a batch before anything in it is believed: that it follows `end`, and its checksum.
pub(crate) fn check(batch: &Batch, end: i64) -> Result<(), LogError> {
    let header = batch.header();
    if header.base_offset < end || header.last_offset_delta < 0 || header.records_count < 0 {
        return Err(LogError::Corrupt(format!(
            "batch at offset {} with last offset delta {} and {} records after offset {end}",
            header.base_offset, header.last_offset_delta, header.records_count
        )));
    }
    batch.verify_checksum()
}

/// Where the records of a batch lie: ascending and within the batch, whatever they say.
struct Places {
    base_offset: i64,
    last_delta: i32,
    /// Of the record before.
    delta: i32,
}

impl Places {
    /// Of the records of a batch that was checked.
    fn of(header: &BatchHeader) -> Self {
        Self {
            base_offset: header.base_offset,
            last_delta: header.last_offset_delta,
            delta: 0,
        }
    }

    /// The offset of the next record.
    fn next(&mut self, record: &RecordView) -> i64 {
        self.delta = record.offset_delta.max(self.delta).min(self.last_delta);
        self.base_offset.saturating_add(i64::from(self.delta))
    }
}

/// The records of a batch, decompressed into `scratch` if they are compressed, at most `max` bytes of them.
pub(crate) fn plain<'a>(
    batch: &'a Batch,
    max: u64,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], LogError> {
    let codec = batch.header().attributes.codec()?;
    let records = batch.record_bytes();
    if codec == Codec::None {
        return Ok(records);
    }
    codec
        .decompress(records, max, scratch)
        .map_err(|fault| match fault {
            DecodeFault::TooLarge { len } => LogError::MessageTooLarge { len, max },
            DecodeFault::Damaged(reason) => LogError::Undecodable { codec, reason },
        })?;
    Ok(scratch)
}

#[cfg(test)]
mod tests;
