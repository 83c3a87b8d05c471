//! Reading a sealed segment for a pass, in pieces of bounded size.

use s3stream::segment::Segment;

use super::Plan;
use crate::batch::Batch;
use crate::compactor::Pace;
use crate::error::LogError;
use crate::log::read::whole_batch;
use crate::log::{KafkaLog, Life};

/// The most that is read at once, but for a batch that is larger.
const CHUNK_BYTES: usize = 1 << 20;

/// A walk over a segment as it was when the pass began.
pub(super) struct Walk<'a> {
    log: &'a KafkaLog,
    plan: &'a Plan,
    segment: &'a Segment,
    at: u64,
    end: u64,
    /// The log was cut or the segment went, so the walk has ended too early.
    pub(super) overtaken: bool,
}

impl KafkaLog {
    pub(super) fn walk<'a>(&'a self, plan: &'a Plan, segment: &'a Segment, from: u64) -> Walk<'a> {
        // A gap at the end of the segment is not read: the next one's first record would come.
        let last = segment.slices.last();
        Walk {
            log: self,
            plan,
            segment,
            at: from,
            end: last.and_then(|slice| slice.log_end()).unwrap_or(0),
            overtaken: false,
        }
    }

    /// Whether the log is not what a pass has begun with: it was cut or has ended, or a segment is not there any more.
    pub(super) fn has_changed(&self, plan: &Plan, segments: &[&Segment]) -> bool {
        {
            let state = self.shared.state.lock();
            if state.truncations != plan.truncations || !matches!(state.life, Life::Open) {
                return true;
            }
        }
        let now = self.shared.log.segments();
        !segments.iter().all(|segment| {
            let at = now.binary_search_by_key(&segment.base, |segment| segment.base);
            at.is_ok_and(|at| *now[at] == **segment)
        })
    }
}

impl Walk<'_> {
    /// The next batches in their order; `None` at the end.
    pub(super) async fn next(&mut self, pace: &mut Pace) -> Result<Option<Vec<Batch>>, LogError> {
        // What follows may be at hand at once; others come first.
        tokio::task::yield_now().await;
        if self.overtaken || self.at >= self.end {
            return Ok(None);
        }
        let shared = &self.log.shared;
        let fetched = shared.log.fetch_kept(self.at, CHUNK_BYTES).await;
        if self.log.has_changed(self.plan, &[self.segment]) {
            self.overtaken = true;
            return Ok(None);
        }
        let records = fetched.map_err(|error| self.log.failed(error))?.records;
        let mut chunk = Vec::with_capacity(records.len());
        let mut bytes = 0;
        for record in &records {
            if record.offsets.start >= self.end {
                break;
            }
            chunk.push(whole_batch(record)?);
            bytes += record.payload.len() as u64;
            self.at = record.offsets.end;
        }
        if chunk.is_empty() {
            return Err(LogError::StoredState(format!(
                "no batch at offset {} of a segment that goes on to {}",
                self.at, self.end
            )));
        }
        pace.take(bytes).await;
        Ok(Some(chunk))
    }
}
