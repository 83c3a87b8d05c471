//! The swap: a segment of what was kept takes the place of its group, in one edit of the meta stream.

use std::sync::Arc;

use s3stream::segment::Segment;

use super::Plan;
use super::fill::Filling;
use crate::epochs::Epochs;
use crate::error::LogError;
use crate::log::KafkaLog;
use crate::summary::Sealed;

impl KafkaLog {
    /// Puts what was kept in the place of `group`, whose end is returned; `None` if the log changed meanwhile. The log is
    /// clean below `cleaned`; nothing is left of the aborted transactions with these markers.
    ///
    /// What readers are told of aborted transactions changes when the edit is queued, with it in the meta stream: if it is
    /// not kept, nothing later is.
    pub(super) async fn swap(
        &self,
        plan: &Plan,
        group: &[(Arc<Segment>, Sealed)],
        filled: Filling,
        cleaned: i64,
        markers: &[i64],
    ) -> Result<Option<i64>, LogError> {
        let _one_at_a_time = self.shared.maintenance.lock().await;
        self.check_open()?;
        let segments: Vec<&Segment> = group.iter().map(|(segment, _)| &**segment).collect();
        let end = group.last().and_then(|(last, _)| last.end);
        let Some(end) = end.filter(|_| !self.has_changed(plan, &segments)) else {
            return Ok(None);
        };
        let with = Segment {
            base: filled.base,
            end: Some(end),
            slices: filled.slice(self).into_iter().collect(),
            attributes: attributes(group, &filled, end as i64, cleaned).encode(),
        };
        let run = filled.base..end;
        let mut emptied = Vec::new();
        let replaced = self.shared.log.replace(run, vec![with], || {
            let mut state = self.shared.state.lock();
            let (known, change) = state.producers.forget_emptied(markers);
            state.emptied += known.len() as u64;
            emptied = known;
            (state, change)
        });
        if let Err(error) = replaced.await {
            if !self.has_changed(plan, &segments) {
                self.shared.state.lock().producers.put_back(emptied);
            }
            return Err(self.failed(error));
        }
        Ok(Some(end as i64))
    }
}

/// What is known of the segment of what was kept: all offsets of its group are its own.
fn attributes(
    group: &[(Arc<Segment>, Sealed)],
    filled: &Filling,
    end: i64,
    cleaned: i64,
) -> Sealed {
    let mut epochs = Epochs::default();
    for entry in group.iter().flat_map(|(_, sealed)| &sealed.epochs) {
        // As when the log is opened; what was refused then was never stored.
        let _known = epochs.assign(entry.epoch, entry.start);
    }
    let mut summary = filled.summary.clone();
    summary.end = end;
    let mut sealed = Sealed::new(summary, epochs.starts(), &filled.index);
    sealed.cleaned = cleaned.min(end);
    sealed
}
