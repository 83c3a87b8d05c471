//! AddOffsetsToTxn (25): a transaction is about to say how far a group has read: the group's partition of
//! `__consumer_offsets` is taken into it.

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse},
};
use segment_adapter::TransactionVersion;

use super::{Abort, Reply, Request, fenced_before};
use crate::{
    coordinator::{groups, transactions::transaction::Partitions},
    node::Node,
    wire::response::Response,
};

/// The first version that tells a fenced producer so.
const FENCED: i16 = 2;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: AddOffsetsToTxnRequest = request.decode()?;
    Reply::later(async move {
        let added = add(&node, &asked).await;
        let fenced = |error| fenced_before(FENCED, request.head.version, error).code();
        let code = added.map_or_else(fenced, |()| 0);
        let answer = AddOffsetsToTxnResponse::default().with_error_code(code);
        Ok(Response::encode(request.head, &answer)?)
    })
}

async fn add(node: &Node, asked: &AddOffsetsToTxnRequest) -> Result<(), ResponseError> {
    let (id, group) = (asked.transactional_id.as_str(), asked.group_id.as_str());
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    // Who has not asked for the group's coordinator yet does so next.
    node.groups.ensure().await?;
    let partition = node.groups.partition_of(group)?;
    let partitions = Partitions::from([(groups::TOPIC.to_owned(), BTreeSet::from([partition]))]);
    let holder = (asked.producer_id.0, asked.producer_epoch);
    let version = TransactionVersion::V0;
    node.transactions.add(id, holder, partitions, version).await
}
