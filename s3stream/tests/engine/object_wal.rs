//! The engine with its log in its own bucket: nothing but a bucket is needed, and every request of the log is in the ledger.

use std::{sync::Arc, time::Duration};

use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use s3stream::{
    Engine, Result,
    wal::object::{Config, ObjectLog},
};

use crate::support::{LONG, Places, check, fill, small};

async fn open(places: &Places) -> Result<Engine> {
    let bucket = places.bucket.clone();
    let builder = Engine::builder().object_store(bucket, "cluster");
    builder.wal("object:").config(small()).open().await
}

#[tokio::test]
async fn what_was_acknowledged_by_the_bucket_alone_is_there_after_a_crash() {
    let places = Places::new();
    let mut count = 0;
    let mut id = None;
    for life in 0..4 {
        let engine = open(&places).await.unwrap();
        let stream = match id {
            Some(id) => engine.open_stream(id).await.unwrap(),
            None => engine.create_stream().await.unwrap(),
        };
        id = Some(stream.id());
        assert_eq!(stream.confirm(), count, "life {life}");
        check(&stream, 0..count, 3_000).await;
        // More than the log cache holds, so some of it is uploaded and trimmed.
        fill(&stream, 700, 3_000).await;
        count += 700;
        drop((stream, engine));
    }
    let engine = open(&places).await.unwrap();
    engine.close(LONG).await.unwrap();
    let engine = open(&places).await.unwrap();
    let stream = engine.open_stream(id.unwrap()).await.unwrap();
    check(&stream, 0..count, 3_000).await;
}

#[tokio::test]
async fn an_append_is_one_put_in_the_ledger() {
    let places = Places::new();
    let engine = open(&places).await.unwrap();
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 1, 100).await;
    let before = engine.requests();
    for _ in 0..10 {
        fill(&stream, 1, 100).await;
    }
    let after = engine.requests();
    assert_eq!(after.put - before.put, 10);
    assert_eq!(after.total() - before.total(), 10, "{before:?} {after:?}");
}

#[tokio::test]
async fn an_owner_that_was_replaced_is_told_at_its_next_append() {
    let places = Places::new();
    let old = open(&places).await.unwrap();
    let stream = old.create_stream().await.unwrap();
    fill(&stream, 5, 100).await;
    let id = stream.id();
    let new = open(&places).await.unwrap();
    let late = stream.append(1, &[b"late"]).unwrap().await;
    assert_eq!(late.unwrap_err().kind(), s3stream::ErrorKind::Fenced);
    let stream = new.open_stream(id).await.unwrap();
    assert_eq!(stream.confirm(), 5);
    check(&stream, 0..5, 100).await;
}

#[tokio::test]
async fn an_append_with_a_permit_is_not_full_however_little_the_log_lets_wait() {
    let places = Places::new();
    let slow = ThrottledStore::new(
        InMemory::new(),
        ThrottleConfig {
            wait_put_per_call: Duration::from_millis(2),
            ..ThrottleConfig::default()
        },
    );
    let config = Config {
        queue_bytes_max: 10_000,
        ..Config::default()
    };
    let log = ObjectLog::new(Arc::new(slow), "wal", 1).unwrap();
    let log = Arc::new(log.with_config(config));
    let engine = places.builder().wal_backend(log).open().await.unwrap();
    let mut writers = Vec::new();
    for len in [9, 800, 3_000, 20_000] {
        let stream = engine.create_stream().await.unwrap();
        writers.push(tokio::spawn(async move {
            fill(&stream, 200, len).await;
            check(&stream, 0..200, len).await;
        }));
    }
    for writer in writers {
        tokio::time::timeout(LONG, writer).await.unwrap().unwrap();
    }
}
