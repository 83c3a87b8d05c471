//! CreateTopics (19): makes topics, or with `validate_only` says what would be made (F53).
//!
//! Any replication factor is accepted: every record is as durable as the log and the bucket make it, and one replica is
//! what Metadata shows.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, TopicName,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{Abort, Reply, Request};
use crate::{
    node::Node,
    topics::{
        TopicError,
        config::{KEYS, TopicConfig},
        name,
    },
    wire::response::Response,
};

/// Where a configuration's value comes from, as the protocol counts.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: CreateTopicsRequest = request.decode()?;
    let version = request.head.version;
    let mut times: BTreeMap<TopicName, usize> = BTreeMap::new();
    for topic in &asked.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let created = asked.topics.into_iter().filter_map(|topic| {
        // One answer for a name, whether it stands there once or more.
        let times = times.remove(&topic.name)?;
        let node = &node;
        Some(async move {
            let result = if times > 1 {
                Err(Denied::of(
                    ResponseError::InvalidRequest,
                    "the request has this topic more than once",
                ))
            } else {
                create(node, &topic, asked.validate_only).await
            };
            answer(version, topic.name, result)
        })
    });
    let topics = futures::future::join_all(created).await;
    let answer = CreateTopicsResponse::default().with_topics(topics);
    Reply::now(Response::encode(request.head, &answer))
}

/// What was made, or would be.
struct Created {
    id: Uuid,
    partitions: u32,
    replication_factor: i16,
    config: TopicConfig,
}

/// Why not, for the client.
struct Denied {
    error: ResponseError,
    message: String,
}

impl Denied {
    fn of(error: ResponseError, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }
}

async fn create(
    node: &Node,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<Created, Denied> {
    let name = topic.name.as_str();
    if let Some(problem) = name::problem(name) {
        return Err(Denied::of(ResponseError::InvalidTopicException, problem));
    }
    if node.topics.get(name).is_some() {
        let message = format!("topic {name} exists");
        return Err(Denied::of(ResponseError::TopicAlreadyExists, message));
    }
    let (partitions, replication_factor) = partitions(node, topic)?;
    let overrides = topic.configs.iter().map(|config| {
        let value = config.value.as_ref().map(|value| value.to_string());
        (config.name.to_string(), value)
    });
    let config = TopicConfig::new(overrides)
        .map_err(|message| Denied::of(ResponseError::InvalidConfig, message))?;
    let mut created = Created {
        id: Uuid::nil(),
        partitions,
        replication_factor,
        config: config.clone(),
    };
    if !validate_only {
        created.id = node.topics.create(name, partitions, config).await?.id;
    }
    Ok(created)
}

/// How many partitions and replicas are asked for, -1 being the default.
fn partitions(node: &Node, topic: &CreatableTopic) -> Result<(u32, i16), Denied> {
    let max = node.config.topics.partitions_max;
    let invalid = |message: String| Denied::of(ResponseError::InvalidPartitions, message);
    let (partitions, factor) = if topic.assignments.is_empty() {
        let partitions = match topic.num_partitions {
            -1 => node.config.topics.partitions_default,
            count => u32::try_from(count)
                .map_err(|_| invalid(format!("{count} partitions cannot be")))?,
        };
        (partitions, topic.replication_factor)
    } else {
        if (topic.num_partitions, topic.replication_factor) != (-1, -1) {
            let message = "both replica assignments and numbers of partitions or replicas are set";
            return Err(Denied::of(ResponseError::InvalidRequest, message));
        }
        assigned(topic)?
    };
    if !(1..=max).contains(&partitions) {
        return Err(invalid(format!(
            "{partitions} partitions are not within 1 and {max}, the limit of this broker"
        )));
    }
    match factor {
        -1 => Ok((partitions, 1)),
        factor if factor >= 1 => Ok((partitions, factor)),
        factor => Err(Denied::of(
            ResponseError::InvalidReplicationFactor,
            format!("a replication factor of {factor} cannot be"),
        )),
    }
}

/// Partitions that the client places itself: numbered from 0 without a gap, each on as many brokers.
fn assigned(topic: &CreatableTopic) -> Result<(u32, i16), Denied> {
    let invalid = |message: &str| Denied::of(ResponseError::InvalidReplicaAssignment, message);
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|assignment| assignment.partition_index)
        .collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..indexes.len() as i32) {
        return Err(invalid("partitions must be numbered from 0 without a gap"));
    }
    let factor = topic.assignments[0].broker_ids.len();
    let even = |assignment: &kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment| {
        assignment.broker_ids.len() == factor
    };
    match i16::try_from(factor) {
        Ok(replicas) if replicas > 0 && topic.assignments.iter().all(even) => {
            Ok((indexes.len() as u32, replicas))
        }
        _ => Err(invalid(
            "every partition needs the same number of replicas, at least one",
        )),
    }
}

impl From<TopicError> for Denied {
    fn from(error: TopicError) -> Self {
        let code = match &error {
            TopicError::Exists(_) | TopicError::Busy(_) => ResponseError::TopicAlreadyExists,
            TopicError::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            TopicError::Engine(error) => super::error_of(error),
        };
        Self::of(code, error.to_string())
    }
}

fn answer(version: i16, name: TopicName, result: Result<Created, Denied>) -> CreatableTopicResult {
    let mut answer = CreatableTopicResult::default().with_name(name);
    match result {
        Ok(created) => {
            if version >= 5 {
                answer.num_partitions = created.partitions as i32;
                answer.replication_factor = created.replication_factor;
                answer.configs = Some(configs(&created.config));
            }
            if version >= 7 {
                answer.topic_id = created.id;
            }
        }
        Err(denied) => {
            answer.error_code = denied.error.code();
            answer.error_message = Some(StrBytes::from_string(denied.message));
        }
    }
    answer
}

fn configs(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let row = |key| {
        let (value, chosen) = config.get(key);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(Some(StrBytes::from_string(value.to_owned())))
            .with_config_source(if chosen { SOURCE_TOPIC } else { SOURCE_DEFAULT })
    };
    KEYS.iter().map(row).collect()
}
