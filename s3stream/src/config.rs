//! The engine's settings: plain data with defaults, checked as a whole by [`Config::validate`].
//!
//! Components (bucket, log, clock) come through [`Engine::builder`](crate::Engine::builder). Nothing here is
//! written into a format, so every value may change on restart. The library reads no environment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// Settings of an engine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory for records: those on their way to the log and those in the log cache, log padding included.
    /// Bytes, default 256 MiB. Raise it when a slow bucket makes appends answer `Full`.
    pub log_cache_bytes: u64,
    /// Memory for data blocks read from the bucket. Bytes, default 128 MiB. Raise it for many catch-up readers.
    pub block_cache_bytes: u64,
    /// Memory for the indexes of objects. Bytes, default 32 MiB.
    pub index_cache_bytes: u64,
    /// How much of the log cache is uploaded at once. Bytes, default 64 MiB. Larger means fewer requests and a
    /// longer recovery.
    pub upload_bytes: u64,
    /// A stream with at least this much in one upload gets an object of its own. Bytes, default 8 MiB.
    pub stream_object_bytes: u64,
    /// Target size of a data block, the unit of reads from the bucket. Bytes, default 256 KiB.
    pub data_block_bytes: u64,
    /// Uploads under way at once. Default 4.
    pub uploads_in_flight: usize,
    /// The most that one GET asks for. Bytes, default 4 MiB.
    pub read_bytes_max: u64,
    /// Callers that may wait in `ready` at once; one more gets `Full`. Default 16,384.
    pub ready_waiters_max: usize,
    /// How long ago the node may have seen that it is current when it answers for the latest offset (S8).
    /// Milliseconds, default 5,000.
    pub staleness_ms: u64,
    /// How long a condemned object stays before it is deleted (O4). Milliseconds, default 600,000.
    pub condemn_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_cache_bytes: 256 * MIB,
            block_cache_bytes: 128 * MIB,
            index_cache_bytes: 32 * MIB,
            upload_bytes: 64 * MIB,
            stream_object_bytes: 8 * MIB,
            data_block_bytes: 256 * 1024,
            uploads_in_flight: 4,
            read_bytes_max: 4 * MIB,
            ready_waiters_max: 16_384,
            staleness_ms: 5_000,
            condemn_grace_ms: 600_000,
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl Config {
    /// Reports every problem, not only the first.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut range = |field, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                problems.push(Problem {
                    field,
                    what: format!("{value} is not within {least} and {most}"),
                });
            }
        };
        const GIB: u64 = 1024 * MIB;
        range("log_cache_bytes", self.log_cache_bytes, MIB, 1024 * GIB);
        range("block_cache_bytes", self.block_cache_bytes, 0, 1024 * GIB);
        range("index_cache_bytes", self.index_cache_bytes, 0, 1024 * GIB);
        range("upload_bytes", self.upload_bytes, 4096, 4 * GIB);
        range("stream_object_bytes", self.stream_object_bytes, 1, 4 * GIB);
        range("data_block_bytes", self.data_block_bytes, 1024, 64 * MIB);
        range("uploads_in_flight", self.uploads_in_flight as u64, 1, 256);
        range("read_bytes_max", self.read_bytes_max, 4096, GIB);
        range(
            "ready_waiters_max",
            self.ready_waiters_max as u64,
            1,
            1 << 24,
        );
        range("staleness_ms", self.staleness_ms, 1, 3_600_000);
        range(
            "condemn_grace_ms",
            self.condemn_grace_ms,
            0,
            30 * 86_400_000,
        );
        if self.upload_bytes > self.log_cache_bytes / 2 {
            problems.push(Problem {
                field: "upload_bytes",
                what: format!(
                    "{} is more than half of log_cache_bytes, {}: nothing could be appended during an upload",
                    self.upload_bytes, self.log_cache_bytes
                ),
            });
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    pub(crate) fn staleness(&self) -> Duration {
        Duration::from_millis(self.staleness_ms)
    }

    pub(crate) fn condemn_grace(&self) -> Duration {
        Duration::from_millis(self.condemn_grace_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn every_problem_is_reported() {
        let config = Config {
            uploads_in_flight: 0,
            staleness_ms: 0,
            upload_bytes: 200 * MIB,
            ..Config::default()
        };
        let fields: Vec<_> = config
            .validate()
            .unwrap_err()
            .into_iter()
            .map(|problem| problem.field)
            .collect();
        assert_eq!(
            fields,
            ["uploads_in_flight", "staleness_ms", "upload_bytes"]
        );
    }
}
