//! Random batches of several producers, rolls, deletions and crashes against a model that looks at every batch there was.

use proptest::prelude::*;

use super::*;

/// What a producer sends next, seen from what it sent before.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Next,
    /// One of its last batches again, so many back.
    Again(usize),
    /// The same sequence as one of its last batches, with another length.
    Overlap(usize),
    Gap(i32),
    NewEpoch,
    /// A new epoch that does not begin at 0.
    WrongEpoch,
    OldEpoch,
}

#[derive(Clone, Debug)]
enum Call {
    Send {
        id: i64,
        kind: Kind,
        count: i32,
        payload: usize,
        wait: bool,
    },
    Plain,
    Roll,
    DeleteRecords,
    Maintain {
        bytes: i64,
    },
    Reopen {
        close: bool,
    },
    Crash,
}

fn call() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![
        8 => Just(Kind::Next),
        4 => (0..7usize).prop_map(Kind::Again),
        1 => (0..7usize).prop_map(Kind::Overlap),
        1 => (1..4i32).prop_map(Kind::Gap),
        1 => Just(Kind::NewEpoch),
        1 => Just(Kind::WrongEpoch),
        1 => Just(Kind::OldEpoch),
    ];
    prop_oneof![
        30 => (0..4i64, kind, 1..4i32, 0..3000usize, any::<bool>()).prop_map(
            |(id, kind, count, payload, wait)| Call::Send { id, kind, count, payload, wait }
        ),
        2 => Just(Call::Plain),
        2 => Just(Call::Roll),
        1 => Just(Call::DeleteRecords),
        2 => (0..20_000i64).prop_map(|bytes| Call::Maintain { bytes }),
        1 => any::<bool>().prop_map(|close| Call::Reopen { close }),
        2 => Just(Call::Crash),
    ]
}

/// A batch of a producer as it was appended.
#[derive(Clone, Copy, Debug)]
struct Appended {
    id: i64,
    epoch: i16,
    sequence: i32,
    count: i32,
    base: i64,
}

impl Appended {
    fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

#[derive(Debug, PartialEq)]
enum Expected {
    New,
    Duplicate(i64, i64),
    Refused(i16),
}

#[derive(Default)]
struct Model {
    /// Every batch there ever was and still should be known, deleted ones included.
    batches: Vec<Appended>,
    end: i64,
    acknowledged: i64,
}

fn after(sequence: i32, count: i32) -> i32 {
    (0..count).fold(sequence, |at, _| at.checked_add(1).unwrap_or(0))
}

impl Model {
    /// Of a producer's newest epoch, newest first.
    fn of(&self, id: i64) -> Vec<Appended> {
        let all: Vec<_> = self.batches.iter().filter(|batch| batch.id == id).collect();
        let epoch = all.last().map(|last| last.epoch);
        let newest = all.into_iter().rev();
        newest
            .take_while(|batch| Some(batch.epoch) == epoch)
            .copied()
            .collect()
    }

    /// Epoch, sequence and count of what `kind` stands for now.
    fn next(&self, id: i64, kind: Kind, count: i32) -> (i16, i32, i32) {
        let known = self.of(id);
        let Some(last) = known.first() else {
            // Unknown: any sequence will do. Near the end, so that it wraps soon.
            return (5, i32::MAX - 3, count);
        };
        let back = |steps: usize| known[steps.min(known.len() - 1)];
        let next = after(last.sequence, last.count);
        match kind {
            Kind::Next => (last.epoch, next, count),
            Kind::Again(steps) => {
                let again = back(steps);
                (again.epoch, again.sequence, again.count)
            }
            Kind::Overlap(steps) => (last.epoch, back(steps).sequence, back(steps).count + 1),
            Kind::Gap(gap) => (last.epoch, after(next, gap), count),
            Kind::NewEpoch => (last.epoch + 1, 0, count),
            Kind::WrongEpoch => (last.epoch + 1, 1, count),
            Kind::OldEpoch => (last.epoch - 1, 0, count),
        }
    }

    fn expect(&self, id: i64, epoch: i16, sequence: i32, count: i32) -> Expected {
        let known = self.of(id);
        let Some(last) = known.first() else {
            return Expected::New;
        };
        let same = known
            .iter()
            .take(5)
            .find(|batch| (batch.epoch, batch.sequence, batch.count) == (epoch, sequence, count));
        if let Some(same) = same {
            return Expected::Duplicate(same.base, same.end() - 1);
        }
        let expected = match epoch.cmp(&last.epoch) {
            std::cmp::Ordering::Less => return Expected::Refused(47),
            std::cmp::Ordering::Equal => after(last.sequence, last.count),
            std::cmp::Ordering::Greater => 0,
        };
        if sequence == expected {
            Expected::New
        } else {
            Expected::Refused(45)
        }
    }

    async fn send(
        &mut self,
        log: &KafkaLog,
        batch: (i64, i16, i32, i32),
        payload: usize,
        wait: bool,
    ) {
        let (id, epoch, sequence, count) = batch;
        let payload = vec![7; payload];
        let records = (0..count)
            .fold(BatchBuilder::new(Codec::None), |batch, _| {
                batch.record(1000, Some(b"key"), Some(&payload))
            })
            .producer(id, epoch, sequence)
            .build()
            .unwrap();
        let expected = self.expect(id, epoch, sequence, count);
        let handle = match log.append_as_leader(records, EPOCH) {
            Ok(handle) => handle,
            Err(error) => {
                assert_eq!(Expected::Refused(error.code()), expected, "{error}");
                return;
            }
        };
        let info = handle.info.clone();
        if info.duplicate {
            let found = Expected::Duplicate(info.first_offset, info.last_offset);
            assert_eq!(found, expected);
        } else {
            assert_eq!((info.first_offset, Expected::New), (self.end, expected));
            let base = self.end;
            let appended = Appended {
                id,
                epoch,
                sequence,
                count,
                base,
            };
            self.end = appended.end();
            self.batches.push(appended);
        }
        if wait {
            handle.durable().await.unwrap();
            assert!(log.offsets().hw > info.last_offset);
            self.acknowledged = self.acknowledged.max(info.last_offset + 1);
        }
    }

    async fn flush(&mut self, log: &KafkaLog) {
        log.wait_for_hw(self.end - 1).await.unwrap();
        self.acknowledged = self.end;
    }

    fn crashed(&mut self, log: &KafkaLog) {
        let end = log.offsets().leo;
        assert!((self.acknowledged..=self.end).contains(&end), "{end}");
        self.batches.retain(|batch| batch.end() <= end);
        self.end = end;
        self.acknowledged = end;
    }
}

async fn run(calls: Vec<Call>) {
    let mut world = World::new().await;
    let config = LogConfig {
        segment_bytes: MIB,
        index_interval_bytes: 4096,
        retention_ms: -1,
        producer_expiration_ms: i64::MAX,
        ..LogConfig::default()
    };
    let mut log = open_with(&world, config.clone()).await;
    let mut model = Model::default();
    for call in calls {
        match call {
            Call::Send {
                id,
                kind,
                count,
                payload,
                wait,
            } => {
                let (epoch, sequence, count) = model.next(id, kind, count);
                let batch = (id, epoch, sequence, count);
                model.send(&log, batch, payload, wait).await;
            }
            Call::Plain => {
                put_records(&log, 1).await;
                model.end += 1;
                model.acknowledged = model.end;
            }
            Call::Roll => log.roll().unwrap(),
            Call::DeleteRecords => {
                model.flush(&log).await;
                log.delete_records(-1).await.unwrap();
            }
            Call::Maintain { bytes } => {
                model.flush(&log).await;
                let limits = LogConfig {
                    retention_bytes: bytes,
                    ..config.clone()
                };
                log.update_config(limits).unwrap();
                log.delete_old_segments(1000).await.unwrap();
            }
            Call::Reopen { close } => {
                model.flush(&log).await;
                if close {
                    log.close().await.unwrap();
                }
                drop(log);
                log = loop {
                    let streams = world.streams().await;
                    match KafkaLog::open(streams, config.clone(), world.clock.clone()).await {
                        Ok(log) => break log,
                        Err(LogError::Storage(_)) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                };
            }
            Call::Crash => {
                world.crash().await;
                log = open_with(&world, config.clone()).await;
                model.crashed(&log);
            }
        }
        assert_eq!(log.offsets().leo, model.end);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_log_knows_its_producers_as_one_does_who_saw_every_batch(
        calls in prop::collection::vec(call(), 1..150)
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(calls));
    }
}
