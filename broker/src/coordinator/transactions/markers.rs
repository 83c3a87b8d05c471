//! From a decision to its end: every partition of the transaction gets its marker, then the transaction is complete.
//!
//! A decision is durable before the first marker is written, and every marker before the transaction is called complete:
//! a crash in between begins again with the first, and a second marker changes nothing. At most one end of a
//! transactional id is under way, also while its coordinator is loaded again: an old marker could otherwise end the next
//! transaction. A partition that is unavailable is tried for as long as it takes; a deleted one is passed over.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use segment_adapter::{EndTxn, TransactionVersion};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::sleep,
};

use super::{machine::Ending, transaction::Status};
use crate::{api::find_partition, coordinator::groups, node::Node};

/// Transactions that are ended at one time; others wait their turn.
const ENDINGS_MAX: usize = 1_024;
/// Partitions of one transaction that are told at one time.
const CONCURRENT: usize = 64;
/// The first rest after a partition was not available, and the longest: each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED.
const FENCED: [i16; 2] = [47, 52];

/// Transactions that are decided and whose end has not begun. As many as there are transactional ids at most.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<BTreeSet<(i32, String)>>,
    more: Notify,
}

impl Outbox {
    /// The transaction of `id`, which is of this partition of the coordinator, is decided.
    pub(super) fn put(&self, partition: i32, id: &str) {
        self.waiting.lock().insert((partition, id.to_owned()));
        self.more.notify_one();
    }

    /// One that is not among `busy`.
    fn take(&self, busy: &BTreeSet<(i32, String)>) -> Option<(i32, String)> {
        let mut waiting = self.waiting.lock();
        let next = waiting.iter().find(|one| !busy.contains(*one)).cloned()?;
        waiting.take(&next)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

/// A transactional id, and the partition of the coordinator that it is of.
type Place = (i32, String);

/// Ends what is decided. Never returns; the caller ends it.
pub(crate) async fn run(node: Arc<Node>) {
    let outbox = node.transactions.outbox().clone();
    let mut running = JoinSet::new();
    let mut places = HashMap::new();
    let mut busy = BTreeSet::new();
    loop {
        while running.len() < ENDINGS_MAX
            && let Some(place) = outbox.take(&busy)
        {
            busy.insert(place.clone());
            let ending = running.spawn(end(node.clone(), place.clone()));
            places.insert(ending.id(), place);
        }
        let ended = tokio::select! {
            biased;
            Some(ended) = running.join_next_with_id() => ended,
            () = outbox.more.notified() => continue,
        };
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let place = places.remove(&id);
        place.inspect(|place| {
            note(place, ended.err());
            busy.remove(place);
        });
    }
}

fn note((_, id): &Place, ended: Option<JoinError>) {
    if let Some(error) = ended
        && error.is_panic()
    {
        tracing::error!(id, %error, "the end of a transaction stopped by a defect of this program");
    }
}

/// Tells every partition of a decided transaction, then completes it.
async fn end(node: Arc<Node>, (partition, id): Place) {
    let coordinator = node.transactions.of_partition(partition);
    // Known to be durable when it is answered.
    let ended = match coordinator.ending(&id).await {
        Ok(Some(ending)) => {
            tell_all(&node, &ending).await;
            coordinator.complete(&id, ending).await
        }
        found => found.map(drop),
    };
    if let Err(error) = ended {
        // Its log has failed, or it has too much to do.
        tracing::debug!(id, %error, "a transaction is not ended yet");
        sleep(PAUSE_MIN).await;
        node.transactions.outbox().put(partition, &id);
    }
}

async fn tell_all(node: &Node, ending: &Ending) {
    let txn = &ending.txn;
    let end = EndTxn {
        producer_id: txn.producer_id,
        producer_epoch: txn.epoch,
        coordinator_epoch: ending.coordinator_epoch,
        commit: txn.status == Status::PrepareCommit,
        version: match txn.version {
            TransactionVersion::V0 => TransactionVersion::V1,
            other => other,
        },
    };
    let partitions = txn.partitions.iter();
    let each =
        partitions.flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic, *index)));
    let tells = each.map(|(topic, index)| tell(node, topic, index, end));
    // Collected, for the compiler cannot see that a borrowing closure outlives the stream.
    let mut tells = stream::iter(tells.collect::<Vec<_>>()).buffer_unordered(CONCURRENT);
    while tells.next().await.is_some() {}
}

/// Writes the marker on one partition, however long that takes.
async fn tell(node: &Node, topic: &str, index: i32, end: EndTxn) {
    const UNKNOWN: i16 = ResponseError::UnknownTopicOrPartition.code();
    let mut pause = PAUSE_MIN;
    loop {
        match write(node, topic, index, end).await {
            // A topic that was deleted has nothing to be decided.
            Ok(()) | Err(UNKNOWN) => return,
            Err(code) if FENCED.contains(&code) => {
                tracing::warn!(
                    topic,
                    index,
                    producer_id = end.producer_id,
                    code,
                    "a marker is refused: somebody newer has spoken"
                );
                return;
            }
            Err(code) => tracing::debug!(topic, index, code, "a marker is not written yet"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Writes the marker on one partition; it is durable then. The error is the code of the protocol.
pub(crate) async fn write(node: &Node, topic: &str, index: i32, end: EndTxn) -> Result<(), i16> {
    if topic == groups::TOPIC {
        // Its coordinator must hear of it.
        let ended = node.groups.end_transaction(index, end).answer().await;
        return ended.map_err(|error| error.code());
    }
    let (partition, leading) = find_partition(node, topic, index).await?;
    let written = match leading.log.append_end_txn(end, leading.epoch) {
        Ok(handle) => handle.durable().await,
        Err(error) => Err(error),
    };
    written.map_err(|error| {
        partition.note(&leading, &error);
        error.code()
    })
}
