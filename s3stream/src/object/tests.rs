//! The object format as a whole: golden bytes, round trips, damage.

mod damage;
mod lookup;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Error, ErrorKind, RecordBatch, Result};

const CLUSTER: ClusterId = ClusterId::new(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10);
const OBJECT: ObjectId = ObjectId::new(0x2A);

fn info(kind: ObjectKind) -> FooterInfo {
    FooterInfo {
        cluster: CLUSTER,
        object: OBJECT,
        node_epoch: NodeEpoch::new(9),
        kind,
    }
}

fn record(stream: u64, epoch: u64, offsets: Range<u64>, payload: &[u8]) -> RecordBatch {
    RecordBatch {
        stream: StreamId::new(stream),
        epoch: StreamEpoch::new(epoch),
        offsets,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn build(records: &[RecordBatch], block_bytes: usize) -> Built {
    let mut writer = ObjectWriter::new(info(ObjectKind::StreamSet), block_bytes);
    for record in records {
        writer.push(record).unwrap();
    }
    writer.finish().unwrap()
}

fn joined(built: &Built) -> Bytes {
    built.parts.concat().into()
}

fn index_of(object: &[u8]) -> Result<ObjectIndex> {
    match ObjectIndex::decode_tail(object, object.len() as u64, CLUSTER, OBJECT)? {
        TailStep::Index(index) => Ok(index),
        TailStep::NeedMore { from } => {
            Err(Error::corrupt("needs more than there is").with("from", from))
        }
    }
}

/// Reads everything an object holds, as a reader that knows its ids would.
fn read_all(object: &Bytes) -> Result<Vec<RecordBatch>> {
    let index = index_of(object)?;
    let mut records = Vec::new();
    for block in index.all_blocks() {
        let bytes = object.slice(block.position.start as usize..block.position.end as usize);
        records.extend(decode_block(bytes, &block)?);
    }
    Ok(records)
}

fn small() -> Vec<RecordBatch> {
    vec![
        record(3, 1, 10..12, b"ab"),
        record(3, 1, 12..13, b""),
        record(3, 2, 13..20, b"cde"),
        record(8, 1, 0..1, b"f"),
    ]
}

#[test]
fn what_was_pushed_is_read_back_whatever_the_block_size() {
    for block_bytes in [0, 1, 90, 128, 1 << 20] {
        let built = build(&small(), block_bytes);
        let object = joined(&built);
        assert_eq!(object.len() as u64, built.len);
        assert_eq!(read_all(&object).unwrap(), small(), "{block_bytes}");
    }
}

#[test]
fn golden_bytes() {
    let mut writer = ObjectWriter::new(info(ObjectKind::StreamSet), 100);
    for record in small() {
        writer.push(&record).unwrap();
    }
    let built = writer.finish().unwrap();
    let golden = [
        // Block 0: two records of run 0.
        &[1, 0, 0, 0, 0, 0, 0, 2][..],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 10],
        &[0, 0, 0, 0, 0, 0, 0, 2],
        b"ab",
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 12],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0xEA, 0x87, 0x30, 0x63],
        // Block 1: the next epoch of the same stream.
        &[1, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 2],
        &[0, 0, 0, 0, 0, 0, 0, 13],
        &[0, 0, 0, 0, 0, 0, 0, 7],
        b"cde",
        &[0xEF, 0x3D, 0x96, 0x89],
        // Block 2: another stream.
        &[1, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 8],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        b"f",
        &[0xCA, 0xF6, 0x77, 0xE0],
        // Runs: stream, epoch, start, end, first block.
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 10],
        &[0, 0, 0, 0, 0, 0, 0, 13],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 2],
        &[0, 0, 0, 0, 0, 0, 0, 13],
        &[0, 0, 0, 0, 0, 0, 0, 20],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 8],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 2],
        // Blocks: position, start.
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 10],
        &[0, 0, 0, 0, 0, 0, 0, 86],
        &[0, 0, 0, 0, 0, 0, 0, 13],
        &[0, 0, 0, 0, 0, 0, 0, 133],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        // Footer.
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        &[0, 0, 0, 0, 0, 0, 0, 42],
        &[0, 0, 0, 0, 0, 0, 0, 9],
        &[0, 0, 0, 0, 0, 0, 0x01, 0xB2],
        &[0, 0, 0, 0, 0, 0, 0, 178],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0x93, 0x51, 0xFB, 0x34],
        &[1, 0, 0, 0],
        &[0, 0, 0, 88],
        &[0, 0, 0, 1],
        b"S3SO",
        &[0xF5, 0x14, 0x99, 0x56],
    ]
    .concat();
    assert_eq!(joined(&built), golden);
    assert_eq!(read_all(&golden.into()).unwrap(), small());
}

#[test]
fn payloads_are_the_same_memory_from_record_to_part_and_from_block_to_record() {
    let records = small();
    let built = build(&records, 1 << 20);
    for record in records.iter().filter(|record| !record.payload.is_empty()) {
        let same = |part: &&Bytes| part.as_ptr() == record.payload.as_ptr();
        assert_eq!(built.parts.iter().filter(same).count(), 1, "{record:?}");
    }
    let object = joined(&built);
    let place = object.as_ptr_range();
    for record in read_all(&object).unwrap() {
        assert!(record.payload.is_empty() || place.contains(&record.payload.as_ptr()));
    }
}

#[test]
fn blocks_keep_to_their_size_but_for_a_record_that_is_larger() {
    let mut records: Vec<_> = (0..100)
        .map(|at| record(1, 1, at..at + 1, &[7; 100]))
        .collect();
    records.push(record(1, 1, 100..101, &[7; 5_000]));
    records.push(record(1, 1, 101..102, &[7; 100]));
    let built = build(&records, 1_000);
    let lens: Vec<_> = built.index.all_blocks().map(|block| block.len()).collect();
    let large = lens.iter().filter(|len| **len > 1_000).count();
    assert_eq!(large, 1, "{lens:?}");
    assert_eq!(lens[0], 7 * 140 + 4, "as many as fit");
    assert_eq!(read_all(&joined(&built)).unwrap(), records);
}

#[test]
fn a_refused_record_is_named_and_changes_nothing() {
    let next = [
        (record(1, 5, 10..11, b""), "streams out of order"),
        (
            record(2, 5, 19..21, b""),
            "records overlap or are out of order",
        ),
        (record(2, 5, 21..22, b""), "gap between records"),
        (record(2, 4, 20..21, b""), "stream epochs out of order"),
        (record(2, 5, 20..20, b""), "record without offsets"),
    ];
    let mut writer = ObjectWriter::new(info(ObjectKind::StreamSet), 100);
    let kept = [record(2, 5, 10..20, b"x"), record(2, 5, 20..21, b"y")];
    writer.push(&kept[0]).unwrap();
    for (record, message) in next {
        let error = writer.push(&record).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.message(), message);
        assert!(error.to_string().contains("stream: "), "{error}");
    }
    writer.push(&kept[1]).unwrap();
    assert_eq!(read_all(&joined(&writer.finish().unwrap())).unwrap(), kept);
}

#[test]
fn a_later_epoch_may_begin_at_a_higher_offset() {
    let records = [record(1, 1, 0..10, b"a"), record(1, 3, 15..16, b"b")];
    let built = build(&records, 1 << 20);
    assert_eq!(read_all(&joined(&built)).unwrap(), records);
    assert_eq!(built.ranges.len(), 2);
}

#[test]
fn a_stream_object_takes_one_stream_and_an_object_at_least_one_record() {
    let mut writer = ObjectWriter::new(info(ObjectKind::Stream), 100);
    writer.push(&record(2, 1, 0..1, b"x")).unwrap();
    let error = writer.push(&record(3, 1, 0..1, b"x")).unwrap_err();
    assert_eq!(error.message(), "second stream in a stream object");
    writer.push(&record(2, 2, 1..2, b"x")).unwrap();
    let built = writer.finish().unwrap();
    assert_eq!(
        index_of(&joined(&built)).unwrap().info().kind,
        ObjectKind::Stream
    );

    let empty = ObjectWriter::new(info(ObjectKind::Stream), 100);
    assert_eq!(empty.finish().unwrap_err().kind(), ErrorKind::Invalid);
}

/// A 32-bit offset delta in a peer's index overflowed, and compaction then deleted live data.
#[test]
fn offsets_and_counts_past_32_bits_are_kept_whole() {
    const BIG: u64 = 1 << 33;
    let records = [
        record(1, 1, 0..BIG + 7, b"a"),
        record(1, 1, BIG + 7..3 * BIG, b"b"),
        record(1, 1, 3 * BIG..3 * BIG + 1, b"c"),
        record(1 << 40, 1 << 41, u64::MAX - 10..u64::MAX, b"d"),
    ];
    let built = build(&records, 64);
    let object = joined(&built);
    assert_eq!(read_all(&object).unwrap(), records);
    let index = index_of(&object).unwrap();
    let found: Vec<_> = index
        .blocks(StreamId::new(1), 2 * BIG..3 * BIG + 1)
        .map(|block| block.offsets)
        .collect();
    assert_eq!(found, [BIG + 7..3 * BIG, 3 * BIG..3 * BIG + 1]);
}

/// Records of up to 5 streams, each with up to 3 epochs, dense within an epoch.
fn any_records() -> impl Strategy<Value = Vec<RecordBatch>> {
    let run = prop::collection::vec((1..5_u64, 0..200_usize), 1..12);
    let runs = (0..1_u64 << 40, prop::collection::vec((0..3_u64, run), 1..4));
    prop::collection::btree_map(any::<u64>(), runs, 1..5).prop_map(|streams| {
        let mut records = Vec::new();
        for (stream, (start, runs)) in streams {
            let mut next = start;
            for (epoch, (gap, run)) in runs.into_iter().enumerate() {
                next += gap;
                for (count, len) in run {
                    let payload = vec![(next % 251) as u8; len];
                    records.push(record(stream, epoch as u64, next..next + count, &payload));
                    next += count;
                }
            }
        }
        records
    })
}

proptest! {
    #[test]
    fn any_records_make_an_object_that_gives_them_back(
        records in any_records(),
        block_bytes in 0..2_000_usize,
    ) {
        let built = build(&records, block_bytes);
        let object = joined(&built);
        prop_assert_eq!(object.len() as u64, built.len);
        prop_assert_eq!(read_all(&object).unwrap(), records);
        let index = index_of(&object).unwrap();
        prop_assert!(index.ranges().eq(built.ranges.iter().cloned()));
        prop_assert!(index.all_blocks().eq(built.index.all_blocks()));
    }
}
