//! Clients that do anything in any order, answers that are lost, and crashes between any two steps, over real logs.
//!
//! What must hold: a transaction is wholly visible or wholly not, on all its partitions; what a client was told is so;
//! whoever was replaced writes nothing any more; and when time has passed nothing is undecided anywhere.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use segment_adapter::{
    AppendOptions, BatchBuilder, Batches, Codec, EndTxn, Guard, Isolation, KafkaLog, LogConfig,
};

use super::*;
use crate::{
    clock::SystemClock,
    coordinator::{Machine, Now, Out},
    node::testing::engine,
};
use machine::Change;

const PARTITIONS: i32 = 3;
const IDS: [&str; 2] = ["one", "two"];
/// Half of them of each version; two of each id.
const CLIENTS: usize = 4;
const TIMEOUT_MS: i32 = 1_000;

/// What becomes of an operation of the coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Answered,
    /// It was done, and the answer is lost.
    Unanswered,
    /// The process ended before it was durable.
    Lost,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Init(usize, Fate),
    /// As the holder of its epoch.
    Bump(usize, Fate),
    /// Up to the append, which comes at any later time.
    Write(usize, i32, Fate),
    Land(usize),
    End(usize, bool, Fate),
    /// The next marker of the transaction that is being ended, or its completion.
    Carry(usize, Fate),
    Wait(i64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        8 => Just(Fate::Answered),
        1 => Just(Fate::Unanswered),
        1 => Just(Fate::Lost),
    ];
    let (client, of_id) = (0..CLIENTS, 0..IDS.len());
    prop_oneof![
        3 => (client.clone(), fate.clone()).prop_map(|(c, f)| Step::Init(c, f)),
        1 => (client.clone(), fate.clone()).prop_map(|(c, f)| Step::Bump(c, f)),
        8 => (client.clone(), 0..PARTITIONS, fate.clone()).prop_map(|(c, p, f)| Step::Write(c, p, f)),
        8 => (0..8usize).prop_map(Step::Land),
        5 => (client, any::<bool>(), fate.clone()).prop_map(|(c, e, f)| Step::End(c, e, f)),
        10 => (of_id, fate).prop_map(|(i, f)| Step::Carry(i, f)),
        1 => (0..1_500i64).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

/// What a client knows.
#[derive(Clone, Debug, Default)]
struct Client {
    holder: Option<Holder>,
    sequences: BTreeMap<i32, i32>,
    /// The number of its transaction.
    tag: u64,
    open: bool,
    /// Something of it may have been written without an answer: it can only be aborted, and then takes another epoch.
    unsure: bool,
    /// What it has asked for, and got no answer.
    ending: Option<bool>,
}

/// An append that is under way.
struct Flying {
    client: usize,
    tag: u64,
    partition: i32,
    holder: Holder,
    sequence: i32,
    guard: Guard,
}

struct World {
    machine: Transactions,
    /// Every durable record of the coordinator.
    log: Vec<Change>,
    loads: i32,
    _engine: s3stream::Engine,
    logs: Vec<KafkaLog>,
    clients: Vec<Client>,
    flying: Vec<Flying>,
    /// For each id, what is being ended and which partitions are left to be told.
    carried: BTreeMap<usize, (Ending, Vec<i32>)>,
    now_ms: i64,
    next_id: i64,
    next_tag: u64,
    /// Of each producer id, epochs below this have been replaced.
    replaced: BTreeMap<i64, i16>,
    /// The producer id of each transactional id.
    owners: BTreeMap<&'static str, i64>,
    /// What clients were told of their transactions.
    told: BTreeMap<u64, bool>,
    written: BTreeSet<(u64, String)>,
}

impl World {
    /// Both ids have been held, up to this epoch.
    async fn new(epoch: i16) -> Self {
        let engine = engine().await;
        let mut logs = Vec::new();
        for _ in 0..PARTITIONS {
            let created = engine.create_group(KafkaLog::STREAMS, Vec::new()).await;
            let (_, streams) = created.unwrap();
            let log = KafkaLog::open(streams, LogConfig::default(), SystemClock::shared());
            logs.push(log.await.unwrap());
        }
        let mut world = Self {
            machine: Transactions::new(0, 0, i64::MAX, Arc::default()),
            log: (0..)
                .zip(IDS)
                .map(|(producer_id, id)| held(producer_id, id, epoch))
                .collect(),
            loads: 0,
            _engine: engine,
            logs,
            clients: vec![Client::default(); CLIENTS],
            flying: Vec::new(),
            carried: BTreeMap::new(),
            now_ms: 1_000,
            next_id: IDS.len() as i64,
            next_tag: 0,
            replaced: BTreeMap::new(),
            owners: BTreeMap::new(),
            told: BTreeMap::new(),
            written: BTreeSet::new(),
        };
        world.crash();
        world
    }

    fn now(&self) -> Now {
        Now {
            wall_ms: self.now_ms,
            mono_ms: self.now_ms.unsigned_abs(),
        }
    }

    /// The process ends, and begins anew with what was durable.
    fn crash(&mut self) {
        self.carried.clear();
        self.flying.clear();
        self.loads += 1;
        self.machine = Transactions::new(0, self.loads, i64::MAX, Arc::default());
        for change in &self.log {
            self.machine.replay(change.clone(), None);
        }
        self.machine.loaded(self.now(), &mut Out::default());
    }

    /// An operation as the shard runs it; the answer if it arrives.
    fn run<T>(
        &mut self,
        fate: Fate,
        operation: impl FnOnce(&mut Transactions, Now, &mut Out<Change>) -> T,
    ) -> Option<T> {
        let mut out = Out::default();
        let now = self.now();
        let answer = operation(&mut self.machine, now, &mut out);
        let written = out.settle();
        if fate == Fate::Lost {
            self.crash();
            return None;
        }
        for change in written {
            let stored = Transactions::encode(&change).unwrap();
            let change = Transactions::decode(&stored).unwrap().unwrap();
            self.log.push(change.clone());
            self.machine.replay(change, None);
        }
        (fate == Fate::Answered).then_some(answer)
    }

    fn id_of(client: usize) -> &'static str {
        IDS[client % IDS.len()]
    }

    fn version_of(client: usize) -> TransactionVersion {
        match client / IDS.len() {
            0 => TransactionVersion::V0,
            _ => TransactionVersion::V2,
        }
    }

    fn init(&mut self, client: usize, holder: Option<Holder>, fate: Fate) {
        let spare = self.next_id;
        self.next_id += 1;
        let id = Self::id_of(client);
        let given = self.run(fate, |machine, now, out| {
            machine.init(id, holder, TIMEOUT_MS, Some(spare), now, out)
        });
        let own = &mut self.clients[client];
        match given {
            Some(Ok(holder)) => {
                *own = Client {
                    holder: Some(holder),
                    ..Client::default()
                };
                let replaced = self.replaced.entry(holder.0).or_default();
                *replaced = (*replaced).max(holder.1);
                let before = self.owners.insert(id, holder.0);
                if let Some(before) = before.filter(|before| *before != holder.0) {
                    self.replaced.insert(before, i16::MAX);
                }
            }
            Some(Err(Refused::Error(ResponseError::ConcurrentTransactions))) | None => {
                // It asks again; what it had is over for it.
                own.open = false;
                own.unsure = true;
                if holder.is_none() {
                    own.holder = None;
                }
            }
            Some(Err(_)) => *own = Client::default(),
        }
    }

    fn write(&mut self, client: usize, partition: i32, fate: Fate) {
        let own = self.clients[client].clone();
        let Some(holder) = own.holder.filter(|_| !own.unsure && own.ending.is_none()) else {
            return;
        };
        if self.flying.iter().any(|flying| flying.client == client) {
            return;
        }
        let version = Self::version_of(client);
        let bumps = version == TransactionVersion::V2;
        if !own.open {
            self.clients[client].tag = self.next_tag;
            self.next_tag += 1;
        }
        let all = Partitions::from([("t".to_owned(), [partition].into())]);
        if !bumps && !self.add(client, holder, &all, fate) {
            return;
        }
        let sequence = self.clients[client].sequences.get(&partition).copied();
        let sequence = sequence.unwrap_or(0);
        let log = &self.logs[partition as usize];
        let Ok(guard) = log.start_verification(holder.0, holder.1, sequence, bumps) else {
            self.clients[client] = Client::default();
            return;
        };
        if !guard.is_none() {
            let known = if bumps {
                self.add(client, holder, &all, fate)
            } else {
                let id = Self::id_of(client);
                let verified = rules::verify(self.machine.get(id), holder, &all);
                verified.is_ok_and(|missing| missing.is_empty())
            };
            if !known {
                return;
            }
        }
        let own = &mut self.clients[client];
        own.open = true;
        self.flying.push(Flying {
            client,
            tag: own.tag,
            partition,
            holder,
            sequence,
            guard,
        });
    }

    /// Whether the client knows that the partition is of its transaction.
    fn add(&mut self, client: usize, holder: Holder, all: &Partitions, fate: Fate) -> bool {
        let (id, version) = (Self::id_of(client), Self::version_of(client));
        let added = self.run(fate, |machine, now, out| {
            machine.add(id, holder, all, version, now, out)
        });
        let own = &mut self.clients[client];
        match added {
            Some(Ok(())) => {
                own.open = true;
                return true;
            }
            // It may be open now; the client asks again.
            None => own.open = true,
            Some(Err(Refused::Error(ResponseError::ConcurrentTransactions))) => {}
            Some(Err(_)) => *own = Client::default(),
        }
        false
    }

    async fn land(&mut self, at: usize) {
        if self.flying.is_empty() {
            return;
        }
        let flying = self.flying.remove(at % self.flying.len());
        let (id, epoch) = flying.holder;
        let value = format!("{}/{}/{}", flying.tag, flying.partition, flying.sequence);
        let batch = BatchBuilder::new(Codec::None)
            .producer(id, epoch, flying.sequence)
            .transactional()
            .record(1, None, Some(value.as_bytes()))
            .build()
            .unwrap();
        let options = AppendOptions {
            guard: flying.guard,
            ..AppendOptions::default()
        };
        let appended = self.logs[flying.partition as usize].append_with(batch, 0, &options);
        let own = &mut self.clients[flying.client];
        let is_its = own.tag == flying.tag && own.holder == Some(flying.holder) && own.open;
        match appended {
            Ok(handle) => {
                handle.durable().await.unwrap();
                let replaced = self.replaced.get(&id).copied().unwrap_or(0);
                assert!(
                    epoch >= replaced,
                    "one that was replaced has written {value}"
                );
                self.written.insert((flying.tag, value));
                if is_its {
                    own.sequences.insert(flying.partition, flying.sequence + 1);
                }
            }
            Err(_) if is_its => own.unsure = true,
            Err(_) => {}
        }
    }

    fn end(&mut self, client: usize, commit: bool, fate: Fate) {
        let own = self.clients[client].clone();
        let Some(holder) = own.holder.filter(|_| own.open) else {
            return;
        };
        let mut commit = own.ending.unwrap_or(commit && !own.unsure);
        if self.flying.iter().any(|flying| flying.client == client) {
            // Nobody commits what is on its way; whoever aborts it does not know whether it was written.
            commit = false;
            self.clients[client].unsure = true;
        }
        let (id, version) = (Self::id_of(client), Self::version_of(client));
        let spare = Some(self.next_id);
        self.next_id += 1;
        let (done, _) = slot();
        let ended = self.run(fate, |machine, now, out| {
            machine.end(id, holder, commit, version, spare, now, out, done)
        });
        let own = &mut self.clients[client];
        match ended {
            None => own.ending = Some(commit),
            Some(Ok(next)) => {
                self.told.insert(own.tag, commit);
                let unsure = own.unsure;
                own.open = false;
                own.unsure = false;
                own.ending = None;
                if version == TransactionVersion::V2 {
                    self.owners.insert(id, next.0);
                    own.holder = Some(next);
                    own.sequences.clear();
                } else if unsure {
                    // Its sequences may be wrong: it begins anew.
                    *own = Client::default();
                }
            }
            Some(Err(Refused::Error(ResponseError::ConcurrentTransactions))) => {
                own.ending = Some(commit);
            }
            Some(Err(_)) => *own = Client::default(),
        }
    }

    /// Carries out a part of a decision, as `markers` does.
    async fn carry(&mut self, id: usize, fate: Fate) {
        let Some((ending, left)) = self.carried.get_mut(&id) else {
            if let Some(ending) = self.machine.ending(IDS[id]) {
                let left = ending.txn.partitions.values().flatten().copied().collect();
                self.carried.insert(id, (ending, left));
            }
            return;
        };
        let Some(partition) = left.pop() else {
            let ending = ending.clone();
            self.carried.remove(&id);
            self.run(fate, |machine, now, out| {
                machine.complete(IDS[id], &ending, now, out);
            });
            return;
        };
        let end = EndTxn {
            producer_id: ending.txn.producer_id,
            producer_epoch: ending.txn.epoch,
            coordinator_epoch: ending.coordinator_epoch,
            commit: ending.txn.status == Status::PrepareCommit,
            version: ending.txn.version,
        };
        let told = self.logs[partition as usize]
            .append_end_txn(end, 0)
            .unwrap();
        told.durable().await.unwrap();
        if fate == Fate::Lost {
            self.crash();
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Init(client, fate) => self.init(client, None, fate),
            Step::Bump(client, fate) => {
                if let Some(holder) = self.clients[client].holder {
                    self.init(client, Some(holder), fate);
                }
            }
            Step::Write(client, partition, fate) => self.write(client, partition, fate),
            Step::Land(at) => self.land(at).await,
            Step::End(client, commit, fate) => self.end(client, commit, fate),
            Step::Carry(id, fate) => self.carry(id, fate).await,
            Step::Wait(ms) => {
                self.now_ms += ms;
                self.run(Fate::Answered, Transactions::expire);
            }
            Step::Crash => self.crash(),
        }
    }

    /// Nobody asks for anything any more, and time passes.
    async fn settle(&mut self) {
        self.now_ms += 10 * i64::from(TIMEOUT_MS);
        self.run(Fate::Answered, Transactions::expire);
        while !self.flying.is_empty() {
            self.land(0).await;
        }
        for (id, name) in IDS.into_iter().enumerate() {
            while self.machine.ending(name).is_some() {
                self.carry(id, Fate::Answered).await;
            }
        }
    }

    /// The values that a reader of committed data sees.
    async fn visible(&self) -> BTreeSet<String> {
        let mut visible = BTreeSet::new();
        for (index, log) in self.logs.iter().enumerate() {
            let offsets = log.offsets();
            assert_eq!(offsets.lso, offsets.hw, "partition {index} is undecided");
            let (mut next, mut aborted, mut dropping) = (0, Vec::new(), BTreeSet::new());
            while next < offsets.lso {
                let read = log.read(next, 1 << 20, true, Isolation::TxnCommitted);
                let read = read.await.unwrap();
                aborted.extend(read.aborted.unwrap());
                for batch in read.records.into_iter().flat_map(Batches::new) {
                    let batch = batch.unwrap();
                    let header = *batch.header();
                    next = header.last_offset() + 1;
                    aborted.retain(|txn| {
                        let begins = txn.first_offset <= header.last_offset();
                        if begins {
                            dropping.insert(txn.producer_id);
                        }
                        !begins
                    });
                    if header.attributes.is_control() {
                        dropping.remove(&header.producer_id);
                    } else if !dropping.contains(&header.producer_id) {
                        visible.extend(values(&batch));
                    }
                }
            }
        }
        visible
    }

    async fn check(&self) {
        let visible = self.visible().await;
        let mut fates: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        for (tag, value) in &self.written {
            let fate = visible.contains(value);
            fates.entry(*tag).or_default().insert(fate);
        }
        for (tag, fates) in &fates {
            assert_eq!(fates.len(), 1, "transaction {tag} is visible in part");
            if let Some(told) = self.told.get(tag) {
                assert!(
                    fates.contains(told),
                    "transaction {tag} is not what was told"
                );
            }
        }
    }
}

fn held(producer_id: i64, id: &str, epoch: i16) -> Change {
    let txn = Transaction::new(producer_id, TIMEOUT_MS, 1_000);
    Change {
        id: id.to_owned(),
        txn: Some(Transaction { epoch, ..txn }),
    }
}

fn values(batch: &segment_adapter::Batch) -> Vec<String> {
    let mut bytes = batch.bytes().clone();
    let decoded = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap();
    let records = decoded.records.into_iter();
    records
        .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_does_not_answer_is_not_waited_for_for_ever() {
    let never = std::future::pending::<Result<(), ResponseError>>();
    assert_eq!(
        in_time(never).await,
        Err(ResponseError::CoordinatorNotAvailable)
    );
    assert_eq!(in_time(async { Ok(1) }).await, Ok(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_transaction_is_whole_or_not_at_all_whatever_happens(
        // Near the end epochs are used up, and there is another producer id.
        epoch in prop_oneof![Just(0), (transaction::EPOCH_LAST - 8)..=transaction::EPOCH_LAST],
        steps in proptest::collection::vec(step(), 1..160),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(epoch).await;
            for step in steps {
                world.take(step).await;
            }
            world.settle().await;
            world.check().await;
        });
    }
}
