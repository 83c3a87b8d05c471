//! AlterPartitionReassignments (45): partitions are on these nodes from now on. Every node serves every partition, so that is
//! done when it is answered, and there is nothing to take back (F57).

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        alter_partition_reassignments_response::{
            ReassignablePartitionResponse, ReassignableTopicResponse,
        },
    },
};

use super::{Abort, Reply, Request, create_topics::check_nodes, refused};
use crate::{
    node::Node,
    topics::{
        Topic,
        change::{Change, Refused},
    },
    wire::response::Response,
};

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: AlterPartitionReassignmentsRequest = request.decode()?;
    let may_resize = request.head.version == 0 || asked.allow_replication_factor_change;
    let moved = asked
        .topics
        .into_iter()
        .map(|topic| reassign(&node, topic, may_resize));
    let responses = futures::future::join_all(moved).await;
    let mut answer = AlterPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_responses(responses);
    if request.head.version >= 1 {
        answer.allow_replication_factor_change = asked.allow_replication_factor_change;
    }
    Reply::now(Response::encode(request.head, &answer))
}

/// Moves what can be moved; the others have their errors.
async fn reassign(
    node: &Node,
    asked: ReassignableTopic,
    may_resize: bool,
) -> ReassignableTopicResponse {
    let name = asked.name.to_string();
    let topic = node.topics.get(&name);
    let mut moves = BTreeMap::new();
    let mut results = Vec::with_capacity(asked.partitions.len());
    for partition in asked.partitions {
        let index = partition.partition_index;
        let checked = check(node, topic.as_deref(), partition, may_resize);
        results.push((
            index,
            checked.map(|nodes| moves.insert(index as usize, nodes)),
        ));
    }
    let moved = match moves.is_empty() {
        true => Ok(()),
        false => {
            let changed = node.topics.change(&name, false, move |mut description| {
                for (index, nodes) in moves {
                    description.placement.assign(index, nodes);
                }
                Ok(Change {
                    partitions: description.groups.len(),
                    description,
                })
            });
            changed.await.map_err(refused)
        }
    };
    let answers = results.into_iter().map(|(index, checked)| {
        let answer = ReassignablePartitionResponse::default().with_partition_index(index);
        match checked.map(drop).and(moved.clone()) {
            Ok(()) => answer.with_error_message(None),
            Err(refused) => answer
                .with_error_code(refused.error.code())
                .with_error_message(Some(refused.message.into())),
        }
    });
    let answers = answers.collect();
    ReassignableTopicResponse::default()
        .with_name(asked.name)
        .with_partitions(answers)
}

fn check(
    node: &Node,
    topic: Option<&Topic>,
    asked: ReassignablePartition,
    may_resize: bool,
) -> Result<Vec<i32>, Refused> {
    let index = asked.partition_index;
    let topic = topic.filter(|topic| topic.partition(index).is_some());
    let topic = topic.ok_or_else(|| {
        let message = "there is no such partition";
        Refused::new(ResponseError::UnknownTopicOrPartition, message)
    })?;
    let nodes = asked.replicas.ok_or_else(|| {
        let message = "no reassignment is in progress";
        Refused::new(ResponseError::NoReassignmentInProgress, message)
    })?;
    let nodes: Vec<i32> = nodes.into_iter().map(|id| id.0).collect();
    check_nodes(node, &nodes, nodes.len())
        .map_err(|message| Refused::new(ResponseError::InvalidReplicaAssignment, message))?;
    if !may_resize && nodes.len() != node.replicas(topic, index).len() {
        let message = "another number of replicas was not allowed";
        let error = ResponseError::InvalidReplicationFactor;
        return Err(Refused::new(error, message));
    }
    Ok(nodes)
}
