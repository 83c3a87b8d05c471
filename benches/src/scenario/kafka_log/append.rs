//! Appends as a leader: batches made beforehand, each checked whole, to many partitions on a log in memory.
//!
//! The log commits as a device does that is always busy: what was appended while it was, here a window of appends, at
//! once. Left alone a log in memory is done before the next append, and waking it for each would be measured.
//!
//! Nothing is uploaded while it is measured: the partitions are destroyed between slices, and others made. Beside it, in
//! turn, what must be done at least: the checksum of each batch and one copy of it.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::try_join_all;
use s3stream::{Config, Engine, GroupId};
use segment_adapter::{KafkaLog, LogConfig, LogError};
use wal::memory::MemoryLog;

use super::{RECORDS, Standing, batch};
use crate::{
    Options, Result, Workplace,
    baseline::Baseline,
    engine::{Parker, Running, wait},
    load::{Load, Submitted, Target},
    measure::runtime,
    place::Places,
    process,
    progress::Progress,
    report::{Details, Findings, mean, significant},
    slices::{self, Pair, Slice},
};

/// Partitions that are appended to in turn.
const PARTITIONS: usize = 100;
/// Batches that are waiting to be appended, over and over.
const BATCHES: usize = 256;
/// What the baseline copies to, over and over: more than a cache holds.
const ARENA_BYTES: usize = 64 << 20;
/// Batches outstanding at once.
const WINDOW: usize = 256;
/// As much as is appended before the partitions are destroyed: well below what the log asks an upload for.
const BURST: Duration = Duration::from_millis(25);
/// How long a commit may take.
const COMMIT_WITHIN: Duration = Duration::from_secs(1);
/// One of [`Appends::pins`].
const PIN_BYTES: usize = 64 << 10;

/// As reported: this part has places of its own.
pub(super) fn settings(options: &Options) -> Options {
    Options {
        wal: Some("memory:".to_owned()),
        bucket: Some("memory:".to_owned()),
        streams: PARTITIONS,
        ..options.clone()
    }
}

pub(super) fn run(
    options: &Options,
    workplace: &Workplace,
    progress: &Progress,
) -> Result<Findings> {
    let options = settings(options);
    let config = Config {
        log_cache_bytes: 1 << 30,
        upload_bytes: 512 << 20,
        ..Config::default()
    };
    let log = MemoryLog::new();
    let places = Places::of(&options, workplace);
    let running = Running::open_on(Arc::new(log.clone()), &places, config, runtime()?)?;
    let batches = (0..BATCHES)
        .map(|number| batch(RECORDS, options.record_bytes, number))
        .collect::<Result<Vec<_>>>()?;
    let load = Load {
        payload: batches[0].clone(),
        streams: PARTITIONS,
        window: WINDOW,
        interval: None,
    };
    let own = load.own_cpu_per_record_of(&mut Ready(Offered::new(&log)))?;
    let mut arena = Arena::new(&batches);
    let mut appends = Appends {
        log,
        running,
        load,
        batches,
        faults: 0,
        pins: Vec::new(),
    };
    progress.say("warming up");
    keep_memory();
    appends.slice(options.slice().max(8 * BURST))?;
    appends.faults = 0;
    let pairs = slices::interleave(
        &mut appends,
        options.slices,
        |appends, _| {
            progress.say("append");
            appends.slice(options.slice())
        },
        |appends, _| {
            progress.say("baseline");
            progress.step();
            Ok(arena.slice(&appends.batches, options.slice()))
        },
    )?;
    appends.running.close()?;
    let faults = appends.faults;
    let details = details(&pairs, own, faults);
    Ok(Findings {
        pairs,
        baseline: Baseline {
            kind: "memory",
            what: "crc32c and one memcpy of the same batches, one thread".to_owned(),
            depth: Some(1),
            ..Baseline::default()
        },
        window: Some(WINDOW),
        generator_cpu_per_record: Some(own),
        details,
        ..Findings::default()
    })
}

fn details(pairs: &[Pair], own: Duration, faults: u64) -> Details {
    let per_batch = |slice: &Slice, own: Duration| {
        let cpu_s = slice.cpu.as_secs_f64() / slice.records.max(1) as f64;
        (cpu_s - own.as_secs_f64()) * 1e9
    };
    let medians = |figure: &dyn Fn(f64, f64) -> f64| {
        let figures = pairs.iter().map(|pair| {
            figure(
                per_batch(&pair.engine, own),
                per_batch(&pair.baseline, Duration::ZERO),
            )
        });
        slices::median(figures.collect()).map(significant)
    };
    let beyond = |append: f64, baseline: f64| (append - 2.0 * baseline) / RECORDS as f64;
    let rates: Vec<f64> = pairs
        .iter()
        .filter_map(|pair| pair.engine.mib_per_s())
        .collect();
    let total = pairs.iter().map(|pair| pair.engine.records).sum();
    Details::from([
        (
            "append_gib_per_s_median",
            slices::median(rates)
                .map(|rate| significant(rate / 1024.0))
                .into(),
        ),
        (
            "append_cpu_ns_per_batch",
            medians(&|append, _| append).into(),
        ),
        (
            "baseline_cpu_ns_per_batch",
            medians(&|_, least| least).into(),
        ),
        ("append_page_faults_per_batch", mean(faults, total)),
        (
            "append_cpu_ratio",
            medians(&|append, least| append / least).into(),
        ),
        ("append_ns_per_record_beyond_twice", medians(&beyond).into()),
    ])
}

/// The engine, and what is offered to it.
struct Appends {
    log: MemoryLog,
    running: Running,
    load: Load,
    batches: Vec<Bytes>,
    /// Pages that were new to the process, while it was measured.
    faults: u64,
    /// Small things at the end of the heap, one of each burst; see [`keep_memory`].
    pins: Vec<Vec<u8>>,
}

impl Appends {
    /// New partitions are appended to for a while and destroyed, again and again.
    fn slice(&mut self, length: Duration) -> Result<Slice> {
        let Running {
            engine, runtime, ..
        } = &self.running;
        let mut parts = Vec::new();
        let mut left = length;
        while !left.is_zero() {
            let step = left.min(BURST);
            left -= step;
            let made = runtime.block_on(partitions(engine))?;
            let (groups, logs): (Vec<_>, Vec<_>) = made.into_iter().unzip();
            let faults = process::minor_faults();
            let offered = Offered::new(&self.log);
            let mut target = Partitions::new(&logs, &self.batches, offered);
            parts.push(self.load.run(&mut target, step)?);
            self.faults += process::minor_faults().saturating_sub(faults);
            drop(logs);
            self.pins.push(vec![1; PIN_BYTES]);
            runtime.block_on(async {
                try_join_all(groups.iter().map(|group| engine.destroy_group(*group))).await?;
                engine.flush().await
            })?;
        }
        Ok(slices::total(parts.iter()))
    }
}

/// Makes the system's allocator keep what a burst has used for the next, as it does in a process that appends all the
/// time: new pages cost several times what is measured. It gives back what is free at the end of its heap when that is
/// more than twice the largest piece that was given back alone; this is the largest that counts.
fn keep_memory() {
    drop(std::hint::black_box(vec![1u8; 31 << 20]));
}

async fn partitions(engine: &Engine) -> Result<Vec<(GroupId, KafkaLog)>> {
    let make = async || {
        let (group, streams) = engine.create_group(KafkaLog::STREAMS, Vec::new()).await?;
        let log = KafkaLog::open(streams, LogConfig::default(), Arc::new(Standing)).await?;
        Result::Ok((group, log))
    };
    try_join_all((0..PARTITIONS).map(|_| make())).await
}

type Durable = Pin<Box<dyn Future<Output = Result<(), LogError>>>>;

/// Appends that are waited for, in order. None is durable before one is waited for: then all are.
struct Offered {
    outstanding: VecDeque<Durable>,
    parker: Arc<Parker>,
    log: MemoryLog,
    held: bool,
}

impl Offered {
    fn new(log: &MemoryLog) -> Self {
        Self {
            outstanding: VecDeque::with_capacity(WINDOW),
            parker: Parker::here(),
            log: log.clone(),
            held: false,
        }
    }

    /// Before an append: it is committed with those after it.
    fn hold(&mut self) {
        if !self.held {
            self.log.hold();
            self.held = true;
        }
    }

    fn push(&mut self, durable: impl Future<Output = Result<(), LogError>> + 'static) {
        self.outstanding.push_back(Box::pin(durable));
    }

    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
        let Some(durable) = self.outstanding.front_mut() else {
            return Ok(None);
        };
        let now = Instant::now();
        if self.held {
            if deadline <= now {
                return Ok(None);
            }
            self.log.release();
            self.held = false;
        }
        // All of a commit is waited for: the next is of a whole window too.
        match wait(
            durable.as_mut(),
            &self.parker,
            deadline.max(now + COMMIT_WITHIN),
        ) {
            None => Ok(None),
            Some(outcome) => {
                outcome?;
                self.outstanding.pop_front();
                Ok(Some(Instant::now()))
            }
        }
    }
}

/// Durable at once: what is left is the generator's own.
struct Ready(Offered);

impl Target for Ready {
    fn submit(&mut self, _partition: usize, batch: &Bytes) -> Result<Submitted> {
        std::hint::black_box(batch.clone());
        self.0.hold();
        self.0.push(std::future::ready(Ok(())));
        Ok(Submitted::Accepted)
    }

    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
        self.0.oldest(deadline)
    }
}

/// The partitions as what batches are offered to.
struct Partitions<'a> {
    logs: &'a [KafkaLog],
    batches: &'a [Bytes],
    next: usize,
    offered: Offered,
}

impl<'a> Partitions<'a> {
    fn new(logs: &'a [KafkaLog], batches: &'a [Bytes], offered: Offered) -> Self {
        Self {
            logs,
            batches,
            next: 0,
            offered,
        }
    }
}

impl Target for Partitions<'_> {
    fn submit(&mut self, partition: usize, _payload: &Bytes) -> Result<Submitted> {
        let batch = self.batches[self.next].clone();
        self.offered.hold();
        match self.logs[partition].append_as_leader(batch, 0) {
            Ok(append) => {
                self.next = (self.next + 1) % self.batches.len();
                self.offered.push(append.durable());
                Ok(Submitted::Accepted)
            }
            Err(LogError::Overloaded { .. }) => Ok(Submitted::Full),
            Err(error) => Err(error.into()),
        }
    }

    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
        self.offered.oldest(deadline)
    }
}

/// Where the baseline copies to.
struct Arena {
    bytes: Vec<u8>,
    at: usize,
}

impl Arena {
    fn new(batches: &[Bytes]) -> Self {
        let longest = batches.iter().map(Bytes::len).max().unwrap_or(1);
        Self {
            // Written once: no page of it is new when it is copied to.
            bytes: vec![1; ARENA_BYTES.max(longest)],
            at: 0,
        }
    }

    fn slice(&mut self, batches: &[Bytes], length: Duration) -> Slice {
        let mut slice = Slice::default();
        let cpu = process::thread_cpu();
        let start = Instant::now();
        for batch in batches.iter().cycle() {
            if start.elapsed() >= length {
                break;
            }
            std::hint::black_box(crc32c::crc32c(batch));
            if self.at + batch.len() > self.bytes.len() {
                self.at = 0;
            }
            self.bytes[self.at..self.at + batch.len()].copy_from_slice(batch);
            self.at += batch.len();
            slice.records += 1;
            slice.bytes += batch.len() as u64;
        }
        std::hint::black_box(&self.bytes);
        slice.elapsed = start.elapsed();
        slice.cpu = process::thread_cpu().saturating_sub(cpu);
        slice
    }
}
