//! The clock of tokio's runtime as the clock of leases: on a paused runtime it moves as the waits do. One host's may run slower than another's.

use std::time::Duration;

use tokio::time::Instant;

use crate::Clock;

/// A clock that the runtime drives.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeClock {
    start: Instant,
    /// Parts per million by which it runs slow.
    slow_ppm: u32,
}

impl Default for RuntimeClock {
    fn default() -> Self {
        Self::slow_by(0)
    }
}

impl RuntimeClock {
    /// One that loses so much on the runtime's.
    pub fn slow_by(slow_ppm: u32) -> Self {
        Self {
            start: Instant::now(),
            slow_ppm,
        }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Duration {
        let now = self.start.elapsed();
        now - now.mul_f64(f64::from(self.slow_ppm) / 1e6)
    }
}
