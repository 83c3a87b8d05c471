//! DescribeCluster (60): the nodes and who is the controller.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeClusterRequest, DescribeClusterResponse,
        describe_cluster_response::DescribeClusterBroker,
    },
};

use super::{Abort, Reply, Request, Session, metadata::CLUSTER_OPERATIONS};
use crate::{node::Node, wire::response::Response};

/// What a client that names no kind of endpoint wants.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn begin(node: &Node, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeClusterRequest = request.decode()?;
    let version = request.head.version;
    let refused = match asked.endpoint_type {
        _ if version == 0 => None,
        BROKERS => None,
        // Controllers have no port of their own.
        CONTROLLERS => Some(ResponseError::MismatchedEndpointType),
        _ => Some(ResponseError::UnsupportedEndpointType),
    };
    let mut answer = DescribeClusterResponse::default();
    if let Some(error) = refused {
        answer.error_code = error.code();
        answer.error_message = Some("brokers alone can be asked here".into());
    } else {
        let brokers = node.endpoints(session.local).into_iter().map(|endpoint| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(endpoint.id))
                .with_host(endpoint.host.into())
                .with_port(i32::from(endpoint.port))
        });
        answer.brokers = brokers.collect();
        answer.cluster_id = node.cluster_id.clone().into();
        answer.controller_id = BrokerId(node.id());
        if asked.include_cluster_authorized_operations {
            answer.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
    }
    Reply::now(Response::encode(request.head, &answer))
}
