//! Compaction of one partition: how fast it goes through what is dirty, on one thread, and in how much memory.
//!
//! The records are of 1 KiB, each with one of as many keys as there are records, drawn at random: about two in three keys
//! are there at all, and a third of the records is superseded. They are in the bucket, and what is kept goes there again.

use std::{sync::Arc, time::Instant};

use s3stream::Config;
use segment_adapter::{BatchBuilder, Codec, Compactor, CompactorConfig, KafkaLog, LogConfig};

use super::{NOW_MS, RECORDS, Standing};
use crate::{
    Options, Result, Workplace,
    engine::Running,
    measure::{Surroundings, payload},
    place::Places,
    process::Meter,
    report::{Details, mib, significant},
    slices::{MIB, Slice},
};

/// What is compacted; less in a run of a moment.
const BYTES: usize = 1 << 30;
const FEW_BYTES: usize = 8 << 20;
const RECORD_BYTES: usize = 1 << 10;
const SEGMENT_BYTES: u64 = 128 << 20;
/// 24 bytes for each of a million keys, and a tenth more.
const MAP_BYTES: usize = 32 << 20;

pub(super) fn run(options: &Options, workplace: &Workplace) -> Result<Details> {
    let bytes = if options.seconds < 1.0 {
        FEW_BYTES
    } else {
        BYTES
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let places = Places::own(options, workplace, "compaction");
    let running = Running::open(&places, Config::default(), Arc::new(runtime))?;
    let (group, streams) = running.create(KafkaLog::STREAMS as usize)?;
    let config = LogConfig {
        compact: true,
        segment_bytes: SEGMENT_BYTES.min(bytes as u64 / 8),
        ..LogConfig::default()
    };
    let log = running
        .runtime
        .block_on(KafkaLog::open(streams, config, Arc::new(Standing)))?;
    let records = bytes / RECORD_BYTES;
    running.runtime.block_on(fill(&log, records))?;
    running.flush()?;

    let before = log.size()?;
    let mut compactor = Compactor::new(CompactorConfig {
        dedupe_buffer_bytes: MAP_BYTES,
        ..CompactorConfig::default()
    })?;
    let meter = Meter::start();
    let started = Instant::now();
    let compact = log.compact(&mut compactor, NOW_MS);
    let compacted = running.runtime.block_on(compact)?;
    let elapsed_s = started.elapsed().as_secs_f64();
    let mut slice = Slice::default();
    meter.stop(&mut slice);
    let cpu_s = slice.cpu.as_secs_f64();
    let after = log.size()?;
    if !compacted.finished || compacted.records_out >= compacted.records_in {
        return Err(format!("not all was compacted: {compacted:?}").into());
    }
    drop(log);
    running.finish(group)?;
    let input_mib = before as f64 / MIB;
    Ok(Details::from([
        (
            "compaction_mib_per_s",
            significant(input_mib / elapsed_s).into(),
        ),
        (
            "compaction_mib_per_cpu_s",
            significant(input_mib / cpu_s).into(),
        ),
        ("compaction_in_mib", mib(before)),
        ("compaction_out_mib", mib(after)),
        ("compaction_map_mib", mib(MAP_BYTES as u64)),
        (
            "compaction_peak_rss_mib",
            slice.peak_rss_mib.map(significant).into(),
        ),
    ]))
}

/// Appends `records`, as many keys as records, and begins a new segment.
async fn fill(log: &KafkaLog, records: usize) -> Result<()> {
    let value = payload(RECORD_BYTES - 8);
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    let mut last = None;
    for _ in 0..records / RECORDS {
        let mut batch = BatchBuilder::new(Codec::None);
        for _ in 0..RECORDS {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            let key = word % records as u64;
            batch = batch.record(NOW_MS, Some(&key.to_be_bytes()), Some(&value));
        }
        let batch = batch.build()?;
        loop {
            match log.append_as_leader(batch.clone(), 0) {
                Ok(append) => {
                    last = Some(append);
                    break;
                }
                Err(segment_adapter::LogError::Overloaded(_)) => log.ready(batch.len()).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
    if let Some(last) = last {
        last.durable().await?;
    }
    Ok(log.roll()?)
}
