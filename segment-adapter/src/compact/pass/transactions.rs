//! Which transactions a pass has seen data of when it comes to their markers.

use std::collections::BTreeSet;

use crate::aborted::Aborted;
use crate::compact::Aborts;
use crate::header::BatchHeader;
use crate::marker::Marker;

/// The transactions of a pass. As many are open at one place of a log as producers had one then.
pub(super) struct Transactions {
    /// Of each aborted transaction, whether a batch of it was seen.
    has_data: Vec<bool>,
    /// Producers with data of a transaction that is not known to be aborted, since their last marker.
    open: BTreeSet<i64>,
    /// Aborted ones that no batch was seen of.
    emptied: Vec<Aborted>,
}

impl Transactions {
    pub(super) fn new(aborted: usize) -> Self {
        Self {
            has_data: vec![false; aborted],
            open: BTreeSet::new(),
            emptied: Vec::new(),
        }
    }

    /// Takes in a batch of data and says whether it was aborted.
    pub(super) fn add(&mut self, aborts: &Aborts, header: &BatchHeader) -> bool {
        if let Some(at) = aborts.find(header) {
            self.has_data[at] = true;
            return true;
        }
        if header.attributes.is_transactional() {
            self.open.insert(header.producer_id);
        }
        false
    }

    /// Takes in a marker and says whether it marks nothing: no batch of its transaction was seen.
    pub(super) fn end(&mut self, aborts: &Aborts, header: &BatchHeader, marker: Marker) -> bool {
        let had_data = self.open.remove(&header.producer_id);
        if marker.commit {
            return !had_data;
        }
        match aborts.find(header) {
            Some(at) if self.has_data[at] => false,
            Some(at) => {
                self.emptied.push(*aborts.get(at));
                !had_data
            }
            None => !had_data,
        }
    }

    pub(super) fn take_emptied(&mut self) -> Vec<Aborted> {
        std::mem::take(&mut self.emptied)
    }
}
