//! DescribeProducers (61): who has written to a partition, and where its open transaction begins.

use std::sync::Arc;

use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
};
use segment_adapter::ActiveProducer;

use super::{Abort, Reply, Request, create_topics::topic_name, find_partition};
use crate::{node::Node, wire::response::Response};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeProducersRequest = request.decode()?;
    Reply::later(async move {
        let mut topics = Vec::with_capacity(asked.topics.len());
        for topic in &asked.topics {
            let name = topic.name.as_str();
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in &topic.partition_indexes {
                partitions.push(describe(&node, name, *index).await);
            }
            let topic = TopicResponse::default().with_name(topic_name(name));
            topics.push(topic.with_partitions(partitions));
        }
        let answer = DescribeProducersResponse::default().with_topics(topics);
        Ok(Response::encode(request.head, &answer)?)
    })
}

async fn describe(node: &Node, topic: &str, index: i32) -> PartitionResponse {
    let answer = PartitionResponse::default().with_partition_index(index);
    match find_partition(node, topic, index).await {
        Ok((_, leading)) => {
            let producers = leading.log.active_producers();
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
