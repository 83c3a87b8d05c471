//! Time that decides how long something seen stays valid (leases, and above a log whatever else was looked at). Waiting is `tokio::time`'s business, not this.
//!
//! `now` never goes back and counts while the machine sleeps: what stops with the machine would make an old look seem young.

use std::{fmt::Debug, time::Duration};

/// A monotone clock that the simulator can drive.
pub trait Clock: Send + Sync + Debug {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// The machine's clock since boot, suspension included.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};

        #[cfg(any(target_os = "linux", target_os = "android"))]
        let time = clock_gettime(ClockId::Boottime);
        // Elsewhere the monotone clock counts through sleep, as on macOS.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let time = clock_gettime(ClockId::Monotonic);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_never_goes_back() {
        let start = BootClock.now();
        let mut before = start;
        while before == start {
            let now = BootClock.now();
            assert!(now >= before);
            before = now;
        }
    }
}
