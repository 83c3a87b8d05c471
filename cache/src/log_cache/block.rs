//! A sealed block: what was inserted between two log positions, by stream.
//!
//! Runs are sorted by stream, one per stream, none empty; the entries of a run are in offset order without gaps.

use std::{fmt, ops::Range, sync::Arc};

/// An immutable block of the log cache.
pub struct Block<E> {
    id: u64,
    position_end: u64,
    bytes: usize,
    runs: Vec<Arc<Run<E>>>,
}

/// The entries of one stream in one block.
pub(super) struct Run<E> {
    block: u64,
    stream: u64,
    offsets: Range<u64>,
    entries: Vec<E>,
}

impl<E> Block<E> {
    pub(super) fn new(id: u64, position_end: u64, bytes: usize, runs: Vec<Arc<Run<E>>>) -> Self {
        Self {
            id,
            position_end,
            bytes,
            runs,
        }
    }

    /// Its number; blocks are numbered in the order of sealing.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The log position up to which everything is in this block or in those before it.
    pub fn position_end(&self) -> u64 {
        self.position_end
    }

    /// Bytes it is charged for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything it held was given up before it was sealed.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Its streams in ascending order, each with its entries in offset order.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = (u64, &[E])> {
        self.runs
            .iter()
            .map(|run| (run.stream, run.entries.as_slice()))
    }

    /// Its entries by stream, then offset.
    pub fn entries(&self) -> impl Iterator<Item = &E> {
        self.runs.iter().flat_map(|run| &run.entries)
    }

    pub(super) fn runs(&self) -> &[Arc<Run<E>>] {
        &self.runs
    }
}

impl<E> Run<E> {
    /// `offsets` are those of all entries together.
    pub(super) fn new(block: u64, stream: u64, offsets: Range<u64>, entries: Vec<E>) -> Self {
        debug_assert!(!entries.is_empty());
        Self {
            block,
            stream,
            offsets,
            entries,
        }
    }

    pub(super) fn block(&self) -> u64 {
        self.block
    }

    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    pub(super) fn offsets(&self) -> &Range<u64> {
        &self.offsets
    }

    pub(super) fn entries(&self) -> &[E] {
        &self.entries
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.entries.capacity()
    }
}

impl<E> fmt::Debug for Block<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("id", &self.id)
            .field("position_end", &self.position_end)
            .field("bytes", &self.bytes)
            .field("streams", &self.runs.len())
            .finish()
    }
}
