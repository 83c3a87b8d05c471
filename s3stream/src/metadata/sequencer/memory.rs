//! A log in memory, shared by its clones: the reference, and what tests of the state machine's users need.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Loaded, News, Sequencer};
use crate::{
    Error, Result,
    metadata::entry::{EncodedEntry, Tip},
};

/// A log in memory. Clones share it, so several nodes can.
#[derive(Clone, Debug, Default)]
pub struct MemorySequencer {
    entries: Arc<Mutex<Vec<EncodedEntry>>>,
}

impl MemorySequencer {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    fn after(&self, index: u64) -> Result<Vec<EncodedEntry>> {
        let entries = self.entries.lock();
        let after = usize::try_from(index)
            .ok()
            .and_then(|from| entries.get(from..));
        after.map(<[_]>::to_vec).ok_or_else(|| {
            Error::corrupt("the metadata was rolled back")
                .with("seen", index)
                .with("newest", entries.len())
        })
    }
}

#[async_trait]
impl Sequencer for MemorySequencer {
    async fn load(&mut self) -> Result<Loaded> {
        Ok(Loaded {
            snapshot: None,
            entries: self.after(0)?,
        })
    }

    async fn append(&mut self, entry: &EncodedEntry) -> Result<News> {
        {
            let mut entries = self.entries.lock();
            let tip = entries.last().map(EncodedEntry::tip).unwrap_or_default();
            if entry.follows(tip) {
                entries.push(entry.clone());
            }
        }
        Ok(News::Entries(self.after(entry.index() - 1)?))
    }

    async fn look(&mut self, tip: Tip) -> Result<News> {
        Ok(News::Entries(self.after(tip.index)?))
    }

    fn wants_snapshot(&self) -> bool {
        false
    }

    async fn snapshot(&mut self, _tip: Tip, _state: Bytes) -> Result<()> {
        Ok(())
    }
}
