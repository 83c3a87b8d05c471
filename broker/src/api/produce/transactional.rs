//! Batches of transactions: none is appended before the coordinator knows durably that its partition is written (KIP-890).
//!
//! Producers of transaction version 2 (from [`ADDING`] on) leave it to this to say so; older ones have said it themselves
//! and are only looked up. The log's guard ties the answer to the append: a transaction that was ended in between is not
//! written. A batch of a transaction that is open on its partition needs nobody to be asked.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{ProduceRequest, produce_request::TopicProduceData},
};
use segment_adapter::{Guard, LogError, TransactionVersion};
use tokio::time::sleep;

use super::{ATTRIBUTES_AT, Failure, MAGIC_AT, Place, TRANSACTIONAL, fail, named};
use crate::{
    api::find_named,
    coordinator::transactions::transaction::Partitions,
    node::Node,
    topics::{self, name, partition::Leading},
};

/// The first version that adds partitions to the transaction by itself.
const ADDING: i16 = 12;
/// The first version that knows of transactions that can only be aborted.
const ABORTABLE: i16 = 11;
const PRODUCER_AT: usize = 43;
/// How often, and after which rest, a transaction whose predecessor is being ended is tried.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Where the batches of transactions go and what they may be appended with, by topic and partition.
pub(super) type Verified = BTreeMap<(String, i32), Result<Place, Failure>>;

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
fn batches(asked: &ProduceRequest) -> impl Iterator<Item = (&TopicProduceData, i32, Producer)> {
    asked.topic_data.iter().flat_map(|topic| {
        let all = topic.partition_data.iter();
        all.filter_map(move |data| {
            let producer = producer(data.records.as_ref()?)?;
            Some((topic, data.index, producer))
        })
    })
}

/// Asks the coordinator what has to be asked. A partition that has no batch of a transaction is not in the answer.
pub(super) async fn verify(node: &Node, version: i16, asked: &ProduceRequest) -> Verified {
    let mut verified = Verified::new();
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
        return verified;
    };
    for (topic, index, producer) in batches(asked) {
        if topics::is_internal(&topic.name) || name::problem(&topic.name).is_some() {
            continue;
        }
        let place = match find_named(node, &named(version, topic), index).await {
            Ok((partition, leading)) => {
                let started = start(version, &leading, producer);
                let started = started.map_err(|error| fail(&partition, &leading, error));
                started.map(|guard| Place {
                    partition,
                    leading,
                    guard,
                })
            }
            Err(code) => Err(Failure::code(code)),
        };
        let name = topic.name.to_string();
        if place.as_ref().is_ok_and(|place| !place.guard.is_none()) {
            unknown.entry(name.clone()).or_default().insert(index);
        }
        verified.insert((name, index), place);
    }
    if unknown.is_empty() {
        return verified;
    }
    let refused = match version >= ADDING {
        true => add(node, id, holder, &unknown).await,
        false => look_up(node, id, holder, &unknown).await,
    };
    for (place, error) in refused {
        let failure = translate(version, error);
        if let Some(Ok(Place { leading, guard, .. })) = verified.insert(place, Err(failure)) {
            leading.log.give_up_verification(holder.0, guard);
        }
    }
    verified
}

fn start(version: i16, leading: &Leading, producer: Producer) -> Result<Guard, LogError> {
    let Producer {
        id,
        epoch,
        sequence,
    } = producer;
    let log = &leading.log;
    log.start_verification(id, epoch, sequence, version >= ADDING)
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

/// The same error for every batch of a transaction.
pub(super) fn refuse_all(asked: &ProduceRequest, error: ResponseError) -> Verified {
    let each = batches(asked).map(|(topic, index, _)| (topic.name.to_string(), index));
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
    use kafka_protocol::{messages::produce_request::PartitionProduceData, protocol::StrBytes};
    use segment_adapter::{BatchBuilder, Codec};
    use tokio::time::Instant;

    use super::*;
    use crate::{api::produce::append, topics::config::TopicConfig};

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

    /// A guard fits no other log than that of its verification: who is told 48 gives the transaction up.
    #[tokio::test]
    async fn a_log_that_was_opened_again_since_is_worth_another_try() {
        let node = crate::node::testing::node().await;
        let config = TopicConfig::default();
        let topic = node.topics.clone().create("t", 1, config).await.unwrap();
        node.transactions.ensure().await.unwrap();
        let (producer_id, epoch) = loop {
            // Its partition may be being loaded.
            match node.transactions.init(&node, "id", None, 60_000).await {
                Ok(holder) => break holder,
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        };
        let batch = BatchBuilder::new(Codec::None)
            .producer(producer_id, epoch, 0)
            .transactional()
            .record(1, None, Some(b"v"));
        let data = PartitionProduceData::default().with_records(Some(batch.build().unwrap()));
        let asked = ProduceRequest::default()
            .with_transactional_id(Some(StrBytes::from_static_str("id").into()))
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(StrBytes::from_static_str("t").into())
                    .with_partition_data(vec![data.clone()]),
            ]);
        let mut verified = verify(&node, ADDING, &asked).await;
        let place = verified.remove(&("t".to_owned(), 0)).unwrap().unwrap();
        let partition = topic.partition(0).unwrap();
        partition.close().await;
        partition.note(&place.leading, &LogError::Closed);
        assert!(partition.log(node.topics.engine()).await.is_ok());
        let deadline = Instant::now() + Duration::from_secs(9);
        let named = named(ADDING, &asked.topic_data[0]);
        let refused = append(&node, ADDING, &named, data, Some(place), deadline).await;
        let code = refused.err().expect("the log is over").code;
        let retriable = [6, 19, 56];
        assert!(retriable.contains(&code), "{code}");
    }
}
