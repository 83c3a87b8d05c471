//! InitProducerId (22): an id for a producer that sends each batch once, however often it has to send it.
//!
//! Without a transactional id that is all: a new id, epoch 0, and nothing is remembered. With one it makes the asker the
//! one producer of it: whoever was before cannot write any more, and its transaction is aborted (F47).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId},
};

use super::{Abort, Reply, Request, fenced_before};
use crate::{node::Node, wire::response::Response};

/// The first version that tells a fenced producer so.
const FENCED: i16 = 4;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: InitProducerIdRequest = request.decode()?;
    Reply::later(async move {
        let given = give(&node, &asked).await;
        let given = given.map_err(|error| fenced_before(FENCED, request.head.version, error));
        let (code, (id, epoch)) = match given {
            Ok(given) => (0, given),
            Err(error) => (error.code(), (-1, -1)),
        };
        let answer = InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch);
        Ok(Response::encode(request.head, &answer)?)
    })
}

async fn give(node: &Node, asked: &InitProducerIdRequest) -> Result<(i64, i16), ResponseError> {
    let holder = (asked.producer_id.0, asked.producer_epoch);
    // An id and an epoch go together.
    if (holder.0 == -1) != (holder.1 == -1) {
        return Err(ResponseError::InvalidRequest);
    }
    let Some(id) = &asked.transactional_id else {
        return Ok((node.next_producer_id().await?, 0));
    };
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    // F46
    let longest = node.config.transactions.timeout_max_ms;
    if !(1..=longest).contains(&asked.transaction_timeout_ms) {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    let holder = (holder.0 >= 0).then_some(holder);
    let timeout_ms = asked.transaction_timeout_ms;
    node.transactions.init(node, id, holder, timeout_ms).await
}
