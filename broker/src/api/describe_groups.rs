//! DescribeGroups (15): groups and their members (F41).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};

use super::{Abort, Reply, Request, groups::text};
use crate::{coordinator::groups::Described, node::Node, wire::response::Response};

/// First version in which members have instances.
const INSTANCES: i16 = 4;
/// First version in which a group that there is not is an error.
const NOT_FOUND: i16 = 6;
/// What this broker lets everybody do with a group: operations are bits, as in Kafka (read 3, delete 6, describe 8,
/// describe configs 10, alter configs 11).
pub(super) const OPERATIONS: i32 = 0b1101_0100_1000;
/// About what a member takes in an answer, besides what it says and has.
const MEMBER_BYTES: usize = 300;
/// They were not asked for (F58).
pub(super) const NO_OPERATIONS: i32 = i32::MIN;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeGroupsRequest = request.decode()?;
    let version = request.head.version;
    let groups: Vec<_> = asked
        .groups
        .iter()
        .map(|group| {
            let group = group.to_string();
            let found = node
                .groups
                .ask(&group, |groups, _, _| groups.describe(&group));
            (group, found)
        })
        .collect();
    let operations = if asked.include_authorized_operations {
        OPERATIONS
    } else {
        NO_OPERATIONS
    };
    Reply::later(async move {
        let mut answer = DescribeGroupsResponse::default();
        for (id, found) in groups {
            let mut group = match found.answer().await {
                Ok(Some(found)) => describe(version, found),
                Ok(None) if version >= NOT_FOUND => DescribedGroup::default()
                    .with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_error_message(Some(text(format!("Group {id} not found.")))),
                Ok(None) => DescribedGroup::default(),
                Err(error) => DescribedGroup::default().with_error_code(error.code()),
            };
            if group.group_state.is_empty() {
                group.group_state = "Dead".into();
            }
            group.authorized_operations = operations;
            answer.groups.push(group.with_group_id(GroupId(text(id))));
        }
        let members = answer.groups.iter().flat_map(|group| &group.members);
        let bytes = members
            .map(|m| m.member_metadata.len() + m.member_assignment.len() + MEMBER_BYTES)
            .sum();
        let permit = node.budget.response(bytes).await?;
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

fn describe(version: i16, found: Described) -> DescribedGroup {
    let members = found.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(member.instance.filter(|_| version >= INSTANCES).map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    DescribedGroup::default()
        .with_group_state(found.state.into())
        .with_protocol_type(text(found.protocol_type))
        .with_protocol_data(text(found.protocol))
        .with_members(members.collect())
}
