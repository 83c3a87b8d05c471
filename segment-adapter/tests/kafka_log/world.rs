//! One node on a log and a bucket in memory, with a clock that stands still, that can crash or lose its log; and the same
//! on a bucket that fails, of the simulator.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use s3stream::wal::{self, memory::MemoryLog};
use s3stream::{Engine, ErrorKind, GroupId, Requests, Stream};
use segment_adapter::{KafkaLog, LogConfig, LogError, WallClock};
use sim::{Entropy, Faults, SimBucket, SimClock, Trace};

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

type Calm = ThrottledStore<InMemory>;

/// What a storm may ask for again; each pause is at least a second, and the longest outage is four minutes.
const TRIES_MAX: u32 = 1000;

pub(crate) struct World {
    log: MemoryLog,
    bucket: Arc<dyn ObjectStore>,
    /// The same, where it can be made slow.
    calm: Option<Arc<Calm>>,
    storm: Option<Storm>,
    engine: Engine,
    group: GroupId,
    pub(crate) clock: Arc<Clock>,
}

/// Requests to the bucket fail, are answered though they failed, arrive late, or not for minutes.
#[derive(Clone)]
struct Storm {
    bucket: SimBucket,
    faults: Faults,
}

impl World {
    pub(crate) async fn new() -> Self {
        let bucket = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        let bucket = Arc::new(bucket);
        Self::on(bucket.clone(), Some(bucket), None).await
    }

    /// On a bucket that fails as the seed says; in a runtime whose time is paused.
    pub(crate) async fn in_a_storm(seed: u64) -> Self {
        let entropy = Entropy::new(seed);
        let (faults, clock) = (Faults::drawn(entropy.fork("faults")), SimClock::default());
        clock.begin();
        let bucket = SimBucket::new(
            entropy.fork("bucket"),
            faults.clone(),
            clock,
            Trace::default(),
            None,
        );
        let storm = Storm {
            bucket: bucket.clone(),
            faults,
        };
        Self::on(Arc::new(bucket), None, Some(storm)).await
    }

    async fn on(
        bucket: Arc<dyn ObjectStore>,
        calm: Option<Arc<Calm>>,
        storm: Option<Storm>,
    ) -> Self {
        let log = MemoryLog::new();
        let again = Again(storm.is_some());
        let engine = again.until_done(async || start(&log, &bucket).await).await;
        let create = async || engine.create_group(KafkaLog::STREAMS, Vec::new()).await;
        let (group, _) = again.until_done(create).await;
        let clock = Arc::new(Clock::default());
        clock.set(1_000_000);
        Self {
            log,
            bucket,
            calm,
            storm,
            engine,
            group,
            clock,
        }
    }

    /// How calls that may fail here are made.
    pub(crate) fn again(&self) -> Again {
        Again(self.storm.is_some())
    }

    /// Nothing fails from now on.
    pub(crate) fn calm_down(&self) {
        if let Some(storm) = &self.storm {
            storm.faults.heal();
        }
    }

    pub(crate) async fn streams(&self) -> Vec<Stream> {
        let open = async || self.engine.open_group(self.group).await;
        self.again().until_done(open).await
    }

    /// The streams once the engine has its log again.
    pub(crate) async fn streams_again(&self) -> Vec<Stream> {
        let open = async || self.engine.open_group(self.group).await;
        Again(true).until_done(open).await
    }

    /// Ends the process without a word and starts it again. What was not acknowledged is gone.
    pub(crate) async fn crash(&mut self) {
        self.log.forget_unacknowledged(true);
        if let Some(storm) = &self.storm {
            // What was under way arrives or is lost.
            storm.bucket.crash();
        }
        self.engine = self.start().await;
    }

    /// Another process takes the log and the bucket over, with or without what was not acknowledged; gives the engine that
    /// does not know it yet.
    pub(crate) async fn take_over(&mut self) -> Engine {
        let next = self.start().await;
        std::mem::replace(&mut self.engine, next)
    }

    /// The log, opened again in the same process: edits of the old one may be in flight, then opening asks for patience.
    pub(crate) async fn open_again(&self, config: LogConfig) -> KafkaLog {
        let open = async || {
            let streams = self.streams_again().await;
            KafkaLog::open(streams, config.clone(), self.clock.clone()).await
        };
        Again(true).until_done(open).await
    }

    async fn start(&self) -> Engine {
        let start = async || start(&self.log, &self.bucket).await;
        self.again().until_done(start).await
    }

    /// What the engine has asked of the bucket.
    pub(crate) fn requests(&self) -> Requests {
        self.engine.requests()
    }

    /// Every read of the bucket takes this long from now on.
    pub(crate) fn slow_reads(&self, wait: Duration) {
        let calm = self.calm.as_ref().unwrap();
        calm.config_mut(|config| config.wait_get_per_call = wait);
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
        let again = self.again();
        let close = async || {
            let closed = self.engine.close(Duration::from_secs(10)).await;
            if closed.is_err() && self.storm.is_some() {
                // It is over all the same; the next one goes on.
                self.engine = self.start().await;
            }
            closed
        };
        again.until_done(close).await;
        self.log = MemoryLog::new();
        self.engine = self.start().await;
    }
}

async fn start(log: &MemoryLog, bucket: &Arc<dyn ObjectStore>) -> s3stream::Result<Engine> {
    Engine::builder()
        .object_store(bucket.clone(), "test")
        .wal_backend(Arc::new(log.clone()))
        .open()
        .await
}

/// Whether a call that says that it is worth another try gets one.
#[derive(Clone, Copy)]
pub(crate) struct Again(bool);

impl Again {
    pub(crate) async fn until_done<T, E: WorthAnotherTry>(
        self,
        mut call: impl AsyncFnMut() -> Result<T, E>,
    ) -> T {
        for _ in 0..TRIES_MAX {
            match call().await {
                Ok(done) => return done,
                Err(error) if self.0 && error.is_worth_another_try() => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("{TRIES_MAX} tries");
    }
}

pub(crate) trait WorthAnotherTry: std::fmt::Debug {
    fn is_worth_another_try(&self) -> bool;
}

impl WorthAnotherTry for s3stream::Error {
    fn is_worth_another_try(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }
}

impl WorthAnotherTry for LogError {
    fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Storage(_))
    }
}

/// Runs a case of a model to its end.
pub(crate) fn block_on<T>(case: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(case)
}

/// The same where time passes when nothing else does.
pub(crate) fn block_on_paused<T>(case: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(case)
}
