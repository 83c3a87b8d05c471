//! Random batches, transactions and markers of several producers, rolls, deletions, cuts, crashes and take-overs against a
//! model that looks at every batch there was.

mod history;

use history::{Asked, History, What, after};
use proptest::prelude::*;
use segment_adapter::{AppendOptions, EndTxn, Guard, TransactionVersion};

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
        /// In a transaction if one is open, or else in one with this chance.
        txn: Option<Verified>,
        wait: bool,
    },
    End {
        id: i64,
        /// Added to the epochs that are known.
        epoch: i16,
        coordinator: i32,
        commit: bool,
        bumps: bool,
        wait: bool,
    },
    Plain,
    Roll,
    DeleteRecords {
        percent: i64,
    },
    Maintain,
    Truncate {
        percent: i64,
        outcome: Outcome,
    },
    Clear {
        past: i64,
        below: i64,
    },
    Read {
        percent: i64,
        bytes: usize,
    },
    Reopen {
        close: bool,
    },
    /// All of it comes from the bucket.
    Upload,
    Crash,
    TakeOver,
}

/// How a transaction is verified before a batch that may begin it.
#[derive(Clone, Copy, Debug)]
enum Verified {
    No,
    Yes { bumps: bool },
}

/// What becomes of a cut.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Kept,
    Crashed,
}

fn call() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![
        12 => Just(Kind::Next),
        4 => (0..7usize).prop_map(Kind::Again),
        1 => (0..7usize).prop_map(Kind::Overlap),
        1 => (1..4i32).prop_map(Kind::Gap),
        1 => Just(Kind::NewEpoch),
        1 => Just(Kind::WrongEpoch),
        1 => Just(Kind::OldEpoch),
    ];
    let verified = prop_oneof![
        1 => Just(Verified::No),
        8 => any::<bool>().prop_map(|bumps| Verified::Yes { bumps }),
    ];
    let txn = prop::option::weighted(0.6, verified);
    let size = prop_oneof![4 => 0..50usize, 1 => 0..3000usize];
    let send = (0..4i64, kind, 1..4i32, size, txn, any::<bool>());
    let epochs = (
        prop_oneof![6 => Just(0), 1 => Just(-1), 3 => Just(1)],
        prop_oneof![8 => Just(0), 1 => Just(-1), 1 => Just(1)],
    );
    let end = (0..4i64, epochs, any::<(bool, bool, bool)>());
    let outcome = prop_oneof![3 => Just(Outcome::Kept), 1 => Just(Outcome::Crashed)];
    prop_oneof![
        30 => send.prop_map(|(id, kind, count, payload, txn, wait)| Call::Send {
            id, kind, count, payload, txn, wait,
        }),
        12 => end.prop_map(|(id, (epoch, coordinator), (commit, bumps, wait))| Call::End {
            id, epoch, coordinator, commit, bumps, wait,
        }),
        2 => Just(Call::Plain),
        2 => Just(Call::Roll),
        2 => (0..=100i64).prop_map(|percent| Call::DeleteRecords { percent }),
        2 => Just(Call::Maintain),
        2 => (0..=100i64, outcome).prop_map(|(percent, outcome)| Call::Truncate { percent, outcome }),
        1 => (-9..9i64, 0..2i64).prop_map(|(past, below)| Call::Clear { past, below }),
        8 => (0..=100i64, 0..4000usize).prop_map(|(percent, bytes)| Call::Read { percent, bytes }),
        1 => any::<bool>().prop_map(|close| Call::Reopen { close }),
        1 => Just(Call::Upload),
        2 => Just(Call::Crash),
        1 => Just(Call::TakeOver),
    ]
}

#[derive(Debug, PartialEq)]
enum Expected {
    New,
    Duplicate(i64, i64),
    Refused(i16),
}

/// Epoch, sequence and count of a batch.
#[derive(Clone, Copy)]
struct Batched {
    epoch: i16,
    sequence: i32,
    count: i32,
}

/// What `kind` stands for now.
fn next(history: &History, id: i64, kind: Kind, count: i32) -> Batched {
    let of = |epoch, sequence, count| Batched {
        epoch,
        sequence,
        count,
    };
    let Some(known) = history.producer(id) else {
        // Unknown: any sequence will do. Near the end, so that it wraps soon.
        return of(5, i32::MAX - 3, count);
    };
    let (epoch, next) = (known.epoch, known.next_sequence());
    let back = |steps: usize| {
        let last = known.batches.len().checked_sub(1)?;
        Some(known.batches[last - steps.min(last)])
    };
    match kind {
        Kind::Next => of(epoch, next, count),
        Kind::Again(steps) => back(steps).map_or(of(epoch, next, count), |(first, len, _)| {
            of(epoch, first, len)
        }),
        Kind::Overlap(steps) => back(steps).map_or(of(epoch, next, count), |(first, len, _)| {
            of(epoch, first, len + 1)
        }),
        Kind::Gap(gap) => of(epoch, after(next, gap), count),
        Kind::NewEpoch => of(epoch + 1, 0, count),
        Kind::WrongEpoch => of(epoch + 1, 1, count),
        Kind::OldEpoch => of(epoch - 1, 0, count),
    }
}

/// Kafka's rules, in their order. A transaction that begins needs `verified`.
fn expect(history: &History, id: i64, sent: Batched, txn: bool, verified: bool) -> Expected {
    let known = history.producer(id);
    if let Some(known) = known.as_ref().filter(|known| known.epoch == sent.epoch) {
        let last_five = known.batches.iter().rev().take(5);
        let mut same = last_five
            .filter(|(sequence, count, _)| (*sequence, *count) == (sent.sequence, sent.count));
        if let Some((_, count, base)) = same.next() {
            return Expected::Duplicate(*base, base + i64::from(*count) - 1);
        }
    }
    if known.as_ref().is_some_and(|known| sent.epoch < known.epoch) {
        return Expected::Refused(47);
    }
    let open = known
        .as_ref()
        .and_then(|known| Some((known.epoch, known.txn_first?)));
    let goes_on = open.is_some_and(|(epoch, _)| epoch == sent.epoch);
    if txn && !goes_on && !verified {
        return Expected::Refused(48);
    }
    if let Some(asked) = history.asked.get(&id) {
        let begins_late = asked.bumps && known.is_none() && sent.sequence != 0;
        if begins_late || sent.sequence > asked.sequence {
            return Expected::Refused(45);
        }
    }
    let expected = known.map(|known| match known.epoch == sent.epoch {
        true => known.next_sequence(),
        false => 0,
    });
    if expected.is_some_and(|expected| sent.sequence != expected) {
        return Expected::Refused(45);
    }
    if !txn && open.is_some() {
        return Expected::Refused(48);
    }
    Expected::New
}

/// Starts a verification, and gives its guard; what was refused gives none.
fn verify(log: &KafkaLog, history: &mut History, id: i64, sent: Batched, bumps: bool) -> Guard {
    let known = history.producer(id);
    let started = log.start_verification(id, sent.epoch, sent.sequence, bumps);
    if known.as_ref().is_some_and(|known| sent.epoch < known.epoch) {
        assert_eq!(started.unwrap_err().code(), 47);
        return Guard::NONE;
    }
    let guard = started.unwrap();
    let open = known.is_some_and(|known| known.txn_first.is_some() && known.epoch == sent.epoch);
    assert_eq!(guard.is_none(), open);
    if open {
        return guard;
    }
    let new = Asked {
        guard: guard.clone(),
        epoch: sent.epoch,
        sequence: sent.sequence,
        bumps,
    };
    match history.asked.get_mut(&id) {
        // Its guard fits nothing.
        Some(asked) if sent.epoch < asked.epoch => assert!(asked.guard != guard),
        Some(asked) if sent.epoch == asked.epoch => {
            assert!(asked.guard == guard);
            asked.sequence = asked.sequence.min(sent.sequence);
            asked.bumps &= bumps;
        }
        before => {
            assert!(before.is_none_or(|asked| asked.guard != guard));
            history.asked.insert(id, new);
        }
    }
    guard
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 30,
        index_interval_bytes: 4096,
        retention_ms: -1,
        producer_expiration_ms: i64::MAX,
        ..LogConfig::default()
    }
}

/// A log beside its history.
struct Run {
    world: World,
    log: KafkaLog,
    history: History,
}

impl Run {
    async fn new(world: World) -> Self {
        Self {
            log: open_with(&world, config()).await,
            world,
            history: History::new(),
        }
    }

    async fn all(mut self, calls: Vec<Call>) {
        for call in calls {
            self.call(call).await;
        }
        self.world.calm_down();
        if self.history.whole {
            self.check_follower().await;
        }
    }

    async fn call(&mut self, call: Call) {
        match call {
            Call::Send {
                id,
                kind,
                count,
                payload,
                txn,
                wait,
            } => {
                let sent = next(&self.history, id, kind, count);
                self.send(id, sent, &vec![7; payload], txn, wait).await;
            }
            Call::End { wait, .. } => self.end_txn(&call, wait).await,
            Call::Plain => {
                put_records(&self.log, 1).await;
                self.history.push(What::Plain, 1);
                self.history.acknowledged = self.history.end;
            }
            Call::Roll => {
                self.log.roll().unwrap();
                self.history.roll();
            }
            Call::DeleteRecords { percent } => {
                self.flush().await;
                let to = self.at(percent);
                let delete = async || self.log.delete_records(to).await;
                self.world.again().until_done(delete).await;
                self.history.delete_below(to);
            }
            Call::Maintain => {
                self.flush().await;
                let maintain = async || self.log.delete_old_segments(1000).await;
                self.world.again().until_done(maintain).await;
                self.history.maintain();
            }
            Call::Truncate { percent, outcome } => self.truncate(percent, outcome).await,
            Call::Clear { past, below } => {
                self.flush().await;
                let end = (self.history.end + past).max(0);
                let start = (end - below).max(0);
                let clear = async || self.log.truncate_fully_and_start_at(end, Some(start)).await;
                self.world.again().until_done(clear).await;
                self.history.clear(end, start);
            }
            Call::Read { percent, bytes } => self.read(percent, bytes).await,
            Call::Reopen { close } => {
                self.flush().await;
                if close {
                    self.log.close().await.unwrap();
                }
                self.log = self.world.open_again(config()).await;
                self.history.reopened();
            }
            Call::Upload => {
                self.flush().await;
                self.log.close().await.unwrap();
                self.world.leave_only_the_bucket().await;
                self.log = open_with(&self.world, config()).await;
                self.history.reopened();
            }
            Call::Crash => self.crash().await,
            Call::TakeOver => self.take_over().await,
        }
        self.history.check(&self.log);
    }

    fn at(&self, percent: i64) -> i64 {
        let History { start, end, .. } = self.history;
        start + (end - start) * percent / 100
    }

    async fn flush(&mut self) {
        self.log.wait_for_hw(self.history.end - 1).await.unwrap();
        self.history.acknowledged = self.history.end;
    }

    async fn send(
        &mut self,
        id: i64,
        sent: Batched,
        payload: &[u8],
        txn: Option<Verified>,
        wait: bool,
    ) {
        let mut records = (0..sent.count)
            .fold(BatchBuilder::new(Codec::None), |batch, _| {
                batch.record(1000, Some(b"key"), Some(payload))
            })
            .producer(id, sent.epoch, sent.sequence);
        let guard = match txn {
            Some(Verified::Yes { bumps }) => verify(&self.log, &mut self.history, id, sent, bumps),
            Some(Verified::No) | None => Guard::NONE,
        };
        if txn.is_some() {
            records = records.transactional();
        }
        let asked = self.history.asked.get(&id);
        let verified = asked.is_some_and(|asked| asked.guard == guard);
        let expected = expect(&self.history, id, sent, txn.is_some(), verified);
        let options = AppendOptions {
            guard,
            ..AppendOptions::default()
        };
        let appended = self
            .log
            .append_with(records.build().unwrap(), EPOCH, &options);
        let handle = match appended {
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
            assert_eq!(
                (info.first_offset, Expected::New),
                (self.history.end, expected)
            );
            let what = What::Data {
                id,
                epoch: sent.epoch,
                sequence: sent.sequence,
                txn: txn.is_some(),
            };
            self.history.push(what, i64::from(sent.count));
        }
        self.acknowledge(handle, wait).await;
    }

    async fn acknowledge(&mut self, handle: segment_adapter::AppendHandle, wait: bool) {
        if wait {
            let end = handle.info.last_offset + 1;
            handle.durable().await.unwrap();
            assert!(self.log.offsets().hw >= end);
            self.history.acknowledged = self.history.acknowledged.max(end);
        }
    }

    async fn end_txn(&mut self, call: &Call, wait: bool) {
        let Call::End {
            id,
            epoch,
            coordinator,
            commit,
            bumps,
            ..
        } = *call
        else {
            return;
        };
        let known = self.history.producer(id);
        let of = known.clone().unwrap_or_default();
        let end = EndTxn {
            producer_id: id,
            producer_epoch: (of.epoch + epoch).max(0),
            coordinator_epoch: (of.coordinator + coordinator).max(0),
            commit,
            version: match bumps {
                true => TransactionVersion::V2,
                false => TransactionVersion::V1,
            },
        };
        let is_old = known.is_some_and(|known| {
            end.producer_epoch < known.epoch
                || (bumps && end.producer_epoch == known.epoch && known.txn_first.is_some())
        });
        let expected = match (is_old, end.coordinator_epoch < of.coordinator) {
            (true, _) => 47,
            (false, true) => 52,
            (false, false) => 0,
        };
        match self.log.append_end_txn(end, EPOCH) {
            Ok(handle) => {
                assert_eq!((handle.info.first_offset, 0), (self.history.end, expected));
                let what = What::Marker {
                    id,
                    epoch: end.producer_epoch,
                    coordinator: end.coordinator_epoch,
                    commit,
                };
                self.history.push(what, 1);
                self.acknowledge(handle, wait).await;
            }
            Err(error) => assert_eq!(error.code(), expected, "{error}"),
        }
    }

    async fn truncate(&mut self, percent: i64, outcome: Outcome) {
        self.flush().await;
        let (end, before) = (self.at(percent), self.history.end);
        match outcome {
            Outcome::Kept => {
                let cut = async || self.log.truncate_to(end).await;
                let cut = self.world.again().until_done(cut).await;
                assert_eq!(cut, end < before);
            }
            Outcome::Crashed => {
                {
                    let mut cut = Box::pin(self.log.truncate_to(end));
                    let _anything = futures::poll!(cut.as_mut());
                }
                self.world.crash().await;
                self.log = open_with(&self.world, config()).await;
                self.history.reopened();
            }
        }
        // Before the crash or after: nothing else. A log that ends at `end` already is not cut.
        if self.log.offsets().leo == end && end < before {
            self.history.truncate(end);
        }
    }

    async fn read(&mut self, percent: i64, bytes: usize) {
        let from = self.at(percent);
        for isolation in [Isolation::TxnCommitted, HW] {
            let read = async || self.log.read(from, bytes, true, isolation).await;
            let data = self.world.again().until_done(read).await;
            let read = batches(&data);
            for (read, expected) in read.iter().zip(self.history.from(from)) {
                assert_eq!(read.header().base_offset, expected.base);
                assert_eq!(read.header().last_offset() + 1, expected.end);
            }
            let bound = data.offsets.bound(isolation);
            assert!(read.last().is_none_or(|b| b.header().last_offset() < bound));
            let first = self.history.from(from).next();
            assert_eq!(read.is_empty(), first.is_none_or(|first| first.end > bound));
            match (isolation, &data.aborted) {
                (HW, None) => {}
                (Isolation::TxnCommitted, Some(told)) => {
                    self.history.check_committed(&read, told);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn crash(&mut self) {
        self.world.crash().await;
        self.log = open_with(&self.world, config()).await;
        self.history.crashed(&self.log);
    }

    /// Another engine on the same store; what the old one appends from then on is nowhere.
    async fn take_over(&mut self) {
        let old = self.log.clone();
        let held = self.world.take_over().await;
        self.log = open_with(&self.world, config()).await;
        self.history.crashed(&self.log);
        let late = old.append_as_leader(batch(Codec::None, &[1], b"late"), EPOCH);
        if let Ok(late) = late {
            late.durable().await.unwrap_err();
        }
        drop(held);
    }

    /// A follower that has copied all of it knows the same.
    async fn check_follower(&mut self) {
        self.flush().await;
        let world = World::new().await;
        let follower = open_with(&world, config()).await;
        let start = self.history.start;
        follower
            .truncate_fully_and_start_at(start, None)
            .await
            .unwrap();
        let mut at = start;
        while at < self.history.end {
            let read = self
                .log
                .read(at, 5000, true, Isolation::LogEnd)
                .await
                .unwrap();
            let Some(last) = batches(&read).pop() else {
                break;
            };
            at = last.header().last_offset() + 1;
            let handle = follower.append_as_follower(read.records.concat().into(), EPOCH);
            handle.unwrap().durable().await.unwrap();
        }
        assert_eq!(follower.active_producers(), self.log.active_producers());
        assert_eq!(
            follower.first_unstable_offset(),
            self.log.first_unstable_offset()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_log_knows_its_producers_as_one_does_who_saw_every_batch(
        calls in prop::collection::vec(call(), 1..60)
    ) {
        block_on(async {
            Run::new(World::new().await).await.all(calls).await;
        });
    }

    #[test]
    fn so_does_one_on_a_bucket_that_fails(
        seed: u64,
        calls in prop::collection::vec(call(), 1..60)
    ) {
        block_on_paused(async {
            Run::new(World::in_a_storm(seed).await).await.all(calls).await;
        });
    }
}
