//! Log compaction as functions of batches: what to clean, what the newest record of every key is, and what becomes of
//! each batch. It reads and writes nothing, waits for nothing and knows no clock.
//!
//! In this order: [`pick`] says which segments a pass may clean and which go together; [`DirtyFold`] fills an
//! [`OffsetMap`] with the newest offset of every key that was written since the last pass; [`Pass`] goes over all batches
//! from the first segment on and gives the [`Fate`] of each. What is kept stays at its offset and in its order. Both read
//! transactions out of [`Aborts`], so neither may go past the last stable offset.
//!
//! A batch that is damaged is a typed error and ends the pass; one whose records lie at offsets that cannot be, which a
//! client can send, is kept as it is and stands for nothing.

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

/// The records of a batch, decompressed into `scratch` if they are compressed, at most `max` bytes of them.
fn plain<'a>(batch: &'a Batch, max: u64, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], LogError> {
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
