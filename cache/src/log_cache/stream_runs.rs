//! The runs of one stream, oldest first: one per sealed block that holds some of it, then the active one.
//!
//! Offsets ascend over runs; between two runs there may be a hole where a block was evicted, within a run there is none.
//! `skipped < entries of the first run`: a run that is skipped whole is dropped.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::block::Run;
use crate::Entry;

/// The deque keeps at most this many places, or four times what it needs.
pub(super) const SPARE_PLACES: usize = 8;

/// What is held of one stream.
pub(super) struct StreamRuns<E> {
    sealed: VecDeque<Arc<Run<E>>>,
    active: Vec<E>,
    /// Entries at the front of the first run that were trimmed.
    skipped: usize,
    /// Where the next entry must start.
    end: u64,
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
    pub(super) fn new() -> Self {
        Self {
            sealed: VecDeque::new(),
            active: Vec::new(),
            skipped: 0,
            end: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.active.is_empty()
    }

    /// Adds an entry; returns whether it begins a run, and by how many bytes the run has grown beside its payload.
    pub(super) fn push(&mut self, entry: E, end: u64) -> (bool, usize) {
        let new_run = self.active.is_empty();
        let places = self.active.capacity();
        self.active.push(entry);
        self.end = end;
        let grown = (self.active.capacity() - places) * size_of::<E>();
        (new_run, grown)
    }

    /// Moves the active entries into a run of a sealed block. `None` if there are none.
    pub(super) fn seal(&mut self, stream: u64, block: u64) -> Option<Arc<Run<E>>> {
        if self.active.is_empty() {
            return None;
        }
        let run = Arc::new(Run::new(block, stream, std::mem::take(&mut self.active)));
        self.sealed.push_back(Arc::clone(&run));
        Some(run)
    }

    /// Drops the run of an evicted block.
    pub(super) fn forget(&mut self, block: u64) {
        if let Ok(index) = self.sealed.binary_search_by_key(&block, |run| run.block()) {
            self.sealed.remove(index);
            if index == 0 {
                self.skipped = 0;
            }
            self.shrink();
        }
    }

    /// Drops what lies wholly below `bound`.
    pub(super) fn trim(&mut self, bound: u64) -> Dropped {
        let mut dropped = Dropped::default();
        while let Some(run) = self.sealed.front() {
            let below = below(run.entries(), bound);
            if below < run.entries().len() {
                self.skipped = self.skipped.max(below);
                return dropped;
            }
            dropped.blocks.push(run.block());
            self.sealed.pop_front();
            self.skipped = 0;
            self.shrink();
        }
        let below = below(&self.active, bound);
        if below < self.active.len() {
            self.skipped = self.skipped.max(below);
        } else if !self.active.is_empty() {
            dropped.active = true;
            self.active = Vec::new();
            self.skipped = 0;
        }
        dropped
    }

    pub(super) fn first_offset(&self) -> Option<u64> {
        let first = match self.sealed.front() {
            Some(run) => run.entries().get(self.skipped),
            None => self.active.get(self.skipped),
        };
        first.map(|entry| entry.range().start)
    }

    /// See [`LogCache::get`](super::LogCache::get).
    pub(super) fn get(&self, offsets: &Range<u64>, bytes_max: usize) -> Vec<E> {
        let mut found = Vec::new();
        if self
            .first_offset()
            .is_none_or(|first| offsets.start < first)
        {
            return found;
        }
        // The last run that starts at or below the offset, if any of the sealed ones does not end before it.
        let sealed = self
            .sealed
            .partition_point(|run| run.entries()[0].range().start <= offsets.start);
        let mut run = match self.active.first() {
            Some(entry) if entry.range().start <= offsets.start => self.sealed.len(),
            _ => sealed.saturating_sub(1),
        };
        let mut index = below(self.run(run), offsets.start);
        let mut next = offsets.start;
        let mut bytes = 0_usize;
        while run <= self.sealed.len() {
            for entry in &self.run(run)[index..] {
                let range = entry.range();
                let holds_next = range.start <= next && next < range.end;
                let size = entry.size().max(1);
                let fits = found.is_empty() || bytes.saturating_add(size) <= bytes_max;
                if !holds_next || range.start >= offsets.end || !fits {
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

    /// The run with this number; the active one comes after the sealed ones.
    fn run(&self, index: usize) -> &[E] {
        self.sealed
            .get(index)
            .map_or(self.active.as_slice(), |run| run.entries())
    }

    fn shrink(&mut self) {
        if self.sealed.capacity() > SPARE_PLACES && self.sealed.len() * 4 <= self.sealed.capacity()
        {
            self.sealed.shrink_to(SPARE_PLACES);
        }
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> (usize, usize) {
        (self.sealed.capacity(), self.active.capacity())
    }
}

/// How many entries at the front end at or below `bound`.
fn below<E: Entry>(entries: &[E], bound: u64) -> usize {
    entries.partition_point(|entry| entry.range().end <= bound)
}
