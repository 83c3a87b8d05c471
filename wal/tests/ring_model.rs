//! The block log against a queue: random appends, completions, trims, restarts and power cuts on a small ring, for many laps.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{collections::VecDeque, sync::Arc};

use proptest::prelude::*;
use wal::{
    Backend, Error, Log, LogEpoch, LogState, Position,
    block::{BlockLog, Config},
    testing::{Hear, MemoryDevice, new_log},
};

const LEN: usize = 128 * 1024 + 24 * 4096;

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Complete(usize),
    CompleteAll,
    Trim(usize),
    /// Power cut; the bits say which sectors of the writes in flight made it.
    Cut(u64),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop_oneof![1_usize..200, 3000_usize..5000, 1_usize..16_000].prop_map(Step::Append),
        6 => any::<usize>().prop_map(Step::Complete),
        2 => Just(Step::CompleteAll),
        4 => (0_usize..12).prop_map(Step::Trim),
        1 => any::<u64>().prop_map(Step::Cut),
        1 => Just(Step::Close),
    ]
}

#[derive(Clone, Debug)]
struct Record {
    position: std::ops::Range<Position>,
    number: u32,
    len: usize,
    /// It must be there: acknowledged, or replayed and sealed.
    final_: bool,
}

struct Model {
    device: MemoryDevice,
    state: LogState,
    config: Config,
    records: VecDeque<Record>,
    next: u32,
    live: Option<(Arc<dyn Log>, Arc<Hear>)>,
    heard: usize,
}

fn payload(number: u32, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (number.wrapping_mul(2_654_435_761) >> (i % 4 * 8)) as u8 ^ i as u8)
        .collect()
}

impl Model {
    fn new(config: Config) -> Self {
        let mut model = Self {
            device: MemoryDevice::manual(LEN),
            state: new_log(),
            config,
            records: VecDeque::new(),
            next: 0,
            live: None,
            heard: 0,
        };
        model.open();
        model
    }

    fn open(&mut self) {
        let place = BlockLog::on(Arc::new(self.device.clone())).with_config(self.config.clone());
        let mut replay = self.device.drive(place.open(&self.state)).unwrap();
        let mut back = Vec::new();
        while let Some(piece) = self.device.drive(replay.next()).unwrap() {
            back.extend(piece);
        }
        let trim = self
            .state
            .owed
            .iter()
            .map(|e| e.trim)
            .min()
            .unwrap_or_default();
        back.retain(|r| r.position.end > trim);
        let owed = self.records.iter().filter(|r| r.final_).count();
        assert!(
            back.len() >= owed && back.len() <= self.records.len(),
            "W2: {} back",
            back.len()
        );
        self.records.truncate(back.len());
        for (record, back) in self.records.iter_mut().zip(&back) {
            assert_eq!(record.position, back.position, "W1");
            assert!(
                back.payload == payload(record.number, record.len),
                "W4: {}",
                record.number
            );
            record.final_ = true;
        }
        if self.state.epoch.get().is_multiple_of(2) {
            // A caller may start a log that it did not read: the space comes back later, and nothing else differs.
            self.device.drive(replay.rewind()).unwrap();
        }
        self.state.begin(replay.ends(), replay.start_position());
        let hear = Hear::new();
        let log = self
            .device
            .drive(replay.start(Arc::clone(&hear) as _))
            .unwrap();
        self.live = Some((log, hear));
        self.heard = 0;
    }

    fn listen(&mut self) {
        let (_, hear) = self.live.as_ref().unwrap();
        let heard = hear.heard();
        assert!(heard.failed.is_none());
        for durable in &heard.records[self.heard..] {
            let record = self
                .records
                .iter_mut()
                .find(|r| !r.final_)
                .expect("W3: acknowledged once");
            assert_eq!(record.position, durable.position, "W3: in order");
            assert!(durable.payload == payload(record.number, record.len));
            record.final_ = true;
        }
        self.heard = heard.records.len();
    }

    fn step(&mut self, step: &Step) {
        let log = Arc::clone(&self.live.as_ref().unwrap().0);
        match step {
            Step::Append(len) => match Hear::append(&*log, &[&payload(self.next, *len)]) {
                Ok(position) => {
                    let (number, len) = (self.next, *len);
                    self.records.push_back(Record {
                        position,
                        number,
                        len,
                        final_: false,
                    });
                    self.next += 1;
                }
                Err(Error::Full { needed, free }) => assert!(needed > free),
                Err(e) => panic!("{e}"),
            },
            Step::Complete(index) => {
                let waiting = self.device.waiting();
                if waiting > 0 {
                    self.device.complete(index % waiting);
                }
            }
            Step::CompleteAll => {
                while self.device.waiting() > 0 {
                    self.device.complete(0);
                }
            }
            Step::Trim(count) => {
                let final_ = self.records.iter().take_while(|r| r.final_).count();
                if let Some(last) = self.records.drain(..final_.min(*count)).next_back() {
                    self.state.trim(last.position.end, log.durable_end());
                    log.trim(last.position.end);
                }
            }
            Step::Cut(bits) => {
                self.live = None;
                self.device = self.device.power_cut(|write, sector| {
                    bits.rotate_left((write * 7 + sector) as u32) & 1 == 1
                });
                self.state.grant(LogEpoch::new(self.state.epoch.get() + 1));
                self.open();
            }
            Step::Close => {
                self.device.drive(log.close()).unwrap();
                self.listen();
                assert!(
                    self.records.iter().all(|r| r.final_),
                    "a close waits for all"
                );
                self.live = None;
                self.state.grant(LogEpoch::new(self.state.epoch.get() + 1));
                self.open();
            }
        }
        self.listen();
        let usage = self.live.as_ref().unwrap().0.usage();
        assert!(usage.used <= usage.capacity);
    }
}

fn config() -> impl Strategy<Value = Config> {
    (
        1_usize..5,
        1_usize..4,
        prop_oneof![Just(0), Just(4096)],
        2_usize..9,
    )
        .prop_map(|(in_flight_max, commit, overlap_bytes, slab)| Config {
            in_flight_max,
            commit_bytes_max: commit * 4096,
            overlap_bytes,
            slab_bytes: slab * 4096,
            ..Config::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_behaves_like_a_queue_through_laps_and_power_cuts(
        config in config(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut model = Model::new(config);
        for step in &steps {
            model.step(step);
        }
        model.step(&Step::Close);
    }
}
