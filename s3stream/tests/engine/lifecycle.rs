//! Crash, reopening, graceful close, moving on: nothing acknowledged is lost, nothing else appears.

use s3stream::{Engine, ErrorKind, StreamId, wal::memory::MemoryLog};

use crate::support::{LONG, Places, check, fill, small};

async fn open_stream(engine: &Engine, id: StreamId) -> s3stream::Stream {
    engine.open_stream(id).await.expect("the stream opens")
}

#[tokio::test]
async fn a_restart_without_close_has_everything_that_was_acknowledged() {
    let places = Places::new();
    let mut ids = Vec::new();
    let mut ends = Vec::new();
    for round in 0..4u64 {
        let engine = places.open().await;
        ids.push(engine.create_stream().await.unwrap().id());
        ends.push(0);
        for (id, end) in ids.iter().zip(&mut ends) {
            let stream = open_stream(&engine, *id).await;
            assert_eq!(
                (stream.start(), stream.confirm(), stream.next()),
                (0, *end, *end)
            );
            check(&stream, 0..*end, 3_000).await;
            fill(&stream, 100 + round, 3_000).await;
            *end += 100 + round;
        }
    }
}

#[tokio::test]
async fn after_a_close_the_bucket_alone_serves_everything() {
    let mut places = Places::new();
    let engine = places.open().await;
    let small_stream = engine.create_stream().await.unwrap();
    let large_stream = engine.create_stream().await.unwrap();
    fill(&small_stream, 50, 1_000).await;
    fill(&large_stream, 1_500, 1_000).await;
    engine.close(LONG).await.unwrap();
    assert_eq!(
        small_stream.append(1, &[b"x"]).unwrap_err().kind(),
        ErrorKind::Closed
    );

    places.log = MemoryLog::new();
    for node in [0, 7] {
        let engine = places.open_as(node).await.unwrap();
        for (stream, count) in [(&small_stream, 50), (&large_stream, 1_500)] {
            let stream = open_stream(&engine, stream.id()).await;
            check(&stream, 0..count, 1_000).await;
        }
        engine.close(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_log_is_opened_again_by_the_same_node() {
    let places = Places::new();
    let engine = places.open().await;
    let id = engine.create_stream().await.unwrap().id();
    fill(&open_stream(&engine, id).await, 10, 100).await;
    engine.close(LONG).await.unwrap();
    let engine = places.open().await;
    let stream = open_stream(&engine, id).await;
    fill(&stream, 10, 100).await;
    check(&stream, 0..20, 100).await;
}

#[tokio::test]
async fn a_replay_larger_than_memory_is_loaded_in_pieces() {
    let places = Places::new();
    let engine = places
        .builder()
        .config(s3stream::Config {
            log_cache_bytes: 64 << 20,
            upload_bytes: 32 << 20,
            ..small()
        })
        .open()
        .await
        .unwrap();
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 1_000, 20_000).await;
    drop(engine);
    let engine = places.open().await;
    assert!(engine.usage().held_bytes <= small().log_cache_bytes);
    check(&open_stream(&engine, stream.id()).await, 0..1_000, 20_000).await;
}

#[tokio::test]
async fn a_node_that_starts_again_and_again_leaves_no_trail_of_debts() {
    let places = Places::new();
    for _ in 0..10 {
        let engine = places.open().await;
        assert_eq!(engine.debts().len(), 1, "{:?}", engine.debts());
    }
    let engine = places.open().await;
    fill(&engine.create_stream().await.unwrap(), 10, 100).await;
    drop(engine);
    // The epoch with records is owed until they are uploaded, however often it is taken over.
    for restarts in 1..5 {
        let engine = places.open().await;
        assert_eq!(engine.debts().len(), 1 + restarts);
    }
    let engine = places.open().await;
    engine.flush().await.unwrap();
    assert_eq!(engine.debts().len(), 1);
}

#[tokio::test]
async fn a_log_of_records_that_were_all_trimmed_is_given_up_without_an_object() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    stream.trim(..10).await.unwrap();
    engine.flush().await.unwrap();
    engine.close(LONG).await.unwrap();
    let engine = places.open().await;
    let stream = open_stream(&engine, stream.id()).await;
    assert_eq!((stream.start(), stream.next()), (10, 10));
}

#[tokio::test]
async fn a_group_that_was_closed_opens_on_another_node_and_not_before() {
    let places = Places::new();
    let other = Places {
        log: MemoryLog::new(),
        ..places.clone()
    };
    let first = places.open_as(1).await.unwrap();
    let second = other.open_as(2).await.unwrap();
    let (group, streams) = first
        .create_group(2, vec![("kind".into(), "test".into())])
        .await
        .unwrap();
    fill(&streams[0], 20, 100).await;
    second.check_current().await.unwrap();
    let error = second.open_group(group).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("owned by node 1"), "{error}");
    streams[0].close().await.unwrap();
    assert_eq!(
        streams[1].append(1, &[b"x"]).unwrap_err().kind(),
        ErrorKind::Closed
    );
    let moved = second.open_group(group).await.unwrap();
    check(&moved[0], 0..20, 100).await;
    fill(&moved[0], 5, 100).await;
    check(&moved[0], 0..25, 100).await;
    assert!(moved[0].epoch() > streams[0].epoch());
}

#[tokio::test]
async fn a_flush_makes_everything_durable_visible_in_the_bucket() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 100, 1_000).await;
    assert!(engine.usage().unsettled_bytes > 0);
    stream.flush().await.unwrap();
    assert_eq!(engine.usage().unsettled_bytes, 0);
    let before = engine.requests();
    stream.flush().await.unwrap();
    assert_eq!(engine.requests(), before, "nothing to do costs nothing");
}

#[tokio::test]
async fn it_counts_where_what_was_fetched_came_from() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    stream.fetch(0, 1 << 20).await.unwrap();
    let reads = engine.reads();
    assert_eq!((reads.from_log_cache, reads.from_objects), (1, 0));
    engine.close(LONG).await.unwrap();
    let engine = places.open().await;
    let stream = engine.open_stream(stream.id()).await.unwrap();
    for _ in 0..2 {
        stream.fetch(0, 1 << 20).await.unwrap();
    }
    let reads = engine.reads();
    assert_eq!((reads.from_log_cache, reads.from_objects), (0, 2));
    assert_eq!((reads.block_misses, reads.block_hits), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_sends_no_request() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 100, 1_000).await;
    stream.flush().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let before = engine.requests();
    tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
    assert_eq!(engine.requests(), before);
}
