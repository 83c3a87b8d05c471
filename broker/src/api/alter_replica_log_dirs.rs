//! AlterReplicaLogDirs (34): a replica moves to another directory. There is one, and everything is there (F57).

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
        alter_replica_log_dirs_response::{
            AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
        },
    },
};

use super::{Abort, Reply, Request, create_topics::topic_name};
use crate::{node::Node, start_error::redacted, wire::response::Response};

pub(super) fn begin(node: &Node, request: Request) -> Result<Reply, Abort> {
    let asked: AlterReplicaLogDirsRequest = request.decode()?;
    let directory = redacted(&node.config.bucket);
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in asked.dirs {
        let known = dir.path.as_str() == directory;
        for topic in dir.topics {
            let found = node.topics.get(topic.name.as_str());
            let partitions = topic.partitions.into_iter().map(|index| {
                let there = found.as_ref().and_then(|topic| topic.partition(index));
                let code = match there {
                    None => ResponseError::UnknownTopicOrPartition.code(),
                    Some(_) if !known => ResponseError::LogDirNotFound.code(),
                    Some(_) => 0,
                };
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code)
            });
            let of_topic = results.entry(topic.name.to_string()).or_default();
            of_topic.extend(partitions);
        }
    }
    let results = results.into_iter().map(|(name, partitions)| {
        AlterReplicaLogDirTopicResult::default()
            .with_topic_name(topic_name(&name))
            .with_partitions(partitions)
    });
    let answer = AlterReplicaLogDirsResponse::default().with_results(results.collect());
    Reply::now(Response::encode(request.head, &answer))
}
