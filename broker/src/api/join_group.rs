//! JoinGroup (11): a member joins its group; the answer comes when everybody has.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
    protocol::StrBytes,
};

use super::{
    Abort, Reply, Request, Session,
    groups::{fresh, owned, text},
};
use crate::{
    coordinator::groups::{Join, Joined},
    node::Node,
    wire::response::Response,
};

/// About what a member takes in an answer, besides what it says.
const MEMBER_BYTES: usize = 200;
/// First version in which a new member must come again with the id it is given.
const NEEDS_ID: i16 = 4;
/// First version in which members have instances.
const INSTANCES: i16 = 5;
/// First version that names the protocol type, and may name no protocol.
const TYPES: i16 = 7;
/// First version whose leader understands that it has nothing to assign.
const CAN_SKIP: i16 = 9;

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: JoinGroupRequest = request.decode()?;
    let (head, version) = (request.head, request.head.version);
    let client_id = request.client_id.unwrap_or_default();
    let instance = owned(asked.group_instance_id.as_ref());
    let called = instance.as_deref().unwrap_or(&client_id);
    let protocols = asked.protocols.iter().map(|protocol| {
        // A copy: what a member says outlives its request.
        let metadata = Bytes::copy_from_slice(&protocol.metadata);
        (protocol.name.to_string(), metadata)
    });
    let join = Join {
        group: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        fresh_id: format!("{called}-{}", fresh().hyphenated()),
        instance,
        client_host: format!("/{}", session.peer.ip().to_canonical()),
        client_id,
        session_ms: asked.session_timeout_ms,
        rebalance_ms: if version >= 1 {
            asked.rebalance_timeout_ms
        } else {
            -1
        },
        protocol_type: asked.protocol_type.to_string(),
        protocols: protocols.collect(),
        needs_id: version >= NEEDS_ID,
        can_skip: version >= CAN_SKIP,
    };
    let (group, member_id) = (join.group.clone(), join.member_id.clone());
    let pending = node.groups.park(&group, |groups, now, out, slot| {
        groups.join(join, now, out, slot);
    });
    // What the frame held has been copied; a rebalance may take minutes.
    drop((asked, request.body));
    Reply::later(async move {
        let joined = pending.answer().await;
        let joined = joined.unwrap_or_else(|error| Joined::of(error, &member_id));
        let said = joined.members.iter().map(|member| member.metadata.len());
        let bytes = said.sum::<usize>() + joined.members.len() * MEMBER_BYTES;
        let permit = node.budget.response(bytes).await?;
        Ok(Response::encode(head, &answer(version, joined))?.holding(permit))
    })
}

fn answer(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(member.instance.filter(|_| version >= INSTANCES).map(text))
            .with_metadata(member.metadata)
    });
    let protocol = match joined.protocol {
        None if version < TYPES => Some(String::new()),
        protocol => protocol,
    };
    JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| error.code()))
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= TYPES).map(text))
        .with_protocol_name(protocol.map(text))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment && version >= CAN_SKIP)
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(members.collect())
}
