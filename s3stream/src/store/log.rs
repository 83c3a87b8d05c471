//! From a log's place to the log that lives there.

use std::sync::Arc;

use wal::{Backend, block::BlockLog, memory::MemoryLog, nfs::NfsLog, object::ObjectLog};

use super::{Bucket, Credentials, LogPlace, local};
use crate::{NodeId, Result, entropy::Entropy};

/// The size of a log that is made without a stated capacity: 256 MiB.
const LOG_BYTES: u64 = 256 << 20;

impl LogPlace {
    /// Makes the directory of a log in a file, durably, if it is missing. That of an NFS log is never made: a mount point without its mount must not
    /// look like a new log.
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

    /// The backend for this place; nothing of the log is opened or made yet. Of `memory:` each call gives a log of its own.
    ///
    /// In a bucket it lies under `wal/NODE`, and asks the store as the ledger sees it, without the retries that are above: the log has its own.
    /// Of another bucket than the engine's the ledger is another, too.
    pub(crate) async fn backend(
        &self,
        node: NodeId,
        bucket: &Bucket,
        credentials: &Credentials,
        entropy: &Entropy,
    ) -> Result<Arc<dyn Backend>> {
        let other = match self {
            Self::Memory => return Ok(Arc::new(MemoryLog::new())),
            Self::Block { path, capacity } => {
                let log = BlockLog::file(path, capacity.unwrap_or(LOG_BYTES));
                return Ok(Arc::new(log));
            }
            Self::Nfs { path, capacity } => {
                let log = NfsLog::at(path, capacity.unwrap_or(LOG_BYTES));
                return Ok(Arc::new(log));
            }
            Self::Object(place) => place.as_ref(),
        };
        let other = match other {
            Some(place) => Some(place.open_fitting(credentials, entropy).await?),
            None => None,
        };
        let bucket = other.as_ref().unwrap_or(bucket);
        let prefix = bucket.path(&format!("wal/{node}"));
        let log = ObjectLog::new(bucket.counted(), prefix.as_ref(), entropy.next_u128())?;
        Ok(Arc::new(log.with_url(&self.to_string())))
    }
}
