//! Power cuts: a small workload that wraps, trims and restarts is recorded, and the log is reopened from every prefix of what the device was asked.
//!
//! Of the writes in flight at a cut, every subset is tried, and every tear at a sector boundary. Each time: what was acknowledged is there (W2), in order
//! and without gaps (W1), whole (W4), nothing is invented, a second power cut right after the opening changes nothing (W8), and a new epoch written
//! after it comes back behind the old records, which stay exactly what they were. Then the power is cut again at every step of such a recovery.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;
use wal::{
    Backend, Commit, Error, Log, LogEpoch, LogState, Position, Sink,
    block::{BlockLog, Config, Device},
    testing::{Hear, MemoryDevice, Operation, RecordingDevice, new_log},
};

#[path = "support/records.rs"]
mod records;

use records::{Dice, check_back, name_of, payload};

const RING_START: usize = 128 * 1024;
const CAPACITY: usize = 16 * 4096;
const SECTOR: usize = 512;

/// A restart says what the process finds; the state's next epoch is granted then.
type Mark = records::Mark<Vec<u8>>;
type Trace = Vec<Operation<Mark>>;

fn config() -> Config {
    Config {
        commit_bytes_max: 8192,
        in_flight_max: 3,
        overlap_bytes: 0,
        slab_bytes: 16_384,
        ..Config::default()
    }
}

struct Marker(RecordingDevice<Mark>);

impl Sink for Marker {
    fn durable(&self, commit: Commit) {
        for record in commit.records {
            self.0.mark(Mark::Acknowledged {
                record: name_of(&record.payload),
            });
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
    device: MemoryDevice,
    recording: RecordingDevice<Mark>,
    records: u32,
    /// Appended and neither lost nor trimmed, in order.
    alive: Vec<(u32, Range<Position>)>,
    /// Appends that were refused for lack of room.
    refused: usize,
}

impl Workload {
    fn new(seed: u64) -> Self {
        let device = MemoryDevice::manual(RING_START + CAPACITY);
        let recording = RecordingDevice::new(Arc::new(device.clone()));
        let state = new_log();
        recording.mark(Mark::State(state.clone()));
        Self {
            dice: Dice(seed),
            state,
            device,
            recording,
            records: 0,
            alive: Vec::new(),
            refused: 0,
        }
    }

    fn open(&mut self) -> Arc<dyn Log> {
        let backend = BlockLog::on(Arc::new(self.recording.clone())).with_config(config());
        let mut replay = self.device.drive(backend.open(&self.state)).unwrap();
        let mut back = Vec::new();
        while let Some(piece) = self.device.drive(replay.next()).unwrap() {
            back.extend(piece.iter().map(|r| name_of(&r.payload)));
        }
        let back: BTreeSet<_> = back.into_iter().collect();
        let (kept, lost): (Vec<_>, _) = self.alive.drain(..).partition(|(n, _)| back.contains(n));
        self.alive = kept;
        self.state.begin(replay.ends(), replay.start_position());
        self.recording
            .mark(Mark::Lost(lost.into_iter().map(|(n, _)| n).collect()));
        self.recording.mark(Mark::State(self.state.clone()));
        self.device
            .drive(replay.start(Arc::new(Marker(self.recording.clone()))))
            .unwrap()
    }

    fn append(&mut self, log: &dyn Log, len: usize) -> bool {
        let record = self.records;
        self.recording.mark(Mark::Append { record });
        let appended = match Hear::append(log, &[&payload(record, len)]) {
            Ok(position) => Some(position),
            Err(Error::Full { .. }) => None,
            Err(e) => panic!("{e}"),
        };
        self.recording.mark(Mark::Appended {
            record,
            position: appended.clone(),
        });
        self.records += 1;
        self.refused += usize::from(appended.is_none());
        self.alive
            .extend(appended.clone().map(|position| (record, position)));
        appended.is_some()
    }

    fn trim(&mut self, log: &dyn Log, count: usize) {
        let durable = log.durable_end();
        let settled = self
            .alive
            .iter()
            .take_while(|(_, p)| p.end <= durable)
            .count();
        let Some((_, position)) = self.alive.get(settled.min(count).wrapping_sub(1)).cloned()
        else {
            return;
        };
        self.alive.retain(|(_, p)| p.end > position.end);
        self.state.trim(position.end, durable);
        self.recording.mark(Mark::State(self.state.clone()));
        log.trim(position.end);
    }

    /// A life: appends, completions out of order, trims. Ends with whatever is in flight.
    fn live(&mut self, steps: usize) {
        let log = self.open();
        for _ in 0..steps {
            let len = [4, 60, 1000, 3000, 5000, 9000][self.dice.below(6)];
            if !self.append(&*log, len) {
                self.complete_all();
                self.trim(&*log, 5);
                self.complete_all();
            }
            if self.dice.below(3) > 0 && self.device.waiting() > 0 {
                self.device.complete(self.dice.below(self.device.waiting()));
            }
            if self.dice.below(12) == 0 {
                self.trim(&*log, 3);
            }
        }
    }

    fn complete_all(&mut self) {
        while self.device.waiting() > 0 {
            self.device.complete(self.dice.below(self.device.waiting()));
        }
    }

    fn restart(&mut self) {
        let dice = &mut self.dice;
        self.device = self.device.power_cut(|_, _| dice.below(2) == 0);
        self.recording = self.recording.over(Arc::new(self.device.clone()));
        self.recording.mark(Mark::Restart(self.device.content()));
        self.state.grant(LogEpoch::new(self.state.epoch.get() + 1));
        self.recording.mark(Mark::State(self.state.clone()));
    }

    /// A life that fills the ring and trims nothing: it ends full, with whatever is in flight.
    fn fill(&mut self) {
        let log = self.open();
        let before = self.refused;
        while self.refused < before + 2 {
            self.append(&*log, 7000);
            if self.dice.below(2) > 0 && self.device.waiting() > 0 {
                self.device.complete(self.dice.below(self.device.waiting()));
            }
        }
    }

    fn run(mut self) -> Trace {
        self.live(14);
        self.restart();
        self.live(10);
        self.restart();
        self.fill();
        self.restart();
        // Full from the start: the first append is refused, and the trim that follows makes room.
        self.live(6);
        self.restart();
        assert!(self.refused > 3, "never full");
        let log = self.open();
        for _ in 0..3 {
            self.append(&*log, 2000);
        }
        self.complete_all();
        self.trim(&*log, usize::MAX);
        self.device.drive(log.close()).unwrap();
        self.recording.trace()
    }
}

/// What is known at one place of a trace.
#[derive(Clone, Default)]
struct Moment {
    content: Vec<u8>,
    in_flight: Vec<(u64, usize, Bytes)>,
    state: Option<LogState>,
    appended: Vec<(u32, Option<Range<Position>>)>,
    acknowledged: BTreeSet<u32>,
}

impl Moment {
    fn step(&mut self, operation: &Operation<Mark>) {
        match operation {
            Operation::Write { id, at, data } => {
                self.in_flight.push((*id, *at as usize, data.clone()))
            }
            Operation::Sync { .. } => {}
            Operation::Done { id, .. } => {
                if let Some(index) = self.in_flight.iter().position(|(of, ..)| of == id) {
                    let (_, at, data) = self.in_flight.remove(index);
                    self.content[at..at + data.len()].copy_from_slice(&data);
                }
            }
            Operation::Mark(Mark::Restart(content)) => {
                self.content.clone_from(content);
                self.in_flight.clear();
            }
            Operation::Mark(Mark::State(state)) => self.state = Some(state.clone()),
            Operation::Mark(Mark::Append { record }) => self.appended.push((*record, None)),
            Operation::Mark(Mark::Appended { record, position }) => {
                self.appended
                    .retain(|(n, _)| n != record || position.is_some());
                for (_, of) in self.appended.iter_mut().filter(|(n, _)| n == record) {
                    of.clone_from(position);
                }
            }
            Operation::Mark(Mark::Acknowledged { record }) => {
                self.acknowledged.insert(*record);
            }
            Operation::Mark(Mark::Lost(records)) => {
                assert!(
                    records.iter().all(|r| !self.acknowledged.contains(r)),
                    "W2: lost an acknowledged record in the workload itself"
                );
                self.appended.retain(|(n, _)| !records.contains(n));
                // What replayed and was recorded is final (W8), acknowledged or not.
                self.acknowledged
                    .extend(self.appended.iter().map(|(n, _)| *n));
            }
        }
    }

    /// Every way the writes in flight can end: which sectors of which write made it.
    fn cuts(&self) -> Vec<Vec<Vec<bool>>> {
        let sectors: Vec<_> = self
            .in_flight
            .iter()
            .map(|(_, _, data)| data.len() / SECTOR)
            .collect();
        let mut cuts = Vec::new();
        for subset in 0..1_u32 << sectors.len() {
            let whole = |i: usize| subset & (1 << i) != 0;
            cuts.push(
                sectors
                    .iter()
                    .enumerate()
                    .map(|(i, n)| vec![whole(i); *n])
                    .collect(),
            );
        }
        for (torn, count) in sectors.iter().enumerate() {
            for boundary in 1..*count {
                for (first, others) in [(true, false), (true, true), (false, true)] {
                    let sector = |i: usize, s: usize| {
                        if i == torn {
                            (s < boundary) == first
                        } else {
                            others
                        }
                    };
                    let cut = sectors.iter().enumerate();
                    cuts.push(
                        cut.map(|(i, n)| (0..*n).map(|s| sector(i, s)).collect())
                            .collect(),
                    );
                }
            }
        }
        cuts
    }

    /// What a device holds when `cut` is what made it.
    fn applied(&self, cut: &[Vec<bool>]) -> Vec<u8> {
        let mut content = self.content.clone();
        for ((_, at, data), kept) in self.in_flight.iter().zip(cut) {
            for (sector, bytes) in data.chunks(SECTOR).enumerate().filter(|(n, _)| kept[*n]) {
                let at = at + sector * SECTOR;
                content[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        content
    }

    /// Recovers from `cut`, writes a little, and cuts the power again at every step of that. How many second cuts there were.
    fn check_recovery(&self, cut: &[Vec<bool>]) -> usize {
        let content = self.applied(cut);
        let device = MemoryDevice::with_content(content.clone());
        let mut state = self.state.clone().unwrap();
        if state.started().next().is_some() {
            state.grant(LogEpoch::new(50));
        }
        let known = self.appended.iter().cloned();
        let mut recovery = Workload {
            dice: Dice(7),
            recording: RecordingDevice::new(Arc::new(device.clone())),
            device,
            records: 60_000,
            // Of an append that was cut short the position is not known, and not needed.
            alive: known
                .map(|(n, p)| (n, p.unwrap_or_default()))
                .filter(|(_, p)| p.end == Position::default() || p.end > self.trim())
                .collect(),
            refused: 0,
            state: state.clone(),
        };
        let log = recovery.open();
        recovery.append(&*log, 20);
        recovery.append(&*log, 5000);
        recovery.complete_all();
        drop(log);
        let mut second = Self {
            content,
            in_flight: Vec::new(),
            state: Some(state),
            ..self.clone()
        };
        let mut cuts = 0;
        for operation in recovery.recording.trace() {
            second.step(&operation);
            if matches!(
                operation,
                Operation::Mark(Mark::Lost(_)) | Operation::Sync { .. }
            ) {
                continue;
            }
            let all = second.cuts();
            // Every subset of the writes in flight, and the tears of one of each three sectors.
            let subsets = 1 << second.in_flight.len();
            for (index, cut) in all.iter().enumerate() {
                if index < subsets || index % 7 == 0 {
                    second.check(cut);
                    cuts += 1;
                }
            }
        }
        cuts
    }

    fn check(&self, cut: &[Vec<bool>]) {
        let device = MemoryDevice::with_content(self.content.clone());
        for (_, at, data) in &self.in_flight {
            device.write(*at as u64, data.clone(), Box::new(drop));
        }
        // The process dies first, so what made it is only in the page cache.
        let device = device.crash(|write, sector| cut[write][sector]);
        let mut state = self.state.clone().unwrap();
        if state.started().next().is_some() {
            state.grant(LogEpoch::new(100));
        }
        let mut life = Reopened::new(&device, state.clone());
        self.check_records(&life.back);

        // W8: what was replayed is durable now.
        let device = device.power_cut(|_, _| false);
        let again = Reopened::new(&device, state);
        assert_eq!(
            again.back, life.back,
            "W8: a power cut after the opening changed the replay"
        );

        life = again;
        let new = [50_000_u32, 50_001];
        let mut state = life.start_and_append(&device, &new);
        let device = device.power_cut(|_, _| false);
        state.grant(LogEpoch::new(101));
        let after = Reopened::new(&device, state);
        let expected: Vec<_> = life.back.iter().copied().chain(new).collect();
        assert_eq!(after.back, expected, "W8: after the next epoch");
    }

    fn check_records(&self, back: &[u32]) {
        check_back(back, &self.appended, &self.acknowledged, self.trim());
    }

    fn trim(&self) -> Position {
        let owed = self.state.iter().flat_map(|s| &s.owed).map(|e| e.trim);
        owed.min().unwrap_or_default()
    }
}

struct Reopened {
    back: Vec<u32>,
    replay: Option<Box<dyn wal::Replay>>,
    state: LogState,
}

impl Reopened {
    fn new(device: &MemoryDevice, state: LogState) -> Self {
        let backend = BlockLog::on(Arc::new(device.clone())).with_config(config());
        let mut replay = match device.drive(backend.open(&state)) {
            Ok(replay) => replay,
            Err(e) => panic!("{e} with {state:?}"),
        };
        let mut back = Vec::new();
        while let Some(piece) = device.drive(replay.next()).unwrap() {
            back.extend(piece.iter().map(|r| name_of(&r.payload)));
        }
        Self {
            back,
            replay: Some(replay),
            state,
        }
    }

    fn start_and_append(&mut self, device: &MemoryDevice, records: &[u32]) -> LogState {
        let replay = self.replay.take().unwrap();
        let mut state = self.state.clone();
        state.begin(replay.ends(), replay.start_position());
        let heard = Hear::new();
        let log = device.drive(replay.start(Arc::clone(&heard) as _)).unwrap();
        for record in records {
            let payload = payload(*record, 20);
            let appended = Hear::append(&*log, &[&payload]);
            if let Err(Error::Full { .. }) = appended {
                // What is owed fills the ring; a trim would make room, and this is not about that.
                let end = log.durable_end();
                state.trim(end, end);
                self.back.clear();
                log.trim(end);
                while device.waiting() > 0 {
                    device.complete(0);
                }
                Hear::append(&*log, &[&payload]).unwrap();
            }
        }
        while device.waiting() > 0 {
            device.complete(0);
        }
        assert_eq!(heard.count(), records.len());
        state
    }
}

#[test]
fn acknowledged_records_survive_a_power_cut_at_every_step() {
    let (mut cuts, mut most_in_flight) = (0, 0);
    for seed in 1..=2 {
        let trace = Workload::new(seed).run();
        let blank = vec![0; RING_START + CAPACITY];
        let mut moment = Moment {
            content: blank,
            ..Moment::default()
        };
        for (index, operation) in trace.iter().enumerate() {
            moment.step(operation);
            // A lost record and the state that says so are recorded as one.
            if moment.state.is_none() || matches!(operation, Operation::Mark(Mark::Lost(_))) {
                continue;
            }
            most_in_flight = most_in_flight.max(moment.in_flight.len());
            let tears = !matches!(operation, Operation::Mark(_) | Operation::Sync { .. });
            for cut in if tears {
                moment.cuts()
            } else {
                vec![vec![vec![false; 64]; 8]]
            } {
                let context =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| moment.check(&cut)));
                if let Err(panic) = context {
                    eprintln!(
                        "seed {seed}, cut after step {index}: {operation:?}, sectors {cut:?}"
                    );
                    std::panic::resume_unwind(panic);
                }
                cuts += 1;
            }
        }
    }
    assert!(
        cuts > 2000,
        "only {cuts} cuts: the workload does not do what it should"
    );
    assert!(most_in_flight >= 3, "never three writes in flight");
}

#[test]
fn a_recovery_that_is_cut_short_at_any_step_is_recovered_from() {
    let trace = Workload::new(4).run();
    let mut moment = Moment {
        content: vec![0; RING_START + CAPACITY],
        ..Moment::default()
    };
    let (mut points, mut cuts, mut dice) = (0, 0, Dice(9));
    for (index, operation) in trace.iter().enumerate() {
        moment.step(operation);
        let changes = matches!(operation, Operation::Write { .. } | Operation::Done { .. });
        if moment.state.is_none() || !changes {
            continue;
        }
        // One way of ending the writes in flight at each point; the test above tries them all.
        let ways = moment.cuts();
        let cut = &ways[dice.below(ways.len())];
        let second =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| moment.check_recovery(cut)));
        match second {
            Ok(second) => cuts += second,
            Err(panic) => {
                eprintln!("cut after step {index}: {operation:?}, sectors {cut:?}");
                std::panic::resume_unwind(panic);
            }
        }
        points += 1;
    }
    assert!(
        points > 100 && cuts > 10 * points,
        "{points} points, {cuts} second cuts"
    );
}

#[test]
fn each_acknowledgement_follows_the_completed_write_that_covers_it() {
    let trace = Workload::new(3).run();
    let mut moment = Moment {
        content: vec![0; RING_START + CAPACITY],
        ..Moment::default()
    };
    let mut positions = std::collections::BTreeMap::new();
    let mut acknowledged = 0;
    // A record's append may be acknowledged before the test could mark it.
    for operation in &trace {
        if let Operation::Mark(Mark::Appended {
            record,
            position: Some(position),
        }) = operation
        {
            positions.insert(*record, position.clone());
        }
    }
    for operation in &trace {
        moment.step(operation);
        let Operation::Mark(Mark::Acknowledged { record }) = operation else {
            continue;
        };
        let position = &positions[record];
        let (start, end) = (
            position.start.get() as usize + 4,
            position.end.get() as usize,
        );
        let durable: Vec<_> = (start..end)
            .map(|p| moment.content[RING_START + p % CAPACITY])
            .collect();
        assert_eq!(
            durable,
            payload(*record, end - start),
            "record {record} acknowledged too early"
        );
        acknowledged += 1;
    }
    assert!(acknowledged > 10);
}

#[test]
fn what_a_page_cache_held_is_durable_when_an_opening_returns() {
    // A process died with a write in the page cache, an opening served it, and a power cut took it away again (W8).
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut first = Reopened::new(&device, new_log());
    let replay = first.replay.take().unwrap();
    let mut state = first.state.clone();
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new() as _)).unwrap();
    Hear::append(&*log, &[&payload(1, 100)]).unwrap();
    let device = device.crash(|_, _| true);
    state.grant(LogEpoch::new(2));
    assert_eq!(Reopened::new(&device, state.clone()).back, [1]);
    let device = device.power_cut(|_, _| false);
    assert_eq!(Reopened::new(&device, state).back, [1]);
}

#[test]
fn a_frame_beyond_a_torn_one_never_returns_after_the_next_epoch() {
    // Frame n torn, n + 1 valid; n is rewritten by the next epoch with the same length; crash: the old n + 1 must not come back (W8).
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut first = Reopened::new(&device, new_log());
    let replay = first.replay.take().unwrap();
    let mut state = first.state.clone();
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new() as _)).unwrap();
    for record in 0..3 {
        Hear::append(&*log, &[&payload(record, 100)]).unwrap();
    }
    assert_eq!(device.waiting(), 3);
    let device = device.power_cut(|write, _| write != 1);
    state.grant(LogEpoch::new(2));
    let mut second = Reopened::new(&device, state);
    assert_eq!(second.back, [0]);
    let mut state = second.start_and_append(&device, &[10]);
    let device = device.power_cut(|_, _| false);
    state.grant(LogEpoch::new(3));
    assert_eq!(Reopened::new(&device, state).back, [0, 10]);
}
