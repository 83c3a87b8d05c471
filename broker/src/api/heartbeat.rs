//! Heartbeat (12): a member of a group is there.

use std::sync::Arc;

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{
    Abort, Reply, Request,
    groups::{code, owned},
};
use crate::{coordinator::groups::Heartbeat, node::Node, wire::response::Response};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: HeartbeatRequest = request.decode()?;
    let beat = Heartbeat {
        group: asked.group_id.to_string(),
        generation: asked.generation_id,
        member_id: asked.member_id.to_string(),
        instance: owned(asked.group_instance_id.as_ref()),
    };
    let pending = node.groups.ask(&beat.group.clone(), |groups, now, _| {
        groups.heartbeat(&beat, now)
    });
    Reply::later(async move {
        let done = pending.answer().await.and_then(|done| done);
        let answer = HeartbeatResponse::default().with_error_code(code(done));
        Ok(Response::encode(request.head, &answer)?)
    })
}
