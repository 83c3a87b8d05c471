//! Cutting a log, and what is known afterwards, also after a crash.

use segment_adapter::TransactionVersion::V1;
use segment_adapter::{EndTxn, TimestampSpec};

use super::*;

fn unverified() -> LogConfig {
    LogConfig {
        verify_transactions: false,
        ..LogConfig::default()
    }
}

fn sent(id: i64, sequence: i32, transactional: bool) -> Bytes {
    let batch = BatchBuilder::new(Codec::None).record(1000, Some(b"k"), Some(b"v"));
    let batch = batch.producer(id, 0, sequence);
    let batch = if transactional {
        batch.transactional()
    } else {
        batch
    };
    batch.build().unwrap()
}

async fn end_txn(log: &KafkaLog, id: i64, commit: bool) {
    let end = EndTxn {
        producer_id: id,
        producer_epoch: 0,
        coordinator_epoch: 0,
        commit,
        version: V1,
    };
    let handle = log.append_end_txn(end, EPOCH).unwrap();
    handle.durable().await.unwrap();
}

fn starts(log: &KafkaLog) -> Vec<(i32, i64)> {
    log.epoch_starts()
        .iter()
        .map(|e| (e.epoch, e.start))
        .collect()
}

fn bounds(log: &KafkaLog) -> (i64, i64, i64, i64) {
    let offsets = log.offsets();
    (offsets.log_start, offsets.lso, offsets.hw, offsets.leo)
}

#[tokio::test]
async fn vector_78_the_high_watermark_is_cut_with_the_log() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for _ in 0..2 {
        put_records(&log, 3).await;
    }
    assert!(log.truncate_to(3).await.unwrap());
    assert_eq!(bounds(&log), (0, 3, 3, 3));
    assert_eq!(put_records(&log, 2).await.first_offset, 3);
    log.truncate_fully_and_start_at(4, None).await.unwrap();
    assert_eq!(bounds(&log), (4, 4, 4, 4));
    assert_eq!(log.latest_epoch(), -1);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(bounds(&log), (4, 4, 4, 4));
    assert_eq!(put_records(&log, 2).await.first_offset, 4);
    assert_eq!(extents(&log, 4).await, [(4, 5)]);
}

#[tokio::test]
async fn vectors_7_9_and_18_a_batch_that_holds_the_new_end_goes_whole() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for timestamps in [[400, 400], [500, 500], [450, 450]] {
        put(&log, batch(Codec::None, &timestamps, b"v")).await;
    }
    assert!(log.truncate_to(3).await.unwrap());
    let largest = async |log: &KafkaLog| {
        let found = log
            .fetch_offset_for_timestamp(TimestampSpec::MaxTimestamp, HW)
            .await;
        let found = found.unwrap();
        (found.offset, found.timestamp)
    };
    assert_eq!(extents(&log, 0).await, [(0, 1)]);
    assert_eq!((largest(&log).await, log.offsets().leo), ((0, 400), 3));
    assert_eq!(put_records(&log, 1).await.first_offset, 3);
    // From the gap the next batch is read.
    assert_eq!(extents(&log, 2).await, [(3, 3)]);
    let size = log.size().unwrap();
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(extents(&log, 0).await, [(0, 1), (3, 3)]);
    assert_eq!((log.size().unwrap(), log.segment_count()), (size, 2));
    assert_eq!(largest(&log).await, (3, 1000));
}

#[tokio::test]
async fn vector_124_a_cut_takes_epochs_along_also_one_without_a_batch() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for (epoch, count) in [(1, 3), (2, 3), (4, 3)] {
        let records = batch(Codec::None, &vec![1000; count], b"v");
        let handle = log.append_as_leader(records, epoch).unwrap();
        handle.durable().await.unwrap();
        if epoch == 2 {
            log.roll().unwrap();
        }
    }
    log.assign_epoch_start(9).unwrap();
    assert!(!log.truncate_to(9).await.unwrap());
    assert_eq!(starts(&log), [(1, 0), (2, 3), (4, 6)]);
    assert!(log.truncate_to(6).await.unwrap());
    assert_eq!(starts(&log), [(1, 0), (2, 3)]);
    assert!(log.truncate_to(3).await.unwrap());
    assert_eq!(starts(&log), [(1, 0)]);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(starts(&log), [(1, 0)]);
    let handle = log
        .append_as_leader(batch(Codec::None, &[1], b"v"), 3)
        .unwrap();
    handle.durable().await.unwrap();
    assert_eq!(starts(&log), [(1, 0), (3, 3)]);
    world.crash().await;
    assert_eq!(starts(&open(&world).await), [(1, 0), (3, 3)]);
}

#[tokio::test]
async fn vector_104_producers_are_as_they_were_at_the_new_end() {
    let mut world = World::new().await;
    let mut log = open(&world).await;
    for sequence in 0..8 {
        put(&log, sent(1, sequence, false)).await;
        put(&log, sent(2, sequence, false)).await;
        if sequence % 3 == 1 {
            log.roll().unwrap();
        }
    }
    let last = |log: &KafkaLog| -> Vec<_> {
        let active = log.active_producers();
        active
            .iter()
            .map(|p| (p.producer_id, p.last_sequence))
            .collect()
    };
    for (end, expected) in [
        (13, [(1, 6), (2, 5)].to_vec()),
        (3, [(1, 1), (2, 0)].to_vec()),
        (1, [(1, 0)].to_vec()),
        (0, [].to_vec()),
    ] {
        assert!(log.truncate_to(end).await.unwrap());
        assert_eq!(last(&log), expected);
        world.crash().await;
        log = open(&world).await;
        assert_eq!(last(&log), expected);
        if end == 13 {
            // All five batches are known again.
            let again = put(&log, sent(1, 2, false)).await;
            assert_eq!((again.first_offset, again.duplicate), (4, true));
            assert_eq!(refused(&log, sent(1, 1, false)).code(), 45);
        }
    }
}

#[tokio::test]
async fn vector_117_a_cut_below_what_is_unstable_leaves_nothing_unstable() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put_records(&log, 1).await;
    put(&log, sent(1, 0, true)).await;
    assert_eq!(log.first_unstable_offset(), Some(1));
    assert!(log.truncate_to(1).await.unwrap());
    assert_eq!(log.first_unstable_offset(), None);
    put(&log, sent(1, 0, true)).await;
    log.truncate_fully_and_start_at(2, Some(1)).await.unwrap();
    assert_eq!(log.first_unstable_offset(), None);
    assert_eq!(bounds(&log), (1, 2, 2, 2));
    assert!(log.read(1, 1, true, HW).await.unwrap().records.is_empty());
    assert_eq!(put_records(&log, 1).await.first_offset, 2);
    for wrong in [Some(-1), Some(3)] {
        let error = log.truncate_fully_and_start_at(2, wrong).await.unwrap_err();
        assert_eq!(error.code(), 1);
    }
    assert_eq!(log.truncate_to(-1).await.unwrap_err().code(), 1);
}

#[tokio::test]
async fn a_transaction_that_was_ended_past_the_cut_is_open_again() {
    let mut world = World::new().await;
    let config = LogConfig {
        producers_max: 2,
        ..unverified()
    };
    let log = open_with(&world, config.clone()).await;
    put(&log, sent(1, 0, true)).await;
    put(&log, sent(2, 0, true)).await;
    end_txn(&log, 1, false).await;
    end_txn(&log, 2, false).await;
    // One of them is forgotten meanwhile.
    put(&log, sent(3, 0, false)).await;
    assert_eq!(log.active_producers().len(), 2);
    let aborted = async |log: &KafkaLog| {
        let read = log.read(0, 1 << 20, true, Isolation::TxnCommitted).await;
        read.unwrap().aborted.unwrap().len()
    };
    assert_eq!(aborted(&log).await, 2);
    assert!(log.truncate_to(3).await.unwrap());
    assert_eq!((bounds(&log), aborted(&log).await), ((0, 1, 3, 3), 1));
    assert!(log.has_open_transaction(2, 0));
    assert!(log.truncate_to(2).await.unwrap());
    assert_eq!((bounds(&log), aborted(&log).await), ((0, 0, 2, 2), 0));
    world.crash().await;
    let log = open_with(&world, config).await;
    assert_eq!((bounds(&log), aborted(&log).await), ((0, 0, 2, 2), 0));
    end_txn(&log, 2, false).await;
    end_txn(&log, 1, true).await;
    assert_eq!((bounds(&log), aborted(&log).await), ((0, 4, 4, 4), 1));
}

#[tokio::test]
async fn a_cut_below_the_log_start_takes_it_along() {
    let mut world = World::new().await;
    let log = open(&world).await;
    for _ in 0..3 {
        put_records(&log, 4).await;
        log.roll().unwrap();
    }
    put_records(&log, 4).await;
    log.delete_records(6).await.unwrap();
    // Within the first segment that is kept, below the start.
    assert!(log.truncate_to(5).await.unwrap());
    assert_eq!((bounds(&log), log.segment_count()), ((5, 5, 5, 5), 1));
    // Below everything that is kept.
    put_records(&log, 4).await;
    log.delete_records(7).await.unwrap();
    assert!(log.truncate_to(3).await.unwrap());
    assert_eq!(bounds(&log), (3, 3, 3, 3));
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(bounds(&log), (3, 3, 3, 3));
    assert_eq!(put_records(&log, 1).await.first_offset, 3);
}

#[tokio::test]
async fn a_log_with_appends_in_flight_is_not_cut() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    world.hold();
    let append = log
        .append_as_leader(batch(Codec::None, &[1], b"v"), EPOCH)
        .unwrap();
    assert_eq!(log.truncate_to(1).await.unwrap_err().code(), 7);
    assert_eq!(
        log.truncate_fully_and_start_at(1, None)
            .await
            .unwrap_err()
            .code(),
        7
    );
    world.release();
    append.durable().await.unwrap();
    assert!(log.truncate_to(1).await.unwrap());
    assert_eq!(bounds(&log), (0, 1, 1, 1));
}

#[tokio::test]
async fn what_is_appended_while_a_cut_is_prepared_is_not_cut_off() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    put_records(&log, 2).await;
    log.close().await.unwrap();
    world.leave_only_the_bucket().await;
    let log = open(&world).await;
    world.slow_reads(std::time::Duration::from_millis(100));
    let mut cut = Box::pin(log.truncate_to(2));
    assert!(futures::poll!(cut.as_mut()).is_pending());
    put_records(&log, 1).await;
    assert_eq!(cut.await.unwrap_err().code(), 7);
    assert_eq!(bounds(&log), (0, 5, 5, 5));
    assert!(log.truncate_to(2).await.unwrap());
    assert_eq!(bounds(&log), (0, 2, 2, 2));
}

#[tokio::test]
async fn a_verification_does_not_outlive_a_cut() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 1).await;
    log.start_verification(1, 0, 0, false).unwrap();
    log.truncate_to(0).await.unwrap();
    assert!(log.verification_guard(1).is_none());
}

#[tokio::test]
async fn a_cut_that_is_not_durable_is_undone_by_a_crash() {
    let mut world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, sent(1, 0, true)).await;
    put_records(&log, 2).await;
    end_txn(&log, 1, false).await;
    log.close().await.unwrap();
    world.crash().await;
    let log = open_with(&world, unverified()).await;
    world.hold();
    {
        let mut cut = Box::pin(log.truncate_to(1));
        assert!(futures::poll!(cut.as_mut()).is_pending());
        assert_eq!(bounds(&log), (0, 0, 1, 1));
    }
    drop(log);
    world.crash().await;
    world.release();
    let log = open_with(&world, unverified()).await;
    assert_eq!(bounds(&log), (0, 4, 4, 4));
    let read = log
        .read(0, 1 << 20, true, Isolation::TxnCommitted)
        .await
        .unwrap();
    assert_eq!(read.aborted.unwrap().len(), 1);
}
