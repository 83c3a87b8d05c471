//! DescribeQuorum (55): who decides about the metadata: the first node, as Kafka tells of a quorum of one.
//!
//! The metadata is no topic here, and its entries have no offsets that a client could use: they are told as 0.

use std::net::SocketAddr;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, describe_quorum_request,
        describe_quorum_response::{
            Listener, Node as QuorumNode, PartitionData, ReplicaState, TopicData,
        },
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request, Session, create_topics::topic_name};
use crate::{clock::now_ms, node::Node, wire::response::Response};

/// The only topic that has a quorum.
const METADATA: &str = "__cluster_metadata";
/// First version with the nodes and messages.
const NODES: i16 = 2;

pub(super) fn begin(node: &Node, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: DescribeQuorumRequest = request.decode()?;
    let version = request.head.version;
    let topics = asked.topics.into_iter().map(|topic| {
        let of_metadata = topic.topic_name.as_str() == METADATA;
        let partitions = topic
            .partitions
            .into_iter()
            .map(|partition| describe(node, version, of_metadata, &partition));
        TopicData::default()
            .with_partitions(partitions.collect())
            // A copy: the name would keep the frame in memory.
            .with_topic_name(topic_name(&topic.topic_name))
    });
    let mut answer = DescribeQuorumResponse::default()
        .with_error_message(None)
        .with_topics(topics.collect());
    if version >= NODES {
        answer.nodes = vec![controller(node, session.local)];
    }
    Reply::now(Response::encode(request.head, &answer))
}

fn describe(
    node: &Node,
    version: i16,
    of_metadata: bool,
    asked: &describe_quorum_request::PartitionData,
) -> PartitionData {
    let answer = PartitionData::default()
        .with_partition_index(asked.partition_index)
        .with_error_message(None);
    let epoch = node.topics.engine().epoch();
    let failed = match epoch {
        _ if !of_metadata || asked.partition_index != 0 => ResponseError::UnknownTopicOrPartition,
        None => ResponseError::LeaderNotAvailable,
        Some(epoch) => {
            let epoch = i32::try_from(epoch.get()).unwrap_or(i32::MAX);
            return answer
                .with_leader_id(BrokerId(node.id()))
                .with_leader_epoch(epoch)
                .with_high_watermark(0)
                .with_current_voters(vec![voter(node, version)]);
        }
    };
    answer
        .with_error_code(failed.code())
        .with_leader_id(BrokerId(-1))
        .with_leader_epoch(-1)
        .with_high_watermark(-1)
}

fn voter(node: &Node, version: i16) -> ReplicaState {
    let mut voter = ReplicaState::default()
        .with_replica_id(BrokerId(node.id()))
        .with_log_end_offset(0);
    if version >= 1 {
        let now = now_ms();
        voter.last_fetch_timestamp = now;
        voter.last_caught_up_timestamp = now;
    }
    voter
}

fn controller(node: &Node, local: SocketAddr) -> QuorumNode {
    let endpoint = node.endpoint(node.id(), local);
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str("PLAINTEXT"))
        .with_host(endpoint.host.into())
        .with_port(endpoint.port);
    QuorumNode::default()
        .with_node_id(BrokerId(endpoint.id))
        .with_listeners(vec![listener])
}
