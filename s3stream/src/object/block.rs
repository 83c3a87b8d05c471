//! A data block: records of one run one after the other, then the crc32c of their bytes.
//!
//! `BLOCK_LEN_MIN <= block`: there is at least one record. A decoded payload is a slice of the block's bytes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::{BlockRef, CRC_LEN, footer::crc_error};
use crate::{Error, RECORD_HEADER_LEN, RecordBatch, RecordHeader, Result};

/// One record without a payload, and the checksum.
pub(super) const BLOCK_LEN_MIN: u64 = (RECORD_HEADER_LEN + CRC_LEN) as u64;

/// Takes a data block apart: checks its checksum, and that it holds exactly what the index promises.
///
/// The payloads are slices of `bytes`, which they keep alive.
pub fn decode_block(bytes: Bytes, expected: &BlockRef) -> Result<Vec<RecordBatch>> {
    decode(bytes, expected).map_err(|error| {
        error
            .with("stream", expected.stream)
            .with("offsets", format_args!("{:?}", expected.offsets))
            .with("position", expected.position.start)
    })
}

fn decode(bytes: Bytes, expected: &BlockRef) -> Result<Vec<RecordBatch>> {
    let expected_len = expected.position.end.checked_sub(expected.position.start);
    if expected_len != Some(bytes.len() as u64) {
        return Err(
            Error::corrupt("data block of another length than its index says")
                .with("len", bytes.len())
                .with("expected", expected_len.unwrap_or_default()),
        );
    }
    let Some((body, crc)) = bytes.split_last_chunk::<CRC_LEN>() else {
        return Err(Error::corrupt("data block shorter than its checksum").with("len", bytes.len()));
    };
    let (found, computed) = (u32::from_be_bytes(*crc), crc32c::crc32c(body));
    if found != computed {
        return Err(crc_error("data block", found, computed));
    }
    let mut records = Vec::new();
    let mut rest = body;
    let mut next = expected.offsets.start;
    while !rest.is_empty() {
        let record = take_record(&bytes, &mut rest)?;
        if record.stream != expected.stream || record.epoch != expected.epoch {
            return Err(Error::corrupt("data block holds a record of another run")
                .with("found stream", record.stream)
                .with("found epoch", record.epoch)
                .with("expected epoch", expected.epoch));
        }
        if record.offsets.start != next {
            return Err(Error::corrupt("data block is not contiguous")
                .with("found", record.offsets.start)
                .with("expected", next));
        }
        next = record.offsets.end;
        records.push(record);
    }
    if next != expected.offsets.end || records.is_empty() {
        return Err(Error::corrupt("data block ends at another offset")
            .with("found", next)
            .with("expected", expected.offsets.end));
    }
    Ok(records)
}

/// Takes a record off the front of `rest`, which is a part of `bytes`.
fn take_record(bytes: &Bytes, rest: &mut &[u8]) -> Result<RecordBatch> {
    let header = RecordHeader::decode(rest)?;
    let len = (header.payload_len as usize).saturating_add(RECORD_HEADER_LEN);
    let (Some(payload), Some(after)) = (rest.get(RECORD_HEADER_LEN..len), rest.get(len..)) else {
        return Err(Error::corrupt("record ends past its data block")
            .with("len", len)
            .with("left", rest.len()));
    };
    *rest = after;
    Ok(RecordBatch {
        stream: header.stream,
        epoch: header.epoch,
        offsets: header.offsets,
        payload: bytes.slice_ref(payload),
    })
}
