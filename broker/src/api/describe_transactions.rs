//! DescribeTransactions (65): how far each transactional id has come.

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TransactionalId,
        describe_transactions_response::{TopicData, TransactionState},
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, create_topics::topic_name};
use crate::{
    coordinator::transactions::transaction::{Status, Transaction},
    node::Node,
    wire::response::Response,
};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeTransactionsRequest = request.decode()?;
    Reply::later(async move {
        // Each once, however often it is asked for.
        let ids: BTreeSet<_> = asked.transactional_ids.iter().collect();
        let mut bytes = 0;
        for id in &ids {
            bytes += node.transactions.weight(id).await.unwrap_or(0);
        }
        let permit = node.budget.response(bytes).await?;
        let mut states = Vec::with_capacity(ids.len());
        for id in ids {
            let state = describe(&node, id).await;
            let failed =
                |error: ResponseError| TransactionState::default().with_error_code(error.code());
            let id = TransactionalId(StrBytes::from_string(id.to_string()));
            states.push(state.unwrap_or_else(failed).with_transactional_id(id));
        }
        let answer = DescribeTransactionsResponse::default().with_transaction_states(states);
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

async fn describe(node: &Node, id: &str) -> Result<TransactionState, ResponseError> {
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let txn = node.transactions.describe(id).await?;
    Ok(state(&txn.ok_or(ResponseError::TransactionalIdNotFound)?))
}

fn state(txn: &Transaction) -> TransactionState {
    let topics = txn.partitions.iter().map(|(topic, indexes)| {
        TopicData::default()
            .with_topic(topic_name(topic))
            .with_partitions(indexes.iter().copied().collect())
    });
    // The start of a transaction that is over is nobody's concern.
    let is_open = txn.status == Status::Ongoing || txn.status.is_ending();
    TransactionState::default()
        .with_transaction_state(StrBytes::from_static_str(txn.status.name()))
        .with_transaction_timeout_ms(txn.timeout_ms)
        .with_transaction_start_time_ms(if is_open { txn.started_ms } else { -1 })
        .with_producer_id(ProducerId(txn.producer_id))
        .with_producer_epoch(txn.epoch)
        .with_topics(topics.collect())
}
