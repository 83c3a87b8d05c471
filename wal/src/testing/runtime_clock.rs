//! The clock of tokio's runtime as the clock of leases: on a paused runtime it moves as the waits do. One host's may run slower than another's, or count
//! time in which the machine slept and nothing waited.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::Clock;

/// A clock that the runtime drives. Clones are the same.
#[derive(Clone, Debug)]
pub struct RuntimeClock {
    start: Instant,
    /// Parts per million by which it runs slow.
    slow_ppm: u32,
    slept_ms: Arc<AtomicU64>,
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
            slept_ms: Arc::default(),
        }
    }

    /// The machine slept so long: the clock counts it, and no wait was shorter for it.
    pub fn slept(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.slept_ms.fetch_add(time, Ordering::AcqRel);
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Duration {
        let now = self.start.elapsed();
        let slept = Duration::from_millis(self.slept_ms.load(Ordering::Acquire));
        slept + now - now.mul_f64(f64::from(self.slow_ppm) / 1e6)
    }
}
