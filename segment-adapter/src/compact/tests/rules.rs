//! Single rules: what is kept of one batch, and how.

use super::*;
use crate::builder::put_varlong;
use crate::header::{Attributes, BATCH_HEADER_LEN, BatchHeader, TimestampType};

/// Of these keys this is the newest offset, and all below `end` is accounted for.
fn map(keys: &[(&str, i64)], end: i64) -> OffsetMap {
    let mut map = OffsetMap::new(1 << 12);
    for (key, offset) in keys {
        assert!(map.put(key.as_bytes(), *offset));
    }
    map.cover(end);
    map
}

fn pass(map: &OffsetMap, now_ms: i64) -> Pass<'_> {
    Pass::new(Round {
        map,
        aborts: Aborts::default(),
        last_offsets: Default::default(),
        now_ms,
        delete_retention_ms: RETENTION_MS,
        end: 1000,
        decompressed_bytes_max: 1 << 16,
    })
}

fn batch_at(offset: i64, builder: BatchBuilder) -> Batch {
    let mut bytes = builder.build().unwrap().to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    only(bytes.into())
}

fn rewritten(fate: Fate) -> Batch {
    match fate {
        Fate::Rewritten(batch) => {
            batch.verify_checksum().unwrap();
            assert_eq!(only(batch.bytes().clone()), batch);
            batch
        }
        other => panic!("{other:?}"),
    }
}

fn offsets(batch: &Batch) -> Vec<i64> {
    records(batch).iter().map(|read| read.offset).collect()
}

#[test]
fn a_batch_of_any_codec_is_written_again_in_it_and_its_records_are_as_they_were() {
    for codec in Codec::ALL {
        let value = b"value".repeat(100);
        let builder = BatchBuilder::new(codec)
            .producer(7, 2, 40)
            .record(100, Some(b"a"), Some(&value))
            .record_with_headers(
                300,
                Some(b"b"),
                Some(b""),
                &[("h", Some(b"x")), ("i", None)],
            )
            .record(200, Some(b"c"), Some(&value));
        let batch = batch_at(10, builder);
        let map = map(&[("b", 50), ("a", 10)], 100);
        let kept = rewritten(pass(&map, 0).add(&batch).unwrap());
        let mut was = records(&batch);
        was.remove(1);
        assert_eq!(records(&kept), was, "{codec}");
        let expected = BatchHeader {
            batch_length: kept.header().batch_length,
            crc: kept.header().crc,
            records_count: 2,
            max_timestamp: 200,
            ..*batch.header()
        };
        assert_eq!(*kept.header(), expected);
        assert_eq!(kept.header().attributes.codec().unwrap(), codec);
        // The same again is not written again; nor is one of which everything stays.
        assert_eq!(pass(&map, 0).add(&kept).unwrap(), Fate::Untouched);
    }
}

#[test]
fn decompression_has_a_limit() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let large = vec![0; 1 << 17];
        let builder = BatchBuilder::new(codec).record(1, Some(b"k"), Some(&large));
        let batch = batch_at(10, builder);
        let mut map = map(&[], 0);
        let error = pass(&map, 0).add(&batch).unwrap_err();
        assert!(matches!(error, LogError::MessageTooLarge { .. }), "{error}");
        let aborts = Aborts::default();
        let mut fold = DirtyFold::new(&mut map, &aborts, 0, 1 << 16);
        let error = fold.add(&batch).unwrap_err();
        assert!(matches!(error, LogError::MessageTooLarge { .. }), "{error}");
    }
}

#[test]
fn what_cannot_be_decompressed_or_has_no_such_records_is_an_error() {
    let builder = BatchBuilder::new(Codec::Zstd).record(1, Some(b"k"), Some(b"v"));
    let whole = batch_at(10, builder);
    let map = map(&[], 0);
    let broken = |attributes, count, records: &[u8]| {
        let header = BatchHeader {
            attributes: Attributes::new(attributes),
            records_count: count,
            ..*whole.header()
        };
        let batch = Batch::new(header, records).unwrap();
        pass(&map, 0).add(&batch).unwrap_err()
    };
    let records = whole.record_bytes();
    let error = broken(4, 1, &records[..records.len() - 1]);
    assert!(matches!(error, LogError::Undecodable { .. }), "{error}");
    let error = broken(5, 1, records);
    assert!(
        matches!(error, LogError::UnsupportedCompression(5)),
        "{error}"
    );
    let error = broken(4, 2, records);
    assert!(matches!(error, LogError::InvalidRecord { .. }), "{error}");
    let error = broken(4, -1, records);
    assert!(matches!(error, LogError::Corrupt(_)), "{error}");
    let ends_early = BatchHeader {
        last_offset_delta: -1,
        ..*whole.header()
    };
    let ends_early = Batch::new(ends_early, records).unwrap();
    let error = pass(&map, 0).add(&ends_early).unwrap_err();
    assert!(matches!(error, LogError::Corrupt(_)), "{error}");
}

#[test]
fn batches_come_in_their_order() {
    let map = map(&[], 0);
    let at = |offset| batch_at(offset, BatchBuilder::new(Codec::None).record(1, None, None));
    let aborts = Aborts::default();
    for second in [9, 10] {
        let mut pass = pass(&map, 0);
        pass.add(&at(10)).unwrap();
        let error = pass.add(&at(second)).unwrap_err();
        assert!(matches!(error, LogError::Corrupt(_)), "{error}");
        let mut fresh = OffsetMap::new(24);
        let mut fold = DirtyFold::new(&mut fresh, &aborts, 0, 1);
        fold.add(&at(10)).unwrap();
        assert!(matches!(fold.add(&at(second)), Err(LogError::Corrupt(_))));
    }
    assert!(matches!(
        pass(&map, 0).add(&at(-1)),
        Err(LogError::Corrupt(_))
    ));
}

#[test]
fn log_append_time_is_kept_with_and_without_tombstones() {
    for tombstone in [true, false] {
        let value = (!tombstone).then_some(&b"v"[..]);
        let builder = BatchBuilder::new(Codec::Lz4)
            .record(100, Some(b"a"), Some(b"v"))
            .record(200, Some(b"b"), value);
        let sent = batch_at(10, builder);
        let header = BatchHeader {
            attributes: sent.header().attributes.with_log_append_time(),
            max_timestamp: 77,
            ..*sent.header()
        };
        let batch = Batch::new(header, sent.record_bytes()).unwrap();
        let map = map(&[("a", 50)], 100);
        let kept = rewritten(pass(&map, 5).add(&batch).unwrap());
        assert_eq!(records(&kept), records(&batch)[1..]);
        let header = kept.header();
        let timestamp_type = header.attributes.timestamp_type();
        assert_eq!(timestamp_type, TimestampType::LogAppendTime);
        assert_eq!(
            (header.max_timestamp, records(&kept)[0].timestamp),
            (77, 77)
        );
        let horizon = tombstone.then_some(5 + RETENTION_MS);
        assert_eq!(header.delete_horizon(), horizon);
    }
}

#[test]
fn above_the_end_of_the_map_everything_stays_and_no_time_begins() {
    let builder = || {
        BatchBuilder::new(Codec::None)
            .record(1, None, Some(b"v"))
            .record(1, Some(b"a"), None)
            .record(1, None, Some(b"v"))
            .record(1, Some(b"b"), None)
            .record(1, Some(b"b"), Some(b"v"))
    };
    let batch = batch_at(10, builder());
    let fate = |end| {
        let map = map(&[("a", 9), ("b", 14)], end);
        pass(&map, 0).add(&batch).unwrap()
    };
    assert_eq!(fate(10), Fate::Untouched);
    // Below it they go; the time of tombstones begins when the map accounts for all of them.
    for (end, kept, has_horizon) in [
        (11, vec![11, 12, 13, 14], false),
        (12, vec![11, 12, 13, 14], false),
        (13, vec![11, 13, 14], false),
        (14, vec![11, 14], true),
        (15, vec![11, 14], true),
    ] {
        let rewritten = rewritten(fate(end));
        assert_eq!(offsets(&rewritten), kept, "{end}");
        let horizon = rewritten.header().delete_horizon();
        assert_eq!(horizon.is_some(), has_horizon, "{end}");
    }
    // One whose time is over stays above the end as well.
    let over = BatchHeader {
        attributes: batch.header().attributes.with_delete_horizon(),
        base_timestamp: -5,
        ..*batch.header()
    };
    let over = Batch::new(over, batch.record_bytes()).unwrap();
    let map = map(&[], 12);
    let kept = rewritten(pass(&map, 0).add(&over).unwrap());
    assert_eq!(offsets(&kept), [12, 13, 14]);
}

#[test]
fn a_time_that_has_begun_does_not_begin_again_and_holds_for_its_batch() {
    let builder = BatchBuilder::new(Codec::None)
        .record(1, Some(b"a"), None)
        .record(2, Some(b"b"), None)
        .record(3, Some(b"c"), Some(b"v"));
    let batch = batch_at(10, builder);
    let first = map(&[], 100);
    let begun = rewritten(pass(&first, 50).add(&batch).unwrap());
    assert_eq!(begun.header().delete_horizon(), Some(50 + RETENTION_MS));
    assert_eq!(records(&begun), records(&batch));
    let later = map(&[("a", 60)], 100);
    let kept = rewritten(pass(&later, 500).add(&begun).unwrap());
    assert_eq!(kept.header().delete_horizon(), Some(50 + RETENTION_MS));
    assert_eq!(records(&kept), records(&batch)[1..]);
    let kept = rewritten(pass(&later, 50 + RETENTION_MS).add(&kept).unwrap());
    assert_eq!(records(&kept), records(&batch)[2..]);
    assert_eq!(kept.header().delete_horizon(), Some(50 + RETENTION_MS));
}

#[test]
fn times_far_apart_are_kept_when_the_horizon_takes_the_base() {
    let times = [i64::MIN, -1, 0, 1, i64::MAX, 1 << 40];
    for now_ms in [0, -7, i64::MAX, i64::MIN] {
        let mut builder = BatchBuilder::new(Codec::None);
        for time in times {
            builder = builder.record(time, Some(b"a"), None);
        }
        let batch = batch_at(10, builder);
        let map = map(&[], 100);
        let kept = rewritten(pass(&map, now_ms).add(&batch).unwrap());
        assert_eq!(records(&kept), records(&batch));
        assert_eq!(kept.header().max_timestamp, i64::MAX);
        let horizon = kept.header().delete_horizon();
        assert_eq!(horizon, Some(now_ms.saturating_add(RETENTION_MS)));
    }
}

/// A batch of two records of the key `a` whose offset deltas a client has made up.
fn odd(deltas: [i32; 2]) -> Batch {
    let mut bytes = Vec::new();
    for delta in deltas {
        let mut record = vec![0, 0];
        put_varlong(&mut record, i64::from(delta));
        record.extend_from_slice(&[2, b'a', 2, b'v', 0]);
        put_varlong(&mut bytes, record.len() as i64);
        bytes.extend_from_slice(&record);
    }
    let sent = BatchBuilder::new(Codec::None)
        .record(1, None, None)
        .record(1, None, None);
    let sent = batch_at(10, sent);
    Batch::new(*sent.header(), &bytes).unwrap()
}

/// Of two records that say these offset deltas, how many a pass keeps if the newest of their key is `newest`.
fn kept_of_odd(deltas: [i32; 2], newest: i64) -> usize {
    let batch = odd(deltas);
    let map = map(&[("a", newest)], 100);
    match pass(&map, 0).add(&batch).unwrap() {
        Fate::Removed => 0,
        Fate::Untouched => 2,
        rewrite => {
            assert_eq!(rewritten(rewrite).header().records_count, 1);
            1
        }
    }
}

#[test]
fn records_that_say_offsets_that_cannot_be_supersede_nothing_that_comes_later() {
    // What the offsets of the two count as.
    for (deltas, counts_as) in [
        ([0, 1], [10, 11]),
        ([1, 0], [11, 11]),
        ([0, 0], [10, 10]),
        ([0, 2], [10, 11]),
        ([0, i32::MAX], [10, 11]),
        ([i32::MAX, i32::MIN], [11, 11]),
        ([-1, 0], [10, 10]),
        ([i32::MIN, 1], [10, 11]),
    ] {
        let batch = odd(deltas);
        let mut noted = map(&[], 0);
        let aborts = Aborts::default();
        let mut fold = DirtyFold::new(&mut noted, &aborts, 0, 1 << 16);
        fold.add(&batch).unwrap();
        assert_eq!((fold.end(), noted.get(b"a")), (12, Some(counts_as[1])));
        // The last of them stays, and those that count as lying there.
        let at_last = counts_as.iter().filter(|offset| **offset == counts_as[1]);
        assert_eq!(kept_of_odd(deltas, counts_as[1]), at_last.count());
        // A later one supersedes both, whatever they say.
        assert_eq!(kept_of_odd(deltas, 12), 0, "{deltas:?}");
        assert_eq!(kept_of_odd(deltas, 9), 2, "{deltas:?}");
    }
}

#[test]
fn more_keys_at_one_offset_than_the_map_has_room_for_do_not_stop_it() {
    let mut bytes = Vec::new();
    for key in b'a'..=b'e' {
        bytes.extend_from_slice(&[16, 0, 0, 0, 2, key, 2, b'v', 0]);
    }
    let sent = batch_at(10, BatchBuilder::new(Codec::None).record(1, None, None));
    let header = BatchHeader {
        records_count: 5,
        last_offset_delta: 4,
        ..*sent.header()
    };
    let batch = Batch::new(header, &bytes).unwrap();
    let mut map = OffsetMap::new(2 * 24);
    let aborts = Aborts::default();
    let mut fold = DirtyFold::new(&mut map, &aborts, 10, 1 << 16);
    assert_eq!(fold.add(&batch).unwrap(), Folded::All);
    assert_eq!(fold.end(), 15);
    assert_eq!(pass(&map, 0).add(&batch).unwrap(), Fate::Untouched);
}

#[test]
fn control_records_of_other_kinds_stay() {
    let map = map(&[], 100);
    // A leader change of no transaction; a type that is not known; a marker's type without a transaction.
    for (kind, transactional) in [(2_i16, false), (9, true), (1, false)] {
        let key = [&[0, 0], &kind.to_be_bytes()[..]].concat();
        let mut builder = BatchBuilder::new(Codec::None).producer(3, 0, -1).control();
        if transactional {
            builder = builder.transactional();
        }
        let batch = batch_at(10, builder.record(1, Some(&key), Some(&[0; 6])));
        for now_ms in [0, i64::MAX] {
            assert_eq!(pass(&map, now_ms).add(&batch).unwrap(), Fate::Untouched);
        }
    }
}

#[test]
fn the_marker_of_data_that_was_seen_stays_though_nobody_knows_it_was_aborted() {
    let map = map(&[], 100);
    let mut pass = pass(&map, 0);
    let data = BatchBuilder::new(Codec::None)
        .producer(3, 0, 0)
        .transactional();
    let data = batch_at(10, data.record(1, Some(b"a"), Some(b"v")));
    assert_eq!(pass.add(&data).unwrap(), Fate::Untouched);
    let marker = Marker {
        commit: false,
        coordinator_epoch: 0,
    };
    let marker = |offset: i64| {
        let mut bytes = marker.build(3, 0, 1).unwrap().to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        only(bytes.into())
    };
    assert_eq!(pass.add(&marker(11)).unwrap(), Fate::Untouched);
    assert!(pass.take_emptied().is_empty());
    // The next one has no data.
    let empty = rewritten(pass.add(&marker(12)).unwrap());
    assert_eq!(empty.header().delete_horizon(), Some(RETENTION_MS));
}

#[test]
fn a_damaged_marker_is_an_error_at_once() {
    let map = map(&[], 100);
    let marker = Marker {
        commit: true,
        coordinator_epoch: 0,
    };
    let whole = only(marker.build(3, 0, 1).unwrap());
    let mut records = whole.record_bytes().to_vec();
    // It has a header that is not there.
    *records.last_mut().unwrap() = 2;
    let damaged = Batch::new(*whole.header(), &records).unwrap();
    assert!(Marker::of(damaged.header(), damaged.record_bytes()).is_some());
    let error = pass(&map, 0).add(&damaged).unwrap_err();
    assert!(matches!(error, LogError::InvalidRecord { .. }), "{error}");
}

#[test]
fn only_a_transaction_is_aborted_and_only_up_to_its_marker() {
    let entry = |producer_id, first_offset, last_offset| Aborted {
        producer_id,
        first_offset,
        last_offset,
        stable_offset: last_offset + 1,
    };
    // In the order of their markers, as a log has them.
    let aborts = Aborts::new(&[
        entry(5, 0, 9),
        entry(3, 10, 20),
        entry(5, 30, 40),
        entry(3, 50, 60),
    ]);
    let is_aborted = |producer, offset, transactional| {
        let builder = BatchBuilder::new(Codec::None).producer(producer, 0, 0);
        let builder = match transactional {
            true => builder.transactional(),
            false => builder,
        };
        let batch = batch_at(offset, builder.record(1, None, None));
        aborts.has_data(batch.header())
    };
    for (producer, offset, aborted) in [
        (3, 9, false),
        (3, 10, true),
        (3, 19, true),
        (3, 21, false),
        (3, 49, false),
        (3, 59, true),
        (3, 61, false),
        (5, 8, true),
        (5, 15, false),
        (5, 35, true),
        (4, 15, false),
    ] {
        assert_eq!(
            is_aborted(producer, offset, true),
            aborted,
            "{producer} {offset}"
        );
        assert!(!is_aborted(producer, offset, false));
    }
}

#[test]
fn what_is_below_the_first_dirty_offset_is_not_noted() {
    let mut map = map(&[], 0);
    let aborts = Aborts::default();
    let mut fold = DirtyFold::new(&mut map, &aborts, 12, 1 << 16);
    assert_eq!(fold.end(), 12);
    let builder = || {
        BatchBuilder::new(Codec::None)
            .record(1, Some(b"a"), Some(b"v"))
            .record(1, Some(b"b"), Some(b"v"))
            .record(1, Some(b"c"), Some(b"v"))
    };
    fold.add(&batch_at(0, builder())).unwrap();
    assert_eq!(fold.end(), 12);
    fold.add(&batch_at(10, builder())).unwrap();
    assert_eq!(fold.end(), 13);
    fold.segment_ended(20);
    assert_eq!((fold.end(), fold.read().1), (20, 3));
    let noted = ["a", "b", "c"].map(|key| map.get(key.as_bytes()));
    assert_eq!(noted, [None, None, Some(12)]);
}

#[test]
fn a_full_map_ends_the_fold_before_the_first_key_without_room() {
    let mut map = OffsetMap::new(2 * 24);
    let aborts = Aborts::default();
    let mut fold = DirtyFold::new(&mut map, &aborts, 0, 1 << 16);
    let first = BatchBuilder::new(Codec::None)
        .record(1, Some(b"a"), Some(b"v"))
        .record(1, None, Some(b"v"))
        .record(1, Some(b"a"), Some(b"v"))
        .record(1, None, Some(b"v"))
        .record(1, Some(b"b"), Some(b"v"));
    assert_eq!(fold.add(&batch_at(10, first)).unwrap(), Folded::Full);
    assert_eq!(fold.end(), 14);
    let more = BatchBuilder::new(Codec::None).record(1, Some(b"a"), Some(b"v"));
    assert_eq!(fold.add(&batch_at(15, more)).unwrap(), Folded::Full);
    fold.segment_ended(20);
    assert_eq!(fold.end(), 14);
    assert_eq!((map.get(b"a"), map.get(b"b")), (Some(12), None));
}

#[test]
fn an_empty_batch_says_no_codec_and_no_horizon() {
    let builder = BatchBuilder::new(Codec::Zstd)
        .producer(3, 1, 9)
        .transactional()
        .record(1, Some(b"a"), None);
    let batch = batch_at(999, builder);
    let first = map(&[], 1000);
    let begun = rewritten(pass(&first, 0).add(&batch).unwrap());
    assert!(begun.header().attributes.has_delete_horizon());
    let kept = rewritten(pass(&first, RETENTION_MS).add(&begun).unwrap());
    assert_eq!(kept.bytes().len(), BATCH_HEADER_LEN);
    let expected = BatchHeader {
        batch_length: 49,
        crc: kept.header().crc,
        attributes: Attributes::new(0x10),
        base_timestamp: -1,
        records_count: 0,
        ..*batch.header()
    };
    assert_eq!(*kept.header(), expected);
    assert_eq!(pass(&first, 0).add(&kept).unwrap(), Fate::Untouched);
}

#[test]
fn what_a_pass_has_done_is_counted() {
    let map = map(&[("a", 50), ("b", 12)], 100);
    let mut pass = pass(&map, 0);
    let first = BatchBuilder::new(Codec::None)
        .record(1, Some(b"a"), Some(b"v"))
        .record(1, None, Some(b"v"))
        .record(1, Some(b"b"), None);
    let gone = BatchBuilder::new(Codec::None).record(1, Some(b"a"), Some(b"v"));
    let stays = BatchBuilder::new(Codec::None).record(1, Some(b"c"), Some(b"v"));
    let batches = [batch_at(10, first), batch_at(20, gone), batch_at(30, stays)];
    let mut bytes_out = 0;
    for batch in &batches {
        bytes_out += match pass.add(batch).unwrap() {
            Fate::Untouched => batch.bytes().len(),
            Fate::Rewritten(batch) => batch.bytes().len(),
            Fate::Removed => 0,
        };
    }
    let stats = Stats {
        batches_in: 3,
        bytes_in: batches.iter().map(|batch| batch.bytes().len() as u64).sum(),
        records_in: 5,
        batches_out: 2,
        bytes_out: bytes_out as u64,
        records_out: 2,
        tombstones_out: 1,
        earliest_horizon: Some(RETENTION_MS),
    };
    assert_eq!(*pass.stats(), stats);
}
