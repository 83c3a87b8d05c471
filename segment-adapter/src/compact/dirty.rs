//! Noting the newest offset of every key that was written since the last pass.
//!
//! Batches come in their order, from the one that holds the first dirty offset on. Data that was aborted, markers and
//! records without a key are not noted. When the map has no room for a key the fold ends before that record, and the pass
//! cleans what it has seen: the next one goes on there. A fold of something ends past the first dirty offset.

use super::{Aborts, OffsetMap, Places, check, plain};
use crate::batch::Batch;
use crate::error::LogError;
use crate::record::Records;

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Folded {
    /// All of it was noted.
    All,
    /// The map is full: the fold is at its end.
    Full,
}

/// Fills an [`OffsetMap`].
pub(crate) struct DirtyFold<'a> {
    map: &'a mut OffsetMap,
    aborts: &'a Aborts,
    first_dirty: i64,
    /// One past the last batch.
    end: i64,
    is_full: bool,
    decompressed_bytes_max: u64,
    scratch: Vec<u8>,
    records: u64,
    bytes: u64,
}

impl<'a> DirtyFold<'a> {
    /// Of what lies at or past `first_dirty`. The map has been cleared. At most `decompressed_bytes_max` of a batch are
    /// decompressed.
    pub(crate) fn new(
        map: &'a mut OffsetMap,
        aborts: &'a Aborts,
        first_dirty: i64,
        decompressed_bytes_max: u64,
    ) -> Self {
        map.cover(first_dirty);
        Self {
            map,
            aborts,
            first_dirty,
            end: 0,
            is_full: false,
            decompressed_bytes_max,
            scratch: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Takes in the next batch. After `Full` nothing is taken in any more.
    ///
    /// # Errors
    /// `Corrupt`, `InvalidRecord`, `Undecodable`, `UnsupportedCompression`, `MessageTooLarge`: the batch is damaged, or
    /// larger than the limit when decompressed. The log cannot be compacted past it.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<Folded, LogError> {
        if self.is_full {
            return Ok(Folded::Full);
        }
        check(batch, self.end)?;
        let header = batch.header();
        self.end = header.last_offset().saturating_add(1);
        self.bytes = self.bytes.saturating_add(batch.bytes().len() as u64);
        if self.end <= self.first_dirty {
            return Ok(Folded::All);
        }
        if !header.attributes.is_control() && !self.aborts.has_data(header) {
            self.note_records(batch)?;
        }
        if self.is_full {
            return Ok(Folded::Full);
        }
        self.map.cover(self.end);
        Ok(Folded::All)
    }

    fn note_records(&mut self, batch: &Batch) -> Result<(), LogError> {
        let header = batch.header();
        let records = plain(batch, self.decompressed_bytes_max, &mut self.scratch)?;
        let mut places = Places::of(header);
        for record in Records::new(records, header.records_count) {
            let record = record?;
            self.records += 1;
            let offset = places.next(&record);
            let Some(key) = record.key.filter(|_| offset >= self.first_dirty) else {
                continue;
            };
            // At the first offset there is always room, unless a client has put many records there: these stay unnoted,
            // which keeps them, or nothing would ever get on.
            if !self.map.put(key, offset) && offset > self.first_dirty {
                self.map.cover(offset);
                self.is_full = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// What was read last ends a segment, and the next one begins at `next_base`: there is nothing between.
    pub(crate) fn segment_ended(&mut self, next_base: i64) {
        if !self.is_full {
            self.map.cover(next_base);
        }
    }

    /// One past the last offset that was noted: what a pass with this map cleans ends there, and the next one begins.
    pub(crate) fn end(&self) -> i64 {
        self.map.end()
    }

    /// How many bytes of batches and how many records were read.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.bytes, self.records)
    }
}
