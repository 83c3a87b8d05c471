//! The stream-store benchmark: the engine alone, and in the same run the raw device it stands on.
//!
//! `baseline and engine slices alternate; ratio = median over the pairs of engine / baseline`.
//!
//! One scenario measures the broker, beside Apache Kafka. It is not a gate: an absolute figure of a shared machine says little, a ratio of one
//! run says more. It writes below a temporary directory (or to the log and bucket it is given) and removes what it wrote.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time and blocks its own threads"
)]

mod arrivals;
mod baseline;
mod cli;
mod commits;
mod engine;
mod latency;
mod load;
mod measure;
mod null_log;
mod place;
mod price;
mod process;
mod progress;
mod report;
mod scenario;
mod slices;
mod workplace;

pub use cli::{BaselineSync, LogIo, Options, Rate, Scenario, Window};
pub use report::Report;
pub use scenario::SERVE;
pub use workplace::Workplace;

/// What stops a run: said on one line to whoever started it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A result of the benchmark.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Runs one scenario below `workplace` and reports it.
pub fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    scenario::run(options, workplace)
}
