//! Batches of transactions: none is appended before the coordinator knows durably that its partition is written (KIP-890).
//!
//! Producers of transaction version 2 (from [`ADDING`] on) leave it to this to say so; older ones have said it themselves
//! and are only looked up. The log's guard ties the answer to the append: a transaction that was ended in between is not
//! written. A batch of a transaction that is open on its partition needs nobody to be asked.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kafka_protocol::{error::ResponseError, messages::ProduceRequest};
use segment_adapter::{Guard, TransactionVersion};
use tokio::time::sleep;

use super::{ATTRIBUTES_AT, Failure, MAGIC_AT, TRANSACTIONAL, fail};
use crate::{
    api::find_partition, coordinator::transactions::transaction::Partitions, node::Node, topics,
};

/// The first version that adds partitions to the transaction by itself.
const ADDING: i16 = 12;
/// The first version that knows of transactions that can only be aborted.
const ABORTABLE: i16 = 11;
const PRODUCER_AT: usize = 43;
/// How often, and after which rest, a transaction whose predecessor is being ended is tried.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// What the batches of a request may be appended with, by topic and partition.
pub(super) type Guards = BTreeMap<(String, i32), Result<Guard, Failure>>;

/// A producer as its batch says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Producer {
    id: i64,
    epoch: i16,
    sequence: i32,
}

/// The producer of a batch of a transaction.
fn producer(records: &Bytes) -> Option<Producer> {
    let attributes = records.get(ATTRIBUTES_AT)?;
    if records.get(MAGIC_AT) != Some(&2) || attributes & TRANSACTIONAL == 0 {
        return None;
    }
    let (id, rest) = records.get(PRODUCER_AT..)?.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (sequence, _) = rest.split_first_chunk()?;
    Some(Producer {
        id: i64::from_be_bytes(*id),
        epoch: i16::from_be_bytes(*epoch),
        sequence: i32::from_be_bytes(*sequence),
    })
}

/// Whether a batch is of a transaction. Without a transactional id that ends the whole request, before anything of it is
/// looked at.
pub(super) fn is_any(asked: &ProduceRequest) -> bool {
    batches(asked).next().is_some()
}

/// The batches that are of transactions.
fn batches(asked: &ProduceRequest) -> impl Iterator<Item = (&str, i32, Producer)> {
    asked.topic_data.iter().flat_map(|topic| {
        let all = topic.partition_data.iter();
        all.filter_map(|data| {
            let producer = producer(data.records.as_ref()?)?;
            Some((topic.name.as_str(), data.index, producer))
        })
    })
}

/// Asks the coordinator what has to be asked. A partition that has no batch of a transaction, or does not exist, has no
/// guard.
pub(super) async fn verify(node: &Node, version: i16, asked: &ProduceRequest) -> Guards {
    let mut guards = Guards::new();
    let mut unknown = Partitions::new();
    let mut holder = None;
    let mut producers = batches(asked).map(|(_, _, producer)| (producer.id, producer.epoch));
    if let Some(first) = producers.next() {
        holder = Some(first);
        if producers.any(|other| other != first) {
            return refuse_all(asked, ResponseError::InvalidProducerIdMapping);
        }
    }
    let (Some(holder), Some(id)) = (holder, &asked.transactional_id) else {
        return guards;
    };
    for (topic, index, producer) in batches(asked) {
        if topics::is_internal(topic) {
            continue;
        }
        let Ok((partition, leading)) = find_partition(node, topic, index).await else {
            continue;
        };
        let Producer {
            id,
            epoch,
            sequence,
        } = producer;
        let started = leading
            .log
            .start_verification(id, epoch, sequence, version >= ADDING);
        if started.as_ref().is_ok_and(|guard| !guard.is_none()) {
            unknown.entry(topic.to_owned()).or_default().insert(index);
        }
        let started = started.map_err(|error| fail(&partition, &leading, error));
        guards.insert((topic.to_owned(), index), started);
    }
    if unknown.is_empty() {
        return guards;
    }
    let refused = match version >= ADDING {
        true => add(node, id, holder, &unknown).await,
        false => look_up(node, id, holder, &unknown).await,
    };
    for ((topic, index), error) in refused {
        let failure = translate(version, error);
        guards.insert((topic, index), Err(failure));
    }
    guards
}

type Refused = Vec<((String, i32), ResponseError)>;

async fn add(node: &Node, id: &str, holder: (i64, i16), partitions: &Partitions) -> Refused {
    let mut tries = 0;
    loop {
        tries += 1;
        let version = TransactionVersion::V2;
        let added = node
            .transactions
            .add(id, holder, partitions.clone(), version);
        match added.await {
            Ok(()) => return Refused::new(),
            // The markers of the transaction before are being written.
            Err(ResponseError::ConcurrentTransactions) if tries < TRIES_MAX => sleep(PAUSE).await,
            Err(error) => return all_of(partitions, error),
        }
    }
}

async fn look_up(node: &Node, id: &str, holder: (i64, i16), partitions: &Partitions) -> Refused {
    let missing = node.transactions.verify(id, holder, partitions).await;
    match missing {
        Ok(missing) => all_of(&missing, ResponseError::TransactionAbortable),
        Err(error) => all_of(partitions, error),
    }
}

fn all_of(partitions: &Partitions, error: ResponseError) -> Refused {
    let topics = partitions.iter();
    let each = topics.flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic, *index)));
    each.map(|(topic, index)| ((topic.clone(), index), error))
        .collect()
}

fn refuse_all(asked: &ProduceRequest, error: ResponseError) -> Guards {
    let each = batches(asked).map(|(topic, index, _)| (topic.to_owned(), index));
    each.map(|place| (place, Err(Failure::of(error)))).collect()
}

/// What a producer is told of an answer of the coordinator: it tries again, aborts, or ends (F47, F52).
fn translate(version: i16, error: ResponseError) -> Failure {
    use ResponseError as E;
    let told = match error {
        E::NotCoordinator | E::CoordinatorLoadInProgress | E::CoordinatorNotAvailable => {
            E::NotEnoughReplicas
        }
        E::ConcurrentTransactions if version < ADDING => E::NotEnoughReplicas,
        E::ProducerFenced => E::InvalidProducerEpoch,
        E::TransactionAbortable if version < ABORTABLE => E::InvalidTxnState,
        other => other,
    };
    let message = format!("the partition is not known to be of the transaction: {error}");
    Failure {
        message: Some(message),
        ..Failure::of(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F47 and F52: the code decides whether a producer tries again, aborts, or is over.
    #[test]
    fn codes_of_the_coordinator_are_told_as_the_version_knows_them() {
        use ResponseError as E;
        for (version, error, told) in [
            (9, E::NotCoordinator, E::NotEnoughReplicas),
            (12, E::CoordinatorLoadInProgress, E::NotEnoughReplicas),
            (12, E::CoordinatorNotAvailable, E::NotEnoughReplicas),
            (11, E::ConcurrentTransactions, E::NotEnoughReplicas),
            (12, E::ConcurrentTransactions, E::ConcurrentTransactions),
            (9, E::ProducerFenced, E::InvalidProducerEpoch),
            (12, E::ProducerFenced, E::InvalidProducerEpoch),
            (10, E::TransactionAbortable, E::InvalidTxnState),
            (11, E::TransactionAbortable, E::TransactionAbortable),
            (12, E::InvalidProducerIdMapping, E::InvalidProducerIdMapping),
        ] {
            assert_eq!(
                translate(version, error).code,
                told.code(),
                "v{version} {error:?}"
            );
        }
    }
}
