//! The runtime, with a machine that counts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use s3stream::{
    Engine, NodeId,
    wal::{self, memory::MemoryLog},
};
use segment_adapter::TransactionVersion;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);
const TOPIC: &str = "__consumer_offsets";
/// A number that is written with a value larger than the topic takes.
const TOO_LARGE: u64 = 7777;

/// Numbers from here on are written with a value of so many bytes.
const SIZES: u64 = 200_000;
/// A number that is written with a value of a part of a small log.
const LARGE: u64 = 8888;

fn value_len(number: u64) -> usize {
    match number {
        TOO_LARGE => 2 << 20,
        LARGE => 100 << 10,
        SIZES.. => number as usize,
        _ => 1,
    }
}

/// Adds numbers up. A time-out adds 1000.
#[derive(Default)]
struct Counter {
    sum: u64,
    /// Another one for each order of the same numbers.
    order: u64,
    /// Of open transactions.
    undecided: Vec<(i64, u64)>,
    parked: Vec<Slot<u64>>,
    due: Option<u64>,
    /// What the log did not take.
    refused: Vec<u64>,
}

impl Machine for Counter {
    type Record = u64;

    fn encode(record: &u64) -> Result<Stored, StoredError> {
        Ok(Stored {
            key: Bytes::copy_from_slice(&record.to_be_bytes()),
            value: Some(Bytes::from(vec![b'x'; value_len(*record)])),
        })
    }

    fn decode(stored: &Stored) -> Result<Option<u64>, StoredError> {
        let key = stored.key.as_ref().try_into().map(u64::from_be_bytes);
        key.map(Some).map_err(|_| StoredError {
            what: "number",
            reason: "not of 8 bytes".into(),
        })
    }

    fn replay(&mut self, record: u64, producer_id: Option<i64>) {
        match producer_id {
            None => {
                self.sum += record;
                self.order = self.order.wrapping_mul(31).wrapping_add(record);
            }
            Some(producer_id) => self.undecided.push((producer_id, record)),
        }
    }

    fn replay_end(&mut self, producer_id: i64, commit: bool) {
        let sum = &mut self.sum;
        self.undecided.retain(|(producer, number)| {
            let ended = *producer == producer_id;
            *sum += if ended && commit { *number } else { 0 };
            !ended
        });
    }

    fn refused(&mut self, records: Vec<u64>, _: Now, out: &mut Out<u64>) {
        self.refused.extend(records);
        // What is written for it may be refused as well.
        out.record(if self.refused.len() > 1 { TOO_LARGE } else { 5 });
        for slot in self.parked.drain(..) {
            out.reply(slot, self.sum);
        }
    }

    fn loaded(&mut self, _: Now, _: &mut Out<u64>) {}

    fn deadline(&self) -> Option<u64> {
        self.due
    }

    fn expire(&mut self, now: Now, out: &mut Out<u64>) {
        if self.due.is_some_and(|due| due <= now.mono_ms) {
            self.due = None;
            out.record(1000);
            for slot in self.parked.drain(..) {
                out.reply(slot, self.sum);
            }
        }
    }
}

struct World {
    log: MemoryLog,
    engine: Engine,
    topics: Arc<Topics>,
    counter: Coordinator<Counter>,
}

impl World {
    async fn new() -> Self {
        Self::on(MemoryLog::new()).await
    }

    async fn on(log: MemoryLog) -> Self {
        let engine = Engine::builder()
            .node(NodeId::new(1))
            .bucket("memory:")
            .wal_backend(Arc::new(log.clone()))
            .open()
            .await
            .unwrap();
        let topics = Arc::new(Topics::load(engine.clone()).await.unwrap());
        let counter = Self::counter(&topics);
        counter.ensure().await.unwrap();
        Self {
            log,
            engine,
            topics,
            counter,
        }
    }

    fn counter(topics: &Arc<Topics>) -> Coordinator<Counter> {
        Coordinator::new(topics.clone(), TOPIC, 3, |_, _| Counter::default())
    }

    /// Adds a number; the sum before.
    fn add(&self, number: u64) -> Pending<u64> {
        self.counter.ask("k", move |counter, _, out| {
            out.record(number);
            counter.sum
        })
    }

    fn sum(&self) -> Pending<u64> {
        self.counter.ask("k", |counter, _, _| counter.sum)
    }

    /// The sum, once the shard is loaded.
    async fn sum_again(&self) -> u64 {
        timeout(SOON, async {
            loop {
                match self.sum().answer().await {
                    Ok(sum) => return sum,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        })
        .await
        .unwrap()
    }

    /// The same log in a new coordinator.
    async fn reload(&mut self) {
        self.counter.stop();
        self.counter = Self::counter(&self.topics);
        self.counter.start();
        self.sum_again().await;
    }
}

#[test]
fn keys_belong_to_the_partitions_that_kafka_gives_them() {
    // Java: "abc".hashCode() = 96354, "polygenelubricants".hashCode() = Integer.MIN_VALUE.
    assert_eq!(partition_of("abc", 50), 96354 % 50);
    assert_eq!(partition_of("polygenelubricants", 50), 0);
    assert_eq!(partition_of("", 50), 0);
    // "console-consumer-1".hashCode() is negative.
    let hash = "zzzzzzzz".chars().fold(0i32, |hash, letter| {
        hash.wrapping_mul(31).wrapping_add(letter as i32)
    });
    assert_eq!(partition_of("zzzzzzzz", 50), hash.abs() % 50);
}

#[tokio::test]
async fn nothing_is_answered_before_it_is_durable() {
    let world = World::new().await;
    assert_eq!(world.sum_again().await, 0);
    world.log.hold();
    let mut added = world.add(5);
    // It has been replayed, and whoever sees that waits, too.
    let mut seen = world.sum();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(added.now().is_none() && seen.now().is_none());
    world.log.release();
    assert_eq!(timeout(SOON, added.answer()).await.unwrap(), Ok(0));
    assert_eq!(timeout(SOON, seen.answer()).await.unwrap(), Ok(5));
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reload() {
    let mut world = World::new().await;
    world.sum_again().await;
    for number in 1..=100 {
        world.add(number).answer().await.unwrap();
    }
    world.reload().await;
    assert_eq!(world.sum().answer().await, Ok(5050));
}

/// A setting of an operator, or a batch of before there was none, must not make the state unreadable.
#[tokio::test]
async fn batches_of_every_codec_are_loaded_whatever_brokers_say_of_topics() {
    let mut world = World::new().await;
    world.sum_again().await;
    let settings = [("compression.type", "zstd"), ("max.message.bytes", "1")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    world.topics.set_defaults(settings.into());
    world.add(1).answer().await.unwrap();
    let index = world.counter.partition_of("k").unwrap();
    let log = world.counter.log(index).unwrap();
    let topic = world.topics.get(TOPIC).unwrap();
    let epoch = topic.partition(index).unwrap().epoch().unwrap();
    for (number, codec) in (2u64..).zip(segment_adapter::Codec::ALL) {
        let batch = segment_adapter::BatchBuilder::new(codec)
            .record(1, Some(&number.to_be_bytes()), Some(&[b'x'; 5000]))
            .build()
            .unwrap();
        let append = log.append_as_leader(batch, epoch).unwrap();
        append.durable().await.unwrap();
    }
    world.reload().await;
    assert_eq!(world.sum().answer().await, Ok(1 + 2 + 3 + 4 + 5 + 6));
}

#[tokio::test]
async fn a_failed_append_answers_everybody_and_the_shard_is_loaded_again() {
    let world = World::new().await;
    world.sum_again().await;
    world.add(1).answer().await.unwrap();
    world.log.forget_unacknowledged(true);
    world.log.hold();
    let parked: Pending<u64> = world
        .counter
        .park("k", |counter, _, _, slot| counter.parked.push(slot));
    let (first, second, seen) = (world.add(10), world.add(100), world.sum());
    world
        .log
        .fail(wal::Error::Invalid("failed by the test".into()));
    for pending in [first, second, seen, parked] {
        let answer = timeout(SOON, pending.answer()).await.unwrap();
        assert!(answer.is_err(), "{answer:?}");
    }
    world.log.release();
    // The engine opens its log again, and so does the shard: what was not acknowledged may be there whole, or not.
    let sum = world.sum_again().await;
    assert!([1, 11, 111].contains(&sum), "{sum}");
    world.add(1000).answer().await.unwrap();
    assert_eq!(world.sum().answer().await, Ok(sum + 1000));
    assert!(!world.engine.cluster().to_string().is_empty());
}

#[tokio::test]
async fn a_record_that_the_log_refuses_changes_nothing() {
    let world = World::new().await;
    world.sum_again().await;
    // Larger than the topic takes.
    let refused = world.add(TOO_LARGE).answer().await;
    assert_eq!(refused, Err(ResponseError::UnknownServerError));
    // The machine has heard of it, and has made it good with a record of its own.
    assert_eq!(world.sum().answer().await, Ok(5));
    world.add(1).answer().await.unwrap();
    // That may be refused, too; whoever waits hears of that.
    let parked = world
        .counter
        .park("k", |counter, _, _, slot| counter.parked.push(slot));
    let refused = world.add(TOO_LARGE).answer().await;
    assert_eq!(refused, Err(ResponseError::UnknownServerError));
    let parked = timeout(SOON, parked.answer()).await.unwrap();
    assert_eq!(parked, Err(ResponseError::UnknownServerError));
    assert_eq!(world.sum().answer().await, Ok(6));
    let seen = world
        .counter
        .ask("k", |counter, _, _| counter.refused.clone());
    assert_eq!(seen.answer().await, Ok(vec![TOO_LARGE; 2]));
}

/// Together they are more than a batch may have; each alone is not.
#[tokio::test]
async fn a_large_record_is_not_refused_for_what_is_beside_it() {
    let mut world = World::new().await;
    world.sum_again().await;
    let numbers = [1, SIZES, 850_000, 850_001, 2, 3];
    let written = world.counter.ask("k", move |_, _, out| {
        for number in numbers {
            out.record(number);
        }
    });
    assert_eq!(written.answer().await, Ok(()));
    world.reload().await;
    let sum = numbers.iter().sum();
    assert_eq!(world.sum().answer().await, Ok(sum));
}

#[tokio::test]
async fn records_of_a_transaction_count_when_it_is_committed() {
    let mut world = World::new().await;
    world.sum_again().await;
    let partition = world.counter.partition_of("k").unwrap();
    for (producer_id, commit) in [(7, true), (8, false)] {
        let log = world.counter.log(partition).unwrap();
        let guard = log.start_verification(producer_id, 0, -1, false).unwrap();
        let written = world.counter.ask("k", move |_, _, out| {
            out.record(producer_id as u64);
            out.in_transaction(InTransaction {
                producer_id,
                producer_epoch: 0,
                guard,
            });
        });
        written.answer().await.unwrap();
        assert_eq!(
            world.sum_again().await,
            if producer_id == 7 { 0 } else { 7 }
        );
        world.reload().await;
        let end = EndTxn {
            producer_id,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
            version: TransactionVersion::V1,
        };
        let ended = world.counter.end_transaction(partition, end);
        ended.answer().await.unwrap();
    }
    assert_eq!(world.sum().answer().await, Ok(7));
    world.reload().await;
    assert_eq!(world.sum().answer().await, Ok(7));
    // Without a guard of this verification, no transaction begins.
    let unverified = world.counter.ask("k", |_, _, out| {
        out.record(9);
        out.in_transaction(InTransaction {
            producer_id: 9,
            producer_epoch: 0,
            guard: Default::default(),
        });
    });
    assert_eq!(
        unverified.answer().await,
        Err(ResponseError::InvalidTxnState)
    );
}

#[tokio::test]
async fn what_is_due_is_done_and_answers_who_waits() {
    let world = World::new().await;
    world.sum_again().await;
    let parked = world.counter.park("k", |counter, now, _, slot| {
        counter.parked.push(slot);
        counter.due = Some(now.mono_ms + 20);
    });
    assert_eq!(timeout(SOON, parked.answer()).await.unwrap(), Ok(0));
    assert_eq!(world.sum().answer().await, Ok(1000));
}

#[tokio::test]
async fn a_defect_in_an_operation_ends_its_shard_and_no_other() {
    let world = World::new().await;
    world.sum_again().await;
    world.add(3).answer().await.unwrap();
    let waits: Pending<u64> = world
        .counter
        .park("k", |counter, _, _, slot| counter.parked.push(slot));
    let defect = std::panic::AssertUnwindSafe(|| {
        let _: Pending<()> = world.counter.ask("k", |_, _, _| panic!("a defect"));
    });
    std::panic::catch_unwind(defect).unwrap_err();
    assert!(timeout(SOON, waits.answer()).await.unwrap().is_err());
    assert_eq!(world.sum_again().await, 3);
}

#[tokio::test]
async fn a_stop_answers_who_waits_and_takes_nothing_in() {
    let world = World::new().await;
    world.sum_again().await;
    let waits: Pending<u64> = world
        .counter
        .park("k", |counter, _, _, slot| counter.parked.push(slot));
    world.counter.stop();
    let gone = Err(ResponseError::NotCoordinator);
    assert_eq!(timeout(SOON, waits.answer()).await.unwrap(), gone);
    assert_eq!(world.sum().answer().await, gone);
}

#[tokio::test]
async fn more_than_may_wait_are_told_to_come_back() {
    let world = World::new().await;
    world.sum_again().await;
    world.log.hold();
    let mut waiting: Vec<_> = (0..5000).map(|_| world.add(1)).collect();
    let refused = waiting
        .iter_mut()
        .filter_map(Pending::now)
        .collect::<Vec<_>>();
    assert!(!refused.is_empty());
    let busy = Err(ResponseError::CoordinatorLoadInProgress);
    assert!(refused.iter().all(|answer| *answer == busy));
    world.log.release();
    let taken = 5000 - refused.len() as u64;
    assert_eq!(world.sum_again().await, taken);
}

#[tokio::test]
async fn an_operation_of_many_records_is_written_whole() {
    let mut world = World::new().await;
    world.sum_again().await;
    let written = world.counter.ask("k", |_, _, out| {
        for _ in 0..100_000 {
            out.record(1);
        }
    });
    written.answer().await.unwrap();
    world.reload().await;
    assert_eq!(world.sum().answer().await, Ok(100_000));
}

#[tokio::test]
async fn what_a_full_log_does_not_take_waits_in_order() {
    let mut world = World::on(MemoryLog::with_capacity(4 << 20)).await;
    world.sum_again().await;
    world.log.hold();
    // Much more than the log has room for.
    let mut waiting: Vec<_> = (0..100)
        .map(|step| world.add(if step % 2 == 0 { LARGE } else { step }))
        .collect();
    waiting.push(world.sum());
    assert!(waiting.iter_mut().all(|pending| pending.now().is_none()));
    world.log.release();
    // What comes now must not overtake what waits, although there is room for it every now and then.
    let mut sum = 50 * LARGE + 2500;
    for number in 1.. {
        sum += number;
        waiting.push(world.add(number));
        tokio::task::yield_now().await;
        if waiting[99].now().is_some() {
            break;
        }
        if number % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut answers = Vec::new();
    for (place, pending) in waiting.into_iter().enumerate() {
        // That one was taken above.
        if place != 99 {
            answers.push(timeout(SOON, pending.answer()).await.unwrap().unwrap());
        }
    }
    assert!(answers.is_sorted(), "{answers:?}");
    let order = |world: &World| world.counter.ask("k", |counter, _, _| counter.order);
    let before = order(&world).answer().await;
    world.reload().await;
    assert_eq!(world.sum().answer().await, Ok(sum));
    assert_eq!(order(&world).answer().await, before);
}

#[tokio::test]
async fn a_log_that_takes_nothing_any_more_is_opened_and_loaded_again() {
    let world = World::new().await;
    world.sum_again().await;
    world.add(5).answer().await.unwrap();
    let waits: Pending<u64> = world
        .counter
        .park("k", |counter, _, _, slot| counter.parked.push(slot));
    let partition = world.counter.partition_of("k").unwrap();
    let log = world.counter.log(partition).unwrap();
    log.close().await.unwrap();
    let gone = Err(ResponseError::NotCoordinator);
    assert_eq!(world.add(7).answer().await, gone);
    assert_eq!(timeout(SOON, waits.answer()).await.unwrap(), gone);
    assert_eq!(world.sum_again().await, 5);
    world.add(8).answer().await.unwrap();
    assert_eq!(world.sum().answer().await, Ok(13));
}
