//! Places for tests, and a content that says where it belongs.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};
use s3stream::{Config, Engine, EngineBuilder, NodeId, Result, Stream, wal::memory::MemoryLog};

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A bucket and a log that outlive the engines on them.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) log: MemoryLog,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            bucket: Arc::new(InMemory::new()),
            log: MemoryLog::new(),
        }
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        Engine::builder()
            .object_store(self.bucket.clone(), "cluster")
            .wal_backend(Arc::new(self.log.clone()))
            .config(small())
    }

    pub(crate) async fn open(&self) -> Engine {
        self.builder().open().await.expect("the engine opens")
    }

    pub(crate) async fn open_as(&self, node: u64) -> Result<Engine> {
        self.builder().node(NodeId::new(node)).open().await
    }
}

/// Limits that a test can reach.
pub(crate) fn small() -> Config {
    Config {
        log_cache_bytes: 4 << 20,
        upload_bytes: 1 << 20,
        stream_object_bytes: 256 << 10,
        data_block_bytes: 16 << 10,
        condemn_grace_ms: 0,
        ..Config::default()
    }
}

/// The payload of the record at an offset: never the same for two offsets or streams.
pub(crate) fn payload(stream: &Stream, offset: u64, len: usize) -> Vec<u8> {
    let mut payload = format!("{}/{offset}/", stream.id()).into_bytes();
    let mut word = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.id().get();
    while payload.len() < len {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        payload.extend_from_slice(&word.to_be_bytes());
    }
    payload.truncate(len.max(1));
    payload
}

/// Appends `count` single records of `len` bytes and waits for all.
pub(crate) async fn fill(stream: &Stream, count: u64, len: usize) {
    let mut appends = Vec::new();
    for _ in 0..count {
        let permit = stream.ready(len).await.expect("room");
        let payload = payload(stream, stream.next(), len);
        appends.push(stream.append_with(permit, 1, &[&payload]).expect("queued"));
    }
    for append in appends {
        append.await.expect("durable");
    }
}

/// Reads `range` and checks every byte.
pub(crate) async fn check(stream: &Stream, range: std::ops::Range<u64>, len: usize) {
    let mut next = range.start;
    while next < range.end {
        let fetched = stream.fetch(next, 64 << 10).await.expect("fetched");
        assert!(!fetched.records.is_empty(), "nothing at {next}");
        for record in fetched.records {
            if next == range.end {
                break;
            }
            assert_eq!(record.offsets, next..next + 1);
            assert_eq!(record.payload, payload(stream, next, len), "offset {next}");
            next += 1;
        }
    }
    assert_eq!(next, range.end);
}
