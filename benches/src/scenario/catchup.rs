//! A cold read of everything from the bucket: each slice by a fresh engine with a log and caches of its own.
//!
//! Beside it: one thread that copies and checksums as many bytes, in pieces of a data block.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use s3stream::{Config, GroupId, Stream};

use crate::{
    Options, Report, Result, Window, Workplace,
    baseline::{Baseline, Memory},
    engine::{EngineTarget, Running},
    latency::Latency,
    load::Load,
    measure::{Surroundings, payload, runtime},
    place::Places,
    price::Requests,
    process::Meter,
    progress::Progress,
    report::{Details, Findings, mib, significant},
    slices::{self, Slice},
};

const FETCH_BYTES: usize = 1 << 20;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let places = Places::of(options, workplace);
    places.check_lasting("catchup")?;
    let progress = Progress::new(options, options.slices);
    progress.say("filling");
    let group = fill(options, &places)?;
    let mut cold = Cold {
        places: places.elsewhere(workplace),
        group,
        requests: Requests::default(),
        fetches: Latency::default(),
    };
    let piece = usize::try_from(Config::default().data_block_bytes)?;
    let pairs = slices::interleave(
        &mut cold,
        options.slices,
        |cold, _| {
            progress.say("engine");
            cold.read()
        },
        |_, _| {
            progress.say("baseline");
            progress.step();
            Memory::new().slice(&[piece], None, options.slice())
        },
    )?;
    let running = Running::open(&cold.places, Config::default(), runtime()?)?;
    running.runtime.block_on(running.engine.open_group(group))?;
    running.finish(group)?;
    let micros = |quantile| cold.fetches.micros(quantile).map(significant);
    let bytes = pairs.first().map_or(0, |pair| pair.engine.bytes);
    let details = Details::from([
        ("fetch_p50_us", micros(0.5).into()),
        ("fetch_p99_us", micros(0.99).into()),
        ("read_mib_per_slice", mib(bytes)),
    ]);
    Ok(Report::new(
        options,
        Findings {
            pairs,
            requests: cold.requests,
            baseline: Baseline {
                kind: "memory",
                what: format!("memcpy + crc32c of pieces of {piece} bytes, one thread"),
                depth: Some(1),
                ..Baseline::default()
            },
            details,
            ..Findings::default()
        },
    ))
}

/// Appends for the length of a slice and closes: the bucket has everything.
fn fill(options: &Options, places: &Places) -> Result<GroupId> {
    let running = Running::open(places, Config::default(), runtime()?)?;
    let (group, streams) = running.create(options.streams)?;
    let load = Load {
        payload: payload(options.record_bytes),
        streams: options.streams,
        window: match options.window() {
            Window::Fixed(window) => window,
            Window::Auto => 4_096,
        },
        interval: options.interval(),
    };
    load.run(&mut EngineTarget::new(streams), options.slice())?;
    running.close()?;
    Ok(group)
}

/// Reads everything with an engine that has seen none of it.
struct Cold {
    places: Places,
    group: GroupId,
    requests: Requests,
    fetches: Latency,
}

impl Cold {
    fn read(&mut self) -> Result<Slice> {
        let running = Running::open(&self.places, Config::default(), runtime()?)?;
        let runtime = Arc::clone(&running.runtime);
        let streams = runtime.block_on(running.engine.open_group(self.group))?;
        let before = running.requests();
        let meter = Meter::start();
        let started = Instant::now();
        let readers = streams
            .into_iter()
            .map(|stream| runtime.spawn(read_all(stream)));
        let parts = runtime.block_on(try_join_all(readers))?;
        let mut slice = Slice {
            elapsed: started.elapsed(),
            ..Slice::default()
        };
        for part in parts {
            let part = part?;
            slice.bytes += part.bytes;
            slice.records += part.records;
            self.fetches.merge(&part.fetches);
        }
        meter.stop(&mut slice);
        self.requests = self.requests.plus(running.requests().since(before));
        running.close()?;
        Ok(slice)
    }
}

#[derive(Default)]
struct Part {
    bytes: u64,
    records: u64,
    fetches: Latency,
}

async fn read_all(stream: Stream) -> s3stream::Result<Part> {
    let mut part = Part::default();
    let mut at = stream.start();
    let end = stream.confirm();
    while at < end {
        let started = Instant::now();
        let fetched = stream.fetch(at, FETCH_BYTES).await?;
        part.fetches.record(started.elapsed());
        match fetched.records.last() {
            Some(last) => at = last.offsets.end,
            // Never the case below confirm; a reader that spins would hide it.
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        part.records += fetched.records.len() as u64;
        part.bytes += fetched
            .payloads()
            .map(|payload| payload.len() as u64)
            .sum::<u64>();
    }
    Ok(part)
}
