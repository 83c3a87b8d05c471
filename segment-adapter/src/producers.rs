//! What a log remembers of its producers: their last batches, so that one that is sent again is not written again, and
//! their transactions.
//!
//! Per producer id: its epoch, its last [`BATCHES_MAX`] batches of that epoch and where its open transaction begins. At
//! most so many producers as the settings say; past that the one that has been silent for longest in offsets is
//! forgotten, and after a time every silent one is, but none with an open transaction. Who is not remembered may go on
//! with any sequence, as in Kafka. `docs/format.md` §producers.
//!
//! It is a function of the batches of the log alone, up to its end. Nothing here waits for durability: that is the
//! log's (K2), which says how far it has come when it asks for what is stable.

mod codec;
mod producer;
mod rules;
mod truncate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::aborted::{Aborted, AbortedTransactions};
use crate::batch::Batch;
use crate::header::BatchHeader;
use crate::marker::Marker;
use crate::position::{AbortedTxn, ActiveProducer};

pub(crate) use producer::Produced;
use producer::Producer;
pub(crate) use rules::Request;

/// How many batches of a producer are remembered: as many as a client has in flight.
pub(crate) const BATCHES_MAX: usize = 5;

/// A batch of the log, as far as producers are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) header: &'a BatchHeader,
    pub(crate) marker: Option<Marker>,
}

impl<'a> Entry<'a> {
    pub(crate) fn of(batch: &'a Batch) -> Self {
        Self::new(batch.header(), &batch.records())
    }

    pub(crate) fn new(header: &'a BatchHeader, records: &[u8]) -> Self {
        Self {
            header,
            marker: Marker::of(header, records),
        }
    }

    /// Neither somebody's batch nor somebody's marker.
    fn is_nobodys(&self) -> bool {
        let empty = self.header.attributes.is_control() && self.marker.is_none();
        self.header.producer_id < 0 || empty
    }
}

/// The producers of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Producers {
    /// One past the last offset that was taken in.
    end: i64,
    known: BTreeMap<i64, Producer>,
    /// Ids of those without an open transaction by the last offset of each: the first has been silent for longest.
    silent: BTreeMap<i64, i64>,
    /// Ids of those with one, by where it begins.
    open: BTreeMap<i64, i64>,
    /// Those that have changed since [`Self::set_kept`]; one that is not known was forgotten.
    changed: BTreeSet<i64>,
    aborted: AbortedTransactions,
    /// First and last offset of the transactions whose marker may not be durable, by the latter.
    ending: VecDeque<(i64, i64)>,
}

impl Producers {
    /// Takes in a batch of the log; one that is known already changes nothing.
    pub(crate) fn add(&mut self, entry: &Entry, max: usize) {
        let header = entry.header;
        let last_offset = header.last_offset();
        if last_offset < self.end {
            return;
        }
        self.end = last_offset.saturating_add(1);
        if entry.is_nobodys() {
            return;
        }
        let id = header.producer_id;
        let known = self.take_out(id);
        let mut producer = known.unwrap_or_else(|| Producer::new(header.producer_epoch));
        if let Some(ended) = producer.add(entry) {
            self.ending.push_back((ended.first_offset, last_offset));
            if !ended.committed {
                let stable_offset = self.first_undecided().unwrap_or(self.end);
                let known = self.aborted.push(Aborted {
                    producer_id: id,
                    first_offset: ended.first_offset,
                    last_offset,
                    stable_offset,
                });
                debug_assert!(known, "offsets ascend");
            }
        }
        self.put_in(id, producer);
        self.changed.insert(id);
        self.forget_down_to(max);
    }

    fn take_out(&mut self, id: i64) -> Option<Producer> {
        let producer = self.known.remove(&id)?;
        match producer.txn_first_offset {
            Some(first_offset) => self.open.remove(&first_offset),
            None => self.silent.remove(&producer.last_offset),
        };
        Some(producer)
    }

    /// Gives the producer that is at the same place, which no log has.
    fn put_in(&mut self, id: i64, producer: Producer) -> Option<i64> {
        let other = match producer.txn_first_offset {
            Some(first_offset) => self.open.insert(first_offset, id),
            None => self.silent.insert(producer.last_offset, id),
        };
        self.known.insert(id, producer);
        other
    }

    pub(crate) fn forget_down_to(&mut self, max: usize) {
        while self.known.len() > max {
            let Some((_, silent)) = self.silent.pop_first() else {
                return;
            };
            // One that has changed stays among the changes: else what is kept of it, an open transaction even, would
            // come back. One that has not comes back as it is, and is forgotten again.
            self.known.remove(&silent);
        }
    }

    /// Forgets who has been silent for so long and has no open transaction, at most so many. It is a change: who came back
    /// when the log is opened again would push out one that is remembered.
    pub(crate) fn expire(&mut self, now_ms: i64, after_ms: i64, most: usize) {
        let is_over = |id: &i64| {
            let last = self.known.get(id).map(|producer| producer.last_timestamp);
            last.is_none_or(|last| now_ms.saturating_sub(last) >= after_ms)
        };
        let over = self.silent.values().copied().filter(is_over);
        let over: Vec<i64> = over.take(most).collect();
        for id in over {
            self.take_out(id);
            self.changed.insert(id);
        }
    }

    /// One past the last offset that was taken in.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Whether an open transaction of this epoch goes on.
    pub(crate) fn has_open_txn(&self, id: i64, epoch: i16) -> bool {
        let known = self.known.get(&id);
        known.is_some_and(|known| known.epoch == epoch && known.has_open_txn())
    }

    /// The epoch of a producer.
    pub(crate) fn epoch(&self, id: i64) -> Option<i16> {
        Some(self.known.get(&id)?.epoch)
    }

    /// The coordinator's epoch of the last marker of a producer; -1 if there is none.
    pub(crate) fn coordinator_epoch(&self, id: i64) -> i32 {
        let known = self.known.get(&id);
        known.map_or(-1, |known| known.coordinator_epoch)
    }

    /// Where the oldest open transaction begins.
    fn first_undecided(&self) -> Option<i64> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// The newest time of the producer whose open transaction is the oldest.
    pub(crate) fn oldest_open_timestamp(&self) -> Option<i64> {
        let (_, id) = self.open.first_key_value()?;
        Some(self.known.get(id)?.last_timestamp)
    }

    /// The first offset of a transaction that is open, or whose end is not below the high watermark.
    pub(crate) fn first_unstable(&mut self, hw: i64) -> Option<i64> {
        while self.ending.front().is_some_and(|(_, last)| *last < hw) {
            self.ending.pop_front();
        }
        let ending = self.ending.iter().map(|(first, _)| *first);
        ending.chain(self.first_undecided()).min()
    }

    /// The aborted transactions that a reader of `start..end` needs.
    pub(crate) fn aborted_within(&self, start: i64, end: i64) -> Vec<AbortedTxn> {
        let within = self.aborted.within(start, end);
        let told = within.map(|aborted| AbortedTxn {
            producer_id: aborted.producer_id,
            first_offset: aborted.first_offset,
        });
        told.collect()
    }

    /// Nothing is left of the transactions with these markers, so no reader need be told of them. Gives those that were
    /// known, and the change to be kept.
    pub(crate) fn forget_emptied(&mut self, markers: &[i64]) -> (Vec<Aborted>, Option<Bytes>) {
        let emptied = self.aborted.remove(markers);
        let change = (!emptied.is_empty()).then(|| Self::encode_emptied(&emptied));
        (emptied, change)
    }

    /// That change was not kept.
    pub(crate) fn put_back(&mut self, emptied: Vec<Aborted>) {
        self.aborted.put_back(emptied);
    }

    /// The log starts at `start`: nobody reads what was aborted below.
    pub(crate) fn forget_aborted_below(&mut self, start: i64) {
        self.aborted.forget_below(start);
    }

    /// All aborted transactions that are known.
    pub(crate) fn aborted(&self) -> impl Iterator<Item = &Aborted> {
        self.aborted.iter()
    }

    /// By id, the last offset of the batch that says how each goes on: its last data, or its last marker if there is no
    /// data of its epoch. Compaction keeps that batch.
    pub(crate) fn last_offsets(&self) -> BTreeMap<i64, i64> {
        let known = self.known.iter();
        known
            .map(|(id, producer)| (*id, producer.last_of_epoch()))
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    /// All of them, by id.
    pub(crate) fn active(&self) -> Vec<ActiveProducer> {
        let active = self.known.iter().map(|(id, producer)| ActiveProducer {
            producer_id: *id,
            epoch: producer.epoch,
            last_sequence: producer.last_sequence().unwrap_or(-1),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            txn_first_offset: producer.txn_first_offset.unwrap_or(-1),
        });
        active.collect()
    }
}

#[cfg(test)]
mod tests;
