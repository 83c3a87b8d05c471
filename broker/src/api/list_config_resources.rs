//! ListConfigResources (74): the names of what has settings. Version 0 asks for subscriptions to metrics alone.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse,
        list_config_resources_response::ConfigResource,
    },
};

use super::{
    Abort, Reply, Request,
    configs::{KINDS, names},
};
use crate::{node::Node, wire::response::Response};

pub(super) fn begin(node: &Node, request: Request) -> Result<Reply, Abort> {
    let asked: ListConfigResourcesRequest = request.decode()?;
    let kinds = match request.head.version {
        0 => Vec::new(),
        _ if asked.resource_types.is_empty() => KINDS.to_vec(),
        _ => asked.resource_types,
    };
    let mut answer = ListConfigResourcesResponse::default();
    let mut seen = std::collections::BTreeSet::new();
    for kind in kinds.into_iter().filter(|kind| seen.insert(*kind)) {
        match names(node, kind) {
            Some(names) => answer
                .config_resources
                .extend(names.into_iter().map(|name| {
                    ConfigResource::default()
                        .with_resource_name(name.into())
                        .with_resource_type(kind)
                })),
            None => {
                answer.error_code = ResponseError::UnsupportedVersion.code();
                answer.config_resources.clear();
                break;
            }
        }
    }
    Reply::now(Response::encode(request.head, &answer))
}
