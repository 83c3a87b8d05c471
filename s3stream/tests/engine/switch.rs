//! Another log than the registered one: that one is settled first, or the node does not open (M6).

use s3stream::{Engine, ErrorKind, Result};

use crate::support::{LONG, Places, check, fill, small};

/// Nodes on one bucket, each time with the log at another place.
struct Node {
    places: Places,
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Where a directory of several hosts would be mounted: it is never made.
        std::fs::create_dir(dir.path().join("shared")).expect("a mount point");
        Self {
            places: Places::new(),
            dir,
        }
    }

    async fn open(&self, wal: &str) -> Result<Engine> {
        Engine::builder()
            .object_store(self.places.bucket.clone(), "cluster")
            .wal(wal.replace("DIR", &self.dir.path().display().to_string()))
            .config(small())
            .open()
            .await
    }

    fn has(&self, name: &str) -> bool {
        self.dir.path().join(name).exists()
    }
}

const FIRST: &str = "block:DIR/first?capacity=16MiB";
const SECOND: &str = "block:DIR/second?capacity=16MiB";
const SHARED: &str = "nfs:DIR/shared?capacity=16MiB";

/// Kinds of logs that a URL names.
const KINDS: [&str; 5] = [FIRST, SECOND, SHARED, "object:", "object:file:DIR/bucket"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_log_follows_every_other_under_load_and_nothing_is_lost() {
    for from in KINDS {
        for to in KINDS.into_iter().filter(|to| *to != from) {
            let node = Node::new();
            let engine = node.open(from).await.unwrap();
            let stream = engine.create_stream().await.unwrap();
            fill(&stream, 500, 3_000).await;
            // In flight when the node dies; all that was acknowledged counts.
            let late: Vec<_> = (0..50)
                .map(|_| stream.append(1, &[&[7; 100]]).unwrap())
                .collect();
            let id = stream.id();
            drop((engine, stream));
            let mut acknowledged = 500;
            for append in late {
                acknowledged += u64::from(append.await.is_ok());
            }
            let engine = node.open(to).await.unwrap();
            let debts = engine.debts();
            assert_eq!(debts.len(), 1, "{from} to {to}: {debts:?}");
            let stream = engine.open_stream(id).await.unwrap();
            assert!(stream.confirm() >= acknowledged, "{from} to {to}");
            check(&stream, 0..500, 3_000).await;
            let before = stream.confirm();
            stream.append(1, &[b"goes on"]).unwrap().await.unwrap();
            drop((engine, stream));
            // And back.
            let engine = node.open(from).await.unwrap();
            let stream = engine.open_stream(id).await.unwrap();
            assert_eq!(stream.confirm(), before + 1, "{to} to {from}");
            check(&stream, 0..500, 3_000).await;
            engine.close(LONG).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_registered_log_that_cannot_be_settled_is_named_and_no_other_is_made() {
    let node = Node::new();
    let engine = node.open(FIRST).await.unwrap();
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    let id = stream.id();
    // In use.
    let error = node.open(SECOND).await.unwrap_err();
    assert!(error.to_string().contains("first"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    stream.append(1, &[b"unharmed"]).unwrap().await.unwrap();
    drop((engine, stream));
    // Gone.
    let (first, kept) = (node.dir.path().join("first"), node.dir.path().join("kept"));
    std::fs::rename(&first, &kept).unwrap();
    let error = node.open(SECOND).await.unwrap_err();
    assert!(error.to_string().contains("first"), "{error}");
    let error = node.open(FIRST).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(
        !node.has("second") && !node.has("first"),
        "nothing was made"
    );
    // Another log in its place.
    let other = Node::new();
    drop(other.open(FIRST).await.unwrap());
    std::fs::copy(other.dir.path().join("first"), &first).unwrap();
    let error = node.open(SECOND).await.unwrap_err();
    assert!(error.to_string().contains("first"), "{error}");
    assert!(!node.has("second"), "nothing was made");
    // Moved: it is the same log.
    std::fs::remove_file(&first).unwrap();
    std::fs::rename(&kept, node.dir.path().join("second")).unwrap();
    let engine = node.open(SECOND).await.unwrap();
    assert_eq!(engine.open_stream(id).await.unwrap().confirm(), 11);
}

#[tokio::test]
async fn a_log_of_the_callers_own_kind_is_named_and_not_settled() {
    let node = Node::new();
    let engine = node.places.open().await;
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    drop((engine, stream));
    let error = node.open(FIRST).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("memory:"), "{error}");
    assert!(!node.has("first"), "nothing was made");
}
