//! The producers of a log that is cut: as they were at its new end.
//!
//! Who has nothing past the new end is as it was. Everybody else, also who was forgotten since, is made again from the
//! batches that are kept below it; nothing is known of what stood in segments that are gone, as in Kafka.

use std::collections::BTreeSet;

use super::producer::Producer;
use super::{Entry, Producers};

/// Producers that are being taken back to an earlier end.
pub(crate) struct Restoring {
    producers: Producers,
    most: usize,
    untouched: BTreeSet<i64>,
}

impl Producers {
    /// None, of a log that begins at `end`.
    pub(crate) fn none_before(end: i64) -> Self {
        Self {
            end,
            ..Self::default()
        }
    }

    /// Begins to take them back to `end`, `most` of them. No batch may be in flight.
    pub(crate) fn restore(&self, end: i64, most: usize) -> Restoring {
        let mut producers = self.clone();
        let past = |(id, producer): (&i64, &Producer)| (producer.last_offset >= end).then_some(*id);
        let past: Vec<i64> = self.known.iter().filter_map(past).collect();
        for id in past {
            producers.take_out(id);
        }
        producers.aborted.truncate(end);
        // Also what is durable may be above a high watermark that the broker has set.
        producers.ending.retain(|(_, last)| *last < end);
        producers.end = end;
        Restoring {
            untouched: producers.known.keys().copied().collect(),
            producers,
            most,
        }
    }
}

impl Restoring {
    /// Takes in the next of all batches that are kept below the new end.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let id = entry.header.producer_id;
        if entry.is_nobodys() || self.untouched.contains(&id) {
            return;
        }
        let producers = &mut self.producers;
        let known = producers.take_out(id);
        let mut producer = known.unwrap_or_else(|| Producer::new(entry.header.producer_epoch));
        // What was aborted below the new end is known.
        let _ended = producer.add(entry);
        producers.put_in(id, producer);
        producers.forget_down_to(self.most);
    }

    /// The producers, which are to be kept as a whole.
    pub(crate) fn finish(self) -> Producers {
        let mut producers = self.producers;
        producers.forget_down_to(self.most);
        producers.set_kept();
        producers
    }
}
