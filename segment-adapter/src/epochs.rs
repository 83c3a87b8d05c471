//! Which leader epoch began at which offset: what consumers compare with to notice that a log was cut.
//!
//! Epochs and starts both ascend strictly. An epoch ends where the next begins, the last at the log end. It knows no
//! files: what has to be kept of it is the caller's to write (`docs/format.md` §Kafka log edits).

use crate::error::LogError;

/// An epoch and the offset of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The leader epoch.
    pub epoch: i32,
    /// Where it begins.
    pub start: i64,
}

/// The largest epoch at or below the one asked for, and where it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The epoch, -1 if it is not known.
    pub epoch: i32,
    /// One past its last offset, -1 if it is not known.
    pub end_offset: i64,
}

impl EpochEnd {
    /// Not known.
    pub const NONE: Self = Self {
        epoch: -1,
        end_offset: -1,
    };
}

/// The epochs of a log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    pub(crate) fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    pub(crate) fn latest(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// Lets `epoch` begin at `start`, unless it is the latest and began before. What contradicts it goes: later epochs,
    /// and epochs that would begin at or after it.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> Result<(), LogError> {
        if epoch < 0 || start < 0 {
            return Err(LogError::InvalidEpoch { epoch, start });
        }
        if self
            .latest()
            .is_some_and(|latest| latest.epoch == epoch && start >= latest.start)
        {
            return Ok(());
        }
        while self
            .latest()
            .is_some_and(|latest| latest.epoch >= epoch || latest.start >= start)
        {
            self.starts.pop();
        }
        self.starts.push(EpochStart { epoch, start });
        Ok(())
    }

    /// The log ends at `end` now.
    pub(crate) fn truncate_from_end(&mut self, end: i64) {
        if end >= 0 {
            self.starts.retain(|entry| entry.start < end);
        }
    }

    /// Forgets the epochs that end at or below `start`; the one it lies in still begins where it did.
    pub(crate) fn forget_below(&mut self, start: i64) {
        let below = self.starts.partition_point(|entry| entry.start <= start);
        self.starts.drain(..below.saturating_sub(1));
    }

    /// The log begins at `start` now; the epoch it begins in stays, with that start.
    pub(crate) fn truncate_from_start(&mut self, start: i64) {
        self.forget_below(start);
        if let Some(first) = self.starts.first_mut() {
            first.start = first.start.max(start);
        }
    }

    pub(crate) fn end_offset(&self, epoch: i32, log_end: i64) -> EpochEnd {
        let higher = self.starts.partition_point(|entry| entry.epoch <= epoch);
        match (higher.checked_sub(1), self.starts.get(higher)) {
            _ if epoch < 0 => EpochEnd::NONE,
            (Some(floor), Some(next)) => EpochEnd {
                epoch: self.starts[floor].epoch,
                end_offset: next.start,
            },
            (None, Some(first)) => EpochEnd {
                epoch,
                end_offset: first.start,
            },
            (Some(floor), None) if self.starts[floor].epoch == epoch => EpochEnd {
                epoch,
                end_offset: log_end,
            },
            (_, None) => EpochEnd::NONE,
        }
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn at(&self, offset: i64) -> Option<i32> {
        let after = self.starts.partition_point(|entry| entry.start <= offset);
        Some(self.starts[after.checked_sub(1)?].epoch)
    }

    /// The epochs of a segment that begins at `base`: the one in force there, and all that begin in it.
    pub(crate) fn since_base(&self, base: i64) -> &[EpochStart] {
        let after = self.starts.partition_point(|entry| entry.start <= base);
        &self.starts[after.saturating_sub(1)..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in entries {
            epochs.assign(*epoch, *start).unwrap();
        }
        epochs
    }

    fn entries(epochs: &Epochs) -> Vec<(i32, i64)> {
        let pairs = epochs.starts().iter();
        pairs.map(|entry| (entry.epoch, entry.start)).collect()
    }

    fn end(epochs: &Epochs, epoch: i32) -> (i32, i64) {
        let end = epochs.end_offset(epoch, 99);
        (end.epoch, end.end_offset)
    }

    #[test]
    fn vector_68_without_entries_nothing_is_known() {
        let none = epochs(&[]);
        for epoch in [-1, 0, 5] {
            assert_eq!(end(&none, epoch), (-1, -1));
        }
        assert_eq!((none.latest(), none.at(0)), (None, None));
    }

    #[test]
    fn vector_69_the_latest_epoch_ends_at_the_log_end_and_is_assigned_once() {
        let mut one = epochs(&[(2, 10)]);
        assert_eq!(one.end_offset(2, 11).end_offset, 11);
        one.assign(2, 12).unwrap();
        assert_eq!(entries(&one), [(2, 10)]);
    }

    #[test]
    fn vector_70_what_contradicts_a_new_epoch_goes() {
        assert_eq!(entries(&epochs(&[(2, 9), (3, 9)])), [(3, 9)]);
        assert_eq!(entries(&epochs(&[(1, 5), (2, 6), (1, 7)])), [(1, 7)]);
        assert_eq!(entries(&epochs(&[(2, 6), (3, 5)])), [(3, 5)]);
    }

    #[test]
    fn vector_71_ends_of_epochs_that_are_there_and_not() {
        let three = epochs(&[(5, 11), (6, 12), (7, 13)]);
        assert_eq!(end(&three, 4), (4, 11));
        assert_eq!(end(&three, 5), (5, 12));
        assert_eq!(end(&three, 7), (7, 99));
        assert_eq!(end(&three, 9), (-1, -1));
        assert_eq!(end(&three, -1), (-1, -1));
    }

    #[test]
    fn vector_72_the_epoch_below_answers_for_one_that_is_not_there() {
        let three = epochs(&[(0, 10), (2, 13), (4, 17)]);
        assert_eq!(end(&three, 1), (0, 13));
        assert_eq!(end(&three, 2), (2, 17));
        assert_eq!(end(&three, 3), (2, 17));
    }

    #[test]
    fn vector_73_the_latest_epoch_can_begin_earlier() {
        let three = epochs(&[(5, 11), (6, 12), (7, 13), (7, 12)]);
        assert_eq!(entries(&three), [(5, 11), (7, 12)]);
    }

    #[test]
    fn vector_74_cut_at_the_end() {
        let after = |end: i64| {
            let mut three = epochs(&[(2, 6), (3, 8), (4, 11)]);
            three.truncate_from_end(end);
            entries(&three)
        };
        assert_eq!(after(8), [(2, 6)]);
        assert_eq!(after(9), [(2, 6), (3, 8)]);
        assert_eq!(after(11), [(2, 6), (3, 8)]);
        for end in [12, -1] {
            assert_eq!(after(end), [(2, 6), (3, 8), (4, 11)]);
        }
    }

    #[test]
    fn vector_75_cut_at_the_start() {
        let after = |start: i64| {
            let mut three = epochs(&[(2, 6), (3, 8), (4, 11)]);
            three.truncate_from_start(start);
            entries(&three)
        };
        assert_eq!(after(8), [(3, 8), (4, 11)]);
        assert_eq!(after(9), [(3, 9), (4, 11)]);
        assert_eq!(after(11), [(4, 11)]);
        assert_eq!(after(15), [(4, 15)]);
        for start in [1, 6, -1] {
            assert_eq!(after(start), [(2, 6), (3, 8), (4, 11)]);
        }
    }

    #[test]
    fn vector_76_negative_numbers_are_refused_and_nothing_cut_from_nothing() {
        let mut none = epochs(&[]);
        for (epoch, start) in [(-1, 0), (0, -1)] {
            assert_eq!(none.assign(epoch, start).unwrap_err().code(), -1);
        }
        none.truncate_from_end(5);
        none.truncate_from_start(5);
        assert_eq!(none, epochs(&[]));
        assert!(none.since_base(3).is_empty());
    }

    #[test]
    fn vector_124_a_new_start_keeps_the_epoch_it_lies_in() {
        let mut three = epochs(&[(0, 0), (1, 7), (2, 10)]);
        three.truncate_from_start(5);
        assert_eq!(entries(&three), [(0, 5), (1, 7), (2, 10)]);
        let mut three = epochs(&[(0, 0), (1, 5), (2, 10)]);
        three.truncate_from_start(5);
        assert_eq!(entries(&three), [(1, 5), (2, 10)]);
        // An epoch without a record is no longer there when the log is cut at its end.
        three.truncate_from_end(10);
        assert_eq!(entries(&three), [(1, 5)]);
    }

    proptest! {
        #[test]
        fn the_epochs_of_segments_in_turn_are_the_epochs_of_the_log(
            steps in prop::collection::vec((0..3i32, 0..4i64), 0..30),
            cuts in prop::collection::vec(0..100i64, 0..5),
        ) {
            let (mut epoch, mut start) = (0, 0);
            let mut whole = Epochs::default();
            for (more, further) in steps {
                (epoch, start) = (epoch + more, start + further);
                whole.assign(epoch, start).unwrap();
                prop_assert!(whole.starts().is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start));
            }
            let mut bases = cuts;
            bases.push(0);
            bases.sort_unstable();
            let mut again = Epochs::default();
            for (index, base) in bases.iter().enumerate() {
                let next = bases.get(index + 1).copied().unwrap_or(i64::MAX);
                for entry in whole.since_base(*base).iter().filter(|entry| entry.start < next) {
                    again.assign(entry.epoch, entry.start).unwrap();
                }
            }
            prop_assert_eq!(again, whole);
        }
    }
}
