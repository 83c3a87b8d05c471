//! Appends through the engine, uploads on.

use s3stream::Config;

use crate::{
    Options, Report, Result, Workplace,
    engine::{EngineTarget, Running},
    measure::{Beside, Course, runtime},
    place::Places,
};

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let places = Places::of(options, workplace);
    let log = places.log()?;
    let running = Running::open(&places, Config::default(), runtime()?)?;
    let (group, streams) = running.create(options.streams)?;
    let course = Course {
        options,
        commits: running.commits.clone(),
        beside: Beside::of_log(&log, workplace, options)?,
        depth: options.baseline_depth.unwrap_or(log.depth),
    };
    let findings = course.run(&mut EngineTarget::new(streams), &running)?;
    running.finish(group)?;
    Ok(Report::new(options, findings))
}
