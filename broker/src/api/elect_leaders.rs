//! ElectLeaders (43): every partition has its leader already (F57).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ElectLeadersRequest, ElectLeadersResponse,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request};
use crate::{node::Node, wire::response::Response};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn begin(node: &Node, request: Request) -> Result<Reply, Abort> {
    let asked: ElectLeadersRequest = request.decode()?;
    let mut answer = ElectLeadersResponse::default();
    if request.head.version >= 1 && ![PREFERRED, UNCLEAN].contains(&asked.election_type) {
        answer.error_code = ResponseError::InvalidRequest.code();
    } else {
        // Who asks for all partitions is told of those that had an election: none.
        let topics = asked.topic_partitions.into_iter().flatten();
        let results = topics.map(|topic| {
            let results = topic.partitions.into_iter().map(|index| {
                let error = elect(node, topic.topic.as_str(), index, asked.election_type);
                PartitionResult::default()
                    .with_partition_id(index)
                    .with_error_code(error.code())
                    .with_error_message(Some(why(error)))
            });
            let results = results.collect();
            ReplicaElectionResult::default()
                .with_topic(topic.topic)
                .with_partition_result(results)
        });
        answer.replica_election_results = results.collect();
    }
    Reply::now(Response::encode(request.head, &answer))
}

/// Why there is no election.
fn elect(node: &Node, topic: &str, index: i32, kind: i8) -> ResponseError {
    let topic = node.topics.get(topic);
    let Some(partition) = topic.as_ref().and_then(|topic| topic.partition(index)) else {
        return ResponseError::UnknownTopicOrPartition;
    };
    match partition.epoch() {
        Some(_) => ResponseError::ElectionNotNeeded,
        None if kind == UNCLEAN => ResponseError::EligibleLeadersNotAvailable,
        None => ResponseError::PreferredLeaderNotAvailable,
    }
}

fn why(error: ResponseError) -> StrBytes {
    StrBytes::from_static_str(match error {
        ResponseError::UnknownTopicOrPartition => "there is no such partition",
        ResponseError::ElectionNotNeeded => "the partition has its leader",
        _ => "nobody can lead the partition yet",
    })
}
