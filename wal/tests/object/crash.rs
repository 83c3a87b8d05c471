//! Crashes of an object log: a small workload that fills up, trims and restarts is recorded, and the log is reopened from every prefix of what its
//! bucket was asked.
//!
//! Of the puts and deletes on their way at a crash every subset is applied, batches of deletes in every part. Each time: what was acknowledged is there
//! (W2), in order and without gaps (W1), whole (W4), nothing is invented; a crash at every step of the recovery, and a recovery from there, changes
//! nothing (W8); and a new epoch written after it comes back behind the old records, which stay exactly what they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use object_store::path::Path;
use wal::{
    Backend, Commit, Error, Log, LogState, Position, Sink,
    object::{Config, ObjectLog},
    testing::{Hear, ModelStore, Objects, Request, StoreStep},
};

use crate::{
    records::{self, Dice, name_of, payload},
    support::{grant_next, settle, state, trim_of},
};

/// A bucket outlives the process: a restart finds what is there.
type Mark = records::Mark<Infallible>;

type Trace = Vec<StoreStep<Mark>>;

fn config() -> Config {
    Config {
        capacity: 8192,
        objects_max: 64,
        commit_bytes_max: 1000,
        overlap_bytes: 0,
        in_flight_max: 3,
        slab_bytes: 700,
        puts_per_s: 1_000_000,
        puts_burst: 1_000_000,
        hedge_multiple: 0,
        ..Config::default()
    }
}

struct Marker(ModelStore<Mark>);

impl Sink for Marker {
    fn durable(&self, commit: Commit) {
        for record in commit.records {
            let record = name_of(&record.payload);
            self.0.mark(Mark::Acknowledged { record });
        }
    }

    fn failed(&self, error: &Error) {
        panic!("{error}");
    }

    fn room(&self) {}
}

fn backend<M: Send + 'static>(store: &ModelStore<M>, host: u32) -> ObjectLog {
    let log = ObjectLog::new(store.host(host), "wal", u128::from(host) << 32).unwrap();
    log.with_config(config())
}

struct Workload {
    dice: Dice,
    state: LogState,
    store: ModelStore<Mark>,
    life: u32,
    records: u32,
    /// Appended and neither lost nor trimmed, in order.
    alive: Vec<(u32, Range<Position>)>,
    fulls: u32,
}

impl Workload {
    fn new(seed: u64) -> Self {
        let store = ModelStore::default();
        let state = state();
        store.mark(Mark::State(state.clone()));
        Self {
            dice: Dice(seed),
            state,
            store,
            life: 0,
            records: 0,
            alive: Vec::new(),
            fulls: 0,
        }
    }

    async fn open(&mut self) -> Arc<dyn Log> {
        self.life += 1;
        let mut replay = backend(&self.store, self.life)
            .open(&self.state)
            .await
            .unwrap();
        let mut back = BTreeSet::new();
        while let Some(piece) = replay.next().await.unwrap() {
            back.extend(piece.iter().map(|r| name_of(&r.payload)));
        }
        self.state.begin(replay.ends(), replay.start_position());
        let (kept, lost) = self.alive.drain(..).partition(|(r, _)| back.contains(r));
        self.alive = kept;
        let lost: Vec<(u32, Range<Position>)> = lost;
        self.store
            .mark(Mark::Lost(lost.iter().map(|(r, _)| *r).collect()));
        self.store.mark(Mark::State(self.state.clone()));
        let sink = Arc::new(Marker(self.store.clone()));
        let log = replay.start(sink).await.unwrap();
        self.store.hold(self.life);
        log
    }

    fn append(&mut self, log: &dyn Log) {
        let len = [4, 40, 300, 700, 1500][self.dice.below(5)];
        let record = self.records;
        self.store.mark(Mark::Append { record });
        let position = match log.append(&[&payload(record, len)]) {
            Ok(position) => {
                self.records += 1;
                self.alive.push((record, position.clone()));
                Some(position)
            }
            Err(Error::Full { .. }) => {
                self.fulls += 1;
                None
            }
            Err(error) => panic!("{error}"),
        };
        self.store.mark(Mark::Appended { record, position });
    }

    fn trim(&mut self, log: &dyn Log) {
        let durable = log.durable_end();
        let ends: Vec<_> = self
            .alive
            .iter()
            .map(|(_, p)| p.end)
            .filter(|e| *e <= durable)
            .collect();
        if ends.is_empty() {
            return;
        }
        let to = ends[self.dice.below(ends.len())];
        self.state.trim(to, durable);
        self.store.mark(Mark::State(self.state.clone()));
        self.alive.retain(|(_, position)| position.end > to);
        log.trim(to);
    }

    /// Lets something on its way take effect, or be answered.
    fn progress(&mut self) {
        let waiting = self.store.waiting();
        if waiting.is_empty() {
            return;
        }
        let one = &waiting[self.dice.below(waiting.len())];
        match (one.applied, one.answered) {
            (false, _) => self.store.apply(one.id),
            (true, false) => self.store.answer(one.id),
            // Of an owner that is gone.
            (true, true) => self.store.lose(one.id),
        }
    }

    async fn live(&mut self, steps: usize) {
        let log = self.open().await;
        for _ in 0..steps {
            match self.dice.below(16) {
                0..6 => self.append(&*log),
                6..14 => self.progress(),
                _ => self.trim(&*log),
            }
            settle().await;
        }
        drop(log);
        settle().await;
        // What is on its way of the one that is gone: some of it is lost, some lands before the next opening, some during its life.
        for one in self.store.waiting() {
            match self.dice.below(3) {
                0 => self.store.lose(one.id),
                1 if !one.applied => self.store.apply(one.id),
                _ => {}
            }
        }
        grant_next(&mut self.state);
        self.store.mark(Mark::State(self.state.clone()));
    }

    async fn run(seed: u64, lives: usize, steps: usize) -> (Trace, u32) {
        let mut workload = Self::new(seed);
        for _ in 0..lives {
            workload.live(steps).await;
        }
        (workload.store.take_trace(), workload.fulls)
    }
}

/// What is known at a crash.
#[derive(Clone, Default)]
struct Known {
    state: Option<LogState>,
    appended: BTreeMap<u32, Option<Range<Position>>>,
    acknowledged: BTreeSet<u32>,
    lost: BTreeSet<u32>,
}

impl Known {
    fn mark(&mut self, mark: &Mark) {
        match mark {
            Mark::State(state) => self.state = Some(state.clone()),
            Mark::Append { record } => {
                self.appended.insert(*record, None);
            }
            Mark::Appended {
                record,
                position: None,
            } => {
                self.appended.remove(record);
            }
            Mark::Appended { record, position } => {
                self.appended.insert(*record, position.clone());
            }
            Mark::Acknowledged { record } => {
                self.acknowledged.insert(*record);
            }
            Mark::Lost(records) => self.lost.extend(records),
            Mark::Restart(never) => match *never {},
        }
    }

    fn trim(&self) -> Position {
        self.state.as_ref().map(trim_of).unwrap_or_default()
    }

    /// Checks what came back, above the trim: at least what was acknowledged, at most what was appended, without gaps.
    fn check(&self, back: &[(u32, Range<Position>)], what: &str) {
        let trim = self.trim();
        let alive = self.appended.iter().filter(|(record, position)| {
            !self.lost.contains(*record)
                && position.as_ref().is_none_or(|position| position.end > trim)
        });
        let alive: Vec<_> = alive.map(|(record, _)| *record).collect();
        let names: Vec<_> = back.iter().map(|(record, _)| *record).collect();
        assert!(
            alive.starts_with(&names),
            "W1, {what}: {names:?} of {alive:?}"
        );
        let owed = alive
            .iter()
            .filter(|r| self.acknowledged.contains(*r))
            .count();
        assert!(
            names.len() >= owed,
            "W2, {what}: {names:?} of {owed} acknowledged in {alive:?}"
        );
        for (record, position) in back {
            let told = self.appended[record].as_ref();
            assert!(
                told.is_none_or(|told| told == position),
                "{what}: {record} moved"
            );
        }
    }
}

type Back = Vec<(u32, Range<Position>)>;

/// One recovery, in a bucket that records it: what came back above the trim, and the state as it was before and after the ends were recorded.
async fn recover(store: &ModelStore<LogState>, state: &mut LogState, trim: Position) -> Back {
    store.mark(state.clone());
    let host = state.epoch.get() as u32;
    let roomy = Config {
        capacity: 1 << 20,
        ..config()
    };
    let log = backend(store, host).with_config(roomy);
    let mut replay = log.open(state).await.unwrap();
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        back.extend(
            piece
                .iter()
                .map(|r| (name_of(&r.payload), r.position.clone())),
        );
    }
    back.retain(|(_, position)| position.end > trim);
    state.begin(replay.ends(), replay.start_position());
    store.mark(state.clone());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    for n in 0..2 {
        log.append(&[&payload(1_000_000 + host * 10 + n, 500)])
            .unwrap();
    }
    hear.until_durable(2).await;
    settle().await;
    back
}

/// Recovers from a crash that left `objects`, then from a crash at each step of that recovery, and once more after it.
async fn survives(objects: Objects, known: &Known, what: &str) -> usize {
    let mut recoveries = 0;
    let trim = known.trim();
    let mut state = known.state.clone().unwrap();
    grant_next(&mut state);
    let store = ModelStore::holding(objects.clone());
    let first = recover(&store, &mut state, trim).await;
    known.check(&first, what);
    let own = state.epoch;

    let mut at_crash = objects;
    let mut asked = BTreeMap::new();
    let mut knew = None;
    for step in store.take_trace() {
        match step {
            StoreStep::Arrived(id, request) => {
                asked.insert(id, request);
                continue;
            }
            StoreStep::Applied(id) => apply(&mut at_crash, &asked[&id]),
            StoreStep::Mark(state) => knew = Some(state),
        }
        let mut state: LogState = knew.clone().unwrap();
        grant_next(&mut state);
        let begun = state.started().any(|e| e.epoch == own);
        let store = ModelStore::holding(at_crash.clone());
        let mut again = recover(&store, &mut state, trim).await;
        recoveries += 1;
        again.retain(|(record, _)| *record < 1_000_000);
        known.check(&again, what);
        if begun {
            assert_eq!(
                again, first,
                "W8, {what}: not what the first recovery replayed"
            );
        }
    }
    grant_next(&mut state);
    let mut last = recover(&store, &mut state, trim).await;
    let new: Vec<_> = last
        .split_off(first.len())
        .iter()
        .map(|(r, _)| *r)
        .collect();
    assert_eq!(last, first, "W8, {what}: the old records changed");
    let host = own.get() as u32;
    assert_eq!(
        new,
        [1_000_000 + host * 10, 1_000_001 + host * 10],
        "W2, {what}: the new epoch"
    );
    recoveries + 2
}

fn apply(objects: &mut Objects, request: &Request) {
    match request {
        Request::Create(path, bytes) => {
            objects.entry(path.clone()).or_insert_with(|| bytes.clone());
        }
        Request::Delete(paths) => paths.iter().for_each(|path| drop(objects.remove(path))),
        Request::Get(_) | Request::List(_) => {}
    }
}

/// What each of the requests on their way may do on its own.
fn effects(in_flight: &BTreeMap<u64, Request>) -> Vec<(Path, Option<Bytes>)> {
    in_flight
        .values()
        .flat_map(|request| match request {
            Request::Create(path, bytes) => vec![(path.clone(), Some(bytes.clone()))],
            Request::Delete(paths) => paths.iter().map(|path| (path.clone(), None)).collect(),
            Request::Get(_) | Request::List(_) => Vec::new(),
        })
        .collect()
}

/// All subsets of so many things, or 64 of them that differ, with none and all among them.
fn subsets(count: usize, dice: &mut Dice) -> Vec<u64> {
    if count <= 6 {
        return (0..1 << count).collect();
    }
    let all = (1u64 << count.min(63)) - 1;
    let mut some: BTreeSet<u64> = BTreeSet::from([0, all]);
    while some.len() < 64 {
        some.insert(((dice.below(1 << 30) as u64) << 30 | dice.below(1 << 30) as u64) & all);
    }
    some.into_iter().collect()
}

struct Done {
    cuts: usize,
    crashes: usize,
    recoveries: usize,
    fulls: u32,
    half_deletes: usize,
}

async fn every_crash_point(seed: u64, lives: usize, steps: usize) -> Done {
    let (trace, fulls) = Workload::run(seed, lives, steps).await;
    let mut dice = Dice(seed);
    let mut known = Known::default();
    let mut objects = Objects::new();
    let mut in_flight: BTreeMap<u64, Request> = BTreeMap::new();
    let mut done = Done {
        cuts: 0,
        crashes: 0,
        recoveries: 0,
        fulls,
        half_deletes: 0,
    };
    for (cut, step) in trace.iter().enumerate() {
        match step {
            StoreStep::Arrived(id, request) => {
                in_flight.insert(*id, request.clone());
            }
            StoreStep::Applied(id) => {
                let request = in_flight.remove(id).unwrap();
                apply(&mut objects, &request);
            }
            StoreStep::Mark(mark) => known.mark(mark),
        }
        done.cuts += 1;
        // What an append or a refusal notes changes nothing that a crash could show.
        if matches!(
            step,
            StoreStep::Mark(Mark::Append { .. } | Mark::Appended { .. })
        ) {
            continue;
        }
        let effects = effects(&in_flight);
        let batched = in_flight
            .values()
            .any(|r| matches!(r, Request::Delete(p) if p.len() > 1));
        done.half_deletes += usize::from(batched);
        for subset in subsets(effects.len(), &mut dice) {
            let mut left = objects.clone();
            for (i, (path, effect)) in effects.iter().enumerate() {
                match effect {
                    _ if subset >> i & 1 == 0 => {}
                    Some(bytes) => {
                        left.entry(path.clone()).or_insert_with(|| bytes.clone());
                    }
                    None => drop(left.remove(path)),
                }
            }
            let what = format!("seed {seed}, cut {cut}, subset {subset:b}");
            done.recoveries += survives(left, &known, &what).await;
            done.crashes += 1;
        }
    }
    done
}

#[tokio::test(start_paused = true)]
async fn acknowledged_records_survive_a_crash_at_every_step_and_at_every_step_of_the_recovery() {
    let (mut cuts, mut crashes, mut recoveries, mut fulls, mut half) = (0, 0, 0, 0, 0);
    for seed in 0..3 {
        let done = every_crash_point(seed, 3, 60).await;
        cuts += done.cuts;
        crashes += done.crashes;
        recoveries += done.recoveries;
        fulls += done.fulls;
        half += done.half_deletes;
    }
    println!(
        "{cuts} steps, {crashes} crashes, {recoveries} recoveries, {fulls} times full, {half} batches on their way"
    );
    assert!(fulls > 0, "the workload fills the log up");
    assert!(half > 0, "the workload has batches of deletes on their way");
    assert!(crashes > 1000 && recoveries > 5 * crashes);
}
