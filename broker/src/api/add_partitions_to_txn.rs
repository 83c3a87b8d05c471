//! AddPartitionsToTxn (24): partitions that a transaction is about to write; each is durably of it when this is answered.
//!
//! Versions from 4 on are for brokers among themselves, who are none here. One unknown partition stops all (3 for it, 55
//! for the others), as in Kafka, and so does one of a topic of the broker itself (17).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TopicName,
        add_partitions_to_txn_response::{
            AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
        },
    },
};
use segment_adapter::TransactionVersion;

use super::{Abort, Reply, Request, create_topics::topic_name, fenced_before};
use crate::{
    coordinator::transactions::transaction::Partitions, node::Node, topics,
    wire::response::Response,
};

/// The first version that tells a fenced producer so.
const FENCED: i16 = 2;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: AddPartitionsToTxnRequest = request.decode()?;
    Reply::later(async move {
        let problem = |topic: &str, index: i32| problem(&node, topic, index);
        let topics = &asked.v3_and_below_topics;
        let mut partitions = Partitions::new();
        let mut any_problem = false;
        for topic in topics {
            let name = topic.name.as_str();
            let mut problems = topic.partitions.iter().map(|index| problem(name, *index));
            any_problem |= problems.any(|problem| problem.is_some());
            let indexes = partitions.entry(name.to_owned()).or_default();
            indexes.extend(&topic.partitions);
        }
        let code = if any_problem {
            ResponseError::OperationNotAttempted.code()
        } else {
            let added = add(&node, &asked, partitions).await;
            let fenced = |error| fenced_before(FENCED, request.head.version, error).code();
            added.map_or_else(fenced, |()| 0)
        };
        let code_of = |topic: &str, index: i32| {
            let problem = problem(topic, index).filter(|_| any_problem);
            problem.map_or(code, |problem| problem.code())
        };
        let results = topics
            .iter()
            .map(|topic| answer(&topic.name, &topic.partitions, code_of));
        let answer = AddPartitionsToTxnResponse::default()
            .with_results_by_topic_v3_and_below(results.collect());
        Ok(Response::encode(request.head, &answer)?)
    })
}

/// Why a partition cannot be of a transaction.
fn problem(node: &Node, topic: &str, index: i32) -> Option<ResponseError> {
    if topics::is_internal(topic) {
        // Nobody produces there; offsets of groups have a request of their own.
        return Some(ResponseError::InvalidTopicException);
    }
    let topic = node.topics.get(topic);
    let unknown = topic.is_none_or(|topic| topic.partition(index).is_none());
    unknown.then_some(ResponseError::UnknownTopicOrPartition)
}

async fn add(
    node: &Node,
    asked: &AddPartitionsToTxnRequest,
    partitions: Partitions,
) -> Result<(), ResponseError> {
    let id = asked.v3_and_below_transactional_id.as_str();
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let epoch = asked.v3_and_below_producer_epoch;
    let holder = (asked.v3_and_below_producer_id.0, epoch);
    let version = TransactionVersion::V0;
    node.transactions.add(id, holder, partitions, version).await
}

fn answer(
    topic: &TopicName,
    indexes: &[i32],
    code_of: impl Fn(&str, i32) -> i16,
) -> AddPartitionsToTxnTopicResult {
    let results = indexes.iter().map(|index| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(*index)
            .with_partition_error_code(code_of(topic, *index))
    });
    AddPartitionsToTxnTopicResult::default()
        .with_name(topic_name(topic))
        .with_results_by_partition(results.collect())
}
