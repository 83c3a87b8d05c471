//! What becomes of each batch in a pass.
//!
//! All batches from the first segment on come in their order, up to the end of the last segment that holds something the
//! map accounts for; each is untouched, rewritten or removed. Offsets, order, sequences and producers of what is kept do
//! not change. Nothing is removed that a reader from the start, or one that is at most the retention of deletes behind,
//! would miss:
//!
//! - a record goes when it has no key, when a newer one of its key is in the map, or when it is a tombstone whose time is
//!   over; below the end of the map, and never above;
//! - all data of aborted transactions goes;
//! - a marker goes when this pass has seen no batch of its transaction and its time is over;
//! - a batch without records goes, unless it is the last of its producer or the last one of the round.
//!
//! The time of a tombstone or marker begins with the pass that leaves nothing below for it to hide: that pass writes the
//! *delete horizon* into its batch.

mod transactions;

use std::collections::BTreeMap;

use super::rewrite::{Scratch, emptied};
use super::{Aborts, OffsetMap, check};
use crate::aborted::Aborted;
use crate::batch::Batch;
use crate::error::LogError;
use crate::header::BatchHeader;
use crate::marker::Marker;
use crate::record::RecordView;
use transactions::Transactions;

/// What a pass goes by.
pub(crate) struct Round<'a> {
    /// The newest offsets of what was dirty.
    pub(crate) map: &'a OffsetMap,
    /// All aborted transactions that have a batch below `end`.
    pub(crate) aborts: Aborts,
    /// Of each producer of the log the offset whose batch is kept even without records: see
    /// [`crate::producers::Producers::last_offsets`]. May be older than the pass: then more is kept.
    pub(crate) last_offsets: BTreeMap<i64, i64>,
    /// The clock when the pass began, in milliseconds.
    pub(crate) now_ms: i64,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// Where what may be cleaned ends: the batch that ends there is kept.
    pub(crate) end: i64,
    /// The most bytes that a batch may have when decompressed. A pass takes up to five times as much memory.
    pub(crate) decompressed_bytes_max: u64,
}

/// What becomes of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is kept as it is.
    Untouched,
    /// This is kept in its place; it may be larger if its deletes got their time.
    Rewritten(Batch),
    /// It goes.
    Removed,
}

/// What a pass has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stats {
    /// Batches that were read.
    pub(crate) batches_in: u64,
    /// Their size.
    pub(crate) bytes_in: u64,
    /// Their records, without those that were not looked at because they were aborted.
    pub(crate) records_in: u64,
    /// Batches that are kept.
    pub(crate) batches_out: u64,
    /// Their size.
    pub(crate) bytes_out: u64,
    /// Their records.
    pub(crate) records_out: u64,
    /// How many of those are tombstones.
    pub(crate) tombstones_out: u64,
    /// The earliest time at which a later pass may remove a tombstone or a marker that is kept; `None` if none has one.
    pub(crate) earliest_horizon: Option<i64>,
}

/// A pass over the batches of a log.
pub(crate) struct Pass<'a> {
    round: Round<'a>,
    transactions: Transactions,
    /// One past the last batch.
    at: i64,
    scratch: Scratch,
    stats: Stats,
}

/// How many records of a batch were read, and how many of those that are kept are tombstones.
#[derive(Clone, Copy, Default)]
struct Counted {
    read: u32,
    tombstones: u32,
}

impl<'a> Pass<'a> {
    /// A pass that has seen nothing yet.
    pub(crate) fn new(round: Round<'a>) -> Self {
        Self {
            transactions: Transactions::new(round.aborts.len()),
            round,
            at: 0,
            scratch: Scratch::default(),
            stats: Stats::default(),
        }
    }

    /// Says what becomes of the next batch.
    ///
    /// # Errors
    /// As [`super::DirtyFold::add`]; the pass has ended with it, and what it said of earlier batches stays right.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<Fate, LogError> {
        check(batch, self.at)?;
        let header = batch.header();
        self.at = header.last_offset().saturating_add(1);
        let (fate, counted) = if header.attributes.is_control() {
            self.control(batch)?
        } else {
            self.data(batch)?
        };
        self.count(batch, &fate, &counted);
        Ok(fate)
    }

    /// The aborted transactions of which nothing but the marker is left, of those whose markers came since this was asked
    /// last: once the segments with their markers are replaced, readers need not be told of them any more.
    pub(crate) fn take_emptied(&mut self) -> Vec<Aborted> {
        self.transactions.take_emptied()
    }

    /// What was done so far.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    fn control(&mut self, batch: &Batch) -> Result<(Fate, Counted), LogError> {
        let header = batch.header();
        let has_record = header.records_count > 0;
        let counted = Counted {
            read: u32::from(has_record),
            tombstones: 0,
        };
        let horizon = header.delete_horizon();
        let Some(marker) = Marker::of(header, batch.record_bytes()) else {
            // It is of a kind that means something to others; or it was emptied before.
            let fate = match has_record {
                true => Fate::Untouched,
                false => self.without_records(batch)?,
            };
            return Ok((fate, counted));
        };
        // Read in any case, so that damage is found at once and not when its time begins.
        let max = self.round.decompressed_bytes_max;
        let kept = self.scratch.filter(batch, max, |_, _| true)?;
        let marks_nothing = self.transactions.end(&self.round.aborts, header, marker);
        if !marks_nothing {
            return Ok((Fate::Untouched, counted));
        }
        if let Some(horizon) = horizon {
            return Ok(match horizon <= self.round.now_ms {
                true => (self.without_records(batch)?, counted),
                false => (Fate::Untouched, counted),
            });
        }
        let horizon = Some(self.new_horizon());
        let rewritten = self.scratch.rewrite(batch, &kept, horizon)?;
        Ok((Fate::Rewritten(rewritten), counted))
    }

    fn data(&mut self, batch: &Batch) -> Result<(Fate, Counted), LogError> {
        let header = batch.header();
        let is_aborted = self.transactions.add(&self.round.aborts, header);
        if is_aborted || header.records_count == 0 {
            return Ok((self.without_records(batch)?, Counted::default()));
        }
        let round = &self.round;
        let horizon = header.delete_horizon();
        let deletes_are_over = horizon.is_some_and(|horizon| horizon <= round.now_ms);
        let keep = |offset: i64, record: &RecordView| {
            offset >= round.map.end()
                || record.key.is_some_and(|key| {
                    (record.has_value || !deletes_are_over)
                        && round.map.get(key).is_none_or(|newest| newest <= offset)
                })
        };
        let kept = self
            .scratch
            .filter(batch, round.decompressed_bytes_max, keep)?;
        let counted = Counted {
            read: kept.read,
            tombstones: kept.tombstones,
        };
        if kept.count == 0 {
            return Ok((self.without_records(batch)?, counted));
        }
        // Not before the map accounts for the last tombstone: until then older records of its key are there.
        let begins = horizon.is_none()
            && kept
                .last_tombstone
                .is_some_and(|last| last < self.round.map.end());
        if kept.is_whole() && !begins {
            return Ok((Fate::Untouched, counted));
        }
        let horizon = begins.then(|| self.new_horizon());
        let rewritten = self.scratch.rewrite(batch, &kept, horizon)?;
        Ok((Fate::Rewritten(rewritten), counted))
    }

    fn new_horizon(&self) -> i64 {
        let round = &self.round;
        round.now_ms.saturating_add(round.delete_retention_ms)
    }

    /// What becomes of a batch of which no record is left.
    fn without_records(&self, batch: &Batch) -> Result<Fate, LogError> {
        let header = batch.header();
        if !self.is_last(header) {
            return Ok(Fate::Removed);
        }
        let empty = emptied(header)?;
        Ok(if empty.bytes() == batch.bytes() {
            Fate::Untouched
        } else {
            Fate::Rewritten(empty)
        })
    }

    /// Whether it is the last batch of its producer, which says how its producer goes on; or the last of the round, which
    /// says where the log does.
    fn is_last(&self, header: &BatchHeader) -> bool {
        let last_offset = header.last_offset();
        let of_producer = self.round.last_offsets.get(&header.producer_id);
        of_producer == Some(&last_offset) || last_offset.saturating_add(1) == self.round.end
    }

    fn count(&mut self, batch: &Batch, fate: &Fate, counted: &Counted) {
        let stats = &mut self.stats;
        stats.batches_in += 1;
        stats.bytes_in += batch.bytes().len() as u64;
        stats.records_in += u64::from(counted.read);
        let kept = match fate {
            Fate::Untouched => batch,
            Fate::Rewritten(rewritten) => rewritten,
            Fate::Removed => return,
        };
        stats.batches_out += 1;
        stats.bytes_out += kept.bytes().len() as u64;
        stats.records_out += u64::try_from(kept.header().records_count).unwrap_or(0);
        stats.tombstones_out += u64::from(counted.tombstones);
        if let Some(horizon) = kept.header().delete_horizon() {
            let earliest = stats.earliest_horizon.get_or_insert(horizon);
            *earliest = horizon.min(*earliest);
        }
    }
}
