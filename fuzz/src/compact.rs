//! Compaction of batches that a client, or another broker, may have written: any bytes are refused, or what is left of
//! them is a part of what was there.
//!
//! What is left is whole batches at offsets of batches that were there, each with some of its records at their offsets
//! and times; it can be compacted again, and no record comes back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use segment_adapter::testing::Compaction;
use segment_adapter::{BATCH_HEADER_LEN, Batch, BatchBuilder, Batches, Codec};

/// Far less than any real bound, so that the fuzzer stays fast.
const DECOMPRESSED_BYTES_MAX: u64 = 1 << 16;
/// A delete horizon takes at most so many bytes more in a record of at least 7.
const HORIZON_GROWTH: u64 = 4;
const SLOT_BYTES: usize = 24;
const RETENTION_MS: i64 = 1000;
/// What the checksum of a batch covers begins here.
const CRC_END: usize = 21;
/// The parameters before the batches: slots of the map, first dirty offset, clock.
const PARAMETERS_LEN: usize = 3;
/// The golden commit marker from its attributes on; its type is the byte at [`MARKER_TYPE`], its producer ends at
/// [`MARKER_PRODUCER`].
const MARKER: [u8; 57] = [
    0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0,
    0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x20, 0, 0, 0, 0x08, 0, 0, 0, 1, 0x0c, 0, 0,
    0, 0, 0, 7, 0,
];
const MARKER_TYPE: usize = 48;
const MARKER_PRODUCER: usize = 29;

/// Compacts `data` as batches as they are, and as the contents of batches whose offsets, lengths and checksums are right.
pub fn run(data: &[u8]) {
    let Some((parameters, rest)) = data.split_first_chunk::<PARAMETERS_LEN>() else {
        return;
    };
    let as_they_are: Result<Vec<Batch>, _> = Batches::new(Bytes::copy_from_slice(rest)).collect();
    if let Ok(batches) = as_they_are {
        check(parameters, &batches);
    }
    check(parameters, &framed(rest));
}

/// A batch of each codec twice, with tombstones, and transactions with their markers, one aborted.
pub fn seeds() -> Vec<Vec<u8>> {
    let batch = |codec, producer: i64, value: Option<&[u8]>| {
        let builder = BatchBuilder::new(codec)
            .record(5, Some(b"a"), value)
            .record_with_headers(7, Some(b"b"), Some(b"value value"), &[("name", None)])
            .record(6, None, Some(b"x"));
        let builder = match producer {
            0 => builder,
            _ => builder.producer(producer, 0, 0).transactional(),
        };
        let batch = builder.build().expect("a small batch");
        batch[CRC_END..].to_vec()
    };
    let marker = |producer, kind| {
        let mut marker = MARKER;
        (marker[MARKER_PRODUCER], marker[MARKER_TYPE]) = (producer, kind);
        marker.to_vec()
    };
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    let mut seeds = Vec::new();
    for (slots, codec) in codecs.into_iter().enumerate() {
        let contents = [
            batch(codec, 0, Some(b"v")),
            batch(codec, 1, Some(b"w")),
            marker(1, 0),
            batch(codec, 2, None),
            batch(codec, 0, None),
            marker(2, 1),
        ];
        let mut seed = vec![slots as u8 + 1, slots as u8, 40];
        for content in contents {
            seed.extend_from_slice(&(content.len() as u16).to_be_bytes());
            seed.extend_from_slice(&content);
        }
        seeds.push(seed);
    }
    seeds
}

/// The batches whose contents from the attributes on stand one after the other, each with its length before it.
fn framed(mut rest: &[u8]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut offset = 0_i64;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        // The highest bit is a gap before the batch.
        let len = u16::from_be_bytes(*len);
        let (gap, len) = (i64::from(len >> 15), usize::from(len & 0x7fff));
        let Some((content, after)) = after.split_at_checked(len) else {
            break;
        };
        rest = after;
        if len < BATCH_HEADER_LEN - CRC_END {
            break;
        }
        let mut bytes = Vec::with_capacity(CRC_END + len);
        bytes.extend_from_slice(&(offset + gap).to_be_bytes());
        bytes.extend_from_slice(&((CRC_END - 12 + len) as i32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 3, 2]);
        bytes.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
        bytes.extend_from_slice(content);
        let Some(Ok(batch)) = Batches::new(bytes.into()).next() else {
            break;
        };
        offset = batch.header().last_offset().saturating_add(1);
        batches.push(batch);
    }
    batches
}

fn check(parameters: &[u8; PARAMETERS_LEN], batches: &[Batch]) {
    let [slots, first_dirty, clock] = *parameters;
    let mut compaction = Compaction {
        map_bytes: usize::from(slots % 16) * SLOT_BYTES,
        first_dirty: i64::from(first_dirty % 16),
        now_ms: i64::from(clock),
        delete_retention_ms: RETENTION_MS,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
    };
    let Ok((mut left, clean)) = compaction.run(batches) else {
        return;
    };
    assert!(clean >= compaction.first_dirty);
    is_part(&left, batches);
    compaction.decompressed_bytes_max *= HORIZON_GROWTH;
    compaction.map_bytes = 64 * SLOT_BYTES;
    for _ in 0..3 {
        compaction.now_ms += RETENTION_MS;
        let (less, _) = compaction
            .run(&left)
            .expect("what is left of a log is a log");
        is_part(&less, &left);
        left = less;
    }
}

fn is_part(left: &[Batch], of: &[Batch]) {
    let there: BTreeMap<i64, &Batch> = of
        .iter()
        .map(|batch| (batch.header().base_offset, batch))
        .collect();
    let mut next = 0;
    for batch in left {
        let header = batch.header();
        assert!(header.base_offset >= next);
        next = header.last_offset().saturating_add(1);
        let was = there[&header.base_offset];
        if batch == was {
            continue;
        }
        batch
            .verify_checksum()
            .expect("what is written anew is whole");
        assert_eq!(header.last_offset_delta, was.header().last_offset_delta);
        assert_eq!(header.producer_id, was.header().producer_id);
        assert_eq!(header.base_sequence, was.header().base_sequence);
        if header.records_count == 0 {
            continue;
        }
        let before = records(was);
        let mut before = before.iter();
        for record in records(batch) {
            assert!(before.any(|was| *was == record), "{record:?} was not there");
        }
    }
}

/// Offset delta and time of each record, and whether it has a key.
fn records(batch: &Batch) -> Vec<(i32, i64, bool)> {
    let mut records = Vec::new();
    let visited = batch.visit_records(DECOMPRESSED_BYTES_MAX * HORIZON_GROWTH, |_, head| {
        let time = batch.header().record_timestamp(head.timestamp_delta);
        records.push((head.offset_delta, time, head.has_key));
        ControlFlow::Continue(())
    });
    visited.expect("what was compacted is readable");
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_logs_that_a_pass_makes_smaller() {
        for seed in seeds() {
            let batches = framed(&seed[PARAMETERS_LEN..]);
            assert_eq!(batches.len(), 6);
            let compaction = Compaction {
                map_bytes: 64 * SLOT_BYTES,
                first_dirty: 0,
                now_ms: 0,
                delete_retention_ms: RETENTION_MS,
                decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            };
            let (left, clean) = compaction.run(&batches).expect("a log");
            // Aborted data is its producer's last; of the others the last of all supersedes every key.
            let records: Vec<i32> = left
                .iter()
                .map(|batch| batch.header().records_count)
                .collect();
            assert_eq!(records, [0, 1, 0, 2, 1]);
            assert_eq!(clean, 14);
        }
    }
}
