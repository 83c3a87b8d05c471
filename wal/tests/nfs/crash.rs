//! Power cuts and killed hosts: a workload that wraps, trims, renews its lease and restarts is recorded, and the log is reopened from every moment of it.
//!
//! Of the changes in flight at a cut every subset is tried, and every tear of a write at a sector; names that no sync has covered stay or go. Each time: what
//! was acknowledged is there (W2), in order and without gaps (W1), whole (W4), nothing is invented; a power cut right after the opening changes nothing
//! (W8); and what a new epoch writes comes back behind the old records. Then the same again from every moment of such a reopening.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use tokio::time::sleep;
use wal::{
    Commit, Error, Log, LogEpoch, LogState, Position, Sink,
    testing::{Change, DirectoryImage, Hear, ModelDirectory, ModelHost, Step},
};

use crate::{
    records::{Dice, check_back},
    support::*,
};

#[derive(Clone, Debug)]
enum Mark {
    /// The metadata now says this, and ends were recorded without these records: they are gone for good.
    State(LogState, Vec<u32>),
    Append(u32),
    /// Queued, or refused.
    Appended(u32, Option<Range<Position>>),
    Acknowledged(u32),
}

struct Marker(ModelDirectory<Mark>);

impl Sink for Marker {
    fn durable(&self, commit: Commit) {
        for record in commit.records {
            self.0.mark(Mark::Acknowledged(name_of(&record.payload)));
        }
    }

    fn failed(&self, error: &Error) {
        panic!("{error}");
    }

    fn room(&self) {}
}

struct Workload {
    dice: Dice,
    state: LogState,
    directory: ModelDirectory<Mark>,
    host: ModelHost<Mark>,
    records: u32,
    /// Appended and neither lost nor trimmed, in order.
    alive: Vec<(u32, Range<Position>)>,
}

impl Workload {
    fn new(seed: u64) -> Self {
        let directory = ModelDirectory::default().recording();
        let state = fresh();
        directory.mark(Mark::State(state.clone(), Vec::new()));
        Self {
            dice: Dice(seed),
            state,
            host: directory.host(),
            directory,
            records: 0,
            alive: Vec::new(),
        }
    }

    async fn open(&mut self) -> Arc<dyn Log> {
        let opened = open(&log_on(&self.host), &self.state).await.unwrap();
        let back: BTreeSet<_> = opened.back.iter().collect();
        let (kept, lost): (Vec<_>, _) = self.alive.drain(..).partition(|(n, _)| back.contains(n));
        self.alive = kept;
        let replay = opened.replay;
        self.state.begin(replay.ends(), replay.start_position());
        let lost = lost.into_iter().map(|(n, _)| n).collect();
        self.directory.mark(Mark::State(self.state.clone(), lost));
        replay
            .start(Arc::new(Marker(self.directory.clone())))
            .await
            .unwrap()
    }

    fn append(&mut self, log: &dyn Log, len: usize) -> bool {
        let record = self.records;
        self.directory.mark(Mark::Append(record));
        let appended = match append(log, record, len) {
            Ok(position) => Some(position),
            Err(Error::Full { .. }) => None,
            Err(e) => panic!("{e}"),
        };
        self.directory
            .mark(Mark::Appended(record, appended.clone()));
        self.records += 1;
        self.alive.extend(appended.clone().map(|p| (record, p)));
        appended.is_some()
    }

    fn trim(&mut self, log: &dyn Log, count: usize) {
        let durable = log.durable_end();
        let settled = self.alive.iter().take_while(|(_, p)| p.end <= durable);
        let last = settled.count().min(count).wrapping_sub(1);
        let Some((_, position)) = self.alive.get(last).cloned() else {
            return;
        };
        self.alive.retain(|(_, p)| p.end > position.end);
        self.state.trim(position.end, durable);
        let mark = Mark::State(self.state.clone(), Vec::new());
        self.directory.mark(mark);
        log.trim(position.end);
    }

    /// A life: appends, time that passes while some are in flight, trims, renewals. Ends with whatever is in flight.
    async fn live(&mut self, steps: usize) {
        let log = self.open().await;
        for step in 0..steps {
            let len = [4, 60, 1000, 3000, 5000, 9000][self.dice.below(6)];
            if !self.append(&*log, len) {
                sleep(Duration::from_millis(20)).await;
                self.trim(&*log, 5);
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_micros(90 * self.dice.below(4) as u64)).await;
            if step == steps / 2 {
                sleep(Duration::from_secs(6)).await;
            }
            if self.dice.below(8) == 0 {
                self.trim(&*log, 3);
            }
        }
    }

    fn restart(&mut self, power: bool) {
        self.host.pause();
        let (image, in_flight) = (self.directory.image(), self.directory.in_flight());
        let dice = &mut self.dice;
        let image = if power {
            image.power_cut(&in_flight, |_, _| dice.below(2) == 0, |_| false)
        } else {
            image.crash(&in_flight, |_, _| dice.below(2) == 0)
        };
        self.directory.restore(image);
        self.host = self.directory.host();
        grant_next(&mut self.state);
        let mark = Mark::State(self.state.clone(), Vec::new());
        self.directory.mark(mark);
    }

    async fn run(mut self) -> Vec<Step<Mark>> {
        self.live(14).await;
        self.restart(true);
        self.live(10).await;
        self.restart(false);
        let log = self.open().await;
        for _ in 0..3 {
            self.append(&*log, 2000);
            sleep(Duration::from_millis(5)).await;
        }
        self.trim(&*log, usize::MAX);
        log.close().await.unwrap();
        self.directory.steps()
    }
}

/// What is known at one moment of a trace.
#[derive(Clone, Default)]
struct Known {
    state: Option<LogState>,
    appended: Vec<(u32, Option<Range<Position>>)>,
    acknowledged: BTreeSet<u32>,
}

impl Known {
    fn step(&mut self, mark: &Mark) {
        match mark {
            Mark::State(state, lost) => {
                self.state = Some(state.clone());
                assert!(
                    lost.iter().all(|r| !self.acknowledged.contains(r)),
                    "W2: lost an acknowledged record in the workload itself"
                );
                let began = state.owed.last().is_some_and(|e| e.epoch == state.epoch);
                self.appended.retain(|(n, _)| !lost.contains(n));
                if began && !lost.is_empty() {
                    // What replayed and was recorded is final (W8), acknowledged or not.
                    self.acknowledged
                        .extend(self.appended.iter().map(|(n, _)| *n));
                }
            }
            Mark::Append(record) => self.appended.push((*record, None)),
            Mark::Appended(record, position) => {
                self.appended
                    .retain(|(n, _)| n != record || position.is_some());
                for (_, of) in self.appended.iter_mut().filter(|(n, _)| n == record) {
                    of.clone_from(position);
                }
            }
            Mark::Acknowledged(record) => {
                self.acknowledged.insert(*record);
            }
        }
    }

    fn check(&self, back: &[u32]) {
        let owed = self.state.iter().flat_map(|s| &s.owed).map(|e| e.trim);
        let trim = owed.min().unwrap_or_default();
        check_back(back, &self.appended, &self.acknowledged, trim);
    }

    /// The state of the next opening.
    fn granted(&self) -> LogState {
        let mut state = self.state.clone().unwrap();
        if state.owed.iter().any(|e| e.epoch >= state.epoch) || state.started().next().is_some() {
            state.grant(LogEpoch::new(state.epoch.get() + 100));
        }
        state
    }
}

/// Every way in which the changes in flight can end, on a server that lost its power or on one whose clients died.
fn cuts(step: &Step<Mark>, moment: usize, tears: bool) -> Vec<DirectoryImage> {
    let parts: Vec<_> = step.in_flight.iter().map(Change::parts).collect();
    let mut fates: Vec<Box<dyn Fn(usize, usize) -> bool>> = Vec::new();
    for subset in 0..1_u32 << parts.len().min(5) {
        fates.push(Box::new(move |change, _| subset & (1 << change) != 0));
    }
    for (torn, count) in parts.iter().enumerate().filter(|_| tears) {
        // Of a long write some boundaries, others each time.
        for boundary in (1..*count).step_by((count / 4).max(1)) {
            for (first, others) in [(true, false), (true, true), (false, true)] {
                fates.push(Box::new(move |change, part| {
                    if change == torn {
                        (part < boundary) == first
                    } else {
                        others
                    }
                }));
            }
        }
    }
    let mut images = Vec::new();
    for (index, fate) in fates.iter().enumerate() {
        images.push(match (index + moment) % 3 {
            0 => step.image.power_cut(&step.in_flight, fate, |_| false),
            1 => step.image.crash(&step.in_flight, fate),
            _ => step.image.power_cut(&step.in_flight, fate, |name| {
                (name + index + moment / 3).is_multiple_of(2)
            }),
        });
    }
    images
}

fn after_power_cut<M: Clone>(directory: &ModelDirectory<M>) -> DirectoryImage {
    let in_flight = directory.in_flight();
    directory
        .image()
        .power_cut(&in_flight, |_, _| false, |_| false)
}

/// Reopens what a cut left, cuts the power, and reopens it again; then a new epoch writes, and all of it comes back.
async fn check(known: &Known, image: DirectoryImage) {
    let directory = ModelDirectory::<()>::holding(image);
    let mut state = known.granted();
    let opened = open(&log_on(&directory.host()), &state).await;
    let opened = opened.unwrap_or_else(|e| panic!("{e} with {state:?}"));
    known.check(&opened.back);

    directory.restore(after_power_cut(&directory));
    let again = open(&log_on(&directory.host()), &state).await.unwrap();
    assert_eq!(
        again.back, opened.back,
        "W8: a power cut after the opening changed the replay"
    );

    let mut expected = again.back.clone();
    let life = again.start(&mut state).await.unwrap();
    for (index, record) in [50_000, 50_001].into_iter().enumerate() {
        if let Err(Error::Full { .. }) = append(&*life.log, record, 20) {
            life.hear.until_durable(index).await;
            // What is owed fills the ring; a trim would make room, and this is not about that.
            let end = life.log.durable_end();
            state.trim(end, end);
            life.log.trim(end);
            expected.clear();
            let rooms = life.hear.heard().rooms;
            life.hear.until("room", |h| h.rooms > rooms).await;
            append(&*life.log, record, 20).unwrap();
        }
        expected.push(record);
    }
    life.hear.until_durable(2).await;
    directory.restore(after_power_cut(&directory));
    grant_next(&mut state);
    let after = open(&log_on(&directory.host()), &state).await.unwrap();
    assert_eq!(after.back, expected, "W8: after the next epoch");
}

/// Cuts at every moment of a reopening from `image`, up to the first records of the new epoch.
async fn check_recovery(known: &Known, image: DirectoryImage) -> usize {
    let directory = ModelDirectory::holding(image).recording();
    let mut state = known.granted();
    let opened = open(&log_on(&directory.host()), &state).await.unwrap();
    let back = opened.back.clone();
    let replay = opened.replay;
    state.begin(replay.ends(), replay.start_position());
    directory.mark(Mark::State(state.clone(), Vec::new()));
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    let fits = append(&*log, 60_000, 20).is_ok();
    if fits {
        hear.until_durable(1).await;
    }
    let (mut before, mut count, mut handed_out) = (known.granted(), 0, false);
    for (index, step) in directory.steps().iter().enumerate() {
        if let Some(Mark::State(state, _)) = &step.mark {
            before = state.clone();
            grant_next(&mut before);
            handed_out = true;
        }
        let images = cuts(step, index, false);
        // One of the ways for each moment, another one each time.
        let image = images[index % images.len()].clone();
        let again = ModelDirectory::<()>::holding(image);
        let opened = open(&log_on(&again.host()), &before).await.unwrap();
        count += 1;
        if !handed_out {
            // Another end may be found: nobody has seen the first one.
            known.check(&opened.back);
            continue;
        }
        let (old, new) = opened.back.split_at(back.len().min(opened.back.len()));
        assert_eq!(old, back, "W8: moment {index} of the recovery");
        assert!(new.is_empty() || new == [60_000], "invented: {new:?}");
    }
    count
}

#[test]
fn acknowledged_records_survive_a_cut_at_every_moment() {
    cut_everywhere(1);
}

#[test]
fn acknowledged_records_survive_a_cut_at_every_moment_of_another_life() {
    cut_everywhere(2);
}

fn cut_everywhere(seed: u64) {
    let (mut count, mut recoveries, mut most_in_flight) = (0, 0, 0);
    let steps = run(Workload::new(seed).run());
    let mut known = Known::default();
    for (index, step) in steps.iter().enumerate() {
        if let Some(mark) = &step.mark {
            known.step(mark);
        }
        most_in_flight = most_in_flight.max(step.in_flight.len());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(async {
                let images = cuts(step, index, step.mark.is_none() && index % 3 == 0);
                if index % 32 == 0 {
                    recoveries +=
                        check_recovery(&known, images[index % images.len()].clone()).await;
                }
                // A mark changes no file: what it says is checked with what is there whole.
                let some = if step.mark.is_some() { 1 } else { images.len() };
                for image in images.into_iter().take(some) {
                    check(&known, image).await;
                    count += 1;
                }
            });
        }));
        if let Err(panic) = result {
            eprintln!(
                "seed {seed}, moment {index} of {}: {:?}, in flight {}",
                steps.len(),
                step.mark,
                step.in_flight.len()
            );
            std::panic::resume_unwind(panic);
        }
    }
    assert!(
        count > 1500 && recoveries > 1500,
        "only {count} cuts and {recoveries} of recoveries: the workload does not do what it should"
    );
    assert!(most_in_flight >= 3, "never three changes in flight");
}

#[test]
fn what_another_host_wrote_and_never_synced_is_durable_when_an_opening_returns() {
    // The taker's sync does not make another host's write durable: it must write those bytes again (W8).
    run(async {
        let directory = ModelDirectory::<()>::default();
        let (mut state, host) = (fresh(), directory.host());
        let life = open(&log_on(&host), &state).await.unwrap();
        let life = life.start(&mut state).await.unwrap();
        append(&*life.log, 1, 100).unwrap();
        life.hear.until_durable(1).await;
        host.set_latency(Duration::from_secs(1));
        append(&*life.log, 2, 100).unwrap();
        sleep(Duration::from_millis(600)).await;
        // Seen by all, and safe nowhere; its host does nothing more.
        host.pause();
        directory.restore(directory.image());
        grant_next(&mut state);
        let opened = open(&log_on(&directory.host()), &state).await.unwrap();
        assert_eq!(opened.back, [1, 2]);
        directory.restore(after_power_cut(&directory));
        let again = open(&log_on(&directory.host()), &state).await.unwrap();
        assert_eq!(again.back, [1, 2], "W8");
    });
}
