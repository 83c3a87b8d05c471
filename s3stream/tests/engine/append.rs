//! Appends, fetches and the tailing reader.

use futures::{FutureExt, StreamExt};
use s3stream::ErrorKind;

use crate::support::{LONG, Places, check, fill, payload};

#[tokio::test]
async fn offsets_are_dense_and_records_come_back_as_they_were() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    let first = stream.append(3, &[b"ab", b"", b"c"]).unwrap();
    assert_eq!(first.offsets(), 0..3);
    assert_eq!(stream.next(), 3);
    assert_eq!(first.await.unwrap(), 0..3);
    assert_eq!(stream.append(1, &[]).unwrap().await.unwrap(), 3..4);
    let fetched = stream.fetch(1, 1 << 20).await.unwrap();
    assert_eq!(fetched.records.len(), 2);
    assert_eq!(fetched.records[0].offsets, 0..3);
    assert_eq!(fetched.records[0].payload.as_ref(), b"abc");
    assert_eq!(fetched.records[1].payload.as_ref(), b"");
    assert_eq!((fetched.start, fetched.confirm), (0, 4));
    assert!(stream.fetch(4, 1).await.unwrap().records.is_empty());
    let error = stream.fetch(5, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
}

#[tokio::test]
async fn an_append_of_no_offsets_or_too_many_is_invalid_and_reserves_nothing() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    assert_eq!(
        stream.append(0, &[b"x"]).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    stream.append(1, &[b"x"]).unwrap().await.unwrap();
    let error = stream.append(u64::MAX, &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(stream.next(), 1);
    // A count beyond 32 bits is as good as any (O5).
    let wide = stream.append(u64::from(u32::MAX) + 10, &[b"y"]).unwrap();
    assert_eq!(wide.await.unwrap(), 1..u64::from(u32::MAX) + 11);
}

#[tokio::test]
async fn a_fetch_never_passes_confirm() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    let appends: Vec<_> = (0..50)
        .map(|_| stream.append(1, &[b"x"]).unwrap())
        .collect();
    let confirm = stream.confirm();
    let fetched = stream.fetch(0, 1 << 20).await.unwrap();
    assert!(fetched.records.len() as u64 >= confirm.min(1));
    assert!(
        fetched
            .records
            .iter()
            .all(|record| record.offsets.end <= fetched.confirm)
    );
    for append in appends {
        append.await.unwrap();
    }
    assert_eq!(stream.confirm(), 50);
}

#[tokio::test]
async fn a_tail_sees_what_is_there_and_what_comes() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    let mut tail = stream.tail(4);
    for offset in 4..10 {
        let record = tail.next().await.unwrap().unwrap();
        assert_eq!(record.offsets.start, offset);
    }
    assert!(tail.next().now_or_never().is_none());
    let waiting = tokio::spawn(async move { tail.next().await.unwrap().unwrap() });
    fill(&stream, 1, 100).await;
    let record = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(record.payload, payload(&stream, 10, 100));
}

#[tokio::test]
async fn a_dropped_append_happens_all_the_same() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    drop(stream.append(1, &[b"kept"]).unwrap());
    assert_eq!(stream.wait_confirm(0).await.unwrap(), 1);
    assert_eq!(
        stream.fetch(0, 1).await.unwrap().records[0]
            .payload
            .as_ref(),
        b"kept"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_append_to_many_streams_and_each_is_in_order() {
    let engine = Places::new().open().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let stream = engine.create_stream().await.unwrap();
        tasks.push(tokio::spawn(async move {
            fill(&stream, 2_000, 700).await;
            check(&stream, 0..2_000, 700).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_at_the_tail_costs_no_get() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 1, 1_000).await;
    let mut tail = stream.tail(0);
    let mut next = 0;
    let before = engine.requests();
    for _ in 0..100 {
        fill(&stream, 100, 1_000).await;
        while next < stream.confirm() {
            let record = tail.next().await.unwrap().unwrap();
            assert_eq!(record.offsets.start, next);
            next = record.offsets.end;
        }
    }
    let after = engine.requests();
    assert!(after.put > before.put, "it uploaded meanwhile");
    assert_eq!(after.get, before.get);
}
