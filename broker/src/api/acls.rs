//! DescribeAcls (29), CreateAcls (30) and DeleteAcls (31): nothing is secured here, and every answer says so.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
        DescribeAclsRequest, DescribeAclsResponse, create_acls_response::AclCreationResult,
        delete_acls_response::DeleteAclsFilterResult,
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request};
use crate::wire::response::Response;

const MESSAGE: StrBytes = StrBytes::from_static_str("no authorizer is configured on this broker");

pub(super) fn describe(request: Request) -> Result<Reply, Abort> {
    let _: DescribeAclsRequest = request.decode()?;
    let answer = DescribeAclsResponse::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(MESSAGE));
    Reply::now(Response::encode(request.head, &answer))
}

pub(super) fn create(request: Request) -> Result<Reply, Abort> {
    let asked: CreateAclsRequest = request.decode()?;
    let result = AclCreationResult::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(MESSAGE));
    let results = vec![result; asked.creations.len()];
    let answer = CreateAclsResponse::default().with_results(results);
    Reply::now(Response::encode(request.head, &answer))
}

pub(super) fn delete(request: Request) -> Result<Reply, Abort> {
    let asked: DeleteAclsRequest = request.decode()?;
    let result = DeleteAclsFilterResult::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(MESSAGE));
    let results = vec![result; asked.filters.len()];
    let answer = DeleteAclsResponse::default().with_filter_results(results);
    Reply::now(Response::encode(request.head, &answer))
}
