//! When a put may be made again beside itself: what is usual, and the budget.
//!
//! - A hedge comes no earlier than `multiple · p90` of the last puts of about that size, and never without the budget.
//! - Memory is fixed: the last 32 durations of each of 8 size classes.
//!
//! The clock is tokio's; the jitter is drawn from the incarnation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{budget::Budget, config::Config};

const REMEMBERED: usize = 32;
/// With fewer durations than this, nothing is usual yet.
const ENOUGH: usize = 8;
/// How long a put may take before it is hedged while nothing is usual yet.
const UNKNOWN: Duration = Duration::from_secs(1);
const CLASSES: usize = 8;

/// What all puts of a log share.
#[derive(Debug)]
pub(crate) struct Pace {
    multiple: u32,
    after_min: Duration,
    wait_max: Duration,
    jitter: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    budget: Budget,
    durations: [Ring; CLASSES],
}

#[derive(Debug, Default)]
struct Ring {
    last: Vec<Duration>,
    next: usize,
}

impl Ring {
    fn add(&mut self, took: Duration) {
        if self.last.len() < REMEMBERED {
            self.last.push(took);
        } else if let Some(oldest) = self.last.get_mut(self.next) {
            *oldest = took;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    fn usual(&self) -> Option<Duration> {
        if self.last.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 9 / 10).copied()
    }
}

/// Sizes within a factor of eight share a class: 4 KiB, 32 KiB, 256 KiB …
fn class(len: usize) -> usize {
    (len.max(1).ilog2().saturating_sub(9) / 3).min(CLASSES as u32 - 1) as usize
}

impl Pace {
    pub(crate) fn new(config: &Config, seed: u128) -> Self {
        Self {
            multiple: config.hedge_multiple,
            after_min: config.hedge_after_min,
            wait_max: config.retry_wait_max,
            jitter: AtomicU64::new(seed as u64 ^ (seed >> 64) as u64),
            state: Mutex::new(State {
                budget: Budget::new(config.puts_per_s, config.puts_burst),
                durations: Default::default(),
            }),
        }
    }

    /// Takes one from the budget, or says when it gives the next.
    pub(crate) fn try_take(&self) -> Result<(), Instant> {
        let now = Instant::now();
        let budget = &mut self.state.lock().budget;
        if budget.try_take(now) {
            Ok(())
        } else {
            Err(budget.next_at(now))
        }
    }

    /// Takes one, there or not: what keeps the only object going does not wait.
    pub(crate) fn force(&self) {
        self.state.lock().budget.force(Instant::now());
    }

    /// A put of so many bytes took so long.
    pub(crate) fn took(&self, len: usize, took: Duration) {
        if let Some(ring) = self.state.lock().durations.get_mut(class(len)) {
            ring.add(took);
        }
    }

    /// How long a put of so many bytes may take before it is hedged; `None` if never.
    pub(crate) fn hedge_after(&self, len: usize) -> Option<Duration> {
        if self.multiple == 0 {
            return None;
        }
        let state = self.state.lock();
        let usual = state.durations.get(class(len)).and_then(Ring::usual);
        let after = usual.map_or(UNKNOWN, |usual| usual * self.multiple);
        Some(after.max(self.after_min))
    }

    /// The wait after the attempt that failed as the `failed`-th in a row: between half and all of a bound that doubles from 4 ms.
    pub(crate) fn wait(&self, failed: u32) -> Duration {
        let bound = Duration::from_millis(4) * 2u32.pow(failed.clamp(1, 16) - 1);
        let bound = bound.min(self.wait_max);
        // A step of splitmix64: enough to keep two processes apart.
        let mut z = self
            .jitter
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 31;
        bound / 2 + bound.mul_f64((z >> 40) as f64 / f64::from(1 << 25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hedge_waits_for_a_multiple_of_what_is_usual_for_its_size() {
        let pace = Pace::new(&Config::default(), 7);
        assert_eq!(pace.hedge_after(100), Some(UNKNOWN));
        for n in 0..100 {
            pace.took(100, Duration::from_millis(20 + n % 10));
            pace.took(8 << 20, Duration::from_millis(200));
        }
        let small = pace.hedge_after(100).unwrap();
        assert!((Duration::from_millis(81)..=Duration::from_millis(87)).contains(&small));
        assert_eq!(pace.hedge_after(8 << 20), Some(Duration::from_millis(600)));
        assert_eq!(pace.hedge_after(64 << 10), Some(UNKNOWN));
    }

    #[test]
    fn waits_double_from_milliseconds_to_the_bound_and_differ() {
        let pace = Pace::new(&Config::default(), 7);
        for (failed, bound_ms) in [(1, 4), (2, 8), (5, 64), (9, 1000), (u32::MAX, 1000)] {
            let waits: Vec<_> = (0..50).map(|_| pace.wait(failed)).collect();
            let bound = Duration::from_millis(bound_ms);
            assert!(
                waits.iter().all(|w| *w >= bound / 2 && *w <= bound),
                "{waits:?}"
            );
            assert!(waits.windows(2).any(|w| w[0] != w[1]));
        }
    }
}
