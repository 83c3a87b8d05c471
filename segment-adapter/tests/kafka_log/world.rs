//! One node on a log and a bucket in memory, with a clock that stands still, that can crash or lose its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use s3stream::wal::{self, memory::MemoryLog};
use s3stream::{Engine, GroupId, Stream};
use segment_adapter::{KafkaLog, WallClock};

/// Milliseconds, moved by hand.
#[derive(Default)]
pub(crate) struct Clock(AtomicI64);

impl Clock {
    pub(crate) fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct World {
    log: MemoryLog,
    bucket: Arc<InMemory>,
    engine: Engine,
    group: GroupId,
    pub(crate) clock: Arc<Clock>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (log, bucket) = (MemoryLog::new(), Arc::new(InMemory::new()));
        let engine = start(&log, &bucket).await;
        let group = engine.create_group(KafkaLog::STREAMS, Vec::new()).await;
        let (group, _) = group.unwrap();
        let clock = Arc::new(Clock::default());
        clock.set(1_000_000);
        Self {
            log,
            bucket,
            engine,
            group,
            clock,
        }
    }

    pub(crate) async fn streams(&self) -> Vec<Stream> {
        self.engine.open_group(self.group).await.unwrap()
    }

    /// The streams once the engine has its log again.
    pub(crate) async fn streams_again(&self) -> Vec<Stream> {
        loop {
            match self.engine.open_group(self.group).await {
                Ok(streams) => return streams,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Ends the process without a word and starts it again. What was not acknowledged is gone.
    pub(crate) async fn crash(&mut self) {
        self.log.forget_unacknowledged(true);
        self.engine = start(&self.log, &self.bucket).await;
    }

    /// Nothing becomes durable from now on.
    pub(crate) fn hold(&self) {
        self.log.hold();
    }

    pub(crate) fn release(&self) {
        self.log.release();
    }

    /// The log fails; the engine opens it again by itself.
    pub(crate) fn fail(&self) {
        self.log
            .fail(wal::Error::Invalid("failed by the test".into()));
    }

    /// Closes the node and starts it with a blank log: the bucket alone has everything.
    pub(crate) async fn leave_only_the_bucket(&mut self) {
        self.engine.close(Duration::from_secs(10)).await.unwrap();
        self.log = MemoryLog::new();
        self.engine = start(&self.log, &self.bucket).await;
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
