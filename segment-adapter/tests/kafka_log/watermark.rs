//! A high watermark that the broker sets, as for a partition with followers.

use segment_adapter::TransactionVersion::V1;
use segment_adapter::{EndTxn, Offsets, TimestampSpec};

use super::*;

const COMMITTED: Isolation = Isolation::TxnCommitted;

/// The offsets, which are in order at any time.
fn seen(log: &KafkaLog) -> Offsets {
    let offsets = log.offsets();
    let Offsets {
        log_start,
        lso,
        hw,
        confirmed,
        leo,
    } = offsets;
    assert!(log_start <= lso && lso <= hw && hw <= confirmed && confirmed <= leo);
    offsets
}

#[tokio::test]
async fn vector_78_what_the_broker_says_is_cut_to_the_log() {
    let mut world = World::new().await;
    let log = open(&world).await;
    assert_eq!(log.update_high_watermark(0), 0);
    put_records(&log, 3).await;
    assert_eq!((seen(&log).hw, seen(&log).confirmed), (0, 3));
    assert_eq!(log.update_high_watermark(5), 3);
    put_records(&log, 3).await;
    assert_eq!(seen(&log).hw, 3);
    assert_eq!(log.update_high_watermark(6), 6);
    assert!(log.truncate_to(3).await.unwrap());
    assert_eq!((seen(&log).hw, seen(&log).leo), (3, 3));
    assert_eq!(log.update_high_watermark(1), 1);
    assert!(log.truncate_to(2).await.unwrap());
    assert_eq!(seen(&log).hw, 1.max(seen(&log).log_start));
    log.truncate_fully_and_start_at(4, None).await.unwrap();
    let offsets = seen(&log);
    assert_eq!((offsets.log_start, offsets.hw, offsets.leo), (4, 4, 4));
    // Nothing of it is kept: the broker says it again.
    put_records(&log, 2).await;
    assert_eq!(seen(&log).hw, 4);
    world.crash().await;
    assert_eq!(seen(&open(&world).await).hw, 6);
}

#[tokio::test]
async fn vector_79_a_follower_hears_of_moves_alone() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 100).await;
    log.update_high_watermark(0);
    assert_eq!(log.maybe_update_high_watermark(99), Some(99));
    assert_eq!(log.maybe_update_high_watermark(99), None);
    assert_eq!(log.maybe_update_high_watermark(100), Some(100));
    assert_eq!(log.maybe_update_high_watermark(101), None);
    assert_eq!(seen(&log).hw, 100);
}

#[tokio::test]
async fn a_leader_raises_it_and_never_past_the_log_end() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 10).await;
    log.update_high_watermark(2);
    assert_eq!(log.maybe_increment_high_watermark(5).unwrap(), Some(2));
    assert_eq!(log.maybe_increment_high_watermark(3).unwrap(), None);
    assert_eq!(
        log.maybe_increment_high_watermark(11).unwrap_err().code(),
        1
    );
    assert_eq!(seen(&log).hw, 5);
    log.delete_records(-1).await.unwrap();
    assert_eq!((seen(&log).log_start, seen(&log).hw), (5, 5));
    assert_eq!(log.delete_records(6).await.unwrap_err().code(), 1);
    assert_eq!(log.update_high_watermark(0), 5);
}

#[tokio::test]
async fn it_is_never_above_what_is_durable() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    log.update_high_watermark(2);
    world.hold();
    let append = log.append_as_leader(batch(Codec::None, &[1; 3], b"v"), EPOCH);
    assert_eq!(log.update_high_watermark(4), 2);
    assert_eq!((seen(&log).hw, seen(&log).leo), (2, 5));
    world.release();
    append.unwrap().durable().await.unwrap();
    // What the broker has said holds once it is durable.
    assert_eq!((seen(&log).hw, seen(&log).confirmed), (4, 5));
}

#[tokio::test]
async fn readers_and_waiters_go_by_it_and_followers_by_what_is_durable() {
    let world = World::new().await;
    let log = open(&world).await;
    for _ in 0..3 {
        put_records(&log, 2).await;
    }
    log.update_high_watermark(2);
    for (isolation, expected) in [(HW, 1), (COMMITTED, 1), (Isolation::LogEnd, 3)] {
        let read = log.read(0, 1 << 20, true, isolation).await.unwrap();
        assert_eq!(read.records.len(), expected);
        // Up to the log end there is nothing, and no error.
        assert!(
            log.read(6, 1, true, isolation)
                .await
                .unwrap()
                .records
                .is_empty()
        );
        let latest = log.fetch_offset_for_timestamp(TimestampSpec::Latest, isolation);
        assert_eq!(latest.await.unwrap().offset, 2 * expected as i64);
    }
    assert_eq!(
        log.offset_for_leader_epoch(EPOCH).await.unwrap().end_offset,
        6
    );
    for isolation in [HW, COMMITTED] {
        log.update_high_watermark(2);
        let mut waiting = Box::pin(log.wait_for(isolation, 3));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        log.maybe_increment_high_watermark(3).unwrap();
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        log.maybe_increment_high_watermark(4).unwrap();
        assert_eq!(waiting.await.unwrap().hw, 4);
    }
    assert_eq!(log.wait_for(Isolation::LogEnd, 5).await.unwrap().hw, 4);
    // A segment whose end is above it is not deleted.
    log.roll().unwrap();
    assert_eq!(log.delete_old_segments(i64::MAX).await.unwrap(), 0);
    log.update_high_watermark(6);
    assert_eq!(log.delete_old_segments(i64::MAX).await.unwrap(), 1);
    // A cut asks for what is durable, not for what is read.
    put_records(&log, 2).await;
    log.update_high_watermark(6);
    assert!(log.truncate_to(6).await.unwrap());
}

#[tokio::test]
async fn vector_107_what_is_unstable_goes_by_it() {
    let world = World::new().await;
    let config = LogConfig {
        verify_transactions: false,
        ..LogConfig::default()
    };
    let log = open_with(&world, config).await;
    let txn = |id, sequence| {
        let batch = BatchBuilder::new(Codec::None).record(1000, None, Some(b"v"));
        let batch = batch.producer(id, 0, sequence).transactional();
        batch.build().unwrap()
    };
    let end = |id| EndTxn {
        producer_id: id,
        producer_epoch: 0,
        coordinator_epoch: 0,
        commit: false,
        version: V1,
    };
    log.update_high_watermark(0);
    put(&log, txn(1, 0)).await;
    put(&log, txn(2, 0)).await;
    for id in [1, 2] {
        let handle = log.append_end_txn(end(id), EPOCH).unwrap();
        handle.durable().await.unwrap();
    }
    // The markers are at 2 and 3.
    for (hw, unstable, lso) in [
        (0, Some(0), 0),
        (2, Some(0), 0),
        (3, Some(1), 1),
        (4, None, 4),
    ] {
        log.update_high_watermark(hw);
        assert_eq!(
            (log.first_unstable_offset(), seen(&log).lso),
            (unstable, lso)
        );
    }
    // What is below a cut and above it stays unstable.
    log.update_high_watermark(2);
    put(&log, txn(3, 0)).await;
    let handle = log.append_end_txn(end(3), EPOCH).unwrap();
    handle.durable().await.unwrap();
    put_records(&log, 2).await;
    log.update_high_watermark(5);
    assert_eq!(log.first_unstable_offset(), Some(4));
    assert!(log.truncate_to(6).await.unwrap());
    assert_eq!((log.first_unstable_offset(), seen(&log).lso), (Some(4), 4));
    assert_eq!(log.update_high_watermark(6), 6);
    assert_eq!((log.first_unstable_offset(), seen(&log).lso), (None, 6));
}
