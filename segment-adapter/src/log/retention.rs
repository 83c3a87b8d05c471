//! Retention and record deletion: the log start moves, and segments below it go, oldest first, never past the high
//! watermark.
//!
//! Only whole segments go; a log start within a segment hides what is below it. When every segment would go a new
//! empty one is begun first, so the log end never moves.

use std::sync::Arc;

use s3stream::segment::Segment;

use super::KafkaLog;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::summary::Sealed;

/// Producers that one call forgets for their silence, so that the change is small.
const EXPIRED_MAX: usize = 4096;

impl KafkaLog {
    /// Deletes what the settings say is too old or too much at `now_ms`, and gives the number of segments deleted.
    /// Forgets producers that have been silent for too long, and keeps the log's own metadata short. Call it every few minutes.
    ///
    /// # Errors
    /// `Storage`, `Overloaded`: part of it may be done; call again.
    pub async fn delete_old_segments(&self, now_ms: i64) -> Result<usize, LogError> {
        let _one_at_a_time = self.shared.maintenance.lock().await;
        self.check_open()?;
        self.expire_producers(now_ms);
        let mut deleted = 0;
        if let Some((count, below)) = self.prepare_deletion(now_ms)? {
            let trimmed = self.shared.log.trim_front(..below).await;
            trimmed.map_err(|error| self.failed(error))?;
            deleted = count;
        }
        // What the log start has left behind is forgotten before the producers are kept.
        self.offsets();
        let maintained = self.shared.log.maintain(|| {
            let state = self.shared.state.lock();
            let producers = state.producers.encode();
            (state, producers)
        });
        let maintained = maintained.await;
        maintained.map_err(|error| self.failed(error))?;
        if let Ok(_nobody_fills_it) = self.shared.compacting.try_lock() {
            let trimmed = self
                .shared
                .log
                .trim_unnamed(self.shared.compacted.id())
                .await;
            trimmed.map_err(|error| self.failed(error))?;
        }
        Ok(deleted)
    }

    /// Moves the log start to `before`, or to the high watermark for -1, and gives the log start. Kept when it returns.
    ///
    /// # Errors
    /// `OffsetOutOfRange`: `before` is negative or past the high watermark. `PolicyViolation`: the log is compacted
    /// and nothing else. `Storage`, `Overloaded`: call again.
    pub async fn delete_records(&self, before: i64) -> Result<i64, LogError> {
        let _one_at_a_time = self.shared.maintenance.lock().await;
        self.check_open()?;
        let config = self.config();
        if config.compact && !config.delete {
            return Err(LogError::PolicyViolation(
                "records of a log that is only compacted cannot be deleted".into(),
            ));
        }
        let offsets = self.offsets();
        let before = if before == -1 { offsets.hw } else { before };
        if before < 0 || before > offsets.hw {
            return Err(LogError::OffsetOutOfRange {
                offset: before,
                start: offsets.log_start,
                end: offsets.hw,
            });
        }
        let trimmed = self.shared.log.trim_front(..before as u64).await;
        trimmed.map_err(|error| self.failed(error))?;
        Ok(self.offsets().log_start)
    }

    fn expire_producers(&self, now_ms: i64) {
        let mut state = self.shared.state.lock();
        let after_ms = state.config.producer_expiration_ms;
        state.producers.expire(now_ms, after_ms, EXPIRED_MAX);
        state.verifications.expire(now_ms, after_ms);
    }

    /// How many segments go and the offset below which they lie; begins a new one if all would go.
    fn prepare_deletion(&self, now_ms: i64) -> Result<Option<(usize, u64)>, LogError> {
        let config = self.config();
        let offsets = self.offsets();
        let described = self.described()?;
        let count = deletable(&described, &config, offsets.hw, offsets.log_start, now_ms);
        let Some((last, sealed)) = count.checked_sub(1).and_then(|last| described.get(last)) else {
            return Ok(None);
        };
        if last.is_sealed() {
            return Ok(last.end.map(|end| (count, end)));
        }
        let end = sealed.summary.end;
        let rolled = {
            let mut state = self.shared.state.lock();
            // Something was appended meanwhile: the segment is not the one that was judged.
            if state.active.end != end {
                return Ok(None);
            }
            self.seal(&mut state, now_ms)
        };
        rolled.map_err(|error| self.failed(error))?;
        Ok(Some((count, end as u64)))
    }
}

/// How many of the oldest segments are to go.
fn deletable(
    segments: &[(Arc<Segment>, Sealed)],
    config: &LogConfig,
    hw: i64,
    log_start: i64,
    now_ms: i64,
) -> usize {
    // In Kafka's order; each goes on where the one before stopped.
    let mut count = 0;
    count += oldest(&segments[count..], hw, |sealed| {
        sealed.summary.end <= log_start
    });
    if !config.delete {
        return count;
    }
    if config.retention_bytes >= 0 {
        let bytes = |segments: &[(Arc<Segment>, Sealed)]| -> u64 {
            segments
                .iter()
                .map(|(_, sealed)| sealed.summary.bytes)
                .sum()
        };
        let limit = config.retention_bytes as u64;
        let mut over = bytes(&segments[count..]).checked_sub(limit);
        // One that compaction has emptied takes up nothing, and does not keep those after it.
        count += oldest(&segments[count..], hw, |sealed| {
            over = over.and_then(|over| over.checked_sub(sealed.summary.bytes));
            over.is_some()
        });
    }
    if config.retention_ms >= 0 {
        count += oldest(&segments[count..], hw, |sealed| {
            let age = now_ms.saturating_sub(sealed.summary.retention_timestamp());
            age > config.retention_ms
        });
    }
    count
}

/// How many segments match before the first that does not, is not durable to its end, or is empty and the last.
fn oldest(
    segments: &[(Arc<Segment>, Sealed)],
    hw: i64,
    mut matches: impl FnMut(&Sealed) -> bool,
) -> usize {
    segments
        .iter()
        .take_while(|(segment, sealed)| {
            let empty_last = !segment.is_sealed() && sealed.summary.bytes == 0;
            sealed.summary.end <= hw && !empty_last && matches(sealed)
        })
        .count()
}
