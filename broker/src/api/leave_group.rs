//! LeaveGroup (13): members go. Versions from 3 on name several, each with its answer.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse},
};

use super::{
    Abort, Reply, Request,
    groups::{code, owned, text},
};
use crate::{coordinator::groups::Leaver, node::Node, wire::response::Response};

/// First version that names several members.
const SEVERAL: i16 = 3;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: LeaveGroupRequest = request.decode()?;
    let group = asked.group_id.to_string();
    let leavers: Vec<Leaver> = match request.head.version {
        SEVERAL.. => asked
            .members
            .iter()
            .map(|member| Leaver {
                member_id: member.member_id.to_string(),
                instance: owned(member.group_instance_id.as_ref()),
            })
            .collect(),
        _ => vec![Leaver {
            member_id: asked.member_id.to_string(),
            instance: None,
        }],
    };
    if group.is_empty() {
        let code = ResponseError::InvalidGroupId.code();
        let answer = LeaveGroupResponse::default().with_error_code(code);
        return Reply::now(Response::encode(request.head, &answer));
    }
    let pending = node.groups.ask(&group, |groups, now, out| {
        groups.leave(&group, &leavers, now, out)
    });
    Reply::later(async move {
        let mut answer = LeaveGroupResponse::default();
        match pending.answer().await {
            Err(error) => answer.error_code = error.code(),
            Ok(answers) if request.head.version < SEVERAL => {
                answer.error_code = answers.into_iter().next().map_or(0, code);
            }
            Ok(answers) => {
                let members = leavers.into_iter().zip(answers).map(|(leaver, done)| {
                    MemberResponse::default()
                        .with_member_id(text(leaver.member_id))
                        .with_group_instance_id(leaver.instance.map(text))
                        .with_error_code(code(done))
                });
                answer.members = members.collect();
            }
        }
        Ok(Response::encode(request.head, &answer)?)
    })
}
