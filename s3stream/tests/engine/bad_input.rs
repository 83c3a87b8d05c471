//! Wrong places: each ends in one clear message that names the thing and the remedy, and nothing is overwritten.

use object_store::ObjectStoreExt;
use s3stream::{Config, Engine, ErrorKind};

use crate::support::{LONG, Places, fill, small};

#[tokio::test]
async fn a_log_of_another_cluster_is_refused_and_left_alone() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    drop(engine);
    let elsewhere = Places {
        log: places.log.clone(),
        ..Places::new()
    };
    let error = elsewhere.open_as(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("another cluster"), "{error}");
    let engine = places.open().await;
    assert_eq!(engine.open_stream(stream.id()).await.unwrap().confirm(), 10);
}

#[tokio::test]
async fn every_problem_of_a_configuration_is_named() {
    let error = Engine::builder()
        .bucket("memory:")
        .wal("memory:")
        .config(Config {
            uploads_in_flight: 0,
            staleness_ms: 0,
            ..small()
        })
        .open()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(
        text.contains("uploads_in_flight") && text.contains("staleness_ms"),
        "{text}"
    );
}

#[tokio::test]
async fn places_that_are_missing_or_unknown_are_refused() {
    for (bucket, wal) in [
        (None, Some("memory:")),
        (Some("memory:"), None),
        (Some("ftp://x"), Some("memory:")),
        (Some("memory:?x=1"), Some("memory:")),
        (Some("memory:"), Some("block:")),
        (Some("memory:"), Some("object:block:x")),
        (Some("memory:"), Some("nfs:")),
    ] {
        let mut builder = Engine::builder();
        if let Some(bucket) = bucket {
            builder = builder.bucket(bucket);
        }
        if let Some(wal) = wal {
            builder = builder.wal(wal);
        }
        let error = builder.open().await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Invalid,
            "{bucket:?} {wal:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_log_that_is_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = format!("file://{}/bucket", dir.path().display());
    let wal = format!("block:{}/wal?capacity=16MiB", dir.path().display());
    let open = || Engine::builder().bucket(&bucket).wal(&wal).open();
    let engine = open().await.unwrap();
    let error = open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("in use"), "{error}");
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 5, 100).await;
    engine.close(LONG).await.unwrap();
    drop(engine);
    let engine = open().await.unwrap();
    assert_eq!(engine.open_stream(stream.id()).await.unwrap().confirm(), 5);
}

#[tokio::test]
async fn a_bucket_that_lost_its_metadata_head_is_refused_and_nothing_is_overwritten() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    engine.close(LONG).await.unwrap();
    let head = object_store::path::Path::from("cluster/metadata/head");
    let kept = places
        .bucket
        .get(&head)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    places.bucket.delete(&head).await.unwrap();
    let error = places.open_as(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.to_string().contains("head is missing"), "{error}");
    places.bucket.put(&head, kept.into()).await.unwrap();
    let engine = places.open().await;
    assert_eq!(engine.open_stream(stream.id()).await.unwrap().confirm(), 10);
}
