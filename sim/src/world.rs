//! Everything that outlives a crash: disk, bucket, time, what clients were promised; and the lives of the node in it.
//!
//! `one life = one runtime`: dropping it is the crash, at whatever await the node's tasks stand.
//!
//! A seed's lives end by a crash of the process, a power cut, or a clean close. Then the world is healed, and the node
//! must come back, serve everything, close, and serve everything again from the bucket alone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use s3stream::{
    GroupId, StreamId,
    wal::{
        Backend,
        object::{self, ObjectLog},
    },
};

use crate::{
    Counters, Crash, Entropy, Fault, Faults, LogKind, Outcome, Settings, SimBucket, SimClock,
    SimDisk, Trace, Violation,
    checker::StreamChecker,
    life::{Life, Purpose},
    log_alone::production_log,
    outcome::Ending,
    watch::{History, Watched},
};

/// The log's disk: small, so that it fills and wraps.
const DISK_BYTES: u64 = 768 << 10;

/// What clients know of the node's streams.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    pub(crate) groups: Vec<GroupId>,
    pub(crate) streams: BTreeMap<StreamId, StreamChecker>,
    pub(crate) operations: u64,
    pub(crate) acknowledged: u64,
}

impl Promised {
    /// The checker of a stream that was created.
    pub(crate) fn checker(&mut self, stream: StreamId) -> &mut StreamChecker {
        self.streams
            .get_mut(&stream)
            .expect("a stream has a checker from its creation on")
    }
}

/// The world of one seed.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) clock: SimClock,
    pub(crate) trace: Trace,
    pub(crate) faults: Faults,
    pub(crate) bucket: SimBucket,
    pub(crate) disk: SimDisk,
    pub(crate) history: History,
    pub(crate) promised: Mutex<Promised>,
    /// Logs in the bucket that were given up before the one in use.
    logs_gone: AtomicU64,
    entropy: Entropy,
}

/// Simulates one seed to its end, or to the first violation.
pub fn simulate(seed: u64, settings: &Settings) -> Outcome {
    let world = Arc::new(World::new(seed, settings.clone()));
    let (violation, lives) = World::run(&world);
    let (_, replayed) = world.history.counts();
    let promised = world.promised.lock();
    Outcome {
        seed,
        violation,
        counters: Counters {
            simulated: world.clock.now(),
            lives,
            operations: promised.operations,
            acknowledged: promised.acknowledged,
            checked: promised.streams.values().map(|stream| stream.checked).sum(),
            replayed,
            requests: world.bucket.requests(),
            faults: world.faults.struck(),
        },
        digest: world.trace.digest(),
        lines: world.trace.lines(),
    }
}

impl World {
    fn new(seed: u64, settings: Settings) -> Self {
        let entropy = Entropy::new(seed);
        let faults = Faults::drawn(entropy.fork("faults"));
        let clock = SimClock::default();
        let trace = if settings.lines {
            Trace::with_lines()
        } else {
            Trace::default()
        };
        #[cfg(feature = "mutations")]
        let (lie, bucket_lie) = (
            settings.mutation.and_then(crate::Mutation::disk),
            settings.mutation.and_then(crate::Mutation::bucket),
        );
        #[cfg(not(feature = "mutations"))]
        let (lie, bucket_lie) = (None, None);
        Self {
            seed,
            bucket: SimBucket::new(
                entropy.fork("bucket"),
                faults.clone(),
                clock.clone(),
                trace.clone(),
                bucket_lie,
            ),
            disk: SimDisk::new(DISK_BYTES, entropy.fork("disk"), faults.clone(), lie),
            settings,
            clock,
            trace,
            faults,
            history: History::default(),
            promised: Mutex::default(),
            logs_gone: AtomicU64::new(0),
            entropy,
        }
    }

    /// The violation, if any, and how many lives it took.
    fn run(world: &Arc<Self>) -> (Option<Violation>, u64) {
        let plan = world.entropy.fork("plan");
        let mut lives = 0;
        while world.clock.now() < world.settings.time {
            let length = plan.wait(Duration::from_millis(20)..Duration::from_secs(600));
            let ending = match plan.within(0..10) {
                0..5 => Ending::Crash(Crash::Process),
                5..9 => Ending::Crash(Crash::Power),
                _ => Ending::Close,
            };
            lives += 1;
            if let Some(violation) = world.live(lives, length, ending, Purpose::Serve) {
                return (Some(violation), lives);
            }
        }
        world.faults.heal();
        for purpose in [Purpose::ComeBack, Purpose::ServeFromTheBucketAlone] {
            lives += 1;
            let length = Duration::from_secs(3_600);
            if let Some(violation) = world.live(lives, length, Ending::Close, purpose) {
                return (Some(violation), lives);
            }
            // It was closed: the log owes nothing, and its place can go.
            world.disk.replace();
            world.logs_gone.fetch_add(1, Ordering::Relaxed);
        }
        (None, lives)
    }

    fn live(
        self: &Arc<Self>,
        number: u64,
        length: Duration,
        ending: Ending,
        purpose: Purpose,
    ) -> Option<Violation> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing from the system");
        let entropy = self.entropy.fork("life");
        let verdict = runtime.block_on(async {
            self.clock.begin();
            self.bucket.begin();
            self.note(format_args!(
                "life {number} begins: {purpose:?}, {length:?}, {ending:?}"
            ));
            let life = Life::new(Arc::clone(self), entropy, length, purpose);
            let verdict = life.live(ending).await;
            self.note(format_args!("life {number} ends: {verdict:?}"));
            self.clock.end();
            verdict
        });
        // Nothing that is dropped with the runtime reaches the disk any more.
        let crash = match ending {
            Ending::Crash(crash) => crash,
            Ending::Close => Crash::Process,
        };
        self.disk.crash(crash);
        self.bucket.crash();
        drop(runtime);
        if let Ending::Crash(crash) = ending {
            self.faults.count(match crash {
                Crash::Process => Fault::ProcessCrash,
                Crash::Power => Fault::PowerCut,
            });
        }
        verdict.err().or_else(|| self.history.violation())
    }

    /// The log as the node is given it.
    pub(crate) fn log(&self) -> Arc<dyn Backend> {
        let backend = match self.settings.log {
            LogKind::Block => production_log(Arc::new(self.disk.attach())),
            LogKind::Object => self.object_log(),
        };
        #[cfg(feature = "mutations")]
        let backend = match self.settings.mutation {
            Some(mutation) => mutation.log(backend, self.entropy.fork("mutation")),
            None => backend,
        };
        Arc::new(Watched::new(backend, self.history.clone()))
    }

    /// The production log in the bucket, with sizes that make it fill.
    fn object_log(&self) -> Arc<dyn Backend> {
        let config = object::Config {
            capacity: DISK_BYTES,
            commit_bytes_max: 64 << 10,
            in_flight_max: 4,
            overlap_bytes: 8 << 10,
            slab_bytes: 32 << 10,
            ..object::Config::default()
        };
        let entropy = self.entropy.fork("log");
        let incarnation = u128::from(entropy.next()) << 64 | u128::from(entropy.next());
        let prefix = format!("wal/{}", self.logs_gone.load(Ordering::Relaxed));
        let log = ObjectLog::new(Arc::new(self.bucket.clone()), &prefix, incarnation);
        Arc::new(log.expect("a path").with_config(config))
    }

    pub(crate) fn note(&self, event: std::fmt::Arguments<'_>) {
        self.trace.note(self.clock.now(), event);
    }
}
