//! Cuts of a segment log: what it goes on with, what a crash leaves, and that many of them leave little behind.

use super::*;

fn truncation(cut: u64, end: u64, start: u64) -> Truncation {
    Truncation {
        cut,
        end,
        start,
        attributes: Bytes::from_static(b"cut"),
        note: Some(Bytes::from_static(b"note")),
        state: Bytes::from_static(b"whole"),
    }
}

#[tokio::test]
async fn the_meta_stream_stays_short_however_often_the_log_is_cut() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    put(&log, 1, "a").await;
    for _ in 0..10_000 {
        log.append(1, 1, &[b"b"]).unwrap().await.unwrap();
        log.truncate(&truncation(1, 1, 0)).unwrap().await.unwrap();
        log.trim_front(..0).await.unwrap();
    }
    let meta = &world.streams().await[1];
    let kept = meta.next() - meta.start();
    assert!(kept < 200, "{kept} records are kept of {}", meta.next());
    log.maintain(|| -> ((), Bytes) { panic!("not due") })
        .await
        .unwrap();
    assert_eq!(meta.next() - meta.start(), 1);
    world.crash(true).await;
    let log = open(&world).await;
    assert_eq!(read_all(&log).await, expected(&[(0, "a")]));
    assert_eq!(log.bounds().next, 1);
}

#[tokio::test]
async fn a_checkpoint_that_is_asked_for_is_all_that_is_left_of_the_meta_stream() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    for text in ["a", "b"] {
        put(&log, 1, text).await;
        log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    }
    log.checkpoint(|| ((), Bytes::from_static(b"state")))
        .await
        .unwrap();
    let meta = &world.streams().await[1];
    assert_eq!(meta.next() - meta.start(), 1);
    world.crash(true).await;
    let log = open(&world).await;
    assert_eq!(log.take_state(), ["state"]);
    assert_eq!(read_all(&log).await, expected(&[(0, "a"), (1, "b")]));
}

#[tokio::test]
async fn a_log_is_cut_and_goes_on_with_other_records_at_the_same_offsets() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    for text in ["a", "b", "c"] {
        put(&log, 2, text).await;
        log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
        put(&log, 2, text).await;
    }
    log.trim_front(..3).await.unwrap();
    // Within the record of 4..6; what is left of it is a gap.
    let durable = log.truncate(&truncation(4, 5, 3)).unwrap();
    assert_eq!((log.bounds().next, log.bounds().confirm), (5, 5));
    put(&log, 1, "d").await;
    durable.await.unwrap();
    let shape = [(2, Some(4)), (5, None)];
    let records = [(2, "a"), (5, "d")];
    assert_eq!(bases(&log), shape);
    assert_eq!(read_all(&log).await, expected(&records));
    assert_eq!(log.fetch(4, 64).await.unwrap().records.len(), 1);
    assert_eq!(log.annotations(), [Bytes::from_static(b"note")]);
    assert_eq!(log.segments()[0].attributes, "cut");
    world.crash(true).await;
    let log = open(&world).await;
    assert_eq!(bases(&log), shape);
    assert_eq!(read_all(&log).await, expected(&records));
    assert_eq!(log.take_state(), [Bytes::from_static(b"whole")]);
    // All of it goes, and the log starts below where it goes on.
    let durable = log.truncate(&truncation(0, 2, 1)).unwrap();
    durable.await.unwrap();
    log.trim_front(..1).await.unwrap();
    let bounds = log.bounds();
    assert_eq!((bounds.start, bounds.confirm, bounds.next), (1, 2, 2));
    let data = &world.streams().await[0];
    assert_eq!(data.start(), data.next());
    put(&log, 1, "e").await;
    assert_eq!(read_all(&log).await, expected(&[(2, "e")]));
}

#[tokio::test]
async fn a_cut_that_is_not_durable_is_undone_by_a_crash() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    put(&log, 1, "a").await;
    put(&log, 1, "b").await;
    world.hold();
    let durable = log.truncate(&truncation(1, 1, 0)).unwrap();
    let append = log.append(1, 1, &[b"c"]).unwrap();
    // What is appended after it is in flight.
    let refused = log.truncate(&truncation(1, 1, 0)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    drop((durable, append));
    world.crash(true).await;
    world.release();
    let log = open(&world).await;
    assert_eq!(read_all(&log).await, expected(&[(0, "a"), (1, "b")]));
    assert!(log.take_state().concat().is_empty());
    for wrong in [
        truncation(2, 1, 0),
        truncation(1, 1, 2),
        truncation(3, 3, 0),
    ] {
        let refused = log.truncate(&wrong).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
    assert_eq!(log.bounds().next, 2);
}

#[tokio::test]
async fn who_waits_hears_of_a_cut_that_raises_the_end_and_of_a_jump_whose_caller_went_away() {
    let world = World::new(2).await;
    let log = open(&world).await;
    put(&log, 1, "a").await;
    let mut waiting = Box::pin(log.wait_confirm(5));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let durable = log.truncate(&truncation(0, 9, 9)).unwrap();
    assert_eq!(waiting.await.unwrap(), 9);
    durable.await.unwrap();
    log.seal(Bytes::new()).unwrap().await.unwrap();
    let mut waiting = Box::pin(log.wait_confirm(15));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    {
        let mut jump = Box::pin(log.begin(20));
        let _ = futures::poll!(jump.as_mut());
    }
    assert_eq!(waiting.await.unwrap(), 20);
}
