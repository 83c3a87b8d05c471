//! Which batches belong to transactions that were aborted.
//!
//! A producer has one transaction at a time, so its aborted ones do not overlap: a batch belongs to the first that ends
//! at or past it, if that began at or before it.

use crate::aborted::Aborted;
use crate::header::BatchHeader;

/// Aborted transactions, by producer and then by the offset of the marker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aborts {
    entries: Vec<Aborted>,
}

impl Aborts {
    /// Of those that were aborted in a log. For a pass it must be all that have a batch in what is read, wherever their
    /// markers are, and be taken together with the last stable offset.
    pub(crate) fn new<'a>(aborted: impl IntoIterator<Item = &'a Aborted>) -> Self {
        let mut entries: Vec<Aborted> = aborted.into_iter().copied().collect();
        entries.sort_unstable_by_key(|entry| (entry.producer_id, entry.last_offset));
        Self { entries }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, at: usize) -> &Aborted {
        &self.entries[at]
    }

    /// The place of the transaction that a batch belongs to, data or its marker.
    pub(crate) fn find(&self, header: &BatchHeader) -> Option<usize> {
        if !header.attributes.is_transactional() {
            return None;
        }
        let (id, offset) = (header.producer_id, header.base_offset);
        let at = self
            .entries
            .partition_point(|entry| (entry.producer_id, entry.last_offset) < (id, offset));
        let found = self.entries.get(at)?;
        (found.producer_id == id && found.first_offset <= offset).then_some(at)
    }

    /// Whether a batch is data that was aborted.
    pub(crate) fn has_data(&self, header: &BatchHeader) -> bool {
        !header.attributes.is_control() && self.find(header).is_some()
    }
}
