//! Topics by their ids: the versions of requests that have nothing else.

use kafka_protocol::messages::{
    ApiKey, BrokerId, DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, FetchResponse,
    ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};
use uuid::Uuid;

use super::support::{Client, Running, batch, topic_name};

fn id_of(client: &mut Client, topic: &str) -> Uuid {
    client.metadata(12, Some(&[topic])).topics[0].topic_id
}

fn request(id: Uuid, index: i32, from: i64, epoch: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(from)
        .with_current_leader_epoch(epoch)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic_id(id)
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn fetch(client: &mut Client, version: i16, request: &FetchRequest) -> (i16, i64) {
    let answer: FetchResponse = client.call(ApiKey::Fetch, version, request);
    // F23: no sessions.
    assert_eq!((answer.error_code, answer.session_id), (0, 0));
    let topic = &answer.responses[0];
    assert_eq!(topic.topic_id, request.topics[0].topic_id);
    let partition = &topic.partitions[0];
    let found = partition.records.as_ref().unwrap();
    assert_eq!(partition.error_code == 0, !found.is_empty());
    (partition.error_code, partition.high_watermark)
}

fn delete(client: &mut Client, topic: &str) {
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(topic)]);
    let answer: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 5, &request);
    assert_eq!(answer.responses[0].error_code, 0);
}

#[test]
fn f9_a_topic_that_was_made_anew_is_not_found_by_the_id_of_the_old_one() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"old"]));
    let old = id_of(&mut client, "t");
    delete(&mut client, "t");
    client.create("t", 1);
    let new = id_of(&mut client, "t");
    assert_ne!(old, new);
    // Offsets begin anew.
    assert_eq!(client.produce("t", 0, batch(1, &[b"new"])), 0);
    for version in 13..=18 {
        assert_eq!(fetch(&mut client, version, &request(new, 0, 0, -1)), (0, 1));
        for (id, index, code) in [(old, 0, 100), (Uuid::from_u128(1), 0, 100), (new, 1, 3)] {
            let asked = request(id, index, 0, -1);
            assert_eq!(
                fetch(&mut client, version, &asked),
                (code, -1),
                "v{version}"
            );
        }
    }
}

#[test]
fn f9_what_is_produced_by_the_id_of_an_old_topic_does_not_come_into_the_new_one() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let old = id_of(&mut client, "t");
    let mut produce = |id, index| {
        let data = PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(batch(1, &[b"v"])));
        let topic = TopicProduceData::default()
            .with_topic_id(id)
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(20_000)
            .with_topic_data(vec![topic]);
        let answer: ProduceResponse = client.call(ApiKey::Produce, 13, &request);
        assert_eq!(answer.responses[0].topic_id, id);
        let answer = &answer.responses[0].partition_responses[0];
        (answer.error_code, answer.base_offset)
    };
    assert_eq!(produce(old, 0), (0, 0));
    assert_eq!(produce(old, 1), (3, -1));
    let mut other = running.client();
    delete(&mut other, "t");
    other.create("t", 1);
    assert_eq!(produce(old, 0), (100, -1));
    assert_eq!(produce(Uuid::nil(), 0), (100, -1));
    assert_eq!(produce(id_of(&mut other, "t"), 0), (0, 0));
}

#[test]
fn who_believes_in_an_old_leader_is_told_of_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = || super::support::on_disk(dir.path());
    let running = Running::start(on_disk());
    running.client().create("t", 1);
    running.stop();
    let running = Running::start(on_disk());
    let mut client = running.client();
    let id = id_of(&mut client, "t");
    let epoch = client.metadata(12, Some(&["t"])).topics[0].partitions[0].leader_epoch;
    assert!(epoch > 0);
    for version in 13..=18 {
        let answer: FetchResponse =
            client.call(ApiKey::Fetch, version, &request(id, 0, 0, epoch - 1));
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 74);
        let leader = (
            partition.current_leader.leader_id.0,
            partition.current_leader.leader_epoch,
        );
        let told = version >= 16;
        assert_eq!(leader, if told { (1, epoch) } else { (-1, -1) });
        let nodes: Vec<_> = answer.node_endpoints.iter().map(|node| node.port).collect();
        let port = i32::from(running.address().port());
        assert_eq!(nodes, if told { vec![port] } else { vec![] });
    }
}

#[test]
fn a_fetch_that_waits_hears_that_its_topic_is_gone() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let id = id_of(&mut client, "t");
    let mut waiting = running.client();
    let asked = request(id, 0, 0, -1)
        .with_min_bytes(1)
        .with_max_wait_ms(20_000);
    let sent = waiting.send(ApiKey::Fetch, 18, &asked);
    delete(&mut client, "t");
    let answer: FetchResponse = waiting.receive(ApiKey::Fetch, 18, sent);
    assert_eq!(answer.responses[0].partitions[0].error_code, 100);
}

#[test]
fn f23_a_session_that_nobody_has_is_not_found() {
    let running = Running::in_memory();
    let mut client = running.client();
    for version in 7..=18 {
        let asked = FetchRequest::default()
            .with_session_id(7)
            .with_session_epoch(1);
        let answer: FetchResponse = client.call(ApiKey::Fetch, version, &asked);
        assert_eq!((answer.error_code, answer.session_id), (70, 0));
        let asked = FetchRequest::default().with_session_epoch(0);
        let answer: FetchResponse = client.call(ApiKey::Fetch, version, &asked);
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
    }
}

#[test]
fn offsets_are_listed_in_every_version() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(7, &[b"a", b"b"]));
    let mut list = |version, time| {
        let partition = ListOffsetsPartition::default().with_timestamp(time);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let answer: ListOffsetsResponse = client.call(ApiKey::ListOffsets, version, &request);
        let found = &answer.topics[0].partitions[0];
        (found.error_code, found.offset)
    };
    for version in 1..=10 {
        assert_eq!(list(version, -1), (0, 2));
        assert_eq!(list(version, -2), (0, 0));
        assert_eq!(
            list(version, -4),
            if version >= 8 { (0, 0) } else { (35, -1) }
        );
        assert_eq!(
            list(version, -5),
            if version >= 9 { (0, -1) } else { (35, -1) }
        );
        assert_eq!(list(version, -6), (35, -1));
    }
}
