//! What compaction takes: memory for the newest offsets of keys, and a bound on what it reads and writes.
//!
//! One compactor cleans one log at a time; whoever has many logs lends it to one after the other. The memory is asked for
//! when the first pass begins, and never grows.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::compact::{OffsetMap, SLOT_BYTES};
use crate::error::LogError;

/// What a [`Compactor`] may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactorConfig {
    /// `log.cleaner.dedupe.buffer.size`: memory for the newest offsets of keys, in bytes; 24 for a key, and a tenth stays
    /// free. A pass cleans as many different keys as fit. Default 128 MiB, at least 24.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: how much is read and written in a second, in bytes together; `None` for no
    /// limit. Default none.
    pub io_bytes_per_second: Option<u64>,
}

impl Default for CompactorConfig {
    fn default() -> Self {
        Self {
            dedupe_buffer_bytes: 128 << 20,
            io_bytes_per_second: None,
        }
    }
}

impl CompactorConfig {
    /// Refuses what makes no sense, naming all of it.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn validate(&self) -> Result<(), LogError> {
        let mut problems = Vec::new();
        if self.dedupe_buffer_bytes < SLOT_BYTES {
            problems.push("log.cleaner.dedupe.buffer.size is below 24 bytes".to_owned());
        }
        if self.io_bytes_per_second == Some(0) {
            problems.push("log.cleaner.io.max.bytes.per.second is 0".to_owned());
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(LogError::InvalidConfig(problems)),
        }
    }
}

/// Compacts logs, one at a time; see [`KafkaLog::compact`](crate::KafkaLog::compact).
pub struct Compactor {
    config: CompactorConfig,
    map: Option<OffsetMap>,
    pace: Pace,
}

impl Compactor {
    /// One that has done nothing yet.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn new(config: CompactorConfig) -> Result<Self, LogError> {
        config.validate()?;
        Ok(Self {
            config,
            map: None,
            pace: Pace {
                bytes_per_second: config.io_bytes_per_second,
                free_at: None,
            },
        })
    }

    /// What it may use.
    pub fn config(&self) -> &CompactorConfig {
        &self.config
    }

    /// Gives back its memory; the next pass asks for it again.
    pub fn rest(&mut self) {
        self.map = None;
    }

    /// An empty map for at most `keys_max` different keys, and the pace to keep.
    pub(crate) fn begin(&mut self, keys_max: u64) -> (&mut OffsetMap, &mut Pace) {
        let budget = self.config.dedupe_buffer_bytes;
        let map = self.map.get_or_insert_with(|| OffsetMap::new(budget));
        map.clear(keys_max);
        (map, &mut self.pace)
    }
}

impl std::fmt::Debug for Compactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compactor")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Keeps reads and writes under a number of bytes per second. What was not used is not saved up.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When what was taken so far is paid for.
    free_at: Option<Instant>,
}

impl Pace {
    /// Waits until what was taken before is paid for, then takes `bytes`.
    pub(crate) async fn take(&mut self, bytes: u64) {
        let Some(bytes_per_second) = self.bytes_per_second else {
            return;
        };
        let now = Instant::now();
        let begins = self.free_at.map_or(now, |free_at| free_at.max(now));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
        let costs = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Further than any clock goes: as good as never.
        self.free_at = Some(begins.checked_add(costs).unwrap_or(begins));
        sleep_until(begins).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        CompactorConfig::default().validate().unwrap();
        let config = CompactorConfig {
            dedupe_buffer_bytes: 23,
            io_bytes_per_second: Some(0),
        };
        let Err(LogError::InvalidConfig(problems)) = Compactor::new(config) else {
            panic!("accepted");
        };
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn lesson_21_no_more_is_taken_than_the_bound_allows() {
        let mut pace = Pace {
            bytes_per_second: Some(1000),
            free_at: None,
        };
        let begun = Instant::now();
        for _ in 0..11 {
            pace.take(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        // A rest does not make up for what comes after it.
        tokio::time::sleep(Duration::from_secs(100)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.take(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        pace.bytes_per_second = None;
        pace.take(u64::MAX).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}
