//! Producer ids, deleted records and the ends of leader epochs over raw connections.

use std::collections::BTreeSet;

use kafka_protocol::{
    messages::{
        ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, InitProducerIdRequest,
        InitProducerIdResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        ProducerId, TransactionalId,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
    protocol::StrBytes,
};

use super::support::{Client, Running, batch, now_ms, on_disk, topic_name};

fn producer_id(client: &mut Client, version: i16) -> i64 {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let answer: InitProducerIdResponse = client.call(ApiKey::InitProducerId, version, &request);
    assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
    answer.producer_id.0
}

#[test]
fn a_producer_id_is_given_once_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut given = BTreeSet::new();
    for _ in 0..3 {
        let running = Running::start(on_disk(dir.path()));
        let mut client = running.client();
        for version in 0..=5 {
            let id = producer_id(&mut client, version);
            assert!(id >= 0 && given.insert(id), "{id} twice");
        }
        // More than a block.
        for _ in 0..1_100 {
            let id = producer_id(&mut client, 4);
            assert!(given.insert(id), "{id} twice");
        }
        running.crash();
    }
}

#[test]
fn what_is_wrong_with_a_request_for_a_producer_id_is_told() {
    let running = Running::in_memory();
    let mut client = running.client();
    let ask = |id: Option<&'static str>, producer: i64, epoch: i16| {
        InitProducerIdRequest::default()
            .with_transactional_id(id.map(|id| TransactionalId(StrBytes::from_static_str(id))))
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
    };
    for (request, code) in [
        (ask(Some(""), -1, -1), 42),
        // A time-out of 0.
        (ask(Some("t"), -1, -1), 50),
        (ask(None, 7, -1), 42),
        (ask(None, -1, 0), 42),
        (ask(None, 7, 0), 0),
    ] {
        let answer: InitProducerIdResponse = client.call(ApiKey::InitProducerId, 4, &request);
        assert_eq!(answer.error_code, code, "{request:?}");
        assert_eq!(answer.producer_id.0 >= 0, code == 0);
    }
    client.assert_serves();
}

/// Codes and low watermarks of partitions 0 and up.
fn delete(client: &mut Client, version: i16, offsets: &[(i32, i64)]) -> Vec<(i16, i64)> {
    delete_of(client, "t", version, offsets, 20_000)
}

fn delete_of(
    client: &mut Client,
    topic: &str,
    version: i16,
    offsets: &[(i32, i64)],
    timeout_ms: i32,
) -> Vec<(i16, i64)> {
    let partitions = offsets.iter().map(|(index, offset)| {
        DeleteRecordsPartition::default()
            .with_partition_index(*index)
            .with_offset(*offset)
    });
    let topic = DeleteRecordsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.collect());
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(timeout_ms);
    let answer: DeleteRecordsResponse = client.call(ApiKey::DeleteRecords, version, &request);
    let partitions = answer.topics[0].partitions.iter();
    let answers = partitions.map(|partition| (partition.error_code, partition.low_watermark));
    answers.collect()
}

#[test]
fn records_of_topics_of_the_broker_itself_are_not_deleted() {
    let running = Running::in_memory();
    let mut client = running.client();
    for topic in ["__consumer_offsets", "__transaction_state"] {
        // Who asks for it makes it.
        let made = client.metadata(9, Some(&[topic]));
        assert_eq!(made.topics[0].error_code, 0);
        let answer = delete_of(&mut client, topic, 2, &[(0, 0)], 20_000);
        assert_eq!(answer, [(17, -1)], "{topic}");
    }
}

#[test]
fn records_are_deleted_and_that_is_told_also_to_who_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    for offset in 0..4 {
        client.produce("t", 0, batch(now_ms(), &[b"v"]));
        for timeout_ms in [0, -1] {
            let answer = delete_of(&mut client, "t", 2, &[(0, -1)], timeout_ms);
            assert_eq!(answer, [(0, offset + 1)], "{timeout_ms}");
        }
    }
    running.stop();
}

#[test]
fn f56_records_are_deleted_up_to_an_offset_and_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 2);
    for _ in 0..10 {
        client.produce("t", 0, batch(now_ms(), &[b"v"]));
    }
    assert_eq!(delete(&mut client, 0, &[(0, 4), (1, -1)]), [(0, 4), (0, 0)]);
    // Below the start: nothing happens. Past the high watermark, or negative: out of range. Twice, or unknown.
    assert_eq!(delete(&mut client, 1, &[(0, 2)]), [(0, 4)]);
    assert_eq!(
        delete(&mut client, 2, &[(0, 11), (1, -2)]),
        [(1, -1), (1, -1)]
    );
    assert_eq!(
        delete(&mut client, 2, &[(0, 5), (0, 6)]),
        [(0, 5), (42, -1)]
    );
    assert_eq!(delete(&mut client, 2, &[(9, 0)]), [(3, -1)]);
    let answer = client.fetch("t", 0, 3);
    assert_eq!(answer.responses[0].partitions[0].error_code, 1);
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    let answer = client.fetch("t", 0, 4);
    assert_eq!(answer.responses[0].partitions[0].log_start_offset, 5);
    assert_eq!(delete(&mut client, 2, &[(0, -1)]), [(0, 10)]);
    running.stop();
}

/// Code, epoch and end of partition 0.
fn epoch_end(client: &mut Client, version: i16, current: i32, epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_current_leader_epoch(current)
        .with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let answer: OffsetForLeaderEpochResponse =
        client.call(ApiKey::OffsetForLeaderEpoch, version, &request);
    let found = &answer.topics[0].partitions[0];
    (found.error_code, found.leader_epoch, found.end_offset)
}

#[test]
fn f30_the_end_of_a_leader_epoch_is_where_the_next_one_began() {
    let dir = tempfile::tempdir().unwrap();
    let epoch_of = |client: &mut Client| {
        let answer = client.metadata(9, Some(&["t"]));
        answer.topics[0].partitions[0].leader_epoch
    };
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(now_ms(), &[b"a", b"b", b"c"]));
    let first = epoch_of(&mut client);
    for version in 2..=4 {
        assert_eq!(epoch_end(&mut client, version, first, first), (0, first, 3));
    }
    running.crash();

    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    let second = epoch_of(&mut client);
    assert!(second > first);
    assert_eq!(epoch_end(&mut client, 4, second, first), (0, first, 3));
    client.produce("t", 0, batch(now_ms(), &[b"d"]));
    assert_eq!(epoch_end(&mut client, 4, second, first), (0, first, 3));
    assert_eq!(epoch_end(&mut client, 4, second, second), (0, second, 4));
    assert_eq!(epoch_end(&mut client, 4, -1, second + 1), (0, -1, -1));
    // Who believes in another leader learns that first.
    assert_eq!(epoch_end(&mut client, 4, first, first), (74, -1, -1));
    assert_eq!(epoch_end(&mut client, 4, second + 1, first), (75, -1, -1));
    running.stop();
}
