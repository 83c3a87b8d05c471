//! WriteTxnMarkers (27): an operator ends a transaction that its coordinator has forgotten.
//!
//! Of brokers among themselves there is none: decisions of the coordinator are carried out in the process.

use std::sync::Arc;

use kafka_protocol::messages::{
    WriteTxnMarkersRequest, WriteTxnMarkersResponse,
    write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    write_txn_markers_response::{
        WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    },
};
use segment_adapter::{EndTxn, TransactionVersion};

use super::{Abort, Reply, Request, create_topics::topic_name};
use crate::{coordinator::transactions::markers, node::Node, wire::response::Response};

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: WriteTxnMarkersRequest = request.decode()?;
    Reply::later(async move {
        let mut results = Vec::with_capacity(asked.markers.len());
        for marker in &asked.markers {
            results.push(write(&node, marker).await);
        }
        let answer = WriteTxnMarkersResponse::default().with_markers(results);
        Ok(Response::encode(request.head, &answer)?)
    })
}

async fn write(node: &Node, marker: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let end = EndTxn {
        producer_id: marker.producer_id.0,
        producer_epoch: marker.producer_epoch,
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.transaction_result,
        // This version of the request does not say how the producer counts epochs.
        version: TransactionVersion::V1,
    };
    let mut topics = Vec::with_capacity(marker.topics.len());
    for topic in &marker.topics {
        topics.push(write_topic(node, topic, end).await);
    }
    WritableTxnMarkerResult::default()
        .with_producer_id(marker.producer_id)
        .with_topics(topics)
}

async fn write_topic(
    node: &Node,
    topic: &WritableTxnMarkerTopic,
    end: EndTxn,
) -> WritableTxnMarkerTopicResult {
    let name = topic.name.as_str();
    let mut results = Vec::with_capacity(topic.partition_indexes.len());
    for index in &topic.partition_indexes {
        let written = markers::write(node, name, *index, end).await;
        results.push(
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(*index)
                .with_error_code(written.err().unwrap_or(0)),
        );
    }
    WritableTxnMarkerTopicResult::default()
        .with_name(topic_name(name))
        .with_partitions(results)
}
