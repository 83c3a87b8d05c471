//! Writing what is kept of a group to the third stream, and summing it up.

use std::collections::VecDeque;
use std::sync::Arc;

use s3stream::segment::{Segment, Slice};
use s3stream::{Append, ErrorKind};

use super::Plan;
use crate::batch::Batch;
use crate::compactor::Pace;
use crate::error::LogError;
use crate::log::KafkaLog;
use crate::summary::{IndexEntry, Sealed, Summary};

/// The most bytes on their way to being durable at one time, but for a batch that is larger.
const IN_FLIGHT_BYTES: usize = 8 << 20;

/// What was kept of a group so far.
pub(super) struct Filling {
    /// Where in the third stream it begins, and where it goes on.
    start: u64,
    next: u64,
    /// The same as offsets of the log.
    pub(super) base: u64,
    at: u64,
    pub(super) summary: Summary,
    pub(super) index: Vec<IndexEntry>,
    /// Bytes when the index was last added to, and how many make an entry.
    indexed_bytes: u64,
    interval: u64,
    modified_ms: i64,
    in_flight: VecDeque<(Append, usize)>,
    in_flight_bytes: usize,
}

impl Filling {
    /// The window of the third stream, if anything was kept.
    pub(super) fn slice(&self, log: &KafkaLog) -> Option<Slice> {
        (self.next > self.start).then(|| Slice {
            stream: log.shared.compacted.id(),
            start: self.start,
            end: Some(self.next),
            base: self.base,
        })
    }
}

impl KafkaLog {
    pub(super) fn begin_filling(&self, plan: &Plan, group: &[(Arc<Segment>, Sealed)]) -> Filling {
        let (base, created_ms) = group.first().map_or((0, 0), |(segment, sealed)| {
            (segment.base, sealed.summary.created_ms)
        });
        let modified_ms = group.last().map_or(0, |(_, last)| last.summary.modified_ms);
        let next = self.shared.compacted.next();
        let mut summary = Summary::new(base as i64, created_ms);
        summary.modified_ms = modified_ms;
        Filling {
            start: next,
            next,
            base,
            at: base,
            summary,
            index: Vec::new(),
            indexed_bytes: 0,
            interval: plan.config.index_interval_bytes,
            modified_ms,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Appends the next batch, and waits if too much is in flight; `false` if somebody else appends, who has opened the log
    /// anew.
    pub(super) async fn fill(
        &self,
        filling: &mut Filling,
        batch: &Batch,
        pace: &mut Pace,
    ) -> Result<bool, LogError> {
        let (header, bytes) = (batch.header(), batch.bytes());
        while filling.in_flight_bytes > 0 && filling.in_flight_bytes + bytes.len() > IN_FLIGHT_BYTES
        {
            self.wait_for_oldest(filling).await?;
        }
        let end = header.last_offset().saturating_add(1) as u64;
        let count = end.saturating_sub(filling.at);
        let stream = &self.shared.compacted;
        let appended = match stream.append(count, &[bytes]) {
            Err(error) if error.kind() == ErrorKind::Full => {
                // Producers come first, and what is in flight makes room.
                let permit = stream.ready(bytes.len()).await;
                permit.and_then(|permit| stream.append_with(permit, count, &[bytes]))
            }
            appended => appended,
        };
        let append = appended.map_err(|error| self.failed(error))?;
        if append.offsets().start != filling.next {
            return Ok(false);
        }
        filling.next = append.offsets().end;
        filling.at = end;
        filling.in_flight.push_back((append, bytes.len()));
        filling.in_flight_bytes += bytes.len();
        filling
            .summary
            .add(header, bytes.len() as u64, filling.modified_ms);
        if filling.summary.bytes - filling.indexed_bytes >= filling.interval {
            filling.index.push(filling.summary.entry());
            filling.indexed_bytes = filling.summary.bytes;
        }
        pace.take(bytes.len() as u64).await;
        Ok(true)
    }

    /// Waits until all of it is durable.
    pub(super) async fn finish_filling(&self, filling: &mut Filling) -> Result<(), LogError> {
        while !filling.in_flight.is_empty() {
            self.wait_for_oldest(filling).await?;
        }
        Ok(())
    }

    async fn wait_for_oldest(&self, filling: &mut Filling) -> Result<(), LogError> {
        let Some((append, bytes)) = filling.in_flight.pop_front() else {
            return Ok(());
        };
        filling.in_flight_bytes -= bytes;
        append.await.map_err(|error| self.failed(error))?;
        Ok(())
    }
}
