//! The command line, as plain data, and what it does not accept.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, ValueEnum};

use crate::slices::MIB;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scenario {
    /// Appends, with uploads on.
    Append,
    /// One reader behind one writer: it must need no GET of data.
    Tail,
    /// A cold read of everything from the bucket.
    Catchup,
    /// The time to open after a crash with a full log.
    Recovery,
    /// Requests while nothing happens: must be none.
    Idle,
    /// The write-ahead log alone.
    Wal,
    /// Opening and replaying a write-ahead log of 1 GiB.
    Replay,
    /// Records from many tasks on the write-ahead log, beside the same tasks on a log that does nothing.
    Tasks,
    /// Kafka's log: appends to 100 partitions, and opening many after a crash.
    KafkaLog,
    /// The broker, beside Apache Kafka if it is there.
    Broker,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Append,
        Self::Tail,
        Self::Catchup,
        Self::Recovery,
        Self::Idle,
        Self::Wal,
        Self::Replay,
        Self::Tasks,
        Self::KafkaLog,
        Self::Broker,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Tail => "tail",
            Self::Catchup => "catchup",
            Self::Recovery => "recovery",
            Self::Idle => "idle",
            Self::Wal => "wal",
            Self::Replay => "replay",
            Self::Tasks => "tasks",
            Self::KafkaLog => "kafka-log",
            Self::Broker => "broker",
        }
    }
}

/// What drives a block log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogIo {
    /// An io_uring, or threads where there is none.
    Uring,
    /// A few threads.
    Threads,
}

impl From<LogIo> for wal::block::Io {
    fn from(io: LogIo) -> Self {
        match io {
            LogIo::Uring => Self::Uring,
            LogIo::Threads => Self::Threads,
        }
    }
}

/// How the raw device's writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BaselineSync {
    /// By `O_DSYNC`, as a block log's are.
    Dsync,
    /// By an `fdatasync` after each: what `O_DSYNC` was chosen over.
    Fdatasync,
}

/// How fast records are offered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rate {
    /// As fast as the window lets them.
    Max,
    /// Bytes of payload per second.
    BytesPerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(mib) if mib.is_finite() && mib > 0.0 => Ok(Self::BytesPerSecond(mib * MIB)),
            _ => Err("a number of MiB/s above 0, or max".to_owned()),
        }
    }
}

/// How many appends may be outstanding at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// The smallest window whose growth gains less than 3 %, found before the run.
    Auto,
    /// This many.
    Fixed(usize),
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(window) if window > 0 => Ok(Self::Fixed(window)),
            _ => Err("a number of appends above 0, or auto".to_owned()),
        }
    }
}

/// The stream-store benchmark: the engine alone, beside its raw device.
#[derive(Clone, Debug, Parser)]
#[command(name = "s3stream-bench", version)]
pub struct Options {
    /// What to measure.
    pub scenario: Scenario,
    /// The write-ahead log, as a URL; default: a block log in a temporary file. A log that owes data is refused.
    #[arg(long, value_name = "URL")]
    pub wal: Option<String>,
    /// The bucket, as a URL; default: a temporary directory. A prefix of its own is used in it, and emptied at the end.
    #[arg(long, value_name = "URL")]
    pub bucket: Option<String>,
    /// How many streams the records go to, in turn.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub streams: usize,
    /// How many tasks append, for scenario tasks.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub tasks: usize,
    /// How many partitions are opened after a crash, for scenarios kafka-log and broker.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub partitions: usize,
    /// What starts an Apache Kafka to compare with, for scenario broker: .ci/kafka-server.
    #[arg(long, value_name = "PROGRAM")]
    pub kafka: Option<PathBuf>,
    /// Bytes of payload per record.
    #[arg(long, value_name = "B", default_value_t = 1_024)]
    pub record_bytes: usize,
    /// Payload per second in MiB/s, or max.
    #[arg(long, value_name = "MiB/s|max", default_value = "max")]
    pub rate: Rate,
    /// Appends per second, for low load; one is outstanding at a time unless --window says more.
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    pub requests_per_second: Option<f64>,
    /// Appends outstanding at once, or auto: the smallest window whose growth gains less than 3 %. For scenario tasks: of each task, 16 unless said.
    #[arg(long, value_name = "N|auto")]
    pub window: Option<Window>,
    /// How long the engine is measured; the baseline takes as long again.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Into how many pairs of engine and baseline slices the run is cut.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub slices: usize,
    /// Writes that the raw device is given at once at full load; default: as many as the log keeps in flight.
    #[arg(long, value_name = "N")]
    pub baseline_depth: Option<usize>,
    /// How long each put of an object log takes longer than its store does, for scenario wal: 30 with object:memory: models a real bucket.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub put_latency_ms: u64,
    /// What drives a block log: an io_uring where there is one to be had, or threads.
    #[arg(long, value_enum, default_value = "uring")]
    pub log_io: LogIo,
    /// How the raw device's writes are made durable.
    #[arg(long, value_enum, default_value = "dsync")]
    pub baseline_sync: BaselineSync,
    /// The directory below which the run works; default: the current one.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// One line of JSON instead of a table; no progress bar.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Everything that is wrong with them, each with its remedy.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut at_least_one = |name: &str, value: usize| {
            if value == 0 {
                problems.push(format!("--{name} is 0, give at least 1"));
            }
        };
        at_least_one("streams", self.streams);
        at_least_one("tasks", self.tasks);
        at_least_one("partitions", self.partitions);
        at_least_one("record-bytes", self.record_bytes);
        at_least_one("slices", self.slices);
        at_least_one("baseline-depth", self.baseline_depth.unwrap_or(1));
        let mut above_zero = |name: &str, value: f64| {
            if !(value.is_finite() && value > 0.0 && value <= 1e9) {
                problems.push(format!("--{name} is {value}, give a number above 0"));
            }
        };
        above_zero("seconds", self.seconds);
        above_zero(
            "requests-per-second",
            self.requests_per_second.unwrap_or(1.0),
        );
        if !self.dir.is_dir() {
            problems.push(format!(
                "--dir {} is not a directory, make it first",
                self.dir.display()
            ));
        }
        problems
    }

    /// The time between the starts of two appends, when the load is paced.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let per_second = match (self.requests_per_second, self.rate) {
            (Some(requests), _) => requests,
            (None, Rate::BytesPerSecond(bytes)) => bytes / self.record_bytes as f64,
            (None, Rate::Max) => return None,
        };
        Some(Duration::from_secs_f64(1.0 / per_second))
    }

    /// The window, `Auto` where it is to be found by trying.
    pub(crate) fn window(&self) -> Window {
        let by_load = match (self.requests_per_second, self.rate) {
            (Some(_), _) => Window::Fixed(1),
            (None, Rate::BytesPerSecond(_)) => Window::Fixed(65_536),
            (None, Rate::Max) => Window::Auto,
        };
        self.window.unwrap_or(by_load)
    }

    /// How long one slice of one side is.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_secs_f64(self.seconds / self.slices as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["s3stream-bench"].iter().chain(arguments))
    }

    #[test]
    fn every_scenario_has_the_name_it_is_called_by() {
        for scenario in Scenario::ALL {
            assert_eq!(parse(&[scenario.name()]).unwrap().scenario, scenario);
        }
    }

    #[test]
    fn low_load_is_one_append_at_a_time_and_full_load_searches_the_window() {
        let low = parse(&["wal", "--requests-per-second", "200"]).unwrap();
        assert_eq!(low.window(), Window::Fixed(1));
        assert_eq!(low.interval(), Some(Duration::from_millis(5)));
        let full = parse(&["append"]).unwrap();
        assert_eq!(full.window(), Window::Auto);
        assert_eq!(full.interval(), None);
        let paced = parse(&["append", "--rate", "1", "--record-bytes", "1048576"]).unwrap();
        assert_eq!(paced.interval(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn every_wrong_value_is_named() {
        let options = parse(&[
            "wal",
            "--streams=0",
            "--slices=0",
            "--seconds=-1",
            "--dir=/nowhere/at/all",
        ])
        .unwrap();
        let problems = options.problems().join("\n");
        for name in ["--streams", "--slices", "--seconds", "--dir"] {
            assert!(problems.contains(name), "{name} in {problems}");
        }
        assert!(parse(&["wal", "--rate", "fast"]).is_err());
        assert!(parse(&["wal", "--rate", "1", "--requests-per-second", "1"]).is_err());
        assert!(parse(&["wal", "--window", "0"]).is_err());
    }
}
