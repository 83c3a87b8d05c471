//! Transactions: one producer at a time for a transactional id, and what it writes counts wholly or not at all.
//!
//! State is in `__transaction_state`, a record per transactional id. [`transaction`] is what is known of one, [`record`]
//! its bytes, [`rules`] what requests do to it, [`machine`] all of a partition, and [`markers`] carries decisions out.
//!
//! The order that everything rests on: a partition is durably of the transaction before the first record is appended
//! there (`Produce` asks before, and appends with the log's guard); the decision is durable before the first marker; every
//! marker is durable before the transaction is complete; and only then does the next one begin. A crash between any two
//! of these goes on where it was.

use std::{sync::Arc, time::Duration};

use kafka_protocol::error::ResponseError;
use segment_adapter::TransactionVersion;
use tokio::time::timeout;

use self::{
    machine::{Ending, Transactions},
    markers::Outbox,
    rules::{Holder, Refused},
    transaction::{Partitions, Status, Transaction},
};
use super::{Coordinator, slot};
use crate::{config::Config, node::Node, topics::Topics};

pub(crate) mod machine;
pub(crate) mod markers;
pub(crate) mod record;
pub(crate) mod rules;
pub(crate) mod transaction;

/// The topic of the state.
pub(crate) const TOPIC: &str = "__transaction_state";

/// How long the answer to an EndTxn waits for the markers: who begins the next transaction then need not try twice.
const QUICK: Duration = Duration::from_millis(100);
/// How long a request waits for its coordinator: whoever asks tries again, and others on its connection go on.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a request asks again that lacked a producer id: the id may change hands in between.
const TRIES_MAX: u32 = 5;

/// All transactional ids.
#[derive(Debug)]
pub(crate) struct TransactionCoordinator {
    coordinator: Coordinator<Transactions>,
    outbox: Arc<Outbox>,
}

/// What an admin is told of a transactional id.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) producer_id: i64,
    pub(crate) status: Status,
}

/// What one of these takes in an answer, besides its id.
const LISTED_BYTES: usize = 256;

/// The answer, or that the coordinator is not available now. What was asked for may still be done.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, ResponseError>>,
) -> Result<T, ResponseError> {
    let late = Err(ResponseError::CoordinatorNotAvailable);
    timeout(ANSWER_MAX, answer).await.unwrap_or(late)
}

impl TransactionCoordinator {
    pub(crate) fn new(topics: Arc<Topics>, config: &Config) -> Self {
        let id_expiration_ms =
            i64::try_from(config.transactions.id_expiration_ms).unwrap_or(i64::MAX);
        let outbox = Arc::new(Outbox::default());
        let make = {
            let outbox = outbox.clone();
            move |partition, epoch| {
                Transactions::new(partition, epoch, id_expiration_ms, outbox.clone())
            }
        };
        Self {
            coordinator: Coordinator::new(topics, TOPIC, config.coordinator.partitions, make),
            outbox,
        }
    }

    /// Begins to load what there is, so that what was decided is carried out and what is too old is aborted.
    pub(crate) fn start(&self) {
        self.coordinator.start();
    }

    pub(crate) fn stop(&self) {
        self.coordinator.stop();
    }

    /// Makes the topic, if need be.
    pub(crate) async fn ensure(&self) -> Result<(), ResponseError> {
        self.coordinator.ensure().await
    }

    /// Waits until the partition of `id` is loaded, if that is soon.
    pub(crate) async fn ready(&self, id: &str, limit: Duration) {
        self.coordinator.ready(id, limit).await;
    }

    /// The partition that `id` belongs to.
    pub(crate) fn partition_of(&self, id: &str) -> Result<i32, ResponseError> {
        self.coordinator.partition_of(id)
    }

    fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    fn of_partition(&self, partition: i32) -> OfPartition<'_> {
        OfPartition {
            coordinator: &self.coordinator,
            partition,
        }
    }

    /// Makes somebody the producer of `id`: the one that `holder` names, or whoever comes first.
    pub(crate) async fn init(
        &self,
        node: &Node,
        id: &str,
        holder: Option<Holder>,
        timeout_ms: i32,
    ) -> Result<Holder, ResponseError> {
        let mut spare = None;
        for _ in 0..TRIES_MAX {
            let given = self.coordinator.ask(id, |machine, now, out| {
                machine.init(id, holder, timeout_ms, spare, now, out)
            });
            match in_time(given.answer()).await? {
                Err(Refused::NeedsProducerId) => spare = Some(node.next_producer_id().await?),
                given => return given.map_err(Refused::error),
            }
        }
        Err(Refused::NeedsProducerId.error())
    }

    /// Takes partitions into the transaction of `id`; durable when this is answered.
    pub(crate) async fn add(
        &self,
        id: &str,
        holder: Holder,
        partitions: Partitions,
        version: TransactionVersion,
    ) -> Result<(), ResponseError> {
        let added = self.coordinator.ask(id, |machine, now, out| {
            machine.add(id, holder, &partitions, version, now, out)
        });
        in_time(added.answer()).await?.map_err(Refused::error)
    }

    /// Those of `partitions` that are not of the transaction of `id` now.
    pub(crate) async fn verify(
        &self,
        id: &str,
        holder: Holder,
        partitions: &Partitions,
    ) -> Result<Partitions, ResponseError> {
        let verified = self.coordinator.ask(id, |machine, _, _| {
            rules::verify(machine.get(id), holder, partitions)
        });
        in_time(verified.answer()).await?
    }

    /// Ends the transaction of `id`; the decision is durable when this is answered. Gives what its holder is from now on.
    pub(crate) async fn end(
        &self,
        node: &Node,
        id: &str,
        holder: Holder,
        commit: bool,
        version: TransactionVersion,
    ) -> Result<Holder, ResponseError> {
        let mut spare = None;
        for _ in 0..TRIES_MAX {
            let (done, completed) = slot();
            let ended = self.coordinator.ask(id, |machine, now, out| {
                machine.end(id, holder, commit, version, spare, now, out, done)
            });
            match in_time(ended.answer()).await? {
                Err(Refused::NeedsProducerId) => spare = Some(node.next_producer_id().await?),
                Err(refused) => return Err(refused.error()),
                Ok(ended) => {
                    // Decided is decided: this is only so that the next transaction finds the way free.
                    let _ = timeout(QUICK, completed.answer()).await;
                    return Ok(ended);
                }
            }
        }
        Err(Refused::NeedsProducerId.error())
    }

    /// What is known of `id`.
    pub(crate) async fn describe(&self, id: &str) -> Result<Option<Transaction>, ResponseError> {
        let found = self
            .coordinator
            .ask(id, |machine, _, _| machine.get(id).cloned());
        in_time(found.answer()).await
    }

    /// About how much memory what is known of `id` takes.
    pub(crate) async fn weight(&self, id: &str) -> Result<usize, ResponseError> {
        let found = self.coordinator.ask(id, |machine, _, _| machine.weight(id));
        in_time(found.answer()).await
    }

    /// About how much memory all ids take, without their partitions.
    pub(crate) async fn list_weight(&self) -> Result<usize, ResponseError> {
        let mut sum = 0;
        for partition in 0..self.coordinator.partitions() {
            let found = self.coordinator.ask_at(partition, |machine, _, _| {
                let ids = machine.all().map(|(id, _)| LISTED_BYTES + id.len());
                ids.sum::<usize>()
            });
            sum += in_time(found.answer()).await?;
        }
        Ok(sum)
    }

    /// Every transactional id of the partitions `of` that `wanted` wants. An error as long as one is not loaded.
    pub(crate) async fn list(
        &self,
        of: impl Fn(&i32) -> bool + Send,
        wanted: impl Fn(&Transaction) -> bool + Clone + Send,
    ) -> Result<Vec<Listed>, ResponseError> {
        let mut all = Vec::new();
        for partition in (0..self.coordinator.partitions()).filter(of) {
            let found = self.coordinator.ask_at(partition, |machine, _, _| {
                let wanted = machine.all().filter(|(_, txn)| wanted(txn));
                wanted
                    .map(|(id, txn)| Listed {
                        id: id.clone(),
                        producer_id: txn.producer_id,
                        status: txn.status,
                    })
                    .collect::<Vec<_>>()
            });
            all.extend(in_time(found.answer()).await?);
        }
        Ok(all)
    }
}

/// One partition of it.
struct OfPartition<'a> {
    coordinator: &'a Coordinator<Transactions>,
    partition: i32,
}

impl OfPartition<'_> {
    async fn ending(&self, id: &str) -> Result<Option<Ending>, ResponseError> {
        let found = self
            .coordinator
            .ask_at(self.partition, |machine, _, _| machine.ending(id));
        found.answer().await
    }

    async fn complete(&self, id: &str, ending: Ending) -> Result<(), ResponseError> {
        let completed = self
            .coordinator
            .ask_at(self.partition, |machine, now, out| {
                machine.complete(id, &ending, now, out);
            });
        completed.answer().await
    }
}

impl Refused {
    fn error(self) -> ResponseError {
        match self {
            Self::Error(error) => error,
            // Asked too often, or by who does not ask again.
            Self::NeedsProducerId => ResponseError::CoordinatorLoadInProgress,
        }
    }
}

#[cfg(test)]
mod tests;
