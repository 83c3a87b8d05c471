//! AlterConfigs (33): the settings of a resource are these, and no others. Older tools change one that way, and take away
//! those they do not name.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterConfigsResource,
        alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Abort, Reply, Request,
    configs::{Wanted, alter_all},
};
use crate::{node::Node, settings::Overrides, topics::change::Refused, wire::response::Response};

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: AlterConfigsRequest = request.decode()?;
    let mut names = Vec::with_capacity(asked.resources.len());
    let mut all = Vec::with_capacity(asked.resources.len());
    for resource in asked.resources {
        let name = resource.resource_name.to_string();
        names.push((resource.resource_type, resource.resource_name.clone()));
        all.push((resource.resource_type, name, wanted(resource)));
    }
    let altered = alter_all(&node, all, asked.validate_only).await;
    let responses = names.into_iter().zip(altered).map(|((kind, name), done)| {
        let answer = AlterConfigsResourceResponse::default()
            .with_resource_type(kind)
            .with_resource_name(name);
        match done {
            Ok(()) => answer.with_error_message(None),
            Err(refused) => answer
                .with_error_code(refused.error.code())
                .with_error_message(Some(refused.message.into())),
        }
    });
    let answer = AlterConfigsResponse::default().with_responses(responses.collect());
    Reply::now(Response::encode(request.head, &answer))
}

fn wanted(resource: AlterConfigsResource) -> Result<Wanted, Refused> {
    let invalid = |message: String| Refused::new(ResponseError::InvalidRequest, message);
    let mut overrides = Overrides::new();
    for config in resource.configs {
        let name = config.name.to_string();
        let value = config.value.as_ref().map(StrBytes::to_string);
        let value =
            value.ok_or_else(|| invalid(format!("null value not supported for: {name}")))?;
        if overrides.insert(name.clone(), value).is_some() {
            return Err(invalid(format!("{name} is given twice")));
        }
    }
    Ok(Wanted::All(overrides))
}
