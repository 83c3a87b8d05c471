//! Object ids that the metadata has reserved for this node epoch and no object uses yet.

use std::{collections::VecDeque, ops::Range};

use parking_lot::Mutex;

use crate::ObjectId;

/// Below this many left, more are asked for with the next batch.
const LOW: u64 = 16;
/// How many are asked for at once.
pub(crate) const PREPARE: u32 = 64;

/// The ids of one node epoch.
#[derive(Debug, Default)]
pub(crate) struct ObjectIds {
    ranges: Mutex<VecDeque<Range<u64>>>,
}

impl ObjectIds {
    /// Starts with the ids of a new node epoch; those of the one before are condemned.
    pub(crate) fn reset(&self, range: Range<u64>) {
        let mut ranges = self.ranges.lock();
        ranges.clear();
        ranges.push_back(range);
    }

    pub(crate) fn add(&self, range: Range<u64>) {
        self.ranges.lock().push_back(range);
    }

    pub(crate) fn take(&self) -> Option<ObjectId> {
        let mut ranges = self.ranges.lock();
        loop {
            let range = ranges.front_mut()?;
            if let Some(id) = range.next() {
                return Some(ObjectId::new(id));
            }
            ranges.pop_front();
        }
    }

    pub(crate) fn is_low(&self) -> bool {
        let left: u64 = self
            .ranges
            .lock()
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        left < LOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_given_once_in_order() {
        let ids = ObjectIds::default();
        assert_eq!(ids.take(), None);
        ids.reset(5..7);
        ids.add(10..11);
        let taken: Vec<_> = std::iter::from_fn(|| ids.take())
            .map(ObjectId::get)
            .collect();
        assert_eq!(taken, [5, 6, 10]);
        assert!(ids.is_low());
    }
}
