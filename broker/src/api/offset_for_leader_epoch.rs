//! OffsetForLeaderEpoch (23): where the records of a leader end, so that a consumer notices that the log was cut below
//! where it reads (F30).

use std::sync::Arc;

use futures::{StreamExt, stream};
use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_request::OffsetForLeaderPartition,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};
use segment_adapter::EpochEnd;

use super::{Abort, Reply, Request, check_epoch, find_partition};
use crate::{node::Node, wire::response::Response};

/// Look-ups of one topic that run at one time.
const CONCURRENT: usize = 16;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: OffsetForLeaderEpochRequest = request.decode()?;
    Reply::later(async move {
        let mut topics = Vec::with_capacity(asked.topics.len());
        for topic in asked.topics {
            let name = topic.topic.as_str();
            let partitions = stream::iter(topic.partitions)
                .map(|partition| {
                    let node = &node;
                    async move {
                        let found = look_up(node, name, &partition).await;
                        let end = found.unwrap_or(EpochEnd::NONE);
                        EpochEndOffset::default()
                            .with_partition(partition.partition)
                            .with_error_code(found.err().unwrap_or(0))
                            .with_leader_epoch(end.epoch)
                            .with_end_offset(end.end_offset)
                    }
                })
                .buffered(CONCURRENT)
                .collect()
                .await;
            topics.push(
                OffsetForLeaderTopicResult::default()
                    .with_topic(topic.topic)
                    .with_partitions(partitions),
            );
        }
        let answer = OffsetForLeaderEpochResponse::default().with_topics(topics);
        Ok(Response::encode(request.head, &answer)?)
    })
}

async fn look_up(
    node: &Node,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<EpochEnd, i16> {
    let (partition, leading) = find_partition(node, topic, asked.partition).await?;
    check_epoch(&leading, asked.current_leader_epoch).map_err(|error| error.code())?;
    let found = leading.log.offset_for_leader_epoch(asked.leader_epoch);
    found.await.map_err(|error| {
        partition.note(&leading, &error);
        error.code()
    })
}
