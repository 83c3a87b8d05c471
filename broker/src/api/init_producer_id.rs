//! InitProducerId (22): an id for a producer that sends each batch once, however often it has to send it.
//!
//! Without a transactional id that is all: a new id, epoch 0, and nothing is remembered. With one it is a matter of the
//! transaction coordinator, which there is none of.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId},
};

use super::{Abort, Reply, Request, error_of};
use crate::{node::Node, wire::response::Response};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: InitProducerIdRequest = request.decode()?;
    Reply::later(async move {
        let given = give(&node, &asked).await;
        let (code, id, epoch) = match given {
            Ok(id) => (0, id, 0),
            Err(error) => (error.code(), -1, -1),
        };
        let answer = InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch);
        Ok(Response::encode(request.head, &answer)?)
    })
}

async fn give(node: &Node, asked: &InitProducerIdRequest) -> Result<i64, ResponseError> {
    match &asked.transactional_id {
        Some(id) if id.is_empty() => return Err(ResponseError::InvalidRequest),
        Some(_) => return Err(ResponseError::UnsupportedVersion),
        None => {}
    }
    // An id and an epoch go together.
    if (asked.producer_id.0 == -1) != (asked.producer_epoch == -1) {
        return Err(ResponseError::InvalidRequest);
    }
    let given = node.producer_ids.next(node.topics.engine()).await;
    given.map_err(|error| {
        tracing::warn!(%error, "no producer id");
        match error_of(&error) {
            // What a client tries again for this request.
            ResponseError::RequestTimedOut => ResponseError::CoordinatorLoadInProgress,
            other => other,
        }
    })
}
