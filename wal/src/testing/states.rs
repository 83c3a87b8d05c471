//! A log's state as tests grant it, where no metadata does.

use crate::{EpochState, Identity, LogEpoch, LogState, LogUuid, Position};

/// The state of a log that was never opened, for its first epoch.
pub fn new_log() -> LogState {
    let identity = Identity {
        cluster: 1,
        log: LogUuid::new(0xabc << 64 | 2),
        node: 3,
    };
    LogState::new(identity, LogEpoch::new(1))
}

/// Grants the next opening its epoch. The one before stays listed, as not started if that was never recorded.
pub fn grant_next(state: &mut LogState) {
    if state.owed.last().is_none_or(|e| e.epoch < state.epoch) {
        state.owed.push(EpochState {
            epoch: state.epoch,
            trim: Position::default(),
            durable_end: Position::default(),
            sealed_end: None,
            started: false,
        });
    }
    state.grant(LogEpoch::new(state.epoch.get() + 1));
}

/// What ends at or below this was trimmed: the trim of the lowest started epoch, since a later one's is at least where it began.
pub fn trim_of(state: &LogState) -> Position {
    state.started().next().map(|e| e.trim).unwrap_or_default()
}
