//! What one stream may answer, given everything that was asked of it so far, over all lives.
//!
//! - *Fixed* is what was acknowledged or seen by a reader: it stays, at its offsets, byte for byte, until trimmed (S1,
//!   S4, W8).
//! - What is not fixed is only possible: queued appends whose outcome is unknown (S5). At most one of those that
//!   overlap becomes fixed.
//! - `start ≤ confirm ≤ next` (S2), `confirm` never goes back, and no fetch reaches past it (S3).
//!
//! It knows no engine: it is told what was asked and what came back.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

use crate::{
    Violation,
    payload::{self, Identity},
};

type Verdict = Result<(), Violation>;

/// What is known of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Queued, or failed in a way that may have happened.
    Possible,
    Acknowledged,
}

#[derive(Clone, Debug)]
struct Attempt {
    offsets: Range<u64>,
    outcome: Outcome,
}

/// The bounds a stream reported at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    pub(crate) start: u64,
    pub(crate) confirm: u64,
    pub(crate) next: u64,
}

/// The checker of one stream.
#[derive(Debug)]
pub(crate) struct StreamChecker {
    seed: u64,
    stream: u64,
    /// Queued appends by sequence; refused ones are not in it, so that one of them coming back is an invention.
    attempts: BTreeMap<u64, Attempt>,
    next_sequence: u64,
    /// By start offset: the end and the sequence of the append that is there for ever.
    fixed: BTreeMap<u64, (u64, u64)>,
    confirm: u64,
    /// Trims that were acknowledged, and asked for.
    trimmed: u64,
    trim_asked: u64,
    pub(crate) checked: u64,
}

impl StreamChecker {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self {
            seed,
            stream,
            attempts: BTreeMap::new(),
            next_sequence: 0,
            fixed: BTreeMap::new(),
            confirm: 0,
            trimmed: 0,
            trim_asked: 0,
            checked: 0,
        }
    }

    /// The payload of the next append, and its sequence.
    pub(crate) fn payload(&mut self, len: usize) -> (u64, Bytes) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let identity = Identity {
            stream: self.stream,
            sequence,
        };
        (sequence, payload::make(self.seed, identity, len))
    }

    /// An append was queued with these offsets.
    pub(crate) fn queued(&mut self, sequence: u64, offsets: Range<u64>) -> Verdict {
        let fixed_end = self.fixed_end();
        if offsets.start < fixed_end {
            let what = format!("append {sequence} got {offsets:?}, but up to {fixed_end} is taken");
            return self.broken("S1", what);
        }
        self.attempts.insert(
            sequence,
            Attempt {
                offsets,
                outcome: Outcome::Possible,
            },
        );
        Ok(())
    }

    /// It was acknowledged.
    pub(crate) fn acknowledged(&mut self, sequence: u64, offsets: &Range<u64>) -> Verdict {
        let Some(attempt) = self.attempts.get_mut(&sequence) else {
            return self.broken(
                "S5",
                format!("append {sequence} was refused, then acknowledged"),
            );
        };
        if attempt.offsets != *offsets {
            let what = format!(
                "append {sequence} was queued at {:?}, durable at {offsets:?}",
                attempt.offsets
            );
            return self.broken("S1", what);
        }
        attempt.outcome = Outcome::Acknowledged;
        self.fix(sequence, offsets.clone())
    }

    /// A record was read.
    fn seen(&mut self, offsets: &Range<u64>, payload: &Bytes) -> Verdict {
        let identity = match payload::check(self.seed, payload) {
            Ok(identity) => identity,
            Err(what) => return self.broken("S4", format!("at {offsets:?}: {what}")),
        };
        if identity.stream != self.stream {
            return self.broken(
                "S4",
                format!("at {offsets:?} is a record of stream {}", identity.stream),
            );
        }
        let sequence = identity.sequence;
        let queued = self.attempts.get(&sequence).map(|attempt| &attempt.offsets);
        if queued != Some(offsets) {
            let what = format!("append {sequence} is at {offsets:?}, it was queued at {queued:?}");
            return self.broken("S4", what);
        }
        self.checked += 1;
        self.fix(sequence, offsets.clone())
    }

    /// A fetch from `from` found these records, when `confirm` was as given afterwards.
    pub(crate) fn fetched<'a>(
        &mut self,
        from: u64,
        records: impl Iterator<Item = (&'a Range<u64>, &'a Bytes)>,
        confirm: u64,
    ) -> Verdict {
        let mut expected = None;
        for (offsets, payload) in records {
            let follows = match expected {
                None => offsets.contains(&from),
                Some(end) => offsets.start == end,
            };
            if !follows {
                let what = format!("a fetch from {from} found {offsets:?} after {expected:?}");
                return self.broken("S1", what);
            }
            if offsets.end > confirm {
                let what = format!("a fetch from {from} found {offsets:?}, confirm is {confirm}");
                return self.broken("S3", what);
            }
            self.seen(offsets, payload)?;
            expected = Some(offsets.end);
        }
        Ok(())
    }

    /// The stream reported its bounds.
    pub(crate) fn bounds(&mut self, bounds: Bounds) -> Verdict {
        let Bounds {
            start,
            confirm,
            next,
        } = bounds;
        if start > confirm || confirm > next {
            return self.broken("S2", format!("{bounds:?}"));
        }
        if confirm < self.confirm {
            return self.broken(
                "S4",
                format!("confirm went back from {} to {confirm}", self.confirm),
            );
        }
        if confirm < self.fixed_end() {
            let what = format!(
                "confirm is {confirm}, acknowledged is up to {}",
                self.fixed_end()
            );
            return self.broken("S4", what);
        }
        if start < self.trimmed || start > self.trim_asked {
            let what = format!(
                "start is {start}, trimmed were {} to {}",
                self.trimmed, self.trim_asked
            );
            return self.broken("W7", what);
        }
        self.confirm = confirm;
        Ok(())
    }

    /// All of `start..confirm` was read: nothing that is fixed was missing.
    pub(crate) fn read_whole(&mut self, start: u64, confirm: u64) -> Verdict {
        let mut at = start;
        for (&fixed_start, &(end, sequence)) in &self.fixed {
            if end <= start {
                continue;
            }
            if fixed_start > at {
                break;
            }
            at = end;
            if at > confirm {
                return self.broken(
                    "S3",
                    format!("append {sequence} was seen past confirm {confirm}"),
                );
            }
        }
        if at < confirm {
            return self.broken("S1", format!("{at}..{confirm} was never appended"));
        }
        Ok(())
    }

    /// A trim was asked for.
    pub(crate) fn trim_asked(&mut self, below: u64) {
        self.trim_asked = self.trim_asked.max(below);
    }

    /// It was acknowledged.
    pub(crate) fn trimmed(&mut self, below: u64) {
        self.trimmed = self.trimmed.max(below);
    }

    /// A read below this may be answered with "trimmed".
    pub(crate) fn may_be_trimmed(&self) -> u64 {
        self.trim_asked
    }

    fn fixed_end(&self) -> u64 {
        self.fixed.last_key_value().map_or(0, |(_, (end, _))| *end)
    }

    /// Makes an append final; nothing else may be there, before or after.
    fn fix(&mut self, sequence: u64, offsets: Range<u64>) -> Verdict {
        let below = self.fixed.range(..offsets.end).next_back();
        if let Some((&start, &(end, other))) = below {
            if (start, end, other) == (offsets.start, offsets.end, sequence) {
                return Ok(());
            }
            if end > offsets.start {
                let what = format!(
                    "append {sequence} is at {offsets:?}, append {other} was at {start}..{end}"
                );
                return self.broken("W8", what);
            }
        }
        self.fixed.insert(offsets.start, (offsets.end, sequence));
        Ok(())
    }

    fn broken(&self, contract: &'static str, what: String) -> Verdict {
        Err(Violation::new(
            contract,
            format!("stream {}: {what}", self.stream),
        ))
    }
}

#[cfg(test)]
mod tests;
