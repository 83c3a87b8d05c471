//! OffsetFetch (9): how far a group has read. Versions from 8 on ask for several groups.
//!
//! What nobody has committed is offset -1 without an error, also of a group that there is not (F32).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName,
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};

use super::{
    Abort, Reply, Request,
    create_topics::topic_name,
    groups::{by_topic, text},
};
use crate::{
    coordinator::{
        Pending,
        groups::{Committed, Fetched},
    },
    node::Node,
    wire::response::Response,
};

/// First version with an error for all of it.
const ERRORS: i16 = 2;
/// First version with leader epochs.
const EPOCHS: i16 = 5;
/// About what a partition takes in an answer, besides what is noted with its offset.
const PARTITION_BYTES: usize = 64;
/// First version with several groups.
const GROUPS: i16 = 8;

/// The partitions of a request, all if there are none.
type Wanted = Option<Vec<(String, i32)>>;

struct Asked {
    group: String,
    wanted: Wanted,
    pending: Pending<Result<Vec<Fetched>, ResponseError>>,
}

pub(super) fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: OffsetFetchRequest = request.decode()?;
    let version = request.head.version;
    let ask = |group: &GroupId, member: Option<&StrBytes>, epoch: i32, wanted: Wanted| {
        let group = group.to_string();
        let pending = node.groups.ask(&group, |groups, _, _| {
            groups.check_fetch(&group, member.map(StrBytes::as_str), epoch)?;
            Ok(groups.fetch_offsets(&group, wanted.clone(), asked.require_stable))
        });
        Asked {
            group,
            wanted,
            pending,
        }
    };
    let groups: Vec<Asked> = match version {
        GROUPS.. => asked
            .groups
            .iter()
            .map(|group| {
                let topics = group.topics.as_ref();
                let topics = topics.map(|topics| {
                    let topics = topics.iter();
                    flat(topics.map(|topic| (&topic.name, &topic.partition_indexes)))
                });
                let member = group.member_id.as_ref();
                ask(&group.group_id, member, group.member_epoch, topics)
            })
            .collect(),
        _ => {
            let topics = asked.topics.as_ref();
            let topics = topics.map(|topics| {
                let topics = topics.iter();
                flat(topics.map(|topic| (&topic.name, &topic.partition_indexes)))
            });
            vec![ask(&asked.group_id, None, -1, topics)]
        }
    };
    drop((asked, request.body));
    Reply::later(async move {
        let mut answer = OffsetFetchResponse::default();
        let mut bytes = 0;
        for asked in groups {
            let fetched = asked.pending.answer().await.flatten();
            bytes += fetched.iter().flatten().map(size).sum::<usize>();
            if version >= GROUPS {
                answer.groups.push(of_group(asked.group, fetched));
            } else {
                only(version, &mut answer, asked.wanted, fetched);
            }
        }
        let permit = node.budget.response(bytes).await?;
        Ok(Response::encode(request.head, &answer)?.holding(permit))
    })
}

fn flat<'a>(topics: impl Iterator<Item = (&'a TopicName, &'a Vec<i32>)>) -> Vec<(String, i32)> {
    topics
        .flat_map(|(name, indexes)| indexes.iter().map(|index| (name.to_string(), *index)))
        .collect()
}

/// About what a partition takes in an answer.
fn size(fetched: &Fetched) -> usize {
    let found = fetched.found.iter().flatten();
    PARTITION_BYTES + found.map(|found| found.metadata.len()).sum::<usize>()
}

/// Offset, leader epoch, metadata and code of a partition.
fn fields(found: Result<Option<Committed>, ResponseError>) -> (i64, i32, String, i16) {
    match found {
        Ok(Some(found)) => (found.offset, found.leader_epoch, found.metadata, 0),
        Ok(None) => (-1, -1, String::new(), 0),
        Err(error) => (-1, -1, String::new(), error.code()),
    }
}

fn of_group(
    group: String,
    fetched: Result<Vec<Fetched>, ResponseError>,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(GroupId(text(group)));
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return answer.with_error_code(error.code()),
    };
    let partitions = fetched.into_iter().map(|fetched| {
        let (offset, epoch, metadata, code) = fields(fetched.found);
        let partition = OffsetFetchResponsePartitions::default()
            .with_partition_index(fetched.partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(text(metadata)))
            .with_error_code(code);
        (fetched.topic, partition)
    });
    let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
        OffsetFetchResponseTopics::default()
            .with_name(topic_name(&name))
            .with_partitions(partitions)
    });
    answer.with_topics(topics.collect())
}

/// The answer of versions that ask for one group. Version 1 has no place for an error but with the partitions.
fn only(
    version: i16,
    answer: &mut OffsetFetchResponse,
    wanted: Wanted,
    fetched: Result<Vec<Fetched>, ResponseError>,
) {
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(error) if version >= ERRORS => {
            answer.error_code = error.code();
            return;
        }
        Err(error) => {
            let wanted = wanted.unwrap_or_default().into_iter();
            let failed = |(topic, partition)| Fetched {
                topic,
                partition,
                found: Err(error),
            };
            wanted.map(failed).collect()
        }
    };
    let partitions = fetched.into_iter().map(|fetched| {
        let (offset, epoch, metadata, code) = fields(fetched.found);
        let partition = OffsetFetchResponsePartition::default()
            .with_partition_index(fetched.partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(if version >= EPOCHS { epoch } else { -1 })
            .with_metadata(Some(text(metadata)))
            .with_error_code(code);
        (fetched.topic, partition)
    });
    let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
        OffsetFetchResponseTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(partitions)
    });
    answer.topics = topics.collect();
}
