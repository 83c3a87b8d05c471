//! Commits, decided range by range in M4's order: dropped, trimmed, already there, epoch, continuity.
//!
//! A committed end moves only with an object that holds what it passes, or with a trim. A refused range stops no other.

use std::ops::Range;

use wal::LogUuid;

use super::{Exception, Object, State, apply::Caller, node::check_log_trim};
use crate::{
    metadata::{
        answer::{Answer, Committed, RangeOutcome, Refusal},
        command::Commit,
    },
    object::{ObjectKind, StreamRange},
};

/// What was decided of a range: how much of it counts, and what is to be said of it.
struct Decision {
    valid: Range<u64>,
    outcome: Option<RangeOutcome>,
}

impl Decision {
    fn nothing(outcome: RangeOutcome, at: u64) -> Self {
        Self {
            valid: at..at,
            outcome: Some(outcome),
        }
    }
}

impl State {
    pub(super) fn commit(&mut self, caller: Caller, commit: &Commit) -> Answer {
        if let Err(refusal) = check_commit(commit) {
            return Answer::Refused(refusal);
        }
        // Condemned, forgotten, committed before, or another life's: it needs a new id (O4).
        if self.prepared.get(&commit.object) != Some(&caller.epoch) {
            return Answer::Refused(Refusal::NotPrepared(commit.object));
        }
        self.prepared.remove(&commit.object);
        let mut outcomes = Vec::new();
        let mut exceptions = Vec::new();
        let mut valid: Option<Range<u64>> = None;
        for (index, range) in commit.ranges.iter().enumerate() {
            let decision = self.decide_range(caller, commit.log, range);
            if !decision.valid.is_empty() {
                if let Some(stream) = self.streams.get_mut(&range.stream) {
                    stream.end = decision.valid.end;
                }
                let start = valid
                    .as_ref()
                    .map_or(decision.valid.start, |valid| valid.start);
                valid = Some(start..decision.valid.end);
            }
            if let Some(outcome) = decision.outcome {
                outcomes.push((index as u32, outcome));
                exceptions.push(Exception {
                    range: range.clone(),
                    valid: decision.valid,
                });
            }
        }
        match &valid {
            Some(valid) => self.make_visible(caller, commit, valid, exceptions),
            // An object of which nothing counts must not linger (O4).
            None => {
                self.condemned.insert(commit.object, self.tip.index);
            }
        }
        let settled = outcomes.iter().all(|(_, outcome)| outcome.is_settled());
        Answer::Committed(Committed {
            visible: valid.is_some(),
            exceptions: outcomes,
            trims: self.trim_log(caller, commit.log, &commit.trim, settled),
        })
    }

    fn decide_range(&self, caller: Caller, log: LogUuid, range: &StreamRange) -> Decision {
        let Range { start, end } = range.offsets;
        let Some(stream) = self.streams.get(&range.stream) else {
            return Decision::nothing(RangeOutcome::Dropped, start);
        };
        if end <= stream.start {
            return Decision::nothing(RangeOutcome::Trimmed, start);
        }
        if end <= stream.end {
            return Decision::nothing(RangeOutcome::AlreadyThere, start);
        }
        let sealed_end = match self.sealed_end_for(caller, log, range) {
            Ok(sealed_end) => sealed_end,
            Err(refusal) => return Decision::nothing(RangeOutcome::Impossible(refusal), start),
        };
        let valid_end = end.min(sealed_end);
        let past = (sealed_end < end).then_some(RangeOutcome::PastSealedEnd { sealed_end });
        if let Some(past) = &past
            && valid_end <= stream.end.max(start)
        {
            return Decision::nothing(past.clone(), start);
        }
        // What a trim removed in front needs no predecessor.
        match start.max(stream.start).cmp(&stream.end) {
            std::cmp::Ordering::Equal => Decision {
                valid: start..valid_end,
                outcome: past,
            },
            std::cmp::Ordering::Greater => Decision::nothing(
                RangeOutcome::NotSettled {
                    committed_end: stream.end,
                },
                start,
            ),
            std::cmp::Ordering::Less => Decision::nothing(
                RangeOutcome::Impossible(Refusal::Overlap {
                    start,
                    end,
                    committed_end: stream.end,
                }),
                start,
            ),
        }
    }

    /// How far the range's epoch may commit, if the caller may at all: without bound under the current epoch, else up to its seal.
    fn sealed_end_for(
        &self,
        caller: Caller,
        log: LogUuid,
        range: &StreamRange,
    ) -> Result<u64, Refusal> {
        let stream = self.streams.get(&range.stream).ok_or(Refusal::NotFound)?;
        let group = self.groups.get(&stream.group).ok_or(Refusal::NotFound)?;
        let own = group.owner == Some(caller.node) && group.log_epoch == caller.epoch;
        if range.epoch == group.epoch && own {
            return Ok(u64::MAX);
        }
        let Some(sealed) = stream
            .sealed
            .iter()
            .find(|sealed| sealed.epoch == range.epoch)
        else {
            return Err(Refusal::UnknownEpoch(range.epoch));
        };
        match self.debts.get(&sealed.log_epoch) {
            Some(debt) if debt.log != log => Err(Refusal::OtherLog {
                uuid: debt.log,
                url: debt.url.clone(),
            }),
            Some(debt) if debt.holder != caller.node => Err(Refusal::HeldBy(debt.holder)),
            Some(_) => Ok(sealed.end),
            None => Err(Refusal::UnknownEpoch(range.epoch)),
        }
    }

    fn make_visible(
        &mut self,
        caller: Caller,
        commit: &Commit,
        valid: &Range<u64>,
        exceptions: Vec<Exception>,
    ) {
        let (Some(first), Some(last)) = (commit.ranges.first(), commit.ranges.last()) else {
            return;
        };
        let order = self.next.order;
        self.next.order += 1;
        let mut object = Object {
            order,
            kind: commit.kind,
            size: commit.size,
            node_epoch: caller.epoch,
            streams: (first.stream, last.stream),
            offsets: 0..0,
            ranges: commit.ranges.len() as u32,
            exceptions: Vec::new(),
        };
        match commit.kind {
            ObjectKind::StreamSet => object.exceptions = exceptions,
            // One stream: what counts is one run, because each range had to continue the one before.
            ObjectKind::Stream => object.offsets = valid.clone(),
        }
        self.index_object(commit.object, &object);
        self.objects.insert(commit.object, object);
    }
}

fn check_commit(commit: &Commit) -> Result<(), Refusal> {
    let malformed = |why: String| Err(Refusal::Malformed(why));
    if commit.ranges.is_empty() || commit.size == 0 {
        return malformed(format!("object {} is empty", commit.object));
    }
    if commit.ranges.len() > u32::MAX as usize {
        return Err(Refusal::TooLarge(format!("object {}", commit.object)));
    }
    if commit.ranges.iter().any(|range| range.offsets.is_empty()) {
        return malformed(format!("object {} has an empty range", commit.object));
    }
    let ordered = |pair: &[StreamRange]| match pair {
        [a, b] => a.stream < b.stream || (a.stream == b.stream && a.offsets.end <= b.offsets.start),
        _ => true,
    };
    if !commit.ranges.windows(2).all(ordered) {
        return malformed(format!("object {} has ranges out of order", commit.object));
    }
    let (first, last) = (commit.ranges.first(), commit.ranges.last());
    let one_stream = first.map(|range| range.stream) == last.map(|range| range.stream);
    if commit.kind == ObjectKind::Stream && !one_stream {
        return malformed(format!(
            "stream object {} has several streams",
            commit.object
        ));
    }
    commit.trim.iter().try_for_each(check_log_trim)
}
