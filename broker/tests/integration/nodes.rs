//! Several nodes in one process: what clients are told of them, and that each serves everything.

use std::collections::BTreeMap;

use broker::{Config, Limits};
use kafka_protocol::{
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ApiKey, BrokerId,
        CreateTopicsRequest, CreateTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
        DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeQuorumRequest,
        DescribeQuorumResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
        ListGroupsRequest, ListGroupsResponse, MetadataRequest, MetadataResponse,
        OffsetCommitRequest, OffsetCommitResponse,
        alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
        describe_quorum_request::{PartitionData, TopicData},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};

use super::support::{Client, Running, batch, memory, on_disk, topic_name};

fn three_nodes() -> Config {
    Config {
        nodes: 3,
        node_id: 5,
        ..memory()
    }
}

/// Creates a topic; the code.
fn create(client: &mut Client, topic: CreatableTopic) -> i16 {
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let answer: CreateTopicsResponse = client.call(ApiKey::CreateTopics, 7, &request);
    answer.topics[0].error_code
}

fn replicated(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

/// The nodes of each partition, its leader first.
fn places(client: &mut Client, topic: &str) -> Vec<Vec<i32>> {
    let described = client.metadata(12, Some(&[topic]));
    let partitions = described.topics[0].partitions.iter();
    partitions
        .map(|partition| {
            assert_eq!(partition.replica_nodes, partition.isr_nodes);
            assert_eq!(partition.replica_nodes[0], partition.leader_id);
            partition.replica_nodes.iter().map(|id| id.0).collect()
        })
        .collect()
}

#[test]
fn every_node_tells_of_all_nodes_and_serves_every_partition() {
    let running = Running::start(three_nodes());
    let addresses = running.addresses().to_vec();
    assert_eq!(addresses.len(), 3);
    let mut client = running.client();
    assert_eq!(create(&mut client, replicated("t", 6, 3)), 0);
    let told = places(&mut client, "t");
    let mut led = BTreeMap::new();
    for nodes in &told {
        *led.entry(nodes[0]).or_insert(0) += 1;
        let mut sorted = nodes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [5, 6, 7]);
    }
    assert_eq!(led, BTreeMap::from([(5, 2), (6, 2), (7, 2)]));
    for (offset, address) in addresses.iter().enumerate() {
        let mut client = Client::connect(*address);
        for version in 0..=13 {
            let answer = client.metadata(version, Some(&["t"]));
            let brokers = answer.brokers.iter();
            let brokers: Vec<_> = brokers.map(|one| (one.node_id.0, one.port)).collect();
            let expected = addresses.iter().map(|address| i32::from(address.port()));
            assert_eq!(brokers, (5..8).zip(expected).collect::<Vec<_>>());
            assert!(version == 0 || answer.controller_id == BrokerId(5));
        }
        assert_eq!(places(&mut client, "t"), told);
        for partition in 0..6 {
            let written = client.produce("t", partition, batch(1, &[b"v"]));
            assert_eq!(written, offset as i64);
        }
    }
}

#[test]
fn any_number_of_replicas_is_taken_and_those_that_exist_are_shown() {
    let running = Running::in_memory();
    let mut client = running.client();
    assert_eq!(create(&mut client, replicated("t", 2, 3)), 0);
    assert_eq!(places(&mut client, "t"), [[1], [1]]);
    for (replicas, code) in [(0, 38), (-2, 38), (i16::MIN, 38), (i16::MAX, 0)] {
        assert_eq!(create(&mut client, replicated("other", 1, replicas)), code);
    }
}

#[test]
fn f53_partitions_are_where_their_creator_wants_them_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let config = || Config {
        nodes: 3,
        ..on_disk(dir.path())
    };
    let running = Running::start(config());
    let mut client = running.client();
    let assigned = |partitions: &[(i32, &[i32])]| {
        let assignments = partitions.iter().map(|(index, nodes)| {
            let nodes = nodes.iter().copied().map(BrokerId).collect();
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(nodes)
        });
        replicated("t", -1, -1).with_assignments(assignments.collect())
    };
    let wrong: [&[(i32, &[i32])]; 6] = [
        &[(0, &[4])],
        &[(0, &[1]), (2, &[1])],
        &[(0, &[1]), (0, &[2])],
        &[(0, &[1]), (1, &[1, 2])],
        &[(0, &[1, 1])],
        &[(0, &[])],
    ];
    for partitions in wrong {
        assert_eq!(
            create(&mut client, assigned(partitions)),
            39,
            "{partitions:?}"
        );
    }
    let both = assigned(&[(0, &[1])]).with_replication_factor(1);
    assert_eq!(create(&mut client, both), 42);
    assert_eq!(
        create(&mut client, assigned(&[(1, &[2, 3]), (0, &[3, 1])])),
        0
    );
    assert_eq!(places(&mut client, "t"), [[3, 1], [2, 3]]);
    running.crash();
    let running = Running::start(config());
    assert_eq!(places(&mut running.client(), "t"), [[3, 1], [2, 3]]);
}

#[test]
fn f58_the_cluster_is_described_and_operations_are_told_when_they_are_asked_for() {
    let running = Running::start(three_nodes());
    let ports: Vec<_> = running.addresses().iter().map(|one| one.port()).collect();
    let mut client = running.client();
    let cluster_id = client.metadata(2, None).cluster_id;
    for version in 0..=2 {
        for (with_operations, operations) in [(false, i32::MIN), (true, 0b1_1111_1010_0000)] {
            let request = DescribeClusterRequest::default()
                .with_include_cluster_authorized_operations(with_operations);
            let answer: DescribeClusterResponse =
                client.call(ApiKey::DescribeCluster, version, &request);
            assert_eq!((answer.error_code, answer.controller_id.0), (0, 5));
            assert_eq!(Some(&answer.cluster_id), cluster_id.as_ref());
            assert_eq!(answer.cluster_authorized_operations, operations);
            let brokers = answer.brokers.iter();
            let told: Vec<_> = brokers.map(|one| one.port as u16).collect();
            assert_eq!(told, ports);
        }
    }
    for (kind, code) in [(1, 0), (2, 114), (3, 115)] {
        let request = DescribeClusterRequest::default().with_endpoint_type(kind);
        let answer: DescribeClusterResponse = client.call(ApiKey::DescribeCluster, 1, &request);
        assert_eq!(answer.error_code, code, "{kind}");
    }
    client.create("t", 1);
    for asked in [false, true] {
        let request = MetadataRequest::default()
            .with_topics(None)
            .with_include_topic_authorized_operations(asked);
        let answer: MetadataResponse = client.call(ApiKey::Metadata, 12, &request);
        let operations = if asked { 0b1101_1111_1000 } else { i32::MIN };
        assert_eq!(answer.topics[0].topic_authorized_operations, operations);
    }
}

#[test]
fn f57_a_node_tells_of_the_partitions_that_are_on_it() {
    let running = Running::start(three_nodes());
    let mut client = running.client();
    assert_eq!(create(&mut client, replicated("t", 3, 1)), 0);
    client.produce("t", 1, batch(1, &[&[7; 5_000]]));
    let mut seen = BTreeMap::new();
    for address in running.addresses() {
        let mut client = Client::connect(*address);
        for version in 1..=4 {
            let request = DescribeLogDirsRequest::default().with_topics(None);
            let answer: DescribeLogDirsResponse =
                client.call(ApiKey::DescribeLogDirs, version, &request);
            let [directory] = &answer.results[..] else {
                panic!("{answer:?}");
            };
            assert_eq!(
                (directory.error_code, directory.log_dir.as_str()),
                (0, "memory:")
            );
            let partitions = directory.topics.iter().flat_map(|topic| &topic.partitions);
            for partition in partitions {
                *seen.entry(partition.partition_index).or_insert(0) += 1;
                let large = partition.partition_size > 5_000;
                assert_eq!(large, partition.partition_index == 1);
                assert!(!partition.is_future_key);
            }
        }
    }
    assert_eq!(seen, BTreeMap::from([(0, 4), (1, 4), (2, 4)]));
}

#[test]
fn f57_a_replica_is_in_the_one_directory_that_there_is() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for version in 1..=2 {
        let dir = |path: &'static str, topic, partitions| {
            let topic = AlterReplicaLogDirTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions);
            AlterReplicaLogDir::default()
                .with_path(StrBytes::from_static_str(path))
                .with_topics(vec![topic])
        };
        let dirs = vec![
            dir("memory:", "t", vec![0, 1]),
            dir("elsewhere", "t", vec![0]),
            dir("memory:", "absent", vec![0]),
        ];
        let request = AlterReplicaLogDirsRequest::default().with_dirs(dirs);
        let answer: AlterReplicaLogDirsResponse =
            client.call(ApiKey::AlterReplicaLogDirs, version, &request);
        let codes = answer.results.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<_> = codes.map(|partition| partition.error_code).collect();
        assert_eq!(codes, [3, 0, 3, 57]);
    }
}

#[test]
fn the_metadata_has_a_quorum_of_the_first_node() {
    let running = Running::start(three_nodes());
    let mut client = running.client();
    for version in 0..=2 {
        let topic = |name, partition| {
            let partition = PartitionData::default().with_partition_index(partition);
            TopicData::default()
                .with_topic_name(topic_name(name))
                .with_partitions(vec![partition])
        };
        let topics = vec![topic("__cluster_metadata", 0), topic("t", 0)];
        let request = DescribeQuorumRequest::default().with_topics(topics);
        let answer: DescribeQuorumResponse = client.call(ApiKey::DescribeQuorum, version, &request);
        assert_eq!(answer.error_code, 0);
        let found = &answer.topics[0].partitions[0];
        assert_eq!((found.error_code, found.leader_id.0), (0, 5));
        assert!(found.leader_epoch > 0 && found.high_watermark >= 0);
        assert_eq!(found.current_voters.len(), 1);
        assert_eq!(answer.topics[1].partitions[0].error_code, 3);
        assert_eq!(answer.nodes.len(), usize::from(version >= 2));
    }
}

#[test]
fn coordinators_are_spread_and_each_node_lists_its_own_groups() {
    let running = Running::start(three_nodes());
    let mut client = running.client();
    client.create("t", 1);
    let names: Vec<String> = (0..30).map(|number| format!("group-{number}")).collect();
    let request = FindCoordinatorRequest::default()
        .with_coordinator_keys(names.iter().cloned().map(StrBytes::from_string).collect());
    let found: FindCoordinatorResponse = client.call(ApiKey::FindCoordinator, 4, &request);
    let mut expected: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for coordinator in &found.coordinators {
        let port = running.addresses()[(coordinator.node_id.0 - 5) as usize].port();
        let told = (coordinator.error_code, coordinator.port);
        assert_eq!(told, (0, i32::from(port)));
        let group = coordinator.key.to_string();
        commit(&mut client, &group);
        expected
            .entry(coordinator.node_id.0)
            .or_default()
            .push(group);
    }
    assert_eq!(expected.len(), 3);
    for (node, address) in (5..8).zip(running.addresses()) {
        let answer: ListGroupsResponse =
            Client::connect(*address).call(ApiKey::ListGroups, 4, &ListGroupsRequest::default());
        let listed = answer.groups.iter().map(|group| group.group_id.to_string());
        let mut listed: Vec<_> = listed.collect();
        let mut expected = expected[&node].clone();
        listed.sort();
        expected.sort();
        assert_eq!((answer.error_code, listed), (0, expected));
    }
}

/// Makes a group that has an offset and no members.
fn commit(client: &mut Client, group: &str) {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer: OffsetCommitResponse = client.call(ApiKey::OffsetCommit, 8, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

#[test]
fn the_limit_on_connections_is_that_of_all_nodes() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..three_nodes()
    };
    let running = Running::start(config);
    let mut first = Client::connect(running.addresses()[2]);
    assert_eq!(first.metadata(1, None).brokers.len(), 3);
    for address in running.addresses() {
        assert!(Client::connect(*address).is_closed());
    }
}
