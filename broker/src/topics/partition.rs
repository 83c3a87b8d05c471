//! A partition: a group of the engine, and the log on it while it is open.
//!
//! A log that stopped after a failure is dropped and opened again by the next request, at most once in
//! [`REOPEN_PAUSE`]; requests in between get the last error. No task watches it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::Duration,
};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use s3stream::{Engine, GroupId};
use segment_adapter::{KafkaLog, LogConfig, LogError};
use tokio::time::Instant;

use crate::clock::SystemClock;

/// The least time between two attempts to open a log.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// One partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) group: GroupId,
    config: LogConfig,
    slot: Mutex<Slot>,
    /// Held by whoever opens the log.
    opening: tokio::sync::Mutex<()>,
    openings: AtomicU64,
    /// Of the newest opening.
    epoch: AtomicI32,
}

#[derive(Debug)]
enum Slot {
    Open(Leading),
    /// Not opened yet, or stopped.
    Closed,
    Failed {
        code: i16,
        at: Instant,
    },
    Deleted,
}

/// An open log and the epoch of this ownership, which only grows for a partition.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    pub(crate) log: KafkaLog,
    pub(crate) epoch: i32,
    /// Tells this opening from later ones.
    opening: u64,
}

impl Partition {
    pub(crate) fn new(index: i32, group: GroupId, config: LogConfig) -> Arc<Self> {
        Arc::new(Self {
            index,
            group,
            config,
            slot: Mutex::new(Slot::Closed),
            opening: tokio::sync::Mutex::new(()),
            openings: AtomicU64::new(0),
            epoch: AtomicI32::new(0),
        })
    }

    /// The open log, without waiting.
    pub(crate) fn current(&self) -> Option<Leading> {
        match &*self.slot.lock() {
            Slot::Open(leading) => Some(leading.clone()),
            _ => None,
        }
    }

    /// The open log, opened now if need be. The error is the code for the client.
    pub(crate) async fn log(&self, engine: &Engine) -> Result<Leading, i16> {
        if let Some(answer) = self.answer() {
            return answer;
        }
        let _opening = self.opening.lock().await;
        if let Some(answer) = self.answer() {
            return answer;
        }
        let opened = self.open(engine).await;
        let mut slot = self.slot.lock();
        if matches!(*slot, Slot::Deleted) {
            return Err(ResponseError::UnknownTopicOrPartition.code());
        }
        match opened {
            Ok(leading) => {
                *slot = Slot::Open(leading.clone());
                Ok(leading)
            }
            Err(error) => {
                tracing::error!(group = %self.group, partition = self.index, %error, "partition is unavailable");
                let code = error.code();
                *slot = Slot::Failed {
                    code,
                    at: Instant::now(),
                };
                Err(code)
            }
        }
    }

    /// What the slot says without opening.
    fn answer(&self) -> Option<Result<Leading, i16>> {
        match &*self.slot.lock() {
            Slot::Open(leading) => Some(Ok(leading.clone())),
            Slot::Deleted => Some(Err(ResponseError::UnknownTopicOrPartition.code())),
            Slot::Failed { code, at } if at.elapsed() < REOPEN_PAUSE => Some(Err(*code)),
            Slot::Failed { .. } | Slot::Closed => None,
        }
    }

    /// The leader epoch, that of the newest opening; 0 before the first.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn open(&self, engine: &Engine) -> Result<Leading, LogError> {
        let streams = engine.open_group(self.group).await?;
        let epoch = streams.first().map_or(0, |stream| stream.epoch().get());
        // A partition would have to be taken over two thousand million times.
        let epoch = i32::try_from(epoch).unwrap_or(i32::MAX);
        let log = KafkaLog::open(streams, self.config.clone(), SystemClock::shared()).await?;
        log.assign_epoch_start(epoch)?;
        self.epoch.store(epoch, Ordering::Relaxed);
        Ok(Leading {
            log,
            epoch,
            opening: self.openings.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Takes note of an error of `leading`: a log that has stopped is opened anew by the next request. Other errors, as of a
    /// bucket that does not answer, leave it open.
    pub(crate) fn note(&self, leading: &Leading, error: &LogError) {
        let ended = matches!(error, LogError::NotLeader(_) | LogError::Closed);
        if !ended && leading.log.stopped().is_none() {
            if matches!(error, LogError::Storage(_) | LogError::StoredState(_)) {
                tracing::warn!(group = %self.group, partition = self.index, %error, "a request failed");
            }
            return;
        }
        let mut slot = self.slot.lock();
        if matches!(&*slot, Slot::Open(current) if current.opening == leading.opening) {
            tracing::warn!(group = %self.group, partition = self.index, %error, "log stopped");
            *slot = Slot::Closed;
        }
    }

    /// Ends the partition: whoever waits on its log hears of it.
    pub(crate) fn delete(&self) {
        let ended = std::mem::replace(&mut *self.slot.lock(), Slot::Deleted);
        if let Slot::Open(leading) = ended {
            leading.log.mark_deleted();
        }
    }

    /// Closes the log; appends in flight are awaited.
    pub(crate) async fn close(&self) {
        let leading = self.current();
        if let Some(leading) = leading
            && let Err(error) = leading.log.close().await
        {
            tracing::warn!(group = %self.group, partition = self.index, %error, "log not closed cleanly");
        }
    }
}
