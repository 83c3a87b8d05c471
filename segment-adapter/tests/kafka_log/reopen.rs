//! What a crash or a close leaves, and what is refused when opening.

use super::*;
use segment_adapter::{TimestampSpec, WallClock};

#[tokio::test]
async fn vector_129_log_start_and_records_survive_a_crash() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for _ in 0..3 {
        put_records(&log, 4).await;
        log.roll().unwrap();
    }
    put_records(&log, 2).await;
    log.delete_records(6).await.unwrap();
    let size = log.size().unwrap();
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    let offsets = log.offsets();
    assert_eq!((offsets.log_start, offsets.hw, offsets.leo), (6, 14, 14));
    assert_eq!(extents(&log, 6).await, [(4, 7), (8, 11), (12, 13)]);
    assert_eq!((log.segment_count(), log.size().unwrap()), (3, size));
    assert_eq!(log.latest_epoch(), EPOCH);
    assert_eq!(put_records(&log, 1).await.first_offset, 14);
}

#[tokio::test]
async fn vector_127_an_empty_log_keeps_its_start_over_a_crash() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 4).await;
    log.delete_records(-1).await.unwrap();
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!((log.offsets().log_start, log.offsets().leo), (4, 4));
    assert_eq!(put_records(&log, 1).await.first_offset, 4);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_there_whole_or_not_at_all() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 3).await;
    world.hold();
    for _ in 0..5 {
        drop(
            log.append_as_leader(batch(Codec::Gzip, &[1, 2], b"v"), EPOCH)
                .unwrap(),
        );
    }
    drop(log);
    world.crash().await;
    world.release();
    let log = open(&world).await;
    let end = log.offsets().leo;
    assert!(end >= 3 && (end - 3) % 2 == 0, "{end}");
    let extents = extents(&log, 0).await;
    assert_eq!(extents.len() as i64, 1 + (end - 3) / 2);
    assert_eq!(put_records(&log, 1).await.first_offset, end);
}

#[tokio::test]
async fn a_segment_goes_on_after_a_reopening_as_if_there_had_been_none() {
    let mut world = World::new().await;
    let config = LogConfig {
        segment_bytes: MIB,
        index_interval_bytes: 64 << 10,
        ..LogConfig::default()
    };
    let payload = vec![1; 100 << 10];
    let mut log = open_with(&world, config.clone()).await;
    for n in 0..25 {
        put(&log, batch(Codec::None, &[n], &payload)).await;
        if n % 3 == 1 {
            if n % 2 == 0 {
                log.close().await.unwrap();
            }
            drop(log);
            world.crash().await;
            log = open_with(&world, config.clone()).await;
        }
    }
    assert_eq!(log.segment_count(), 3);
    assert_eq!(log.size().unwrap() / payload.len() as u64, 25);
    let largest = log
        .fetch_offset_for_timestamp(TimestampSpec::MaxTimestamp, HW)
        .await
        .unwrap();
    assert_eq!((largest.offset, largest.timestamp), (24, 24));
}

#[tokio::test]
async fn reopening_after_a_close_reads_no_data() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for _ in 0..10 {
        put_records(&log, 10).await;
    }
    log.close().await.unwrap();
    drop(log);
    world.crash().await;
    // Noted to the end: what was appended last is where the time of the last append comes from.
    world.clock.set(world.clock.now_ms() + 1_000_000);
    let log = open(&world).await;
    assert_eq!(log.offsets().leo, 100);
    assert!(log.size().unwrap() > 0);
}

#[tokio::test]
async fn the_bucket_alone_has_the_whole_log_after_a_close() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for codec in Codec::ALL {
        put(&log, batch(codec, &[10, 20, 30], &[7; 2000])).await;
        log.roll().unwrap();
    }
    log.delete_records(4).await.unwrap();
    let before = log.read(4, 1 << 20, true, HW).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    world.leave_only_the_bucket().await;
    let log = open(&world).await;
    assert_eq!(log.offsets(), before.offsets);
    assert_eq!(log.read(4, 1 << 20, true, HW).await.unwrap(), before);
    assert_eq!(extents(&log, 4).await, [(3, 5), (6, 8), (9, 11), (12, 14)]);
    assert_eq!(put_records(&log, 1).await.first_offset, 15);
}

#[tokio::test]
async fn two_logs_on_the_same_streams_notice_each_other() {
    let world = World::new().await;
    let first = open(&world).await;
    put_records(&first, 1).await;
    let second = open(&world).await;
    put_records(&first, 1).await;
    // The second sees the stream grow; it may go on from there, but never at an offset that is taken.
    let info = put_records(&second, 1).await;
    assert_eq!(info.first_offset, 2);
    assert_eq!(extents(&second, 0).await, [(0, 0), (1, 1), (2, 2)]);
}

#[tokio::test]
async fn streams_that_are_not_a_log_are_refused() {
    let world = World::new().await;
    let streams = world.streams().await;
    let refused = KafkaLog::open(
        streams[..1].to_vec(),
        LogConfig::default(),
        world.clock.clone(),
    );
    assert_eq!(refused.await.unwrap_err().code(), 56);
    streams[1].append(1, &[b"nonsense"]).unwrap().await.unwrap();
    let refused = KafkaLog::open(streams, LogConfig::default(), world.clock.clone()).await;
    assert_eq!(refused.unwrap_err().code(), 56);
}

#[tokio::test]
async fn a_data_record_that_is_not_one_batch_is_refused() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 1).await;
    let streams = world.streams().await;
    streams[0].append(1, &[b"nonsense"]).unwrap().await.unwrap();
    let refused = KafkaLog::open(streams, LogConfig::default(), world.clock.clone()).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, LogError::StoredState(_)), "{error}");
}

#[tokio::test]
async fn a_log_of_another_topic_is_told() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(log.topic_id(), None);
    for _ in 0..2 {
        log.assign_topic_id(7).unwrap();
    }
    let error = log.assign_topic_id(8).unwrap_err();
    assert_eq!((error.code(), log.topic_id()), (103, Some(7)));
}

#[tokio::test]
async fn after_a_checkpoint_a_crash_is_no_more_than_a_close() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for n in 0..10 {
        let sent = BatchBuilder::new(Codec::None).record(1000, None, Some(b"v"));
        put(&log, sent.producer(1, 0, n).build().unwrap()).await;
        log.roll().unwrap();
    }
    put_records(&log, 5).await;
    log.checkpoint().await.unwrap();
    let meta = world.streams().await[1].clone();
    assert_eq!(meta.next() - meta.start(), 1);
    let (size, producers) = (log.size().unwrap(), log.active_producers());
    drop(log);
    world.crash().await;
    // The data is not read: its time would be that of the opening.
    world.clock.set(world.clock.now_ms() + 1_000_000);
    let log = open(&world).await;
    assert_eq!(
        (log.size().unwrap(), log.active_producers()),
        (size, producers)
    );
    assert_eq!((log.offsets().leo, log.segment_count()), (15, 11));
    log.close().await.unwrap();
    assert_eq!(log.checkpoint().await.unwrap_err().code(), 56);
}

#[tokio::test]
async fn a_segment_takes_any_number_of_checkpoints() {
    let world = World::new().await;
    let log = open(&world).await;
    for n in 0..2100 {
        put_records(&log, 1).await;
        log.checkpoint().await.unwrap();
        // Before there are more notes than a segment takes, the next begins.
        assert!(log.segment_count() == 1 || n > 2000, "{n}");
    }
    assert_eq!(log.segment_count(), 2);
    assert_eq!(log.offsets().leo, 2100);
}
