//! Whether what was found at a place is what the caller's state says it must be. One rule for every backend.
//!
//! A place that may owe data is never made anew, and a log is never opened below an epoch that was started on it.

use crate::{Error, Identity, LogEpoch, LogState};

/// What a place says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Whose log it is.
    pub identity: Identity,
    /// The newest epoch that was started here, if one was.
    pub epoch: Option<LogEpoch>,
    /// It owes nothing: closed when all was trimmed, or never started.
    pub closed: bool,
}

/// What an opening does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Nothing here is owed: make the log, from position 0.
    Make,
    /// The log goes on where it ended. There may be nothing to replay.
    Resume,
}

/// Judges a valid `state` against what `place` claims to be; `None` is a blank place. Every backend asks at open, once it has exclusive use.
///
/// # Errors
/// `Missing`, `Mismatch`, `NotNew`, `Fenced`.
pub fn admit(place: &str, claim: Option<&Claim>, state: &LogState) -> Result<Admission, Error> {
    let newest = state.started().next_back();
    let Some(claim) = claim else {
        return match newest {
            None => Ok(Admission::Make),
            Some(newest) => Err(Error::Missing {
                place: place.to_owned(),
                what: format!(
                    "blank, but epoch {} of {} was started here",
                    newest.epoch, state.identity
                ),
            }),
        };
    };
    if claim.identity != state.identity {
        if newest.is_none() && claim.closed {
            return Ok(Admission::Make);
        }
        return Err(Error::Mismatch {
            place: place.to_owned(),
            found: claim.identity.to_string(),
            expected: state.identity.to_string(),
        });
    }
    if newest.is_none() && !claim.closed {
        let found = match claim.epoch {
            Some(epoch) => format!("epoch {epoch} of {}", claim.identity),
            None => claim.identity.to_string(),
        };
        return Err(Error::NotNew {
            place: place.to_owned(),
            found,
        });
    }
    let Some(held) = claim.epoch else {
        return Ok(Admission::Resume);
    };
    if held >= state.epoch {
        return Err(Error::Fenced {
            by: format!(
                "epoch {held}, started on {place}; epoch {} was granted here",
                state.epoch
            ),
        });
    }
    // The state is older than the place: a start is recorded before it is made (F0), and none is forgotten while it owes.
    let unstarted = state.owed.iter().any(|e| e.epoch == held && !e.started);
    let unsealed_below = newest.is_some_and(|e| e.sealed_end.is_none() && e.epoch < held);
    if unstarted || unsealed_below {
        return Err(Error::Mismatch {
            place: place.to_owned(),
            found: format!("epoch {held} started"),
            expected: match newest {
                Some(newest) => format!("epoch {} as the newest started", newest.epoch),
                None => "no started epoch".to_owned(),
            },
        });
    }
    Ok(Admission::Resume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EpochState, LogUuid, Position};

    fn identity(log: u128) -> Identity {
        Identity {
            cluster: 1,
            log: LogUuid::new(log),
            node: 3,
        }
    }

    fn claim(epoch: Option<u64>, closed: bool) -> Claim {
        Claim {
            identity: identity(7),
            epoch: epoch.map(LogEpoch::new),
            closed,
        }
    }

    fn state(epoch: u64, owed: &[(u64, bool, Option<u64>)]) -> LogState {
        let owed = owed
            .iter()
            .map(|&(epoch, started, end)| EpochState {
                epoch: LogEpoch::new(epoch),
                trim: Position::default(),
                durable_end: Position::default(),
                sealed_end: end.map(Position::new),
                started,
            })
            .collect();
        LogState {
            identity: identity(7),
            epoch: LogEpoch::new(epoch),
            owed,
        }
    }

    #[test]
    fn a_blank_place_is_made_only_for_a_state_without_started_epochs() {
        assert_eq!(admit("x", None, &state(1, &[])).unwrap(), Admission::Make);
        assert_eq!(
            admit("x", None, &state(2, &[(1, false, None)])).unwrap(),
            Admission::Make
        );
        let refused = admit("x", None, &state(2, &[(1, true, None)]));
        assert!(matches!(refused, Err(Error::Missing { .. })), "{refused:?}");
    }

    #[test]
    fn a_place_that_may_owe_is_not_new() {
        let refused = admit("x", Some(&claim(Some(1), false)), &state(2, &[]));
        assert!(matches!(refused, Err(Error::NotNew { .. })), "{refused:?}");
        let other = LogState::new(identity(8), LogEpoch::new(2));
        let refused = admit("x", Some(&claim(Some(1), false)), &other);
        assert!(
            matches!(refused, Err(Error::Mismatch { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_place_that_owes_nothing_may_be_made_anew() {
        let other = LogState::new(identity(8), LogEpoch::new(2));
        assert_eq!(
            admit("x", Some(&claim(Some(1), true)), &other).unwrap(),
            Admission::Make
        );
        let same = admit("x", Some(&claim(Some(1), true)), &state(2, &[]));
        assert_eq!(same.unwrap(), Admission::Resume);
    }

    #[test]
    fn an_epoch_that_was_started_here_fences_lower_and_equal_ones() {
        for epoch in [4, 5] {
            let refused = admit(
                "x",
                Some(&claim(Some(5), false)),
                &state(epoch, &[(1, true, None)]),
            );
            assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_state_that_forgot_a_start_is_refused() {
        for owed in [
            vec![(1, true, Some(0)), (5, false, None)],
            vec![(1, true, None)],
        ] {
            let refused = admit("x", Some(&claim(Some(5), false)), &state(6, &owed));
            assert!(
                matches!(refused, Err(Error::Mismatch { .. })),
                "{refused:?}"
            );
        }
    }
}
