//! Vectors of Kafka's segments, as far as they are more than files.

use segment_adapter::{TimestampSpec, WallClock};

use super::*;

/// A batch of a leader, as a follower gets it.
fn stored(base: i64, leader_epoch: i32, timestamp: i64, payload: &[u8]) -> Bytes {
    let mut bytes = batch(Codec::None, &[timestamp], payload).to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    bytes.into()
}

async fn follow(log: &KafkaLog, batches: &[Bytes]) -> AppendInfo {
    let handle = log.append_as_follower(batches.concat().into(), EPOCH);
    let handle = handle.unwrap();
    let info = handle.info.clone();
    handle.durable().await.unwrap();
    info
}

#[tokio::test]
async fn vector_1_a_segment_spans_no_more_offsets_than_31_bits_say() {
    let world = World::new().await;
    let log = open(&world).await;
    let last = i64::from(i32::MAX);
    let bases = [0, last, last + 1, 2 * last + 1, 2 * last + 2];
    for (base, segments) in bases.into_iter().zip([1, 1, 2, 2, 3]) {
        follow(&log, &[stored(base, 0, 1000, b"v")]).await;
        assert_eq!(log.segment_count(), segments, "{base}");
    }
    assert_eq!(extents(&log, 0).await, bases.map(|base| (base, base)));
    // A batch of an offset below the segment's base cannot be appended.
    let below = log.append_as_follower(stored(last, 0, 1000, b"v"), EPOCH);
    let below = below.unwrap_err();
    let LogError::UnexpectedAppendOffset { first, last, leo } = below else {
        panic!("{below}");
    };
    assert_eq!(
        (first, last, leo),
        (
            i64::from(i32::MAX),
            i64::from(i32::MAX),
            2 * i64::from(i32::MAX) + 3
        )
    );
}

#[tokio::test]
async fn vector_2_of_an_empty_segment_nothing_is_read() {
    let world = World::new().await;
    let log = open(&world).await;
    assert_eq!(
        log.read(0, 1 << 20, true, HW).await.unwrap().records.len(),
        0
    );
    put_records(&log, 2).await;
    log.roll().unwrap();
    assert_eq!(
        log.read(2, 1 << 20, true, HW).await.unwrap().records.len(),
        0
    );
    log.truncate_fully_and_start_at(9, None).await.unwrap();
    assert_eq!(
        log.read(9, 1 << 20, true, HW).await.unwrap().records.len(),
        0
    );
}

#[tokio::test]
async fn vector_6_a_read_of_no_bytes_tells_where_the_log_is() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 5).await;
    for isolation in [Isolation::LogEnd, HW, Isolation::TxnCommitted] {
        let read = log.read(2, 0, false, isolation).await.unwrap();
        assert!(read.records.is_empty());
        assert_eq!((read.offsets.log_start, read.offsets.hw), (0, 5));
        assert_eq!(read.aborted.is_some(), isolation == Isolation::TxnCommitted);
    }
}

/// Segments wait for a second of record time, or of the clock.
fn by_time() -> LogConfig {
    LogConfig {
        segment_ms: 1000,
        timestamp_after_max_ms: i64::MAX,
        ..LogConfig::default()
    }
}

#[tokio::test]
async fn vectors_8_and_20_an_empty_segment_does_not_roll_by_time_nor_when_it_is_cut() {
    let world = World::new().await;
    let log = open_with(&world, by_time()).await;
    for round in 0..3 {
        assert!(!log.truncate_to(57 + 2 * round).await.unwrap());
        world.clock.set(world.clock.now_ms() + 100_000);
        // The first is late by the clock or by its own time, and forces nothing.
        let timestamp = [-1, 5, i64::MAX / 2][round as usize];
        put(&log, batch(Codec::None, &[timestamp], b"v")).await;
        assert_eq!(log.segment_count(), 1 + round as usize);
        log.roll().unwrap();
    }
    // One that a cut has emptied is as new: later by the clock or by record time, it does not roll.
    for timestamp in [-1, 5, i64::MAX / 2] {
        put(&log, batch(Codec::None, &[1, 2], b"v")).await;
        assert_eq!(log.segment_count(), 4);
        assert!(log.truncate_to(3).await.unwrap());
        assert_eq!((log.offsets().leo, log.segment_count()), (3, 4));
        world.clock.set(world.clock.now_ms() + 100_000);
        put(&log, batch(Codec::None, &[timestamp], b"v")).await;
        assert_eq!(log.segment_count(), 4, "{timestamp}");
        assert!(log.truncate_to(3).await.unwrap());
    }
    // It does roll for too many offsets.
    follow(&log, &[stored(3, 7, 5, b"v")]).await;
    follow(&log, &[stored(4 + i64::from(i32::MAX), 7, 5, b"v")]).await;
    assert_eq!(log.segment_count(), 5);
}

#[tokio::test]
async fn vector_10_after_a_cut_of_everything_a_segment_is_as_new() {
    let world = World::new().await;
    let log = open_with(&world, by_time()).await;
    // Without a timestamp the clock counts from when the segment was begun.
    let put_one = async || {
        put(&log, batch(Codec::None, &[-1], b"v"))
            .await
            .first_offset
    };
    assert_eq!(put_one().await, 0);
    world.clock.set(world.clock.now_ms() + 2000);
    assert!(log.truncate_to(0).await.unwrap());
    assert_eq!((put_one().await, put_one().await), (0, 1));
    assert_eq!(log.segment_count(), 1);
    world.clock.set(world.clock.now_ms() + 2000);
    put_one().await;
    assert_eq!(log.segment_count(), 2);
}

#[tokio::test]
async fn vector_12_the_next_offset_is_where_the_log_begins_or_after_its_last_batch() {
    let mut world = World::new().await;
    let log = open(&world).await;
    log.truncate_fully_and_start_at(40, None).await.unwrap();
    assert_eq!(log.offsets().leo, 40);
    let three: Vec<_> = (50..53).map(|base| stored(base, 0, 1000, b"v")).collect();
    follow(&log, &three).await;
    assert_eq!(log.offsets().leo, 53);
    world.crash().await;
    assert_eq!(open(&world).await.offsets().leo, 53);
}

#[tokio::test]
async fn vector_13_look_ups_are_the_same_after_a_crash() {
    let mut world = World::new().await;
    let config = LogConfig {
        index_interval_bytes: 4096,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    for n in 0..40 {
        put(&log, batch(Codec::None, &[n * 10, n * 10 + 3], &[7; 900])).await;
        if n == 20 {
            log.roll().unwrap();
        }
    }
    let look_ups = async |log: &KafkaLog| {
        let mut found = Vec::new();
        for offset in 0..80 {
            let read = log.read(offset, 1, true, HW).await.unwrap();
            found.push(batches(&read)[0].header().base_offset);
        }
        for timestamp in 0..400 {
            let at = TimestampSpec::At(timestamp);
            let told = log.fetch_offset_for_timestamp(at, HW).await.unwrap();
            found.push(told.offset);
        }
        found
    };
    let before = look_ups(&log).await;
    // The record at `n` is at the first time that is not before.
    assert_eq!(before[80..84], [0, 1, 1, 1]);
    assert_eq!(before[80 + 399], -1);
    world.crash().await;
    let log = open_with(&world, config.clone()).await;
    assert_eq!(look_ups(&log).await, before);
    log.close().await.unwrap();
    world.leave_only_the_bucket().await;
    let log = open_with(&world, config).await;
    assert_eq!(look_ups(&log).await, before);
}

#[tokio::test]
async fn vector_16_leader_epochs_are_what_the_batches_say_after_a_crash() {
    let mut world = World::new().await;
    let log = open(&world).await;
    log.truncate_fully_and_start_at(104, None).await.unwrap();
    let of = [(104, 0), (105, 0), (106, 1), (107, 1), (110, 2), (111, 2)];
    let batches = of.map(|(base, epoch)| stored(base, epoch, 1000, b"v"));
    follow(&log, &batches).await;
    world.crash().await;
    let starts = open(&world).await.epoch_starts();
    let starts: Vec<_> = starts.iter().map(|e| (e.epoch, e.start)).collect();
    assert_eq!(starts, [(0, 104), (1, 106), (2, 110)]);
}

#[tokio::test]
async fn vector_17_a_damaged_batch_is_refused_and_nothing_is_cut_off_for_it() {
    // Longer than it is, with another record than it was sent with, and whole.
    for (damaged_byte, opens) in [(Some(11), false), (Some(70), true), (None, true)] {
        let world = World::new().await;
        let log = open(&world).await;
        let streams = world.streams().await;
        for n in 0..4 {
            if n < 3 {
                put_records(&log, 1).await;
                continue;
            }
            let mut last = stored(3, EPOCH, 1000, b"v").to_vec();
            if let Some(damaged) = damaged_byte {
                last[damaged] += 1;
            }
            streams[0].append(1, &[&last]).unwrap().await.unwrap();
        }
        drop(log);
        let confirm = streams[0].confirm();
        let opened = KafkaLog::open(streams.clone(), LogConfig::default(), world.clock.clone());
        match opened.await {
            Ok(log) => {
                assert!(opens && log.offsets().leo == 4);
                // It is read as it is stored, and whoever reads it sees by its checksum what it is.
                let read = log.read(3, 1, true, HW).await.unwrap();
                let batch = Batches::new(read.records[0].clone()).next();
                let checked = batch.unwrap().unwrap().verify_checksum();
                assert_eq!(checked.is_err(), damaged_byte.is_some());
            }
            Err(error) => assert!(
                !opens && matches!(error, LogError::StoredState(_)),
                "{error}"
            ),
        }
        assert_eq!(streams[0].confirm(), confirm);
    }
}

#[tokio::test]
async fn vector_21_notes_of_the_time_index_are_made_batch_by_batch() {
    let world = World::new().await;
    let config = LogConfig {
        index_interval_bytes: 4096,
        segment_bytes: MIB,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    let meta = world.streams().await[1].clone();
    let before = meta.next();
    let all: Vec<_> = (0..10).map(|n| stored(n, 0, n * 10, &[7; 5000])).collect();
    follow(&log, &all).await;
    // One call. The epoch and the segment, then one after each batch that another follows.
    assert!(meta.next() - before >= 9, "{}", meta.next() - before);
    for n in 0..10 {
        let at = TimestampSpec::At(n * 10 - 5);
        let told = log.fetch_offset_for_timestamp(at, HW).await.unwrap();
        assert_eq!((told.offset, told.timestamp), (n, n * 10));
    }
}
