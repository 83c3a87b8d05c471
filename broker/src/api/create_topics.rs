//! CreateTopics (19): makes topics, or with `validate_only` says what would be made (F53).
//!
//! Any replication factor is accepted: every record is as durable as the log and the bucket make it, and Metadata shows as
//! many replicas as there are nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    settings::Described,
    topics::{self, TopicError, config::TopicConfig, name, placement::Placement},
    wire::response::Response,
};

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
            answer(node, version, topic.name, result)
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
    if topics::is_internal(name) {
        let message = format!("topic {name} is made by the broker itself");
        return Err(Denied::of(ResponseError::InvalidTopicException, message));
    }
    if node.topics.get(name).is_some() {
        let message = format!("topic {name} exists");
        return Err(Denied::of(ResponseError::TopicAlreadyExists, message));
    }
    let (partitions, placement) = partitions(node, topic)?;
    let overrides = topic.configs.iter().map(|config| {
        let value = config.value.as_ref().map(|value| value.to_string());
        (config.name.to_string(), value)
    });
    let _changing = node.topics.settings.changing.read().await;
    let config = TopicConfig::new(overrides)
        .map_err(|message| Denied::of(ResponseError::InvalidConfig, message))?;
    // With what brokers were told.
    let log = config.log_over(&node.topics.defaults());
    log.validate()
        .map_err(|error| Denied::of(ResponseError::InvalidConfig, error.to_string()))?;
    let mut created = Created {
        id: Uuid::nil(),
        partitions,
        replication_factor: placement.replicas as i16,
        config: config.clone(),
    };
    if !validate_only {
        let topics = &node.topics;
        let topic = topics.create_placed(name, partitions, placement, config);
        created.id = topic.await?.id;
    }
    Ok(created)
}

/// How many partitions are asked for and where, -1 being the default.
fn partitions(node: &Node, topic: &CreatableTopic) -> Result<(u32, Placement), Denied> {
    let max = node.config.topics.partitions_max;
    let invalid = |message: String| Denied::of(ResponseError::InvalidPartitions, message);
    let (partitions, placement) = if topic.assignments.is_empty() {
        let partitions = match topic.num_partitions {
            -1 => node.config.topics.partitions_default,
            count => u32::try_from(count)
                .map_err(|_| invalid(format!("{count} partitions cannot be")))?,
        };
        (partitions, replicated(topic.replication_factor)?)
    } else {
        if (topic.num_partitions, topic.replication_factor) != (-1, -1) {
            let message = "both replica assignments and numbers of partitions or replicas are set";
            return Err(Denied::of(ResponseError::InvalidRequest, message));
        }
        let placement = assigned(node, topic)?;
        (placement.assigned.len() as u32, placement)
    };
    if !(1..=max).contains(&partitions) {
        return Err(invalid(format!(
            "{partitions} partitions are not within 1 and {max}, the limit of this broker"
        )));
    }
    Ok((partitions, placement))
}

fn replicated(factor: i16) -> Result<Placement, Denied> {
    match u16::try_from(factor) {
        Err(_) if factor == -1 => Ok(Placement::default()),
        Ok(replicas @ 1..) => Ok(Placement::replicated(replicas)),
        _ => Err(Denied::of(
            ResponseError::InvalidReplicationFactor,
            format!("a replication factor of {factor} cannot be"),
        )),
    }
}

/// Partitions that the client places itself: numbered from 0 without a gap, each on as many nodes.
fn assigned(node: &Node, topic: &CreatableTopic) -> Result<Placement, Denied> {
    let invalid = |message: String| Denied::of(ResponseError::InvalidReplicaAssignment, message);
    let mut assigned = BTreeMap::new();
    for assignment in &topic.assignments {
        let nodes: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        assigned.insert(assignment.partition_index, nodes);
    }
    let count = topic.assignments.len();
    if !assigned.keys().copied().eq(0..count as i32) {
        return Err(invalid(
            "partitions must be numbered from 0 without a gap".into(),
        ));
    }
    let assigned: Vec<Vec<i32>> = assigned.into_values().collect();
    let replicas = assigned[0].len();
    for nodes in &assigned {
        check_nodes(node, nodes, replicas).map_err(invalid)?;
    }
    Ok(Placement {
        replicas: replicas as u16,
        assigned,
    })
}

/// Whether a partition can be on these nodes.
pub(super) fn check_nodes(node: &Node, nodes: &[i32], replicas: usize) -> Result<(), String> {
    let distinct: BTreeSet<&i32> = nodes.iter().collect();
    if nodes.is_empty() || nodes.len() != replicas {
        return Err(format!(
            "every partition needs the same number of replicas, at least one: {replicas} and {}",
            nodes.len()
        ));
    }
    if distinct.len() != nodes.len() {
        return Err(format!("a node stands twice in {nodes:?}"));
    }
    match nodes.iter().find(|id| !node.ids().contains(id)) {
        Some(id) => Err(format!("there is no node {id}")),
        None => Ok(()),
    }
}

impl From<TopicError> for Denied {
    fn from(error: TopicError) -> Self {
        let code = match &error {
            TopicError::Exists(_) | TopicError::Busy(_) => ResponseError::TopicAlreadyExists,
            TopicError::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            TopicError::Refused(refused) => refused.error,
            TopicError::Engine(error) => super::error_of(error),
        };
        Self::of(code, error.to_string())
    }
}

fn answer(
    node: &Node,
    version: i16,
    name: TopicName,
    result: Result<Created, Denied>,
) -> CreatableTopicResult {
    let mut answer = CreatableTopicResult::default()
        .with_name(name)
        .with_error_message(None);
    match result {
        Ok(created) => {
            if version >= 5 {
                answer.num_partitions = created.partitions as i32;
                answer.replication_factor = created.replication_factor;
                answer.configs = Some(configs(node, &created.config));
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

fn configs(node: &Node, config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let described = config.describe(&node.topics.settings).into_iter();
    let row = |described: Described| {
        let value = described.value().map(|value| value.to_owned().into());
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(described.name))
            .with_value(value)
            .with_config_source(described.source() as i8)
    };
    described.map(row).collect()
}
