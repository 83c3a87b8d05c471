//! Requests about transactions and their producers.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiKey, DescribeProducersRequest,
    DescribeTransactionsRequest, EndTxnRequest, GroupId, ListTransactionsRequest, ProducerId,
    TransactionalId, WriteTxnMarkersRequest,
    add_partitions_to_txn_request::AddPartitionsToTxnTopic,
    describe_producers_request::TopicRequest,
    write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
};

use super::{Row, encoded, largest, name, row, text};

pub(super) const ROWS: &[Row] = &[
    row::<AddPartitionsToTxnRequest>(
        ApiKey::AddPartitionsToTxn,
        add_partitions_to_txn,
        size_of::<AddPartitionsToTxnTopic>(),
    ),
    row::<AddOffsetsToTxnRequest>(ApiKey::AddOffsetsToTxn, add_offsets_to_txn, 0),
    row::<EndTxnRequest>(ApiKey::EndTxn, end_txn, 0),
    row::<WriteTxnMarkersRequest>(
        ApiKey::WriteTxnMarkers,
        write_txn_markers,
        largest([
            size_of::<WritableTxnMarker>(),
            size_of::<WritableTxnMarkerTopic>(),
        ]),
    ),
    row::<DescribeProducersRequest>(
        ApiKey::DescribeProducers,
        describe_producers,
        size_of::<TopicRequest>(),
    ),
    row::<DescribeTransactionsRequest>(
        ApiKey::DescribeTransactions,
        describe_transactions,
        size_of::<TransactionalId>(),
    ),
    row::<ListTransactionsRequest>(
        ApiKey::ListTransactions,
        list_transactions,
        size_of::<TransactionalId>(),
    ),
];

fn id(id: &'static str) -> TransactionalId {
    TransactionalId(text(id))
}

fn add_partitions_to_txn(version: i16) -> Bytes {
    let topic = |topic, partitions| {
        AddPartitionsToTxnTopic::default()
            .with_name(name(topic))
            .with_partitions(partitions)
    };
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id("id"))
        .with_v3_and_below_producer_id(ProducerId(1))
        .with_v3_and_below_producer_epoch(2)
        .with_v3_and_below_topics(vec![topic("one", vec![0, 1]), topic("two", vec![])]);
    encoded(&request, version)
}

fn add_offsets_to_txn(version: i16) -> Bytes {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id("id"))
        .with_producer_id(ProducerId(1))
        .with_producer_epoch(2)
        .with_group_id(GroupId(text("group")));
    encoded(&request, version)
}

fn end_txn(version: i16) -> Bytes {
    let request = EndTxnRequest::default()
        .with_transactional_id(id("id"))
        .with_producer_id(ProducerId(1))
        .with_producer_epoch(2)
        .with_committed(true);
    encoded(&request, version)
}

fn write_txn_markers(version: i16) -> Bytes {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(name("one"))
        .with_partition_indexes(vec![0, 1]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(1))
        .with_producer_epoch(2)
        .with_transaction_result(true)
        .with_topics(vec![topic])
        .with_coordinator_epoch(3);
    let request =
        WriteTxnMarkersRequest::default().with_markers(vec![marker, WritableTxnMarker::default()]);
    encoded(&request, version)
}

fn describe_producers(version: i16) -> Bytes {
    let topic = |topic, partitions| {
        TopicRequest::default()
            .with_name(name(topic))
            .with_partition_indexes(partitions)
    };
    let request = DescribeProducersRequest::default()
        .with_topics(vec![topic("one", vec![0, 1]), topic("two", vec![])]);
    encoded(&request, version)
}

fn describe_transactions(version: i16) -> Bytes {
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![id("one"), id("two")]);
    encoded(&request, version)
}

fn list_transactions(version: i16) -> Bytes {
    let mut request = ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing"), text("Empty")])
        .with_producer_id_filters(vec![ProducerId(1), ProducerId(2)]);
    if version >= 1 {
        request.duration_filter = 1;
    }
    encoded(&request, version)
}
