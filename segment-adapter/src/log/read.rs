//! Reading: whole stored batches, never past the high watermark, or the last stable offset for a reader of what is
//! committed; and waiting for either to move.

use std::ops::ControlFlow;

use bytes::Bytes;
use s3stream::ErrorKind;
use s3stream::segment::{LogRecord, SegmentLog};

use super::KafkaLog;
use crate::batch::{Batch, Batches};
use crate::error::LogError;
use crate::position::{AbortedTxn, FetchData, Isolation, Offsets};

impl KafkaLog {
    /// Whole batches from the one that holds `start`, or the next there is, in at most `max_bytes`; with `min_one` the
    /// first comes whatever its size. Nothing, and no error, from where the reader's sight ends to the log end.
    ///
    /// May return less than there is; read on from where it ended.
    ///
    /// # Errors
    /// `OffsetOutOfRange`: `start` is below the log start or past the log end. `Storage`, `Busy`: try again.
    pub async fn read(
        &self,
        start: i64,
        max_bytes: usize,
        min_one: bool,
        isolation: Isolation,
    ) -> Result<FetchData, LogError> {
        self.check_readable()?;
        for _ in 0..CUTS_MAX {
            let (offsets, before) = {
                let mut state = self.shared.state.lock();
                let before = (state.truncations, state.emptied);
                (self.offsets_in(&mut state), before)
            };
            if start < offsets.log_start || start > offsets.leo {
                return Err(out_of_range(start, offsets));
            }
            let bound = offsets.bound(isolation);
            let mut found = Found::default();
            if start < bound && (max_bytes > 0 || min_one) {
                let fetched = self.shared.log.fetch(start as u64, max_bytes).await;
                let fetched = fetched.map_err(|error| self.read_failed(error, start))?;
                found = within(fetched.records, bound as u64, max_bytes, min_one);
            }
            if let Some(aborted) = self.aborted_for(isolation, start, found.end, before)? {
                return Ok(FetchData {
                    records: found.records,
                    offsets,
                    aborted: aborted.transactions,
                });
            }
        }
        Err(LogError::Busy(
            "the log is cut or compacted again and again".into(),
        ))
    }

    /// The aborted transactions that a reader of `start..end` needs, if it needs any; `None` if the log was cut meanwhile,
    /// and what was read is of no use. What is below the log start is forgotten, so it is asked after the read, and once
    /// the log start has passed `start` the answer would not be whole.
    fn aborted_for(
        &self,
        isolation: Isolation,
        start: i64,
        end: u64,
        (truncations, emptied): (u64, u64),
    ) -> Result<Option<Told>, LogError> {
        let mut state = self.shared.state.lock();
        if state.truncations != truncations {
            return Ok(None);
        }
        let transactions = match isolation {
            Isolation::TxnCommitted => {
                let offsets = self.offsets_in(&mut state);
                if start < offsets.log_start {
                    return Err(out_of_range(start, offsets));
                }
                // Compaction has left nothing of some; what was read may be older.
                if state.emptied != emptied {
                    return Ok(None);
                }
                Some(state.producers.aborted_within(start, end as i64))
            }
            Isolation::LogEnd | Isolation::HighWatermark => None,
        };
        Ok(Some(Told { transactions }))
    }

    /// How often the log was cut since it was opened: what was read before a cut and what was read after it do not belong
    /// together.
    pub fn cuts(&self) -> u64 {
        self.shared.state.lock().truncations
    }

    /// Waits until the high watermark is beyond `offset`, and tells where the log is then. No polling.
    ///
    /// # Errors
    /// `Stopped`, `Deleted`, `Storage`, `NotLeader`: it will not come. A log whose storage is being reopened may keep
    /// the caller waiting; bound the wait, as a fetch does.
    pub async fn wait_for_hw(&self, beyond: i64) -> Result<Offsets, LogError> {
        self.wait_for(Isolation::HighWatermark, beyond).await
    }

    /// As [`Self::wait_for_hw`], for where the sight of a reader of this isolation ends: it returns once that has moved
    /// on, and not for what moves besides.
    ///
    /// # Errors
    /// As [`Self::wait_for_hw`].
    pub async fn wait_for(&self, isolation: Isolation, beyond: i64) -> Result<Offsets, LogError> {
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            // From here on a move is not missed.
            moved.as_mut().enable();
            self.check_readable()?;
            let offsets = self.offsets();
            if offsets.bound(isolation) > beyond {
                return Ok(offsets);
            }
            // Nobody sees further than what is durable.
            let durable = offsets.confirmed.max(beyond) as u64;
            let start = offsets.log_start as u64;
            tokio::select! {
                biased;
                waited = self.shared.log.wait_past(durable, start) => {
                    waited.map_err(|error| self.failed(error))?;
                }
                () = moved => {}
            }
        }
    }

    /// The error of a read: out of range if retention or a cut overtook it.
    fn read_failed(&self, error: s3stream::Error, start: i64) -> LogError {
        let offsets = self.offsets();
        let inside = (offsets.log_start..=offsets.leo).contains(&start);
        if error.kind() == ErrorKind::OutOfRange && !inside {
            return out_of_range(start, offsets);
        }
        self.failed(error)
    }
}

/// How often one read begins anew because the log was cut under it.
const CUTS_MAX: usize = 16;

/// What a reader is told of aborted transactions; nothing, unless it reads what is committed.
struct Told {
    transactions: Option<Vec<AbortedTxn>>,
}

/// Batches, and one past the last offset of the last.
#[derive(Default)]
struct Found {
    records: Vec<Bytes>,
    end: u64,
}

fn within(records: Vec<LogRecord>, bound: u64, max_bytes: usize, min_one: bool) -> Found {
    let mut left = max_bytes;
    let mut found = Found::default();
    for record in records {
        let len = record.payload.len();
        let free = min_one && found.records.is_empty();
        if record.offsets.end > bound || (len > left && !free) {
            break;
        }
        left = left.saturating_sub(len);
        found.records.push(record.payload);
        found.end = record.offsets.end;
    }
    found
}

fn out_of_range(offset: i64, offsets: Offsets) -> LogError {
    LogError::OffsetOutOfRange {
        offset,
        start: offsets.log_start,
        end: offsets.leo,
    }
}

/// Bytes of data read at once by who takes stock of it.
const SCAN_BYTES: usize = 1 << 20;

/// Visits the records from `from` on that are kept, hidden ones too, with the batch of each, until the visitor breaks or
/// there is none below `end`; gives the offset that was reached.
pub(super) async fn scan(
    log: &SegmentLog,
    from: u64,
    end: u64,
    mut visit: impl FnMut(&LogRecord, &Batch) -> ControlFlow<()>,
) -> Result<u64, LogError> {
    let mut at = from;
    while at < end {
        let records = log.fetch_kept(at, SCAN_BYTES).await?.records;
        if records.is_empty() {
            break;
        }
        for record in &records {
            if visit(record, &whole_batch(record)?).is_break() {
                return Ok(at);
            }
            at = record.offsets.end;
        }
    }
    Ok(at)
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
