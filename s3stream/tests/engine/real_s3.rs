//! The engine as a whole on a real S3 server. Run by `.ci/run s3`.

use std::path::Path;

use s3stream::{Config, Engine, StreamId, store::Credentials, testing::SeaweedFs};

use crate::support::{LONG, check, fill, small};

const LEN: usize = 3_000;

async fn open(server: &SeaweedFs, log: &Path) -> Engine {
    let environment = server.environment();
    let pairs = environment.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Engine::builder()
        .bucket(server.url("cluster"))
        .credentials(Credentials::from_pairs(pairs))
        .wal(format!("block:{}?capacity=64MiB", log.display()))
        .config(Config {
            block_cache_bytes: 0,
            ..small()
        })
        .open()
        .await
        .expect("the engine opens")
}

/// Appends to every stream beside what is there, and reads all of it.
async fn go_on(engine: &Engine, ids: &[StreamId], counts: &[u64], done: &mut [u64]) {
    for ((id, count), done) in ids.iter().zip(counts).zip(done) {
        let stream = engine.open_stream(*id).await.expect("the stream opens");
        assert_eq!((stream.start(), stream.confirm()), (0, *done));
        check(&stream, 0..*done, LEN).await;
        fill(&stream, *count, LEN).await;
        *done += count;
        check(&stream, 0..*done, LEN).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn seaweedfs_keeps_what_was_acknowledged_over_crashes_and_all_of_it_after_a_close() {
    let server = SeaweedFs::start().expect("an S3 server");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let engine = open(&server, &log).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(engine.create_stream().await.expect("created").id());
    }
    // One stream with objects of its own, two that share theirs; some of it uploaded, the rest in the log when the engine is dropped.
    let mut done = [0; 3];
    go_on(&engine, &ids, &[1_200, 20, 150], &mut done).await;
    drop(engine);
    for _ in 0..2 {
        let engine = open(&server, &log).await;
        go_on(&engine, &ids, &[400, 7, 30], &mut done).await;
        drop(engine);
    }
    let engine = open(&server, &log).await;
    engine.close(LONG).await.expect("closed");
    let requests = engine.requests();
    assert!(requests.put > 0, "{requests:?}");

    // The bucket alone has everything: the log is gone.
    std::fs::remove_file(&log).expect("removed");
    let engine = open(&server, &log).await;
    go_on(&engine, &ids, &[1, 1, 1], &mut done).await;
    engine.close(LONG).await.expect("closed");
}
