//! The object log on stores that refuse, lose answers, answer with conflicts, wait, cut bodies short, and list what they like: a typed error or the right
//! behaviour, nothing acknowledged is lost, and nobody waits for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::memory::InMemory;
use tokio::time::{advance, sleep, timeout};
use wal::{
    Backend, Error, Identity, Log, LogEpoch, LogState, LogUuid, Position, Replay,
    object::{Config, ObjectLog},
    testing::{Hear, HostileStore, Whims, conformance},
};

use crate::{
    records::{Dice, name_of, payload},
    support::{grant_next, state, trim_of},
};

/// Longer than a request is patient, many times over: whoever waits longer waits for ever.
const FOR_EVER: Duration = Duration::from_secs(4 * 3600);
/// Openings in a row that may fail because the store does.
const OPENINGS: usize = 40;

/// Room for hardly anything: one small object waits, one is read ahead, and a handful fill the log.
fn tiny() -> Config {
    Config {
        capacity: 16_384,
        objects_max: 64,
        commit_bytes_max: 800,
        overlap_bytes: 0,
        in_flight_max: 3,
        slab_bytes: 500,
        queue_bytes_max: 1500,
        puts_per_s: 5,
        puts_burst: 1,
        replay_bytes: 1,
        replay_gets: 2,
        ..Config::default()
    }
}

fn place(store: &HostileStore, incarnation: u128) -> ObjectLog {
    let log = ObjectLog::new(Arc::new(store.clone()), "wal", incarnation << 64).unwrap();
    log.with_config(tiny())
}

fn all(whims: Whims) -> Whims {
    Whims {
        refuses: 10,
        forgets: 10,
        conflicts: 10,
        cuts: 10,
        ..whims
    }
}

/// Records that came back: name and where they end.
type Back = Vec<(u32, Position)>;

async fn open_once(
    store: &HostileStore,
    incarnation: u128,
    state: &LogState,
) -> Result<(Box<dyn Replay>, Back), Error> {
    let mut replay = place(store, incarnation).open(state).await?;
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await? {
        back.extend(piece.iter().map(|r| (name_of(&r.payload), r.position.end)));
    }
    Ok((replay, back))
}

struct Owner {
    log: Arc<dyn Log>,
    hear: Arc<Hear>,
}

impl Owner {
    fn acknowledged(&self, above: Position) -> Vec<u32> {
        let records = self.hear.heard().records;
        let above = records.iter().filter(|r| r.position.end > above);
        above.map(|r| name_of(&r.payload)).collect()
    }
}

/// Owner after owner in one place; those before go on as zombies, are dropped, or close.
struct World {
    store: HostileStore,
    dice: Dice,
    state: LogState,
    incarnation: u128,
    owners: Vec<Owner>,
    records: u32,
    /// What each opening that succeeded replayed, of how many owners, and the trim that it was told.
    replays: Vec<(usize, Position, Vec<u32>)>,
    refused: usize,
}

impl World {
    fn new(seed: u64, whims: Whims) -> Self {
        Self {
            store: HostileStore::new(Arc::new(InMemory::new()), whims, seed),
            dice: Dice(seed),
            state: state(),
            incarnation: 0,
            owners: Vec::new(),
            records: 0,
            replays: Vec::new(),
            refused: 0,
        }
    }

    /// Opens and starts as an engine does: under a new epoch each time, again while the store fails.
    async fn open(&mut self) {
        for _ in 0..OPENINGS {
            self.incarnation += 1;
            let opening = open_once(&self.store, self.incarnation, &self.state);
            let opened = timeout(FOR_EVER, opening).await;
            match opened.expect("an opening that ends") {
                Ok((replay, back)) => {
                    let (trim, owners) = (trim_of(&self.state), self.owners.len());
                    let back = back.into_iter().filter(|(_, end)| *end > trim);
                    let back = back.map(|(name, _)| name).collect();
                    self.replays.push((owners, trim, back));
                    self.state.begin(replay.ends(), replay.start_position());
                    let hear = Hear::new();
                    let starting = replay.start(Arc::clone(&hear) as _);
                    let started = timeout(FOR_EVER, starting).await;
                    match started.expect("a start that ends") {
                        Ok(log) => return self.owners.push(Owner { log, hear }),
                        Err(Error::Io { .. }) => self.refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                Err(Error::Io { .. }) => self.refused += 1,
                Err(error) => panic!("{error}"),
            }
            grant_next(&mut self.state);
        }
        panic!("{OPENINGS} openings failed in a row");
    }

    fn append(&mut self, owner: usize) {
        let len = [4, 40, 300, 700, 1500][self.dice.below(5)];
        match Hear::append(&*self.owners[owner].log, &[&payload(self.records, len)]) {
            Ok(_) => self.records += 1,
            Err(Error::Full { .. }) => {}
            Err(Error::Fenced { .. } | Error::Closed) => {
                assert!(owner + 1 < self.owners.len(), "the newest owner is fenced");
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn step(&mut self) {
        let newest = self.owners.len() - 1;
        match self.dice.below(20) {
            0..10 => self.append(newest),
            10..13 => {
                let any = self.dice.below(self.owners.len());
                self.append(any);
            }
            13..18 => sleep(Duration::from_millis(self.dice.below(3000) as u64)).await,
            18 => {
                let (end, log) = (self.owners[newest].log.durable_end(), &self.owners[newest]);
                self.state.trim(end, end);
                log.log.trim(end);
            }
            // The machine slept, or its clock went wrong: every request that waits is late.
            _ => advance(Duration::from_secs(self.dice.below(7200) as u64)).await,
        }
    }

    /// All that the newest owner took becomes durable; nothing fails it.
    async fn settle(&self) {
        let newest = self.owners.last().unwrap();
        let quiet = async {
            while newest.log.usage().queued > 0 {
                let failed = newest.hear.heard().failed;
                assert!(failed.is_none(), "{failed:?}");
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(FOR_EVER, quiet).await.expect("every answer");
    }

    async fn life(&mut self) {
        self.open().await;
        for _ in 0..40 {
            self.step().await;
        }
        self.settle().await;
        match self.dice.below(3) {
            0 => {
                let closing = self.owners.last().unwrap().log.close();
                match timeout(FOR_EVER, closing).await.expect("a close that ends") {
                    Ok(()) | Err(Error::Failed { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            // What it has on its way still takes effect.
            1 => {
                self.append(self.owners.len() - 1);
                let gone = self.owners.len() - 1;
                self.owners[gone].log = Arc::new(Gone);
            }
            _ => self.append(self.owners.len() - 1),
        }
        grant_next(&mut self.state);
    }

    /// Whatever an owner acknowledged, then or since, is in every replay after it, in order, but what was trimmed.
    fn check(&self, seed: u64) {
        for (owners, trim, back) in &self.replays {
            for (number, owner) in self.owners[..*owners].iter().enumerate() {
                let acknowledged = owner.acknowledged(*trim);
                let mut rest = back.iter();
                for name in acknowledged {
                    assert!(
                        rest.any(|record| *record == name),
                        "W5, seed {seed}: {name} of owner {number} is not in {back:?}"
                    );
                }
            }
        }
    }
}

/// In the place of a log that was dropped.
#[derive(Debug)]
struct Gone;

#[async_trait::async_trait]
impl Log for Gone {
    fn append(&self, _: &[&[u8]]) -> Result<std::ops::Range<Position>, Error> {
        Err(Error::Closed)
    }

    fn trim(&self, _: Position) {}

    fn usage(&self) -> wal::Usage {
        wal::Usage::default()
    }

    fn max_record_len(&self) -> usize {
        0
    }

    fn durable_end(&self) -> Position {
        Position::default()
    }

    async fn close(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }
}

#[tokio::test(start_paused = true)]
async fn owners_on_a_hostile_store_lose_nothing_and_nobody_waits_for_ever() {
    let (mut records, mut refused, mut acknowledged) = (0, 0, 0);
    for seed in 0..100 {
        // From quick answers to some that come after their request was given up.
        let wait_max = Duration::from_millis([10, 1000, 30_000][seed as usize % 3]);
        let mut world = World::new(
            seed,
            all(Whims {
                wait_max,
                ..Whims::default()
            }),
        );
        for _ in 0..5 {
            world.life().await;
        }
        world.open().await;
        // The zombies hear what is still on its way.
        sleep(FOR_EVER).await;
        world.check(seed);
        records += world.records;
        refused += world.refused;
        let owners = world.owners.iter();
        acknowledged += owners.map(|o| o.hear.count()).sum::<usize>();
    }
    println!("{records} records, {acknowledged} acknowledged, {refused} openings refused");
    assert!(acknowledged > 1000 && acknowledged < records as usize);
}

#[tokio::test(start_paused = true)]
async fn the_log_on_a_hostile_store_keeps_the_contract() {
    let (cases, store) = (AtomicU64::new(0), Arc::new(InMemory::new()));
    conformance(|| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let whims = all(Whims {
            wait_max: Duration::from_millis(20),
            ..Whims::default()
        });
        let store = HostileStore::new(Arc::clone(&store) as _, whims, case);
        move || {
            let prefix = format!("case/{case}");
            let log = ObjectLog::new(Arc::new(store.clone()), &prefix, 7).unwrap();
            let config = Config {
                capacity: 4 << 20,
                ..Config::default()
            };
            Arc::new(log.with_config(config)) as Arc<dyn Backend>
        }
    })
    .await;
}

/// A log of three lives and twenty objects, on a store that does what it should; what a further life must replay.
async fn written() -> (World, Vec<u32>) {
    let mut world = World::new(7, Whims::default());
    let mut expected = Vec::new();
    for _ in 0..3 {
        world.open().await;
        let owner = world.owners.pop().unwrap();
        for _ in 0..7 {
            Hear::append(&*owner.log, &[&payload(world.records, 200)]).unwrap();
            expected.push(world.records);
            world.records += 1;
            owner.hear.until_durable(expected.len() % 7).await;
        }
        owner.hear.until_durable(7).await;
        grant_next(&mut world.state);
    }
    (world, expected)
}

/// A log that was never opened, and would be in the same place.
fn another() -> LogState {
    let identity = Identity {
        log: LogUuid::new(77),
        ..state().identity
    };
    LogState::new(identity, LogEpoch::new(50))
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lists_a_few_names_and_says_that_these_are_all_loses_none() {
    for names_max in 1..30 {
        let (mut world, expected) = written().await;
        world.store.set(Whims {
            names_max,
            ..Whims::default()
        });
        // It is known to be there, whatever sorts before its marks.
        let refused = open_once(&world.store, 90, &another()).await.err();
        assert!(
            matches!(refused, Some(Error::Mismatch { .. } | Error::Io { .. })),
            "{names_max}: {refused:?}"
        );
        world.open().await;
        let (_, _, back) = world.replays.pop().unwrap();
        assert_eq!(back, expected, "{names_max} names");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hides_names_costs_a_typed_error_and_nothing_else() {
    let (mut refused, mut opened) = (0, 0);
    for seed in 0..60 {
        let (mut world, mut expected) = written().await;
        world.dice = Dice(seed);
        world.store.set(Whims {
            hides: [20, 60, 100][seed as usize % 3],
            ..Whims::default()
        });
        for incarnation in 100..110 {
            match open_once(&world.store, incarnation, &world.state).await {
                Ok((replay, back)) => {
                    opened += 1;
                    let back: Vec<_> = back.iter().map(|(name, _)| *name).collect();
                    assert_eq!(back, expected, "seed {seed}");
                    world.state.begin(replay.ends(), replay.start_position());
                    let hear = Hear::new();
                    if let Ok(log) = replay.start(Arc::clone(&hear) as _).await {
                        Hear::append(&*log, &[&payload(world.records, 200)]).unwrap();
                        hear.until_durable(1).await;
                        expected.push(world.records);
                        world.records += 1;
                    }
                }
                Err(
                    Error::Missing { .. }
                    | Error::Mismatch { .. }
                    | Error::NotNew { .. }
                    | Error::Io { .. },
                ) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
            grant_next(&mut world.state);
        }
        world.store.set(Whims::default());
        world.open().await;
        let (_, _, back) = world.replays.pop().unwrap();
        assert_eq!(
            back, expected,
            "seed {seed}, when it hides nothing any more"
        );
    }
    assert!(refused > 100 && opened > 100, "{refused}, {opened}");
}
