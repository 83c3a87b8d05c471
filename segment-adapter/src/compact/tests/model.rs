//! Random histories of keys, deletes, transactions and producers, compacted now and then by maps of any size, compared
//! after every pass with what was written.

use proptest::prelude::*;

use super::readers::Written;
use super::*;
use crate::header::{BATCH_HEADER_LEN, BatchHeader};

const PRODUCERS: i64 = 3;

#[derive(Clone, Debug)]
enum Step {
    Data {
        /// 0 is nobody.
        producer: i64,
        txn: bool,
        codec: Codec,
        log_append_time: bool,
        records: Vec<Sent>,
    },
    End {
        producer: i64,
        commit: bool,
        bump: bool,
    },
    Roll,
    Gap(i64),
    Clean {
        slots: usize,
        wait_ms: i64,
        groups_max: usize,
    },
    Delete,
}

#[derive(Clone, Debug)]
struct Sent {
    key: Option<u8>,
    value: Option<u8>,
    header: bool,
    timestamp: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let codec = prop_oneof![
        6 => Just(Codec::None),
        1 => prop::sample::select(Codec::ALL.to_vec()),
    ];
    let sent = (
        prop::option::weighted(0.95, 0..6_u8),
        prop::option::weighted(0.7, 0..40_u8),
        prop::bool::weighted(0.1),
        prop_oneof![9 => -1..5000_i64, 1 => any::<i64>()],
    );
    let sent = sent.prop_map(|(key, value, header, timestamp)| Sent {
        key,
        value,
        header,
        timestamp,
    });
    let records = prop::collection::vec(sent, 1..5);
    let data = (0..=PRODUCERS, any::<bool>(), codec, 0..8, records);
    let wait = prop_oneof![Just(0), Just(1), 0..2 * RETENTION_MS, Just(RETENTION_MS)];
    let groups_max = prop_oneof![5 => Just(usize::MAX), 1 => 0..4_usize];
    prop_oneof![
        12 => data.prop_map(|(producer, txn, codec, late, records)| Step::Data {
            producer, txn, codec, log_append_time: late == 0, records,
        }),
        4 => (1..=PRODUCERS, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(producer, commit, bump)| Step::End { producer, commit, bump }),
        4 => Just(Step::Roll),
        1 => (1..40_i64).prop_map(Step::Gap),
        6 => (prop_oneof![1..12_usize, Just(100)], wait, groups_max)
            .prop_map(|(slots, wait_ms, groups_max)| Step::Clean { slots, wait_ms, groups_max }),
        1 => Just(Step::Delete),
    ]
}

/// A log with producers that write to it and a clock.
struct World {
    log: Log,
    written: Written,
    now_ms: i64,
    /// Epoch and next sequence of each.
    producers: [(i16, i32); PRODUCERS as usize + 1],
    open: BTreeSet<i64>,
}

impl World {
    fn new(segment_bytes: u64) -> Self {
        let mut log = Log::new();
        log.segment_bytes = segment_bytes;
        Self {
            log,
            written: Written::default(),
            now_ms: 0,
            producers: [(0, 0); PRODUCERS as usize + 1],
            open: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Data {
                producer,
                txn,
                codec,
                log_append_time,
                records,
            } => self.send(*producer, *txn, *codec, *log_append_time, records),
            Step::End {
                producer,
                commit,
                bump,
            } => self.end(*producer, *commit, *bump),
            Step::Roll => self.log.roll(),
            Step::Gap(by) => self.log.roll_at(self.log.next + by),
            Step::Clean {
                slots,
                wait_ms,
                groups_max,
            } => {
                self.now_ms += wait_ms;
                self.clean(*slots, *groups_max);
            }
            Step::Delete => {
                let stable = self.log.stable();
                if self.log.segments.len() > 2 && self.log.segments[1].base <= stable {
                    self.log.delete_below(1);
                }
            }
        }
    }

    fn send(&mut self, id: i64, txn: bool, codec: Codec, log_append_time: bool, sent: &[Sent]) {
        let mut builder = BatchBuilder::new(codec);
        if id > 0 {
            let (epoch, sequence) = &mut self.producers[id as usize];
            builder = builder.producer(id, *epoch, *sequence);
            *sequence += sent.len() as i32;
            if txn || self.open.contains(&id) {
                self.open.insert(id);
                builder = builder.transactional();
            }
        }
        for sent in sent {
            let key = sent.key.map(|key| [b'k', key]);
            let value = sent.value.map(|len| vec![len; usize::from(len)]);
            let (key, value) = (key.as_ref().map(<[u8; 2]>::as_slice), value.as_deref());
            let headers: &[(&str, Option<&[u8]>)] = match sent.header {
                true => &[("name", Some(b"x")), ("none", None)],
                false => &[],
            };
            builder = builder.record_with_headers(sent.timestamp, key, value, headers);
        }
        let mut bytes = builder.build().unwrap();
        if log_append_time {
            let batch = only(bytes);
            let header = BatchHeader {
                attributes: batch.header().attributes.with_log_append_time(),
                max_timestamp: self.now_ms,
                ..*batch.header()
            };
            let stamped = Batch::new(header, &batch.bytes()[BATCH_HEADER_LEN..]).unwrap();
            bytes = stamped.bytes().clone();
        }
        self.log.append(&bytes);
        self.written.follow(&self.log);
    }

    fn end(&mut self, id: i64, commit: bool, bump: bool) {
        let (epoch, sequence) = &mut self.producers[id as usize];
        if bump {
            (*epoch, *sequence) = (*epoch + 1, 0);
        }
        self.log.marker(id, *epoch, commit);
        self.open.remove(&id);
        self.written.follow(&self.log);
    }

    fn clean(&mut self, slots: usize, groups_max: usize) {
        let before = self.log.checkpoint;
        let dirty = self.log.dirtiness();
        self.log
            .clean_groups(slots, self.now_ms, groups_max)
            .unwrap();
        self.written.check(&mut self.log, self.now_ms);
        if groups_max == usize::MAX {
            let after = self.log.checkpoint.unwrap();
            let is_progress = after > dirty.first_dirty || dirty.first_dirty == dirty.end;
            assert!(is_progress, "{before:?} {dirty:?} {after}");
        }
    }

    /// All transactions are over, all is rolled, and the clock goes on: what is left is what is needed.
    fn finish(&mut self) {
        for id in 1..=PRODUCERS {
            if self.open.contains(&id) {
                self.end(id, id % 2 == 0, false);
            }
        }
        self.log.roll();
        // Data, then what the markers of emptied transactions wait for, then the rest.
        for _ in 0..5 {
            self.clean(100, usize::MAX);
            self.now_ms += RETENTION_MS;
        }
        self.written.check_is_clean(&mut self.log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn readers_see_of_a_compacted_log_what_was_written(
        steps in prop::collection::vec(step(), 1..60),
        segment_bytes in prop_oneof![Just(1_u64), 50..1000_u64, Just(1 << 20)],
    ) {
        let mut world = World::new(segment_bytes);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}
