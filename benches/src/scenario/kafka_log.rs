//! Kafka's log: appends to many partitions beside a checksum and a copy of the same batches, and what ten thousand
//! partitions cost to keep and to open after a crash, and how fast one is compacted.

mod append;
mod compaction;
mod partitions;

use segment_adapter::{BatchBuilder, Codec, WallClock};

use crate::{
    Options, Report, Result, Workplace, measure::payload, progress::Progress, report::Findings,
};

/// Records in a batch.
const RECORDS: usize = 16;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let progress = Progress::new(options, options.slices);
    // First, in a process that has not allocated anything yet: its memory is read from the system.
    progress.say("partitions");
    let mut details = partitions::run(options, workplace)?;
    progress.say("compaction");
    details.extend(compaction::run(options, workplace)?);
    let found = append::run(options, workplace, &progress)?;
    details.extend(found.details);
    let settings = append::settings(options);
    Ok(Report::new(&settings, Findings { details, ..found }))
}

/// The clock of every log: a time at which all records were made.
struct Standing;

const NOW_MS: i64 = 1_700_000_000_000;

impl WallClock for Standing {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

/// A producer's batch of records with keys; `number` makes the keys differ.
fn batch(records: usize, record_bytes: usize, number: usize) -> Result<bytes::Bytes> {
    let value = payload(record_bytes);
    let mut batch = BatchBuilder::new(Codec::None);
    for index in 0..records {
        let key = (number * records + index) as u64;
        batch = batch.record(NOW_MS, Some(&key.to_be_bytes()), Some(&value));
    }
    Ok(batch.build()?)
}
