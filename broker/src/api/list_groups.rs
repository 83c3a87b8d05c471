//! ListGroups (16): every group that the node coordinates, or those in some states and of some types (F41).

use std::sync::Arc;

use kafka_protocol::{
    messages::{GroupId, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup},
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, Session, groups::text};
use crate::{coordinator::groups, node::Node, wire::response::Response};

/// First version with states.
const STATES: i16 = 4;
/// First version with types.
const TYPES: i16 = 5;
/// About what a group takes in an answer.
const GROUP_BYTES: usize = 200;

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: ListGroupsRequest = request.decode()?;
    let version = request.head.version;
    let wants = |filter: &[StrBytes], word: &str| {
        filter.is_empty()
            || filter
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(word))
    };
    let partitions = (0..node.groups.partitions())
        .filter(|index| node.leads(groups::TOPIC, *index, session.local))
        .map(|index| node.groups.ask_at(index, |groups, _, _| groups.list()));
    let partitions: Vec<_> = partitions.collect();
    Reply::later(async move {
        let mut answer = ListGroupsResponse::default();
        for pending in partitions {
            match pending.answer().await {
                // What there is of the others is said all the same.
                Err(error) => answer.error_code = error.code(),
                Ok(listed) => answer.groups.extend(
                    listed
                        .into_iter()
                        .filter(|group| wants(&asked.states_filter, group.state))
                        .filter(|group| wants(&asked.types_filter, group.kind))
                        .map(|group| {
                            let listed = ListedGroup::default()
                                .with_group_id(GroupId(text(group.id)))
                                .with_protocol_type(text(group.protocol_type));
                            match version {
                                ..STATES => listed,
                                STATES => listed.with_group_state(group.state.into()),
                                TYPES.. => listed
                                    .with_group_state(group.state.into())
                                    .with_group_type(group.kind.into()),
                            }
                        }),
                ),
            }
        }
        let permit = node
            .budget
            .response(answer.groups.len() * GROUP_BYTES)
            .await?;
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}
