//! Compaction: sealed segments are written anew, without what newer records of the same keys have superseded.
//!
//! A pass fills the map of keys from what is dirty, then goes over the log from its first segment on, group by group: the
//! batches of a group that are kept are appended to the third stream, each covering the gap before it (K1), and when they
//! are durable one edit of the meta stream puts a segment of them in the place of the group. With it goes how far the log
//! is clean, and which aborted transactions nothing is left of. A pass that ends at any point leaves a log that reads the
//! same and is a little cleaner; what it wrote in vain is given up by the next one, or by retention.
//!
//! The active segment is never touched, nor one that is not wholly below the last stable offset. Nothing waits for a pass
//! but another pass: it takes the log's maintenance only for a swap, and ends when the log was cut or its segments went.

mod fill;
mod swap;
mod walk;

use std::sync::Arc;

use s3stream::segment::Segment;

use super::{KafkaLog, Life};
use crate::compact::{
    Aborts, Bounds, Dirtiness, DirtyFold, Fate, Folded, Limits, Pass, Round, Span, groups,
};
use crate::compactor::{Compactor, Pace};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::summary::{SEGMENT_EPOCHS_MAX, Sealed};
use fill::Filling;

/// How dirty a log is whose settings say that it is to be compacted now.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dirty {
    /// How much of what a pass would read was never compacted, 0 to 1. The dirtiest log comes first.
    pub ratio: f64,
    /// Bytes of that.
    pub bytes: u64,
    /// Something of it is older than `max.compaction.lag.ms` allows.
    pub is_late: bool,
}

/// What a pass has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compacted {
    /// Whether it went on to its end. Not if the log was cut or its segments went meanwhile: what it swapped before counts.
    pub finished: bool,
    /// The log is clean below.
    pub cleaned: i64,
    /// Bytes that were read for the keys of what was dirty.
    pub dirty_bytes: u64,
    /// Bytes of batches that were read to be written anew.
    pub bytes_in: u64,
    /// Bytes of batches that were written.
    pub bytes_out: u64,
    /// Records that were read to be written anew, without aborted ones.
    pub records_in: u64,
    /// Records that are kept of them.
    pub records_out: u64,
    /// How many of these are tombstones.
    pub tombstones_out: u64,
    /// Segments that were replaced, and by how many.
    pub segments: (usize, usize),
}

/// A log at the moment when a pass begins.
struct Plan {
    config: Arc<LogConfig>,
    /// The sealed ones.
    segments: Vec<(Arc<Segment>, Sealed)>,
    spans: Vec<Span>,
    dirtiness: Dirtiness,
    /// The last stable offset.
    stable: i64,
    aborts: Aborts,
    last_offsets: std::collections::BTreeMap<i64, i64>,
    truncations: u64,
}

impl KafkaLog {
    /// How dirty the log is, if its settings say that it is to be compacted at `now_ms`. Looks at what is in memory alone.
    /// Nothing of a log that cannot be compacted.
    ///
    /// # Errors
    /// `StoredState`: the attributes of a segment cannot be read.
    pub fn dirty(&self, now_ms: i64) -> Result<Option<Dirty>, LogError> {
        {
            let state = self.shared.state.lock();
            let is_open = matches!(state.life, Life::Open);
            if !is_open || !state.config.compact || state.uncleanable.is_some() {
                return Ok(None);
            }
        }
        let plan = self.plan(now_ms, false)?;
        let dirtiness = &plan.dirtiness;
        if !dirtiness.is_due(&limits(&plan.config)) {
            return Ok(None);
        }
        Ok(Some(Dirty {
            ratio: dirtiness.ratio(),
            bytes: dirtiness.dirty_bytes,
            is_late: dirtiness.is_late,
        }))
    }

    /// Why the log cannot be compacted, if a pass has found damage: until it is opened again or cut it is left alone.
    pub fn uncleanable(&self) -> Option<LogError> {
        self.shared.state.lock().uncleanable.clone()
    }

    /// Compacts what can be, however little is dirty: removes what newer records supersede, aborted data, and what was
    /// deleted long enough ago. May be dropped at any time. Reads, appends and retention go on meanwhile.
    ///
    /// # Errors
    /// `Busy`: another pass is under way. `PolicyViolation`: the log is not compacted. `Corrupt`, `InvalidRecord`,
    /// `Undecodable`, `UnsupportedCompression`, `MessageTooLarge`, `StoredState`: a batch is damaged; the log is
    /// uncleanable from now on. `Storage`, `Overloaded`, `NotLeader`: call again. `Stopped`, `Closed`, `Deleted`: the log
    /// is over. In all cases it reads as before, and may be cleaner.
    pub async fn compact(
        &self,
        compactor: &mut Compactor,
        now_ms: i64,
    ) -> Result<Compacted, LogError> {
        let Ok(_one_at_a_time) = self.shared.compacting.try_lock() else {
            return Err(LogError::Busy("the log is being compacted".into()));
        };
        self.check_open()?;
        if !self.config().compact {
            return Err(LogError::PolicyViolation(
                "cleanup.policy does not contain compact".into(),
            ));
        }
        let outcome = self.pass(compactor, now_ms).await;
        if let Err(error) = &outcome
            && is_damage(error)
        {
            self.shared.state.lock().uncleanable = Some(error.clone());
        }
        outcome
    }

    /// What the log is now, for a pass; without what it knows of producers, for a look at it.
    fn plan(&self, now_ms: i64, for_a_pass: bool) -> Result<Plan, LogError> {
        let (config, offsets, segments, aborts, last_offsets, truncations) = {
            let mut state = self.shared.state.lock();
            let offsets = self.offsets_in(&mut state);
            let (aborts, last_offsets) = if for_a_pass {
                let aborts = Aborts::new(state.producers.aborted());
                (aborts, state.producers.last_offsets())
            } else {
                Default::default()
            };
            (
                state.config.clone(),
                offsets,
                self.shared.log.segments(),
                aborts,
                last_offsets,
                state.truncations,
            )
        };
        let active = segments.last().filter(|last| !last.is_sealed());
        let active = active.map_or(offsets.leo, |active| active.base as i64);
        let mut sealed = Vec::with_capacity(segments.len());
        for segment in segments.into_iter().filter(|segment| segment.is_sealed()) {
            let attributes = Sealed::decode(&segment.attributes)?;
            sealed.push((segment, attributes));
        }
        let spans: Vec<Span> = sealed.iter().map(span).collect();
        let unclean = sealed
            .iter()
            .zip(&spans)
            .find(|((_, sealed), span)| sealed.cleaned < span.end);
        let checkpoint =
            unclean.map_or(active, |((_, sealed), span)| sealed.cleaned.max(span.base));
        let bounds = Bounds {
            checkpoint: Some(checkpoint),
            start: offsets.log_start,
            end: offsets.leo,
            active,
            stable: offsets.lso,
        };
        let dirtiness = Dirtiness::of(&spans, bounds, &limits(&config), now_ms);
        Ok(Plan {
            config,
            segments: sealed,
            spans,
            dirtiness,
            stable: offsets.lso,
            aborts,
            last_offsets,
            truncations,
        })
    }

    async fn pass(&self, compactor: &mut Compactor, now_ms: i64) -> Result<Compacted, LogError> {
        let plan = self.plan(now_ms, true)?;
        let Dirtiness {
            first_dirty, end, ..
        } = plan.dirtiness;
        let (map, pace) = compactor.begin(end.abs_diff(first_dirty));
        let mut compacted = Compacted {
            cleaned: first_dirty,
            ..Compacted::default()
        };
        let decompressed_bytes_max = plan.config.decompressed_limit();
        let mut fold = DirtyFold::new(map, &plan.aborts, first_dirty, decompressed_bytes_max);
        if !self.fold(&plan, &mut fold, pace).await? {
            return Ok(compacted);
        }
        compacted.dirty_bytes = fold.read().0;
        let cleaned = fold.end();
        let round = Round {
            map: &*map,
            aborts: plan.aborts.clone(),
            last_offsets: plan.last_offsets.clone(),
            now_ms,
            delete_retention_ms: plan.config.delete_retention_ms,
            end,
            decompressed_bytes_max,
        };
        let mut pass = Pass::new(round);
        let within = |span: &&Span| span.base < cleaned && span.end <= plan.stable;
        let count = plan.spans.iter().take_while(within).count();
        for group in groups(
            &plan.spans[..count],
            plan.config.segment_bytes,
            SEGMENT_EPOCHS_MAX,
        ) {
            let group = &plan.segments[group];
            let Some(filled) = self.rewrite(&plan, group, &mut pass, pace).await? else {
                return Ok(tell(compacted, &pass));
            };
            let markers: Vec<i64> = pass
                .take_emptied()
                .iter()
                .map(|aborted| aborted.last_offset)
                .collect();
            let swapped = self.swap(&plan, group, filled, cleaned, &markers).await?;
            let Some(end) = swapped else {
                return Ok(tell(compacted, &pass));
            };
            compacted.segments.0 += group.len();
            compacted.segments.1 += 1;
            compacted.cleaned = compacted.cleaned.max(cleaned.min(end));
        }
        compacted.finished = true;
        compacted.cleaned = compacted.cleaned.max(cleaned);
        Ok(tell(compacted, &pass))
    }

    /// Fills the map from what is dirty, until it is full; `false` if the log changed meanwhile.
    async fn fold(
        &self,
        plan: &Plan,
        fold: &mut DirtyFold<'_>,
        pace: &mut Pace,
    ) -> Result<bool, LogError> {
        let Dirtiness {
            first_dirty, end, ..
        } = plan.dirtiness;
        let bases = plan.spans.iter().map(|span| span.base);
        let next_bases = bases.skip(1).chain([end]);
        for ((segment, _), next_base) in plan.segments.iter().zip(next_bases) {
            let (base, segment_end) = (segment.base as i64, segment.end.unwrap_or(0) as i64);
            if segment_end <= first_dirty {
                continue;
            }
            // Only whole segments may be cleaned; if none may, the end is where the first begins to be dirty.
            if segment_end > end {
                break;
            }
            let mut walk = self.walk(plan, segment, first_dirty.max(base) as u64);
            while let Some(chunk) = walk.next(pace).await? {
                for batch in &chunk {
                    if fold.add(batch)? == Folded::Full {
                        return Ok(true);
                    }
                }
            }
            if walk.overtaken {
                return Ok(false);
            }
            fold.segment_ended(next_base.min(end));
        }
        Ok(true)
    }

    /// Appends what is kept of a group to the third stream; `None` if the log changed meanwhile.
    async fn rewrite(
        &self,
        plan: &Plan,
        group: &[(Arc<Segment>, Sealed)],
        pass: &mut Pass<'_>,
        pace: &mut Pace,
    ) -> Result<Option<Filling>, LogError> {
        let mut filling = self.begin_filling(plan, group);
        let len_max = self.shared.compacted.payload_len_max();
        let len_max = len_max.map_err(|error| self.failed(error))?;
        for (segment, _) in group {
            let mut walk = self.walk(plan, segment, segment.base);
            while let Some(chunk) = walk.next(pace).await? {
                for batch in chunk {
                    let kept = match pass.add(&batch)? {
                        Fate::Removed => continue,
                        Fate::Untouched => batch,
                        // New times or another compression may make it larger than what can be written: it is cleaned no further.
                        Fate::Rewritten(rewritten) if rewritten.bytes().len() > len_max => batch,
                        Fate::Rewritten(rewritten) => rewritten,
                    };
                    if !self.fill(&mut filling, &kept, pace).await? {
                        return Ok(None);
                    }
                }
            }
            if walk.overtaken {
                return Ok(None);
            }
        }
        self.finish_filling(&mut filling).await?;
        Ok(Some(filling))
    }
}

fn limits(config: &LogConfig) -> Limits {
    Limits {
        dirty_ratio_min: config.min_cleanable_dirty_ratio,
        min_lag_ms: config.min_compaction_lag_ms,
        max_lag_ms: config.max_compaction_lag_ms,
    }
}

fn span((segment, sealed): &(Arc<Segment>, Sealed)) -> Span {
    Span {
        base: segment.base as i64,
        end: segment.end.unwrap_or(segment.base) as i64,
        bytes: sealed.summary.bytes,
        first_timestamp: sealed.summary.first_timestamp,
        max_timestamp: sealed.summary.retention_timestamp(),
        epochs: sealed.epochs.len(),
    }
}

fn tell(compacted: Compacted, pass: &Pass) -> Compacted {
    let stats = pass.stats();
    Compacted {
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        records_in: stats.records_in,
        records_out: stats.records_out,
        tombstones_out: stats.tombstones_out,
        ..compacted
    }
}

/// Whether it is the log's own data that is at fault, so that trying again will not help.
fn is_damage(error: &LogError) -> bool {
    match error {
        LogError::Corrupt(_)
        | LogError::InvalidRecord { .. }
        | LogError::MessageTooLarge { .. }
        | LogError::UnsupportedCompression(_)
        | LogError::UnsupportedFormat(_)
        | LogError::Undecodable { .. }
        | LogError::StoredState(_) => true,
        LogError::Storage(error) => error.kind() == s3stream::ErrorKind::Corrupt,
        _ => false,
    }
}
