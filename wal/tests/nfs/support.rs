//! What the tests of the NFS log share: hosts of a model directory, records that say their number, and lives of a log.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use wal::{
    Backend, Error, Identity, Log, LogEpoch, LogState, LogUuid, Position, Replay, block,
    nfs::{Config, NfsLog},
    testing::{DirectoryFault, Hear, ModelHost, RuntimeClock},
};

pub(crate) use crate::records::{name_of, payload};

pub(crate) const CAPACITY: u64 = 16 * 4096;
/// Of every log here that says nothing else.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// More than all that a host does at once takes.
pub(crate) const SETTLED: Duration = Duration::from_millis(200);
/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const EIO: i32 = 5;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ESTALE: i32 = 116;
pub(crate) const EDQUOT: i32 = 122;

pub(crate) fn config() -> Config {
    Config {
        commits: block::Config {
            commit_bytes_max: 8192,
            in_flight_max: 3,
            overlap_bytes: 0,
            slab_bytes: 16_384,
            ..block::Config::default()
        },
        ..Config::default()
    }
}

/// Runs a case on a paused runtime of its own: what it leaves behind ends with it.
pub(crate) fn run<T>(case: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(case)
}

pub(crate) fn fresh() -> LogState {
    let identity = Identity {
        cluster: 1,
        log: LogUuid::new(0xabc << 64 | 5),
        node: 3,
    };
    LogState::new(identity, LogEpoch::new(1))
}

/// The log as one host sees it.
pub(crate) fn log_on<M: Clone + Send + std::fmt::Debug + 'static>(host: &ModelHost<M>) -> NfsLog {
    log_of(host, CAPACITY)
}

pub(crate) fn log_of<M: Clone + Send + std::fmt::Debug + 'static>(
    host: &ModelHost<M>,
    capacity: u64,
) -> NfsLog {
    let clock = RuntimeClock::default();
    NfsLog::on(Arc::new(host.clone()), capacity)
        .with_config(config())
        .with_clock(Arc::new(clock))
}

pub(crate) async fn replayed(replay: &mut dyn Replay) -> Result<Vec<u32>, Error> {
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await? {
        back.extend(piece.iter().map(|r| name_of(&r.payload)));
    }
    Ok(back)
}

pub(crate) fn append(log: &dyn Log, record: u32, len: usize) -> Result<Range<Position>, Error> {
    Hear::append(log, &[&payload(record, len)])
}

pub(crate) fn heard(hear: &Hear) -> Vec<u32> {
    hear.heard()
        .records
        .iter()
        .map(|r| name_of(&r.payload))
        .collect()
}

/// An opening, with what it replayed.
pub(crate) struct Opened {
    pub(crate) back: Vec<u32>,
    pub(crate) replay: Box<dyn Replay>,
}

pub(crate) async fn open(log: &NfsLog, state: &LogState) -> Result<Opened, Error> {
    let mut replay = log.open(state).await?;
    let back = replayed(&mut *replay).await?;
    Ok(Opened { back, replay })
}

/// A life that takes appends.
pub(crate) struct Life {
    pub(crate) back: Vec<u32>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) hear: Arc<Hear>,
}

impl Opened {
    pub(crate) async fn start(self, state: &mut LogState) -> Result<Life, Error> {
        state.begin(self.replay.ends(), self.replay.start_position());
        let hear = Hear::new();
        let log = self.replay.start(Arc::clone(&hear) as _).await?;
        Ok(Life {
            back: self.back,
            log,
            hear,
        })
    }
}

/// The first life of a log on `host`, and its state.
pub(crate) async fn first_life<M>(host: &ModelHost<M>) -> (LogState, Life)
where
    M: Clone + Send + std::fmt::Debug + 'static,
{
    let mut state = fresh();
    let opened = open(&log_on(host), &state).await.unwrap();
    let life = opened.start(&mut state).await.unwrap();
    (state, life)
}

/// The next `operation`s of a host but `after` fail, and nothing of them is done.
pub(crate) fn refuse(operation: &'static str, after: u32, errno: i32) -> DirectoryFault {
    DirectoryFault {
        operation,
        after,
        errno,
        parts: 0,
    }
}

pub(crate) fn grant_next(state: &mut LogState) {
    state.grant(LogEpoch::new(state.epoch.get() + 1));
}
