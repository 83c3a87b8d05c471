//! DescribeLogDirs (35): how large partitions are. The one directory is the bucket; a node tells of the partitions that are
//! on it.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse,
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_log_dirs_response::{
        DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
    },
};

use super::{Abort, Reply, Request, Session, create_topics::topic_name};
use crate::{
    node::Node,
    start_error::redacted,
    topics::{Topic, partition::Partition},
    wire::response::Response,
};

/// About what a partition takes in memory.
const PARTITION_BYTES: usize = 64;
const TOPIC_BYTES: usize = 300;

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeLogDirsRequest = request.decode()?;
    let id = node.connected(session.local);
    Reply::later(async move {
        let wanted = wanted(&node, asked.topics);
        let bytes = wanted
            .iter()
            .map(|(topic, _)| TOPIC_BYTES + topic.partitions.len() * PARTITION_BYTES);
        let permit = node.budget.response(bytes.sum()).await?;
        let mut topics = Vec::new();
        for (topic, indexes) in wanted {
            let mut partitions = Vec::new();
            for partition in &topic.partitions {
                let asked = indexes
                    .as_ref()
                    .is_none_or(|indexes| indexes.contains(&partition.index));
                if asked && node.replicas(&topic, partition.index).contains(&id) {
                    partitions.push(describe(partition));
                }
            }
            if !partitions.is_empty() {
                let name = topic_name(&topic.name);
                let topic = DescribeLogDirsTopic::default().with_name(name);
                topics.push(topic.with_partitions(partitions));
            }
            // The size of a partition is a sum over its segments.
            tokio::task::yield_now().await;
        }
        let result = DescribeLogDirsResult::default()
            .with_log_dir(redacted(&node.config.bucket).into())
            .with_topics(topics);
        let answer = DescribeLogDirsResponse::default().with_results(vec![result]);
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

type Wanted = Vec<(Arc<Topic>, Option<Vec<i32>>)>;

/// The topics that there are of those that are asked for, each once, with the partitions that are.
fn wanted(node: &Node, asked: Option<Vec<DescribableLogDirTopic>>) -> Wanted {
    let Some(asked) = asked else {
        let all = node.topics.all().into_iter();
        return all.map(|topic| (topic, None)).collect();
    };
    let mut indexes: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for topic in asked {
        let of_topic = indexes.entry(topic.topic.to_string()).or_default();
        of_topic.extend(topic.partitions);
    }
    indexes
        .into_iter()
        .filter_map(|(name, mut indexes)| {
            indexes.sort_unstable();
            Some((node.topics.get(&name)?, Some(indexes)))
        })
        .collect()
}

fn describe(partition: &Partition) -> DescribeLogDirsPartition {
    let open = partition.current();
    // -1 as long as nobody knows.
    let size = open
        .and_then(|leading| leading.log.size().ok())
        .and_then(|size| i64::try_from(size).ok());
    DescribeLogDirsPartition::default()
        .with_partition_index(partition.index)
        .with_partition_size(size.unwrap_or(-1))
}
