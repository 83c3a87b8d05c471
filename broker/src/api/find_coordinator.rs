//! FindCoordinator (10): this broker, for every key. There is no other.
//!
//! What a coordinator does is not served yet, and so not advertised: a client that needs it finds that out from the table,
//! at once. librdkafka compresses with lz4 only for brokers that list this API.

use kafka_protocol::{
    messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse},
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, Session};
use crate::{node::Node, wire::response::Response};

pub(super) fn begin(node: &Node, session: &Session, request: Request) -> Result<Reply, Abort> {
    let _: FindCoordinatorRequest = request.decode()?;
    let (host, port) = node.advertised(session.local);
    let answer = FindCoordinatorResponse::default()
        .with_node_id(BrokerId(node.id()))
        .with_host(StrBytes::from_string(host))
        .with_port(i32::from(port));
    Reply::now(Response::encode(request.head, &answer))
}
