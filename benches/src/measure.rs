//! The common course of a run that appends: find the window, then engine and baseline in turn.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    Options, Result, Window, Workplace,
    baseline::{Baseline, Device, Memory},
    commits::Commits,
    load::{Load, Target},
    place::LogPlace,
    price::Requests,
    progress::Progress,
    report::{Details, Findings, mean},
    slices::{self, Slice},
};

/// The raw device is given as large a file as the default log.
const DEVICE_BYTES: u64 = 512 << 20;
/// How long each window is tried.
const TRIAL: Duration = Duration::from_millis(150);

/// What the engine is compared with.
pub(crate) enum Beside {
    /// Raw durable writes.
    Device(Device),
    /// A log in memory has no device: a copy and a checksum is what it must do at least.
    Memory,
}

impl Beside {
    /// The device the log stands on: a file beside the log's. Beside a log on a raw device there is no room for one;
    /// it is in the workplace then.
    pub(crate) fn of_log(log: &LogPlace, workplace: &Workplace, options: &Options) -> Result<Self> {
        if log.in_memory {
            return Ok(Self::Memory);
        }
        // A run of a moment does not wait for half a gigabyte of zeros.
        let len = if options.seconds < 1.0 {
            8 << 20
        } else {
            DEVICE_BYTES
        };
        let (dir, place) = match &log.dir {
            Some(dir) => (dir.as_path(), "the log's directory"),
            None => (
                workplace.path(),
                "the working directory, the log is on a raw device",
            ),
        };
        Ok(Self::Device(Device::create(
            dir,
            place,
            len,
            options.baseline_sync,
        )?))
    }
}

/// What else goes on around the target.
pub(crate) trait Surroundings {
    /// Requests sent to the bucket so far.
    fn requests(&self) -> Requests {
        Requests::default()
    }

    /// Called after each slice of the engine, before the baseline's turn: what goes on in the background comes to rest.
    fn settle(&self) {}

    /// Uploads everything that is durable.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// How it is measured, and what it is compared with.
pub(crate) struct Course<'a> {
    pub(crate) options: &'a Options,
    pub(crate) commits: Commits,
    pub(crate) beside: Beside,
    /// Raw writes at once at full load.
    pub(crate) depth: usize,
}

impl Course<'_> {
    /// Runs it all; the caller adds its own details.
    pub(crate) fn run(
        &self,
        target: &mut impl Target,
        around: &impl Surroundings,
    ) -> Result<Findings> {
        let options = self.options;
        let progress = Progress::new(options, options.slices);
        let load = self.load(target, &progress)?;
        progress.say("warming up");
        load.run(target, options.slice().min(Duration::from_secs(1)))?;
        around.flush()?;
        around.settle();
        let own = load.own_cpu_per_record()?;
        let (committed, requested) = (self.commits.counts(), around.requests());
        let mut memory_rates = Vec::new();
        let pairs = slices::interleave(
            &mut Last::default(),
            options.slices,
            |last, _| {
                progress.say("engine");
                let before = self.commits.counts();
                self.commits.forget_sizes();
                let slice = load.run(target, options.slice())?;
                around.settle();
                *last = Last {
                    elapsed: slice.elapsed,
                    commits: self.commits.counts().since(before).commits,
                };
                Ok(slice)
            },
            |last, _| {
                progress.say("baseline");
                let (slice, memory_rate) = self.baseline(last, load.interval.is_some())?;
                memory_rates.push(memory_rate);
                progress.step();
                Ok(slice)
            },
        )?;
        around.flush()?;
        let committed = self.commits.counts().since(committed);
        let requested = around.requests().since(requested);
        let mut baseline = self.describe(load.interval.is_some());
        baseline.memcpy_crc32c_mib_s = slices::median(memory_rates);
        let details = Details::from([
            ("commits", committed.commits.into()),
            (
                "records_per_commit",
                mean(committed.records, committed.commits),
            ),
            (
                "commit_bytes_mean",
                mean(committed.bytes, committed.commits),
            ),
        ]);
        Ok(Findings {
            pairs,
            baseline,
            window: Some(load.window),
            requests: requested,
            generator_cpu_per_record: Some(own),
            paced: load.interval.is_some(),
            details,
        })
    }

    fn load(&self, target: &mut impl Target, progress: &Progress) -> Result<Load> {
        let options = self.options;
        let mut load = Load {
            payload: payload(options.record_bytes),
            streams: options.streams,
            window: 1,
            interval: options.interval(),
        };
        load.window = match options.window() {
            Window::Fixed(window) => window,
            Window::Auto => {
                progress.say("finding the window");
                load.find_window(target, TRIAL.min(options.slice()))?
            }
        };
        Ok(load)
    }

    /// A slice of the baseline with the sizes of the engine's last commits, and the rate of memcpy + crc32c.
    fn baseline(&self, last: &Last, paced: bool) -> Result<(Slice, f64)> {
        let sizes = self.commits.sizes();
        // Made anew each time, so that it does not stand in the engine's memory.
        let mut memory = Memory::new();
        let memory_rate = memory.mib_per_s(&sizes)?;
        // At the pace at which the engine committed: a device that rests between writes is another one.
        let interval = paced.then(|| last.elapsed.div_f64(last.commits.max(1) as f64));
        let depth = if paced { 1 } else { self.depth };
        let length = self.options.slice();
        let slice = match &self.beside {
            Beside::Device(device) => device.slice(&sizes, depth, interval, length)?,
            Beside::Memory => memory.slice(&sizes, interval, length)?,
        };
        Ok((slice, memory_rate))
    }

    fn describe(&self, paced: bool) -> Baseline {
        match &self.beside {
            Beside::Device(device) => Baseline {
                kind: "device",
                what: device.describe(),
                depth: Some(if paced { 1 } else { self.depth }),
                ..Baseline::default()
            },
            Beside::Memory => Baseline {
                kind: "memory",
                what: "memcpy + crc32c of the commits' sizes, one thread".to_owned(),
                depth: Some(1),
                ..Baseline::default()
            },
        }
    }
}

/// What the engine did in its last slice.
#[derive(Debug, Default)]
struct Last {
    elapsed: Duration,
    commits: u64,
}

/// A record's bytes: not all alike, so that nothing on the way compresses them to nothing.
pub(crate) fn payload(len: usize) -> Bytes {
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word >> 32) as u8
        })
        .collect();
    bytes.into()
}

/// A runtime for what is measured. The load generator's thread is not one of its.
pub(crate) fn runtime() -> Result<Arc<tokio::runtime::Runtime>> {
    Ok(Arc::new(
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("engine")
            .build()?,
    ))
}
