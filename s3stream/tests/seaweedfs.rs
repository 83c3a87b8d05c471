//! On a real S3 server: what fencing and the metadata rest on, and the engine as a whole. Run by `.ci/run s3`.
#![cfg(all(feature = "aws", feature = "testing"))]

use std::sync::Arc;

use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion, path::Path,
};
use s3stream::{Engine, store::Credentials, testing::SeaweedFs};

/// More contenders on one key make the server slow, not wrong.
const CONTENDERS: usize = 4;
const ROUNDS: usize = 5;

/// Every contender puts at once; the answers in the order of the contenders. An ETag is made of the content, so that the same bytes
/// at another step would make an old version current again: `step` keeps them apart, as the sequence in the metadata's head does.
async fn race(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    step: &'static str,
    mode: PutMode,
) -> Vec<Result<UpdateVersion, Error>> {
    let puts = (0..CONTENDERS).map(|contender| {
        let (store, path, mode) = (Arc::clone(store), path.clone(), mode.clone());
        async move {
            let put = store
                .put_opts(
                    &path,
                    format!("{step} {contender}").into(),
                    PutOptions::from(mode),
                )
                .await?;
            Ok(UpdateVersion::from(put))
        }
    });
    futures::future::join_all(puts).await
}

async fn winner(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    answers: Vec<Result<UpdateVersion, Error>>,
) -> UpdateVersion {
    let kept = store
        .get(path)
        .await
        .expect("the object is there")
        .bytes()
        .await
        .expect("it can be read");
    let kept: usize = std::str::from_utf8(&kept)
        .map(|kept| kept.rsplit(' ').next().unwrap_or(kept))
        .expect("a number")
        .parse()
        .expect("a number");
    let mut won = Vec::new();
    for (contender, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(version) => won.push((contender, version)),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(error) => panic!("contender {contender}: {error}"),
        }
    }
    let (contender, version) = won.pop().expect("one contender won");
    assert!(won.is_empty(), "{contender} and {won:?} won");
    assert_eq!(
        kept, contender,
        "another's bytes are kept than the winner's"
    );
    version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn seaweedfs_lets_exactly_one_contender_create_and_exactly_one_swap() {
    let server = SeaweedFs::start().expect("an S3 server");
    let store: Arc<dyn ObjectStore> = Arc::new(server.store().expect("a client"));
    for round in 0..ROUNDS {
        let path = Path::from(format!("race/{round}"));
        let answers = race(&store, &path, "create", PutMode::Create).await;
        let created = winner(&store, &path, answers).await;
        let answers = race(&store, &path, "swap", PutMode::Update(created.clone())).await;
        let swapped = winner(&store, &path, answers).await;
        assert_ne!(
            created.e_tag, swapped.e_tag,
            "a swap left the ETag as it was"
        );
        let late = store
            .put_opts(
                &path,
                "late".into(),
                PutOptions::from(PutMode::Update(created)),
            )
            .await;
        assert!(
            matches!(late, Err(Error::Precondition { .. })),
            "a swap from an old version: {late:?}"
        );
    }
}

/// The engine as a whole: metadata by conditional puts, objects, and everything again from the bucket alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn seaweedfs_keeps_what_an_engine_wrote() {
    const RECORDS: u64 = 5_000;
    let server = SeaweedFs::start().expect("the server starts");
    let credentials = || {
        Credentials::from_pairs(
            server
                .environment()
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        )
    };
    let payload = |offset: u64| vec![offset as u8; 2_000 + offset as usize % 100];
    let open = || {
        Engine::builder()
            .bucket(server.url("engine"))
            .credentials(credentials())
            .wal("memory:")
            .open()
    };
    let engine = open().await.expect("the engine opens");
    let streams = [
        engine.create_stream().await.expect("a stream"),
        engine.create_stream().await.expect("a stream"),
    ];
    for stream in &streams {
        let mut appends = Vec::new();
        for offset in 0..RECORDS {
            appends.push(stream.append(1, &[&payload(offset)]).expect("room"));
        }
        for append in appends {
            append.await.expect("durable");
        }
    }
    engine
        .close(std::time::Duration::from_secs(60))
        .await
        .expect("everything uploaded");

    let engine = open().await.expect("the engine opens with another log");
    for stream in &streams {
        let stream = engine.open_stream(stream.id()).await.expect("the stream");
        let mut next = 0;
        while next < RECORDS {
            for record in stream.fetch(next, 1 << 20).await.expect("fetched").records {
                assert_eq!(record.offsets.start, next);
                assert_eq!(record.payload, payload(next));
                next += 1;
            }
        }
    }
}
