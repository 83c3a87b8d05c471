//! Requests while nobody calls: after the last upload there must be none, and hardly any CPU time.

use std::{
    thread,
    time::{Duration, Instant},
};

use s3stream::Config;

use crate::{
    Options, Report, Result, Workplace,
    baseline::Baseline,
    engine::{EngineTarget, Running},
    load::Load,
    measure::{Surroundings, payload, runtime},
    place::Places,
    process::Meter,
    progress::Progress,
    report::{Details, Findings, significant},
    slices::Slice,
};

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let places = Places::of(options, workplace);
    let progress = Progress::new(options, options.slices);
    let running = Running::open(&places, Config::default(), runtime()?)?;
    let (group, streams) = running.create(options.streams)?;
    progress.say("appending");
    let load = Load {
        payload: payload(options.record_bytes),
        streams: options.streams,
        window: 64,
        interval: None,
    };
    load.run(&mut EngineTarget::new(streams), Duration::from_millis(100))?;
    running.flush()?;
    running.settle();
    progress.say("watching");
    let before = running.requests();
    let meter = Meter::start();
    let started = Instant::now();
    for _ in 0..options.slices {
        thread::sleep(options.slice());
        progress.step();
    }
    let mut idle = Slice::default();
    meter.stop(&mut idle);
    let watched = started.elapsed();
    let requests = running.requests().since(before);
    running.finish(group)?;
    let cpu_ms_per_s = idle.cpu.as_secs_f64() * 1e3 / watched.as_secs_f64();
    let details = Details::from([
        ("requests_while_idle", requests.total().into()),
        ("watched_s", significant(watched.as_secs_f64()).into()),
        ("cpu_ms_per_s", significant(cpu_ms_per_s).into()),
    ]);
    Ok(Report::new(
        options,
        Findings {
            requests,
            baseline: Baseline {
                kind: "none",
                what: "nothing is done".to_owned(),
                ..Baseline::default()
            },
            details,
            ..Findings::default()
        },
    ))
}
