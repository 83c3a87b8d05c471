//! OffsetCommit (8): how far a group has read, durable when it is answered.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};

use super::{
    Abort, Reply, Request,
    create_topics::topic_name,
    groups::{by_topic, code, owned},
};
use crate::{
    coordinator::groups::{Commit, CommitIn, Committed},
    node::Node,
    wire::response::Response,
};

/// First version in which an unknown group is told so.
const GROUP_NOT_FOUND: i16 = 9;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: OffsetCommitRequest = request.decode()?;
    let unknown = match request.head.version {
        GROUP_NOT_FOUND.. => ResponseError::GroupIdNotFound,
        _ => ResponseError::IllegalGeneration,
    };
    let committed_ms = crate::clock::now_ms();
    // Versions 2 to 4 say how long to keep it; -1 is as long as the broker does.
    let keep_ms = Some(asked.retention_time_ms).filter(|ms| *ms >= 0);
    let expires_ms = keep_ms.map(|ms| committed_ms.saturating_add(ms));
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
                    committed_ms,
                    expires_ms,
                };
                offsets.push((name, index, committed));
            }
        }
    }
    let commit = Commit {
        group: asked.group_id.to_string(),
        generation: asked.generation_id_or_member_epoch,
        member_id: asked.member_id.to_string(),
        instance: owned(asked.group_instance_id.as_ref()),
        offsets,
    };
    let pending = node.groups.ask(&commit.group.clone(), |groups, now, out| {
        groups.commit(commit, CommitIn::Nothing { unknown }, now, out)
    });
    drop((asked, request.body));
    Reply::later(async move {
        let done = pending.answer().await.and_then(|done| done);
        let topics = by_topic(answers).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, checked)| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(code(checked.and(done)))
            });
            OffsetCommitResponseTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions.collect())
        });
        let answer = OffsetCommitResponse::default().with_topics(topics.collect());
        Ok(Response::encode(request.head, &answer)?)
    })
}

/// Whether an offset of this partition can be kept.
pub(super) fn check(
    node: &Node,
    topic: &str,
    partition: i32,
    metadata: &str,
) -> Result<(), ResponseError> {
    let found = node.topics.get(topic);
    if found.is_none_or(|topic| topic.partition(partition).is_none()) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    if metadata.len() > node.config.coordinator.offset_metadata_bytes_max {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(())
}
