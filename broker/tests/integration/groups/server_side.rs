//! Groups whose assignment the server computes (KIP-848): every version of their requests, librdkafka's consumers, and
//! kills in the middle of rebalances.

use std::io::Write;

use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, JoinGroupRequest, JoinGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    join_group_request::JoinGroupRequestProtocol,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use super::{
    consumers::{all, fill, held, settle},
    *,
};
use crate::{
    clients::create_topic,
    program::{Places, Program},
    support::Rng,
};

/// Members that hear of changes soon.
fn lively() -> Config {
    let mut config = quick();
    config.coordinator.consumer_session_timeout_ms = 6_000;
    config.coordinator.consumer_heartbeat_interval_ms = 100;
    config
}

fn consumer(bootstrap: &str, group: &str, more: &[(&str, &str)]) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("group.protocol", "consumer")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.interval.ms", "1000");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

fn joining(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![topic_name("t")]))
        .with_topic_partitions(Some(vec![]))
}

fn beat(
    client: &mut Client,
    version: i16,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    client.call(ApiKey::ConsumerGroupHeartbeat, version, request)
}

#[test]
fn the_protocol_is_offered_and_in_force() {
    let running = Running::in_memory();
    let mut client = running.client();
    let request = ApiVersionsRequest::default();
    let answer: ApiVersionsResponse = client.call(ApiKey::ApiVersions, 4, &request);
    let mut features = answer.finalized_features.iter();
    let feature = features.find(|feature| feature.name.as_str() == "group.version");
    assert_eq!(feature.unwrap().max_version_level, 1);
}

#[test]
fn heartbeats_in_every_version_and_what_is_seen_of_the_group() {
    let running = Running::start(lively());
    let mut client = running.client();
    client.create("t", 2);
    let id = client.metadata(12, Some(&["t"])).topics[0].topic_id;
    find(&mut client, "g");
    // Version 0 names the member.
    let told = beat(&mut client, 0, &joining(""));
    assert_eq!((told.error_code, told.member_epoch), (0, 1), "{told:?}");
    assert_eq!(told.heartbeat_interval_ms, 100);
    let first = told.member_id.unwrap();
    let assignment = told.assignment.unwrap().topic_partitions;
    assert_eq!(
        (assignment[0].topic_id, &assignment[0].partitions),
        (id, &vec![0, 1])
    );
    // Version 1 wants it named.
    let told = beat(&mut client, 1, &joining(""));
    assert_eq!(told.error_code, 42, "{told:?}");
    assert!(told.error_message.unwrap().contains("no id"));
    let told = beat(&mut client, 1, &joining("second"));
    assert_eq!((told.error_code, told.member_epoch), (0, 2), "{told:?}");
    assert!(told.assignment.unwrap().topic_partitions.is_empty());
    let wrong = joining("third").with_subscribed_topic_regex(Some(text("(")));
    assert_eq!(beat(&mut client, 1, &wrong).error_code, 128);

    for version in 0..=1 {
        let groups = vec![group("g"), group("none")];
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(groups);
        let answer: ConsumerGroupDescribeResponse =
            client.call(ApiKey::ConsumerGroupDescribe, version, &request);
        let (found, none) = (&answer.groups[0], &answer.groups[1]);
        assert_eq!(none.error_code, 69);
        let seen = (found.group_state.as_str(), found.assignor_name.as_str());
        assert_eq!(seen, ("Reconciling", "uniform"));
        assert_eq!((found.group_epoch, found.assignment_epoch), (2, 2));
        let member = found
            .members
            .iter()
            .find(|member| member.member_id == first);
        let member = member.unwrap();
        let topic = &member.assignment.topic_partitions[0];
        assert_eq!(
            (topic.topic_name.as_str(), &topic.partitions),
            ("t", &vec![0, 1])
        );
        assert_eq!(member.target_assignment.topic_partitions[0].partitions, [0]);
        let seen = (
            member.member_epoch,
            member.client_host.as_str(),
            member.member_type,
        );
        assert_eq!(seen, (1, "/127.0.0.1", if version == 0 { -1 } else { 1 }));
    }
    for (wanted, expected) in [("consumer", 1), ("Consumer", 1), ("classic", 0)] {
        let request = ListGroupsRequest::default().with_types_filter(vec![text(wanted)]);
        let answer: ListGroupsResponse = client.call(ApiKey::ListGroups, 5, &request);
        assert_eq!(answer.groups.len(), expected, "{wanted}");
        assert!(
            answer
                .groups
                .iter()
                .all(|group| group.group_type.as_str() == "consumer")
        );
    }
    // It is no classic group.
    for (version, code) in [(5, 0), (6, 69)] {
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
        let answer: DescribeGroupsResponse = client.call(ApiKey::DescribeGroups, version, &request);
        let found = &answer.groups[0];
        assert_eq!(
            (found.error_code, found.group_state.as_str()),
            (code, "Dead")
        );
    }
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(metadata_of("t"));
    let request = JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let answer: JoinGroupResponse = client.call(ApiKey::JoinGroup, 3, &request);
    assert_eq!(answer.error_code, 23);
}

fn commit(client: &mut Client, version: i16, member: &str, epoch: i32) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(epoch)
        .with_member_id(text(member))
        .with_topics(vec![topic]);
    let answer: OffsetCommitResponse = client.call(ApiKey::OffsetCommit, version, &request);
    answer.topics[0].partitions[0].error_code
}

fn fetch(client: &mut Client, member: Option<&str>, epoch: i32) -> (i16, Option<i64>) {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group("g"))
        .with_member_id(member.map(text))
        .with_member_epoch(epoch)
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let answer: OffsetFetchResponse = client.call(ApiKey::OffsetFetch, 9, &request);
    let found = &answer.groups[0];
    let offset = found
        .topics
        .first()
        .map(|topic| topic.partitions[0].committed_offset);
    (found.error_code, offset)
}

#[test]
fn settings_of_a_group_hold_at_once() {
    let running = Running::start(lively());
    let mut client = running.client();
    client.create("t", 1);
    find(&mut client, "g");
    assert_eq!(
        beat(&mut client, 1, &joining("a")).heartbeat_interval_ms,
        100
    );
    let setting = AlterableConfig::default()
        .with_name(text("consumer.heartbeat.interval.ms"))
        .with_value(Some(text("7000")));
    let of_group = AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text("g"))
        .with_configs(vec![setting]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![of_group]);
    let answer: IncrementalAlterConfigsResponse =
        client.call(ApiKey::IncrementalAlterConfigs, 1, &request);
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    assert_eq!(
        beat(&mut client, 1, &joining("b")).heartbeat_interval_ms,
        7000
    );
}

#[test]
fn offsets_are_committed_and_fetched_at_the_epoch_of_the_member() {
    let running = Running::start(lively());
    let mut client = running.client();
    client.create("t", 1);
    find(&mut client, "g");
    assert_eq!(beat(&mut client, 1, &joining("a")).error_code, 0);
    assert_eq!(commit(&mut client, 9, "a", 1), 0);
    assert_eq!(commit(&mut client, 9, "a", 0), 113);
    assert_eq!(commit(&mut client, 9, "b", 1), 25);
    assert_eq!(commit(&mut client, 8, "a", 1), 35);
    assert_eq!(fetch(&mut client, Some("a"), 1), (0, Some(7)));
    assert_eq!(fetch(&mut client, None, -1), (0, Some(7)));
    assert_eq!(fetch(&mut client, Some("a"), 9), (113, None));
    assert_eq!(fetch(&mut client, Some("b"), 1), (25, None));
}

#[test]
fn f44_consumers_of_the_new_protocol_share_partitions() {
    let running = Running::start(lively());
    let bootstrap = running.bootstrap();
    fill(&bootstrap, "t", 6, 60);
    let first = consumer(&bootstrap, "g", &[]);
    first.subscribe(&["t"]).unwrap();
    settle(&[&first], |held| held[0].len() == 6);
    let second = consumer(&bootstrap, "g", &[("group.remote.assignor", "range")]);
    second.subscribe(&["t"]).unwrap();
    settle(&[&first, &second], |held| all(held, 6));
    let third = consumer(&bootstrap, "g", &[("group.instance.id", "three")]);
    third.subscribe(&["t"]).unwrap();
    settle(&[&first, &second, &third], |held| all(held, 6));
    drop(second);
    settle(&[&first, &third], |held| all(held, 6));
    third.unsubscribe();
    settle(&[&first], |held| held[0].len() == 6);
}

#[test]
fn f45_an_expression_is_resolved_by_the_server() {
    let running = Running::start(lively());
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "other", 1);
    fill(&bootstrap, "tone", 2, 4);
    let one = consumer(&bootstrap, "g", &[]);
    one.subscribe(&["^t.*"]).unwrap();
    settle(&[&one], |held| held[0].len() == 2);
    fill(&bootstrap, "ttwo", 3, 3);
    let mut records = 0;
    until("records of both", || {
        records += usize::from(
            one.poll(Duration::from_millis(50))
                .is_some_and(|r| r.is_ok()),
        );
        records == 7
    });
    let assignment = one.assignment().unwrap();
    let topics = assignment.elements();
    let topics: BTreeSet<_> = topics.iter().map(|element| element.topic()).collect();
    assert_eq!(topics, BTreeSet::from(["tone", "ttwo"]));
}

#[test]
fn a_consumer_of_the_new_protocol_goes_on_where_its_group_has_committed() {
    let running = Running::start(lively());
    let bootstrap = running.bootstrap();
    fill(&bootstrap, "t", 1, 100);
    let read = |count: usize| -> Vec<i64> {
        let consumer = consumer(&bootstrap, "g", &[]);
        consumer.subscribe(&["t"]).unwrap();
        let mut offsets = Vec::new();
        until("records", || {
            if let Some(record) = consumer.poll(Duration::from_millis(100)) {
                let record = record.unwrap();
                offsets.push(record.offset());
                if offsets.len() == count {
                    consumer.commit_message(&record, CommitMode::Sync).unwrap();
                }
            }
            offsets.len() == count
        });
        offsets
    };
    assert_eq!(read(40), (0..40).collect::<Vec<_>>());
    assert_eq!(read(60), (40..100).collect::<Vec<_>>());
}

#[test]
fn f44_acknowledged_commits_of_the_new_protocol_outlive_kills_in_rebalances() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("broker.toml");
    let mut file = std::fs::File::create(&config).unwrap();
    writeln!(
        file,
        "[coordinator]\npartitions = 4\nconsumer_session_timeout_ms = 6000\nconsumer_heartbeat_interval_ms = 100"
    )
    .unwrap();
    let config = config.display().to_string();
    let places = Places::under(dir.path());
    let mut program = Program::start(&places, &["--config", &config]);
    let bootstrap = program.address.to_string();
    create_topic(&bootstrap, "t", 4);
    let first = consumer(&bootstrap, "g", &[]);
    first.subscribe(&["t"]).unwrap();
    let mut rng = Rng::new(48);
    let mut acknowledged: BTreeMap<i32, i64> = BTreeMap::new();
    let mut offset = 0;
    for round in 0..3 {
        let second = consumer(&bootstrap, "g", &[]);
        second.subscribe(&["t"]).unwrap();
        let until = Instant::now() + Duration::from_millis(300 + rng.below(1_500));
        let deadline = Instant::now() + 2 * SOON;
        let mut killed = false;
        loop {
            let mut sizes = Vec::new();
            for consumer in [&first, &second] {
                let _ = consumer.poll(Duration::from_millis(5));
                let held = held(consumer);
                for partition in &held {
                    offset += 1;
                    let mut list = TopicPartitionList::new();
                    list.add_partition_offset("t", *partition, Offset::Offset(offset))
                        .unwrap();
                    if consumer.commit(&list, CommitMode::Sync).is_ok() {
                        acknowledged.insert(*partition, offset);
                    }
                }
                sizes.push(held.len());
            }
            if !killed && Instant::now() > until {
                program.kill();
                program = Program::start(&places, &["--config", &config, "--listen", &bootstrap]);
                killed = true;
            } else if killed && sizes == [2, 2] {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {sizes:?}");
        }
        drop(second);
    }
    drop(first);
    assert!(acknowledged.len() == 4 && offset > 20, "{acknowledged:?}");
    program.kill();
    let program = Program::start(&places, &["--config", &config, "--listen", &bootstrap]);
    let reader = consumer(&bootstrap, "g", &[]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range("t", 0, 3);
    let found = reader.committed_offsets(asked, SOON).unwrap();
    for (partition, offset) in acknowledged {
        let found = found.find_partition("t", partition).unwrap().offset();
        // A commit whose answer was lost may be there: it is a later one.
        assert!(
            matches!(found, Offset::Offset(found) if found >= offset),
            "partition {partition}: {found:?} instead of {offset}"
        );
    }
    program.stop();
}
