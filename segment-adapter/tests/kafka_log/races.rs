//! Calls that race a cut, or come after one whose caller went away, and instances that missed a reopening.

use std::time::Duration;

use segment_adapter::TimestampSpec;

use super::*;

const COMMITTED: Isolation = Isolation::TxnCommitted;

async fn two_segments(log: &KafkaLog) {
    for _ in 0..2 {
        put_records(log, 2).await;
        put_records(log, 2).await;
        log.roll().unwrap();
    }
}

#[tokio::test]
async fn a_cut_whose_caller_went_away_is_told_as_done_only_when_it_is_durable() {
    let world = World::new().await;
    let log = open(&world).await;
    two_segments(&log).await;
    world.hold();
    {
        let mut cut = Box::pin(log.truncate_fully_and_start_at(3, None));
        assert!(futures::poll!(cut.as_mut()).is_pending());
    }
    assert_eq!((log.offsets().log_start, log.offsets().leo), (3, 3));
    let mut again = Box::pin(log.truncate_to(3));
    assert!(futures::poll!(again.as_mut()).is_pending());
    drop(again);
    let mut below = Box::pin(log.delete_records(3));
    assert!(futures::poll!(below.as_mut()).is_pending());
    drop(below);
    let mut first = Box::pin(log.close());
    assert!(futures::poll!(first.as_mut()).is_pending());
    drop(first);
    let mut second = Box::pin(log.close());
    assert!(futures::poll!(second.as_mut()).is_pending());
    world.release();
    second.await.unwrap();
}

#[tokio::test]
async fn a_cut_whose_caller_went_away_is_waited_for() {
    let mut world = World::new().await;
    let log = open(&world).await;
    two_segments(&log).await;
    world.hold();
    {
        let mut cut = Box::pin(log.truncate_fully_and_start_at(3, None));
        assert!(futures::poll!(cut.as_mut()).is_pending());
    }
    let again = log.truncate_to(3);
    let (told, ()) = tokio::join!(again, async { world.release() });
    assert!(!told.unwrap());
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    assert_eq!((log.offsets().log_start, log.offsets().leo), (3, 3));
}

/// A log of eight records of which none is in memory, and whose reads take a while.
async fn cold(world: &mut World) -> KafkaLog {
    let log = open(world).await;
    two_segments(&log).await;
    log.close().await.unwrap();
    world.leave_only_the_bucket().await;
    let log = open(world).await;
    world.slow_reads(Duration::from_millis(100));
    log
}

#[tokio::test]
async fn a_read_that_a_cut_overtakes_is_out_of_range() {
    for isolation in [HW, COMMITTED] {
        for (next, start) in [(2, None), (6, Some(1))] {
            let mut world = World::new().await;
            let log = cold(&mut world).await;
            let mut read = Box::pin(log.read(6, 1 << 20, true, isolation));
            assert!(futures::poll!(read.as_mut()).is_pending());
            log.truncate_fully_and_start_at(next, start).await.unwrap();
            let end = next;
            match read.await {
                // It ends there now.
                Ok(data) => assert!(end == 6 && data.records.is_empty() && data.offsets.leo == 6),
                Err(error) => assert_eq!((error.code(), end), (1, 2), "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_look_up_by_time_that_a_cut_overtakes_finds_nothing() {
    let mut world = World::new().await;
    let log = cold(&mut world).await;
    let look_up = |at| log.fetch_offset_for_timestamp(TimestampSpec::At(at), HW);
    let mut found = Box::pin(look_up(1000));
    assert!(futures::poll!(found.as_mut()).is_pending());
    log.truncate_fully_and_start_at(0, None).await.unwrap();
    assert_eq!(found.await.unwrap().offset, -1);
}

#[tokio::test]
async fn what_was_read_before_a_cut_is_not_told_with_offsets_of_before() {
    for isolation in [HW, COMMITTED] {
        let mut world = World::new().await;
        let log = cold(&mut world).await;
        let end = log.offsets().leo;
        let mut read = Box::pin(log.read(0, 1 << 20, true, isolation));
        assert!(futures::poll!(read.as_mut()).is_pending());
        // Within the first segment.
        log.truncate_to(end - 2).await.unwrap();
        let data = read.await.unwrap();
        assert_eq!((data.offsets.hw, data.offsets.leo), (end - 2, end - 2));
        let last = batches(&data).pop().unwrap().header().last_offset();
        assert!(last < end - 2, "{last}");
    }
}

#[tokio::test]
async fn who_waits_for_the_high_watermark_is_answered_by_a_cut_that_raises_it() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    for isolation in [Isolation::LogEnd, HW, COMMITTED] {
        let end = log.offsets().leo;
        let mut waiting = Box::pin(log.wait_for(isolation, end + 5));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        log.truncate_fully_and_start_at(end + 9, None)
            .await
            .unwrap();
        let told = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert_eq!(told.unwrap().unwrap().hw, end + 9);
    }
}

#[tokio::test]
async fn an_instance_that_missed_a_reopening_tells_nothing_new_and_answers_nothing() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 2).await;
    world.fail();
    // Until the engine has noticed and has its log again.
    let next = loop {
        let next = world.open_again(LogConfig::default()).await;
        let appended = next.append_as_leader(batch(Codec::None, &[1], b"v"), EPOCH);
        if let Ok(appended) = appended
            && appended.durable().await.is_ok()
        {
            break next;
        }
        tokio::task::yield_now().await;
    };
    let before = log.offsets();
    next.roll().unwrap();
    next.truncate_fully_and_start_at(1, None).await.unwrap();
    for _ in 0..3 {
        put_records(&next, 2).await;
    }
    assert_eq!(before.leo, 2);
    assert_eq!(log.offsets(), before);
    for spec in [TimestampSpec::Earliest, TimestampSpec::Latest] {
        let told = log.fetch_offset_for_timestamp(spec, HW).await;
        assert_eq!(told.unwrap_err().code(), 56);
    }
    let told = log.offset_for_leader_epoch(EPOCH).await;
    assert_eq!(told.unwrap_err().code(), 56);
    let read = log.read(before.leo, 1 << 20, true, HW).await;
    assert_eq!(read.unwrap_err().code(), 56);
    assert!(log.stopped().is_some() && next.stopped().is_none());
    assert_eq!(next.offsets().leo, 7);
}

#[tokio::test]
async fn who_waits_is_told_that_the_log_is_deleted_or_has_stopped() {
    for isolation in [Isolation::LogEnd, HW, COMMITTED] {
        let world = World::new().await;
        let log = open(&world).await;
        let mut waiting = Box::pin(log.wait_for(isolation, 5));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        log.mark_deleted();
        assert_eq!(waiting.await.unwrap_err().code(), 3);

        let log = open(&world).await;
        world.hold();
        let append = log.append_as_leader(batch(Codec::None, &[1], b"v"), EPOCH);
        let append = append.unwrap().durable();
        let mut waiting = Box::pin(log.wait_for(isolation, 5));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        world.fail();
        assert_eq!(append.await.unwrap_err().code(), 56);
        let told = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert_eq!(told.unwrap().unwrap_err().code(), 56);
    }
}
