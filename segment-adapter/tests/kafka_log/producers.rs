//! Idempotent producers on a log: duplicates, sequences, and what is known after a crash.

use super::*;

/// A batch of `count` records of a producer.
fn sent(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    sent_with(id, epoch, sequence, count, b"value")
}

fn sent_with(id: i64, epoch: i16, sequence: i32, count: usize, payload: &[u8]) -> Bytes {
    (0..count)
        .fold(BatchBuilder::new(Codec::None), |batch, _| {
            batch.record(1000, Some(b"key"), Some(payload))
        })
        .producer(id, epoch, sequence)
        .build()
        .unwrap()
}

async fn is_duplicate(log: &KafkaLog, records: Bytes) -> bool {
    put(log, records).await.duplicate
}

#[tokio::test]
async fn vector_99_gaps_and_old_epochs_are_refused() {
    let world = World::new().await;
    let log = open(&world).await;
    put(&log, sent(1, 0, 0, 1)).await;
    assert_eq!(refused(&log, sent(1, 0, 2, 1)).code(), 45);
    put(&log, sent(1, 1, 0, 1)).await;
    assert_eq!(refused(&log, sent(1, 0, 1, 1)).code(), 47);
    assert_eq!(log.offsets().leo, 2);
}

#[tokio::test]
async fn vector_100_a_duplicate_is_answered_with_its_first_offsets() {
    let world = World::new().await;
    let log = open(&world).await;
    for sequence in 0..6 {
        put(&log, sent(1, 0, sequence, 1)).await;
    }
    let first = put(&log, sent(1, 0, 6, 3)).await;
    assert!(!first.duplicate);
    let again = put(&log, sent(1, 0, 6, 3)).await;
    assert_eq!((again.first_offset, again.last_offset), (6, 8));
    // The time of the original, also where the topic keeps the producers' times.
    assert_eq!((first.log_append_time, again.log_append_time), (-1, 1000));
    assert!(again.duplicate);
    assert_eq!(refused(&log, sent(1, 0, 7, 2)).code(), 45);
    assert_eq!(put(&log, sent(1, 0, 2, 1)).await.first_offset, 2);
    assert_eq!(refused(&log, sent(1, 0, 1, 1)).code(), 45);
    assert_eq!(log.offsets().leo, 9);
    assert_eq!(extents(&log, 0).await.len(), 7);
}

#[tokio::test]
async fn vector_28_without_a_producer_id_nothing_is_checked() {
    let world = World::new().await;
    let log = open(&world).await;
    for _ in 0..2 {
        assert!(!is_duplicate(&log, sent(-1, -1, -1, 1)).await);
    }
    assert_eq!(log.offsets().leo, 2);
}

#[tokio::test]
async fn a_duplicate_waits_until_its_original_is_durable() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 1).await;
    world.hold();
    let original = log.append_as_leader(sent(1, 0, 0, 2), EPOCH).unwrap();
    let again = log.append_as_leader(sent(1, 0, 0, 2), EPOCH).unwrap();
    assert_eq!(again.info.first_offset, original.info.first_offset);
    let mut again = Box::pin(again.durable());
    assert!(futures::poll!(again.as_mut()).is_pending());
    // What comes after it is not waited for.
    world.release();
    original.durable().await.unwrap();
    again.await.unwrap();
}

#[tokio::test]
async fn a_duplicate_of_what_was_lost_is_never_answered_with_success() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 1).await;
    world.hold();
    let original = log.append_as_leader(sent(1, 0, 0, 2), EPOCH).unwrap();
    let again = log.append_as_leader(sent(1, 0, 0, 2), EPOCH).unwrap();
    let mut again = Box::pin(again.durable());
    assert!(futures::poll!(again.as_mut()).is_pending());
    world.fail();
    assert_eq!(original.durable().await.unwrap_err().code(), 56);
    world.release();
    // Another has the offsets now; the high watermark passes them.
    let next = loop {
        let streams = world.streams_again().await;
        if let Ok(log) = KafkaLog::open(streams, LogConfig::default(), world.clock.clone()).await {
            break log;
        }
        tokio::task::yield_now().await;
    };
    while next.offsets().hw < 5 {
        put_records(&next, 1).await;
    }
    assert_eq!(again.await.unwrap_err().code(), 56);
    assert_eq!(refused(&log, sent(1, 0, 0, 2)).code(), 56);
}

#[tokio::test]
async fn vector_50_after_a_crash_all_five_batches_are_known_wherever_they_were() {
    let mut world = World::new().await;
    let config = LogConfig {
        segment_bytes: MIB,
        index_interval_bytes: 4096,
        ..LogConfig::default()
    };
    let mut log = open_with(&world, config.clone()).await;
    let mut sequence = 0;
    for round in 0..6 {
        for _ in 0..7 {
            put(&log, sent_with(1, 0, sequence, 1, &[7; 1500])).await;
            put(&log, sent(2, 3, sequence, 1)).await;
            sequence += 1;
        }
        match round % 3 {
            0 => log.roll().unwrap(),
            1 => log.close().await.unwrap(),
            _ => {}
        }
        drop(log);
        world.crash().await;
        log = open_with(&world, config.clone()).await;
        let end = log.offsets().leo;
        for past in 1..=5 {
            let payload = [7; 1500];
            let again = sent_with(1, 0, sequence - past, 1, &payload);
            let again = put(&log, again).await;
            let offset = end - i64::from(past) * 2;
            assert_eq!((again.first_offset, again.duplicate), (offset, true));
            assert!(is_duplicate(&log, sent(2, 3, sequence - past, 1)).await);
        }
        assert_eq!(refused(&log, sent(2, 3, sequence - 6, 1)).code(), 45);
        assert_eq!(refused(&log, sent(2, 3, sequence + 1, 1)).code(), 45);
        assert_eq!(refused(&log, sent(2, 2, sequence, 1)).code(), 47);
        assert_eq!(log.offsets().leo, end);
    }
}

#[tokio::test]
async fn what_was_lost_in_a_crash_is_not_known_as_a_duplicate() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put(&log, sent(1, 0, 0, 1)).await;
    world.hold();
    drop(log.append_as_leader(sent(1, 0, 1, 1), EPOCH).unwrap());
    drop(log);
    world.crash().await;
    world.release();
    let log = open(&world).await;
    assert_eq!(log.offsets().leo, 1);
    assert!(!is_duplicate(&log, sent(1, 0, 1, 1)).await);
    assert!(is_duplicate(&log, sent(1, 0, 1, 1)).await);
}

#[tokio::test]
async fn vector_103_producers_outlive_their_segments_also_over_a_crash() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put(&log, sent(1, 0, 0, 2)).await;
    log.roll().unwrap();
    put(&log, sent(2, 0, 0, 2)).await;
    log.delete_records(3).await.unwrap();
    log.delete_old_segments(0).await.unwrap();
    assert_eq!(log.segment_count(), 1);
    assert!(is_duplicate(&log, sent(1, 0, 0, 2)).await);
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert!(is_duplicate(&log, sent(1, 0, 0, 2)).await);
    assert!(is_duplicate(&log, sent(2, 0, 0, 2)).await);
    assert_eq!(refused(&log, sent(1, 0, 3, 1)).code(), 45);
}

#[tokio::test]
async fn vectors_52_and_105_a_silent_producer_is_forgotten() {
    let mut world = World::new().await;
    world.clock.set(1000);
    let config = LogConfig {
        producer_expiration_ms: 200,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    put(&log, sent(1, 0, 0, 1)).await;
    log.delete_old_segments(1199).await.unwrap();
    assert_eq!(refused(&log, sent(1, 0, 7, 1)).code(), 45);
    log.delete_old_segments(1200).await.unwrap();
    put(&log, sent(1, 0, 7, 1)).await;
    // And when the log is opened, of what was noted before.
    log.close().await.unwrap();
    world.clock.set(1199);
    world.crash().await;
    let log = open_with(&world, config.clone()).await;
    assert_eq!(refused(&log, sent(1, 0, 2, 1)).code(), 45);
    world.clock.set(1200);
    world.crash().await;
    let log = open_with(&world, config.clone()).await;
    put(&log, sent(1, 0, 2, 1)).await;
    // Not of what is read from the data, however old its records: it may be sent again any moment.
    world.clock.set(900_000);
    world.crash().await;
    let log = open_with(&world, config).await;
    assert!(is_duplicate(&log, sent(1, 0, 2, 1)).await);
}

#[tokio::test]
async fn many_producers_are_kept_in_small_changes_and_the_meta_stream_stays_short() {
    let mut world = World::new().await;
    let config = LogConfig {
        producers_max: 1000,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    for round in 0..40 {
        for id in 0..600 {
            let append = log.append_as_leader(sent(id, 0, round, 1), EPOCH);
            drop(append.unwrap());
        }
        log.wait_for_hw(log.offsets().leo - 1).await.unwrap();
        log.delete_old_segments(0).await.unwrap();
    }
    let meta = world.streams().await[1].clone();
    let kept = meta.next() - meta.start();
    assert!(kept < 100, "{kept} of {} records are kept", meta.next());
    let mut at = meta.start();
    while at < meta.confirm() {
        for record in meta.fetch(at, 1 << 20).await.unwrap().records {
            assert!(
                record.payload.len() <= 160 << 10,
                "{}",
                record.payload.len()
            );
            at = record.offsets.end;
        }
    }
    drop(log);
    world.crash().await;
    let log = open_with(&world, config).await;
    for id in 0..600 {
        for round in 35..40 {
            let again = log.append_as_leader(sent(id, 0, round, 1), EPOCH).unwrap();
            assert_eq!(again.info.first_offset, i64::from(round) * 600 + id);
            assert!(again.info.duplicate);
        }
    }
}

#[tokio::test]
async fn past_the_limit_the_longest_silent_producer_is_forgotten() {
    let mut world = World::new().await;
    let config = LogConfig {
        producers_max: 3,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    for id in [1, 2, 3, 1, 4] {
        let sequence = i32::from(id == 1 && log.offsets().leo > 0);
        put(&log, sent(id, 0, sequence, 1)).await;
    }
    log.close().await.unwrap();
    drop(log);
    world.crash().await;
    let log = open_with(&world, config).await;
    for (id, sequence) in [(1, 1), (3, 0), (4, 0)] {
        assert!(is_duplicate(&log, sent(id, 0, sequence, 1)).await, "{id}");
    }
    // Forgotten, so any sequence will do.
    assert!(!is_duplicate(&log, sent(2, 0, 40, 1)).await);
}

#[tokio::test]
async fn who_was_forgotten_for_silence_pushes_nobody_out_after_a_reopening() {
    let at = |id, timestamp| {
        let batch = BatchBuilder::new(Codec::None).record(timestamp, None, Some(b"v"));
        batch.producer(id, 0, 0).build().unwrap()
    };
    let mut world = World::new().await;
    let config = LogConfig {
        producers_max: 2,
        producer_expiration_ms: 1000,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    put(&log, at(1, 1_000_000)).await;
    put(&log, at(2, 999_500)).await;
    log.close().await.unwrap();
    world.crash().await;
    let log = open_with(&world, config.clone()).await;
    log.delete_old_segments(1_000_600).await.unwrap();
    put(&log, at(3, 1_000_000)).await;
    let known = |log: &KafkaLog| -> Vec<_> {
        let active = log.active_producers();
        active.iter().map(|p| p.producer_id).collect()
    };
    assert_eq!(known(&log), [1, 3]);
    log.close().await.unwrap();
    // Also when the clock is behind by then.
    for now_ms in [1_000_600, 1_000_000] {
        world.clock.set(now_ms);
        world.crash().await;
        assert_eq!(known(&open_with(&world, config.clone()).await), [1, 3]);
    }
}
