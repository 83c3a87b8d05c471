//! Seeded defects, each a way in which such systems have lost data: the checker must find every one.
//!
//! Each is a model that lies or a wrapper around a trait; production code has no branch for them.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use s3stream::wal::{
    Backend, Commit, EpochEnd, Error, Found, Log, LogState, Position, Replay, Replayed, Sink, Usage,
};

use crate::{BucketLie, Entropy, Lie};

/// A defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The disk acknowledges a write that only its cache holds.
    AcknowledgeBeforeDurable,
    /// The sync after a replay does nothing.
    SkipSyncAfterReplay,
    /// An upload is taken for stored and is not.
    SwallowUpload,
    /// The head of the metadata is overwritten whatever the condition says.
    SwapAlways,
    /// The log is trimmed when a record is durable, not when it is committed.
    TrimBeforeCommit,
    /// A replay leaves a record out.
    SkipRecordInReplay,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AcknowledgeBeforeDurable,
        Self::SkipSyncAfterReplay,
        Self::SwallowUpload,
        Self::SwapAlways,
        Self::TrimBeforeCommit,
        Self::SkipRecordInReplay,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeDurable => "acknowledge-before-durable",
            Self::SkipSyncAfterReplay => "skip-sync-after-replay",
            Self::SwallowUpload => "swallow-upload",
            Self::SwapAlways => "swap-always",
            Self::TrimBeforeCommit => "trim-before-commit",
            Self::SkipRecordInReplay => "skip-record-in-replay",
        }
    }

    /// What the disk lies about.
    pub fn disk(self) -> Option<Lie> {
        match self {
            Self::AcknowledgeBeforeDurable => Some(Lie::WriteBeforeDurable),
            Self::SkipSyncAfterReplay => Some(Lie::SyncNothing),
            _ => None,
        }
    }

    /// What the bucket lies about.
    pub fn bucket(self) -> Option<BucketLie> {
        match self {
            Self::SwallowUpload => Some(BucketLie::SwallowUpload),
            Self::SwapAlways => Some(BucketLie::SwapAlways),
            _ => None,
        }
    }

    /// The log with the defect.
    pub(crate) fn log(self, backend: Arc<dyn Backend>, entropy: Entropy) -> Arc<dyn Backend> {
        match self {
            Self::TrimBeforeCommit | Self::SkipRecordInReplay => Arc::new(Mutant {
                backend,
                mutation: self,
                entropy,
            }),
            _ => backend,
        }
    }
}

#[derive(Debug)]
struct Mutant {
    backend: Arc<dyn Backend>,
    mutation: Mutation,
    entropy: Entropy,
}

#[async_trait]
impl Backend for Mutant {
    fn url(&self) -> String {
        self.backend.url()
    }

    async fn identify(&self) -> Result<Found, Error> {
        self.backend.identify().await
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        Ok(Box::new(MutantReplay {
            replay: self.backend.open(state).await?,
            mutation: self.mutation,
            entropy: self.entropy.clone(),
        }))
    }
}

struct MutantReplay {
    replay: Box<dyn Replay>,
    mutation: Mutation,
    entropy: Entropy,
}

#[async_trait]
impl Replay for MutantReplay {
    fn ends(&self) -> &[EpochEnd] {
        self.replay.ends()
    }

    fn start_position(&self) -> Position {
        self.replay.start_position()
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        let mut piece = self.replay.next().await?;
        if self.mutation == Mutation::SkipRecordInReplay
            && let Some(records) = &mut piece
        {
            records.retain(|_| !self.entropy.chance(20));
        }
        Ok(piece)
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.replay.rewind().await
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        if self.mutation != Mutation::TrimBeforeCommit {
            return self.replay.start(sink).await;
        }
        let hasty = Arc::new(HastySink {
            sink,
            log: Mutex::new(None),
        });
        let log = self.replay.start(hasty.clone()).await?;
        *hasty.log.lock() = Some(Arc::clone(&log));
        Ok(Arc::new(HastyLog { log }))
    }
}

/// Trims what it hears of.
struct HastySink {
    sink: Arc<dyn Sink>,
    log: Mutex<Option<Arc<dyn Log>>>,
}

impl Sink for HastySink {
    fn durable(&self, commit: Commit) {
        let end = commit.range.end;
        self.sink.durable(commit);
        let log = self.log.lock().clone();
        if let Some(log) = log {
            log.trim(end);
        }
    }

    fn failed(&self, error: &Error) {
        // The log holds the sink: without this the two would keep each other.
        *self.log.lock() = None;
        self.sink.failed(error);
    }

    fn room(&self) {
        self.sink.room();
    }
}

#[derive(Debug)]
struct HastyLog {
    log: Arc<dyn Log>,
}

#[async_trait]
impl Log for HastyLog {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        self.log.append(parts)
    }

    fn trim(&self, to: Position) {
        self.log.trim(to);
    }

    fn usage(&self) -> Usage {
        self.log.usage()
    }

    fn max_record_len(&self) -> usize {
        self.log.max_record_len()
    }

    fn durable_end(&self) -> Position {
        self.log.durable_end()
    }

    async fn close(&self) -> Result<(), Error> {
        self.log.close().await
    }
}
