//! Trim, destroy, and what becomes of the objects (O4).

use futures::TryStreamExt;
use object_store::ObjectStore;
use s3stream::ErrorKind;

use crate::support::{LONG, Places, check, fill, payload};

async fn objects(places: &Places) -> usize {
    let prefix = object_store::path::Path::from("cluster/objects");
    let listed = places.bucket.list(Some(&prefix));
    let listed: Vec<_> = listed.try_collect().await.expect("a list");
    listed.len()
}

#[tokio::test]
async fn a_trim_is_exclusive_and_survives_a_restart() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 20, 100).await;
    stream.trim(..7).await.unwrap();
    assert_eq!(stream.start(), 7);
    assert_eq!(
        stream.fetch(6, 1).await.unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    check(&stream, 7..20, 100).await;
    assert_eq!(
        stream.trim(..21).await.unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    stream.trim(..3).await.unwrap();
    assert_eq!(stream.start(), 7);
    stream.trim(..20).await.unwrap();
    let id = stream.id();
    drop((engine, stream));
    let engine = places.open().await;
    let stream = engine.open_stream(id).await.unwrap();
    assert_eq!((stream.start(), stream.confirm()), (20, 20));
    fill(&stream, 1, 100).await;
    check(&stream, 20..21, 100).await;
}

#[tokio::test]
async fn a_destroyed_group_is_gone_and_its_objects_are_deleted() {
    let places = Places::new();
    let engine = places.open().await;
    let kept = engine.create_stream().await.unwrap();
    let gone = engine.create_stream().await.unwrap();
    fill(&gone, 600, 1_000).await;
    engine.flush().await.unwrap();
    fill(&gone, 10, 1_000).await;
    engine.flush().await.unwrap();
    fill(&kept, 10, 1_000).await;
    fill(&gone, 10, 1_000).await;
    engine.flush().await.unwrap();
    assert_eq!(objects(&places).await, 3);
    gone.destroy().await.unwrap();
    assert_eq!(
        gone.append(1, &[b"x"]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        gone.fetch(0, 1).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let error = engine.open_stream(gone.id()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // Clean-up runs with the work that follows.
    let deadline = tokio::time::Instant::now() + LONG;
    while objects(&places).await > 1 && tokio::time::Instant::now() < deadline {
        fill(&kept, 1, 10).await;
        kept.trim(..kept.start() + 1).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(objects(&places).await, 1, "the shared object stays");
    check(&kept, kept.start()..10, 1_000).await;
}

#[tokio::test]
async fn records_of_a_destroyed_stream_do_not_hold_up_the_log() {
    let places = Places::new();
    let engine = places.open().await;
    let kept = engine.create_stream().await.unwrap();
    let gone = engine.create_stream().await.unwrap();
    fill(&gone, 100, 1_000).await;
    fill(&kept, 100, 1_000).await;
    gone.destroy().await.unwrap();
    engine.flush().await.unwrap();
    drop(engine);
    let engine = places.open().await;
    let kept = engine.open_stream(kept.id()).await.unwrap();
    check(&kept, 0..100, 1_000).await;
    engine.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_trim_inside_a_record_keeps_the_record_wherever_it_is() {
    for restart in [false, true] {
        let places = Places::new();
        let mut engine = places.open().await;
        let mut stream = engine.create_stream().await.unwrap();
        for offset in (0..20).step_by(2) {
            let append = stream.append(2, &[&payload(&stream, offset, 50)]).unwrap();
            append.await.unwrap();
        }
        stream.trim(..15).await.unwrap();
        if restart {
            let id = stream.id();
            drop((engine, stream));
            engine = places.open().await;
            stream = engine.open_stream(id).await.unwrap();
        }
        let whole = |fetched: s3stream::Fetched| {
            assert_eq!(fetched.start, 15);
            let ranges: Vec<_> = fetched.records.iter().map(|r| r.offsets.clone()).collect();
            assert_eq!(ranges, [14..16, 16..18, 18..20]);
        };
        whole(stream.fetch(15, 1 << 20).await.unwrap());
        engine.flush().await.unwrap();
        engine.close(LONG).await.unwrap();
        let engine = places.open().await;
        let stream = engine.open_stream(stream.id()).await.unwrap();
        whole(stream.fetch(15, 1 << 20).await.unwrap());
        assert_eq!(
            stream.fetch(14, 1).await.unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
        assert_eq!((stream.start(), stream.next()), (15, 20));
    }
}
