//! Metadata (3): the brokers, the topics and who leads their partitions; creates topics that are asked for (F5).
//!
//! Partitions are spread over the nodes, of which the first is the controller. Leader epochs come from the
//! ownership of the partition's group, so they never go back for a topic id: as long as that is not known, after a start
//! with a bucket that is away for one, the partition has no leader (5), as in Kafka when it is offline.

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, Session, create_topics};
use crate::{
    coordinator,
    node::Node,
    topics::{self, Topic, config::TopicConfig, name, partition::Partition},
    wire::response::Response,
};

/// What this broker lets everybody do: operations are bits, as in Kafka (read 3, write 4, create 5, delete 6, alter 7,
/// describe 8, cluster action 9, describe configs 10, alter configs 11, idempotent write 12).
pub(super) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// About what a partition takes in an answer, and each of its replicas.
const PARTITION_BYTES: usize = 64;
const REPLICA_BYTES: usize = 8;
const TOPIC_BYTES: usize = 300;

pub(super) async fn begin(
    node: Arc<Node>,
    session: &Session,
    request: Request,
) -> Result<Reply, Abort> {
    let asked: MetadataRequest = request.decode()?;
    let version = request.head.version;
    let wanted = match asked.topics {
        // Version 0 has no null: an empty list asks for all.
        Some(topics) if version > 0 || !topics.is_empty() => Some(topics),
        _ => None,
    };
    let may_create = asked.allow_auto_topic_creation && node.config.topics.auto_create;
    if may_create && let Some(wanted) = &wanted {
        create_missing(&node, wanted).await;
    }
    let local = session.local;
    Reply::later(async move {
        let found = match wanted {
            None => node.topics.all().into_iter().map(Ok).collect(),
            Some(wanted) => find(&node, version, wanted),
        };
        let bytes = found.iter().map(|found| match found {
            Ok(topic) => {
                let replicas = node.replicas(topic, 0).len();
                let partition = PARTITION_BYTES + replicas * REPLICA_BYTES;
                TOPIC_BYTES + topic.partitions.len() * partition
            }
            Err(_) => TOPIC_BYTES,
        });
        let permit = node.budget.response(bytes.sum()).await?;
        let brokers = node.endpoints(local).into_iter().map(|endpoint| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(endpoint.id))
                .with_host(StrBytes::from_string(endpoint.host))
                .with_port(i32::from(endpoint.port))
        });
        let with_operations = asked.include_topic_authorized_operations;
        let topics = found.into_iter().map(|found| {
            let mut answer = match found {
                Ok(topic) => describe(&node, version, &topic),
                Err(answer) => *answer,
            };
            if with_operations && answer.error_code == 0 {
                answer.topic_authorized_operations = TOPIC_OPERATIONS;
            }
            answer
        });
        let mut answer = MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_controller_id(BrokerId(node.id()))
            .with_topics(topics.collect());
        if version >= 2 {
            answer.cluster_id = Some(StrBytes::from_string(node.cluster_id.clone()));
        }
        if asked.include_cluster_authorized_operations {
            answer.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

async fn create_missing(node: &Node, wanted: &[MetadataRequestTopic]) {
    let missing: BTreeSet<&str> = wanted
        .iter()
        .filter_map(|topic| topic.name.as_ref())
        .map(|name| name.as_str())
        .filter(|name| name::problem(name).is_none() && node.topics.get(name).is_none())
        .collect();
    let created = missing.into_iter().map(|name| async move {
        let created = if topics::is_internal(name) {
            let partitions = node.config.coordinator.partitions;
            coordinator::create_internal(&node.topics, name, partitions).await
        } else {
            let partitions = node.config.topics.partitions_default;
            let topics = &node.topics;
            let created = topics.create(name, partitions, TopicConfig::default());
            created.await
        };
        if let Err(error) = created {
            // The answer says that the topic is not there; the client asks again.
            tracing::info!(topic = name, %error, "topic not created");
        }
    });
    futures::future::join_all(created).await;
}

type Found = Result<Arc<Topic>, Box<MetadataResponseTopic>>;

/// Each wanted topic once, or the answer that says why not.
fn find(node: &Node, version: i16, wanted: Vec<MetadataRequestTopic>) -> Vec<Found> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for topic in wanted {
        let one = match &topic.name {
            Some(name) => find_by_name(node, name),
            None if version < 12 => Err(ResponseError::UnsupportedVersion),
            None => node
                .topics
                .by_id(topic.topic_id)
                .ok_or(ResponseError::UnknownTopicId),
        };
        let id = match &one {
            Ok(topic) => topic.id,
            Err(_) => topic.topic_id,
        };
        let name = topic.name.as_ref().map(|name| name.0.clone());
        if seen.insert((id, name)) {
            found.push(one.map_err(|error| {
                // A null name can be written from version 12 on; before, an empty one stands for it.
                let name = match topic.name {
                    None if version < 12 => Some(TopicName::default()),
                    name => name,
                };
                Box::new(
                    MetadataResponseTopic::default()
                        .with_error_code(error.code())
                        .with_name(name)
                        .with_topic_id(topic.topic_id),
                )
            }));
        }
    }
    found
}

fn find_by_name(node: &Node, name: &TopicName) -> Result<Arc<Topic>, ResponseError> {
    if name::problem(name.as_str()).is_some() {
        return Err(ResponseError::InvalidTopicException);
    }
    node.topics
        .get(name.as_str())
        .ok_or(ResponseError::UnknownTopicOrPartition)
}

fn describe(node: &Node, version: i16, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter();
    let mut answer = MetadataResponseTopic::default()
        .with_name(Some(create_topics::topic_name(&topic.name)))
        .with_is_internal(topics::is_internal(&topic.name))
        .with_partitions(
            partitions
                .map(|partition| {
                    let replicas = node.replicas(topic, partition.index);
                    describe_partition(node, version, partition, replicas)
                })
                .collect(),
        );
    if version >= 10 {
        answer.topic_id = topic.id;
    }
    answer
}

fn describe_partition(
    node: &Node,
    version: i16,
    partition: &Arc<Partition>,
    replicas: Vec<i32>,
) -> MetadataResponsePartition {
    let replicas: Vec<BrokerId> = replicas.into_iter().map(BrokerId).collect();
    let leader = replicas.first().copied();
    let answer = MetadataResponsePartition::default()
        .with_partition_index(partition.index)
        .with_replica_nodes(replicas.clone())
        .with_isr_nodes(replicas);
    let Some(epoch) = partition.epoch() else {
        partition.open_soon(node.topics.engine());
        return answer
            .with_error_code(ResponseError::LeaderNotAvailable.code())
            .with_leader_id(BrokerId(-1));
    };
    // A partition whose log is not open still has its leader: the next request opens it.
    let mut answer = answer.with_leader_id(leader.unwrap_or(BrokerId(node.id())));
    if version >= 7 {
        answer.leader_epoch = epoch;
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use segment_adapter::{KafkaLog, LogConfig};
    use tokio::time::{sleep, timeout};
    use uuid::Uuid;

    use super::*;
    use crate::node::testing;

    #[tokio::test]
    async fn a_partition_of_unknown_epoch_has_no_leader_until_it_was_opened() {
        let node = testing::node().await;
        let engine = node.topics.engine();
        let group = engine.create_group(KafkaLog::STREAMS, Vec::new()).await;
        let partition = Partition::new(3, group.unwrap().0, Uuid::nil(), LogConfig::default());
        let answer = describe_partition(&node, 12, &partition, vec![node.id()]);
        let found = (answer.error_code, answer.leader_id.0, answer.leader_epoch);
        assert_eq!((answer.partition_index, found), (3, (5, -1, -1)));
        // Being asked is enough.
        let opened = async {
            while partition.epoch().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), opened).await.unwrap();
        let answer = describe_partition(&node, 12, &partition, vec![node.id()]);
        let found = (answer.error_code, answer.leader_id.0, answer.leader_epoch);
        assert_eq!(found, (0, node.id(), partition.epoch().unwrap()));
        assert_eq!(
            describe_partition(&node, 6, &partition, vec![node.id()]).leader_epoch,
            -1
        );
    }
}
