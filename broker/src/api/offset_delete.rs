//! OffsetDelete (47): forgets what a group has read, of topics that it does not read any more (F42).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::{
    Abort, Reply, Request,
    create_topics::topic_name,
    groups::{by_topic, code},
};
use crate::{node::Node, wire::response::Response};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: OffsetDeleteRequest = request.decode()?;
    let group = asked.group_id.to_string();
    let wanted = asked.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.to_string(), partition.partition_index))
    });
    let wanted: Vec<(String, i32)> = wanted.collect();
    let exists = |(topic, index): &(String, i32)| {
        let topic = node.topics.get(topic);
        topic.is_some_and(|topic| topic.partition(*index).is_some())
    };
    let known: Vec<bool> = wanted.iter().map(exists).collect();
    let pending = node.groups.ask(&group, |groups, _, out| {
        groups.delete_offsets(&group, &wanted, out)
    });
    Reply::later(async move {
        let answer = match pending.answer().await.and_then(|done| done) {
            Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
            Ok(answers) => {
                let partitions = wanted.into_iter().zip(known).zip(answers);
                let partitions = partitions.map(|(((topic, index), known), done)| {
                    let done = if known {
                        done
                    } else {
                        Err(ResponseError::UnknownTopicOrPartition)
                    };
                    let partition = OffsetDeleteResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(code(done));
                    (topic, partition)
                });
                let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
                    OffsetDeleteResponseTopic::default()
                        .with_name(topic_name(&name))
                        .with_partitions(partitions)
                });
                OffsetDeleteResponse::default().with_topics(topics.collect())
            }
        };
        Ok(Response::encode(request.head, &answer)?)
    })
}
