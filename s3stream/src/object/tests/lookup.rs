//! Finding blocks: against a scan of all of them, and how much memory an index takes.

use super::*;

proptest! {
    #[test]
    fn a_look_up_finds_what_a_scan_finds(
        records in any_records(),
        block_bytes in 0..500_usize,
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0..40_u64, 0..60_u64), 1..20),
    ) {
        let index = build(&records, block_bytes).index;
        for (pick, back, len) in picks {
            let record = pick.get(&records);
            let start = record.offsets.start.saturating_sub(back);
            let offsets = start..start + len;
            let scanned: Vec<_> = index
                .all_blocks()
                .filter(|block| block.stream == record.stream)
                .filter(|block| block.offsets.start < offsets.end && offsets.start < block.offsets.end)
                .filter(|_| len > 0)
                .collect();
            let found: Vec<_> = index.blocks(record.stream, offsets).collect();
            prop_assert_eq!(found, scanned);
        }
    }
}

#[test]
fn a_stream_that_is_not_there_has_no_blocks() {
    let index = build(&small(), 100).index;
    for stream in [0, 4, 9, u64::MAX] {
        assert_eq!(index.blocks(StreamId::new(stream), 0..u64::MAX).count(), 0);
    }
    let all = index.blocks(StreamId::new(3), 0..u64::MAX);
    assert_eq!(all.count(), 2);
    assert_eq!(index.blocks(StreamId::new(3), 20..30).count(), 0);
    assert_eq!(index.blocks(StreamId::new(3), 0..10).count(), 0);
}

#[test]
fn an_index_of_twenty_thousand_streams_takes_56_bytes_for_each() {
    let streams = 20_000;
    let records: Vec<_> = (0..streams)
        .map(|stream| record(stream, 1, 0..1, b"x"))
        .collect();
    let built = build(&records, 256 << 10);
    let object = joined(&built);
    let index = index_of(&object).unwrap();
    assert_eq!(index.ranges().len() as u64, streams);
    assert!(index.memory_bytes() as u64 <= streams * 56 + 256);
    let block = index.blocks(StreamId::new(12_345), 0..1).next().unwrap();
    assert_eq!(block.position.start, 12_345 * 45);
}

#[test]
fn a_tail_that_is_too_short_says_from_where_it_needs_more() {
    let object = joined(&build(&small(), 100));
    let len = object.len() as u64;
    let index_at = index_of(&object).unwrap().data_len();
    for have in 0..=len {
        let tail = &object[(len - have) as usize..];
        match ObjectIndex::decode_tail(tail, len, CLUSTER, OBJECT).unwrap() {
            TailStep::Index(_) => assert!(have >= len - index_at, "{have}"),
            TailStep::NeedMore { from } if have < 88 => assert_eq!(from, len - 88),
            TailStep::NeedMore { from } => {
                assert!(have < len - index_at, "{have}");
                assert_eq!(from, index_at);
            }
        }
    }
}
