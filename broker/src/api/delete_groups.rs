//! DeleteGroups (42): groups that nobody is in go, with their offsets (F42).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, GroupId,
        delete_groups_response::DeletableGroupResult,
    },
};

use super::{
    Abort, Reply, Request,
    groups::{code, text},
};
use crate::{node::Node, wire::response::Response};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DeleteGroupsRequest = request.decode()?;
    let deleted: Vec<_> = asked
        .groups_names
        .iter()
        .map(|group| {
            let group = group.to_string();
            let done = node
                .groups
                .ask(&group, |groups, _, out| groups.delete(&group, out));
            (group, done)
        })
        .collect();
    Reply::later(async move {
        let mut answer = DeleteGroupsResponse::default();
        for (group, done) in deleted {
            let done = match group.is_empty() {
                true => Err(ResponseError::InvalidGroupId),
                false => done.answer().await.and_then(|done| done),
            };
            answer.results.push(
                DeletableGroupResult::default()
                    .with_group_id(GroupId(text(group)))
                    .with_error_code(code(done)),
            );
        }
        Ok(Response::encode(request.head, &answer)?)
    })
}
