//! FindCoordinator (10): this broker, for every key. There is no other.
//!
//! Who asks for the coordinator of a transactional id is about to use it: the topic of the transactions is made then.
//! What a coordinator of groups does is not served yet, and so not advertised: a client that needs it finds that out from
//! the table, at once. librdkafka compresses with lz4 only for brokers that list this API.

use std::sync::Arc;

use kafka_protocol::{
    messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse},
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, Session};
use crate::{node::Node, wire::response::Response};

/// The kind of key that is a transactional id.
const TRANSACTION: i8 = 1;

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: FindCoordinatorRequest = request.decode()?;
    let local = session.local;
    Reply::later(async move {
        let ready = match asked.key_type {
            TRANSACTION => node.transactions.ensure().await,
            _ => Ok(()),
        };
        let answer = match ready {
            Ok(()) => {
                let (host, port) = node.advertised(local);
                FindCoordinatorResponse::default()
                    .with_node_id(BrokerId(node.id()))
                    .with_host(StrBytes::from_string(host))
                    .with_port(i32::from(port))
            }
            Err(error) => FindCoordinatorResponse::default()
                .with_error_code(error.code())
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        };
        Ok(Response::encode(request.head, &answer)?)
    })
}
