//! ListOffsets (2): where a partition starts and ends, and the first record of a time (F27, F28).
//!
//! Nothing above the high watermark is found, and above the last stable offset nothing by a reader of committed data (F29).

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, stream};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use parking_lot::Mutex;
use segment_adapter::{Isolation, TimestampOffset, TimestampSpec};
use tokio::time::Instant;

use super::{Abort, Reply, Request, check_epoch, find_partition, isolation, let_others};
use crate::{node::Node, wire::response::Response};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// Where what is local begins: nothing is anywhere else.
const EARLIEST_LOCAL: i64 = -4;
/// The last record that is in remote storage: there is none beside the bucket, so no record is found.
const LATEST_TIERED: i64 = -5;
/// First version that may ask for the largest time.
const MAX_TIMESTAMP_SINCE: i16 = 7;
/// First versions that may ask about remote storage.
const EARLIEST_LOCAL_SINCE: i16 = 8;
const LATEST_TIERED_SINCE: i16 = 9;
/// First version with leader epochs.
const EPOCHS: i16 = 4;
/// Look-ups of one request that run at one time: few, since others come in between only when each has had its turn.
const CONCURRENT: usize = 8;

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: ListOffsetsRequest = request.decode()?;
    let version = request.head.version;
    let isolation = isolation(asked.isolation_level);
    Reply::later(async move {
        let mut seen = BTreeSet::new();
        // Of the whole request: many short look-ups are long, too.
        let turn = Mutex::new(Instant::now());
        let mut topics = Vec::with_capacity(asked.topics.len());
        for topic in asked.topics {
            let asked = topic.partitions.into_iter().map(|partition| {
                let first = seen.insert((topic.name.clone(), partition.partition_index));
                (partition, first)
            });
            let asked: Vec<_> = asked.collect();
            let name = topic.name.as_str();
            let partitions = stream::iter(asked)
                .map(|(partition, first)| {
                    let (node, turn) = (&node, &turn);
                    async move {
                        let found = if first {
                            look_up(node, version, name, &partition, isolation).await
                        } else {
                            Err(ResponseError::InvalidRequest.code())
                        };
                        let mut begun = *turn.lock();
                        let_others(&mut begun).await;
                        *turn.lock() = begun;
                        answer(version, partition.partition_index, found)
                    }
                })
                .buffered(CONCURRENT)
                .collect()
                .await;
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        let answer = ListOffsetsResponse::default().with_topics(topics);
        Ok(Response::encode(request.head, &answer)?)
    })
}

/// What is answered for no record.
const NOT_FOUND: TimestampOffset = TimestampOffset {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

async fn look_up(
    node: &Node,
    version: i16,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<TimestampOffset, i16> {
    let spec = match asked.timestamp {
        LATEST => TimestampSpec::Latest,
        EARLIEST => TimestampSpec::Earliest,
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_SINCE => TimestampSpec::MaxTimestamp,
        EARLIEST_LOCAL if version >= EARLIEST_LOCAL_SINCE => TimestampSpec::Earliest,
        // Only whether the partition is there is looked at.
        LATEST_TIERED if version >= LATEST_TIERED_SINCE => TimestampSpec::Earliest,
        time if time >= 0 => TimestampSpec::At(time),
        _ => return Err(ResponseError::UnsupportedVersion.code()),
    };
    let (partition, leading) = find_partition(node, topic, asked.partition_index).await?;
    check_epoch(&leading, asked.current_leader_epoch).map_err(|error| error.code())?;
    if asked.timestamp == LATEST_TIERED {
        return Ok(NOT_FOUND);
    }
    let found = leading
        .log
        .fetch_offset_for_timestamp(spec, isolation)
        .await;
    found.map_err(|error| {
        partition.note(&leading, &error);
        error.code()
    })
}

fn answer(
    version: i16,
    index: i32,
    found: Result<TimestampOffset, i16>,
) -> ListOffsetsPartitionResponse {
    let mut answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_timestamp(-1)
        .with_offset(-1);
    match found {
        Ok(found) => {
            answer.offset = found.offset;
            answer.timestamp = found.timestamp;
            if version >= EPOCHS {
                answer.leader_epoch = found.leader_epoch;
            }
        }
        Err(code) => answer.error_code = code,
    }
    answer
}
