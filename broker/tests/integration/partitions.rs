//! More partitions, elections, reassignments, and topics described in pieces.

use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey, BrokerId,
    CreateAclsRequest, CreateAclsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    create_acls_request::AclCreation,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    delete_acls_request::DeleteAclsFilter,
    describe_topic_partitions_request::{Cursor, TopicRequest},
    elect_leaders_request::TopicPartitions,
};

use broker::Config;

use super::support::{Client, Running, batch, memory, on_disk, topic_name};

fn wanted(topic: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default()
        .with_name(topic_name(topic))
        .with_count(count)
        .with_assignments(None)
}

fn grow(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatePartitionsTopic>,
    dry: bool,
) -> Vec<(String, i16)> {
    let request = CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(20_000)
        .with_validate_only(dry);
    let answer: CreatePartitionsResponse = client.call(ApiKey::CreatePartitions, version, &request);
    let results = answer.results.into_iter();
    results
        .map(|result| (result.name.to_string(), result.error_code))
        .collect()
}

fn partitions(client: &mut Client, topic: &str) -> usize {
    client.metadata(9, Some(&[topic])).topics[0]
        .partitions
        .len()
}

#[test]
fn f10_partitions_are_there_when_it_is_answered_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"before"]));
    for (version, count) in (0..=3).zip(2..) {
        let answers = grow(&mut client, version, vec![wanted("t", count)], false);
        assert_eq!(answers, [("t".to_owned(), 0)]);
        assert_eq!(partitions(&mut client, "t"), count as usize);
    }
    assert_eq!(client.produce("t", 4, batch(1, &[b"new"])), 0);
    assert_eq!(client.produce("t", 0, batch(1, &[b"after"])), 1);
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    assert_eq!(partitions(&mut client, "t"), 5);
    assert_eq!(client.produce("t", 4, batch(1, &[b"next"])), 1);
    assert_eq!(client.produce("t", 0, batch(1, &[b"next"])), 2);
    // As many groups as partitions: nothing was left behind, and nothing was swept away.
    assert_eq!(
        running.engine().groups_tagged("kafka", "partition").len(),
        5
    );
}

#[test]
fn f10_each_topic_has_one_answer_and_a_wrong_number_says_why() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("a", 3);
    client.create("b", 1);
    let many = vec![
        wanted("a", 3),
        wanted("b", 2),
        wanted("absent", 2),
        wanted("twice", 2),
        wanted("twice", 3),
    ];
    let mut answers = grow(&mut client, 3, many, false);
    answers.sort();
    let expected = [("a", 37), ("absent", 3), ("b", 0), ("twice", 42)];
    assert_eq!(
        answers,
        expected.map(|(name, code)| (name.to_owned(), code))
    );
    for (count, code) in [(0, 37), (-1, 37), (2, 37), (1_000_000, 37)] {
        let answers = grow(&mut client, 3, vec![wanted("a", count)], false);
        assert_eq!(answers[0].1, code, "{count}");
    }
    assert_eq!(grow(&mut client, 3, vec![wanted("a", 9)], true)[0].1, 0);
    let assigned = |nodes: &[&[i32]]| {
        let assignments = nodes.iter().map(|nodes| {
            let nodes = nodes.iter().copied().map(BrokerId).collect();
            CreatePartitionsAssignment::default().with_broker_ids(nodes)
        });
        wanted("a", 5).with_assignments(Some(assignments.collect()))
    };
    let wrong: [&[&[i32]]; 5] = [
        &[],
        &[&[1]],
        &[&[1], &[2]],
        &[&[1], &[]],
        &[&[1, 1], &[1, 1]],
    ];
    for nodes in wrong {
        let answers = grow(&mut client, 3, vec![assigned(nodes)], false);
        assert_eq!(answers[0].1, 39, "{nodes:?}");
    }
    assert_eq!(partitions(&mut client, "a"), 3);
    assert_eq!(
        grow(&mut client, 3, vec![assigned(&[&[1], &[1]])], false)[0].1,
        0
    );
    assert_eq!(partitions(&mut client, "a"), 5);
}

#[test]
fn f57_a_partition_that_has_a_leader_needs_no_election() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for version in 0..=2 {
        let topic = |name, partitions| {
            TopicPartitions::default()
                .with_topic(topic_name(name))
                .with_partitions(partitions)
        };
        let some = vec![topic("t", vec![0, 1]), topic("absent", vec![0])];
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(some));
        let answer: ElectLeadersResponse = client.call(ApiKey::ElectLeaders, version, &request);
        assert_eq!(answer.error_code, 0);
        let results = answer.replica_election_results.iter();
        let codes = results.flat_map(|topic| &topic.partition_result);
        let codes: Vec<_> = codes.map(|partition| partition.error_code).collect();
        assert_eq!(codes, [84, 3, 3]);
        let request = ElectLeadersRequest::default().with_topic_partitions(None);
        let answer: ElectLeadersResponse = client.call(ApiKey::ElectLeaders, version, &request);
        assert_eq!(
            (answer.error_code, answer.replica_election_results.len()),
            (0, 0)
        );
    }
}

fn reassign(client: &mut Client, moves: &[(i32, Option<&[i32]>)]) -> Vec<i16> {
    let partitions = moves.iter().map(|(index, nodes)| {
        let nodes = nodes.map(|nodes| nodes.iter().copied().map(BrokerId).collect());
        ReassignablePartition::default()
            .with_partition_index(*index)
            .with_replicas(nodes)
    });
    let topic = ReassignableTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(partitions.collect());
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    let answer: AlterPartitionReassignmentsResponse =
        client.call(ApiKey::AlterPartitionReassignments, 1, &request);
    assert_eq!((answer.error_code, answer.error_message), (0, None));
    let answers = answer.responses[0].partitions.iter();
    answers
        .map(|partition| {
            let (code, message) = (partition.error_code, &partition.error_message);
            assert_eq!(message.is_some(), code != 0);
            code
        })
        .collect()
}

#[test]
fn f57_partitions_are_moved_at_once_and_there_is_nothing_to_take_back() {
    let config = Config {
        nodes: 3,
        ..memory()
    };
    let running = Running::start(config);
    let mut client = running.client();
    client.create("t", 2);
    let moves: [(i32, Option<&[i32]>); 7] = [
        (0, Some(&[3, 1])),
        (1, None),
        (2, Some(&[1])),
        (1, Some(&[])),
        (1, Some(&[9])),
        (1, Some(&[1, 1])),
        (-1, Some(&[1])),
    ];
    assert_eq!(reassign(&mut client, &moves), [0, 85, 3, 39, 39, 39, 3]);
    let described = client.metadata(12, Some(&["t"]));
    let moved = &described.topics[0].partitions[0];
    let nodes: Vec<_> = moved.replica_nodes.iter().map(|id| id.0).collect();
    assert_eq!((moved.leader_id.0, nodes), (3, vec![3, 1]));
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let answer: ListPartitionReassignmentsResponse =
        client.call(ApiKey::ListPartitionReassignments, 0, &request);
    assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
}

#[test]
fn topics_are_described_in_pieces_of_so_many_partitions() {
    let running = Running::in_memory();
    let mut client = running.client();
    for (topic, partitions) in [("a", 3), ("b", 1), ("c", 2)] {
        client.create(topic, partitions);
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    for _ in 0..3 {
        let request = DescribeTopicPartitionsRequest::default()
            .with_response_partition_limit(2)
            .with_cursor(cursor.take());
        let answer: DescribeTopicPartitionsResponse =
            client.call(ApiKey::DescribeTopicPartitions, 0, &request);
        for topic in &answer.topics {
            assert!(topic.error_code == 0 && !topic.topic_id.is_nil());
            assert_eq!(topic.topic_authorized_operations, 0b1101_1111_1000);
            let name = topic.name.as_ref().unwrap().to_string();
            for partition in &topic.partitions {
                assert!(partition.leader_epoch >= 0 && partition.error_code == 0);
                assert_eq!(partition.leader_id, BrokerId(1));
                seen.push((name.clone(), partition.partition_index));
            }
        }
        cursor = answer.next_cursor.map(|next| {
            Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index)
        });
    }
    assert_eq!(cursor, None);
    let all = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0), ("c", 1)];
    assert_eq!(seen, all.map(|(name, index)| (name.to_owned(), index)));
    let topic = |name| TopicRequest::default().with_name(topic_name(name));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic("absent"), topic("b"), topic("a/b")])
        .with_response_partition_limit(2_000);
    let answer: DescribeTopicPartitionsResponse =
        client.call(ApiKey::DescribeTopicPartitions, 0, &request);
    let codes: Vec<_> = answer.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [17, 3, 0]);
}

#[test]
fn nothing_is_secured_and_every_request_about_that_is_told_so() {
    let running = Running::in_memory();
    let mut client = running.client();
    for version in 1..=3 {
        let request = DescribeAclsRequest::default();
        let answer: DescribeAclsResponse = client.call(ApiKey::DescribeAcls, version, &request);
        assert_eq!(answer.error_code, 54);
        let request = CreateAclsRequest::default().with_creations(vec![AclCreation::default(); 2]);
        let answer: CreateAclsResponse = client.call(ApiKey::CreateAcls, version, &request);
        let codes: Vec<_> = answer.results.iter().map(|one| one.error_code).collect();
        assert_eq!(codes, [54, 54]);
        let request = DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default()]);
        let answer: DeleteAclsResponse = client.call(ApiKey::DeleteAcls, version, &request);
        assert_eq!(answer.filter_results[0].error_code, 54);
    }
}
