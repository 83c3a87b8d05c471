//! Reading a log back: a log of 1 GiB is opened and replayed once, again and again; beside it the same bytes are read raw.

use std::{sync::Arc, time::Instant};

use wal::{
    Backend, Commit, Error, Identity, LogEpoch, LogState, LogUuid, Sink,
    block::{BlockLog, Config},
};

use crate::{
    Options, Report, Result, Workplace,
    arrivals::Arrivals,
    baseline::{Baseline, read_whole},
    load::STUCK_AFTER,
    measure::{payload, runtime},
    process::Meter,
    progress::Progress,
    report::{Details, Findings, significant},
    slices::{self, MIB, Slice},
};

/// What is replayed; less in a run of a moment.
const BYTES: u64 = 1 << 30;
/// Reads that the raw device is given at once: as many as a replay.
const DEPTH: usize = 4;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    if options.wal.is_some() {
        return Err("replay crashes its log: it works on one of its own, leave out --wal".into());
    }
    let bytes = if options.seconds < 1.0 {
        8 << 20
    } else {
        BYTES
    };
    let path = workplace.join("log");
    let place = BlockLog::file(&path, bytes + bytes / 2).with_config(Config {
        io: options.log_io.into(),
        ..Config::default()
    });
    let runtime = runtime()?;
    let progress = Progress::new(options, options.slices);
    progress.say("filling");
    let (state, used) = runtime.block_on(fill(&place, options.record_bytes, bytes))?;
    let mut opens = Vec::new();
    let pairs = slices::interleave(
        &mut opens,
        options.slices,
        |opens, _| {
            progress.say("engine");
            let meter = Meter::start();
            let started = Instant::now();
            let mut slice = Slice::default();
            runtime.block_on(async {
                let mut replay = place.open(&state).await?;
                opens.push(started.elapsed().as_secs_f64() * 1e3);
                while let Some(piece) = replay.next().await? {
                    slice.bytes += piece.iter().map(|r| r.footprint as u64).sum::<u64>();
                    slice.records += piece.len() as u64;
                }
                Ok::<_, Error>(())
            })?;
            slice.elapsed = started.elapsed();
            meter.stop(&mut slice);
            if slice.bytes < bytes {
                return Err(format!("only {} bytes came back", slice.bytes).into());
            }
            Ok(slice)
        },
        |_, _| {
            progress.say("baseline");
            progress.step();
            read_whole(&path, used, DEPTH)
        },
    )?;
    let open_ms = slices::median(opens).map(significant);
    let details = Details::from([
        ("open_ms_median", open_ms.into()),
        ("log_mib", significant(used as f64 / MIB).into()),
    ]);
    Ok(Report::new(
        options,
        Findings {
            pairs,
            baseline: Baseline {
                kind: "log_read",
                what: "O_DIRECT reads of 1 MiB of the log's file, in order, nothing else"
                    .to_owned(),
                depth: Some(DEPTH),
                ..Baseline::default()
            },
            details,
            ..Findings::default()
        },
    ))
}

/// Appends `bytes` and drops the log where it stands: what the next opening is told, and the bytes used.
async fn fill(place: &BlockLog, record_bytes: usize, bytes: u64) -> Result<(LogState, u64)> {
    let identity = Identity {
        cluster: 0xb,
        log: LogUuid::new(0xb),
        node: 1,
    };
    let mut state = LogState::new(identity, LogEpoch::new(1));
    let replay = place.open(&state).await?;
    state.begin(replay.ends(), replay.start_position());
    let sink = Arc::new(Durable(Arrivals::default()));
    let log = replay.start(Arc::clone(&sink) as _).await?;
    let payload = payload(record_bytes);
    let (mut appended, mut durable) = (0, 0);
    while durable * (record_bytes as u64) < bytes {
        match log.append(&[&payload]) {
            Ok(_) => appended += 1,
            Err(Error::Full { .. }) if durable == appended => break,
            Err(Error::Full { .. }) => {
                let group = sink.0.take(Instant::now() + STUCK_AFTER)?;
                durable += group.map_or(0, |group| group.records as u64);
            }
            Err(error) => return Err(error.into()),
        }
        while appended * (record_bytes as u64) >= bytes && durable < appended {
            let group = sink.0.take(Instant::now() + STUCK_AFTER)?;
            durable += group.map_or(0, |group| group.records as u64);
        }
    }
    let used = log.usage().used;
    drop(log);
    state.grant(LogEpoch::new(2));
    Ok((state, used))
}

/// Counts what is durable.
struct Durable(Arrivals<()>);

impl Sink for Durable {
    fn durable(&self, commit: Commit) {
        self.0.push(commit.records.len(), ());
    }

    fn failed(&self, error: &Error) {
        self.0.fail(error);
    }

    fn room(&self) {
        self.0.nudge();
    }
}
