//! Offsets in transactions: staged by TxnOffsetCommit, decided by the marker, over a crash as well.

use kafka_protocol::messages::{
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
    OffsetFetchRequest, OffsetFetchResponse, ProducerId, TransactionalId, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
};

use super::*;
use crate::support::on_disk;

type Producer = (i64, i16);

fn id() -> TransactionalId {
    TransactionalId(text("app"))
}

fn init(client: &mut Client) -> Producer {
    let mut request = FindCoordinatorRequest::default();
    request.key_type = 1;
    request.coordinator_keys = vec![text("app")];
    let found: FindCoordinatorResponse = client.call(ApiKey::FindCoordinator, 6, &request);
    assert_eq!(found.coordinators[0].error_code, 0);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(60_000);
    let mut producer = None;
    until("a producer id", || {
        let answer: InitProducerIdResponse = client.call(ApiKey::InitProducerId, 5, &request);
        if answer.error_code == 0 {
            producer = Some((answer.producer_id.0, answer.producer_epoch));
        }
        // The transaction before is being aborted.
        assert!([0, 51].contains(&answer.error_code), "{answer:?}");
        producer.is_some()
    });
    producer.unwrap()
}

fn stage(client: &mut Client, version: i16, producer: Producer, offset: i64) -> i16 {
    let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(group("g"))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_topics(vec![topic]);
    let answer: TxnOffsetCommitResponse = client.call(ApiKey::TxnOffsetCommit, version, &request);
    answer.topics[0].partitions[0].error_code
}

fn end(client: &mut Client, producer: Producer, commit: bool) -> Producer {
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    let answer: EndTxnResponse = client.call(ApiKey::EndTxn, 5, &request);
    assert_eq!(answer.error_code, 0);
    (answer.producer_id.0, answer.producer_epoch)
}

fn fetch(client: &mut Client, stable: bool) -> (i64, i16) {
    let topics = vec![
        OffsetFetchRequestTopics::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![0]),
    ];
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group("g"))
        .with_topics(Some(topics));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![asked])
        .with_require_stable(stable);
    let answer: OffsetFetchResponse = client.call(ApiKey::OffsetFetch, 9, &request);
    assert_eq!(answer.groups[0].error_code, 0);
    let partition = &answer.groups[0].topics[0].partitions[0];
    (partition.committed_offset, partition.error_code)
}

fn settled(client: &mut Client, expected: i64) {
    until("a decision", || fetch(client, true) == (expected, 0));
    assert_eq!(fetch(client, false), (expected, 0));
}

/// F43, F51.
#[test]
fn staged_offsets_count_when_their_transaction_does() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        coordinator: quick().coordinator,
        ..on_disk(dir.path())
    };
    let running = Running::start(config.clone());
    let mut client = running.client();
    client.create("t", 1);
    find(&mut client, "g");
    let producer = init(&mut client);
    assert_eq!(stage(&mut client, 5, producer, 5), 0);
    assert_eq!(fetch(&mut client, false), (-1, 0));
    assert_eq!(fetch(&mut client, true), (-1, 88));
    let producer = end(&mut client, producer, true);
    settled(&mut client, 5);
    assert_eq!(stage(&mut client, 5, producer, 7), 0);
    let producer = end(&mut client, producer, false);
    settled(&mut client, 5);
    // Old clients say by themselves which partitions they write; this one has not.
    assert_eq!(stage(&mut client, 3, producer, 8), 48);
    assert_eq!(stage(&mut client, 4, producer, 8), 120);
    assert_eq!(stage(&mut client, 5, producer, 8), 0);
    assert_eq!(stage(&mut client, 3, producer, 9), 0);
    running.crash();
    let running = Running::start(config);
    let mut client = running.client();
    find(&mut client, "g");
    assert_eq!(fetch(&mut client, true), (-1, 88));
    let next = end(&mut client, producer, true);
    settled(&mut client, 9);
    // A successor fences it.
    assert_eq!(stage(&mut client, 5, next, 10), 0);
    let successor = init(&mut client);
    settled(&mut client, 9);
    assert_eq!(stage(&mut client, 5, next, 11), 47);
    assert_eq!(stage(&mut client, 5, successor, 12), 0);
    end(&mut client, successor, true);
    settled(&mut client, 12);
    running.stop();
}
