//! EndTxn (26): a transaction counts, or does not. The decision is durable when this is answered.
//!
//! From version 5 on (transaction version 2) the answer has the id and epoch of the next transaction. Who asks again,
//! since an answer was lost, is told the same (F48).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{EndTxnRequest, EndTxnResponse, ProducerId},
};
use segment_adapter::TransactionVersion;

use super::{Abort, Reply, Request, fenced_before};
use crate::{node::Node, wire::response::Response};

/// The first version that tells a fenced producer so.
const FENCED: i16 = 2;
/// The first version whose producers have another epoch for each transaction.
const BUMPING: i16 = 5;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: EndTxnRequest = request.decode()?;
    let version = request.head.version;
    Reply::later(async move {
        let ended = end(&node, version, &asked).await;
        let ended = ended.map_err(|error| fenced_before(FENCED, version, error));
        let mut answer = EndTxnResponse::default().with_error_code(code(&ended));
        if version >= BUMPING {
            let (id, epoch) = ended.unwrap_or((-1, -1));
            answer = answer.with_producer_id(ProducerId(id));
            answer.producer_epoch = epoch;
        }
        Ok(Response::encode(request.head, &answer)?)
    })
}

fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().map_or_else(ResponseError::code, |_| 0)
}

async fn end(
    node: &Node,
    version: i16,
    asked: &EndTxnRequest,
) -> Result<(i64, i16), ResponseError> {
    let id = asked.transactional_id.as_str();
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let holder = (asked.producer_id.0, asked.producer_epoch);
    let version = match version >= BUMPING {
        true => TransactionVersion::V2,
        false => TransactionVersion::V0,
    };
    let ended = node
        .transactions
        .end(node, id, holder, asked.committed, version);
    ended.await
}
