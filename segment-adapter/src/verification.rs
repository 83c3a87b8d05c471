//! Verification of transactions: no batch begins a transaction here unless its coordinator knows of it (KIP-890).
//!
//! Before the first batch of a transaction the caller starts a verification and gets a [`Guard`], asks the coordinator,
//! and appends with that guard; it is accepted only if the verification is still the same. What ends a transaction
//! ends the verification, so a batch that was overtaken by an abort is refused. In memory alone: after a reopening the
//! guards of before verify nothing, and the caller asks again. At most so many as a log may have producers.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::marker::Marker;
use crate::producers::Entry;

/// What a verification gives to whoever started it. The guard of no verification fits none.
#[derive(Clone, Debug, Default)]
pub struct Guard(Option<Arc<()>>);

impl Guard {
    /// The guard of no verification.
    pub const NONE: Self = Self(None);

    fn new() -> Self {
        Self(Some(Arc::new(())))
    }

    /// Whether it is that of no verification: there is nothing to ask the coordinator.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

/// Two guards are the same if they are of the same verification.
impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

/// A verification that has been started.
#[derive(Clone, Debug)]
pub(crate) struct Verification {
    pub(crate) guard: Guard,
    /// The lowest first sequence that was asked for; the transaction must not begin above it.
    pub(crate) sequence: i32,
    epoch: i16,
    /// Whether the producer's epoch rises with each of its transactions (transaction version 2).
    pub(crate) bumps_epoch: bool,
    created_ms: i64,
}

/// The verifications of a log, by producer.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    started: BTreeMap<i64, Verification>,
    /// The same producers by when their verification was started.
    by_age: BTreeSet<(i64, i64)>,
}

impl Verifications {
    pub(crate) fn get(&self, producer_id: i64) -> Option<&Verification> {
        self.started.get(&producer_id)
    }

    /// Starts one, or takes part in the one there is. A newer epoch starts anew, whatever the older one was of: its guard, and
    /// how its epochs rise, are not the newer one's. Past `max` the oldest is given up.
    pub(crate) fn start(
        &mut self,
        producer_id: i64,
        (epoch, sequence): (i16, i32),
        bumps_epoch: bool,
        now_ms: i64,
        max: usize,
    ) -> Guard {
        if let Some(started) = self.started.get_mut(&producer_id) {
            match epoch.cmp(&started.epoch) {
                // Somebody newer is here.
                Ordering::Less => return Guard::new(),
                Ordering::Equal => {
                    started.sequence = started.sequence.min(sequence);
                    started.bumps_epoch &= bumps_epoch;
                    return started.guard.clone();
                }
                Ordering::Greater => self.remove(producer_id),
            }
        }
        if self.started.len() >= max
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.remove(oldest);
        }
        let guard = Guard::new();
        let verification = Verification {
            guard: guard.clone(),
            sequence,
            epoch,
            bumps_epoch,
            created_ms: now_ms,
        };
        self.started.insert(producer_id, verification);
        self.by_age.insert((now_ms, producer_id));
        guard
    }

    fn remove(&mut self, producer_id: i64) {
        if let Some(removed) = self.started.remove(&producer_id) {
            self.by_age.remove(&(removed.created_ms, producer_id));
        }
    }

    /// The coordinator does not know of the transaction. Nothing is left of the verification, unless somebody else asks.
    pub(crate) fn give_up(&mut self, producer_id: i64, guard: &Guard) {
        let is_last = |started: &Verification| {
            let guard = started.guard.0.as_ref().filter(|_| started.guard == *guard);
            // Guards are given out under the same lock as this.
            guard.is_some_and(|guard| Arc::strong_count(guard) <= 2)
        };
        if self.get(producer_id).is_some_and(is_last) {
            self.remove(producer_id);
        }
    }

    /// A batch was appended: what it settles is over. A marker of the epoch that a verification is for ends the transaction
    /// before, if epochs rise with each.
    pub(crate) fn appended(&mut self, entry: &Entry) {
        let header = entry.header;
        let over = match entry.marker {
            Some(Marker { .. }) => self
                .get(header.producer_id)
                .is_some_and(|v| !v.bumps_epoch || v.epoch != header.producer_epoch),
            None => header.attributes.is_transactional(),
        };
        if over {
            self.remove(header.producer_id);
        }
    }

    pub(crate) fn expire(&mut self, now_ms: i64, after_ms: i64) {
        while let Some((created_ms, id)) = self.by_age.first().copied()
            && now_ms.saturating_sub(created_ms) >= after_ms
        {
            self.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batches;

    fn marker_of(epoch: i16) -> Entry<'static> {
        let bytes = Marker {
            commit: false,
            coordinator_epoch: 0,
        };
        let bytes = bytes.build(7, epoch, 1).unwrap();
        let batch = Box::leak(Box::new(Batches::new(bytes).next().unwrap().unwrap()));
        Entry::of(batch)
    }

    /// An old instance whose epochs rise with each transaction was here before one whose epoch stays: the verification of
    /// the latter was taken for one of the transaction after its own, outlived its abort, and let in a batch that nobody
    /// ends.
    #[test]
    fn a_verification_of_a_newer_epoch_is_not_that_of_an_older_one() {
        let mut verifications = Verifications::default();
        let old = verifications.start(7, (1, 5), true, 0, 9);
        let new = verifications.start(7, (2, 8), false, 0, 9);
        assert!(old != new && !new.is_none());
        assert_eq!(verifications.get(7).unwrap().sequence, 8);
        // It is too late for the old one.
        let late = verifications.start(7, (1, 5), true, 0, 9);
        assert!(late != new && late != old && !late.is_none());
        verifications.appended(&marker_of(2));
        assert!(verifications.get(7).is_none());
    }

    #[test]
    fn a_verification_whose_epoch_stays_for_one_request_is_not_of_what_follows() {
        for (bumps, left) in [(true, true), (false, false)] {
            let mut verifications = Verifications::default();
            let first = verifications.start(7, (2, 8), true, 0, 9);
            assert!(verifications.start(7, (2, 3), bumps, 0, 9) == first);
            assert_eq!(verifications.get(7).unwrap().sequence, 3);
            verifications.appended(&marker_of(2));
            assert_eq!(verifications.get(7).is_some(), left);
        }
    }

    #[test]
    fn past_the_limit_the_oldest_is_given_up() {
        let mut verifications = Verifications::default();
        let guards: Vec<Guard> = (0..3)
            .map(|id| verifications.start(id, (0, 0), false, 10 - id, 2))
            .collect();
        let left: Vec<bool> = (0..3)
            .map(|id| {
                let left = verifications.get(id);
                left.is_some_and(|left| left.guard == guards[id as usize])
            })
            .collect();
        assert_eq!(left, [true, false, true]);
        verifications.expire(18, 10);
        assert!(verifications.get(0).is_some());
        verifications.expire(18, 9);
        assert!(verifications.started.len() == 1 && verifications.get(0).is_some());
        verifications.expire(20, 10);
        assert!(verifications.started.is_empty() && verifications.by_age.is_empty());
    }

    #[test]
    fn one_that_is_refused_leaves_nothing_unless_somebody_else_asks() {
        let mut verifications = Verifications::default();
        let first = verifications.start(7, (0, 0), false, 1, 9);
        let second = verifications.start(7, (0, 1), false, 2, 9);
        verifications.give_up(7, &first);
        drop(first);
        assert!(verifications.get(7).is_some());
        verifications.give_up(7, &Guard::new());
        assert!(verifications.get(7).is_some());
        verifications.give_up(7, &second);
        assert!(verifications.started.is_empty() && verifications.by_age.is_empty());
    }
}
