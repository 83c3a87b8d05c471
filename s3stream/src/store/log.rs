//! From a log's place to the log that lives there.

use std::sync::Arc;

use wal::{Backend, block::BlockLog, memory::MemoryLog};

use super::{LogPlace, local};
use crate::Result;

/// The size of a log file that is made without a stated capacity: 256 MiB.
const LOG_BYTES: u64 = 256 << 20;

impl LogPlace {
    /// Makes the directory of a log in a file, durably, if it is missing.
    pub(crate) fn make_dir(&self) -> Result<()> {
        let Self::Block { path, .. } = self else {
            return Ok(());
        };
        match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => {
                local::create_dir("directory of the log", dir)
            }
            _ => Ok(()),
        }
    }

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
