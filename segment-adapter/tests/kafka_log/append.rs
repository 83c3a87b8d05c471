//! Appending: offsets, stamps, rolls, refusals, and what stops a log.

use super::*;
use segment_adapter::TimestampType;

#[tokio::test]
async fn vector_77_offsets_go_on_over_a_roll() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(put_records(&log, 3).await.first_offset, 0);
    assert_eq!(put_records(&log, 3).await.first_offset, 3);
    log.roll().unwrap();
    let info = put_records(&log, 3).await;
    assert_eq!((info.first_offset, info.last_offset), (6, 8));
    assert_eq!(log.segment_count(), 2);
    assert_eq!(extents(&log, 0).await, [(0, 2), (3, 5), (6, 8)]);
}

#[tokio::test]
async fn vector_90_every_batch_carries_the_leader_epoch() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(log.latest_epoch(), -1);
    put_records(&log, 1).await;
    let data = log.read(0, 1000, true, HW).await.unwrap();
    assert_eq!(batches(&data)[0].header().partition_leader_epoch, EPOCH);
    assert_eq!(log.latest_epoch(), EPOCH);
    put_records(&log, 1).await;
    log.roll().unwrap();
    assert_eq!(log.latest_epoch(), EPOCH);
    let starts = log.epoch_starts();
    assert_eq!(
        (starts[0].epoch, starts[0].start, starts.len()),
        (EPOCH, 0, 1)
    );
}

#[tokio::test]
async fn offsets_are_known_at_once_and_readable_when_durable() {
    let world = World::new().await;
    let log = open(&world).await;
    world.hold();
    let first = log
        .append_as_leader(batch(Codec::None, &[1, 2], b"a"), 1)
        .unwrap();
    let second = log
        .append_as_leader(batch(Codec::None, &[3], b"b"), 1)
        .unwrap();
    assert_eq!((first.info.first_offset, second.info.first_offset), (0, 2));
    let offsets = log.offsets();
    assert_eq!((offsets.log_start, offsets.hw, offsets.leo), (0, 0, 3));
    for start in 0..=3 {
        assert!(
            log.read(start, 1000, true, HW)
                .await
                .unwrap()
                .records
                .is_empty(),
            "{start}"
        );
    }
    assert_eq!(log.read(4, 1000, true, HW).await.unwrap_err().code(), 1);
    world.release();
    second.durable().await.unwrap();
    first.durable().await.unwrap();
    assert_eq!(log.offsets().hw, 3);
}

#[tokio::test]
async fn vector_92_a_waiter_for_the_high_watermark_wakes_when_it_moves() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(log.wait_for_hw(-1).await.unwrap().hw, 0);
    world.hold();
    let append = log
        .append_as_leader(batch(Codec::None, &[1, 2], b"a"), 1)
        .unwrap();
    let mut waiter = Box::pin(log.wait_for_hw(1));
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    world.release();
    assert_eq!(waiter.await.unwrap().hw, 2);
    append.durable().await.unwrap();
}

#[tokio::test]
async fn every_codec_is_stored_as_it_was_sent() {
    let world = World::new().await;
    let log = open(&world).await;
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        let sent = batch(codec, &[10, 20, 30], &[7; 500]);
        let info = put(&log, sent.clone()).await;
        let base = index as i64 * 3;
        assert_eq!((info.first_offset, info.max_timestamp), (base, 30));
        assert_eq!(info.valid_bytes, sent.len() as u64);
        let data = log.read(base + 1, 1, true, HW).await.unwrap();
        let stored = batches(&data).remove(0);
        assert_eq!(stored.header().base_offset, base);
        assert_eq!(stored.bytes()[16..], sent[16..], "{codec}");
    }
}

#[tokio::test]
async fn the_codec_of_the_log_replaces_that_of_the_producer() {
    let world = World::new().await;
    let config = LogConfig {
        compression: Some(Codec::Zstd),
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    for codec in Codec::ALL {
        let sent = batch(codec, &[10, 20, 30], &[7; 500]);
        let info = put(&log, sent).await;
        let data = log.read(info.first_offset, 1, true, HW).await.unwrap();
        let stored = batches(&data).remove(0);
        assert_eq!(stored.header().attributes.codec().unwrap(), Codec::Zstd);
        assert_eq!(info.valid_bytes, stored.bytes().len() as u64);
    }
    assert_eq!(log.offsets().hw, 15);
}

#[tokio::test]
async fn log_append_time_is_the_brokers_clock() {
    let world = World::new().await;
    let config = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    world.clock.set(123_456);
    let info = put_records(&log, 2).await;
    assert_eq!(
        (info.log_append_time, info.max_timestamp),
        (123_456, 123_456)
    );
    let data = log.read(0, 1000, true, HW).await.unwrap();
    assert_eq!(batches(&data)[0].header().record_timestamp(5), 123_456);
}

#[tokio::test]
async fn vector_82_batches_that_are_too_large_for_topic_or_segment_are_refused() {
    let world = World::new().await;
    let config = LogConfig {
        segment_bytes: MIB,
        max_message_bytes: 2 * MIB,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    let error = refused(&log, batch(Codec::None, &[1], &vec![1; 3 << 20]));
    assert_eq!(error.code(), 10);
    let error = refused(&log, batch(Codec::None, &[1], &vec![1; 1 << 20]));
    assert_eq!(error.code(), 18);
    assert_eq!(log.offsets().leo, 0);
}

#[tokio::test]
async fn vector_86_a_compacted_log_refuses_records_without_a_key() {
    let world = World::new().await;
    let config = LogConfig {
        compact: true,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    let unkeyed = BatchBuilder::new(Codec::None)
        .record(1, Some(b"k"), Some(b"v"))
        .record(1, None, Some(b"v"))
        .build()
        .unwrap();
    let error = refused(&log, unkeyed);
    assert_eq!(
        (error.code(), error.record_errors()[0].batch_index),
        (87, 1)
    );
    put_records(&log, 1).await;
    assert_eq!(log.offsets().leo, 1);
}

#[tokio::test]
async fn a_refused_batch_takes_no_offsets() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    let mut damaged = batch(Codec::None, &[1], b"v").to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&log, damaged.into()).code(), 2);
    let nothing = log
        .append_as_leader(Bytes::from_static(b"short"), 1)
        .unwrap();
    assert_eq!(
        (nothing.info.first_offset, nothing.info.valid_bytes),
        (-1, 0)
    );
    nothing.durable().await.unwrap();
    assert_eq!(put_records(&log, 1).await.first_offset, 2);
}

#[tokio::test]
async fn vector_80_a_segment_rolls_by_record_time_or_else_by_the_clock() {
    let world = World::new().await;
    let hour = 3_600_000;
    let config = LogConfig {
        segment_ms: hour,
        timestamp_after_max_ms: i64::MAX,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    let at = |time: i64| batch(Codec::None, &[time], b"v");
    // Empty: no roll, however late.
    world.clock.set(10 * hour);
    put(&log, at(-1)).await;
    assert_eq!(log.segment_count(), 1);
    // No records: no roll either.
    drop(log.append_as_leader(Bytes::new(), EPOCH).unwrap());
    assert_eq!(log.segment_count(), 1);
    // Without record times the clock counts, from when the segment was begun.
    put(&log, at(500)).await;
    assert_eq!(log.segment_count(), 2);
    // With them the clock does not.
    world.clock.set(100 * hour);
    put(&log, at(500 + hour)).await;
    assert_eq!(log.segment_count(), 2);
    put(&log, at(500 + hour + 1)).await;
    assert_eq!(log.segment_count(), 3);
}

#[tokio::test]
async fn vector_81_jitter_rolls_earlier_but_never_later() {
    let world = World::new().await;
    let config = LogConfig {
        segment_ms: 1000,
        segment_jitter_ms: 400,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    for round in 0..20 {
        let from = round * 10_000;
        put(&log, batch(Codec::None, &[from], b"v")).await;
        let segments = log.segment_count();
        put(&log, batch(Codec::None, &[from + 600], b"v")).await;
        assert_eq!(log.segment_count(), segments, "round {round}");
        put(&log, batch(Codec::None, &[from + 1001], b"v")).await;
        assert_eq!(log.segment_count(), segments + 1, "round {round}");
    }
}

#[tokio::test]
async fn jitter_of_more_than_the_time_of_a_segment_is_taken_as_that() {
    let world = World::new().await;
    let config = LogConfig {
        segment_ms: 10,
        segment_jitter_ms: i64::MAX,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    for round in 0..20i64 {
        // Less than a millisecond is never taken for long, more than ten are always too many.
        for (at, begun) in [(0, 1), (0, 1), (11, 2)] {
            put(&log, batch(Codec::None, &[round * 1000 + at], b"v")).await;
            assert_eq!(log.segment_count() as i64, 2 * round + begun);
        }
    }
}

#[tokio::test]
async fn a_segment_of_a_compacted_log_rolls_by_the_compaction_lag() {
    for (compact, segments) in [(true, 2), (false, 1)] {
        let world = World::new().await;
        let config = LogConfig {
            compact,
            max_compaction_lag_ms: 500,
            ..LogConfig::default()
        };
        let log = open_with(&world, config).await;
        for (timestamp, segments) in [(1000, 1), (1500, 1), (1501, segments)] {
            put(&log, batch(Codec::None, &[timestamp], b"v")).await;
            assert_eq!(log.segment_count(), segments, "{compact} {timestamp}");
        }
        // The first segment may be compacted now, and has to be.
        let dirty = log.dirty(1501).unwrap();
        assert_eq!(dirty.is_some_and(|dirty| dirty.is_late), compact);
    }
}

#[tokio::test]
async fn a_segment_rolls_before_it_would_pass_its_size() {
    let world = World::new().await;
    let config = LogConfig {
        segment_bytes: MIB,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    for _ in 0..10 {
        put(&log, batch(Codec::None, &[1], &vec![1; 300 << 10])).await;
    }
    assert_eq!(log.segment_count(), 4);
    assert_eq!(log.size().unwrap() / (300 << 10), 10);
}

#[tokio::test]
async fn vector_88_a_failed_append_stops_the_log_for_good() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    world.hold();
    let lost = log
        .append_as_leader(batch(Codec::None, &[1], b"v"), 1)
        .unwrap();
    world.fail();
    let error = lost.durable().await.unwrap_err();
    assert_eq!(error.code(), 56);
    assert!(error.may_have_happened());
    assert_eq!(refused(&log, batch(Codec::None, &[1], b"v")).code(), 56);
    assert_eq!(log.read(0, 100, true, HW).await.unwrap_err().code(), 56);
    assert_eq!(log.delete_old_segments(0).await.unwrap_err().code(), 56);
    assert_eq!(log.close().await.unwrap_err().code(), 56);
    assert!(matches!(log.stopped(), Some(LogError::Stopped(_))));
}

#[tokio::test]
async fn a_failure_that_nobody_waited_for_stops_the_log_as_well() {
    let world = World::new().await;
    let log = open(&world).await;
    world.hold();
    drop(
        log.append_as_leader(batch(Codec::None, &[1], b"v"), 1)
            .unwrap(),
    );
    world.fail();
    world.release();
    let streams = world.streams().await;
    while streams[0].epoch() == streams[1].epoch() && log.stopped().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(refused(&log, batch(Codec::None, &[1], b"v")).code(), 56);
}

#[tokio::test]
async fn a_closed_or_deleted_log_says_so() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 1).await;
    log.close().await.unwrap();
    log.close().await.unwrap();
    assert_eq!(refused(&log, batch(Codec::None, &[1], b"v")).code(), 56);
    assert_eq!(log.read(0, 100, true, HW).await.unwrap().records.len(), 1);
    log.mark_deleted();
    assert_eq!(refused(&log, batch(Codec::None, &[1], b"v")).code(), 3);
    assert_eq!(log.read(0, 100, true, HW).await.unwrap_err().code(), 3);
}

#[tokio::test]
async fn a_log_whose_streams_are_destroyed_is_deleted() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 1).await;
    let mut waiter = Box::pin(log.wait_for_hw(5));
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    world.streams().await[0].destroy().await.unwrap();
    assert_eq!(waiter.await.unwrap_err().code(), 3);
    assert_eq!(refused(&log, batch(Codec::None, &[1], b"v")).code(), 3);
    assert_eq!(log.read(0, 100, true, HW).await.unwrap_err().code(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_get_offsets_in_one_order_and_readers_never_see_a_hole() {
    let world = World::new().await;
    let log = open(&world).await;
    let writers: Vec<_> = (0..4u8)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..100u8 {
                    let info = put(&log, batch(Codec::Lz4, &[1, 2], &[writer, n])).await;
                    assert_eq!(info.last_offset, info.first_offset + 1);
                    if n == 50 {
                        log.roll().unwrap();
                    }
                }
            })
        })
        .collect();
    let reader = tokio::spawn({
        let log = log.clone();
        async move {
            let mut next = 0;
            while next < 800 {
                log.wait_for_hw(next).await.unwrap();
                for batch in batches(&log.read(next, 10_000, true, HW).await.unwrap()) {
                    assert_eq!(batch.header().base_offset, next);
                    next = batch.header().last_offset() + 1;
                }
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    reader.await.unwrap();
    assert_eq!(log.offsets().hw, 800);
}
