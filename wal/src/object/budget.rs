//! A budget of requests per second, with a burst: what a further put or a hedge must be worth.
//!
//! - Over any time t, `taken ≤ burst + rate · t` as far as [`Budget::try_take`] gives them; [`Budget::force`] always takes and goes into debt.
//! - The debt is at most one burst, so that a forced rush is paid off in a bounded time.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Budget {
    interval: Duration,
    /// How far `paid_to` may be ahead of now and one more is still given.
    slack: Duration,
    /// What was taken so far is paid for by this moment.
    paid_to: Option<Instant>,
}

impl Budget {
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_s.max(1);
        Self {
            interval,
            slack: interval * burst.saturating_sub(1),
            paid_to: None,
        }
    }

    /// When the next one is given.
    pub(crate) fn next_at(&self, now: Instant) -> Instant {
        let paid_to = self.paid_to.map_or(now, |at| at.max(now));
        now.max(paid_to.checked_sub(self.slack).unwrap_or(now))
    }

    /// Takes one, if there is one.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        let there = self.next_at(now) <= now;
        if there {
            self.force(now);
        }
        there
    }

    /// Takes one, there or not.
    pub(crate) fn force(&mut self, now: Instant) {
        let most = now + self.slack * 2 + self.interval;
        let paid_to = self.paid_to.map_or(now, |at| at.max(now)) + self.interval;
        self.paid_to = Some(paid_to.min(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(20, 5);
        for _ in 0..5 {
            assert!(budget.try_take(start));
        }
        assert!(!budget.try_take(start));
        assert_eq!(budget.next_at(start), start + Duration::from_millis(50));
        let mut given = 0;
        for ms in 0..10_000 {
            given += u32::from(budget.try_take(start + Duration::from_millis(ms)));
        }
        assert_eq!(given, 199);
    }

    #[test]
    fn what_was_forced_is_paid_off_before_more_is_given_and_the_debt_is_bounded() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 4);
        for _ in 0..1000 {
            budget.force(start);
        }
        assert!(!budget.try_take(start));
        assert_eq!(budget.next_at(start), start + Duration::from_millis(400));
    }
}
