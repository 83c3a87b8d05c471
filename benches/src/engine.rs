//! The engine under load: opened on the log and bucket of the run, with its commits and requests in view.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use s3stream::{Append, Config, Engine, ErrorKind, GroupId, Stream, store::Bucket};
use tokio::runtime::Runtime;

use crate::{
    Result,
    commits::{Commits, Noted},
    load::{Submitted, Target},
    measure::Surroundings,
    place::{self, Places},
    price,
};

/// How long a clean close may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(600);
/// No request for this long means that the uploads are done.
const QUIET: Duration = Duration::from_millis(60);
/// The longest that is waited for it.
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// An engine in a runtime of its own.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) commits: Commits,
    pub(crate) runtime: Arc<Runtime>,
    /// What an object log asks is not the engine's: it is given as a backend.
    log_bucket: Option<Bucket>,
}

impl Running {
    /// Opens it on the places of the run.
    pub(crate) fn open(places: &Places, config: Config, runtime: Arc<Runtime>) -> Result<Self> {
        let log = places.log()?;
        let mut running = Self::open_on(log.backend, places, config, runtime)?;
        running.log_bucket = log.bucket;
        Ok(running)
    }

    /// Opens it on a log of the caller's and the bucket of the run.
    pub(crate) fn open_on(
        log: Arc<dyn wal::Backend>,
        places: &Places,
        config: Config,
        runtime: Arc<Runtime>,
    ) -> Result<Self> {
        let commits = Commits::default();
        let backend = Arc::new(Noted::new(log, commits.clone()));
        let opening = Engine::builder()
            .config(config)
            .bucket(places.bucket.as_str())
            .credentials(place::credentials())
            .wal_backend(backend)
            .open();
        let engine = runtime.block_on(opening)?;
        Ok(Self {
            engine,
            commits,
            runtime,
            log_bucket: None,
        })
    }

    /// New streams, in one group.
    pub(crate) fn create(&self, streams: usize) -> Result<(GroupId, Vec<Stream>)> {
        let streams = u32::try_from(streams)?;
        Ok(self
            .runtime
            .block_on(self.engine.create_group(streams, Vec::new()))?)
    }

    /// Closes: the bucket has everything, the log owes nothing.
    pub(crate) fn close(self) -> Result<()> {
        Ok(self.runtime.block_on(self.engine.close(CLOSE_WITHIN))?)
    }

    /// Destroys what was made and closes.
    pub(crate) fn finish(self, group: GroupId) -> Result<()> {
        self.runtime.block_on(self.engine.destroy_group(group))?;
        self.close()
    }

    /// Drops everything where it stands; the log is free again when this returns.
    pub(crate) fn crash(self) {
        let Self {
            engine, runtime, ..
        } = self;
        drop(engine);
        drop(runtime);
    }
}

impl Surroundings for Running {
    fn requests(&self) -> price::Requests {
        let asked = self.log_bucket.as_ref().map(Bucket::requests);
        let of_log = asked.map_or_else(price::Requests::default, price::Requests::from);
        of_log.plus(self.engine.requests().into())
    }

    fn settle(&self) {
        let give_up = Instant::now() + QUIET_WITHIN;
        let mut before = self.requests();
        while Instant::now() < give_up {
            thread::sleep(QUIET);
            let now = self.requests();
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn flush(&self) -> Result<()> {
        Ok(self.runtime.block_on(self.engine.flush())?)
    }
}

/// Appends to streams in turn; an append is acknowledged when its future is seen to be ready.
pub(crate) struct EngineTarget {
    streams: Vec<Stream>,
    outstanding: VecDeque<Append>,
    parker: Arc<Parker>,
}

impl EngineTarget {
    /// Must be made on the thread that generates the load.
    pub(crate) fn new(streams: Vec<Stream>) -> Self {
        Self {
            streams,
            outstanding: VecDeque::new(),
            parker: Parker::here(),
        }
    }
}

impl Target for EngineTarget {
    fn submit(&mut self, stream: usize, payload: &Bytes) -> Result<Submitted> {
        let stream = self
            .streams
            .get(stream)
            .ok_or("more streams than were made")?;
        match stream.append(1, &[payload]) {
            Ok(append) => {
                self.outstanding.push_back(append);
                Ok(Submitted::Accepted)
            }
            Err(error) if error.kind() == ErrorKind::Full => Ok(Submitted::Full),
            Err(error) => Err(error.into()),
        }
    }

    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
        let Some(append) = self.outstanding.front_mut() else {
            // Nothing tells of room but an acknowledgement or an upload: look again soon.
            thread::sleep(Duration::from_micros(200));
            return Ok(None);
        };
        match wait(Pin::new(append), &self.parker, deadline) {
            None => Ok(None),
            Some(outcome) => {
                outcome?;
                let now = Instant::now();
                self.outstanding.pop_front();
                Ok(Some(now))
            }
        }
    }
}

/// Wakes the generator's thread.
pub(crate) struct Parker(Thread);

impl Parker {
    /// Of the calling thread.
    pub(crate) fn here() -> Arc<Self> {
        Arc::new(Self(thread::current()))
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future on this thread until `deadline`.
pub(crate) fn wait<F: Future + ?Sized>(
    mut future: Pin<&mut F>,
    parker: &Arc<Parker>,
    deadline: Instant,
) -> Option<F::Output> {
    let waker = Waker::from(Arc::clone(parker));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
