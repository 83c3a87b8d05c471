//! Listens to what a log commits: how many records and bytes at once, and of which sizes lately.
//!
//! Wraps a backend; the log works as without it. The sizes are what the raw device is given in its slices.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use wal::{
    Backend, Commit, EpochEnd, Error, Found, Log, LogState, Position, Replay, Replayed, Sink,
};

/// How many of the latest sizes are kept.
const SIZES_MAX: usize = 1_024;

/// What was committed so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commits(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    counts: Counts,
    sizes: VecDeque<usize>,
}

/// Totals over commits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) commits: u64,
    pub(crate) records: u64,
    /// Headers and padding included.
    pub(crate) bytes: u64,
}

impl Counts {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            commits: self.commits - before.commits,
            records: self.records - before.records,
            bytes: self.bytes - before.bytes,
        }
    }
}

impl Commits {
    pub(crate) fn note(&self, commit: &Commit) {
        let mut seen = self.0.lock();
        seen.counts.commits += 1;
        seen.counts.records += commit.records.len() as u64;
        seen.counts.bytes += commit.footprint as u64;
        if seen.sizes.len() == SIZES_MAX {
            seen.sizes.pop_front();
        }
        seen.sizes.push_back(commit.footprint);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// Forgets the sizes so far: the baseline is given those of the slice before it.
    pub(crate) fn forget_sizes(&self) {
        self.0.lock().sizes.clear();
    }

    /// The latest sizes in bytes, oldest first.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.0.lock().sizes.iter().copied().collect()
    }
}

/// A backend whose commits are noted.
#[derive(Debug)]
pub(crate) struct Noted {
    backend: Arc<dyn Backend>,
    commits: Commits,
}

impl Noted {
    pub(crate) fn new(backend: Arc<dyn Backend>, commits: Commits) -> Self {
        Self { backend, commits }
    }
}

#[async_trait]
impl Backend for Noted {
    fn url(&self) -> String {
        self.backend.url()
    }

    async fn identify(&self) -> Result<Found, Error> {
        self.backend.identify().await
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        Ok(Box::new(NotedReplay {
            replay: self.backend.open(state).await?,
            commits: self.commits.clone(),
        }))
    }
}

struct NotedReplay {
    replay: Box<dyn Replay>,
    commits: Commits,
}

#[async_trait]
impl Replay for NotedReplay {
    fn ends(&self) -> &[EpochEnd] {
        self.replay.ends()
    }

    fn start_position(&self) -> Position {
        self.replay.start_position()
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        self.replay.next().await
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.replay.rewind().await
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        let commits = self.commits;
        self.replay
            .start(Arc::new(NotedSink { sink, commits }))
            .await
    }
}

struct NotedSink {
    sink: Arc<dyn Sink>,
    commits: Commits,
}

impl Sink for NotedSink {
    fn durable(&self, commit: Commit) {
        self.commits.note(&commit);
        self.sink.durable(commit);
    }

    fn failed(&self, error: &Error) {
        self.sink.failed(error);
    }

    fn room(&self) {
        self.sink.room();
    }
}

#[cfg(test)]
mod tests {
    use wal::{Identity, LogEpoch, LogUuid, memory::MemoryLog};

    use super::*;

    struct Deaf;
    impl Sink for Deaf {
        fn durable(&self, _commit: Commit) {}
        fn failed(&self, error: &Error) {
            panic!("{error}");
        }
        fn room(&self) {}
    }

    #[tokio::test]
    async fn every_commit_is_noted() {
        let commits = Commits::default();
        let backend = Noted::new(Arc::new(MemoryLog::new()), commits.clone());
        let identity = Identity {
            cluster: 1,
            log: LogUuid::new(1),
            node: 1,
        };
        let state = LogState::new(identity, LogEpoch::new(1));
        let replay = backend.open(&state).await.unwrap();
        let log = replay.start(Arc::new(Deaf)).await.unwrap();
        for _ in 0..3 {
            log.append(&[b"123"]).unwrap();
        }
        log.close().await.unwrap();
        let counts = commits.counts();
        assert_eq!(counts.records, 3);
        assert_eq!(counts.commits as usize, commits.sizes().len());
        assert!(counts.bytes >= 9);
        assert_eq!(counts.since(counts).bytes, 0);
        commits.forget_sizes();
        assert_eq!(commits.sizes(), Vec::<usize>::new());
    }
}
