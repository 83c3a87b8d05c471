//! DescribeProducers (61): who has written to a partition, and where its open transaction begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
};
use segment_adapter::{ActiveProducer, KafkaLog};

use super::{Abort, Reply, Request, create_topics::topic_name, find_partition};
use crate::{node::Node, wire::response::Response};

/// What the answer holds for a partition besides its producers.
const PARTITION_BYTES: usize = 128;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeProducersRequest = request.decode()?;
    Reply::later(async move {
        // Each partition once, however often it is asked for.
        let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        for topic in &asked.topics {
            let indexes = wanted.entry(topic.name.as_str()).or_default();
            indexes.extend(&topic.partition_indexes);
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        for (name, indexes) in wanted {
            let mut partitions = Vec::with_capacity(indexes.len());
            for index in indexes {
                let log = find_partition(&node, name, index).await;
                let log = log.map(|(_, leading)| leading.log);
                let producers = log.as_ref().map_or(0, KafkaLog::producers_count);
                bytes += PARTITION_BYTES + producers * size_of::<(ActiveProducer, ProducerState)>();
                partitions.push((index, log));
            }
            found.push((name, partitions));
        }
        let permit = node.budget.response(bytes).await?;
        let topics = found.into_iter().map(|(name, partitions)| {
            let topic = TopicResponse::default().with_name(topic_name(name));
            let partitions = partitions.into_iter();
            topic.with_partitions(
                partitions
                    .map(|(index, log)| describe(index, log))
                    .collect(),
            )
        });
        let answer = DescribeProducersResponse::default().with_topics(topics.collect());
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

fn describe(index: i32, log: Result<KafkaLog, i16>) -> PartitionResponse {
    let answer = PartitionResponse::default().with_partition_index(index);
    match log {
        Ok(log) => {
            let producers = log.active_producers();
            answer.with_active_producers(producers.iter().map(state).collect())
        }
        Err(code) => answer.with_error_code(code),
    }
}

fn state(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(producer.epoch.into())
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.txn_first_offset)
}
