//! What a log remembers of one producer: its epoch, its last batches, its open transaction.

use std::collections::VecDeque;

use super::{BATCHES_MAX, Entry};
use crate::header::BatchHeader;

/// A batch that was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Produced {
    pub(super) last_sequence: i32,
    pub(crate) last_offset: i64,
    /// Last offset less first offset, and last sequence less first sequence.
    pub(super) offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl Produced {
    fn new(header: &BatchHeader) -> Self {
        Self {
            last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    pub(crate) fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn is_repeated_by(&self, header: &BatchHeader) -> bool {
        // The same length and the same end are the same beginning, wherever the sequence wrapped.
        self.offset_delta == header.last_offset_delta
            && self.last_sequence == sequence_after(header.base_sequence, header.last_offset_delta)
    }
}

/// Sequences count from 0 to 2³¹ − 1 and begin again.
fn sequence_after(sequence: i32, delta: i32) -> i32 {
    ((i64::from(sequence) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

/// A transaction that a marker has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    pub(super) first_offset: i64,
    pub(super) committed: bool,
}

/// A producer; `txn_first_offset <= last_offset`, and so is the last offset of each batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    /// Of the coordinator that wrote the last marker, -1 for none.
    pub(super) coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub(super) txn_first_offset: Option<i64>,
    /// Of its last batch or marker.
    pub(super) last_offset: i64,
    pub(super) last_timestamp: i64,
    /// Its last batches of this epoch, oldest first; none if there are only markers.
    pub(super) batches: VecDeque<Produced>,
}

impl Producer {
    pub(super) fn new(epoch: i16) -> Self {
        Self {
            epoch,
            coordinator_epoch: -1,
            txn_first_offset: None,
            last_offset: -1,
            last_timestamp: -1,
            batches: VecDeque::with_capacity(BATCHES_MAX),
        }
    }

    /// The batch that this is a repetition of.
    pub(super) fn repeated(&self, header: &BatchHeader) -> Option<Produced> {
        let mut batches = self.batches.iter();
        let repeated = batches.find(|batch| batch.is_repeated_by(header));
        repeated
            .filter(|_| header.producer_epoch == self.epoch)
            .copied()
    }

    /// The only first sequence that a batch of `epoch` may have.
    pub(super) fn next_sequence(&self, epoch: i16) -> i32 {
        match self.batches.back() {
            Some(last) if epoch == self.epoch => sequence_after(last.last_sequence, 1),
            _ => 0,
        }
    }

    pub(super) fn last_sequence(&self) -> Option<i32> {
        self.batches.back().map(|last| last.last_sequence)
    }

    /// The last offset of its last batch of data; of its last marker if there is none of its epoch.
    pub(super) fn last_of_epoch(&self) -> i64 {
        let last = self.batches.back().map(|last| last.last_offset);
        last.unwrap_or(self.last_offset)
    }

    pub(super) fn has_open_txn(&self) -> bool {
        self.txn_first_offset.is_some()
    }

    /// Takes in its next batch or marker, and gives the transaction that ends with it.
    pub(super) fn add(&mut self, entry: &Entry) -> Option<Ended> {
        let header = entry.header;
        self.last_offset = header.last_offset();
        self.last_timestamp = header.max_timestamp;
        if self.epoch != header.producer_epoch {
            self.epoch = header.producer_epoch;
            self.batches.clear();
        }
        if let Some(marker) = entry.marker {
            self.coordinator_epoch = marker.coordinator_epoch;
            return self.txn_first_offset.take().map(|first_offset| Ended {
                first_offset,
                committed: marker.commit,
            });
        }
        // A coordinator's own batches have no sequence; they are never sent again.
        if header.base_sequence >= 0 {
            if self.batches.len() == BATCHES_MAX {
                self.batches.pop_front();
            }
            self.batches.push_back(Produced::new(header));
        }
        if header.attributes.is_transactional() {
            self.txn_first_offset.get_or_insert(header.base_offset);
        }
        None
    }
}
