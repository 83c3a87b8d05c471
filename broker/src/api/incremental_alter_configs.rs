//! IncrementalAlterConfigs (44): some settings of a resource are set, taken back, or have words added and taken away (F55).

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::AlterConfigsResource,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Abort, Reply, Request,
    configs::{Wanted, alter_all},
};
use crate::{
    node::Node,
    settings::{Alteration, Operation},
    topics::change::Refused,
    wire::response::Response,
};

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: IncrementalAlterConfigsRequest = request.decode()?;
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
    let answer = IncrementalAlterConfigsResponse::default().with_responses(responses.collect());
    Reply::now(Response::encode(request.head, &answer))
}

fn wanted(resource: AlterConfigsResource) -> Result<Wanted, Refused> {
    let invalid = |message: String| Refused::new(ResponseError::InvalidRequest, message);
    let mut seen = BTreeSet::new();
    let mut alterations = Vec::with_capacity(resource.configs.len());
    for config in resource.configs {
        let name = config.name.to_string();
        if !seen.insert(name.clone()) {
            return Err(invalid(format!("{name} is changed twice")));
        }
        let operation = match config.config_operation {
            0 => Operation::Set,
            1 => Operation::Delete,
            2 => Operation::Append,
            3 => Operation::Subtract,
            other => return Err(invalid(format!("unknown operation {other} on {name}"))),
        };
        let value = config.value.as_ref().map(StrBytes::to_string);
        let value = match operation {
            Operation::Delete => value.unwrap_or_default(),
            _ => value.ok_or_else(|| invalid(format!("null value not supported for: {name}")))?,
        };
        alterations.push(Alteration {
            name,
            operation,
            value,
        });
    }
    Ok(Wanted::Changed(alterations))
}
