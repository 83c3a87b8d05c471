//! WriteTxnMarkers (27): an operator ends a transaction that its coordinator has forgotten.
//!
//! Of brokers among themselves there is none: decisions of the coordinator are carried out in the process.

use std::sync::Arc;

use futures::{StreamExt, stream};
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

/// Partitions that are written to at one time.
const CONCURRENT: usize = 64;

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

async fn write(node: &Arc<Node>, marker: &WritableTxnMarker) -> WritableTxnMarkerResult {
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
    node: &Arc<Node>,
    topic: &WritableTxnMarkerTopic,
    end: EndTxn,
) -> WritableTxnMarkerTopicResult {
    let name: Arc<str> = topic.name.as_str().into();
    let each = stream::iter(topic.partition_indexes.clone());
    let written = each.map(|index| {
        let (node, name) = (node.clone(), name.clone());
        async move {
            let written = markers::write_for_operator(&node, &name, index, end).await;
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(index)
                .with_error_code(written.err().unwrap_or(0))
        }
    });
    let results: Vec<_> = written.buffered(CONCURRENT).collect().await;
    WritableTxnMarkerTopicResult::default()
        .with_name(topic_name(&name))
        .with_partitions(results)
}
