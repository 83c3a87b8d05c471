//! The write-ahead log alone, through its trait: a record is acknowledged when the sink hears of it.
//!
//! The generator keeps what the metadata would keep (trim, epochs) in a plain value.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use wal::{Commit, Error, Identity, Log, LogEpoch, LogState, LogUuid, Position, Sink};

use crate::{
    Options, Report, Result, Workplace,
    arrivals::Arrivals,
    commits::Commits,
    latency::Latency,
    load::{Submitted, Target},
    measure::{Beside, Course, Surroundings, runtime},
    place::{LogPlace, Places},
    price::Requests,
    report::significant,
};

/// Trimmed whenever this part of the log is used.
pub(super) const TRIM_AT: f64 = 0.25;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let runtime = runtime()?;
    let place = Places::of(options, workplace).log()?;
    let beside = Beside::of_log(&place, workplace, options)?;
    let sink = Arc::new(Acknowledged::default());
    let log = runtime.block_on(open(&place, Arc::clone(&sink) as _))?;
    let course = Course {
        options,
        commits: sink.commits.clone(),
        beside,
        depth: options.baseline_depth.unwrap_or(place.depth),
    };
    let mut target = LogTarget::new(Arc::clone(&log), sink);
    let mut findings = course.run(&mut target, &place)?;
    if findings.paced {
        let woken = |quantile| target.woken.micros(quantile).map(significant);
        findings.details.insert("wakeup_p50_us", woken(0.5).into());
        findings.details.insert("wakeup_p99_us", woken(0.99).into());
    }
    // All of it is trimmed, so that the log owes nothing and a log given by URL can be used again.
    log.trim(log.durable_end());
    runtime.block_on(log.close())?;
    Ok(Report::new(options, findings))
}

impl Surroundings for LogPlace {
    fn requests(&self) -> Requests {
        self.requests()
    }
}

/// A new log.
pub(super) async fn open(place: &LogPlace, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>> {
    let identity = Identity {
        cluster: 0xb,
        log: LogUuid::new(0xb),
        node: 1,
    };
    let mut state = LogState::new(identity, LogEpoch::new(1));
    let replay = place.backend.open(&state).await?;
    state.begin(replay.ends(), replay.start_position());
    Ok(replay.start(sink).await?)
}

/// The sink: counts what is durable and when.
#[derive(Debug, Default)]
struct Acknowledged {
    arrivals: Arrivals<Position>,
    commits: Commits,
}

impl Sink for Acknowledged {
    fn durable(&self, commit: Commit) {
        self.arrivals.push(commit.records.len(), commit.range.end);
        self.commits.note(&commit);
    }

    fn failed(&self, error: &Error) {
        self.arrivals.fail(error);
    }

    fn room(&self) {
        self.arrivals.nudge();
    }
}

struct LogTarget {
    log: Arc<dyn Log>,
    sink: Arc<Acknowledged>,
    trim_at: u64,
    /// Records of the group at hand that were not handed out yet, and when they were durable.
    at_hand: (usize, Instant),
    /// How much later than durable the generator had it: not in the latency.
    woken: Latency,
}

impl LogTarget {
    fn new(log: Arc<dyn Log>, sink: Arc<Acknowledged>) -> Self {
        let trim_at = (log.usage().capacity as f64 * TRIM_AT) as u64;
        Self {
            log,
            sink,
            trim_at,
            at_hand: (0, Instant::now()),
            woken: Latency::default(),
        }
    }

    /// Takes the next group; the log is trimmed behind it, far from the end.
    fn next_group(&mut self, deadline: Instant) -> Result<bool> {
        let Some(group) = self.sink.arrivals.take(deadline)? else {
            return Ok(false);
        };
        self.woken.record(group.at.elapsed());
        self.at_hand = (group.records, group.at);
        if self.log.usage().used > self.trim_at {
            self.log.trim(group.with);
        }
        Ok(true)
    }
}

impl Target for LogTarget {
    fn submit(&mut self, _stream: usize, payload: &Bytes) -> Result<Submitted> {
        match self.log.append(&[payload]) {
            Ok(_) => Ok(Submitted::Accepted),
            Err(Error::Full { .. }) => {
                self.log.trim(self.log.durable_end());
                Ok(Submitted::Full)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
        while self.at_hand.0 == 0 {
            if !self.next_group(deadline)? {
                return Ok(None);
            }
        }
        self.at_hand.0 -= 1;
        Ok(Some(self.at_hand.1))
    }
}
