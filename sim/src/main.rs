//! `s3stream-sim`: simulates seeds one after the other and ends with one line of counters, or with the command that
//! replays the seed that failed.

#![allow(
    clippy::disallowed_methods,
    reason = "the rate per second of real time is for whoever waits for it"
)]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use sim::{Counters, LogKind, Outcome, Settings, simulate, simulate_log};

/// What is simulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// One node, its clients, a bucket and a disk.
    Node,
    /// The same with its log in the bucket.
    NodeObject,
    /// The block log alone: forty short lives per seed.
    Log,
}

/// Production code in simulated worlds.
#[derive(Debug, Parser)]
#[command(name = "s3stream-sim", version)]
struct Options {
    /// What to simulate.
    #[arg(long, value_enum, default_value_t = Part::Node)]
    part: Part,
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Simulated hours of faulty lives per seed.
    #[arg(long, value_name = "H", default_value_t = 0.1)]
    hours: f64,
    /// Prints every event of every seed.
    #[arg(long)]
    trace: bool,
    /// A defect to plant, by name.
    #[cfg(feature = "mutations")]
    #[arg(long, value_name = "NAME", value_parser = mutation)]
    mutation: Option<sim::Mutation>,
}

#[cfg(feature = "mutations")]
fn mutation(name: &str) -> Result<sim::Mutation, String> {
    let all = sim::Mutation::ALL;
    all.into_iter()
        .find(|mutation| mutation.name() == name)
        .ok_or_else(|| format!("one of {}", all.map(sim::Mutation::name).join(", ")))
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !(options.hours.is_finite() && (0.0..=1e6).contains(&options.hours)) {
        eprintln!(
            "s3stream-sim: --hours is {}, give 0 to 1000000",
            options.hours
        );
        return ExitCode::from(2);
    }
    let settings = Settings {
        time: Duration::from_secs_f64(options.hours * 3_600.0),
        log: match options.part {
            Part::NodeObject => LogKind::Object,
            Part::Node | Part::Log => LogKind::Block,
        },
        lines: options.trace,
        #[cfg(feature = "mutations")]
        mutation: options.mutation,
    };
    let started = Instant::now();
    let mut sum = Counters::default();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        let outcome = match options.part {
            Part::Node | Part::NodeObject => simulate(seed, &settings),
            Part::Log => simulate_log(seed, &settings),
        };
        for line in &outcome.lines {
            println!("{line}");
        }
        sum.add(&outcome.counters);
        if outcome.violation.is_some() {
            report(&outcome, &options);
            return ExitCode::FAILURE;
        }
    }
    println!("{}", summary(&options, &sum, started.elapsed()));
    ExitCode::SUCCESS
}

fn report(outcome: &Outcome, options: &Options) {
    if let Some(violation) = &outcome.violation {
        eprintln!("seed {}: {violation}", outcome.seed);
    }
    #[cfg(feature = "mutations")]
    let mutation = options.mutation.map_or(String::new(), |mutation| {
        format!(" --mutation {}", mutation.name())
    });
    #[cfg(not(feature = "mutations"))]
    let mutation = "";
    let features = if mutation.is_empty() {
        ""
    } else {
        " --features mutations"
    };
    let part = options.part.to_possible_value();
    let part = part.as_ref().map_or("node", |part| part.get_name());
    eprintln!(
        "replay: cargo run --release -p s3stream-sim{features} -- --part {part} --seeds 1 --seed {} --hours {}{mutation} --trace",
        outcome.seed, options.hours
    );
}

/// The one line at the end.
fn summary(options: &Options, sum: &Counters, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    let faults: Vec<String> = sum
        .faults
        .iter()
        .map(|(fault, count)| format!("{fault:?} {count}"))
        .collect();
    format!(
        "seeds {}, simulated hours {:.2}, lives {}, operations {}, appends acknowledged {}, records checked {}, \
         replayed {}, requests {}, faults {{{}}}, per wall second: {:.1} simulated minutes, {:.0} operations, {:.0} records checked",
        options.seeds,
        sum.simulated.as_secs_f64() / 3_600.0,
        sum.lives,
        sum.operations,
        sum.acknowledged,
        sum.checked,
        sum.replayed,
        sum.requests,
        faults.join(", "),
        sum.simulated.as_secs_f64() / 60.0 / seconds,
        sum.operations as f64 / seconds,
        sum.checked as f64 / seconds,
    )
}
