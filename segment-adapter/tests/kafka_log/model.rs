//! Random calls and crashes against a model: a vector of batches in a vector of segments.

use proptest::prelude::*;
use segment_adapter::{TimestampOffset, TimestampSpec};

use super::*;

#[derive(Clone, Debug)]
enum Call {
    Append {
        codec: usize,
        timestamps: Vec<i64>,
        wait: bool,
        new_leader: bool,
    },
    Roll,
    DeleteRecords {
        percent: i64,
    },
    Retain {
        bytes: Option<i64>,
        ms: Option<i64>,
    },
    Truncate {
        percent: i64,
    },
    Find {
        timestamp: i64,
    },
    Read {
        percent: i64,
        bytes: usize,
    },
    Reopen {
        close: bool,
    },
    Crash,
}

fn call() -> impl Strategy<Value = Call> {
    let timestamps = prop::collection::vec(-1..1000i64, 1..6);
    prop_oneof![
        8 => (0..5usize, timestamps, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(codec, timestamps, wait, new_leader)| Call::Append {
                codec,
                timestamps,
                wait,
                new_leader,
            }
        ),
        2 => Just(Call::Roll),
        1 => (0..=100i64).prop_map(|percent| Call::DeleteRecords { percent }),
        2 => (prop::option::of(0..3000i64), prop::option::of(0..1000i64))
            .prop_map(|(bytes, ms)| Call::Retain { bytes, ms }),
        1 => (0..=100i64).prop_map(|percent| Call::Truncate { percent }),
        4 => (0..1000i64).prop_map(|timestamp| Call::Find { timestamp }),
        4 => (0..=100i64, 0..2000usize).prop_map(|(percent, bytes)| Call::Read { percent, bytes }),
        1 => any::<bool>().prop_map(|close| Call::Reopen { close }),
        1 => Just(Call::Crash),
    ]
}

#[derive(Clone, Debug)]
struct StoredBatch {
    base: i64,
    timestamps: Vec<i64>,
    bytes: u64,
}

impl StoredBatch {
    fn end(&self) -> i64 {
        self.base + self.timestamps.len() as i64
    }
}

/// What the log should hold. Segments ascend; the last is the active one.
struct Model {
    start: i64,
    end: i64,
    acknowledged: i64,
    segments: Vec<Vec<StoredBatch>>,
    epoch: i32,
    /// Every epoch that has a batch and where it began, gone or not.
    epochs: Vec<(i32, i64)>,
    was_cut: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            start: 0,
            end: 0,
            acknowledged: 0,
            segments: vec![Vec::new()],
            epoch: 0,
            epochs: Vec::new(),
            was_cut: false,
        }
    }

    fn active(&mut self) -> &mut Vec<StoredBatch> {
        self.segments.last_mut().unwrap()
    }

    fn roll(&mut self) {
        if !self.active().is_empty() {
            self.segments.push(Vec::new());
            self.drop_below_start();
        }
    }

    /// Sealed segments that end at or below the start are gone at once.
    fn drop_below_start(&mut self) {
        let active = self.segments.pop().unwrap();
        let start = self.start;
        self.segments
            .retain(|segment| segment.last().is_some_and(|batch| batch.end() > start));
        self.segments.push(active);
    }

    fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.segments.iter().flatten()
    }

    /// Cuts the log within what can be read; a batch that holds the new end goes whole.
    fn truncate(&mut self, end: i64) {
        if end >= self.end {
            return;
        }
        let first = self.segments[0]
            .first()
            .map_or(self.end, |batch| batch.base);
        if end <= first {
            (self.start, self.epochs) = (end, Vec::new());
        }
        for segment in &mut self.segments {
            segment.retain(|batch| batch.end() <= end);
        }
        self.segments.retain(|segment| !segment.is_empty());
        self.segments.push(Vec::new());
        self.was_cut = true;
        // An epoch without a batch goes.
        let cut = self.batches().last().map_or(first, StoredBatch::end);
        self.epochs.retain(|(_, start)| *start < cut);
        (self.end, self.acknowledged) = (end, end);
        self.drop_below_start();
    }

    /// Kafka's rules, one segment at a time.
    fn retain(&mut self, bytes: Option<i64>, ms: Option<i64>, now: i64) {
        while self.goes(bytes, ms, now) {
            if self.segments.len() == 1 {
                self.segments.push(Vec::new());
            }
            let gone = self.segments.remove(0);
            self.start = self.start.max(gone.last().unwrap().end());
        }
    }

    fn goes(&self, bytes: Option<i64>, ms: Option<i64>, now: i64) -> bool {
        let size = |segment: &[StoredBatch]| segment.iter().map(|b| b.bytes as i64).sum::<i64>();
        let oldest = &self.segments[0];
        let Some(last) = oldest.last() else {
            return false;
        };
        let total: i64 = self.segments.iter().map(|segment| size(segment)).sum();
        let newest = oldest.iter().flat_map(|b| &b.timestamps).max().unwrap();
        // A segment without times goes by its appends, which the clock of this test puts at `CLOCK`.
        let newest = if *newest < 0 { CLOCK } else { *newest };
        last.end() <= self.start
            || bytes.is_some_and(|limit| total - size(oldest) >= limit)
            || ms.is_some_and(|limit| now - newest > limit)
    }

    /// Offsets and times.
    fn records(&self) -> impl Iterator<Item = (i64, i64)> {
        self.batches()
            .flat_map(|batch| (batch.base..).zip(batch.timestamps.clone()))
    }

    fn find(&self, timestamp: i64) -> (i64, i64) {
        self.records()
            .filter(|(offset, time)| *offset >= self.start && *time >= timestamp)
            .min()
            .unwrap_or((-1, -1))
    }

    /// The first record with the largest time of all that can be read.
    fn find_newest(&self) -> (i64, i64) {
        let newest = self
            .records()
            .filter(|(offset, time)| *offset >= self.start && *time >= 0)
            .max_by_key(|(offset, time)| (*time, std::cmp::Reverse(*offset)));
        newest.unwrap_or((-1, -1))
    }

    /// What was not acknowledged may be gone, and with it the roll before it.
    fn crashed(&mut self, log: &KafkaLog) {
        let end = log.offsets().leo;
        assert!((self.acknowledged..=self.end).contains(&end), "{end}");
        for segment in &mut self.segments {
            segment.retain(|batch| batch.end() <= end);
        }
        while self.segments.len() > log.segment_count().max(1) && self.active().is_empty() {
            self.segments.pop();
        }
        self.epochs.retain(|(_, start)| *start < end);
        self.end = end;
        self.acknowledged = end;
    }

    /// The epochs that have an offset from the log start on, the first one cut there.
    fn epochs_from_start(&self) -> Vec<(i32, i64)> {
        let next = self.epochs.iter().skip(1).map(|(_, start)| *start);
        let ends = next.chain([i64::MAX]);
        let known = self.epochs.iter().zip(ends);
        known
            .filter(|(_, end)| *end > self.start)
            .map(|((epoch, start), _)| (*epoch, *start.max(&self.start)))
            .collect()
    }

    /// Once the log was cut, without epochs that have no batch in what can be read: they may be known or not.
    fn with_batches(&self, mut epochs: Vec<(i32, i64)>) -> Vec<(i32, i64)> {
        let first = self.batches().find(|batch| batch.end() > self.start);
        let first = match (self.was_cut, first) {
            (false, _) => return epochs,
            (true, None) => return Vec::new(),
            (true, Some(first)) => first.base,
        };
        let before = epochs
            .iter()
            .skip(1)
            .take_while(|(_, start)| *start <= first);
        epochs.drain(..before.count());
        epochs
    }

    fn check(&self, log: &KafkaLog) {
        let offsets = log.offsets();
        assert_eq!((offsets.log_start, offsets.leo), (self.start, self.end));
        assert!((self.acknowledged..=self.end).contains(&offsets.hw));
        let batches: u64 = self.batches().map(|batch| batch.bytes).sum();
        assert_eq!(log.size().unwrap(), batches);
        assert_eq!(log.segment_count().max(1), self.segments.len());
        let epochs = log.epoch_starts();
        let epochs: Vec<_> = epochs
            .iter()
            .map(|entry| (entry.epoch, entry.start))
            .collect();
        let epochs = self.with_batches(epochs);
        assert_eq!(epochs, self.with_batches(self.epochs_from_start()));
    }

    async fn check_read(&self, log: &KafkaLog, from: i64, bytes: usize) {
        let data = log.read(from, bytes, true, HW).await.unwrap();
        let read = batches(&data);
        let expected = self.batches().filter(|batch| batch.end() > from);
        for (read, expected) in read.iter().zip(expected) {
            assert_eq!(read.header().base_offset, expected.base);
            assert_eq!(read.header().last_offset() + 1, expected.end());
        }
        let next = self.batches().find(|batch| batch.end() > from);
        let hw = data.offsets.hw;
        assert_eq!(read.is_empty(), next.is_none_or(|next| next.end() > hw));
        assert!(
            read.last()
                .is_none_or(|b| b.header().last_offset() < data.offsets.hw)
        );
    }
}

const CLOCK: i64 = 2000;

async fn flush(log: &KafkaLog, model: &mut Model) {
    log.wait_for_hw(model.end - 1).await.unwrap();
    model.acknowledged = model.end;
}

async fn run(calls: Vec<Call>) {
    let mut world = World::new().await;
    world.clock.set(CLOCK);
    let config = LogConfig {
        retention_ms: -1,
        index_interval_bytes: 4096,
        ..LogConfig::default()
    };
    let mut log = open_with(&world, config.clone()).await;
    let mut model = Model::new();
    for call in calls {
        match call {
            Call::Append {
                codec,
                timestamps,
                wait,
                new_leader,
            } => {
                model.epoch += i32::from(new_leader);
                if model.epochs.last().is_none_or(|last| last.0 != model.epoch) {
                    model.epochs.push((model.epoch, model.end));
                }
                let sent = batch(Codec::ALL[codec], &timestamps, &[7; 100]);
                let handle = log.append_as_leader(sent, model.epoch).unwrap();
                assert_eq!(handle.info.first_offset, model.end);
                let (base, bytes) = (model.end, handle.info.valid_bytes);
                let stored = StoredBatch {
                    base,
                    timestamps,
                    bytes,
                };
                model.end = stored.end();
                model.active().push(stored);
                if wait {
                    handle.durable().await.unwrap();
                    model.acknowledged = model.end;
                }
            }
            Call::Roll => {
                log.roll().unwrap();
                model.roll();
            }
            Call::DeleteRecords { percent } => {
                flush(&log, &mut model).await;
                let to = model.start + (model.end - model.start) * percent / 100;
                assert_eq!(log.delete_records(to).await.unwrap(), to);
                model.start = to;
                model.drop_below_start();
            }
            Call::Retain { bytes, ms } => {
                flush(&log, &mut model).await;
                let limits = LogConfig {
                    retention_bytes: bytes.unwrap_or(-1),
                    retention_ms: ms.unwrap_or(-1),
                    ..config.clone()
                };
                log.update_config(limits).unwrap();
                log.delete_old_segments(CLOCK).await.unwrap();
                model.retain(bytes, ms, CLOCK);
            }
            Call::Truncate { percent } => {
                flush(&log, &mut model).await;
                let to = model.start + (model.end - model.start) * percent / 100;
                assert_eq!(log.truncate_to(to).await.unwrap(), to < model.end);
                model.truncate(to);
            }
            Call::Find { timestamp } => {
                flush(&log, &mut model).await;
                let spec = TimestampSpec::At(timestamp);
                let TimestampOffset {
                    offset,
                    timestamp: found,
                    ..
                } = log.fetch_offset_for_timestamp(spec, HW).await.unwrap();
                assert_eq!((offset, found), model.find(timestamp));
                let newest = log.fetch_offset_for_timestamp(TimestampSpec::MaxTimestamp, HW);
                let newest = newest.await.unwrap();
                assert_eq!((newest.offset, newest.timestamp), model.find_newest());
            }
            Call::Read { percent, bytes } => {
                let from = model.start + (model.end - model.start) * percent / 100;
                model.check_read(&log, from, bytes).await;
            }
            Call::Reopen { close } => {
                flush(&log, &mut model).await;
                if close {
                    log.close().await.unwrap();
                }
                drop(log);
                log = world.open_again(config.clone()).await;
            }
            Call::Crash => {
                world.crash().await;
                log = open_with(&world, config.clone()).await;
                model.crashed(&log);
            }
        }
        model.check(&log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_log_answers_as_a_vector_of_batches_does(calls in prop::collection::vec(call(), 1..50)) {
        block_on(run(calls));
    }
}
