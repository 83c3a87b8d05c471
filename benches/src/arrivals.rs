//! What arrived when, handed from whoever completes it to the load generator's thread.
//!
//! Holds no more than the generator has outstanding: it is bounded by the window.

use std::{collections::VecDeque, time::Instant};

use parking_lot::{Condvar, Mutex};

use crate::{Failure, Result};

/// Groups of records that were done together, in order.
#[derive(Debug)]
pub(crate) struct Arrivals<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Records done at one moment, and what the completer adds.
#[derive(Debug)]
pub(crate) struct Group<T> {
    pub(crate) records: usize,
    pub(crate) at: Instant,
    pub(crate) with: T,
}

#[derive(Debug)]
struct State<T> {
    groups: VecDeque<Group<T>>,
    failure: Option<String>,
    nudged: bool,
}

impl<T> Default for Arrivals<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                groups: VecDeque::new(),
                failure: None,
                nudged: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<T> Arrivals<T> {
    /// These records are done, now.
    pub(crate) fn push(&self, records: usize, with: T) {
        let group = Group {
            records,
            at: Instant::now(),
            with,
        };
        self.state.lock().groups.push_back(group);
        self.changed.notify_one();
    }

    /// Nothing more will arrive.
    pub(crate) fn fail(&self, why: impl ToString) {
        self.state.lock().failure = Some(why.to_string());
        self.changed.notify_one();
    }

    /// Something else changed that a waiting generator should look at.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.changed.notify_one();
    }

    /// The next group; `None` if there is none by `deadline`, or when nudged.
    pub(crate) fn take(&self, deadline: Instant) -> Result<Option<Group<T>>> {
        let mut state = self.state.lock();
        loop {
            if let Some(group) = state.groups.pop_front() {
                return Ok(Some(group));
            }
            if let Some(why) = &state.failure {
                return Err(Failure::from(why.clone()));
            }
            if std::mem::take(&mut state.nudged) || Instant::now() >= deadline {
                return Ok(None);
            }
            self.changed.wait_until(&mut state, deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn groups_come_in_order_and_a_failure_after_them() {
        let arrivals = Arrivals::default();
        arrivals.push(2, 'a');
        arrivals.push(1, 'b');
        arrivals.fail("gone");
        let soon = Instant::now();
        assert_eq!(
            arrivals.take(soon).unwrap().map(|g| (g.records, g.with)),
            Some((2, 'a'))
        );
        assert_eq!(
            arrivals.take(soon).unwrap().map(|g| (g.records, g.with)),
            Some((1, 'b'))
        );
        assert_eq!(arrivals.take(soon).unwrap_err().to_string(), "gone");
    }

    #[test]
    fn a_nudge_ends_one_wait() {
        let arrivals = Arrivals::<()>::default();
        arrivals.nudge();
        let far = Instant::now() + Duration::from_secs(60);
        assert!(arrivals.take(far).unwrap().is_none());
        assert!(arrivals.take(Instant::now()).unwrap().is_none());
        assert!(Instant::now() < far);
    }
}
