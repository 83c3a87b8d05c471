//! From a log's place to the log that lives there.

use std::sync::Arc;

use wal::{Backend, block::BlockLog, memory::MemoryLog};

use super::LogPlace;

/// The size of a log file that is made without a stated capacity: 256 MiB.
const LOG_BYTES: u64 = 256 << 20;

impl LogPlace {
    /// The backend for this place; nothing is opened or made yet. Of `memory:` each call gives a log of its own.
    pub fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Memory => Arc::new(MemoryLog::new()),
            Self::Block { path, capacity } => {
                Arc::new(BlockLog::file(path, capacity.unwrap_or(LOG_BYTES)))
            }
        }
    }
}
