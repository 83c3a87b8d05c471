//! A node whose log is a directory that several hosts may mount.

use s3stream::{Engine, ErrorKind, Result};

use crate::support::{LONG, check, fill, small};

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("wal")).expect("a directory for the log");
        Self(dir)
    }

    async fn open(&self, wal: &str) -> Result<Engine> {
        let dir = self.0.path().display();
        Engine::builder()
            .bucket(format!("file://{dir}/bucket"))
            .wal(format!("nfs:{dir}/{wal}?capacity=8MiB"))
            .config(small())
            .open()
            .await
    }

    fn files(&self, end: &str) -> usize {
        let files = std::fs::read_dir(self.0.path().join("wal")).expect("the log's directory");
        files
            .filter(|f| {
                f.as_ref()
                    .is_ok_and(|f| f.file_name().to_string_lossy().ends_with(end))
            })
            .count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_log_holds_flows_through_it_and_comes_back_after_each_crash() {
    let node = Node::new();
    let engine = node.open("wal").await.unwrap();
    let stream = engine.create_stream().await.unwrap();
    let id = stream.id();
    // Three laps of the log.
    fill(&stream, 6_000, 4_000).await;
    drop((engine, stream));
    let mut end = 6_000;
    for _ in 0..3 {
        let engine = node.open("wal").await.unwrap();
        let stream = engine.open_stream(id).await.unwrap();
        assert_eq!(stream.confirm(), end);
        check(&stream, 0..end, 4_000).await;
        fill(&stream, 100, 4_000).await;
        end += 100;
        drop((engine, stream));
    }
    let engine = node.open("wal").await.unwrap();
    let stream = engine.open_stream(id).await.unwrap();
    check(&stream, 0..end, 4_000).await;
    engine.close(LONG).await.unwrap();
    assert!(
        node.files(".head") <= 4,
        "an epoch that owes nothing leaves nothing"
    );
}

#[tokio::test]
async fn a_second_process_is_refused_before_it_fences_the_first() {
    let node = Node::new();
    let engine = node.open("wal").await.unwrap();
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 100).await;
    let error = node.open("wal").await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    stream.append(1, &[b"unharmed"]).unwrap().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_not_mounted_is_no_new_log() {
    let node = Node::new();
    let error = node.open("elsewhere").await.unwrap_err();
    assert!(error.to_string().contains("elsewhere"), "{error}");
    assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert!(!node.0.path().join("elsewhere").exists());
}
