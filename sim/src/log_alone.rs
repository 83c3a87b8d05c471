//! The block log alone on the simulated disk, over many short lives: whoever keeps its state is perfect here.
//!
//! A thousand crashes take a second, so that rare orders of torn writes, replays and power cuts come up. The watch does
//! all checking (W1 to W4, W7, W8).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use s3stream::wal::{
    Backend, Commit, Error, Identity, Log, LogEpoch, LogState, LogUuid, Position, Replay, Sink,
    block,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    AttachedDisk, Counters, Crash, Entropy, Fault, Faults, Outcome, Settings, SimClock, SimDisk,
    Trace, Violation,
    outcome::Ending,
    watch::{History, Watched},
};

const DISK_BYTES: u64 = 256 << 10;
const LIVES: u64 = 40;
/// A quarter of the ring is the most that the log takes.
const RECORD_LEN_MAX: u64 = 30_000;

/// The production log on the simulated disk, with sizes that make it fill and wrap.
pub(crate) fn production_log(device: Arc<AttachedDisk>) -> Arc<dyn Backend> {
    let config = block::Config {
        commit_bytes_max: 64 << 10,
        in_flight_max: 3,
        overlap_bytes: 8 << 10,
        slab_bytes: 128 << 10,
        ..block::Config::default()
    };
    Arc::new(block::BlockLog::on(device).with_config(config))
}

#[derive(Debug)]
struct LogWorld {
    clock: SimClock,
    trace: Trace,
    faults: Faults,
    disk: SimDisk,
    history: History,
    state: Mutex<LogState>,
    operations: Mutex<u64>,
    /// What records are cut from.
    noise: Bytes,
    entropy: Entropy,
    #[cfg(feature = "mutations")]
    mutation: Option<crate::Mutation>,
}

/// Simulates one seed of the log alone: forty lives.
pub fn simulate_log(seed: u64, settings: &Settings) -> Outcome {
    let world = Arc::new(LogWorld::new(seed, settings));
    let mut lives = 0;
    let mut found = None;
    while lives < LIVES && found.is_none() {
        lives += 1;
        found = world.live(lives);
    }
    let (acknowledged, replayed) = world.history.counts();
    Outcome {
        seed,
        violation: found,
        counters: Counters {
            simulated: world.clock.now(),
            lives,
            operations: *world.operations.lock(),
            acknowledged,
            checked: replayed,
            replayed,
            requests: 0,
            faults: world.faults.struck(),
        },
        digest: world.trace.digest(),
        lines: world.trace.lines(),
    }
}

/// The log needs somebody who hears; the watch listens before.
struct Deaf;

impl Sink for Deaf {
    fn durable(&self, _commit: Commit) {}
    fn failed(&self, _error: &Error) {}
    fn room(&self) {}
}

impl LogWorld {
    fn new(seed: u64, settings: &Settings) -> Self {
        let entropy = Entropy::new(seed);
        let faults = Faults::drawn(entropy.fork("faults"));
        #[cfg(feature = "mutations")]
        let lie = settings.mutation.and_then(crate::Mutation::disk);
        #[cfg(not(feature = "mutations"))]
        let lie = None;
        let identity = Identity {
            cluster: 1,
            log: LogUuid::new(u128::from(seed) + 1),
            node: 1,
        };
        Self {
            clock: SimClock::default(),
            trace: if settings.lines {
                Trace::with_lines()
            } else {
                Trace::default()
            },
            disk: SimDisk::new(DISK_BYTES, entropy.fork("disk"), faults.clone(), lie),
            faults,
            history: History::default(),
            state: Mutex::new(LogState::new(identity, LogEpoch::new(1))),
            operations: Mutex::default(),
            noise: payload(&entropy.fork("noise")),
            entropy,
            #[cfg(feature = "mutations")]
            mutation: settings.mutation,
        }
    }

    fn live(&self, number: u64) -> Option<Violation> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing from the system");
        let entropy = self.entropy.fork("life");
        let length = entropy.wait(Duration::from_millis(1)..Duration::from_secs(2));
        let ending = match entropy.within(0..10) {
            0..4 => Ending::Crash(Crash::Process),
            4..8 => Ending::Crash(Crash::Power),
            _ => Ending::Close,
        };
        let verdict = runtime.block_on(async {
            self.clock.begin();
            self.note(format_args!("life {number} begins: {length:?}, {ending:?}"));
            let served = timeout_at(Instant::now() + length, self.serve(&entropy)).await;
            let verdict = match served {
                Ok(verdict) => verdict,
                Err(_) => Ok(()),
            };
            self.note(format_args!("life {number} ends: {verdict:?}"));
            self.clock.end();
            verdict
        });
        let crash = match ending {
            Ending::Crash(crash) => crash,
            Ending::Close => Crash::Process,
        };
        self.disk.crash(crash);
        drop(runtime);
        self.faults.count(match crash {
            Crash::Process => Fault::ProcessCrash,
            Crash::Power => Fault::PowerCut,
        });
        verdict.err().or_else(|| self.history.violation())
    }

    fn backend(&self) -> Watched {
        let backend = production_log(Arc::new(self.disk.attach()));
        #[cfg(feature = "mutations")]
        let backend = match self.mutation {
            Some(mutation) => mutation.log(backend, self.entropy.fork("mutation")),
            None => backend,
        };
        Watched::new(backend, self.history.clone())
    }

    /// Opens and appends until the log fails or is closed; then again, until time is up.
    async fn serve(&self, entropy: &Entropy) -> Result<(), Violation> {
        let backend = self.backend();
        loop {
            let log = match self.open(&backend, entropy).await {
                Ok(log) => log,
                Err(error) => {
                    self.tolerate("open", &error)?;
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            let appends = entropy.within(1..400);
            if let Err(error) = self.append(log.as_ref(), entropy, appends).await {
                self.tolerate("append", &error)?;
            }
            if let Err(error) = log.close().await {
                self.tolerate("close", &error)?;
            }
        }
    }

    async fn open(&self, backend: &Watched, entropy: &Entropy) -> Result<Arc<dyn Log>, Error> {
        let state = {
            let mut state = self.state.lock();
            let next = LogEpoch::new(state.epoch.get() + 1);
            state.grant(next);
            state.clone()
        };
        let mut replay = backend.open(&state).await?;
        read(replay.as_mut()).await?;
        if entropy.chance(200) {
            replay.rewind().await?;
            read(replay.as_mut()).await?;
        }
        // Dying between the record of the ends and the start is a case of its own.
        self.state
            .lock()
            .begin(replay.ends(), replay.start_position());
        if entropy.chance(100) {
            return Err(Error::Closed);
        }
        replay.start(Arc::new(Deaf)).await
    }

    async fn append(&self, log: &dyn Log, entropy: &Entropy, appends: u64) -> Result<(), Error> {
        for _ in 0..appends {
            *self.operations.lock() += 1;
            let large = entropy.chance(50);
            let len = entropy.within(if large { 1..RECORD_LEN_MAX } else { 1..2_000 });
            let start = entropy.within(0..RECORD_LEN_MAX) as usize;
            let bytes = self.noise.slice(start..start + len as usize);
            match log.append(&[&bytes]) {
                Ok(range) => self.note(format_args!("append {range:?}")),
                Err(Error::Full { .. }) => self.trim(log, entropy),
                Err(error) => return Err(error),
            }
            if entropy.chance(10) {
                self.trim(log, entropy);
            }
            if entropy.chance(300) {
                sleep(entropy.wait(Duration::from_micros(20)..Duration::from_millis(5))).await;
            }
        }
        Ok(())
    }

    /// Records a trim, then tells the log (W7).
    fn trim(&self, log: &dyn Log, entropy: &Entropy) {
        let mut state = self.state.lock();
        let durable = log.durable_end();
        let lowest = state.owed.iter().map(|epoch| epoch.trim.get()).min();
        let low = lowest.unwrap_or(0).min(durable.get());
        let to = Position::new(self.commit_end(low, durable.get(), entropy));
        state.trim(to, durable);
        self.note(format_args!("trim {to}"));
        log.trim(to);
    }

    /// Some end of a record that is durable, or all.
    fn commit_end(&self, low: u64, durable: u64, entropy: &Entropy) -> u64 {
        let at = entropy.within(low..durable + 1);
        self.history
            .record_end_at_or_below(at)
            .unwrap_or(low)
            .max(low)
    }

    /// Only what a failing disk explains, and what this world does to itself: a failed log is in use until its writes
    /// in flight have ended.
    fn tolerate(&self, what: &str, error: &Error) -> Result<(), Violation> {
        self.note(format_args!("{what}: {error}"));
        match error {
            Error::Io { .. } | Error::Failed { .. } | Error::InUse { .. } | Error::Closed => Ok(()),
            _ => Err(Violation::new("W6", format!("{what}: {error}"))),
        }
    }

    fn note(&self, event: std::fmt::Arguments<'_>) {
        self.trace.note(self.clock.now(), event);
    }
}

fn payload(entropy: &Entropy) -> Bytes {
    let words = (0..RECORD_LEN_MAX / 4).map(|_| entropy.next().to_be_bytes());
    words.flatten().collect()
}

async fn read(replay: &mut dyn Replay) -> Result<(), Error> {
    while replay.next().await?.is_some() {}
    Ok(())
}
