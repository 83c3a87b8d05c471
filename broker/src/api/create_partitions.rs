//! CreatePartitions (37): topics have so many partitions from now on, shown when it is answered, one answer for each (F10).

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
};

use super::{Abort, Reply, Request, create_topics::check_nodes, refused};
use crate::{
    node::Node,
    topics::{
        self,
        change::{Change, Refused},
        description::Description,
    },
    wire::response::Response,
};

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: CreatePartitionsRequest = request.decode()?;
    let dry = asked.validate_only;
    let mut times: BTreeMap<TopicName, usize> = BTreeMap::new();
    for topic in &asked.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let created = asked.topics.into_iter().filter_map(|topic| {
        // One answer for a name, whether it stands there once or more.
        let times = times.remove(&topic.name)?;
        let node = &node;
        Some(async move {
            let name = topic.name.clone();
            let done = if times > 1 {
                let message = "the request has this topic more than once";
                Err(Refused::new(ResponseError::InvalidRequest, message))
            } else {
                create(node, topic, dry).await
            };
            let answer = CreatePartitionsTopicResult::default().with_name(name);
            match done {
                Ok(()) => answer,
                Err(refused) => answer
                    .with_error_code(refused.error.code())
                    .with_error_message(Some(refused.message.into())),
            }
        })
    });
    let results = futures::future::join_all(created).await;
    let answer = CreatePartitionsResponse::default().with_results(results);
    Reply::now(Response::encode(request.head, &answer))
}

async fn create(node: &Arc<Node>, topic: CreatePartitionsTopic, dry: bool) -> Result<(), Refused> {
    let name = topic.name.to_string();
    if topics::is_internal(&name) {
        // Its coordinators have taken the partitions that there are.
        let message = format!("topic {name} keeps its partitions");
        return Err(Refused::new(ResponseError::InvalidRequest, message));
    }
    let asking = node.clone();
    let change = move |description| grown(&asking, description, topic);
    let changed = node.topics.change(&name, dry, change).await;
    changed.map_err(refused)
}

/// The topic with more partitions.
fn grown(
    node: &Node,
    mut description: Description,
    asked: CreatePartitionsTopic,
) -> Result<Change, Refused> {
    let invalid = |message: String| Refused::new(ResponseError::InvalidPartitions, message);
    let has = description.groups.len();
    let max = node.config.topics.partitions_max;
    let count = usize::try_from(asked.count).unwrap_or(0);
    if count <= has {
        let message = format!(
            "the topic has {has} partitions, {} is not more",
            asked.count
        );
        return Err(invalid(message));
    }
    if count > max as usize {
        return Err(invalid(format!(
            "{count} partitions are more than {max}, the limit of this broker"
        )));
    }
    if let Some(assignments) = asked.assignments {
        let invalid = |message| Refused::new(ResponseError::InvalidReplicaAssignment, message);
        if assignments.len() != count - has {
            let more = count - has;
            let message = format!("{} assignments for {more} partitions", assignments.len());
            return Err(invalid(message));
        }
        let replicas = assignments[0].broker_ids.len();
        for (index, assignment) in (has..).zip(assignments) {
            let nodes: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
            check_nodes(node, &nodes, replicas).map_err(invalid)?;
            description.placement.assign(index, nodes);
        }
    }
    Ok(Change {
        description,
        partitions: count,
    })
}
