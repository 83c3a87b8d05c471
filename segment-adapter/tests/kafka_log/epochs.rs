//! Leader epochs: where each began, over rolls, retention, crashes.

use super::*;

async fn put_in(log: &KafkaLog, epoch: i32, count: usize) {
    let sent = batch(Codec::None, &vec![1000; count], b"value");
    let append = log.append_as_leader(sent, epoch).unwrap();
    append.durable().await.unwrap();
}

fn starts(log: &KafkaLog) -> Vec<(i32, i64)> {
    let starts = log.epoch_starts();
    starts
        .iter()
        .map(|entry| (entry.epoch, entry.start))
        .collect()
}

async fn end(log: &KafkaLog, epoch: i32) -> (i32, i64) {
    let end = log.offset_for_leader_epoch(epoch).await.unwrap();
    (end.epoch, end.end_offset)
}

#[tokio::test]
async fn vectors_71_and_72_where_an_epoch_ends() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(end(&log, 0).await, (-1, -1));
    for (epoch, count) in [(0, 10), (2, 3), (4, 4)] {
        put_in(&log, epoch, count).await;
    }
    assert_eq!(end(&log, 1).await, (0, 10));
    assert_eq!(end(&log, 2).await, (2, 13));
    assert_eq!(end(&log, 3).await, (2, 13));
    assert_eq!(end(&log, 4).await, (4, 17));
    assert_eq!(end(&log, 5).await, (-1, -1));
    log.delete_records(11).await.unwrap();
    assert_eq!(end(&log, 0).await, (0, 11));
    assert_eq!(starts(&log), [(2, 11), (4, 13)]);
}

#[tokio::test]
async fn an_epoch_ends_no_later_than_the_high_watermark() {
    let world = World::new().await;
    let log = open(&world).await;
    put_in(&log, 1, 5).await;
    world.hold();
    let first = log
        .append_as_leader(batch(Codec::None, &[1], b"v"), 1)
        .unwrap();
    let second = log
        .append_as_leader(batch(Codec::None, &[1], b"v"), 2)
        .unwrap();
    assert_eq!(end(&log, 1).await, (1, 5));
    assert_eq!(end(&log, 2).await, (2, 5));
    world.release();
    first.durable().await.unwrap();
    second.durable().await.unwrap();
    assert_eq!(end(&log, 1).await, (1, 6));
    assert_eq!(end(&log, 2).await, (2, 7));
}

#[tokio::test]
async fn vector_76_epochs_survive_a_crash_and_one_without_a_batch_does_not() {
    let mut world = World::new().await;
    let mut log = open(&world).await;
    assert_eq!(log.assign_epoch_start(-1).unwrap_err().code(), -1);
    let append = log.append_as_leader(batch(Codec::None, &[1], b"v"), -1);
    assert_eq!(append.unwrap_err().code(), -1);
    for epoch in 0..6 {
        put_in(&log, epoch, 2).await;
        if epoch % 2 == 0 {
            log.roll().unwrap();
        }
    }
    log.assign_epoch_start(9).unwrap();
    assert_eq!(log.latest_epoch(), 9);
    let kept: Vec<_> = (0..6).map(|epoch| (epoch, i64::from(epoch) * 2)).collect();
    for close in [true, false] {
        if close {
            log.close().await.unwrap();
        }
        drop(log);
        world.crash().await;
        log = open(&world).await;
        assert_eq!(starts(&log), kept);
        assert_eq!(log.latest_epoch(), 5);
    }
}

#[tokio::test]
async fn vector_124_epochs_follow_the_log_start_and_outlive_their_segments() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put_in(&log, 0, 5).await;
    log.roll().unwrap();
    put_in(&log, 0, 2).await;
    put_in(&log, 1, 3).await;
    put_in(&log, 2, 1).await;
    log.delete_records(5).await.unwrap();
    assert_eq!(starts(&log), [(0, 5), (1, 7), (2, 10)]);
    // The segment that epoch 0 began in is gone; the next one knows.
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(starts(&log), [(0, 5), (1, 7), (2, 10)]);
    log.delete_records(8).await.unwrap();
    assert_eq!(starts(&log), [(1, 8), (2, 10)]);
    // Everything goes, and the epoch stays.
    log.delete_records(-1).await.unwrap();
    log.delete_old_segments(0).await.unwrap();
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(starts(&log), [(2, 11)]);
    put_in(&log, 2, 1).await;
    assert_eq!(starts(&log), [(2, 11)]);
}

#[tokio::test]
async fn vector_70_an_epoch_that_goes_back_takes_what_contradicts_it_with_it() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for epoch in [1, 2, 1] {
        put_in(&log, epoch, 2).await;
    }
    assert_eq!(starts(&log), [(1, 4)]);
    drop(log);
    world.crash().await;
    assert_eq!(starts(&open(&world).await), [(1, 4)]);
}

#[tokio::test]
async fn a_segment_of_many_epochs_is_rolled_and_none_is_lost() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for epoch in 0..1100 {
        put_in(&log, epoch, 1).await;
    }
    assert_eq!(log.segment_count(), 3);
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    let kept: Vec<_> = (0..1100).map(|epoch| (epoch, i64::from(epoch))).collect();
    assert_eq!(starts(&log), kept);
}
