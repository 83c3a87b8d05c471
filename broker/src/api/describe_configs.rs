//! DescribeConfigs (32): every setting of topics, brokers and groups, where its value comes from, and what it does (F54).

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, Session, configs::Resource};
use crate::{
    node::Node,
    settings::{Described, broker, group, store::Place},
    topics::change::Refused,
    wire::response::Response,
};

/// First version with types and documentation.
const TYPES: i16 = 3;
/// The most resources that one request is told about.
const RESOURCES_MAX: usize = 10_000;
/// About what a resource takes in memory.
const RESOURCE_BYTES: usize = 16 * 1024;

/// How much a client wants to know.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    types: bool,
    about: bool,
}

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeConfigsRequest = request.decode()?;
    let types = request.head.version >= TYPES;
    let wanted = Wanted {
        synonyms: asked.include_synonyms,
        types,
        about: types && asked.include_documentation,
    };
    let local = session.local;
    Reply::later(async move {
        let bytes = asked.resources.len().min(RESOURCES_MAX) * RESOURCE_BYTES;
        let permit = node.budget.response(bytes).await?;
        let mut results = Vec::with_capacity(asked.resources.len());
        for (place, resource) in asked.resources.into_iter().enumerate() {
            let described = if place < RESOURCES_MAX {
                describe(&node, local, &resource)
            } else {
                let message = format!("more than {RESOURCES_MAX} resources in one request");
                Err(Refused::new(ResponseError::InvalidRequest, message))
            };
            results.push(answer(wanted, resource, described));
            // Thousands of topics keep a thread busy for a while.
            tokio::task::yield_now().await;
        }
        let answer = DescribeConfigsResponse::default().with_results(results);
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

fn describe(
    node: &Node,
    local: SocketAddr,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refused> {
    let name = resource.resource_name.as_str();
    let store = &node.topics.settings;
    Ok(match Resource::find(node, resource.resource_type, name)? {
        Resource::Topic(name) => match node.topics.get(&name) {
            Some(topic) => topic.config.describe(store),
            None => {
                let message = format!("topic {name} was just deleted");
                let error = ResponseError::UnknownTopicOrPartition;
                return Err(Refused::new(error, message));
            }
        },
        Resource::AllBrokers => broker::describe_all_brokers(node),
        Resource::Broker(id) => broker::describe(node, id, local),
        Resource::Group(name) => group::describe(&store.get(&Place::Group(name))),
        Resource::ClientMetrics(_) => Vec::new(),
    })
}

fn answer(
    wanted: Wanted,
    resource: DescribeConfigsResource,
    described: Result<Vec<Described>, Refused>,
) -> DescribeConfigsResult {
    // No keys, or none at all: every one.
    let keys: BTreeSet<StrBytes> = resource.configuration_keys.into_iter().flatten().collect();
    let answer = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name);
    match described {
        Ok(described) => {
            let asked = described
                .into_iter()
                .filter(|one| keys.is_empty() || keys.contains(one.name.as_bytes()));
            answer
                .with_error_message(None)
                .with_configs(asked.map(|one| row(wanted, one)).collect())
        }
        Err(refused) => answer
            .with_error_code(refused.error.code())
            .with_error_message(Some(StrBytes::from_string(refused.message))),
    }
}

fn row(wanted: Wanted, described: Described) -> DescribeConfigsResourceResult {
    let value = described.value().map(|value| value.to_owned().into());
    let mut row = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(described.name))
        .with_value(value)
        .with_read_only(described.read_only)
        .with_config_source(described.source() as i8);
    if wanted.synonyms {
        let synonyms = described.values.into_iter().map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(synonym.name))
                .with_value(Some(synonym.value.into()))
                .with_source(synonym.source as i8)
        });
        row.synonyms = synonyms.collect();
    }
    if wanted.types {
        row.config_type = described.kind.protocol_type();
    }
    row.documentation = wanted
        .about
        .then(|| StrBytes::from_static_str(described.about));
    row
}
