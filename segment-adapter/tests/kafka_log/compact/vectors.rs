//! Vectors of Kafka's cleaner that need the log; the others are shown by the core alone.

use super::*;

#[tokio::test]
async fn vector_131_only_the_latest_of_each_key_stays_below_the_active_segment() {
    let mut world = World::new().await;
    let log = new_log(&world).await;
    for round in 0..4 {
        for key in 0..10 {
            let (key, value) = (key.to_string(), format!("{key}:{round}"));
            put_keyed(&log, &[(&key, &value)]).await;
        }
        if round != 2 {
            log.roll().unwrap();
        }
    }
    // Two rounds in one segment, and one that is active.
    put_keyed(&log, &[("0", "active"), ("0", "active again")]).await;
    let before = View::of(&log, HW).await;
    let done = compact(&log).await;
    assert_eq!((done.records_in, done.records_out), (40, 10));
    assert_eq!(done.cleaned, 40);
    let expected: Vec<i64> = (30..42).collect();
    assert_eq!(offsets(&log).await, expected);
    let after = View::of(&log, HW).await;
    assert!(
        after
            .batches
            .iter()
            .all(|batch| before.batches.contains(batch))
    );
    assert_eq!(log.size().unwrap(), after.bytes());
    // A reader at any offset goes on with the next there is; the last two are of one batch.
    for from in (0..=40).chain([42]) {
        let seen = View::from(&log, from, 1, HW).await;
        let first = seen.records().next().map(|record| record.offset);
        assert_eq!(first, (from..42).find(|at| *at >= 30), "{from}");
    }
    drop(log);
    world.crash().await;
    let log = new_log(&world).await;
    assert_eq!(View::of(&log, HW).await, after);
    assert_eq!(log.offsets().leo, 42);
    assert_eq!(put_records(&log, 1).await.first_offset, 42);
}

#[tokio::test]
async fn vector_132_batches_sent_again_after_compaction_and_a_reload_are_known() {
    let mut world = World::new().await;
    let log = new_log(&world).await;
    let mut senders = Senders::default();
    let sent = [
        (1, senders.next(1, &[("1", "a"), ("2", "a"), ("3", "a")])),
        (2, senders.next(2, &[("3", "b"), ("1", "b"), ("4", "b")])),
        (3, senders.next(3, &[("1", "c"), ("4", "c")])),
    ];
    let mut answers = Vec::new();
    let sent: Vec<Bytes> = sent
        .into_iter()
        .map(|(_, sent)| sent.build().unwrap())
        .collect();
    for batch in &sent {
        answers.push(put(&log, batch.clone()).await);
    }
    log.roll().unwrap();
    put_keyed(&log, &[("other", "d")]).await;
    compact(&log).await;
    assert_eq!(offsets(&log).await, [1, 3, 6, 7, 8]);
    let view = View::of(&log, HW).await;
    let headers = view.batches.iter().map(|batch| batch.header);
    let headers: Vec<_> = headers.take(3).collect();
    let lasts: Vec<i64> = headers.iter().map(|header| header.last_offset()).collect();
    assert_eq!(lasts, [2, 5, 7]);
    assert!(headers.iter().all(|header| header.base_sequence == 0));
    for reload in [false, true] {
        let log = match reload {
            false => log.clone(),
            true => {
                world.crash().await;
                new_log(&world).await
            }
        };
        for (batch, first) in sent.iter().zip(&answers) {
            let again = put(&log, batch.clone()).await;
            assert!(again.duplicate);
            assert_eq!(again.first_offset, first.first_offset);
            assert_eq!(again.last_offset, first.last_offset);
        }
    }
}

#[tokio::test]
async fn vector_141_a_full_map_cleans_one_key_a_pass() {
    let world = World::new().await;
    let log = new_log(&world).await;
    for _ in 0..3 {
        put_keyed(&log, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
    }
    log.roll().unwrap();
    let mut small = compactor(1);
    let mut cleaned = 0;
    for passes in 1.. {
        let done = log.compact(&mut small, NOW).await.unwrap();
        assert!(done.finished);
        assert!(done.cleaned > cleaned, "{done:?}");
        cleaned = done.cleaned;
        if cleaned == 9 {
            assert_eq!(passes, 9);
            break;
        }
        // What is not mapped yet is kept.
        let kept = offsets(&log).await;
        assert!(
            (cleaned..9).all(|offset| kept.contains(&offset)),
            "{kept:?}"
        );
        assert!(log.dirty(NOW).unwrap().is_some());
    }
    assert_eq!(offsets(&log).await, [6, 7, 8]);
    assert_eq!(log.dirty(NOW).unwrap(), None);
}

#[tokio::test]
async fn vector_142_when_all_keys_are_deleted_the_last_batch_stays_empty() {
    let mut world = World::new().await;
    let log = new_log(&world).await;
    put_keyed(&log, &[("a", "1"), ("b", "1")]).await;
    put_keyed(&log, &[("a", ""), ("b", "")]).await;
    log.roll().unwrap();
    compact(&log).await;
    assert_eq!(offsets(&log).await, [2, 3], "they can be read for a time");
    compact_at(&log, NOW + RETENTION_MS).await;
    let view = View::of(&log, HW).await;
    assert_eq!((view.batches.len(), view.bytes()), (1, 61));
    assert_eq!(view.batches[0].header.last_offset(), 3);
    drop(log);
    world.crash().await;
    let log = new_log(&world).await;
    assert_eq!(View::of(&log, HW).await, view);
    assert_eq!(put_keyed(&log, &[("a", "2")]).await.first_offset, 4);
}

#[tokio::test]
async fn vector_143_gaps_between_segments_are_passed() {
    let world = World::new().await;
    let leader = World::new().await;
    let log = new_log(&world).await;
    // A follower of a log with gaps: 0..=9, 11..=24, 30..=39.
    let source = new_log(&leader).await;
    for (first, count) in [(0, 10), (11, 14), (30, 10)] {
        source
            .truncate_fully_and_start_at(first, None)
            .await
            .unwrap();
        for _ in 0..count {
            put_keyed(&source, &[("key", "v")]).await;
        }
        let read = source.read(first, 1 << 20, true, HW).await.unwrap();
        let copied = log.append_as_follower(read.records.concat().into(), EPOCH);
        copied.unwrap().durable().await.unwrap();
        log.roll().unwrap();
    }
    let done = compact(&log).await;
    assert_eq!((done.cleaned, log.offsets().leo), (40, 40));
    assert_eq!(offsets(&log).await, [39]);
    assert_eq!(log.dirty(NOW).unwrap(), None);
}

#[tokio::test]
async fn vector_144_records_without_a_key_go() {
    let world = World::new().await;
    let plain = LogConfig {
        compact: false,
        ..compacted()
    };
    let log = open_with(&world, plain).await;
    let unkeyed = BatchBuilder::new(Codec::None).record(1000, None, Some(b"v"));
    put(&log, unkeyed.build().unwrap()).await;
    put_keyed(&log, &[("a", "1")]).await;
    let unkeyed = BatchBuilder::new(Codec::None).record(1000, None, Some(b"v"));
    put(&log, unkeyed.build().unwrap()).await;
    put_keyed(&log, &[("b", "1")]).await;
    log.roll().unwrap();
    let refused = log.compact(&mut compactor(10), NOW).await.unwrap_err();
    assert_eq!(refused.code(), 44);
    assert_eq!(log.dirty(NOW).unwrap(), None);
    // The topic becomes a compacted one.
    log.update_config(compacted()).unwrap();
    compact(&log).await;
    assert_eq!(offsets(&log).await, [1, 3]);
}

#[tokio::test]
async fn vector_145_neighbours_become_one_segment_as_long_as_they_fit() {
    let world = World::new().await;
    let log = open_with(
        &world,
        LogConfig {
            segment_bytes: MIB,
            ..compacted()
        },
    )
    .await;
    let large = "v".repeat(300 << 10);
    for key in ["a", "b", "c", "d", "e", "f", "g"] {
        put_keyed(&log, &[(key, &large)]).await;
        log.roll().unwrap();
    }
    assert_eq!(log.segment_count(), 8);
    let done = compact(&log).await;
    assert_eq!((done.segments, log.segment_count()), ((7, 3), 4));
    assert_eq!(offsets(&log).await, [0, 1, 2, 3, 4, 5, 6]);
    // Six of seven go; what is left is one segment at the next pass.
    for key in ["a", "b", "c", "d", "e", "f"] {
        put_keyed(&log, &[(key, "small")]).await;
    }
    log.roll().unwrap();
    compact(&log).await;
    compact(&log).await;
    assert_eq!(offsets(&log).await, [6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(log.segment_count(), 2);
}

#[tokio::test]
async fn vector_146_what_is_active_young_or_unstable_is_not_cleaned() {
    let world = World::new().await;
    let young = LogConfig {
        min_compaction_lag_ms: 500,
        ..compacted()
    };
    let log = open_with(&world, young).await;
    let mut senders = Senders::default();
    put_keyed(&log, &[("a", "1")]).await;
    assert_eq!(compact_at(&log, 5000).await.cleaned, 0, "it is active");
    put_keyed(&log, &[("a", "2")]).await;
    log.roll().unwrap();
    // Their time is 1000.
    assert_eq!(compact_at(&log, 1499).await.cleaned, 0, "it is young");
    assert_eq!(log.dirty(1499).unwrap(), None);
    assert!(log.dirty(1500).unwrap().is_some());
    senders.send_in_txn(&log, 1, &[("a", "3")]).await;
    log.roll().unwrap();
    put_keyed(&log, &[("a", "4")]).await;
    log.roll().unwrap();
    assert_eq!(compact_at(&log, 1500).await.cleaned, 2, "the rest is open");
    assert_eq!(offsets(&log).await, [1, 2, 3]);
    end_txn(&log, 1, false).await;
    log.roll().unwrap();
    // The clock of the broker has stamped the marker.
    compact_at(&log, NOW + 500).await;
    assert_eq!(keys(&log).await, "a");
    // The log start moves past what was cleaned.
    log.update_config(LogConfig {
        delete: true,
        ..compacted()
    })
    .unwrap();
    put_keyed(&log, &[("b", "1")]).await;
    let end = log.offsets().hw;
    log.delete_records(end).await.unwrap();
    log.delete_old_segments(NOW).await.unwrap();
    assert_eq!(compact(&log).await.cleaned, end);
}

#[tokio::test]
async fn a_log_is_due_by_its_ratio_or_when_something_is_too_old() {
    let world = World::new().await;
    let config = |ratio, max_lag| LogConfig {
        min_cleanable_dirty_ratio: ratio,
        max_compaction_lag_ms: max_lag,
        ..compacted()
    };
    let log = open_with(&world, config(0.4, i64::MAX)).await;
    for key in ["a", "b", "c"] {
        put_keyed(&log, &[(key, "1")]).await;
    }
    log.roll().unwrap();
    let dirty = log.dirty(NOW).unwrap().unwrap();
    assert_eq!((dirty.ratio, dirty.is_late), (1.0, false));
    compact(&log).await;
    assert_eq!(log.dirty(NOW).unwrap(), None);
    put_keyed(&log, &[("d", "1")]).await;
    log.roll().unwrap();
    assert_eq!(log.dirty(NOW).unwrap(), None, "a quarter is dirty");
    log.update_config(config(0.2, i64::MAX)).unwrap();
    assert_eq!(log.dirty(NOW).unwrap().unwrap().ratio, 0.25);
    log.update_config(config(0.4, 500)).unwrap();
    assert_eq!(log.dirty(1500).unwrap(), None);
    assert!(log.dirty(1501).unwrap().unwrap().is_late);
}

#[tokio::test]
async fn vector_147_a_batch_larger_than_a_piece_of_the_walk_is_cleaned() {
    let world = World::new().await;
    let config = LogConfig {
        max_message_bytes: 8 * MIB,
        ..compacted()
    };
    let log = open_with(&world, config).await;
    let large = "x".repeat(3 << 20);
    put_keyed(&log, &[("0", "small"), ("1", "small")]).await;
    put_keyed(&log, &[("1", &large), ("2", &large)]).await;
    put_keyed(&log, &[("1", "small")]).await;
    log.roll().unwrap();
    compact(&log).await;
    assert_eq!(offsets(&log).await, [0, 3, 4]);
    let view = View::of(&log, HW).await;
    let values: Vec<_> = view.data().map(|record| record.value.clone()).collect();
    assert_eq!(values[1].as_deref(), Some(large.as_bytes()));
}
