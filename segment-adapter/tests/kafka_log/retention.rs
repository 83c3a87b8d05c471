//! Retention and record deletion.

use std::pin::pin;

use futures::poll;
use segment_adapter::{EndTxn, TransactionVersion};

use super::*;

/// Segments of `batches` equal batches each, all with time `timestamp`; the last segment is not sealed.
async fn fill(log: &KafkaLog, segments: usize, batches: usize, timestamp: i64) -> u64 {
    let mut size = 0;
    for segment in 0..segments {
        if segment > 0 {
            log.roll().unwrap();
        }
        for _ in 0..batches {
            size = put(log, batch(Codec::None, &[timestamp], b"v"))
                .await
                .valid_bytes;
        }
    }
    size
}

fn config(retention_bytes: i64, retention_ms: i64) -> LogConfig {
    LogConfig {
        retention_bytes,
        retention_ms,
        ..LogConfig::default()
    }
}

#[tokio::test]
async fn vector_120_retention_by_size_keeps_at_least_the_limit() {
    for (limit, left) in [(10, 2), (15, 3), (14, 3), (11, 3), (4, 1), (1, 1)] {
        let world = World::new().await;
        let log = open(&world).await;
        let one = fill(&log, 3, 5, 1000).await;
        log.update_config(config((limit * one) as i64, -1)).unwrap();
        log.delete_old_segments(1000).await.unwrap();
        assert_eq!(log.segment_count(), left, "limit of {limit}");
        assert_eq!(log.offsets().log_start, 15 - 5 * left as i64);
        assert_eq!(log.offsets().leo, 15);
        assert_eq!(log.size().unwrap(), one * 5 * left as u64);
    }
}

#[tokio::test]
async fn vector_121_deleting_records_hides_them_and_retention_drops_their_segments() {
    for (before, left, freed) in [(1, 3, 0), (5, 2, 5), (6, 2, 5), (15, 1, 15)] {
        let world = World::new().await;
        let log = open_with(&world, config(-1, -1)).await;
        fill(&log, 3, 5, 1000).await;
        assert_eq!(log.delete_records(before).await.unwrap(), before);
        log.delete_old_segments(1000).await.unwrap();
        assert_eq!(log.segment_count(), left, "before {before}");
        assert_eq!((log.offsets().log_start, log.offsets().leo), (before, 15));
        assert_eq!(put_records(&log, 1).await.first_offset, 15);
        // The streams give up what no segment shows, an active one that was emptied included.
        assert_eq!(world.streams().await[0].start(), freed, "before {before}");
    }
}

#[tokio::test]
async fn vector_123_a_log_start_past_the_high_watermark_is_out_of_range() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 5).await;
    world.hold();
    let append = log
        .append_as_leader(batch(Codec::None, &[1], b"v"), 1)
        .unwrap();
    for before in [6, 7, -2, i64::MAX, i64::MIN] {
        assert_eq!(
            log.delete_records(before).await.unwrap_err().code(),
            1,
            "{before}"
        );
    }
    world.release();
    append.durable().await.unwrap();
    assert_eq!(log.delete_records(-1).await.unwrap(), 6);
    assert_eq!(log.delete_records(3).await.unwrap(), 6, "never back");
}

#[tokio::test]
async fn vector_123_a_log_that_is_only_compacted_goes_by_its_start_alone() {
    let world = World::new().await;
    let compacted = LogConfig {
        compact: true,
        delete: false,
        ..config(1, 1)
    };
    let log = open_with(&world, compacted.clone()).await;
    fill(&log, 3, 5, 1000).await;
    assert_eq!(log.delete_old_segments(1 << 40).await.unwrap(), 0);
    assert_eq!(log.delete_records(5).await.unwrap_err().code(), 44);
    let both = LogConfig {
        delete: true,
        ..compacted
    };
    log.update_config(both).unwrap();
    assert_eq!(log.delete_old_segments(1 << 40).await.unwrap(), 3);
}

#[tokio::test]
async fn vector_89_the_log_end_stays_when_everything_is_deleted() {
    for count in [0usize, 1, 25] {
        let mut world = World::new().await;
        let log = open_with(&world, config(-1, 100)).await;
        for _ in 0..count {
            put_records(&log, 1).await;
        }
        log.delete_old_segments(1101).await.unwrap();
        let end = count as i64;
        assert_eq!((log.offsets().log_start, log.offsets().leo), (end, end));
        assert_eq!(log.size().unwrap(), 0);
        assert_eq!(log.delete_old_segments(1 << 40).await.unwrap(), 0);
        assert_eq!(put_records(&log, 1).await.first_offset, end);
        drop(log);
        world.crash().await;
        let log = open(&world).await;
        assert_eq!((log.offsets().log_start, log.offsets().leo), (end, end + 1));
        assert_eq!(extents(&log, end).await, [(end, end)]);
    }
}

#[tokio::test]
async fn retention_by_time_stops_at_the_first_segment_that_is_young() {
    let world = World::new().await;
    let log = open_with(&world, config(-1, 100)).await;
    for timestamp in [1000, 3000, 1000] {
        put(&log, batch(Codec::None, &[timestamp], b"v")).await;
        log.roll().unwrap();
    }
    assert_eq!(log.delete_old_segments(1100).await.unwrap(), 0);
    assert_eq!(log.delete_old_segments(1101).await.unwrap(), 1);
    assert_eq!(log.offsets().log_start, 1);
    assert_eq!(log.delete_old_segments(3101).await.unwrap(), 2);
    assert_eq!((log.offsets().log_start, log.segment_count()), (3, 1));
}

#[tokio::test]
async fn records_without_a_time_are_kept_from_their_append_on() {
    let world = World::new().await;
    let log = open_with(&world, config(-1, 100)).await;
    world.clock.set(5000);
    put(&log, batch(Codec::None, &[-1], b"v")).await;
    assert_eq!(log.delete_old_segments(5100).await.unwrap(), 0);
    assert_eq!(log.delete_old_segments(5101).await.unwrap(), 1);
}

#[tokio::test]
async fn vector_122_retention_never_passes_the_high_watermark() {
    let world = World::new().await;
    let log = open_with(&world, config(0, 0)).await;
    fill(&log, 2, 5, 1000).await;
    log.roll().unwrap();
    world.hold();
    let append = log
        .append_as_leader(batch(Codec::None, &[1000], b"v"), 1)
        .unwrap();
    let mut deletion = Box::pin(log.delete_old_segments(1 << 40));
    // The trim itself waits for its own durability.
    assert!(futures::poll!(deletion.as_mut()).is_pending());
    world.release();
    assert_eq!(deletion.await.unwrap(), 2);
    append.durable().await.unwrap();
    assert_eq!((log.offsets().log_start, log.segment_count()), (10, 1));
    assert_eq!(log.delete_old_segments(1 << 40).await.unwrap(), 1);
    assert_eq!((log.offsets().log_start, log.offsets().leo), (11, 11));
}

#[tokio::test]
async fn vector_122_at_each_high_watermark_the_segments_below_it_go() {
    let world = World::new().await;
    let log = open_with(&world, config(0, 0)).await;
    fill(&log, 10, 10, 1000).await;
    for hw in 0..=100 {
        assert_eq!(log.update_high_watermark(hw), hw);
        log.delete_old_segments(1 << 40).await.unwrap();
        let below = hw / 10;
        assert_eq!(log.offsets().log_start, below * 10, "{hw}");
        assert_eq!(log.segment_count() as i64, (10 - below).max(1), "{hw}");
    }
    assert_eq!((log.offsets().leo, log.size().unwrap()), (100, 0));
}

#[tokio::test]
async fn negative_limits_keep_everything() {
    let world = World::new().await;
    let log = open_with(&world, config(-1, -1)).await;
    fill(&log, 3, 1, 1).await;
    assert_eq!(log.delete_old_segments(i64::MAX).await.unwrap(), 0);
    assert_eq!(log.segment_count(), 3);
}

#[tokio::test]
async fn nothing_is_given_up_before_what_hides_it_is_durable() {
    // A roll takes effect when it is queued; a trim of the stream did not wait for it, and a list without it showed what was gone.
    let mut world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 8).await;
    assert_eq!(log.delete_records(-1).await.unwrap(), 8);
    world.hold();
    {
        let mut deletion = pin!(log.delete_old_segments(1 << 40));
        for _ in 0..100 {
            assert!(poll!(&mut deletion).is_pending(), "given up");
            tokio::task::yield_now().await;
        }
    }
    drop(log);
    world.crash().await;
    world.release();
    let log = open(&world).await;
    let offsets = log.offsets();
    assert_eq!((offsets.log_start, offsets.leo), (8, 8));
    assert_eq!(put_records(&log, 1).await.first_offset, 8);
}

#[tokio::test]
async fn what_a_caller_who_went_away_has_deleted_is_forgotten_and_waiters_hear_of_it() {
    let world = World::new().await;
    let unverified = LogConfig {
        verify_transactions: false,
        aborted_max: 2,
        ..config(-1, -1)
    };
    let log = open_with(&world, unverified).await;
    let begin = |id| {
        let batch = BatchBuilder::new(Codec::None).producer(id, 0, 0);
        let batch = batch.transactional().record(1000, None, Some(b"v"));
        batch.build().unwrap()
    };
    put(&log, begin(1)).await;
    let abort = EndTxn {
        producer_id: 1,
        producer_epoch: 0,
        coordinator_epoch: 0,
        commit: false,
        version: TransactionVersion::V1,
    };
    let aborted = log.append_end_txn(abort, EPOCH).unwrap();
    aborted.durable().await.unwrap();
    put(&log, begin(2)).await;
    put_records(&log, 1).await;
    assert_eq!(refused(&log, begin(3)).code(), 7, "as many as there may be");
    // Both wait for what is committed: one from before, one from after the deletion was queued.
    let mut early = pin!(log.wait_for(Isolation::TxnCommitted, 2));
    assert!(poll!(&mut early).is_pending());
    world.hold();
    {
        let mut deletion = pin!(log.delete_records(4));
        assert!(poll!(&mut deletion).is_pending());
    }
    let mut late = pin!(log.wait_for(Isolation::TxnCommitted, 2));
    assert!(poll!(&mut late).is_pending());
    assert_eq!(log.offsets().log_start, 0);
    world.release();
    let limit = std::time::Duration::from_secs(60);
    for waiter in [early, late] {
        let offsets = tokio::time::timeout(limit, waiter).await.unwrap().unwrap();
        assert_eq!((offsets.log_start, offsets.lso), (4, 4));
    }
    // There is room for one more.
    put(&log, begin(3)).await;
    assert_eq!(refused(&log, begin(4)).code(), 7);
}

#[tokio::test]
async fn a_cut_whose_caller_went_away_gives_up_nothing_before_it_is_durable() {
    let mut world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 8).await;
    world.hold();
    {
        let mut cut = pin!(log.truncate_fully_and_start_at(5, None));
        assert!(poll!(&mut cut).is_pending());
    }
    {
        let mut deletion = pin!(log.delete_records(-1));
        for _ in 0..100 {
            if poll!(&mut deletion).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!(extents(&log, 0).await, [(0, 7)], "it was never cut");
}

#[tokio::test]
async fn a_cut_that_failed_is_not_told_to_be_done() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 8).await;
    world.hold();
    {
        let mut cut = pin!(log.truncate_to(0));
        assert!(poll!(&mut cut).is_pending());
        world.fail();
        let failed = cut.await.unwrap_err();
        assert_eq!(failed.code(), 56, "{failed}");
    }
    world.release();
    assert!(log.truncate_to(0).await.is_err());
    drop(log);
    let log = world.open_again(LogConfig::default()).await;
    let end = log.offsets().leo;
    assert!(
        end == 0 || end == 8,
        "a failed append may have happened: {end}"
    );
}
