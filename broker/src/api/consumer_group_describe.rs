//! ConsumerGroupDescribe (69): consumer groups, their members, and what these have and are to have (KIP-848).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId,
        consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
    },
};

use super::{
    Abort, Reply, Request,
    create_topics::topic_name,
    describe_groups::{NO_OPERATIONS, OPERATIONS},
    groups::text,
};
use crate::{
    coordinator::groups::consumer::{DescribedConsumer, DescribedConsumers, Partitions},
    node::Node,
    wire::response::Response,
};

/// About what a member takes in an answer, besides what it reads.
const MEMBER_BYTES: usize = 400;
/// About what a topic takes, besides its partitions.
const TOPIC_BYTES: usize = 300;
/// First version that says which protocol a member speaks.
const TYPES: i16 = 1;
/// A member that speaks the protocol of its group; 0 would be one of a classic group.
const CONSUMER: i8 = 1;
/// Before [`TYPES`].
const UNKNOWN: i8 = -1;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: ConsumerGroupDescribeRequest = request.decode()?;
    let version = request.head.version;
    let groups = asked.group_ids.iter().map(|group| {
        let group = group.to_string();
        let found = node
            .groups
            .ask(&group, |groups, _, _| groups.describe_consumers(&group));
        (group, found)
    });
    let groups: Vec<_> = groups.collect();
    let operations = if asked.include_authorized_operations {
        OPERATIONS
    } else {
        NO_OPERATIONS
    };
    Reply::later(async move {
        let mut answer = ConsumerGroupDescribeResponse::default();
        for (id, found) in groups {
            let group = match found.answer().await {
                Ok(Some(found)) => describe(&node, version, found),
                Ok(None) => DescribedGroup::default()
                    .with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_error_message(Some(text(format!("Group {id} not found.")))),
                Err(error) => DescribedGroup::default().with_error_code(error.code()),
            };
            let group = group.with_authorized_operations(operations);
            answer.groups.push(group.with_group_id(GroupId(text(id))));
        }
        let permit = node.budget.response(size(&answer)).await?;
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

/// About how much the answer takes.
fn size(answer: &ConsumerGroupDescribeResponse) -> usize {
    let members = answer.groups.iter().flat_map(|group| &group.members);
    let sizes = members.map(|member| {
        let names = member.subscribed_topic_names.iter();
        let names: usize = names.map(|name| name.len() + TOPIC_BYTES).sum();
        let both = [&member.assignment, &member.target_assignment];
        let topics = both.into_iter().flat_map(|both| &both.topic_partitions);
        let topics: usize = topics
            .map(|topic| topic.partitions.len() * size_of::<i32>() + TOPIC_BYTES)
            .sum();
        MEMBER_BYTES + names + topics
    });
    sizes.sum()
}

fn describe(node: &Node, version: i16, found: DescribedConsumers) -> DescribedGroup {
    let members = found.members.into_iter();
    let members = members.map(|found| member(node, version, found));
    DescribedGroup::default()
        .with_group_state(found.state.into())
        .with_group_epoch(found.epoch)
        .with_assignment_epoch(found.target_epoch)
        .with_assignor_name(text(found.assignor))
        .with_members(members.collect())
}

fn member(node: &Node, version: i16, found: DescribedConsumer) -> Member {
    let said = found.subscription;
    let topics = said.topics.iter().map(|name| topic_name(name));
    Member::default()
        .with_member_id(text(found.id))
        .with_instance_id(said.instance.map(text))
        .with_rack_id(said.rack.map(text))
        .with_member_epoch(found.current.epoch)
        .with_client_id(text(said.client_id))
        .with_client_host(text(said.client_host))
        .with_subscribed_topic_names(topics.collect())
        .with_subscribed_topic_regex(said.regex.map(text))
        .with_assignment(assignment(node, found.current.assigned))
        .with_target_assignment(assignment(node, found.target))
        .with_member_type(if version >= TYPES { CONSUMER } else { UNKNOWN })
}

/// Topics that are gone have no name: they are left out.
fn assignment(node: &Node, partitions: Partitions) -> Assignment {
    let topics = partitions.into_iter().filter_map(|(id, partitions)| {
        let topic = node.topics.by_id(id)?;
        let topic = TopicPartitions::default()
            .with_topic_id(id)
            .with_topic_name(topic_name(&topic.name))
            .with_partitions(partitions.into_iter().collect());
        Some(topic)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
