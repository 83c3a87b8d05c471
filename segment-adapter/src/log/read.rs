//! Reading: whole stored batches, never past the high watermark.

use bytes::Bytes;
use s3stream::ErrorKind;
use s3stream::segment::LogRecord;

use super::KafkaLog;
use crate::batch::{Batch, Batches};
use crate::error::LogError;
use crate::position::{FetchData, Offsets};

impl KafkaLog {
    /// Whole batches from the one that holds `start`, or the next there is, in at most `max_bytes`; with `min_one` the
    /// first comes whatever its size. Nothing, and no error, from the high watermark to the log end.
    ///
    /// May return less than there is; read on from where it ended.
    ///
    /// # Errors
    /// `OffsetOutOfRange`: `start` is below the log start or past the log end. `Storage`: try again.
    pub async fn read(
        &self,
        start: i64,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<FetchData, LogError> {
        self.check_readable()?;
        let offsets = self.offsets();
        if start < offsets.log_start || start > offsets.leo {
            return Err(out_of_range(start, offsets));
        }
        let mut records = Vec::new();
        if start < offsets.hw && (max_bytes > 0 || min_one) {
            let fetched = self.shared.log.fetch(start as u64, max_bytes).await;
            let fetched = fetched.map_err(|error| self.read_failed(error, start))?;
            records = within(fetched.records, offsets.hw, max_bytes, min_one);
        }
        Ok(FetchData { records, offsets })
    }

    /// Waits until the high watermark is beyond `offset`, and tells where the log is then. No polling.
    ///
    /// # Errors
    /// `Stopped`, `Deleted`, `Storage`, `NotLeader`: it will not come. A log whose storage is being reopened may keep
    /// the caller waiting; bound the wait, as a fetch does.
    pub async fn wait_for_hw(&self, beyond: i64) -> Result<Offsets, LogError> {
        self.check_readable()?;
        if let Ok(beyond) = u64::try_from(beyond) {
            let waited = self.shared.log.wait_confirm(beyond).await;
            waited.map_err(|error| self.failed(error))?;
        }
        self.check_readable()?;
        Ok(self.offsets())
    }

    /// The error of a read: below the log start if retention overtook it.
    pub(super) fn read_failed(&self, error: s3stream::Error, start: i64) -> LogError {
        let offsets = self.offsets();
        if error.kind() == ErrorKind::OutOfRange && start < offsets.log_start {
            return out_of_range(start, offsets);
        }
        self.failed(error)
    }
}

fn within(records: Vec<LogRecord>, hw: i64, max_bytes: usize, min_one: bool) -> Vec<Bytes> {
    let mut left = max_bytes;
    let mut out = Vec::with_capacity(records.len());
    for record in records {
        let len = record.payload.len();
        let free = min_one && out.is_empty();
        if record.offsets.end > hw as u64 || (len > left && !free) {
            break;
        }
        left = left.saturating_sub(len);
        out.push(record.payload);
    }
    out
}

fn out_of_range(offset: i64, offsets: Offsets) -> LogError {
    LogError::OffsetOutOfRange {
        offset,
        start: offsets.log_start,
        end: offsets.leo,
    }
}

/// The one batch that a record of the log must be.
pub(super) fn whole_batch(record: &LogRecord) -> Result<Batch, LogError> {
    let wrong = |what: &str| {
        LogError::StoredState(format!(
            "record at {}..{}: {what}",
            record.offsets.start, record.offsets.end
        ))
    };
    let mut batches = Batches::new(record.payload.clone());
    let batch = match batches.next() {
        Some(Ok(batch)) if batches.rest().is_empty() => batch,
        Some(Err(error)) => return Err(wrong(&error.to_string())),
        _ => return Err(wrong("not one whole batch")),
    };
    // The record may begin before its batch, to cover a gap (K1); they end together.
    if batch.header().last_offset().checked_add(1) != i64::try_from(record.offsets.end).ok() {
        return Err(wrong(&format!(
            "its batch ends at {}",
            batch.header().last_offset()
        )));
    }
    Ok(batch)
}
