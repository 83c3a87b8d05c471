//! ListTransactions (66): the transactional ids that the node coordinates, by state, producer or age.

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    messages::{
        ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
        list_transactions_response::TransactionState,
    },
    protocol::StrBytes,
};
use segment_adapter::WallClock;

use super::{Abort, Reply, Request, Session};
use crate::{
    clock::SystemClock,
    coordinator::transactions::{
        self, Listed,
        transaction::{Status, Transaction},
    },
    node::Node,
    wire::response::Response,
};

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: ListTransactionsRequest = request.decode()?;
    let local = session.local;
    Reply::later(async move {
        let filter = Filter::new(&asked);
        let unknown = asked.state_filters.iter();
        let unknown = unknown.filter(|name| Status::of_name(name).is_none());
        // Copies: a name would keep the frame in memory until the answer.
        let unknown = unknown.map(|name| StrBytes::from_string(name.to_string()));
        let answer =
            ListTransactionsResponse::default().with_unknown_state_filters(unknown.collect());
        let bytes = node.transactions.list_weight().await.unwrap_or(0);
        let permit = node.budget.response(bytes).await?;
        let here = |partition: &i32| node.leads(transactions::TOPIC, *partition, local);
        let listed = node.transactions.list(here, |txn| filter.wants(txn)).await;
        let answer = match listed {
            Ok(listed) => answer.with_transaction_states(listed.iter().map(state).collect()),
            Err(error) => answer.with_error_code(error.code()),
        };
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

/// What is asked for; an empty set asks for all.
struct Filter {
    any_status: bool,
    statuses: BTreeSet<Status>,
    producers: BTreeSet<i64>,
    /// Began before; `None`: whenever.
    before_ms: Option<i64>,
}

impl Filter {
    fn new(asked: &ListTransactionsRequest) -> Self {
        let names = &asked.state_filters;
        let longer = Some(asked.duration_filter).filter(|longer| *longer >= 0);
        Self {
            any_status: names.is_empty(),
            statuses: names
                .iter()
                .filter_map(|name| Status::of_name(name))
                .collect(),
            producers: asked.producer_id_filters.iter().map(|id| id.0).collect(),
            before_ms: longer.map(|longer| SystemClock.now_ms().saturating_sub(longer)),
        }
    }

    fn wants(&self, txn: &Transaction) -> bool {
        (self.any_status || self.statuses.contains(&txn.status))
            && (self.producers.is_empty() || self.producers.contains(&txn.producer_id))
            && self.before_ms.is_none_or(|before| {
                // Only one that is open has lasted.
                let is_open = txn.status == Status::Ongoing || txn.status.is_ending();
                is_open && txn.started_ms <= before
            })
    }
}

fn state(listed: &Listed) -> TransactionState {
    TransactionState::default()
        .with_transactional_id(TransactionalId(StrBytes::from_string(listed.id.clone())))
        .with_producer_id(ProducerId(listed.producer_id))
        .with_transaction_state(StrBytes::from_static_str(listed.status.name()))
}
