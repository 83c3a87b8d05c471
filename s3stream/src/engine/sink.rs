//! What happens when a commit of the log is durable: into the log cache, then `confirm` moves, then waiters wake.
//!
//! In this order, so that what is confirmed is readable and what is readable is durable (S3). It runs on the log's
//! completion context and waits for nothing but short locks. A panic in it ends the engine: nobody waits for what it
//! would have told (lesson 13).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use wal::{Commit, Sink};

use super::core::{Core, wake_each};
use crate::{Error, NodeEpoch, RecordBatch, Result};

/// The receiving end of one life of the log.
pub(crate) struct DurableSink {
    core: Weak<Core>,
    epoch: NodeEpoch,
}

impl DurableSink {
    pub(crate) fn new(core: &Arc<Core>, epoch: NodeEpoch) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::downgrade(core),
            epoch,
        })
    }
}

impl Sink for DurableSink {
    fn durable(&self, commit: Commit) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if core.is_over(self.epoch) {
            return;
        }
        // What is half done stays so: the engine ends, and the log has the records.
        let accepted = catch_unwind(AssertUnwindSafe(|| core.accept(commit)));
        let panicked = |_| {
            Err(Error::internal(
                "a record that is durable could not be told",
            ))
        };
        if let Err(error) = accepted.unwrap_or_else(panicked) {
            core.end(error);
        }
    }

    fn failed(&self, error: &wal::Error) {
        if let Some(core) = self.core.upgrade()
            && !core.is_over(self.epoch)
        {
            core.fail(Error::from(error.clone()));
        }
    }

    fn room(&self) {
        if let Some(core) = self.core.upgrade() {
            core.admission.recheck();
        }
    }
}

impl Core {
    fn accept(&self, commit: Commit) -> Result<()> {
        let records = commit
            .records
            .into_iter()
            .map(|record| RecordBatch::decode(record.payload))
            .collect::<Result<Vec<_>>>()
            .map_err(|error| {
                Error::internal("a record came back from the log changed").caused_by(error)
            })?;
        let position = commit.range.end.get();
        let payload: usize = records.iter().map(RecordBatch::encoded_len).sum();
        let padding = commit.footprint.saturating_sub(payload);
        let active = self
            .with_cache(payload as u64, |cache| {
                for record in &records {
                    cache.insert(record.clone(), position)?;
                }
                cache.charge(padding);
                Ok(cache.active_bytes() as u64)
            })
            .map_err(|error: cache::InsertError| {
                Error::internal("the log cache refused a record").caused_by(error)
            })?;
        self.note_durable(position);
        {
            let streams = self.streams.read();
            let mut wakers = Vec::new();
            for record in &records {
                if let Some(progress) = streams.get(&record.stream) {
                    wakers.extend(progress.confirm(record.epoch, record.offsets.end));
                }
            }
            drop(streams);
            wake_each(wakers);
        }
        if active >= self.config.upload_bytes || self.admission.is_short() {
            self.wake.notify_one();
        }
        Ok(())
    }
}
