//! SyncGroup (14): the leader gives out assignments, and every member gets its own when they are durable.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{
    Abort, Reply, Request,
    groups::{owned, text},
};
use crate::{
    coordinator::groups::{Sync, Synced},
    node::Node,
    wire::response::Response,
};

/// First version that names protocol and type.
const TYPES: i16 = 5;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: SyncGroupRequest = request.decode()?;
    let (head, version) = (request.head, request.head.version);
    let assignments = asked.assignments.iter().map(|assignment| {
        let bytes = Bytes::copy_from_slice(&assignment.assignment);
        (assignment.member_id.to_string(), bytes)
    });
    let sync = Sync {
        group: asked.group_id.to_string(),
        generation: asked.generation_id,
        member_id: asked.member_id.to_string(),
        instance: owned(asked.group_instance_id.as_ref()),
        protocol_type: owned(asked.protocol_type.as_ref()),
        protocol: owned(asked.protocol_name.as_ref()),
        assignments: assignments.collect(),
    };
    let group = sync.group.clone();
    let pending = node.groups.park(&group, |groups, now, out, slot| {
        groups.sync(sync, now, out, slot);
    });
    drop((asked, request.body));
    Reply::later(async move {
        let synced = pending.answer().await;
        let synced = synced.unwrap_or_else(Synced::of);
        let answer = SyncGroupResponse::default()
            .with_error_code(synced.error.map_or(0, |error| error.code()))
            .with_protocol_type(synced.protocol_type.filter(|_| version >= TYPES).map(text))
            .with_protocol_name(synced.protocol.filter(|_| version >= TYPES).map(text))
            .with_assignment(synced.assignment);
        Ok(Response::encode(head, &answer)?)
    })
}
