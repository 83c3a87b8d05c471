//! What the caller's metadata knows of a log, told to it at open (W7, W8, M6).
//!
//! - `owed` is strictly ascending by epoch, and the granted epoch is above all of it.
//! - Of each started epoch: `trim ≤ sealed_end`, `durable_end ≤ sealed_end`; a later one begins at or above an earlier one's sealed end.
//! - Only the newest started epoch may be unsealed: a start records the ends of all before it (F0 step 5).
//!
//! A plain value. Whoever has no metadata (bench, suite, examples) keeps one in memory and lets [`LogState::begin`], [`LogState::grant`] and
//! [`LogState::trim`] do what the metadata would.

use crate::{Error, Identity, LogEpoch, Position};

/// One epoch of a log that may still owe data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochState {
    /// Which.
    pub epoch: LogEpoch,
    /// Everything below is settled; nothing below is looked at (W7).
    pub trim: Position,
    /// What [`Log::durable_end`](crate::Log::durable_end) said when `trim` was recorded: nothing below may be missing (F2).
    pub durable_end: Position,
    /// Where the epoch ends for ever, once an opening has replayed it and the caller has recorded it (W8).
    pub sealed_end: Option<Position>,
    /// The caller recorded the epoch's start before [`Replay::start`](crate::Replay::start): it may hold acknowledged records. An epoch
    /// that was granted and not started never acknowledged anything.
    pub started: bool,
}

/// Where a started, owed epoch was found to end. Recorded by the caller as its sealed end before it starts or serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// Which.
    pub epoch: LogEpoch,
    /// Its end.
    pub end: Position,
}

/// What the caller knows of a log, and the epoch it was granted for this opening.
///
/// No started epoch in `owed` means a new log; a log that finds itself not new then refuses, unless it says of itself that it was closed and
/// owes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogState {
    /// Whose log it must be.
    pub identity: Identity,
    /// The epoch granted to this opening, above all in `owed`.
    pub epoch: LogEpoch,
    /// Unretired epochs, ascending.
    pub owed: Vec<EpochState>,
}

impl LogState {
    /// A log that does not exist yet, to be opened for `epoch`.
    pub fn new(identity: Identity, epoch: LogEpoch) -> Self {
        Self {
            identity,
            epoch,
            owed: Vec::new(),
        }
    }

    /// The started epochs, ascending: those that may hold acknowledged records.
    pub fn started(&self) -> impl DoubleEndedIterator<Item = &EpochState> {
        self.owed.iter().filter(|e| e.started)
    }

    /// Whether the value keeps the invariants above. Every backend asks at open.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first epoch that breaks one.
    pub fn validate(&self) -> Result<(), Error> {
        let mut lowest = None;
        for epoch in self.owed.iter().map(|e| e.epoch).chain([self.epoch]) {
            if lowest.is_some_and(|lowest| epoch <= lowest) {
                return Err(Error::Invalid(format!(
                    "log state of {}: epoch {epoch} out of order",
                    self.identity
                )));
            }
            lowest = Some(epoch);
        }
        let mut floor = Position::default();
        let mut unsealed = None;
        for e in self.started() {
            if let Some(before) = unsealed {
                return Err(Error::Invalid(format!(
                    "log state of {}: epoch {} started while {before} is unsealed",
                    self.identity, e.epoch
                )));
            }
            if e.trim < floor {
                return Err(Error::Invalid(format!(
                    "log state of {}: epoch {} trimmed to {}, the epoch before ends at {floor}",
                    self.identity, e.epoch, e.trim
                )));
            }
            match e.sealed_end {
                Some(end) if end < e.trim || end < e.durable_end => {
                    return Err(Error::Invalid(format!(
                        "log state of {}: epoch {} sealed at {end}, below its trim {} or durable end {}",
                        self.identity, e.epoch, e.trim, e.durable_end
                    )));
                }
                Some(end) => floor = end,
                None => unsealed = Some(e.epoch),
            }
        }
        Ok(())
    }

    /// F0 step 5 for a caller without metadata: records the ends that an opening found and the granted epoch as started at `start`.
    pub fn begin(&mut self, ends: &[EpochEnd], start: Position) {
        for end in ends {
            for e in self.owed.iter_mut().filter(|e| e.epoch == end.epoch) {
                e.sealed_end = Some(end.end);
            }
        }
        self.owed.retain(|e| e.started);
        self.owed.push(EpochState {
            epoch: self.epoch,
            trim: start,
            durable_end: start,
            sealed_end: None,
            started: true,
        });
    }

    /// Grants the next opening its epoch. The one before stays owed: as started if [`begin`](Self::begin) was called, else not at all.
    pub fn grant(&mut self, epoch: LogEpoch) {
        self.epoch = epoch;
    }

    /// Raises the trim of every epoch to `to`, with the log's durable end of this moment. Sealed epochs that lie wholly below are retired.
    pub fn trim(&mut self, to: Position, durable_end: Position) {
        for e in &mut self.owed {
            let top = e.sealed_end.unwrap_or(Position::new(u64::MAX));
            e.trim = e.trim.max(to.min(top));
            e.durable_end = e.durable_end.max(durable_end.min(top));
        }
        self.owed
            .retain(|e| e.sealed_end.is_none_or(|end| e.trim < end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogUuid;

    fn state(owed: Vec<EpochState>) -> LogState {
        LogState {
            identity: Identity {
                cluster: 1,
                log: LogUuid::new(2),
                node: 3,
            },
            epoch: LogEpoch::new(9),
            owed,
        }
    }

    fn epoch(epoch: u64, trim: u64, sealed_end: Option<u64>) -> EpochState {
        EpochState {
            epoch: LogEpoch::new(epoch),
            trim: Position::new(trim),
            durable_end: Position::new(trim),
            sealed_end: sealed_end.map(Position::new),
            started: true,
        }
    }

    #[test]
    fn a_state_in_order_is_accepted() {
        state(vec![
            epoch(1, 0, Some(10)),
            epoch(4, 10, Some(10)),
            epoch(5, 12, None),
        ])
        .validate()
        .unwrap();
    }

    #[test]
    fn a_state_that_contradicts_itself_is_refused() {
        for owed in [
            vec![epoch(2, 0, Some(10)), epoch(1, 10, None)],
            vec![epoch(9, 0, None)],
            vec![epoch(1, 0, None), epoch(2, 10, None)],
            vec![epoch(1, 0, Some(10)), epoch(2, 9, None)],
            vec![epoch(1, 11, Some(10))],
        ] {
            let state = state(owed);
            assert!(
                matches!(state.validate(), Err(Error::Invalid(_))),
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_trim_retires_the_sealed_epochs_below_it() {
        let mut state = state(vec![epoch(1, 0, Some(10)), epoch(2, 10, None)]);
        state.trim(Position::new(15), Position::new(20));
        assert_eq!(state.owed.len(), 1);
        assert_eq!(state.owed[0].trim, Position::new(15));
        assert_eq!(state.owed[0].durable_end, Position::new(20));
    }
}
