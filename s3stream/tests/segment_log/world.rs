//! One node on a log and a bucket in memory, that can crash or lose its log.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use s3stream::wal::memory::MemoryLog;
use s3stream::{Engine, GroupId, Stream};

pub(crate) struct World {
    log: MemoryLog,
    bucket: Arc<InMemory>,
    engine: Engine,
    group: GroupId,
}

impl World {
    /// A node with one group of so many streams.
    pub(crate) async fn new(streams: u32) -> Self {
        let (log, bucket) = (MemoryLog::new(), Arc::new(InMemory::new()));
        let engine = start(&log, &bucket).await;
        let (group, _) = engine.create_group(streams, Vec::new()).await.unwrap();
        Self {
            log,
            bucket,
            engine,
            group,
        }
    }

    pub(crate) async fn streams(&self) -> Vec<Stream> {
        self.engine.open_group(self.group).await.unwrap()
    }

    /// Ends the process without a word and starts it again. What was not acknowledged is gone or not.
    pub(crate) async fn crash(&mut self, forgets: bool) {
        self.log.forget_unacknowledged(forgets);
        // The old engine is dropped only when the new one stands: it must not matter.
        self.engine = start(&self.log, &self.bucket).await;
    }

    /// Nothing becomes durable from now on.
    pub(crate) fn hold(&self) {
        self.log.hold();
    }

    pub(crate) fn release(&self) {
        self.log.release();
    }

    /// The log fails, and the engine opens it again by itself.
    pub(crate) async fn lose_log(&self) {
        let before = self.engine.epoch();
        let cause = wal::Error::Invalid("failed by the test".into());
        self.log.fail(cause);
        while self.engine.health().is_err() || self.engine.epoch() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn start(log: &MemoryLog, bucket: &Arc<InMemory>) -> Engine {
    Engine::builder()
        .object_store(bucket.clone(), "test")
        .wal_backend(Arc::new(log.clone()))
        .open()
        .await
        .unwrap()
}
