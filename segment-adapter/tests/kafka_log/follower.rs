//! A log that follows another: batches as their leader stored them.

use segment_adapter::{AppendHandle, EndTxn, TransactionVersion};

use super::*;

/// A batch of a leader of `leader_epoch` at `base`.
fn stored(batch: Bytes, base: i64, leader_epoch: i32) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    bytes.into()
}

fn plain(base: i64, count: usize, leader_epoch: i32) -> Bytes {
    stored(
        batch(Codec::None, &vec![1000; count], b"v"),
        base,
        leader_epoch,
    )
}

fn join(batches: &[Bytes]) -> Bytes {
    batches.concat().into()
}

async fn follow(log: &KafkaLog, records: Bytes) -> AppendInfo {
    durable(log.append_as_follower(records, EPOCH)).await
}

async fn durable(handle: Result<AppendHandle, LogError>) -> AppendInfo {
    let handle = handle.unwrap();
    let info = handle.info.clone();
    handle.durable().await.unwrap();
    info
}

#[tokio::test]
async fn vector_22_a_follower_keeps_offsets_and_epochs_and_gaps() {
    let mut world = World::new().await;
    let log = open(&world).await;
    let info = follow(
        &log,
        join(&[plain(5, 2, 1), plain(7, 1, 1), plain(10, 3, 4)]),
    )
    .await;
    assert_eq!((info.first_offset, info.last_offset), (5, 12));
    assert_eq!((info.max_timestamp, info.log_append_time), (1000, -1));
    assert!(!info.duplicate && info.valid_bytes > 200);
    assert_eq!(log.offsets().leo, 13);
    log.roll().unwrap();
    follow(&log, plain(20, 1, 4)).await;
    let all = [(5, 6), (7, 7), (10, 12), (20, 20)];
    for _ in 0..2 {
        assert_eq!(extents(&log, 0).await, all);
        // In a gap the next batch is found.
        for (start, first) in [(0, 5), (8, 10), (13, 20), (19, 20)] {
            let read = log.read(start, 1, true, HW).await.unwrap();
            assert_eq!(batches(&read)[0].header().base_offset, first);
        }
        let starts = log.epoch_starts();
        let starts: Vec<_> = starts.iter().map(|e| (e.epoch, e.start)).collect();
        assert_eq!(starts, [(1, 5), (4, 10)]);
        log.close().await.unwrap();
    }
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(extents(&log, 0).await, all);
    assert_eq!(put_records(&log, 1).await.first_offset, 21);
}

#[tokio::test]
async fn vector_82_a_follower_takes_what_is_too_large_for_a_leader() {
    let world = World::new().await;
    let config = LogConfig {
        max_message_bytes: 100,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    let large = batch(Codec::None, &[1], &[0; 100]);
    assert_eq!(refused(&log, large.clone()).code(), 10);
    follow(&log, stored(large, 0, 0)).await;
    assert_eq!(log.offsets().leo, 1);
}

#[tokio::test]
async fn vector_83_damage_is_refused_and_what_is_cut_off_is_left_off() {
    let world = World::new().await;
    let log = open(&world).await;
    let good = plain(0, 2, 0);
    let info = follow(&log, good.slice(..16)).await;
    assert_eq!((info.first_offset, log.offsets().leo), (-1, 0));
    for (at, to) in [(11, 13), (16, 3), (16, 255), (60, 9), (20, 0)] {
        let mut bad = good.to_vec();
        bad[at] = to;
        for records in [
            Bytes::from(bad.clone()),
            join(&[plain(0, 1, 0), bad.into()]),
        ] {
            let error = log.append_as_follower(records, EPOCH).unwrap_err();
            assert_eq!(error.code(), 2, "{at} {error}");
        }
        assert_eq!(log.offsets().leo, 0);
    }
    let cut_off = join(&[good.clone(), plain(2, 5, 0).slice(..70)]);
    let info = follow(&log, cut_off).await;
    assert_eq!((info.last_offset, info.valid_bytes), (1, good.len() as u64));
    // Offsets that no log has.
    for base in [-1, i64::MAX - 1] {
        let error = log
            .append_as_follower(plain(base, 1, 0), EPOCH)
            .unwrap_err();
        assert_eq!(error.code(), 2, "{error}");
    }
    let error = log.append_as_follower(plain(2, 1, -1), EPOCH).unwrap_err();
    assert!(matches!(error, LogError::InvalidEpoch { .. }));
}

#[tokio::test]
async fn vector_84_offsets_that_do_not_ascend_or_begin_below_the_end_are_refused() {
    let world = World::new().await;
    let log = open(&world).await;
    let of = |offsets: &[i64]| {
        let batches: Vec<_> = offsets.iter().map(|at| plain(*at, 1, 0)).collect();
        log.append_as_follower(join(&batches), EPOCH)
    };
    let error = of(&[0, 1, 3, 2, 4]).unwrap_err();
    assert!(matches!(
        error,
        LogError::OffsetsOutOfOrder { offset: 2, last: 3 }
    ));
    assert_eq!(log.offsets().leo, 0);
    log.truncate_fully_and_start_at(7, None).await.unwrap();
    let error = of(&[4, 5, 6]).unwrap_err();
    let expected = LogError::UnexpectedAppendOffset {
        first: 4,
        last: 6,
        leo: 7,
    };
    assert_eq!(error.to_string(), expected.to_string());
    durable(of(&[7, 8])).await;
    assert!(matches!(
        of(&[8]),
        Err(LogError::UnexpectedAppendOffset { .. })
    ));
    assert_eq!(log.offsets().leo, 9);
}

#[tokio::test]
async fn vector_85_batches_of_leaders_that_are_not_known_yet_are_left_off() {
    let world = World::new().await;
    let log = open(&world).await;
    let records = join(&[
        plain(0, 1, 3),
        plain(1, 1, 7),
        plain(2, 1, 8),
        plain(3, 1, 7),
    ]);
    let info = follow(&log, records).await;
    assert_eq!((info.last_offset, log.latest_epoch()), (1, 7));
    assert_eq!(follow(&log, plain(2, 1, 8)).await.first_offset, -1);
}

#[tokio::test]
async fn vector_101_a_follower_does_not_look_for_duplicates() {
    let world = World::new().await;
    let log = open(&world).await;
    let sent = |base, sequence, count: usize| {
        let batch = (0..count).fold(BatchBuilder::new(Codec::None), |batch, _| {
            batch.record(1000, None, None)
        });
        stored(batch.producer(1, 0, sequence).build().unwrap(), base, 0)
    };
    follow(
        &log,
        join(&[sent(0, 0, 2), sent(2, 2, 1), sent(3, 2, 1), sent(4, 0, 1)]),
    )
    .await;
    assert_eq!(log.offsets().leo, 5);
    assert_eq!(log.active_producers()[0].last_sequence, 0);
}

#[tokio::test]
async fn vector_107_a_follower_has_the_transactions_of_its_leader() {
    let leaders = World::new().await;
    let mut world = World::new().await;
    let config = LogConfig {
        verify_transactions: false,
        ..LogConfig::default()
    };
    let leader = open_with(&leaders, config).await;
    let txn = |id, sequence| {
        let batch = BatchBuilder::new(Codec::None).record(1000, None, Some(b"v"));
        let batch = batch.producer(id, 0, sequence).transactional();
        batch.build().unwrap()
    };
    for sequence in 0..3 {
        for id in [1, 2, 3] {
            put(&leader, txn(id, sequence)).await;
        }
        let end = EndTxn {
            producer_id: 1 + i64::from(sequence % 2),
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit: sequence == 1,
            version: TransactionVersion::V1,
        };
        durable(leader.append_end_txn(end, EPOCH)).await;
    }
    let log = open(&world).await;
    let records = leader.read(0, 1 << 20, true, HW).await.unwrap().records;
    follow(&log, join(&records)).await;
    let seen = async |log: &KafkaLog| {
        let read = log.read(0, 1 << 20, true, Isolation::TxnCommitted).await;
        (read.unwrap(), log.active_producers(), log.epoch_starts())
    };
    let expected = seen(&leader).await;
    assert_eq!(expected.0.aborted.as_ref().unwrap().len(), 1);
    assert_eq!(seen(&log).await, expected);
    drop(log);
    world.crash().await;
    assert_eq!(seen(&open(&world).await).await, expected);
    // A marker needs no version here (118), and may be of an old epoch and coordinator.
    let log = open(&world).await;
    follow(&log, stored(records[3].clone(), 12, EPOCH)).await;
}

#[tokio::test]
async fn vector_128_epochs_of_coordinators_that_fall_do_not_keep_a_log_from_opening() {
    let leaders = World::new().await;
    let mut world = World::new().await;
    let log = open(&world).await;
    for (base, coordinator_epoch) in [(0, 4), (1, 2)] {
        let leader = open(&leaders).await;
        let end = EndTxn {
            producer_id: base,
            producer_epoch: 0,
            coordinator_epoch,
            commit: true,
            version: TransactionVersion::V1,
        };
        durable(leader.append_end_txn(end, EPOCH)).await;
        let marker = leader.read(base, 1, true, HW).await.unwrap().records[0].to_vec();
        // All of producer 1.
        let mut marker = stored(marker.into(), base, EPOCH).to_vec();
        marker[50] = 1;
        let crc = crc32c::crc32c(&marker[21..]);
        marker[17..21].copy_from_slice(&crc.to_be_bytes());
        follow(&log, marker.into()).await;
    }
    let coordinator = |log: &KafkaLog| log.active_producers()[0].coordinator_epoch;
    assert_eq!(coordinator(&log), 2);
    drop(log);
    world.crash().await;
    assert_eq!(coordinator(&open(&world).await), 2);
}

#[tokio::test]
async fn vector_90_epochs_of_a_follower_come_from_its_batches() {
    let world = World::new().await;
    let log = open(&world).await;
    follow(
        &log,
        join(&[plain(0, 1, 2), plain(1, 1, 2), plain(2, 1, 5)]),
    )
    .await;
    let end = log.offset_for_leader_epoch(2).await.unwrap();
    assert_eq!((end.epoch, end.end_offset), (2, 2));
}

#[tokio::test]
async fn what_there_is_no_room_for_is_left_off() {
    let world = World::new().await;
    let log = open(&world).await;
    world.hold();
    let large = batch(Codec::None, &[1], &vec![0; 1_000_000]);
    let mut base = 0;
    loop {
        let batches: Vec<_> = (base..base + 3)
            .map(|at| stored(large.clone(), at, 0))
            .collect();
        match log.append_as_follower(join(&batches), EPOCH) {
            Ok(handle) => base = handle.info.last_offset + 1,
            Err(error) => {
                assert_eq!(error.code(), 7, "{error}");
                break;
            }
        }
        assert!(base < 10_000, "there is a limit");
    }
    assert_eq!(log.offsets().leo, base);
    world.release();
    log.wait_for_hw(base - 1).await.unwrap();
    follow(&log, stored(large, base, 0)).await;
}

#[tokio::test]
async fn what_was_appended_before_something_that_cannot_be_is_told() {
    let world = World::new().await;
    let log = open(&world).await;
    // Larger than a record of the log below can be.
    let huge = stored(batch(Codec::None, &[1], &vec![0; 80 << 20]), 2, 0);
    let info = follow(&log, join(&[plain(0, 2, 0), huge.clone()])).await;
    assert_eq!((info.first_offset, info.last_offset), (0, 1));
    assert_eq!((log.offsets().hw, log.offsets().leo), (2, 2));
    let error = log.append_as_follower(huge, EPOCH).unwrap_err();
    assert!(!error.may_have_happened(), "{error}");
    assert_eq!(log.offsets().leo, 2);
    follow(&log, plain(2, 1, 0)).await;
}
