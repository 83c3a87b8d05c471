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
use s3stream::{Engine, GroupId, Stream};
use segment_adapter::{KafkaLog, LogConfig, LogError};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::SystemClock;

/// The least time between two attempts to open a log.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// One partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) group: GroupId,
    topic_id: Uuid,
    config: Mutex<LogConfig>,
    slot: Mutex<Slot>,
    /// Held by whoever opens the log.
    opening: tokio::sync::Mutex<()>,
    openings: AtomicU64,
    /// The highest that is known, -1 for none.
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
    pub(crate) fn new(index: i32, group: GroupId, topic_id: Uuid, config: LogConfig) -> Arc<Self> {
        Arc::new(Self {
            index,
            group,
            topic_id,
            config: Mutex::new(config),
            slot: Mutex::new(Slot::Closed),
            opening: tokio::sync::Mutex::new(()),
            openings: AtomicU64::new(0),
            epoch: AtomicI32::new(-1),
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
                // They may have changed while it was opened.
                self.apply_config(&leading);
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

    /// Takes other settings, at once if the log is open. They were checked.
    pub(crate) fn configure(&self, config: LogConfig) {
        *self.config.lock() = config;
        if let Slot::Open(leading) = &*self.slot.lock() {
            self.apply_config(leading);
        }
    }

    /// Under the lock of the slot, so that the last one to change the settings or to open the log sees both.
    fn apply_config(&self, leading: &Leading) {
        let config = self.config.lock().clone();
        if let Err(error) = leading.log.update_config(config) {
            tracing::error!(group = %self.group, partition = self.index, %error, "settings not taken");
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

    /// The leader epoch, that of the newest ownership, which never goes back; `None` as long as nobody has found it out,
    /// after a start for one.
    pub(crate) fn epoch(&self) -> Option<i32> {
        Some(self.epoch.load(Ordering::Relaxed)).filter(|epoch| *epoch >= 0)
    }

    /// Opens the log in the background, unless that is under way or has just failed: who hears of no leader sends nothing
    /// that would open it.
    pub(crate) fn open_soon(self: &Arc<Self>, engine: &Engine) {
        if self.answer().is_some() || self.opening.try_lock().is_err() {
            return;
        }
        let (partition, engine) = (self.clone(), engine.clone());
        tokio::spawn(async move {
            // The partition keeps and has logged what is wrong.
            let _ = partition.log(&engine).await;
        });
    }

    async fn open(&self, engine: &Engine) -> Result<Leading, LogError> {
        let streams = engine.open_group(self.group).await?;
        // A partition would have to be taken over two thousand million times.
        let of = |stream: &Stream| i32::try_from(stream.epoch().get()).unwrap_or(i32::MAX);
        let epoch = streams.first().map_or(-1, of);
        // This node owns it, whether or not the log can be read now.
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
        let config = self.config.lock().clone();
        let log = KafkaLog::open(streams, config, SystemClock::shared()).await?;
        log.assign_topic_id(self.topic_id.as_u128())?;
        log.assign_epoch_start(epoch)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::engine;

    #[tokio::test]
    async fn the_epoch_of_a_partition_is_known_also_if_its_log_cannot_be_read() {
        let engine = engine().await;
        let (group, _) = engine
            .create_group(KafkaLog::STREAMS, Vec::new())
            .await
            .unwrap();
        let refused = LogConfig {
            segment_bytes: 0,
            ..LogConfig::default()
        };
        let partition = Partition::new(0, group, Uuid::nil(), refused);
        assert_eq!(partition.epoch(), None);
        partition.log(&engine).await.unwrap_err();
        let epoch = partition.epoch().expect("the group was opened");
        let partition = Partition::new(0, group, Uuid::nil(), LogConfig::default());
        let leading = partition.log(&engine).await.unwrap();
        assert!(leading.epoch >= epoch);
        assert_eq!(partition.epoch(), Some(leading.epoch));
    }
}
