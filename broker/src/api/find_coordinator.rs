//! FindCoordinator (10): who coordinates a group or a transactional id; the first who asks makes the topic of its state.
//!
//! Versions from 4 on ask for several keys at once. The answer waits a little for a partition that is being loaded, so
//! that the next request finds it.

use std::{sync::Arc, time::Duration};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use tokio::time::Instant;

use super::{Abort, Reply, Request, Session};
use crate::{
    coordinator::{groups, transactions},
    node::{Endpoint, Node},
    wire::response::Response,
};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// First version with several keys.
const KEYS: i16 = 4;
/// How long the answer waits for what is being loaded.
const LOAD_WAIT: Duration = Duration::from_secs(2);

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: FindCoordinatorRequest = request.decode()?;
    let version = request.head.version;
    let local = session.local;
    Reply::later(async move {
        let keys = match version {
            KEYS.. => asked.coordinator_keys,
            _ => vec![asked.key],
        };
        // For all keys together.
        let deadline = Instant::now() + LOAD_WAIT;
        let mut coordinators = Vec::with_capacity(keys.len());
        for key in keys {
            let coordinator = match find(&node, asked.key_type, &key, deadline).await {
                Ok(id) => at(node.endpoint(id, local)),
                Err(error) => failed(error),
            };
            // A copy: the key would keep the frame in memory.
            coordinators.push(coordinator.with_key(StrBytes::from_string(key.to_string())));
        }
        let answer = match version {
            KEYS.. => FindCoordinatorResponse::default().with_coordinators(coordinators),
            _ => only(version, coordinators),
        };
        Ok(Response::encode(request.head, &answer)?)
    })
}

/// The node that leads the partition of the key. Every node would answer.
async fn find(node: &Node, kind: i8, key: &str, deadline: Instant) -> Result<i32, ResponseError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let (topic, partition) = match kind {
        GROUP => {
            node.groups.ensure().await?;
            node.groups.ready(key, left).await;
            (groups::TOPIC, node.groups.partition_of(key)?)
        }
        TRANSACTION => {
            node.transactions.ensure().await?;
            node.transactions.ready(key, left).await;
            (transactions::TOPIC, node.transactions.partition_of(key)?)
        }
        _ => return Err(ResponseError::InvalidRequest),
    };
    let topic = node.topics.get(topic);
    let topic = topic.ok_or(ResponseError::CoordinatorNotAvailable)?;
    Ok(node.leader(&topic, partition))
}

fn at(endpoint: Endpoint) -> Coordinator {
    Coordinator::default()
        .with_node_id(BrokerId(endpoint.id))
        .with_host(StrBytes::from_string(endpoint.host))
        .with_port(i32::from(endpoint.port))
}

fn failed(error: ResponseError) -> Coordinator {
    Coordinator::default()
        .with_node_id(BrokerId(-1))
        .with_port(-1)
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(error.to_string())))
}

/// The answer of versions that ask for one key.
fn only(version: i16, coordinators: Vec<Coordinator>) -> FindCoordinatorResponse {
    let found = coordinators.into_iter().next().unwrap_or_default();
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message.filter(|_| version >= 1))
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}
