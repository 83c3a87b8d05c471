//! Compaction of batches in memory: what a pass does with the segments of a log, without a log.
//!
//! Only with feature `testing`: for the fuzzer and the benchmarks.

use crate::batch::Batch;
use crate::compact::{Aborts, DirtyFold, Fate, Folded, OffsetMap, Pass, Round};
use crate::error::LogError;
use crate::producers::{Entry, Producers};

const PRODUCERS_MAX: usize = 10_000;

/// How a pass compacts.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Memory for the keys.
    pub map_bytes: usize,
    /// What lies below was compacted before.
    pub first_dirty: i64,
    /// The clock, in milliseconds.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// The most bytes that a batch may have when decompressed.
    pub decompressed_bytes_max: u64,
}

impl Compaction {
    /// What is left of `batches`, which are the whole log, and how far it is clean.
    ///
    /// # Errors
    /// As a pass over a log: a batch is damaged, out of order or too large.
    pub fn run(&self, batches: &[Batch]) -> Result<(Vec<Batch>, i64), LogError> {
        let mut producers = Producers::default();
        let mut end = 0;
        for batch in batches {
            crate::compact::check(batch, end)?;
            end = batch.header().last_offset().saturating_add(1);
            producers.add(&Entry::of(batch), PRODUCERS_MAX);
        }
        let stable = producers.first_unstable(end).unwrap_or(end);
        let below = |batch: &&Batch| batch.header().last_offset() < stable;
        let cleanable: Vec<&Batch> = batches.iter().take_while(below).collect();
        let aborts = Aborts::new(producers.aborted());
        let mut map = OffsetMap::new(self.map_bytes);
        map.clear(end.abs_diff(self.first_dirty));
        let mut fold = DirtyFold::new(
            &mut map,
            &aborts,
            self.first_dirty,
            self.decompressed_bytes_max,
        );
        for batch in &cleanable {
            if fold.add(batch)? == Folded::Full {
                break;
            }
        }
        let clean = fold.end();
        let mut pass = Pass::new(Round {
            map: &map,
            aborts,
            last_offsets: producers.last_offsets(),
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
            end: stable,
            decompressed_bytes_max: self.decompressed_bytes_max,
        });
        let mut kept = Vec::new();
        for batch in &cleanable {
            match pass.add(batch)? {
                Fate::Untouched => kept.push((*batch).clone()),
                Fate::Rewritten(rewritten) => kept.push(rewritten),
                Fate::Removed => {}
            }
        }
        kept.extend_from_slice(&batches[cleanable.len()..]);
        Ok((kept, clean))
    }
}
