//! TxnOffsetCommit (28): how far a group has read, as a part of a transaction: it counts when that is committed (F51).
//!
//! As with records, the coordinator of transactions is asked before the first offset of a transaction is written: the
//! group's partition must be of the transaction. From version 5 on (transaction version 2) this adds it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        txn_offset_commit_response::{
            TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
        },
    },
};
use segment_adapter::{Guard, LogError, TransactionVersion};
use tokio::time::sleep;

use super::{
    Abort, Reply, Request,
    create_topics::topic_name,
    groups::{by_topic, code, owned},
    offset_commit::check,
};
use crate::{
    coordinator::{
        InTransaction,
        groups::{self, Commit, CommitIn, Committed},
        transactions::transaction::Partitions,
    },
    node::Node,
    wire::response::Response,
};

/// First version that says which member it is.
const MEMBERS: i16 = 3;
/// First version that knows of transactions that can only be aborted.
const ABORTABLE: i16 = 4;
/// First version that adds the group's partition to the transaction by itself.
const ADDING: i16 = 5;
/// How often, and after which rest, a transaction whose predecessor is being ended is tried.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Who commits in which transaction.
struct Producer {
    transactional_id: String,
    id: i64,
    epoch: i16,
}

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: TxnOffsetCommitRequest = request.decode()?;
    let (head, version) = (request.head, request.head.version);
    let (mut answers, mut offsets) = (Vec::new(), Vec::new());
    for topic in &asked.topics {
        for partition in &topic.partitions {
            let metadata = owned(partition.committed_metadata.as_ref()).unwrap_or_default();
            let (name, index) = (topic.name.to_string(), partition.partition_index);
            let checked = check(&node, &name, index, &metadata);
            answers.push((name.clone(), (index, checked)));
            if checked.is_ok() {
                let committed = Committed {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata,
                    committed_ms: crate::clock::now_ms(),
                    expires_ms: None,
                };
                offsets.push((name, index, committed));
            }
        }
    }
    let commit = Commit {
        group: asked.group_id.to_string(),
        generation: if version >= MEMBERS {
            asked.generation_id
        } else {
            -1
        },
        member_id: asked.member_id.to_string(),
        instance: owned(asked.group_instance_id.as_ref()),
        offsets,
    };
    let producer = Producer {
        transactional_id: asked.transactional_id.to_string(),
        id: asked.producer_id.0,
        epoch: asked.producer_epoch,
    };
    drop((asked, request.body));
    Reply::later(async move {
        let done = stage(&node, version, &producer, commit).await;
        let topics = by_topic(answers).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, checked)| {
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(code(checked.and(done)))
            });
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions.collect())
        });
        let answer = TxnOffsetCommitResponse::default().with_topics(topics.collect());
        Ok(Response::encode(head, &answer)?)
    })
}

async fn stage(
    node: &Node,
    version: i16,
    producer: &Producer,
    commit: Commit,
) -> Result<(), ResponseError> {
    if producer.transactional_id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let partition = node.groups.partition_of(&commit.group)?;
    let guard = verify(node, version, producer, partition).await?;
    let transaction = InTransaction {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        guard,
    };
    let staged = node.groups.ask_at(partition, |groups, now, out| {
        groups.commit(commit, CommitIn::Transaction(transaction), now, out)
    });
    staged.answer().await?
}

/// Asks the coordinator of transactions, unless the transaction is open on the partition already.
async fn verify(
    node: &Node,
    version: i16,
    producer: &Producer,
    partition: i32,
) -> Result<Guard, ResponseError> {
    let log = node.groups.log(partition)?;
    let started = log.start_verification(producer.id, producer.epoch, -1, version >= ADDING);
    let guard = started.map_err(|error| match error {
        LogError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        // The log has stopped: its partition is loaded again.
        _ => ResponseError::CoordinatorNotAvailable,
    })?;
    if guard.is_none() {
        return Ok(guard);
    }
    let partitions = Partitions::from([(groups::TOPIC.to_owned(), BTreeSet::from([partition]))]);
    let (id, holder) = (&producer.transactional_id, (producer.id, producer.epoch));
    let mut tries = 0;
    let verified = loop {
        tries += 1;
        let verified = if version >= ADDING {
            let version = TransactionVersion::V2;
            let partitions = partitions.clone();
            node.transactions.add(id, holder, partitions, version).await
        } else {
            match node.transactions.verify(id, holder, &partitions).await {
                Ok(missing) if missing.is_empty() => Ok(()),
                Ok(_) => Err(ResponseError::TransactionAbortable),
                Err(error) => Err(error),
            }
        };
        match verified {
            // The markers of the transaction before are being written.
            Err(ResponseError::ConcurrentTransactions) if tries < TRIES_MAX => sleep(PAUSE).await,
            verified => break verified,
        }
    };
    match verified {
        Ok(()) => Ok(guard),
        Err(error) => {
            log.give_up_verification(producer.id, guard);
            Err(translate(version, error))
        }
    }
}

/// What a client is told of an answer of the coordinator of transactions, which it has not asked itself.
fn translate(version: i16, error: ResponseError) -> ResponseError {
    use ResponseError as E;
    match error {
        E::NotCoordinator | E::CoordinatorLoadInProgress => E::CoordinatorNotAvailable,
        E::ConcurrentTransactions if version < ADDING => E::CoordinatorNotAvailable,
        E::ProducerFenced => E::InvalidProducerEpoch,
        E::TransactionAbortable if version < ABORTABLE => E::InvalidTxnState,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_other_coordinator_are_told_as_the_version_knows_them() {
        use ResponseError as E;
        for (version, error, told) in [
            (0, E::NotCoordinator, E::CoordinatorNotAvailable),
            (5, E::CoordinatorLoadInProgress, E::CoordinatorNotAvailable),
            (4, E::ConcurrentTransactions, E::CoordinatorNotAvailable),
            (5, E::ConcurrentTransactions, E::ConcurrentTransactions),
            (3, E::ProducerFenced, E::InvalidProducerEpoch),
            (3, E::TransactionAbortable, E::InvalidTxnState),
            (4, E::TransactionAbortable, E::TransactionAbortable),
            (5, E::InvalidProducerIdMapping, E::InvalidProducerIdMapping),
        ] {
            assert_eq!(translate(version, error), told, "v{version} {error:?}");
        }
    }
}
