//! What compaction of topics may take of a broker: memory, bandwidth and attention.

use segment_adapter::CompactorConfig;
use serde::{Deserialize, Serialize};

/// The one cleaner of a broker. Bytes and milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cleaner {
    /// Memory for the newest offsets of keys, 24 bytes for a key; taken while there is something to compact.
    pub dedupe_buffer_bytes: usize,
    /// How much is read and written in a second, in bytes together; 0 for no limit.
    pub io_bytes_per_second: u64,
    /// How long it rests when there is nothing to compact, and at first leaves alone a partition whose compaction failed.
    pub backoff_ms: u64,
}

impl Default for Cleaner {
    fn default() -> Self {
        Self {
            dedupe_buffer_bytes: 128 << 20,
            io_bytes_per_second: 0,
            backoff_ms: 15_000,
        }
    }
}

impl Cleaner {
    pub(super) fn validate(&self, check: &mut impl FnMut(bool, &'static str, String)) {
        let least = 64 * 1024;
        check(
            self.dedupe_buffer_bytes >= least,
            "cleaner.dedupe_buffer_bytes",
            format!("{} is below {least}", self.dedupe_buffer_bytes),
        );
        check(
            self.backoff_ms > 0,
            "cleaner.backoff_ms",
            "0 would never rest".into(),
        );
    }

    /// The same for the log.
    pub(crate) fn compactor(&self) -> CompactorConfig {
        CompactorConfig {
            dedupe_buffer_bytes: self.dedupe_buffer_bytes,
            io_bytes_per_second: Some(self.io_bytes_per_second).filter(|bytes| *bytes > 0),
        }
    }
}
