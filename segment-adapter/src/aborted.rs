//! Which transactions were aborted, and where: what a reader of committed data leaves out.
//!
//! Ascending by the offset of the marker. A look-up gives every aborted transaction that reaches into the range, in as many
//! steps as it finds, each with a logarithm: also while one transaction is open for long and nothing after its beginning
//! is decided for certain. Kept as long as the log start is at or below the marker: about 50 bytes each.

mod earliest;

use std::collections::BTreeSet;

use earliest::Earliest;

/// An aborted transaction of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// The marker's.
    pub(crate) last_offset: i64,
    /// Every transaction that began below was over when this one was aborted.
    pub(crate) stable_offset: i64,
}

/// The aborted transactions of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AbortedTransactions {
    entries: Vec<Aborted>,
    /// The first offset of each.
    firsts: Earliest,
    /// Those up to this marker are in the meta stream.
    kept_through: i64,
}

impl Default for AbortedTransactions {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            firsts: Earliest::default(),
            kept_through: -1,
        }
    }
}

impl AbortedTransactions {
    /// Takes in what comes after all that is known; false if it is neither that nor known.
    pub(crate) fn push(&mut self, aborted: Aborted) -> bool {
        match self.entries.last() {
            Some(last) if last.last_offset >= aborted.last_offset => {
                let at = self.at(aborted.last_offset);
                self.entries.get(at) == Some(&aborted)
            }
            _ => {
                self.firsts.push(aborted.first_offset);
                self.entries.push(aborted);
                true
            }
        }
    }

    /// The place of the first whose marker is at or past `offset`.
    fn at(&self, offset: i64) -> usize {
        self.entries
            .partition_point(|aborted| aborted.last_offset < offset)
    }

    /// Those that a reader of `start..end` needs.
    pub(crate) fn within(&self, start: i64, end: i64) -> impl Iterator<Item = &Aborted> {
        let below = self.firsts.below(end, self.at(start));
        below.filter_map(|at| self.entries.get(at))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Aborted> {
        self.entries.iter()
    }

    /// Those that are not in the meta stream yet.
    pub(crate) fn changed(&self) -> &[Aborted] {
        &self.entries[self.at(self.kept_through.saturating_add(1))..]
    }

    pub(crate) fn set_kept(&mut self) {
        if let Some(last) = self.entries.last() {
            self.kept_through = last.last_offset;
        }
    }

    /// Forgets those with these markers that are known and in the meta stream; gives them.
    pub(crate) fn remove(&mut self, markers: &[i64]) -> Vec<Aborted> {
        if markers.is_empty() {
            return Vec::new();
        }
        let markers: BTreeSet<i64> = markers.iter().copied().collect();
        let kept_through = self.kept_through;
        let goes = |aborted: &mut Aborted| {
            aborted.last_offset <= kept_through && markers.contains(&aborted.last_offset)
        };
        let removed = self.entries.extract_if(.., goes).collect();
        self.know_firsts();
        removed
    }

    /// Takes those back that were removed.
    pub(crate) fn put_back(&mut self, removed: Vec<Aborted>) {
        self.entries.extend(removed);
        self.entries.sort_by_key(|aborted| aborted.last_offset);
        self.entries.dedup();
        self.know_firsts();
    }

    fn know_firsts(&mut self) {
        let firsts = self.entries.iter().map(|aborted| aborted.first_offset);
        self.firsts = firsts.collect();
    }

    /// Forgets those whose markers are below the log start.
    pub(crate) fn forget_below(&mut self, start: i64) {
        let below = self.at(start);
        if below > 0 {
            self.entries.drain(..below);
            self.know_firsts();
        }
    }

    /// The log ends at `end` now.
    pub(crate) fn truncate(&mut self, end: i64) {
        let left = self.at(end);
        self.entries.truncate(left);
        self.firsts.truncate(left);
        self.kept_through = self.kept_through.min(end.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(i64, i64, i64, i64)]) -> AbortedTransactions {
        let mut index = AbortedTransactions::default();
        for (producer_id, first_offset, last_offset, stable_offset) in entries {
            assert!(index.push(Aborted {
                producer_id: *producer_id,
                first_offset: *first_offset,
                last_offset: *last_offset,
                stable_offset: *stable_offset,
            }));
        }
        index
    }

    fn four() -> AbortedTransactions {
        index(&[
            (0, 0, 10, 11),
            (1, 5, 15, 13),
            (2, 18, 35, 25),
            (3, 32, 50, 40),
        ])
    }

    fn within(start: i64, end: i64) -> Vec<i64> {
        let four = four();
        let found = four.within(start, end);
        found.map(|aborted| aborted.producer_id).collect()
    }

    #[test]
    fn vectors_63_and_64_a_look_up_gives_all_that_reach_into_the_range() {
        assert_eq!(within(0, 100), [0, 1, 2, 3]);
        assert_eq!(within(0, 32), [0, 1, 2]);
        assert_eq!(within(0, 35), [0, 1, 2, 3]);
        assert_eq!(within(10, 35), [0, 1, 2, 3]);
        assert_eq!(within(11, 35), [1, 2, 3]);
        assert_eq!(within(20, 41), [2, 3]);
        assert!(within(51, 60).is_empty());
        assert_eq!(within(0, 5), [0]);
    }

    #[test]
    fn vector_65_markers_ascend_and_are_cut_off_at_the_end() {
        let mut four = four();
        for last_offset in [49, 50] {
            assert!(!four.push(Aborted {
                producer_id: 9,
                first_offset: 3,
                last_offset,
                stable_offset: 51,
            }));
        }
        four.truncate(51);
        assert_eq!(four.iter().count(), 4);
        four.truncate(50);
        assert_eq!(four.iter().count(), 3);
        // One that is known is known, and is not there twice.
        let known = four.entries[1];
        assert!(four.push(known));
        assert_eq!(four.iter().count(), 3);
        four.forget_below(16);
        assert_eq!(four.iter().count(), 1);
    }

    #[test]
    fn one_of_which_nothing_is_left_goes_if_it_is_kept_and_can_come_back() {
        let mut entries = four();
        assert_eq!(entries.remove(&[15]), [], "it is not in the meta stream");
        entries.set_kept();
        assert_eq!(entries.remove(&[16]), []);
        let emptied = entries.remove(&[50, 15]);
        assert_eq!((entries.iter().count(), emptied.len()), (2, 2));
        assert_eq!(entries.within(0, 100).count(), 2);
        assert!(entries.changed().is_empty());
        entries.put_back(emptied.clone());
        entries.put_back(emptied);
        assert!(entries.iter().eq(four().iter()));
        assert_eq!(entries.within(0, 100).count(), 4);
    }

    #[test]
    fn vector_67_of_nothing_nothing_is_found() {
        let mut none = AbortedTransactions::default();
        assert_eq!(none.within(0, 100).count(), 0);
        none.forget_below(5);
        assert!(none.changed().is_empty());
    }

    #[test]
    fn what_is_not_kept_is_a_change_also_after_a_cut() {
        let mut four = four();
        assert_eq!(four.changed().len(), 4);
        four.set_kept();
        assert!(four.changed().is_empty());
        four.truncate(36);
        let again = Aborted {
            producer_id: 8,
            first_offset: 37,
            last_offset: 38,
            stable_offset: 39,
        };
        assert!(four.push(again));
        assert_eq!(four.changed(), [again]);
    }
}
