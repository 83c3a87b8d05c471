//! Every request about groups in every version, with a client that says exactly what it is told to say.

use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    list_groups_response::ListedGroup,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    },
    sync_group_request::SyncGroupRequestAssignment,
};

use super::*;

fn join_request(version: i16, name: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(metadata_of("t"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_session_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 {
        request.rebalance_timeout_ms = 20_000;
    }
    request
}

/// Joins, with a second request if the version wants one.
fn join(client: &mut Client, version: i16, name: &str) -> JoinGroupResponse {
    let first: JoinGroupResponse =
        client.call(ApiKey::JoinGroup, version, &join_request(version, name, ""));
    if version < 4 {
        assert_eq!(first.error_code, 0, "{first:?}");
        return first;
    }
    // F34.
    assert_eq!(first.error_code, 79, "{first:?}");
    assert!(first.member_id.starts_with("test-"), "{first:?}");
    let again = join_request(version, name, &first.member_id);
    let second: JoinGroupResponse = client.call(ApiKey::JoinGroup, version, &again);
    assert_eq!(second.error_code, 0, "{second:?}");
    assert_eq!(second.member_id, first.member_id);
    second
}

fn sync(
    client: &mut Client,
    version: i16,
    name: &str,
    joined: &JoinGroupResponse,
) -> SyncGroupResponse {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"everything"));
    let mut request = SyncGroupRequest::default()
        .with_group_id(group(name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    if version >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    client.call(ApiKey::SyncGroup, version, &request)
}

/// A client in a stable group of one.
fn stable(client: &mut Client, name: &str) -> JoinGroupResponse {
    find(client, name);
    let joined = join(client, 9, name);
    let synced = sync(client, 5, name, &joined);
    assert_eq!(synced.error_code, 0);
    joined
}

#[test]
fn joining_in_every_version() {
    let running = Running::start(quick());
    let mut client = running.client();
    for version in 0..=9 {
        let name = format!("join{version}");
        find(&mut client, &name);
        let joined = join(&mut client, version, &name);
        assert_eq!(joined.generation_id, 1);
        assert_eq!(joined.leader, joined.member_id);
        assert_eq!(joined.protocol_name, Some(text("range")));
        assert_eq!(joined.members.len(), 1);
        assert_eq!(joined.members[0].metadata, metadata_of("t"));
        let synced = sync(&mut client, (version / 2).min(5), &name, &joined);
        assert_eq!(
            (synced.error_code, &synced.assignment[..]),
            (0, &b"everything"[..])
        );
        let refused: JoinGroupResponse = client.call(
            ApiKey::JoinGroup,
            version,
            &join_request(version, &name, "nobody"),
        );
        assert_eq!(refused.error_code, 25, "{version}");
        assert_eq!(refused.generation_id, -1);
    }
}

#[test]
fn heartbeats_and_leaving_in_every_version() {
    let running = Running::start(quick());
    let mut client = running.client();
    for version in 0..=5 {
        let name = format!("leave{version}");
        let joined = stable(&mut client, &name);
        let mut beat = HeartbeatRequest::default()
            .with_group_id(group(&name))
            .with_generation_id(1)
            .with_member_id(joined.member_id.clone());
        let answer: HeartbeatResponse = client.call(ApiKey::Heartbeat, version.min(4), &beat);
        assert_eq!(answer.error_code, 0);
        beat.generation_id = 2;
        let answer: HeartbeatResponse = client.call(ApiKey::Heartbeat, version.min(4), &beat);
        assert_eq!(answer.error_code, 22);
        let mut leave = LeaveGroupRequest::default().with_group_id(group(&name));
        let mut codes = Vec::new();
        for member in [text("nobody"), joined.member_id] {
            if version < 3 {
                leave.member_id = member;
            } else {
                leave.members = vec![MemberIdentity::default().with_member_id(member)];
            }
            let answer: LeaveGroupResponse = client.call(ApiKey::LeaveGroup, version, &leave);
            codes.push(match version {
                0..3 => answer.error_code,
                _ => {
                    assert_eq!(answer.error_code, 0);
                    answer.members[0].error_code
                }
            });
        }
        assert_eq!(codes, [25, 0], "{version}");
    }
}

fn commit_request(version: i16, name: &str, offset: i64) -> OffsetCommitRequest {
    let mut partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("a note")));
    if version >= 6 {
        partition.committed_leader_epoch = 3;
    }
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn commit(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> Vec<i16> {
    let answer: OffsetCommitResponse = client.call(ApiKey::OffsetCommit, version, request);
    let topics = answer.topics.iter();
    topics
        .flat_map(|topic| topic.partitions.iter())
        .map(|partition| partition.error_code)
        .collect()
}

/// Offset, leader epoch, metadata and code of partition 0 and of one that nobody has committed.
fn fetch(client: &mut Client, version: i16, name: &str) -> Vec<(i64, i32, String, i16)> {
    let mut request = OffsetFetchRequest::default();
    let indexes = vec![0, 1];
    if version >= 8 {
        request.groups = vec![
            OffsetFetchRequestGroup::default()
                .with_group_id(group(name))
                .with_topics(Some(vec![
                    OffsetFetchRequestTopics::default()
                        .with_name(topic_name("t"))
                        .with_partition_indexes(indexes),
                ])),
        ];
    } else {
        request.group_id = group(name);
        request.topics = Some(vec![
            OffsetFetchRequestTopic::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(indexes),
        ]);
    }
    request.require_stable = version >= 7;
    let answer: OffsetFetchResponse = client.call(ApiKey::OffsetFetch, version, &request);
    assert_eq!(answer.error_code, 0);
    let one = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let one = one.map(|p| {
        let metadata = p.metadata.as_ref().map(|text| text.to_string());
        let epoch = p.committed_leader_epoch;
        (p.committed_offset, epoch, metadata.unwrap(), p.error_code)
    });
    let groups = answer.groups.iter().inspect(|group| {
        assert_eq!(group.error_code, 0);
    });
    let topics = groups.flat_map(|group| &group.topics);
    let several = topics.flat_map(|topic| &topic.partitions).map(|p| {
        let metadata = p.metadata.as_ref().map(|text| text.to_string());
        let epoch = p.committed_leader_epoch;
        (p.committed_offset, epoch, metadata.unwrap(), p.error_code)
    });
    one.chain(several).collect()
}

/// F31, F32, F33.
#[test]
fn offsets_in_every_version() {
    let running = Running::start(quick());
    let mut client = running.client();
    client.create("t", 2);
    for version in 2..=9 {
        let name = format!("offsets{version}");
        find(&mut client, &name);
        let nothing = (-1, -1, String::new(), 0);
        for fetch_version in 1..=9 {
            let found = fetch(&mut client, fetch_version, &name);
            assert_eq!(found, [nothing.clone(), nothing.clone()], "{fetch_version}");
        }
        let request = commit_request(version, &name, 40 + i64::from(version));
        assert_eq!(commit(&mut client, version, &request), [0]);
        for fetch_version in 1..=9 {
            let known = version >= 6 && fetch_version >= 5;
            let epoch = if known { 3 } else { -1 };
            let found = fetch(&mut client, fetch_version, &name);
            let committed = (40 + i64::from(version), epoch, "a note".to_owned(), 0);
            assert_eq!(
                found,
                [committed, nothing.clone()],
                "{version} {fetch_version}"
            );
        }
        // All that the group has.
        let mut all = OffsetFetchRequest::default();
        all.groups = vec![
            OffsetFetchRequestGroup::default()
                .with_group_id(group(&name))
                .with_topics(None),
            OffsetFetchRequestGroup::default()
                .with_group_id(group("nowhere"))
                .with_topics(None),
        ];
        let answer: OffsetFetchResponse = client.call(ApiKey::OffsetFetch, 8, &all);
        assert_eq!(answer.groups[0].topics[0].partitions.len(), 1);
        assert_eq!(
            (answer.groups[1].error_code, answer.groups[1].topics.len()),
            (0, 0)
        );
    }
}

/// F9: what was read of a topic goes with it.
#[test]
fn a_topic_that_is_made_anew_is_read_from_its_beginning() {
    let running = Running::start(quick());
    let mut client = running.client();
    client.create("t", 2);
    find(&mut client, "g");
    let request = commit_request(9, "g", 40);
    assert_eq!(commit(&mut client, 9, &request), [0]);
    let mut delete = DeleteTopicsRequest::default();
    delete.topic_names = vec![topic_name("t")];
    let answer: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 5, &delete);
    assert_eq!(answer.responses[0].error_code, 0);
    client.create("t", 2);
    let nothing = (-1, -1, String::new(), 0);
    assert_eq!(fetch(&mut client, 9, "g"), [nothing.clone(), nothing]);
}

#[test]
fn what_cannot_be_committed_is_told_for_each_partition() {
    let running = Running::start(quick());
    let mut client = running.client();
    client.create("t", 2);
    find(&mut client, "g");
    let mut request = commit_request(9, "g", 1);
    let partition = |index, metadata: &str| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_metadata(Some(text(metadata)))
    };
    request.topics[0].partitions = vec![
        partition(0, "fits"),
        partition(1, &"x".repeat(4097)),
        partition(2, "there is no such partition"),
    ];
    request.topics.push(
        OffsetCommitRequestTopic::default()
            .with_name(topic_name("nowhere"))
            .with_partitions(vec![partition(0, "")]),
    );
    assert_eq!(commit(&mut client, 9, &request), [0, 12, 3, 3]);
    let mut stranger = commit_request(9, "nowhere", 1);
    stranger.generation_id_or_member_epoch = 1;
    assert_eq!(commit(&mut client, 9, &stranger), [69]);
    assert_eq!(commit(&mut client, 8, &stranger), [22]);
}

/// F41, F42, F58.
#[test]
fn groups_are_listed_described_and_deleted_in_every_version() {
    let running = Running::start(quick());
    let mut client = running.client();
    client.create("t", 2);
    client.create("old", 1);
    let none: ListGroupsResponse =
        client.call(ApiKey::ListGroups, 0, &ListGroupsRequest::default());
    assert_eq!((none.error_code, none.groups.len()), (0, 0));
    let joined = stable(&mut client, "full");
    find(&mut client, "empty");
    let request = commit_request(9, "empty", 1);
    assert_eq!(commit(&mut client, 9, &request), [0]);
    let names = |groups: &[ListedGroup]| -> Vec<String> {
        groups
            .iter()
            .map(|group| group.group_id.to_string())
            .collect()
    };
    for version in 0..=5 {
        let request = ListGroupsRequest::default();
        let mut listed: ListGroupsResponse = client.call(ApiKey::ListGroups, version, &request);
        listed
            .groups
            .sort_by_key(|group| group.group_id.to_string());
        assert_eq!(names(&listed.groups), ["empty", "full"]);
        let state = listed.groups[1].group_state.as_str();
        assert_eq!(state, if version >= 4 { "Stable" } else { "" });
        assert_eq!(listed.groups[1].protocol_type.as_str(), "consumer");
    }
    for (states, types, expected) in [
        (vec!["Stable"], vec![], vec!["full"]),
        (vec!["empty", "Dead"], vec!["Classic"], vec!["empty"]),
        (vec![], vec!["consumer"], vec![]),
    ] {
        let mut request = ListGroupsRequest::default();
        request.states_filter = states.into_iter().map(text).collect();
        request.types_filter = types.into_iter().map(text).collect();
        let listed: ListGroupsResponse = client.call(ApiKey::ListGroups, 5, &request);
        assert_eq!(names(&listed.groups), expected);
    }
    for version in 0..=6 {
        let mut request = DescribeGroupsRequest::default().with_groups(vec![
            group("full"),
            group("empty"),
            group("nowhere"),
        ]);
        request.include_authorized_operations = version >= 3;
        let answer: DescribeGroupsResponse = client.call(ApiKey::DescribeGroups, version, &request);
        let [full, empty, nowhere] = &answer.groups[..] else {
            panic!("{answer:?}");
        };
        let seen = (full.group_state.as_str(), full.protocol_data.as_str());
        assert_eq!(seen, ("Stable", "range"));
        let member = &full.members[0];
        assert_eq!(member.member_id, joined.member_id);
        assert_eq!(&member.member_assignment[..], b"everything");
        let from = (member.client_id.as_str(), member.client_host.as_str());
        assert_eq!(from, ("test", "/127.0.0.1"));
        assert_eq!(empty.group_state.as_str(), "Empty");
        let missing = (nowhere.group_state.as_str(), nowhere.error_code);
        assert_eq!(missing, ("Dead", if version >= 6 { 69 } else { 0 }));
        let operations = if version >= 3 { 3400 } else { i32::MIN };
        assert_eq!(full.authorized_operations, operations);
    }
    offsets_are_deleted(&mut client, &joined);
    for version in 0..=2 {
        let names = ["full", "empty", "nowhere", ""];
        let names = names.map(group).to_vec();
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let answer: DeleteGroupsResponse = client.call(ApiKey::DeleteGroups, version, &request);
        let codes: Vec<i16> = answer.results.iter().map(|one| one.error_code).collect();
        let empty = if version == 0 { 0 } else { 69 };
        assert_eq!(codes, [68, empty, 69, 24], "{version}");
    }
    let nothing = (-1, -1, String::new(), 0);
    assert_eq!(fetch(&mut client, 9, "empty"), [nothing.clone(), nothing]);
}

fn offsets_are_deleted(client: &mut Client, joined: &JoinGroupResponse) {
    let mut request = commit_request(9, "full", 7);
    request.member_id = joined.member_id.clone();
    request.generation_id_or_member_epoch = 1;
    request.topics.push(
        OffsetCommitRequestTopic::default()
            .with_name(topic_name("old"))
            .with_partitions(vec![OffsetCommitRequestPartition::default()]),
    );
    assert_eq!(commit(client, 9, &request), [0, 0]);
    let topic = |name, partition| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(partition);
        OffsetDeleteRequestTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![partition])
    };
    let mut request = OffsetDeleteRequest::default()
        .with_group_id(group("full"))
        .with_topics(vec![topic("t", 0), topic("old", 0), topic("old", 7)]);
    let answer: OffsetDeleteResponse = client.call(ApiKey::OffsetDelete, 0, &request);
    let topics = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let codes: Vec<i16> = topics.map(|partition| partition.error_code).collect();
    assert_eq!((answer.error_code, codes), (0, vec![86, 0, 3]));
    request.group_id = group("nowhere");
    let answer: OffsetDeleteResponse = client.call(ApiKey::OffsetDelete, 0, &request);
    assert_eq!(answer.error_code, 69);
}

/// F44, with the broker stopped while somebody waits.
#[test]
fn who_waits_for_a_rebalance_is_answered_when_the_broker_stops() {
    let mut config = quick();
    config.coordinator.group_initial_rebalance_delay_ms = 600_000;
    let running = Running::start(config);
    let mut client = running.client();
    find(&mut client, "g");
    let request = join_request(3, "g", "");
    let id = client.send(ApiKey::JoinGroup, 3, &request);
    until("a rebalance", || {
        let mut other = running.client();
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
        let answer: DescribeGroupsResponse = other.call(ApiKey::DescribeGroups, 0, &request);
        answer.groups[0].group_state.as_str() == "PreparingRebalance"
    });
    let begun = Instant::now();
    running.stop();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let answer: JoinGroupResponse = client.receive(ApiKey::JoinGroup, 3, id);
    assert_eq!(answer.error_code, 16);
}
