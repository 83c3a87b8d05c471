//! Requests about groups and their offsets.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
        DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
        LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
        OffsetFetchRequest, ProducerId, SyncGroupRequest, TransactionalId, TxnOffsetCommitRequest,
        consumer_group_heartbeat_request::TopicPartitions,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        },
        sync_group_request::SyncGroupRequestAssignment,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};

use super::{Row, encoded, largest, name, row, text};

pub(super) const ROWS: &[Row] = &[
    row::<OffsetCommitRequest>(
        ApiKey::OffsetCommit,
        offset_commit,
        largest([
            size_of::<OffsetCommitRequestTopic>(),
            size_of::<OffsetCommitRequestPartition>(),
        ]),
    ),
    row::<OffsetFetchRequest>(
        ApiKey::OffsetFetch,
        offset_fetch,
        largest([
            size_of::<OffsetFetchRequestGroup>(),
            size_of::<OffsetFetchRequestTopic>(),
            size_of::<OffsetFetchRequestTopics>(),
        ]),
    ),
    row::<FindCoordinatorRequest>(
        ApiKey::FindCoordinator,
        find_coordinator,
        size_of::<StrBytes>(),
    ),
    row::<JoinGroupRequest>(
        ApiKey::JoinGroup,
        join_group,
        size_of::<JoinGroupRequestProtocol>(),
    ),
    row::<HeartbeatRequest>(ApiKey::Heartbeat, heartbeat, 0),
    row::<LeaveGroupRequest>(ApiKey::LeaveGroup, leave_group, size_of::<MemberIdentity>()),
    row::<SyncGroupRequest>(
        ApiKey::SyncGroup,
        sync_group,
        size_of::<SyncGroupRequestAssignment>(),
    ),
    row::<TxnOffsetCommitRequest>(
        ApiKey::TxnOffsetCommit,
        txn_offset_commit,
        largest([
            size_of::<TxnOffsetCommitRequestTopic>(),
            size_of::<TxnOffsetCommitRequestPartition>(),
        ]),
    ),
    row::<DescribeGroupsRequest>(
        ApiKey::DescribeGroups,
        describe_groups,
        size_of::<GroupId>(),
    ),
    row::<ListGroupsRequest>(ApiKey::ListGroups, list_groups, size_of::<StrBytes>()),
    row::<DeleteGroupsRequest>(ApiKey::DeleteGroups, delete_groups, size_of::<GroupId>()),
    row::<OffsetDeleteRequest>(
        ApiKey::OffsetDelete,
        offset_delete,
        largest([
            size_of::<OffsetDeleteRequestTopic>(),
            size_of::<OffsetDeleteRequestPartition>(),
        ]),
    ),
    row::<ConsumerGroupHeartbeatRequest>(
        ApiKey::ConsumerGroupHeartbeat,
        consumer_group_heartbeat,
        largest([size_of::<StrBytes>(), size_of::<TopicPartitions>()]),
    ),
    row::<ConsumerGroupDescribeRequest>(
        ApiKey::ConsumerGroupDescribe,
        consumer_group_describe,
        size_of::<GroupId>(),
    ),
];

fn group(name: &'static str) -> GroupId {
    GroupId(text(name))
}

fn offset_commit(version: i16) -> Bytes {
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(3)
        .with_member_id(text("m"))
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(name("one"))
                .with_partitions(vec![
                    OffsetCommitRequestPartition::default().with_committed_offset(7),
                    OffsetCommitRequestPartition::default()
                        .with_committed_metadata(Some(text("note"))),
                ]),
        ]);
    if version >= 7 {
        request.group_instance_id = Some(text("i"));
    }
    encoded(&request, version)
}

fn offset_fetch(version: i16) -> Bytes {
    let mut request = OffsetFetchRequest::default();
    if version >= 8 {
        let mut asked = OffsetFetchRequestGroup::default()
            .with_group_id(group("g"))
            .with_topics(Some(vec![
                OffsetFetchRequestTopics::default()
                    .with_name(name("one"))
                    .with_partition_indexes(vec![1, 2]),
            ]));
        if version >= 9 {
            asked.member_id = Some(text("m"));
            asked.member_epoch = 4;
        }
        request.groups = vec![asked.clone(), asked];
    } else {
        request.group_id = group("g");
        request.topics = Some(vec![
            OffsetFetchRequestTopic::default()
                .with_name(name("one"))
                .with_partition_indexes(vec![1, 2]),
        ]);
    }
    request.require_stable = version >= 7;
    encoded(&request, version)
}

fn find_coordinator(version: i16) -> Bytes {
    let mut request = FindCoordinatorRequest::default();
    if version >= 4 {
        request.coordinator_keys = vec![text("one"), text("two")];
    } else {
        request.key = text("group");
    }
    request.key_type = i8::from(version >= 1);
    encoded(&request, version)
}

fn join_group(version: i16) -> Bytes {
    let protocol = |name| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(Bytes::from_static(&[1; 40]))
    };
    let mut request = JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_member_id(text("m"))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("sticky")]);
    if version >= 1 {
        request.rebalance_timeout_ms = 60_000;
    }
    if version >= 5 {
        request.group_instance_id = Some(text("i"));
    }
    if version >= 8 {
        request.reason = Some(text("why"));
    }
    encoded(&request, version)
}

fn heartbeat(version: i16) -> Bytes {
    let mut request = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(3)
        .with_member_id(text("m"));
    if version >= 3 {
        request.group_instance_id = Some(text("i"));
    }
    encoded(&request, version)
}

fn leave_group(version: i16) -> Bytes {
    let mut request = LeaveGroupRequest::default().with_group_id(group("g"));
    if version >= 3 {
        let mut member = MemberIdentity::default()
            .with_member_id(text("m"))
            .with_group_instance_id(Some(text("i")));
        if version >= 5 {
            member.reason = Some(text("why"));
        }
        request.members = vec![member.clone(), member];
    } else {
        request.member_id = text("m");
    }
    encoded(&request, version)
}

fn sync_group(version: i16) -> Bytes {
    let assignment = |member| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(Bytes::from_static(&[2; 30]))
    };
    let mut request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(3)
        .with_member_id(text("m"))
        .with_assignments(vec![assignment("m"), assignment("n")]);
    if version >= 3 {
        request.group_instance_id = Some(text("i"));
    }
    if version >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    encoded(&request, version)
}

fn describe_groups(version: i16) -> Bytes {
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![group("one"), group("two")])
        .with_include_authorized_operations(version >= 3);
    encoded(&request, version)
}

fn list_groups(version: i16) -> Bytes {
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        request.states_filter = vec![text("Stable"), text("Empty")];
    }
    if version >= 5 {
        request.types_filter = vec![text("classic")];
    }
    encoded(&request, version)
}

fn delete_groups(version: i16) -> Bytes {
    let request =
        DeleteGroupsRequest::default().with_groups_names(vec![group("one"), group("two")]);
    encoded(&request, version)
}

fn offset_delete(version: i16) -> Bytes {
    let request = OffsetDeleteRequest::default()
        .with_group_id(group("g"))
        .with_topics(vec![
            OffsetDeleteRequestTopic::default()
                .with_name(name("one"))
                .with_partitions(vec![OffsetDeleteRequestPartition::default(); 2]),
        ]);
    encoded(&request, version)
}

fn txn_offset_commit(version: i16) -> Bytes {
    let mut request = TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(text("t")))
        .with_group_id(group("g"))
        .with_producer_id(ProducerId(7))
        .with_topics(vec![
            TxnOffsetCommitRequestTopic::default()
                .with_name(name("one"))
                .with_partitions(vec![
                    TxnOffsetCommitRequestPartition::default().with_committed_offset(7),
                    TxnOffsetCommitRequestPartition::default()
                        .with_committed_metadata(Some(text("note"))),
                ]),
        ]);
    if version >= 3 {
        request.generation_id = 2;
        request.member_id = text("m");
        request.group_instance_id = Some(text("i"));
    }
    encoded(&request, version)
}

fn consumer_group_heartbeat(version: i16) -> Bytes {
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text("m"))
        .with_instance_id(Some(text("i")))
        .with_rack_id(Some(text("r")))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![name("one"), name("two")]))
        .with_server_assignor(Some(text("uniform")))
        .with_topic_partitions(Some(vec![
            TopicPartitions::default().with_partitions(vec![1, 2]),
            TopicPartitions::default(),
        ]));
    if version >= 1 {
        request.subscribed_topic_regex = Some(text("o.*"));
    }
    encoded(&request, version)
}

fn consumer_group_describe(version: i16) -> Bytes {
    let request = ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![group("one"), group("two")])
        .with_include_authorized_operations(true);
    encoded(&request, version)
}
