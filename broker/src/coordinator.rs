//! Coordinators: deterministic state machines, one for each partition of an internal topic, whose log is their state.
//!
//! # How one is written
//! A coordinator is a type that implements [`Machine`]: plain state, and methods that are given a [`Now`] and an [`Out`].
//! What must survive is a *record*; a method writes one with [`Out::record`] and does not touch the state that the record
//! is about, because [`Machine::replay`] does, at once when the method returns and again at every load. State that need
//! not survive (who waits, which deadline is next) a method changes itself.
//!
//! # How one is asked
//! [`Coordinator::ask`] runs a closure on the machine that a key belongs to, now, and gives a [`Pending`] answer;
//! [`Coordinator::park`] hands the closure a [`Slot`], which it fills with [`Out::reply`] or leaves in the machine until
//! another operation does. Either answer leaves only when every record that the operation has written, and every record
//! that it has seen, is durable. [`Out::when_durable`] runs something else at that time: to send on what has been
//! decided, for one. A closure is run in the order of the calls, so an API does it in its `begin`.
//!
//! # What goes wrong
//! - Not loaded yet, or too many operations wait already: 14. Its log cannot be opened or read: 15. Not a partition of the topic, or the broker stops: 16.
//! - The log refuses a batch (it is too large, its producer is fenced): nothing was written or replayed, who waits on the
//!   operation gets the error. An operation whose batch may be refused therefore changes nothing by itself.
//! - The log fails: the shard is thrown away, everybody who waits on it gets an error, and it is loaded again.
//!
//! # Transactions on a coordinator's partition
//! [`Out::in_transaction`] makes the records of an operation a transactional batch; they are replayed with the producer's
//! id. [`Coordinator::end_transaction`] writes the marker on a partition and tells the machine.

use std::{sync::Arc, time::Duration};

use kafka_protocol::error::ResponseError;
use parking_lot::{Mutex, RwLock};
use segment_adapter::{EndTxn, KafkaLog};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use self::{clock::Clock, shard::Shard};
use crate::topics::{Topic, TopicError, Topics, config::TopicConfig};

mod clock;
pub(crate) mod groups;
mod load;
mod machine;
mod shard;
#[cfg(test)]
mod tests;
pub(crate) mod transactions;

pub(crate) use machine::{
    InTransaction, Machine, Now, Out, Pending, Slot, Stored, StoredError, slot,
};

/// Partitions that are loaded at one time.
const LOADS_MAX: usize = 8;

/// Makes a machine for a partition, given its index and the epoch of its leader, which is the coordinator's.
type Make<M> = Arc<dyn Fn(i32, i32) -> M + Send + Sync>;

/// All partitions of one internal topic.
pub(crate) struct Coordinator<M: Machine> {
    topics: Arc<Topics>,
    topic: &'static str,
    partitions: u32,
    make: Make<M>,
    clock: Clock,
    loads: Arc<Semaphore>,
    /// One per partition, once the topic is there.
    shards: RwLock<Vec<Arc<Shard<M>>>>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    running: JoinSet<()>,
    stopped: bool,
}

impl<M: Machine> std::fmt::Debug for Coordinator<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl<M: Machine> Coordinator<M> {
    /// A coordinator over `topic`, which is made with so many partitions when it is first asked for.
    pub(crate) fn new(
        topics: Arc<Topics>,
        topic: &'static str,
        partitions: u32,
        make: impl Fn(i32, i32) -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            topics,
            topic,
            partitions,
            make: Arc::new(make),
            clock: Clock::new(),
            loads: Arc::new(Semaphore::new(LOADS_MAX)),
            shards: RwLock::default(),
            tasks: Mutex::default(),
        }
    }

    /// Begins to load every partition, if the topic exists.
    pub(crate) fn start(&self) {
        if let Some(topic) = self.topics.get(self.topic) {
            self.load(&topic);
        }
    }

    fn load(&self, topic: &Topic) {
        let mut tasks = self.tasks.lock();
        let mut shards = self.shards.write();
        if tasks.stopped || !shards.is_empty() {
            return;
        }
        for partition in &topic.partitions {
            let shard = Shard::new(partition.clone(), self.clock);
            let (make, loads) = (self.make.clone(), self.loads.clone());
            let engine = self.topics.engine().clone();
            let make = move |index, epoch| make(index, epoch);
            tasks.running.spawn(shard.clone().run(engine, make, loads));
            shards.push(shard);
        }
    }

    /// Makes the topic, if need be, and begins to load it.
    pub(crate) async fn ensure(&self) -> Result<(), ResponseError> {
        if !self.shards.read().is_empty() {
            return Ok(());
        }
        let topic = match self.topics.get(self.topic) {
            Some(topic) => topic,
            None => create_internal(&self.topics, self.topic, self.partitions)
                .await
                .map_err(|error| {
                    tracing::info!(topic = self.topic, %error, "internal topic not created yet");
                    ResponseError::CoordinatorNotAvailable
                })?,
        };
        self.load(&topic);
        Ok(())
    }

    /// The partition that a key belongs to.
    pub(crate) fn partition_of(&self, key: &str) -> Result<i32, ResponseError> {
        match self.shards.read().len() {
            0 => Err(ResponseError::NotCoordinator),
            partitions => Ok(partition_of(key, partitions)),
        }
    }

    /// How many partitions there are; none if the topic does not exist.
    pub(crate) fn partitions(&self) -> i32 {
        self.shards.read().len() as i32
    }

    fn shard(&self, partition: i32) -> Result<Arc<Shard<M>>, ResponseError> {
        let index = usize::try_from(partition).ok();
        let shards = self.shards.read();
        let shard = index.and_then(|index| shards.get(index));
        shard.cloned().ok_or(ResponseError::NotCoordinator)
    }

    /// Waits until the partition of a key is loaded, if that is soon.
    pub(crate) async fn ready(&self, key: &str, limit: Duration) {
        let shard = self.partition_of(key).and_then(|index| self.shard(index));
        if let Ok(shard) = shard {
            let _late = timeout(limit, shard.ready()).await;
        }
    }

    /// The log of a partition that is loaded: to start the verification of a transaction.
    pub(crate) fn log(&self, partition: i32) -> Result<KafkaLog, ResponseError> {
        self.shard(partition)?.log()
    }

    /// Runs an operation on the machine of a key and answers with what it gives.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        key: &str,
        operation: impl FnOnce(&mut M, Now, &mut Out<M::Record>) -> T,
    ) -> Pending<T> {
        self.park(key, |machine, now, out, slot| {
            let answer = operation(machine, now, out);
            out.reply(slot, answer);
        })
    }

    /// Runs an operation on the machine of a key; it, or another one, fills the slot.
    pub(crate) fn park<T: Send + 'static>(
        &self,
        key: &str,
        operation: impl FnOnce(&mut M, Now, &mut Out<M::Record>, Slot<T>),
    ) -> Pending<T> {
        match self.partition_of(key) {
            Ok(partition) => self.park_at(partition, operation),
            Err(error) => refused(error),
        }
    }

    /// As [`Self::ask`], on the machine of a partition.
    pub(crate) fn ask_at<T: Send + 'static>(
        &self,
        partition: i32,
        operation: impl FnOnce(&mut M, Now, &mut Out<M::Record>) -> T,
    ) -> Pending<T> {
        self.park_at(partition, |machine, now, out, slot| {
            let answer = operation(machine, now, out);
            out.reply(slot, answer);
        })
    }

    /// As [`Self::park`], on the machine of a partition.
    pub(crate) fn park_at<T: Send + 'static>(
        &self,
        partition: i32,
        operation: impl FnOnce(&mut M, Now, &mut Out<M::Record>, Slot<T>),
    ) -> Pending<T> {
        let shard = match self.shard(partition) {
            Ok(shard) => shard,
            Err(error) => return refused(error),
        };
        let (slot, pending) = slot();
        match shard.act(|machine, now, out| operation(machine, now, out, slot)) {
            Ok(()) => pending,
            Err(error) => refused(error),
        }
    }

    /// Ends a transaction on a partition. Resolves when the marker is durable.
    pub(crate) fn end_transaction(&self, partition: i32, end: EndTxn) -> Pending<()> {
        self.ask_at(partition, |_, _, out| out.end_transaction(end))
    }

    /// Ends every shard: whoever waits is answered that the coordinator is gone.
    pub(crate) fn stop(&self) {
        let mut tasks = self.tasks.lock();
        tasks.stopped = true;
        for shard in self.shards.read().iter() {
            shard.stop();
        }
        tasks.running.abort_all();
    }
}

/// An answer that is there already.
fn refused<T>(error: ResponseError) -> Pending<T> {
    let (slot, pending) = slot();
    slot.fill(Err(error));
    pending
}

/// Makes an internal topic, or finds that another caller has.
pub(crate) async fn create_internal(
    topics: &Arc<Topics>,
    name: &str,
    partitions: u32,
) -> Result<Arc<Topic>, TopicError> {
    match topics
        .create(name, partitions, TopicConfig::internal())
        .await
    {
        Err(TopicError::Exists(_)) => topics
            .get(name)
            .ok_or_else(|| TopicError::Busy(name.to_owned())),
        created => created,
    }
}

/// Kafka's: Java's hash of the key, made positive, modulo the partitions.
fn partition_of(key: &str, partitions: usize) -> i32 {
    let hash = key.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // The one number without a positive counterpart counts as 0.
    let hash = hash.checked_abs().unwrap_or(0);
    hash % i32::try_from(partitions).unwrap_or(i32::MAX)
}
