//! One node on a log and a bucket in memory, with a clock that stands still, that can crash or lose its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use s3stream::wal::{self, memory::MemoryLog};
use s3stream::{Engine, GroupId, Stream};
use segment_adapter::{KafkaLog, LogConfig, LogError, WallClock};

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

type Bucket = ThrottledStore<InMemory>;

pub(crate) struct World {
    log: MemoryLog,
    bucket: Arc<Bucket>,
    engine: Engine,
    group: GroupId,
    pub(crate) clock: Arc<Clock>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let bucket = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        let (log, bucket) = (MemoryLog::new(), Arc::new(bucket));
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

    /// Another process takes the log and the bucket over, with or without what was not acknowledged; gives the engine that
    /// does not know it yet.
    pub(crate) async fn take_over(&mut self) -> Engine {
        let next = start(&self.log, &self.bucket).await;
        std::mem::replace(&mut self.engine, next)
    }

    /// The log, opened again in the same process: edits of the old one may be in flight, then opening asks for patience.
    pub(crate) async fn open_again(&self, config: LogConfig) -> KafkaLog {
        loop {
            let streams = self.streams_again().await;
            match KafkaLog::open(streams, config.clone(), self.clock.clone()).await {
                Ok(log) => return log,
                Err(LogError::Storage(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Every read of the bucket takes this long from now on.
    pub(crate) fn slow_reads(&self, wait: Duration) {
        self.bucket
            .config_mut(|config| config.wait_get_per_call = wait);
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

async fn start(log: &MemoryLog, bucket: &Arc<Bucket>) -> Engine {
    Engine::builder()
        .object_store(bucket.clone(), "test")
        .wal_backend(Arc::new(log.clone()))
        .open()
        .await
        .unwrap()
}

/// Runs a case of a model to its end.
pub(crate) fn block_on<T>(case: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(case)
}
