//! Offsets by time.

use super::*;
use segment_adapter::{TimestampOffset, TimestampSpec, TimestampType};

async fn find(log: &KafkaLog, spec: TimestampSpec) -> TimestampOffset {
    log.fetch_offset_for_timestamp(spec, HW).await.unwrap()
}

async fn at(log: &KafkaLog, timestamp: i64) -> (i64, i64) {
    let found = find(log, TimestampSpec::At(timestamp)).await;
    (found.offset, found.timestamp)
}

fn found(offset: i64, timestamp: i64, leader_epoch: i32) -> TimestampOffset {
    TimestampOffset {
        offset,
        timestamp,
        leader_epoch,
    }
}

#[tokio::test]
async fn vector_11_the_first_record_at_or_after_a_time() {
    for codec in Codec::ALL {
        let world = World::new().await;
        let log = open(&world).await;
        // Offsets 0..10 in batches of 5, with times 400, 410 and so on.
        put(&log, batch(codec, &[400, 410, 420, 430, 440], b"v")).await;
        log.roll().unwrap();
        put(&log, batch(codec, &[450, 460, 470, 480, 490], b"v")).await;
        let expected = [
            (420, (2, 420)),
            (421, (3, 430)),
            (430, (3, 430)),
            (431, (4, 440)),
            (441, (5, 450)),
            (490, (9, 490)),
            (491, (-1, -1)),
            (401, (1, 410)),
            (399, (0, 400)),
            (0, (0, 400)),
        ];
        for (timestamp, answer) in expected {
            assert_eq!(at(&log, timestamp).await, answer, "{codec} {timestamp}");
        }
    }
}

#[tokio::test]
async fn vector_119_earliest_latest_and_largest_with_their_epochs() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(find(&log, TimestampSpec::Earliest).await, found(0, -1, -1));
    assert_eq!(find(&log, TimestampSpec::Latest).await, found(0, -1, -1));
    assert_eq!(
        find(&log, TimestampSpec::MaxTimestamp).await,
        TimestampOffset::NONE
    );
    for (timestamp, epoch) in [(1000, 0), (2000, 1)] {
        let append = log.append_as_leader(batch(Codec::None, &[timestamp], b"v"), epoch);
        append.unwrap().durable().await.unwrap();
    }
    assert_eq!(find(&log, TimestampSpec::At(1000)).await, found(0, 1000, 0));
    assert_eq!(find(&log, TimestampSpec::At(2000)).await, found(1, 2000, 1));
    assert_eq!(find(&log, TimestampSpec::Earliest).await, found(0, -1, 0));
    assert_eq!(find(&log, TimestampSpec::Latest).await, found(2, -1, 1));
    log.assign_epoch_start(2).unwrap();
    assert_eq!(find(&log, TimestampSpec::Latest).await, found(2, -1, 2));
    assert_eq!(
        find(&log, TimestampSpec::MaxTimestamp).await,
        found(1, 2000, 1)
    );
}

#[tokio::test]
async fn the_largest_time_is_the_first_record_that_has_it() {
    let world = World::new().await;
    let log = open(&world).await;
    put(&log, batch(Codec::Zstd, &[5, 90, 7, 90], b"v")).await;
    log.roll().unwrap();
    put(&log, batch(Codec::Zstd, &[90, 80], b"v")).await;
    assert_eq!(
        find(&log, TimestampSpec::MaxTimestamp).await,
        found(1, 90, EPOCH)
    );
    // Hidden by the log start, the next segment's answers.
    log.delete_records(4).await.unwrap();
    assert_eq!(
        find(&log, TimestampSpec::MaxTimestamp).await,
        found(4, 90, EPOCH)
    );
}

#[tokio::test]
async fn the_largest_time_is_of_what_the_log_start_has_left() {
    // Batches of the first segment, the log start, and the answer; the next segment has one record with time 50.
    type Case = (&'static [&'static [i64]], i64, (i64, i64));
    let cases: [Case; 7] = [
        (&[&[100], &[90]], 1, (1, 90)),
        (&[&[100, 90]], 1, (1, 90)),
        (&[&[100, 60, 90, 90, 70]], 1, (2, 90)),
        (&[&[100, 40], &[30]], 1, (3, 50)),
        (&[&[100, 60], &[30, 50], &[90, 10], &[20, 90]], 1, (4, 90)),
        (&[&[100, 50], &[-1]], 1, (1, 50)),
        (&[&[100], &[-1]], 1, (2, 50)),
    ];
    for codec in [Codec::None, Codec::Lz4] {
        for (first, log_start, newest) in cases {
            let world = World::new().await;
            let log = open(&world).await;
            for times in first {
                put(&log, batch(codec, times, b"v")).await;
            }
            log.roll().unwrap();
            put(&log, batch(codec, &[50], b"v")).await;
            log.delete_records(log_start).await.unwrap();
            let found = find(&log, TimestampSpec::MaxTimestamp).await;
            assert_eq!((found.offset, found.timestamp), newest, "{first:?}");
        }
    }
}

#[tokio::test]
async fn a_time_below_the_log_start_finds_the_next_record_above_it() {
    let world = World::new().await;
    let log = open(&world).await;
    put(&log, batch(Codec::None, &[100, 50, 100, 60], b"v")).await;
    log.delete_records(1).await.unwrap();
    assert_eq!(at(&log, 90).await, (2, 100));
    assert_eq!(at(&log, 10).await, (1, 50));
    assert_eq!(find(&log, TimestampSpec::Earliest).await.offset, 1);
    log.delete_records(3).await.unwrap();
    assert_eq!(at(&log, 90).await, (-1, -1));
}

#[tokio::test]
async fn what_is_not_durable_is_not_found() {
    let world = World::new().await;
    let log = open(&world).await;
    put(&log, batch(Codec::None, &[100], b"v")).await;
    world.hold();
    let append = log
        .append_as_leader(batch(Codec::None, &[200], b"v"), EPOCH)
        .unwrap();
    assert_eq!(at(&log, 150).await, (-1, -1));
    assert_eq!(
        find(&log, TimestampSpec::MaxTimestamp).await,
        TimestampOffset::NONE
    );
    assert_eq!(find(&log, TimestampSpec::Latest).await.offset, 1);
    world.release();
    append.durable().await.unwrap();
    assert_eq!(at(&log, 150).await, (1, 200));
}

#[tokio::test]
async fn log_append_time_finds_the_first_record_of_the_batch() {
    let world = World::new().await;
    let config = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    for time in [5000, 6000] {
        world.clock.set(time);
        put(&log, batch(Codec::Gzip, &[1, 2, 3], b"v")).await;
    }
    assert_eq!(at(&log, 5001).await, (3, 6000));
    assert_eq!(at(&log, 1).await, (0, 5000));
}

#[tokio::test]
async fn the_sparse_index_answers_as_a_full_scan_does() {
    let mut world = World::new().await;
    let config = LogConfig {
        segment_bytes: MIB,
        index_interval_bytes: 4096,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    // Times wander, so that the largest so far is not the last.
    let mut all = Vec::new();
    for n in 0..300i64 {
        let times = [n * 10 + (n * 37) % 200, n * 10 + (n * 91) % 300];
        put(&log, batch(Codec::None, &times, &vec![1; 5000])).await;
        all.extend(times);
    }
    assert!(log.segment_count() > 2);
    let full_scan = |timestamp: i64| {
        let offset = all.iter().position(|time| *time >= timestamp);
        offset.map_or((-1, -1), |offset| (offset as i64, all[offset]))
    };
    for timestamp in (0..3400).step_by(17) {
        assert_eq!(
            at(&log, timestamp).await,
            full_scan(timestamp),
            "{timestamp}"
        );
    }
    drop(log);
    world.crash().await;
    let log = open_with(&world, config).await;
    for timestamp in (0..3400).step_by(111) {
        assert_eq!(
            at(&log, timestamp).await,
            full_scan(timestamp),
            "{timestamp}"
        );
    }
}
