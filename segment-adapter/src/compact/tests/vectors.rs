//! The vectors of the cleaner, as far as they are about batches alone.

use std::ops::Range;

use super::*;

const MANY: usize = 100;

fn first_offset(log: &Log, id: i64) -> Vec<i64> {
    let of = log
        .batches()
        .filter(|batch| batch.header().producer_id == id);
    of.map(|batch| batch.header().base_offset).collect()
}

#[test]
fn vector_131_the_newest_record_of_each_key_is_kept_where_it_is() {
    let mut log = Log::new();
    for round in 0..3 {
        for key in 0..10 {
            log.plain(&[(&key.to_string(), &round.to_string())]);
        }
        log.roll();
    }
    log.plain(&[("0", "active")]);
    log.plain(&[("0", "active too")]);
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), (20..32).collect::<Vec<i64>>());
    assert_eq!(log.checkpoint, Some(30));
    // Nothing is left to do.
    let again = log.clone();
    let stats = log.clean(MANY, 0).unwrap();
    assert_eq!(stats.bytes_in, stats.bytes_out);
    assert!(log.batches().eq(again.batches()));
}

#[test]
fn vector_132_the_last_sequence_of_each_producer_stays() {
    let mut log = Log::new();
    log.of_producer(1, 0, &[("1", "a"), ("2", "a"), ("3", "a")]);
    log.of_producer(2, 0, &[("3", "b"), ("1", "b"), ("4", "b")]);
    log.of_producer(3, 0, &[("1", "c"), ("4", "c")]);
    log.roll();
    let producers = log.producers.active();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [1, 3, 6, 7]);
    assert_eq!(log.batch_ends(), [2, 5, 7]);
    // Who reads the log from its start knows every producer as before.
    let mut replayed = Producers::default();
    for batch in log.batches() {
        replayed.add(&Entry::of(batch), PRODUCERS_MAX);
    }
    assert_eq!(replayed.active(), producers);
    let last: Vec<i32> = producers.iter().map(|known| known.last_sequence).collect();
    assert_eq!(last, [2, 2, 1]);
}

#[test]
fn vector_133_records_of_committed_transactions_and_all_markers_stay() {
    let mut log = Log::new();
    log.in_txn(1, 0, &[("1", "a"), ("2", "a")]);
    log.in_txn(2, 0, &[("2", "b"), ("3", "b")]);
    log.in_txn(1, 2, &[("3", "a"), ("4", "a")]);
    log.marker(1, 0, false);
    log.marker(2, 0, true);
    log.in_txn(1, 4, &[("2", "c")]);
    log.marker(1, 0, true);
    log.roll();
    let aborted = log.aborted();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.keys(), ["3", "2"]);
    assert_eq!(log.offsets(), [3, 6, 7, 8, 9]);
    assert_eq!(log.aborted(), aborted);
    assert_eq!(aborted.len(), 1);
}

#[test]
fn vector_134_aborted_data_goes_then_its_index_entry_then_its_marker() {
    let mut log = Log::new();
    log.in_txn(1, 0, &[("1", "a"), ("2", "a")]);
    log.marker(1, 0, false);
    log.in_txn(2, 0, &[("3", "b")]);
    log.marker(2, 0, false);
    // Later batches of the same producers, so that theirs need not stay.
    log.in_txn(1, 2, &[("5", "a")]);
    log.in_txn(2, 1, &[("6", "b")]);
    log.marker(1, 0, true);
    log.marker(2, 0, true);
    log.roll();
    log.plain(&[("9", "x")]);
    log.roll();
    log.clean(4, 0).unwrap();
    assert_eq!(log.offsets(), [2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(log.aborted().len(), 2);
    // The data is gone: readers need not know, and the markers get their time.
    log.clean(4, 10).unwrap();
    assert_eq!(log.offsets(), [2, 4, 5, 6, 7, 8, 9]);
    assert!(log.aborted().is_empty());
    for marker in [2, 4] {
        let horizon = log.at(marker).unwrap().header().delete_horizon();
        assert_eq!(horizon, Some(10 + RETENTION_MS));
    }
    log.clean(4, 10 + RETENTION_MS - 1).unwrap();
    assert_eq!(log.offsets(), [2, 4, 5, 6, 7, 8, 9]);
    log.clean(4, 10 + RETENTION_MS).unwrap();
    assert_eq!(log.offsets(), [5, 6, 7, 8, 9]);
}

#[test]
fn vector_135_a_commit_marker_stays_until_its_time_after_its_records() {
    let mut log = Log::new();
    log.in_txn(1, 0, &[("1", "a")]);
    log.marker(1, 0, true);
    log.roll();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [0, 1]);
    // Superseded, and its producer has gone on: the data goes in this pass, and the marker is still whole.
    log.plain(&[("1", "b")]);
    log.of_producer(1, 1, &[("2", "a")]);
    log.roll();
    log.clean(MANY, 5).unwrap();
    assert_eq!(log.offsets(), [1, 2, 3]);
    assert_eq!(log.at(1).unwrap().header().delete_horizon(), None);
    for now_ms in [20, 20, 20 + RETENTION_MS - 1] {
        log.clean(MANY, now_ms).unwrap();
        assert_eq!(log.offsets(), [1, 2, 3]);
        let marker = log.at(1).unwrap();
        assert_eq!(marker.header().delete_horizon(), Some(20 + RETENTION_MS));
        assert_eq!(records(marker)[0].timestamp, 1);
        assert!(Marker::of(marker.header(), marker.record_bytes()).is_some());
    }
    let stats = log.clean(MANY, 20 + RETENTION_MS).unwrap();
    assert_eq!(log.offsets(), [2, 3]);
    assert_eq!(stats.earliest_horizon, None);
}

#[test]
fn vector_136_a_marker_in_the_next_segment_stays_with_its_data() {
    for commit in [true, false] {
        let mut log = Log::new();
        log.in_txn(1, 0, &[("1", "a")]);
        log.roll();
        log.marker(1, 0, commit);
        log.plain(&[("2", "a")]);
        log.roll();
        log.segment_bytes = 1;
        for pass in 0..5 {
            log.clean(MANY, pass * 10 * RETENTION_MS).unwrap();
            assert_eq!(log.batch_ends(), [0, 1, 2]);
            assert_eq!(log.at(0).unwrap().bytes().len() == 61, !commit);
            assert_eq!(log.aborted().len(), usize::from(!commit));
        }
        assert_eq!(log.segments.len(), 3);
    }
}

#[test]
fn vector_137_the_last_batch_of_a_producer_stays_empty_until_there_is_another() {
    // Superseded data, aborted data, and a producer that begins at sequence 0 again with every epoch.
    for (case, txn) in [
        ("superseded", false),
        ("aborted", true),
        ("restarted", false),
    ] {
        let mut log = Log::new();
        if txn {
            log.in_txn(1, 4, &[("1", "a"), ("2", "a")]);
            log.marker(1, 0, false);
        } else {
            log.of_producer(1, 4, &[("1", "a"), ("2", "a")]);
        }
        log.plain(&[("1", "b"), ("2", "b")]);
        log.roll();
        for now_ms in [0, 10 * RETENTION_MS] {
            log.clean(MANY, now_ms).unwrap();
            let kept = log.at(0).unwrap();
            assert_eq!(kept.bytes().len(), 61, "{case}");
            let header = kept.header();
            assert_eq!((header.last_offset(), header.records_count), (1, 0));
            assert_eq!((header.base_sequence, header.base_timestamp), (4, -1));
            assert_eq!(
                (header.max_timestamp, header.partition_leader_epoch),
                (5, 3)
            );
            assert_eq!(header.attributes.is_transactional(), txn);
            kept.verify_checksum().unwrap();
        }
        let epoch = i16::from(case == "restarted");
        let sequence = if epoch == 1 { 0 } else { 6 };
        let next = BatchBuilder::new(Codec::None).producer(1, epoch, sequence);
        let next = log.append(&records_of(next, &[("3", "a")]));
        log.roll();
        log.clean(MANY, 20 * RETENTION_MS).unwrap();
        assert_eq!(first_offset(&log, 1).last(), Some(&next), "{case}");
        assert!(log.at(0).is_none(), "{case}");
    }
}

#[test]
fn vector_138_of_a_producer_with_only_markers_an_empty_one_stays() {
    let mut log = Log::new();
    log.marker(1, 7, true);
    log.plain(&[("1", "a")]);
    log.roll();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [0, 1]);
    for now_ms in [RETENTION_MS, 2 * RETENTION_MS, 30 * RETENTION_MS] {
        log.clean(MANY, now_ms).unwrap();
        let kept = log.at(0).unwrap();
        assert_eq!((kept.bytes().len(), log.offsets()), (61, vec![1]));
        let header = kept.header();
        assert_eq!((header.producer_id, header.producer_epoch), (1, 7));
        assert!(header.attributes.is_control() && header.attributes.is_transactional());
    }
}

#[test]
fn vector_139_a_key_like_a_markers_means_nothing() {
    let mut log = Log::new();
    let commit = log.marker(1, 0, true);
    let key = records(log.at(commit).unwrap())[0].key.clone().unwrap();
    let batch = |value: &[u8]| {
        let builder = BatchBuilder::new(Codec::None).producer(2, 0, 0);
        let builder = builder.record(1, Some(&key), Some(value));
        builder.transactional().build().unwrap()
    };
    log.append(&batch(b"first"));
    log.marker(2, 0, true);
    log.roll();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [0, 1, 2]);
}

#[test]
fn vector_140_a_tombstone_has_its_time_from_its_first_cleaning_on() {
    for record_time in [0, 1_000_000] {
        let mut log = Log::new();
        log.plain(&[("1", "a"), ("2", "a")]);
        let deletes = BatchBuilder::new(Codec::None)
            .record(record_time, Some(b"1"), None)
            .record(record_time + 7, Some(b"3"), Some(b"x"));
        log.append(&deletes.build().unwrap());
        log.roll();
        let before = records(log.at(2).unwrap());
        let stats = log.clean(MANY, 100).unwrap();
        assert_eq!(stats.earliest_horizon, Some(100 + RETENTION_MS));
        assert_eq!((stats.tombstones_out, stats.records_out), (1, 3));
        for now_ms in [100, 500, 100 + RETENTION_MS - 1] {
            log.clean(MANY, now_ms).unwrap();
            assert_eq!(log.offsets(), [1, 2, 3]);
            let batch = log.at(2).unwrap();
            assert_eq!(records(batch), before, "times have not changed");
            assert_eq!(batch.header().delete_horizon(), Some(100 + RETENTION_MS));
            assert_eq!(batch.header().max_timestamp, record_time + 7);
        }
        log.clean(MANY, 100 + RETENTION_MS).unwrap();
        assert_eq!(log.offsets(), [1, 3]);
        assert_eq!(records(log.at(2).unwrap())[0].timestamp, record_time + 7);
    }
}

#[test]
fn vector_141_a_full_map_makes_progress_key_by_key() {
    for slots in [1, 2] {
        let mut log = Log::new();
        for _ in 0..3 {
            log.plain(&[("0", "a")]);
            log.plain(&[("1", "a")]);
        }
        log.roll();
        for (done, left) in [
            (1, vec![0, 1, 2, 3, 4, 5]),
            (2, vec![0, 1, 2, 3, 4, 5]),
            (3, vec![1, 2, 3, 4, 5]),
            (4, vec![2, 3, 4, 5]),
            (5, vec![3, 4, 5]),
            (6, vec![4, 5]),
        ] {
            log.clean(slots, 0).unwrap();
            assert_eq!((log.checkpoint, log.offsets()), (Some(done), left));
        }
        // In one batch as well.
        let mut log = Log::new();
        log.plain(&[("0", "a"), ("1", "a"), ("0", "b"), ("1", "b")]);
        log.roll();
        for (done, left) in [
            (1, vec![0, 1, 2, 3]),
            (2, vec![0, 1, 2, 3]),
            (3, vec![1, 2, 3]),
            (4, vec![2, 3]),
        ] {
            log.clean(slots, 0).unwrap();
            assert_eq!((log.checkpoint, log.offsets()), (Some(done), left));
        }
    }
}

#[test]
fn vector_142_the_last_batch_of_the_round_stays_when_everything_goes() {
    let mut log = Log::new();
    log.plain(&[("1", "a")]);
    log.plain(&[("1", ""), ("1", "")]);
    log.roll();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [2]);
    log.clean(MANY, RETENTION_MS).unwrap();
    assert!(log.offsets().is_empty());
    assert_eq!(log.batch_ends(), [2]);
    // Once something follows, it goes.
    log.plain(&[("2", "a")]);
    log.roll();
    log.clean(MANY, RETENTION_MS).unwrap();
    assert_eq!(log.batch_ends(), [3]);
}

#[test]
fn vector_143_gaps_between_segments_are_clean() {
    let mut log = Log::new();
    for key in 0..10 {
        log.plain(&[(&key.to_string(), "a")]);
    }
    log.roll_at(11);
    for key in 11..25 {
        log.plain(&[(&key.to_string(), "a")]);
    }
    log.roll_at(30);
    log.plain(&[("0", "active")]);
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.checkpoint, Some(30));
    assert_eq!(log.dirtiness().dirty_bytes, 0);
}

#[test]
fn vector_144_records_without_a_key_go_and_damage_is_an_error() {
    let mut log = Log::new();
    let builder = BatchBuilder::new(Codec::None).record(1, None, Some(b"x"));
    log.append(&builder.record(1, Some(b"k"), Some(b"x")).build().unwrap());
    log.plain(&[("l", "x")]);
    log.roll();
    let mut damaged = log.clone();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [1, 2]);

    let batch = &mut damaged.segments[0].batches[0];
    let mut bytes = batch.bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    *batch = only(bytes.into());
    let error = damaged.clean(MANY, 0).unwrap_err();
    assert!(matches!(error, LogError::Corrupt(_)), "{error}");
    // As it was.
    assert_eq!(
        (damaged.checkpoint, damaged.batch_ends()),
        (None, vec![1, 2])
    );
}

/// A segment of so many bytes and offsets from `base` on.
fn span(base: i64, offsets: i64, bytes: u64) -> Span {
    Span {
        base,
        end: base + offsets,
        bytes,
        first_timestamp: base,
        max_timestamp: base + offsets - 1,
        epochs: 1,
    }
}

/// How many segments go together in each group.
fn together(spans: &[Span], bytes_max: u64, epochs_max: usize) -> Vec<usize> {
    let groups = groups(spans, bytes_max, epochs_max);
    let mut end = 0;
    for group in &groups {
        assert_eq!(group.start, end, "none is left out");
        end = group.end;
    }
    assert_eq!(end, spans.len());
    groups.iter().map(Range::len).collect()
}

#[test]
fn vector_145_segments_go_together_by_size_epochs_and_span_of_offsets() {
    let spans: Vec<Span> = (0..4).map(|at| span(at * 10, 10, 100)).collect();
    assert_eq!(together(&[], 1, 1), [0; 0]);
    // By size, up to the limit itself; one that is too large is alone.
    assert_eq!(together(&spans, 99, 9), [1, 1, 1, 1]);
    assert_eq!(together(&spans, 200, 9), [2, 2]);
    assert_eq!(together(&spans, 399, 9), [3, 1]);
    assert_eq!(together(&spans, 400, 9), [4]);
    assert_eq!(together(&spans, u64::MAX, 9), [4]);
    // By leader epochs, which are in the place of an index of limited size.
    assert_eq!(together(&spans, 400, 3), [3, 1]);
    assert_eq!(together(&spans, 400, 0), [1, 1, 1, 1]);
    // By offsets: the last one may lie 2³¹ − 1 past the base.
    let last = i64::from(i32::MAX);
    let near = [span(0, 1, 100), span(1, last, 100)];
    assert_eq!(together(&near, 400, 9), [2]);
    let far = [
        span(0, 1, 100),
        span(1, last + 1, 100),
        span(last + 2, 1, 1),
    ];
    assert_eq!(together(&far, 400, 9), [1, 1, 1]);
    // Without batches any distance is fine, and the size is the others'.
    let empty = [span(0, 1, 100), span(1, last + 1, 0), span(last + 2, 5, 0)];
    assert_eq!(together(&empty, 100, 9), [3]);
}

#[test]
fn vector_146_a_checkpoint_outside_the_log_is_its_start() {
    let spans = [span(10, 90, 100), span(100, 100, 100)];
    let first_dirty = |checkpoint, start, end| {
        let bounds = Bounds {
            checkpoint,
            start,
            end,
            active: 200,
            stable: end,
        };
        Dirtiness::of(&spans, bounds, &limits(), 0).first_dirty
    };
    assert_eq!(first_dirty(Some(300), 10, 250), 10);
    assert_eq!(first_dirty(Some(200), 0, 150), 0);
    assert_eq!(first_dirty(Some(0), 10, 250), 10);
    assert_eq!(first_dirty(None, 10, 250), 10);
    for within in [10, 11, 200, 250] {
        assert_eq!(first_dirty(Some(within), 10, 250), within);
    }
}

fn limits() -> Limits {
    Limits {
        dirty_ratio_min: 0.5,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
    }
}

#[test]
fn vector_146_the_active_segment_young_ones_and_open_transactions_are_not_cleaned() {
    let spans = [span(0, 10, 100), span(10, 10, 200), span(20, 10, 400)];
    let bounds = Bounds {
        checkpoint: None,
        start: 0,
        end: 35,
        active: 30,
        stable: 35,
    };
    let of = |bounds: Bounds, limits: Limits, now_ms| {
        let dirty = Dirtiness::of(&spans, bounds, &limits, now_ms);
        (dirty.end, dirty.clean_bytes, dirty.dirty_bytes)
    };
    assert_eq!(of(bounds, limits(), 0), (30, 0, 700));
    // Whole segments below the last stable offset.
    for (stable, found) in [
        (30, (30, 0, 700)),
        (29, (20, 0, 300)),
        (20, (20, 0, 300)),
        (10, (10, 0, 100)),
        (9, (0, 0, 0)),
        (0, (0, 0, 0)),
    ] {
        assert_eq!(of(Bounds { stable, ..bounds }, limits(), 0), found);
    }
    // The newest times are 9, 19 and 29: one is young as long as its newest record is.
    let lag = Limits {
        min_lag_ms: 10,
        ..limits()
    };
    assert_eq!(of(bounds, lag, 39), (30, 0, 700));
    assert_eq!(of(bounds, lag, 38), (20, 0, 300));
    assert_eq!(of(bounds, lag, 18), (0, 0, 0));
    // What is clean is not asked how old it is, and one that is half clean counts as dirty.
    let half = Bounds {
        checkpoint: Some(15),
        ..bounds
    };
    assert_eq!(of(half, lag, 0), (15, 100, 0));
    assert_eq!(of(half, limits(), 0), (30, 100, 600));
    // Over gaps, to where the next segment begins.
    let gaps = [span(0, 8, 100), span(10, 10, 100)];
    let dirty = |stable| Dirtiness::of(&gaps, Bounds { stable, ..bounds }, &limits(), 0);
    assert_eq!((dirty(8).end, dirty(20).end), (10, 30));
    // Nothing at all.
    let none = Dirtiness::of(&[], bounds, &limits(), 0);
    assert_eq!((none.end, none.dirty_bytes, none.ratio()), (0, 0, 0.0));
}

#[test]
fn a_log_is_cleaned_when_enough_of_it_is_dirty_or_something_too_old() {
    let spans = [span(0, 10, 100), span(10, 10, 100), span(20, 10, 100)];
    let bounds = |checkpoint, stable| Bounds {
        checkpoint: Some(checkpoint),
        start: 0,
        end: 30,
        active: 30,
        stable,
    };
    let of = |bounds, limits: &Limits, now_ms| {
        let dirty = Dirtiness::of(&spans, bounds, limits, now_ms);
        (dirty.is_late, dirty.is_due(limits))
    };
    // 2/3, 1/3, and a half exactly, which is not more than a half.
    assert_eq!(of(bounds(10, 30), &limits(), 0), (false, true));
    assert_eq!(of(bounds(20, 30), &limits(), 0), (false, false));
    assert_eq!(of(bounds(10, 20), &limits(), 0), (false, false));
    // The first dirty batch is of the time 10, and nothing says when the one at 0 is of.
    let lag = Limits {
        max_lag_ms: 5,
        ..limits()
    };
    assert_eq!(of(bounds(10, 20), &lag, 15), (false, false));
    assert_eq!(of(bounds(10, 20), &lag, 16), (true, true));
    assert_eq!(of(bounds(0, 10), &lag, 15), (false, true));
    // What is too old but may not be cleaned does not count, as in a transaction that goes on.
    assert_eq!(of(bounds(10, 10), &lag, i64::MAX), (false, false));
}

#[test]
fn vector_147_a_batch_of_any_size_is_cleaned_and_a_size_that_cannot_be_is_an_error() {
    let large = "x".repeat(3 << 20);
    let mut log = Log::new();
    log.plain(&[("1", &large), ("2", &large)]);
    log.plain(&[("1", "a")]);
    log.roll();
    log.clean(MANY, 0).unwrap();
    assert_eq!(log.offsets(), [1, 2]);
    for length in [-1_i32, 0, 13, 48] {
        let mut bytes = log.at(2).unwrap().bytes().to_vec();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let error = Batches::new(bytes.into()).next().unwrap().unwrap_err();
        assert!(matches!(error, LogError::Corrupt(_)), "{length}: {error}");
    }
}
