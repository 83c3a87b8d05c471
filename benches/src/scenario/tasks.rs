//! Small records from many tasks, and in turn the same tasks on a log that does nothing: what the log itself costs a record.
//!
//! Each task appends a few records, waits until the last of them is durable, and begins again. The latency runs from the first append to the moment at
//! which the log says so; how long the task then needs to wake up is the runtime's, and reported apart.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet, time::timeout};
use wal::{Commit, Error, Log, Position, Sink};

use super::wal::{TRIM_AT, open};
use crate::{
    Failure, Options, Report, Result, Window, Workplace,
    baseline::Baseline,
    latency::Latency,
    load::STUCK_AFTER,
    measure::{payload, runtime},
    null_log::NullLog,
    place::Places,
    process::Meter,
    progress::Progress,
    report::{Details, Findings, significant},
    slices::{self, Pair, Slice},
};

/// Records that a task appends before it waits, unless `--window` says.
const BURST: usize = 16;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let runtime = runtime()?;
    let place = Places::of(options, workplace).log()?;
    let board = Arc::new(Board::default());
    let log = runtime.block_on(open(&place, Arc::clone(&board) as _))?;
    let null_board = Arc::new(Board::default());
    let null = NullLog::start(Arc::clone(&null_board) as _)?;
    let burst = match options.window() {
        Window::Auto => BURST,
        Window::Fixed(burst) => burst,
    };
    let tasks = Tasks {
        runtime: &runtime,
        count: options.tasks,
        burst,
        payload: payload(options.record_bytes),
    };
    let progress = Progress::new(options, options.slices);
    progress.say("warming up");
    tasks.slice(&log, &board, options.slice().min(Duration::from_secs(1)))?;
    let mut woken = Latency::default();
    let pairs = slices::interleave(
        &mut woken,
        options.slices,
        |woken, _| {
            progress.say("log");
            let (slice, late) = tasks.slice(&log, &board, options.slice())?;
            woken.merge(&late);
            Ok(slice)
        },
        |_, _| {
            progress.say("null log");
            progress.step();
            Ok(tasks.slice(&null, &null_board, options.slice())?.0)
        },
    )?;
    log.trim(log.durable_end());
    runtime.block_on(log.close())?;
    let of_log = slices::median(pairs.iter().filter_map(cpu_us_per_record).collect());
    let details = Details::from([
        ("tasks", options.tasks.into()),
        (
            "cpu_us_per_record_less_null",
            of_log.map(significant).into(),
        ),
        ("wakeup_p50_us", woken.micros(0.5).map(significant).into()),
        ("wakeup_p99_us", woken.micros(0.99).map(significant).into()),
    ]);
    Ok(Report::new(
        options,
        Findings {
            pairs,
            baseline: Baseline {
                kind: "null_log",
                what: "the same tasks on a log that keeps nothing and acknowledges after 100 us"
                    .to_owned(),
                ..Baseline::default()
            },
            window: Some(burst),
            // The null log's pace is its delay's: no limit of anything.
            paced: true,
            details,
            ..Findings::default()
        },
    ))
}

/// What a record costs the process on the log more than on the null log.
fn cpu_us_per_record(pair: &Pair) -> Option<f64> {
    let of = |slice: &Slice| {
        (slice.records > 0).then(|| slice.cpu.as_secs_f64() * 1e6 / slice.records as f64)
    };
    Some(of(&pair.engine)? - of(&pair.baseline)?)
}

/// The generator.
struct Tasks<'a> {
    runtime: &'a Runtime,
    count: usize,
    burst: usize,
    payload: Bytes,
}

impl Tasks<'_> {
    /// All tasks at work for `length`: what they did, and how late they woke.
    fn slice(
        &self,
        log: &Arc<dyn Log>,
        board: &Arc<Board>,
        length: Duration,
    ) -> Result<(Slice, Latency)> {
        let meter = Meter::start();
        let start = Instant::now();
        let seen = Arc::new(Mutex::new((Slice::default(), Latency::default())));
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..self.count {
                let task = Task {
                    log: Arc::clone(log),
                    board: Arc::clone(board),
                    burst: self.burst,
                    payload: self.payload.clone(),
                    seen: Arc::clone(&seen),
                };
                tasks.spawn(task.run(start + length));
            }
            let all = async {
                while let Some(ended) = tasks.join_next().await {
                    ended??;
                }
                Ok::<_, Failure>(())
            };
            let late = |_| Failure::from("an append was not durable in time");
            timeout(length + STUCK_AFTER, all).await.map_err(late)?
        })?;
        let (mut slice, woken) = std::mem::take(&mut *seen.lock());
        slice.elapsed = start.elapsed();
        meter.stop(&mut slice);
        Ok((slice, woken))
    }
}

struct Task {
    log: Arc<dyn Log>,
    board: Arc<Board>,
    burst: usize,
    payload: Bytes,
    seen: Arc<Mutex<(Slice, Latency)>>,
}

impl Task {
    async fn run(self, end: Instant) -> Result<()> {
        loop {
            let begun = Instant::now();
            if begun >= end {
                return Ok(());
            }
            let mut last = Position::default();
            for _ in 0..self.burst {
                last = self.append().await?;
            }
            let durable = self.board.reached(last).await?;
            let woken = durable.elapsed();
            let usage = self.log.usage();
            if usage.used as f64 > usage.capacity as f64 * TRIM_AT {
                self.log.trim(self.log.durable_end());
            }
            let (slice, late) = &mut *self.seen.lock();
            slice
                .latency
                .record(durable.saturating_duration_since(begun));
            slice.records += self.burst as u64;
            slice.bytes += (self.burst * self.payload.len()) as u64;
            late.record(woken);
        }
    }

    /// The end of the record.
    async fn append(&self) -> Result<Position> {
        loop {
            match self.log.append(&[&self.payload]) {
                Ok(range) => return Ok(range.end),
                Err(Error::Full { .. }) => {
                    self.log.trim(self.log.durable_end());
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Who waits for which position.
#[derive(Default)]
struct Board(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    durable: Option<(Position, Instant)>,
    failure: Option<String>,
    /// The lowest first.
    waiting: BinaryHeap<Reverse<Waiter>>,
}

struct Waiter {
    end: Position,
    tell: oneshot::Sender<Instant>,
}

impl Board {
    /// When the log said that everything below `end` is durable.
    async fn reached(&self, end: Position) -> Result<Instant> {
        let told = {
            let mut board = self.0.lock();
            match board.durable {
                Some((durable, at)) if durable >= end => return Ok(at),
                _ => {}
            }
            let (tell, told) = oneshot::channel();
            if board.failure.is_none() {
                board.waiting.push(Reverse(Waiter { end, tell }));
            }
            told
        };
        let gone = |_| self.0.lock().failure.clone().unwrap_or_default();
        Ok(told.await.map_err(gone)?)
    }
}

impl Sink for Board {
    fn durable(&self, commit: Commit) {
        let (end, now) = (commit.range.end, Instant::now());
        let mut board = self.0.lock();
        board.durable = Some((end, now));
        while board.waiting.peek().is_some_and(|Reverse(w)| w.end <= end) {
            if let Some(Reverse(waiter)) = board.waiting.pop() {
                // A task that ended waits for nothing.
                let _ = waiter.tell.send(now);
            }
        }
    }

    fn failed(&self, error: &Error) {
        let mut board = self.0.lock();
        board.failure = Some(error.to_string());
        board.waiting.clear();
    }

    fn room(&self) {}
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.end == other.end
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.end.cmp(&other.end)
    }
}
