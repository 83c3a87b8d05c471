//! The high watermark: the end of what is durable, or below that what the broker says.
//!
//! A log of one copy follows what is durable by itself. The broker of a partition with followers says how far those have
//! come, from the first call on and until the log is opened again; the high watermark is then the lower of the two, so it
//! moves by itself, too, while what the broker has said is not durable yet. Whoever copies the log
//! ([`Isolation::LogEnd`](crate::Isolation::LogEnd)) sees all that is durable.

use super::{KafkaLog, State};
use crate::error::LogError;

impl KafkaLog {
    /// Sets the high watermark to `to`, or to the nearest from the log start to the log end, and gives what it is then. It
    /// may go down, as when a broker becomes leader.
    pub fn update_high_watermark(&self, to: i64) -> i64 {
        let now = {
            let mut state = self.shared.state.lock();
            self.set_hw(&mut state, to);
            self.offsets_in(&mut state).hw
        };
        self.shared.moved.notify_waiters();
        now
    }

    /// As [`Self::update_high_watermark`], as a follower does that hears its leader's; gives what it is then if that is new.
    pub fn maybe_update_high_watermark(&self, to: i64) -> Option<i64> {
        let before = self.offsets().hw;
        Some(self.update_high_watermark(to)).filter(|now| *now != before)
    }

    /// Raises the high watermark to `to`, as a leader does whose followers have come so far; gives what it was if it is
    /// higher now. One that is there or above stays.
    ///
    /// # Errors
    /// `OffsetOutOfRange`: `to` is past the log end.
    pub fn maybe_increment_high_watermark(&self, to: i64) -> Result<Option<i64>, LogError> {
        let (before, now) = {
            let mut state = self.shared.state.lock();
            let before = self.offsets_in(&mut state);
            if to > before.leo {
                return Err(LogError::OffsetOutOfRange {
                    offset: to,
                    start: before.log_start,
                    end: before.leo,
                });
            }
            let told = state.hw.unwrap_or(before.confirmed);
            self.set_hw(&mut state, to.max(told));
            (before.hw, self.offsets_in(&mut state).hw)
        };
        self.shared.moved.notify_waiters();
        Ok(Some(before).filter(|before| now > *before))
    }

    fn set_hw(&self, state: &mut State, to: i64) {
        let offsets = self.offsets_in(state);
        state.hw = Some(to.clamp(offsets.log_start, offsets.leo));
    }
}
