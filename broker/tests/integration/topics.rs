//! Metadata, CreateTopics and DeleteTopics over raw connections, and topics over restarts.

use std::time::{Duration, Instant};

use broker::{Config, TopicDefaults};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse, FetchResponse, MetadataRequest, MetadataResponse, ProduceResponse,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};

use super::support::{Client, Running, batch, fetch, memory, now_ms, on_disk, produce, topic_name};

fn creatable(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn with_config(topic: CreatableTopic, name: &str, value: &str) -> CreatableTopic {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    topic.with_configs(vec![config])
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>, dry: bool) -> CreateTopicsResponse {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_validate_only(dry);
    client.call(ApiKey::CreateTopics, 7, &request)
}

#[test]
fn metadata_names_this_node_in_every_version() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 3);
    for version in 0..=12 {
        let answer = client.metadata(version, Some(&["t"]));
        let broker = &answer.brokers[0];
        assert_eq!(broker.host.as_str(), "127.0.0.1");
        assert_eq!(broker.port, i32::from(running.address().port()));
        if version >= 1 {
            assert_eq!(answer.controller_id, broker.node_id);
        }
        if version >= 2 {
            assert!(!answer.cluster_id.as_ref().unwrap().is_empty());
        }
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
        assert_eq!(topic.topic_id.is_nil(), version < 10);
        for partition in &topic.partitions {
            assert_eq!(partition.leader_id, broker.node_id);
            assert_eq!(partition.isr_nodes, [broker.node_id]);
            assert_eq!(partition.leader_epoch >= 0, version >= 7);
        }
    }
}

#[test]
fn metadata_of_all_topics_is_asked_for_by_null_and_in_version_0_by_nothing() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("a", 1);
    client.create("b", 1);
    let count = |answer: MetadataResponse| answer.topics.len();
    assert_eq!(count(client.metadata(0, Some(&[]))), 2);
    assert_eq!(count(client.metadata(1, None)), 2);
    assert_eq!(count(client.metadata(1, Some(&[]))), 0);
    assert_eq!(count(client.metadata(9, Some(&["a", "a"]))), 1);
}

#[test]
fn an_unknown_topic_is_created_when_that_is_allowed_and_only_then() {
    let topics = TopicDefaults {
        partitions_default: 4,
        ..TopicDefaults::default()
    };
    let running = Running::start(Config { topics, ..memory() });
    let mut client = running.client();
    let answer = client.metadata(4, Some(&["made"]));
    assert_eq!(answer.topics[0].error_code, 0);
    assert_eq!(answer.topics[0].partitions.len(), 4);
    let name = Some(topic_name("not-made"));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(name)]))
        .with_allow_auto_topic_creation(false);
    let answer: MetadataResponse = client.call(ApiKey::Metadata, 4, &request);
    assert_eq!(answer.topics[0].error_code, 3);

    let topics = TopicDefaults {
        auto_create: false,
        ..TopicDefaults::default()
    };
    let running = Running::start(Config { topics, ..memory() });
    let mut client = running.client();
    assert_eq!(client.metadata(4, Some(&["made"])).topics[0].error_code, 3);
    // It is there as soon as somebody makes it.
    client.create("made", 1);
    assert_eq!(client.metadata(4, Some(&["made"])).topics[0].error_code, 0);
}

#[test]
fn illegal_names_are_refused_wherever_they_stand() {
    let running = Running::in_memory();
    let mut client = running.client();
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", "ü", &long] {
        let answer = client.metadata(4, Some(&[name]));
        assert_eq!(answer.topics[0].error_code, 17, "{name:?}");
        let request = produce(name, 0, -1, batch(1, &[b"v"]));
        let answer: ProduceResponse = client.call(ApiKey::Produce, 7, &request);
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, 17, "{name:?}");
        let answer = create(&mut client, vec![creatable(name, 1, 1)], false);
        assert_eq!(answer.topics[0].error_code, 17, "{name:?}");
    }
    assert!(client.metadata(1, None).topics.is_empty());
}

#[test]
fn create_topics_says_what_it_made_and_why_it_did_not() {
    let running = Running::in_memory();
    let mut client = running.client();
    let made = create(&mut client, vec![creatable("t", -1, 3)], false);
    let topic = &made.topics[0];
    assert_eq!((topic.error_code, topic.num_partitions), (0, 1));
    assert_eq!(topic.replication_factor, 3);
    assert!(!topic.topic_id.is_nil());
    let configs = topic.configs.as_ref().unwrap();
    let retention = configs
        .iter()
        .find(|config| config.name.as_str() == "retention.ms");
    assert_eq!(retention.unwrap().config_source, 5);

    let assigned = |assignments: &[(i32, &[i32])]| {
        let assignment = |(partition, brokers): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*partition)
                .with_broker_ids(brokers.iter().map(|id| (*id).into()).collect())
        };
        creatable("x", -1, -1).with_assignments(assignments.iter().map(assignment).collect())
    };
    for (topic, code) in [
        (creatable("t", 1, 1), 36),
        (creatable("x", 0, 1), 37),
        (creatable("x", -2, 1), 37),
        (creatable("x", 1_000_000, 1), 37),
        (creatable("x", 1, 0), 38),
        (creatable("x", 1, -5), 38),
        (with_config(creatable("x", 1, 1), "no.such", "1"), 40),
        (
            with_config(creatable("x", 1, 1), "retention.ms", "soon"),
            40,
        ),
        (assigned(&[(1, &[1])]), 39),
        (assigned(&[(0, &[1, 2]), (1, &[1])]), 39),
        (assigned(&[(0, &[])]), 39),
        (assigned(&[(0, &[1])]).with_num_partitions(1), 42),
    ] {
        let answer = create(&mut client, vec![topic], false);
        let topic = &answer.topics[0];
        assert_eq!(topic.error_code, code, "{topic:?}");
        assert!(topic.error_message.is_some());
    }
    let placed = create(&mut client, vec![assigned(&[(1, &[1]), (0, &[1])])], false);
    assert_eq!(
        (placed.topics[0].error_code, placed.topics[0].num_partitions),
        (0, 2)
    );
    let twice = vec![
        creatable("d", 1, 1),
        creatable("e", 1, 1),
        creatable("d", 2, 1),
    ];
    let answer = create(&mut client, twice, false);
    let codes: Vec<_> = answer
        .topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.error_code))
        .collect();
    assert_eq!(codes, [("d", 42), ("e", 0)]);
}

#[test]
fn validate_only_makes_nothing() {
    let running = Running::in_memory();
    let mut client = running.client();
    let topic = with_config(creatable("t", 2, 1), "retention.ms", "1000");
    let answer = create(&mut client, vec![topic], true);
    let topic = &answer.topics[0];
    assert_eq!((topic.error_code, topic.num_partitions), (0, 2));
    assert!(topic.topic_id.is_nil());
    let configs = topic.configs.as_ref().unwrap();
    let retention = configs
        .iter()
        .find(|config| config.name.as_str() == "retention.ms");
    let retention = retention.unwrap();
    assert_eq!(retention.value.as_ref().unwrap().as_str(), "1000");
    assert_eq!(retention.config_source, 1);
    assert!(client.metadata(1, None).topics.is_empty());
}

#[test]
fn create_and_delete_are_served_in_every_accepted_version() {
    let running = Running::in_memory();
    let mut client = running.client();
    for (create_version, delete_version) in [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6)] {
        let request = CreateTopicsRequest::default().with_topics(vec![creatable("t", 1, 1)]);
        let made: CreateTopicsResponse =
            client.call(ApiKey::CreateTopics, create_version, &request);
        assert_eq!(made.topics[0].error_code, 0);
        let request = if delete_version == 6 {
            let state = DeleteTopicState::default().with_name(Some(topic_name("t")));
            DeleteTopicsRequest::default().with_topics(vec![state])
        } else {
            DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")])
        };
        for code in [0, 3] {
            let gone: DeleteTopicsResponse =
                client.call(ApiKey::DeleteTopics, delete_version, &request);
            assert_eq!(gone.responses[0].error_code, code, "v{delete_version}");
        }
    }
}

#[test]
fn a_recreated_topic_is_another_topic_with_another_id() {
    let running = Running::in_memory();
    let mut client = running.client();
    let first = create(&mut client, vec![creatable("t", 1, 1)], false).topics[0].topic_id;
    client.produce("t", 0, batch(1, &[b"old"]));
    let by_id = |id| {
        let state = DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id);
        DeleteTopicsRequest::default().with_topics(vec![state])
    };
    let gone: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 6, &by_id(first));
    let answer = &gone.responses[0];
    assert_eq!((answer.error_code, answer.topic_id), (0, first));
    assert_eq!(answer.name.as_ref().unwrap().as_str(), "t");
    let second = create(&mut client, vec![creatable("t", 1, 1)], false).topics[0].topic_id;
    assert_ne!(first, second);
    let stale: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 6, &by_id(first));
    assert_eq!(stale.responses[0].error_code, 100);
    assert_eq!(client.metadata(12, Some(&["t"])).topics[0].topic_id, second);
    assert_eq!(client.produce("t", 0, batch(1, &[b"new"])), 0);
}

#[test]
fn metadata_finds_a_topic_by_its_id_from_version_12_on() {
    let running = Running::in_memory();
    let mut client = running.client();
    let id = create(&mut client, vec![creatable("t", 1, 1)], false).topics[0].topic_id;
    let ask = |id| {
        let topic = MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    let found: MetadataResponse = client.call(ApiKey::Metadata, 12, &ask(id));
    let name = found.topics[0].name.as_ref().map(|name| name.as_str());
    assert_eq!((found.topics[0].error_code, name), (0, Some("t")));
    let unknown = uuid::Uuid::from_u128(7);
    let absent: MetadataResponse = client.call(ApiKey::Metadata, 12, &ask(unknown));
    assert_eq!(absent.topics[0].error_code, 100);
    let early: MetadataResponse = client.call(ApiKey::Metadata, 11, &ask(id));
    assert_eq!(early.topics[0].error_code, 35);
}

#[test]
fn a_long_poll_on_a_topic_that_is_deleted_ends_with_an_error() {
    let running = Running::in_memory();
    let mut reader = running.client();
    let mut client = running.client();
    client.create("t", 1);
    let mut request = fetch("t", &[(0, 0)]);
    request.max_wait_ms = 15_000;
    let id = reader.send(ApiKey::Fetch, 11, &request);
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]);
    let _: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 1, &delete);
    let answer: FetchResponse = reader.receive(ApiKey::Fetch, 11, id);
    assert_eq!(answer.responses[0].partitions[0].error_code, 3);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn topics_and_records_are_there_after_a_crash_and_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    let mut id = None;
    for round in 0..4 {
        let running = Running::start(on_disk(dir.path()));
        let mut client = running.client();
        if round == 0 {
            let topic = with_config(creatable("t", 2, 1), "retention.ms", "-1");
            id = Some(create(&mut client, vec![topic], false).topics[0].topic_id);
            create(&mut client, vec![creatable("gone", 1, 1)], false);
            let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("gone")]);
            let _: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 1, &delete);
        }
        let metadata = client.metadata(12, None);
        assert_eq!(metadata.topics.len(), 1);
        assert_eq!(Some(metadata.topics[0].topic_id), id);
        let value = format!("round {round}");
        let sent = batch(round, &[value.as_bytes()]);
        assert_eq!(client.produce("t", 1, sent.clone()), round);
        expected.extend_from_slice(&sent[16..]);
        let answer = client.fetch("t", 1, 0);
        let records = answer.responses[0].partitions[0].records.as_ref().unwrap();
        let mut found = Vec::new();
        for stored in records.chunks(sent.len()) {
            found.extend_from_slice(&stored[16..]);
        }
        assert_eq!(found, expected, "round {round}");
        if round % 2 == 0 {
            running.crash();
        } else {
            running.stop();
        }
    }
}

#[test]
fn old_records_are_deleted_and_an_idle_broker_asks_nothing_of_its_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let topics = TopicDefaults {
        retention_check_interval_ms: 50,
        ..TopicDefaults::default()
    };
    let running = Running::start(Config {
        topics,
        ..on_disk(dir.path())
    });
    let mut client = running.client();
    let kept = with_config(creatable("kept", 1, 1), "retention.ms", "-1");
    create(&mut client, vec![creatable("old", 1, 1), kept], false);
    // A moment of 1970 is older than the week that is kept by default.
    client.produce("old", 0, batch(1, &[b"a", b"b"]));
    client.produce("kept", 0, batch(1, &[b"a", b"b"]));
    let deadline = Instant::now() + Duration::from_secs(20);
    let start = loop {
        let answer = client.fetch("old", 0, 2);
        let start = answer.responses[0].partitions[0].log_start_offset;
        if start > 0 || Instant::now() > deadline {
            break start;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(start, 2);
    let below = client.fetch("old", 0, 0);
    assert_eq!(below.responses[0].partitions[0].error_code, 1);
    assert_eq!(client.produce("old", 0, batch(now_ms(), &[b"c"])), 2);
    let answer = client.fetch("kept", 0, 0);
    assert_eq!(answer.responses[0].partitions[0].log_start_offset, 0);
    // Everything uploaded and twenty looks for old segments later, nothing was asked.
    running.flush();
    let before = running.requests();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(running.requests(), before);
    running.stop();
}

#[test]
fn what_a_crash_leaves_of_a_topic_that_was_being_made_is_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 2);
    assert_eq!(client.produce("t", 1, batch(now_ms(), &[b"v"])), 0);
    // Groups are made before the key that names them: here the key never came.
    let tags = vec![("kafka".to_owned(), "partition".to_owned())];
    let orphan = running.wait(running.engine().create_group(2, tags));
    let (orphan, _) = orphan.unwrap();
    let groups = |running: &Running| running.engine().groups_tagged("kafka", "partition");
    assert!(groups(&running).contains(&orphan));
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    let left = groups(&running);
    assert_eq!((left.len(), left.contains(&orphan)), (2, false));
    let answer = running.client().fetch("t", 1, 0);
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 1);
    running.stop();
}
