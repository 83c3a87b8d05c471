//! DescribeTopicPartitions (75): topics and their partitions, so many at a time.
//!
//! Topics come by name. An answer that is full says where to go on; partitions of an answer `<=` [`PARTITIONS_MAX`].

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        describe_topic_partitions_request,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
};

use super::{Abort, Reply, Request, create_topics::topic_name, metadata::TOPIC_OPERATIONS};
use crate::{
    node::Node,
    topics::{self, Topic, name},
    wire::response::Response,
};

/// Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: usize = 2_000;

pub(super) fn begin(node: &Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeTopicPartitionsRequest = request.decode()?;
    let limit = usize::try_from(asked.response_partition_limit).unwrap_or(0);
    let limit = limit.clamp(1, PARTITIONS_MAX);
    let names = wanted(node, &asked);
    let from = asked.cursor;
    let answer = match from.as_ref().map(|cursor| cursor.partition_index) {
        Some(..0) => refuse(names),
        _ => describe(node, names, from, limit),
    };
    Reply::now(Response::encode(request.head, &answer))
}

/// The topics that are asked for, none meaning all, each once.
fn wanted(node: &Node, asked: &DescribeTopicPartitionsRequest) -> BTreeSet<String> {
    if asked.topics.is_empty() {
        let all = node.topics.all();
        return all.iter().map(|topic| topic.name.clone()).collect();
    }
    asked
        .topics
        .iter()
        .map(|topic| topic.name.to_string())
        .collect()
}

fn refuse(names: BTreeSet<String>) -> DescribeTopicPartitionsResponse {
    let refused = |name: String| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(topic_name(&name)))
            .with_error_code(ResponseError::InvalidRequest.code())
    };
    DescribeTopicPartitionsResponse::default().with_topics(names.into_iter().map(refused).collect())
}

fn describe(
    node: &Node,
    names: BTreeSet<String>,
    from: Option<describe_topic_partitions_request::Cursor>,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let mut left = limit;
    let mut answer = DescribeTopicPartitionsResponse::default();
    let (first, partition) = match from {
        Some(cursor) => {
            let partition = usize::try_from(cursor.partition_index).unwrap_or(0);
            (cursor.topic_name.to_string(), partition)
        }
        None => (String::new(), 0),
    };
    for name in names.range(first.clone()..) {
        let begin = if *name == first { partition } else { 0 };
        if left == 0 {
            answer.next_cursor = Some(cursor(name, begin));
            break;
        }
        let Some(topic) = node.topics.get(name) else {
            answer.topics.push(unknown(name));
            continue;
        };
        let end = topic.partitions.len().min(begin.saturating_add(left));
        left -= end.saturating_sub(begin);
        answer.topics.push(describe_topic(node, &topic, begin..end));
        if end < topic.partitions.len() {
            answer.next_cursor = Some(cursor(name, end));
            break;
        }
    }
    answer
}

fn cursor(name: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(topic_name(name))
        .with_partition_index(partition as i32)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match name::problem(name) {
        Some(_) => ResponseError::InvalidTopicException,
        None => ResponseError::UnknownTopicOrPartition,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_error_code(error.code())
}

fn describe_topic(
    node: &Node,
    topic: &Topic,
    partitions: std::ops::Range<usize>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.get(partitions).unwrap_or(&[]);
    let partitions = partitions.iter().map(|partition| {
        let replicas = node.replicas(topic, partition.index);
        let replicas: Vec<BrokerId> = replicas.into_iter().map(BrokerId).collect();
        let leader = replicas.first().copied().unwrap_or(BrokerId(node.id()));
        let answer = DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(partition.index)
            .with_replica_nodes(replicas.clone())
            .with_isr_nodes(replicas)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()));
        match partition.epoch() {
            Some(epoch) => answer.with_leader_id(leader).with_leader_epoch(epoch),
            None => answer
                .with_error_code(ResponseError::LeaderNotAvailable.code())
                .with_leader_id(BrokerId(-1)),
        }
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topics::is_internal(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}
