//! Offsets by time: the sparse index says where to begin, the batches say which record.
//!
//! Reads at most one index interval of a segment before the batch that is found. A time that only a record above the
//! high watermark has, or for a reader of what is committed the last stable offset, is not found. Of the largest time
//! nothing helps where the log start hides it: what is left of that segment is read whole, unless another has a larger.

use std::ops::{ControlFlow, Range};

use s3stream::ErrorKind;
use s3stream::segment::LogRecord;

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

    /// The first record with the largest timestamp of all that can be read.
    async fn first_newest(&self, isolation: Isolation) -> Result<TimestampOffset, LogError> {
        let mut described = self.described()?;
        // Stable: of equal ones the earliest stays first.
        described.sort_by_key(|(_, sealed)| std::cmp::Reverse(sealed.summary.max_timestamp));
        let mut left = None::<TimestampOffset>;
        for (_, sealed) in described {
            let summary = &sealed.summary;
            if summary.max_timestamp < 0 {
                break;
            }
            let (timestamp, offset) = (summary.max_timestamp, summary.max_timestamp_offset);
            let is_newest = |left: &TimestampOffset| {
                left.timestamp > timestamp || (left.timestamp == timestamp && left.offset < offset)
            };
            if left.as_ref().is_some_and(is_newest) {
                break;
            }
            if summary.max_timestamp_offset >= self.offsets().bound(isolation) {
                // Not readable yet, so there is no answer yet.
                return Ok(TimestampOffset::NONE);
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
            // It lies below the log start. If that has moved since a segment before this, that one is gone.
            let search = Search {
                from: self.offsets().log_start,
                ..search
            };
            left = self.newest(search).await?.or(left);
        }
        Ok(left.unwrap_or(TimestampOffset::NONE))
    }

    /// The first readable record at or after a time.
    async fn search(&self, search: Search) -> Result<Option<TimestampOffset>, LogError> {
        let decompressed_max = self.config().decompressed_limit();
        let mut walk = Walk::new(search);
        while let Some((records, bound)) = self.walk_on(&mut walk).await? {
            for record in &records {
                let batch = whole_batch(record)?;
                if batch.header().max_timestamp < search.timestamp {
                    continue;
                }
                let readable = self.offsets().log_start..bound;
                let found = first_in(&batch, search.timestamp, &readable, decompressed_max)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The first of the newest readable records; decompresses little more than one batch.
    async fn newest(&self, search: Search) -> Result<Option<TimestampOffset>, LogError> {
        let decompressed_max = self.config().decompressed_limit();
        let mut newest = Newest::default();
        let mut walk = Walk::new(search);
        while let Some((records, bound)) = self.walk_on(&mut walk).await? {
            for record in &records {
                newest.add(whole_batch(record)?, search.from..bound, decompressed_max)?;
            }
        }
        newest.find(decompressed_max)
    }

    /// The next batches of a part of the log, and where the reader's sight ends; `None` at its end.
    async fn walk_on(&self, walk: &mut Walk) -> Result<Option<(Vec<LogRecord>, i64)>, LogError> {
        loop {
            let offsets = self.offsets();
            let bound = offsets.bound(walk.isolation);
            walk.at = walk.at.max(offsets.log_start);
            if walk.at >= walk.end.min(bound) {
                return Ok(None);
            }
            match self.shared.log.fetch(walk.at as u64, SCAN_BYTES).await {
                Ok(fetched) => {
                    let Some(last) = fetched.records.last() else {
                        return Ok(None);
                    };
                    walk.at = last.offsets.end as i64;
                    return Ok(Some((fetched.records, bound)));
                }
                // Retention or a cut overtook the scan: what is left of it is looked at again.
                Err(error)
                    if error.kind() == ErrorKind::OutOfRange && walk.overtaken < OVERTAKEN_MAX =>
                {
                    walk.overtaken += 1;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }
}

/// How far a search has come.
struct Walk {
    at: i64,
    end: i64,
    isolation: Isolation,
    overtaken: usize,
}

impl Walk {
    fn new(search: Search) -> Self {
        Self {
            at: search.from,
            end: search.end,
            isolation: search.isolation,
            overtaken: 0,
        }
    }
}

/// The newest record of the batches so far.
#[derive(Default)]
struct Newest {
    /// Of a batch that only a part of can be read.
    record: Option<TimestampOffset>,
    /// A whole one with something newer, and what can be read.
    batch: Option<(Batch, Range<i64>)>,
}

impl Newest {
    fn timestamp(&self) -> i64 {
        match (&self.batch, &self.record) {
            (Some((batch, _)), _) => batch.header().max_timestamp,
            (None, Some(record)) => record.timestamp,
            (None, None) => -1,
        }
    }

    fn add(
        &mut self,
        batch: Batch,
        readable: Range<i64>,
        decompressed_max: u64,
    ) -> Result<(), LogError> {
        let header = *batch.header();
        // A batch that compaction has emptied has no record with its time any more.
        if header.max_timestamp <= self.timestamp() || header.records_count == 0 {
            return Ok(());
        }
        if readable.start <= header.base_offset && header.last_offset() < readable.end {
            self.batch = Some((batch, readable));
            return Ok(());
        }
        let newest = newest_in(&batch, &readable, decompressed_max)?;
        if let Some(newest) = newest.filter(|newest| newest.timestamp > self.timestamp()) {
            *self = Self {
                record: Some(newest),
                batch: None,
            };
        }
        Ok(())
    }

    fn find(self, decompressed_max: u64) -> Result<Option<TimestampOffset>, LogError> {
        match self.batch {
            Some((batch, readable)) => newest_in(&batch, &readable, decompressed_max),
            None => Ok(self.record),
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

/// The first record of a batch at or after a time that can be read.
fn first_in(
    batch: &Batch,
    timestamp: i64,
    readable: &Range<i64>,
    decompressed_max: u64,
) -> Result<Option<TimestampOffset>, LogError> {
    let mut found = None;
    visit_readable(batch, readable, decompressed_max, |record| {
        if record.timestamp < timestamp {
            return ControlFlow::Continue(());
        }
        found = Some(record);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The first of the newest records of a batch that can be read.
fn newest_in(
    batch: &Batch,
    readable: &Range<i64>,
    decompressed_max: u64,
) -> Result<Option<TimestampOffset>, LogError> {
    let mut newest = None::<TimestampOffset>;
    visit_readable(batch, readable, decompressed_max, |record| {
        if newest.is_none_or(|newest| record.timestamp > newest.timestamp) {
            newest = Some(record);
        }
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

fn visit_readable(
    batch: &Batch,
    readable: &Range<i64>,
    decompressed_max: u64,
    mut visit: impl FnMut(TimestampOffset) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let header = batch.header();
    batch.visit_records(decompressed_max, |_, record| {
        let delta = i64::from(record.offset_delta);
        let offset = header.base_offset.saturating_add(delta);
        if !readable.contains(&offset) {
            return ControlFlow::Continue(());
        }
        visit(TimestampOffset {
            offset,
            timestamp: header.record_timestamp(record.timestamp_delta),
            leader_epoch: header.partition_leader_epoch,
        })
    })
}
