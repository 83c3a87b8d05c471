//! The runs of one stream, oldest first: one per sealed block that holds some of it, then the active one.
//!
//! Offsets ascend over runs; between two runs there may be a hole where a block was evicted, within a run there is none.
//! `first run's start <= start < first run's end`: entries below `start` were trimmed, a run below it is dropped whole.
//!
//! A look-up is made of cache misses more than of comparisons. So the starts of the runs stand side by side, and within
//! a run the search begins where the entry is if all are equally long.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::block::Run;
use crate::Entry;

/// The deque keeps at most this many places, or four times what it needs.
const SPARE_PLACES: usize = 8;

/// What is held of one stream.
pub(super) struct StreamRuns<E> {
    sealed: VecDeque<Held<E>>,
    active: Vec<E>,
    /// Where the active run begins, if it has entries.
    active_start: u64,
    /// The lowest offset held.
    start: u64,
    /// Where the next entry must start.
    end: u64,
}

struct Held<E> {
    /// Where the run begins.
    start: u64,
    run: Arc<Run<E>>,
}

/// The runs that a trim has dropped.
#[derive(Default)]
pub(super) struct Dropped {
    /// Blocks that lost their run of this stream.
    pub(super) blocks: Vec<u64>,
    /// Whether the active run was dropped.
    pub(super) active: bool,
}

impl<E: Entry> StreamRuns<E> {
    /// Bytes that a run may take among the runs of its stream.
    pub(super) const PLACE_BYTES: usize = size_of::<Held<E>>() * SPARE_PLACES;

    pub(super) fn new() -> Self {
        Self {
            sealed: VecDeque::new(),
            active: Vec::new(),
            active_start: 0,
            start: 0,
            end: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.active.is_empty()
    }

    /// Adds an entry of this range; returns whether it begins a run, and by how many bytes the run has grown beside its
    /// payload.
    pub(super) fn push(&mut self, entry: E, range: &Range<u64>) -> (bool, usize) {
        let new_run = self.active.is_empty();
        if self.is_empty() {
            self.start = range.start;
        }
        if new_run {
            self.active_start = range.start;
        }
        let places = self.active.capacity();
        self.active.push(entry);
        self.end = range.end;
        let grown = (self.active.capacity() - places) * size_of::<E>();
        (new_run, grown)
    }

    /// Moves the active entries into a run of a sealed block. `None` if there are none.
    pub(super) fn seal(&mut self, stream: u64, block: u64) -> Option<Arc<Run<E>>> {
        if self.active.is_empty() {
            return None;
        }
        let start = self.active_start;
        let entries = std::mem::take(&mut self.active);
        let run = Arc::new(Run::new(block, stream, start..self.end, entries));
        self.sealed.push_back(Held {
            start,
            run: Arc::clone(&run),
        });
        Some(run)
    }

    /// Drops the run of an evicted block.
    pub(super) fn forget(&mut self, block: u64) {
        let found = self
            .sealed
            .binary_search_by_key(&block, |held| held.run.block());
        if let Ok(index) = found {
            self.sealed.remove(index);
            if index == 0 {
                self.start = self
                    .sealed
                    .front()
                    .map_or(self.active_start, |held| held.start);
            }
            self.shrink();
        }
    }

    /// Drops what lies wholly below `bound`.
    pub(super) fn trim(&mut self, bound: u64) -> Dropped {
        let mut dropped = Dropped::default();
        while let Some(held) = self.sealed.front() {
            let run = &held.run;
            if bound < run.offsets().end {
                let start = held.start.max(self.start);
                let first = find(run.entries(), run.offsets(), bound.max(start));
                self.start = run.entries()[first].range().start;
                return dropped;
            }
            dropped.blocks.push(run.block());
            self.sealed.pop_front();
            self.shrink();
            self.start = self
                .sealed
                .front()
                .map_or(self.active_start, |held| held.start);
        }
        if self.active.is_empty() {
            return dropped;
        }
        let offsets = self.active_start..self.end;
        if bound < offsets.end {
            let first = find(&self.active, &offsets, bound.max(self.start));
            self.start = self.active[first].range().start;
        } else {
            dropped.active = true;
            self.active = Vec::new();
        }
        dropped
    }

    pub(super) fn first_offset(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.start)
    }

    /// See [`LogCache::get`](super::LogCache::get).
    pub(super) fn get(&self, offsets: &Range<u64>, bytes_max: usize) -> Vec<E> {
        let mut found = Vec::new();
        if self.is_empty() || offsets.start < self.start {
            return found;
        }
        // The last run that starts at or below the offset.
        let mut run = if !self.active.is_empty() && self.active_start <= offsets.start {
            self.sealed.len()
        } else {
            let after = self
                .sealed
                .partition_point(|held| held.start <= offsets.start);
            after.saturating_sub(1)
        };
        let (entries, held) = self.run(run);
        let mut index = find(entries, &held, offsets.start);
        let mut next = offsets.start;
        let mut bytes = 0_usize;
        while run <= self.sealed.len() {
            let (entries, held) = self.run(run);
            if held.start > next {
                return found;
            }
            for entry in &entries[index..] {
                let range = entry.range();
                let size = entry.size().max(1);
                let fits = found.is_empty() || bytes.saturating_add(size) <= bytes_max;
                if range.start >= offsets.end || !fits {
                    return found;
                }
                bytes = bytes.saturating_add(size);
                next = range.end;
                found.push(entry.clone());
            }
            run += 1;
            index = 0;
        }
        found
    }

    /// The run with this number, and its offsets; the active one comes after the sealed ones.
    fn run(&self, index: usize) -> (&[E], Range<u64>) {
        match self.sealed.get(index) {
            Some(held) => (held.run.entries(), held.run.offsets().clone()),
            None => (&self.active, self.active_start..self.end),
        }
    }

    fn shrink(&mut self) {
        if self.sealed.capacity() > SPARE_PLACES && self.sealed.len() * 4 <= self.sealed.capacity()
        {
            self.sealed.shrink_to(SPARE_PLACES);
        }
    }

    #[cfg(test)]
    pub(super) fn place_bytes(&self) -> usize {
        self.sealed.capacity() * size_of::<Held<E>>() + self.active.capacity() * size_of::<E>()
    }
}

/// The entry that holds `offset`, or how many there are if it lies past them. `offsets` are those of all entries, which
/// have no gaps, and `offset` is not below them.
///
/// Begins where the entry is if all are equally long, and doubles its steps from there: O(1) for records of one size,
/// O(log n) for any.
fn find<E: Entry>(entries: &[E], offsets: &Range<u64>, offset: u64) -> usize {
    if offset >= offsets.end {
        return entries.len();
    }
    let (into, all) = (offset - offsets.start, offsets.end - offsets.start);
    let guess = (u128::from(into) * entries.len() as u128 / u128::from(all)) as usize;
    let ends_below = |index: usize| entries[index].range().end <= offset;
    // Everything before `low` ends at or below the offset, and `high` does not.
    let (mut low, mut high, mut step) = (0, entries.len(), 1);
    if ends_below(guess) {
        low = guess + 1;
        while low + step <= high && ends_below(low + step - 1) {
            low += step;
            step *= 2;
        }
        high = high.min(low + step - 1);
    } else {
        high = guess;
        while step <= high && !ends_below(high - step) {
            high -= step;
            step *= 2;
        }
        low = low.max((high + 1).saturating_sub(step));
    }
    low + entries[low..high].partition_point(|entry| entry.range().end <= offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone)]
    struct Record(Range<u64>);

    impl Entry for Record {
        fn stream(&self) -> u64 {
            0
        }

        fn range(&self) -> Range<u64> {
            self.0.clone()
        }

        fn size(&self) -> usize {
            0
        }
    }

    proptest! {
        #[test]
        fn the_search_finds_every_offset_however_long_the_entries_are(
            start in 0..u64::MAX / 2,
            lens in prop::collection::vec(prop_oneof![1..3_u64, 1..1_000_u64, Just(1_u64 << 40)], 1..60),
        ) {
            let mut entries = Vec::new();
            let mut next = start;
            for len in lens {
                entries.push(Record(next..next + len));
                next += len;
            }
            for (index, Record(range)) in entries.iter().enumerate() {
                for offset in [range.start, range.start + (range.end - range.start) / 2, range.end - 1] {
                    prop_assert_eq!(find(&entries, &(start..next), offset), index);
                }
            }
            prop_assert_eq!(find(&entries, &(start..next), next), entries.len());
        }
    }
}
