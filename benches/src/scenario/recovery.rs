//! The time to open after a crash: the log is filled, the engine is dropped without a close, and opened again.
//!
//! Beside it: reading as many bytes of the log's file and checksumming them, which a scan must do at least.

use std::time::{Duration, Instant};

use s3stream::{Config, GroupId};

use crate::{
    Options, Report, Result, Workplace,
    baseline::{Baseline, read_and_checksum},
    engine::{EngineTarget, Running},
    load::Load,
    measure::{Surroundings, payload, runtime},
    place::Places,
    price::Requests,
    process::Meter,
    progress::Progress,
    report::{Details, Findings, mib, significant},
    slices::{self, Slice},
};

const WINDOW: usize = 4_096;
/// Less than half of the run's own log, so that the log does not ask for an upload.
const FILL_BYTES: u64 = 192 << 20;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let places = Places::of(options, workplace);
    places.check_lasting("recovery")?;
    let log_file = places
        .log_file
        .clone()
        .ok_or("recovery crashes its log: it works on one of its own, leave out --wal")?;
    let progress = Progress::new(options, options.slices);
    let mut crashes = Crashes {
        options,
        places,
        group: None,
        requests: Requests::default(),
        opens: Vec::new(),
        used: 0,
    };
    let pairs = slices::interleave(
        &mut crashes,
        options.slices,
        |crashes, _| {
            progress.say("filling");
            crashes.fill_and_crash()?;
            progress.say("engine");
            crashes.recover()
        },
        |crashes, _| {
            progress.say("baseline");
            progress.step();
            read_and_checksum(&log_file, crashes.used)
        },
    )?;
    let opens = slices::median(crashes.opens.clone());
    let details = Details::from([
        ("open_ms_median", opens.map(significant).into()),
        ("log_used_mib", mib(crashes.used)),
    ]);
    Ok(Report::new(
        options,
        Findings {
            pairs,
            requests: crashes.requests,
            baseline: Baseline {
                kind: "log_read",
                what: "O_DIRECT reads of 1 MiB of the log's file + crc32c, one thread".to_owned(),
                depth: Some(1),
                ..Baseline::default()
            },
            details,
            ..Findings::default()
        },
    ))
}

struct Crashes<'a> {
    options: &'a Options,
    places: Places,
    group: Option<GroupId>,
    /// From the start of each opening to its end.
    requests: Requests,
    /// Milliseconds of each opening.
    opens: Vec<f64>,
    /// Bytes of the log in use at the last crash.
    used: u64,
}

impl Crashes<'_> {
    /// What is appended stays in the log.
    fn config() -> Config {
        Config {
            log_cache_bytes: 8 * FILL_BYTES,
            upload_bytes: 4 * FILL_BYTES,
            ..Config::default()
        }
    }

    fn fill_and_crash(&mut self) -> Result<()> {
        let running = Running::open(&self.places, Self::config(), runtime()?)?;
        let streams = match self.group {
            Some(group) => running.runtime.block_on(running.engine.open_group(group))?,
            None => {
                let (group, streams) = running.create(self.options.streams)?;
                self.group = Some(group);
                streams
            }
        };
        // What the crash before left is uploaded first: every slice recovers as much.
        running.flush()?;
        let load = Load {
            payload: payload(self.options.record_bytes),
            streams: streams.len(),
            window: WINDOW,
            interval: None,
        };
        let mut target = EngineTarget::new(streams);
        let give_up = Instant::now() + self.options.slice();
        while running.engine.usage().unsettled_bytes < FILL_BYTES && Instant::now() < give_up {
            load.run(&mut target, Duration::from_millis(20))?;
        }
        self.used = running.engine.usage().log_used_bytes;
        drop(target);
        running.crash();
        Ok(())
    }

    fn recover(&mut self) -> Result<Slice> {
        let runtime = runtime()?;
        let meter = Meter::start();
        let started = Instant::now();
        let running = Running::open(&self.places, Self::config(), runtime)?;
        let mut slice = Slice {
            elapsed: started.elapsed(),
            bytes: self.used,
            ..Slice::default()
        };
        meter.stop(&mut slice);
        self.requests = self.requests.plus(running.requests());
        self.opens.push(slice.elapsed.as_secs_f64() * 1e3);
        running.crash();
        Ok(slice)
    }
}
