//! Offsets by time: the sparse index says where to begin, the batches say which record.
//!
//! Reads at most one index interval of a segment before the batch that is found. A time that only a record above the
//! high watermark has, or for a reader of what is committed the last stable offset, is not found.

use std::ops::ControlFlow;

use s3stream::ErrorKind;

use super::KafkaLog;
use super::read::whole_batch;
use crate::batch::Batch;
use crate::error::LogError;
use crate::position::{Isolation, TimestampOffset, TimestampSpec};
use crate::summary::Sealed;

/// Bytes of data read at once.
const SCAN_BYTES: usize = 1 << 20;

/// How often one search goes on after retention or a cut overtook it.
const OVERTAKEN_MAX: usize = 16;

/// A part of the log and the time that is looked for in it.
#[derive(Clone, Copy)]
struct Search {
    from: i64,
    end: i64,
    timestamp: i64,
    isolation: Isolation,
}

impl KafkaLog {
    /// The offset that Kafka's `ListOffsets` gives for `spec` to a reader of this isolation.
    ///
    /// # Errors
    /// `Storage`: try again. `StoredState`, `Undecodable`: a stored batch cannot be read.
    pub async fn fetch_offset_for_timestamp(
        &self,
        spec: TimestampSpec,
        isolation: Isolation,
    ) -> Result<TimestampOffset, LogError> {
        self.check_readable()?;
        match spec {
            TimestampSpec::Earliest => Ok(self.earliest()),
            TimestampSpec::Latest => self.latest(isolation).await,
            TimestampSpec::At(timestamp) => self.first_at(timestamp, isolation).await,
            TimestampSpec::MaxTimestamp => self.first_newest(isolation).await,
        }
    }

    fn earliest(&self) -> TimestampOffset {
        let offset = self.offsets().log_start;
        TimestampOffset {
            offset,
            timestamp: -1,
            leader_epoch: self.epoch_at(offset),
        }
    }

    /// Only after making sure that the log is still this node's (S8): a paused owner would tell an old end.
    async fn latest(&self, isolation: Isolation) -> Result<TimestampOffset, LogError> {
        let current = self.shared.data.latest().await;
        current.map_err(|error| self.failed(error))?;
        // Or of another instance here, if the log below was reopened.
        self.check_readable()?;
        Ok(TimestampOffset {
            offset: self.offsets().bound(isolation),
            timestamp: -1,
            leader_epoch: self.latest_epoch(),
        })
    }

    async fn first_at(
        &self,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<TimestampOffset, LogError> {
        for (segment, sealed) in self.described()? {
            if sealed.summary.max_timestamp < timestamp {
                continue;
            }
            let search = Search {
                from: scan_start(segment.base as i64, &sealed, timestamp),
                end: sealed.summary.end,
                timestamp,
                isolation,
            };
            if let Some(found) = self.search(search).await? {
                return Ok(found);
            }
        }
        Ok(TimestampOffset::NONE)
    }

    /// The first record with the largest timestamp of all; segments whose largest lies below the log start yield to
    /// the next.
    async fn first_newest(&self, isolation: Isolation) -> Result<TimestampOffset, LogError> {
        let mut described = self.described()?;
        // Stable: of equal ones the earliest stays first.
        described.sort_by_key(|(_, sealed)| std::cmp::Reverse(sealed.summary.max_timestamp));
        for (_, sealed) in described {
            let summary = &sealed.summary;
            if summary.max_timestamp < 0 {
                break;
            }
            if summary.max_timestamp_offset >= self.offsets().bound(isolation) {
                // Not readable yet, so there is no answer yet.
                break;
            }
            let search = Search {
                from: summary.max_timestamp_offset,
                end: summary.end,
                timestamp: summary.max_timestamp,
                isolation,
            };
            if let Some(found) = self.search(search).await? {
                return Ok(found);
            }
        }
        Ok(TimestampOffset::NONE)
    }

    /// The first readable record at or after a time.
    async fn search(&self, search: Search) -> Result<Option<TimestampOffset>, LogError> {
        let decompressed_bytes_max = self.config().decompressed_limit();
        let mut at = search.from;
        let mut overtaken = 0;
        loop {
            let offsets = self.offsets();
            let bound = offsets.bound(search.isolation);
            at = at.max(offsets.log_start);
            if at >= search.end.min(bound) {
                return Ok(None);
            }
            let fetched = self.shared.log.fetch(at as u64, SCAN_BYTES).await;
            let fetched = match fetched {
                Ok(fetched) => fetched,
                // Retention or a cut overtook the scan: what is left of it is looked at again.
                Err(error)
                    if error.kind() == ErrorKind::OutOfRange && overtaken < OVERTAKEN_MAX =>
                {
                    overtaken += 1;
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            if fetched.records.is_empty() {
                return Ok(None);
            }
            for record in &fetched.records {
                at = record.offsets.end as i64;
                let batch = whole_batch(record)?;
                if batch.header().max_timestamp < search.timestamp {
                    continue;
                }
                let log_start = self.offsets().log_start;
                let found = first_in(&batch, search.timestamp, log_start, decompressed_bytes_max)?;
                if let Some(found) = found.filter(|found| found.offset < bound) {
                    return Ok(Some(found));
                }
            }
        }
    }
}

/// The highest indexed offset below which every record is older than `timestamp`.
fn scan_start(base: i64, sealed: &Sealed, timestamp: i64) -> i64 {
    let older = sealed
        .index
        .partition_point(|entry| entry.max_timestamp < timestamp);
    match older.checked_sub(1) {
        Some(last) => sealed.index[last].end,
        None => base,
    }
}

/// The first record of a batch at or after a time and at or above the log start.
fn first_in(
    batch: &Batch,
    timestamp: i64,
    log_start: i64,
    decompressed_bytes_max: u64,
) -> Result<Option<TimestampOffset>, LogError> {
    let header = batch.header();
    let mut found = None;
    batch.visit_records(decompressed_bytes_max, |_, record| {
        let delta = i64::from(record.offset_delta);
        let offset = header.base_offset.saturating_add(delta);
        let record_timestamp = header.record_timestamp(record.timestamp_delta);
        if record_timestamp < timestamp || offset < log_start {
            return ControlFlow::Continue(());
        }
        found = Some(TimestampOffset {
            offset,
            timestamp: record_timestamp,
            leader_epoch: header.partition_leader_epoch,
        });
        ControlFlow::Break(())
    })?;
    Ok(found)
}
