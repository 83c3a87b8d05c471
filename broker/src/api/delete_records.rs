//! DeleteRecords (21): a partition begins at a later offset from now on; -1 is the high watermark (F56).
//!
//! Kept when it is answered. An offset below the log start changes nothing; the answer has the log start as it is then.
//! A time limit below [`WAIT_MIN`] counts as that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_request::DeleteRecordsPartition,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use tokio::time::{Instant, timeout_at};

use super::{Abort, Reply, Request, create_topics::topic_name, find_partition};
use crate::{node::Node, topics, wire::response::Response};

/// Partitions of a topic that are cut at one time.
const CONCURRENT: usize = 16;

/// The shortest time until a cut is answered as late. With one replica Kafka answers at once whatever the time limit; here
/// the cut is made durable first, and a limit of 0 would be told that it failed when it did not.
const WAIT_MIN: Duration = Duration::from_secs(1);

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DeleteRecordsRequest = request.decode()?;
    let wait = Duration::from_millis(asked.timeout_ms.max(0) as u64);
    let deadline = Instant::now() + wait.max(WAIT_MIN);
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(asked.topics.len());
    for topic in asked.topics {
        let asked = topic.partitions.into_iter().map(|partition| {
            let first = seen.insert((topic.name.clone(), partition.partition_index));
            (partition, first)
        });
        let asked: Vec<_> = asked.collect();
        let name = topic.name.as_str();
        let partitions = stream::iter(asked)
            .map(|(partition, first)| {
                let node = &node;
                async move {
                    let deleted = match first {
                        true => timeout_at(deadline, delete(node, name, &partition))
                            .await
                            .unwrap_or(Err(ResponseError::RequestTimedOut.code())),
                        false => Err(ResponseError::InvalidRequest.code()),
                    };
                    DeleteRecordsPartitionResult::default()
                        .with_partition_index(partition.partition_index)
                        .with_low_watermark(deleted.unwrap_or(-1))
                        .with_error_code(deleted.err().unwrap_or(0))
                }
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic_name(name))
                .with_partitions(partitions),
        );
    }
    let answer = DeleteRecordsResponse::default().with_topics(topics);
    Reply::now(Response::encode(request.head, &answer))
}

async fn delete(node: &Node, topic: &str, asked: &DeleteRecordsPartition) -> Result<i64, i16> {
    if topics::is_internal(topic) {
        return Err(ResponseError::InvalidTopicException.code());
    }
    let (partition, leading) = find_partition(node, topic, asked.partition_index).await?;
    let deleted = leading.log.delete_records(asked.offset).await;
    deleted.map_err(|error| {
        partition.note(&leading, &error);
        error.code()
    })
}
