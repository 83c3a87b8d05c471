//! Fetch and ListOffsets over raw connections: limits, errors, the long poll, and offsets by time.

use std::time::{Duration, Instant};

use kafka_protocol::{
    messages::{
        ApiKey, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceResponse,
        TransactionalId,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::ListOffsetsPartitionResponse,
    },
    protocol::StrBytes,
};

use super::support::{Client, Running, batch, fetch, on_disk, produce, topic_name};

fn records_len(answer: &FetchResponse) -> usize {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let records = partitions.map(|partition| partition.records.as_ref().unwrap().len());
    records.sum()
}

#[test]
fn fetch_is_served_in_every_accepted_version() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let sent = batch(5, &[b"one", b"two"]);
    client.produce("t", 0, sent.clone());
    for version in 4..=12 {
        let answer: FetchResponse = client.call(ApiKey::Fetch, version, &fetch("t", &[(0, 0)]));
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        assert_eq!(partition.high_watermark, 2);
        assert_eq!(partition.last_stable_offset, 2);
        // What the leader changes is not covered by the checksum: offset and epoch.
        let found = partition.records.as_ref().unwrap();
        assert_eq!(found[16..], sent[16..], "v{version}");
    }
}

#[test]
fn a_reader_of_committed_data_is_told_of_aborted_transactions_and_no_other_is() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"0"]));
    for (level, told) in [(0, None), (1, Some(Vec::new()))] {
        let mut request = fetch("t", &[(0, 0)]);
        request.isolation_level = level;
        let answer: FetchResponse = client.call(ApiKey::Fetch, 11, &request);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.aborted_transactions, told);
        assert_eq!(partition.records.as_ref().unwrap().len(), 69);
    }
}

/// A batch of a transaction.
fn transactional() -> bytes::Bytes {
    segment_adapter::BatchBuilder::new(segment_adapter::Codec::None)
        .record(1, None, Some(b"0"))
        .producer(1, 0, 0)
        .transactional()
        .build()
        .unwrap()
}

#[test]
fn a_batch_of_a_transaction_that_nobody_has_verified_is_refused() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut request = produce("t", 0, -1, transactional());
    request.transactional_id = Some(TransactionalId(StrBytes::from_static_str("mine")));
    let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
    let partition = &answer.responses[0].partition_responses[0];
    // There is no coordinator to ask before somebody has looked for it: that is worth another try.
    assert_eq!(partition.error_code, 19);
    assert_eq!(client.produce("t", 0, batch(1, &[b"1"])), 0);
}

#[test]
fn a_batch_of_a_transaction_without_a_transactional_id_refuses_the_whole_request() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 2);
    let mut request = produce("t", 0, -1, batch(1, &[b"0"]));
    let mut other = request.topic_data[0].partition_data[0].clone();
    other.index = 1;
    other.records = Some(transactional());
    request.topic_data[0].partition_data.push(other);
    // Before anything else is looked at.
    for acks in [-1, 7] {
        request.acks = acks;
        let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
        let partitions = answer.responses[0].partition_responses.iter();
        let codes: Vec<_> = partitions.map(|p| (p.index, p.error_code)).collect();
        assert_eq!(codes, [(0, 53), (1, 53)], "acks {acks}");
    }
    assert_eq!(client.produce("t", 0, batch(1, &[b"1"])), 0);
}

#[test]
fn an_offset_inside_a_batch_returns_the_whole_batch() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"0", b"1", b"2"]));
    let answer = client.fetch("t", 0, 1);
    let records = answer.responses[0].partitions[0].records.as_ref().unwrap();
    assert_eq!(records[..8], 0i64.to_be_bytes());
}

#[test]
fn offsets_outside_the_log_are_errors_that_carry_its_ends() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"0", b"1"]));
    for from in [-1, 3, i64::MAX] {
        let answer = client.fetch("t", 0, from);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 1, "{from}");
        assert_eq!(
            (partition.log_start_offset, partition.high_watermark),
            (0, 2)
        );
    }
    let answer = client.fetch("t", 0, 2);
    let tail = &answer.responses[0].partitions[0];
    assert_eq!((tail.error_code, tail.high_watermark), (0, 2));
    assert_eq!(tail.records.as_ref().unwrap().len(), 0);
    let absent = client.fetch("t", 9, 0);
    assert_eq!(absent.responses[0].partitions[0].error_code, 3);
}

#[test]
fn the_first_batch_comes_whatever_its_size_and_then_the_limits_hold() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 2);
    let large = batch(1, &[&[7; 5_000]]);
    for partition in [0, 1] {
        client.produce("t", partition, large.clone());
        client.produce("t", partition, large.clone());
    }
    let mut request = fetch("t", &[(0, 0), (1, 0)]);
    request.max_bytes = 100;
    let answer: FetchResponse = client.call(ApiKey::Fetch, 12, &request);
    let partitions = &answer.responses[0].partitions;
    assert_eq!(partitions[0].records.as_ref().unwrap().len(), large.len());
    assert_eq!(partitions[1].records.as_ref().unwrap().len(), 0);
    // In the order of the request, two batches fit into the total.
    request.max_bytes = 2 * large.len() as i32 + 1_000;
    let answer: FetchResponse = client.call(ApiKey::Fetch, 12, &request);
    let partitions = &answer.responses[0].partitions;
    let first = partitions[0].records.as_ref().unwrap().len();
    assert_eq!(first, 2 * large.len());
    assert_eq!(partitions[1].records.as_ref().unwrap().len(), 0);
    // And a partition's own limit leaves room for the next.
    let mut request = fetch("t", &[(0, 0), (1, 0)]);
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = large.len() as i32;
    }
    let answer: FetchResponse = client.call(ApiKey::Fetch, 12, &request);
    assert_eq!(records_len(&answer), 2 * large.len());
}

#[test]
fn a_long_poll_ends_when_a_record_arrives() {
    let running = Running::in_memory();
    let mut reader = running.client();
    let mut writer = running.client();
    writer.create("t", 2);
    let mut request = fetch("t", &[(0, 0), (1, 0)]);
    request.max_wait_ms = 15_000;
    let began = Instant::now();
    let id = reader.send(ApiKey::Fetch, 11, &request);
    std::thread::sleep(Duration::from_millis(300));
    writer.produce("t", 1, batch(1, &[b"wake"]));
    let answer: FetchResponse = reader.receive(ApiKey::Fetch, 11, id);
    let waited = began.elapsed();
    assert!(records_len(&answer) > 0);
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}

#[test]
fn a_long_poll_waits_for_as_many_bytes_as_it_asks_for_or_for_its_time() {
    let running = Running::in_memory();
    let mut reader = running.client();
    let mut writer = running.client();
    writer.create("t", 1);
    let one = batch(1, &[&[1; 500]]);
    let mut request = fetch("t", &[(0, 0)]);
    request.min_bytes = 2 * one.len() as i32;
    request.max_wait_ms = 15_000;
    let id = reader.send(ApiKey::Fetch, 11, &request);
    writer.produce("t", 0, one.clone());
    std::thread::sleep(Duration::from_millis(200));
    writer.produce("t", 0, one.clone());
    let answer: FetchResponse = reader.receive(ApiKey::Fetch, 11, id);
    assert_eq!(records_len(&answer), 2 * one.len());
    // Too little in time: what there is, and the ends of the log (F21).
    request.min_bytes = 1 << 20;
    request.max_wait_ms = 100;
    let began = Instant::now();
    let answer: FetchResponse = reader.call(ApiKey::Fetch, 11, &request);
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(records_len(&answer), 2 * one.len());
    let mut tail = fetch("t", &[(0, 2)]);
    tail.max_wait_ms = 100;
    let answer: FetchResponse = reader.call(ApiKey::Fetch, 11, &tail);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(
        (partition.high_watermark, partition.last_stable_offset),
        (2, 2)
    );
    assert_eq!(partition.log_start_offset, 0);
}

#[test]
fn a_long_poll_does_not_hold_up_a_produce_behind_it() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut request = fetch("t", &[(0, 0)]);
    request.max_wait_ms = 15_000;
    let fetched = client.send(ApiKey::Fetch, 11, &request);
    let produced = client.send(ApiKey::Produce, 7, &produce("t", 0, -1, batch(1, &[b"v"])));
    let began = Instant::now();
    let answer: FetchResponse = client.receive(ApiKey::Fetch, 11, fetched);
    assert!(records_len(&answer) > 0);
    let _: ProduceResponse = client.receive(ApiKey::Produce, 7, produced);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_stopping_broker_answers_those_who_wait() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut request = fetch("t", &[(0, 0)]);
    request.max_wait_ms = 60_000;
    let id = client.send(ApiKey::Fetch, 11, &request);
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    running.stop();
    assert!(began.elapsed() < Duration::from_secs(10));
    let answer: FetchResponse = client.receive(ApiKey::Fetch, 11, id);
    assert_eq!(records_len(&answer), 0);
    assert!(client.is_closed());
}

#[test]
fn there_are_no_fetch_sessions() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut request = fetch("t", &[(0, 0)]);
    request.session_epoch = 0; // "make a session"
    let answer: FetchResponse = client.call(ApiKey::Fetch, 11, &request);
    assert_eq!((answer.error_code, answer.session_id), (0, 0));
    request.session_id = 7;
    request.session_epoch = 1;
    let answer: FetchResponse = client.call(ApiKey::Fetch, 11, &request);
    assert_eq!(answer.error_code, 70);
}

#[test]
fn a_leader_epoch_of_the_past_or_the_future_is_told_so() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let metadata = client.metadata(12, Some(&["t"]));
    let epoch = metadata.topics[0].partitions[0].leader_epoch;
    assert!(epoch >= 0);
    for (believed, code) in [(epoch, 0), (-1, 0), (epoch + 1, 75), (epoch - 1, 74)] {
        if believed < -1 || (believed == -1 && code != 0) {
            continue; // the first epoch has no past
        }
        let mut request = fetch("t", &[(0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = believed;
        let answer: FetchResponse = client.call(ApiKey::Fetch, 12, &request);
        assert_eq!(answer.responses[0].partitions[0].error_code, code);
    }
}

#[test]
fn who_has_another_history_is_told_where_it_leaves_that_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let epoch_of = |client: &mut Client| {
        let answer = client.metadata(12, Some(&["t"]));
        answer.topics[0].partitions[0].leader_epoch
    };
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"0", b"1", b"2"]));
    let first = epoch_of(&mut client);
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    let second = epoch_of(&mut client);
    client.produce("t", 0, batch(1, &[b"3"]));
    // Offset, epoch before it; code, where histories part, whether there are records.
    let none = (-1, -1);
    for (from, epoch, code, parts, found) in [
        (3, first, 0, none, true),
        (1, first, 0, none, true),
        (4, second, 0, none, false),
        (3, -1, 0, none, true),
        // The first epoch ends at 3, the second at 4.
        (4, first, 0, (first, 3), false),
        (9, second, 0, (second, 4), false),
        // Nobody knows such an epoch.
        (3, second + 1, 1, none, false),
    ] {
        let mut request = fetch("t", &[(0, from)]);
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        // Who stands apart does not wait.
        request.max_wait_ms = if parts == none { 0 } else { 15_000 };
        let began = Instant::now();
        let answer: FetchResponse = client.call(ApiKey::Fetch, 12, &request);
        let partition = &answer.responses[0].partitions[0];
        let end = &partition.diverging_epoch;
        let told = (partition.error_code, (end.epoch, end.end_offset));
        assert_eq!(told, (code, parts), "{from} after {epoch}");
        let records = partition.records.as_ref().unwrap();
        assert_eq!(!records.is_empty(), found, "{from} after {epoch}");
        assert_eq!(partition.high_watermark, 4);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    running.stop();
}

fn list(client: &mut Client, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic]);
    let mut answer: ListOffsetsResponse = client.call(ApiKey::ListOffsets, version, &request);
    answer.topics.remove(0).partitions.remove(0)
}

#[test]
fn offsets_are_found_by_time_and_at_the_ends() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for time in [1_000, 3_000, 2_000] {
        client.produce("t", 0, batch(time, &[b"a", b"b"]));
    }
    for version in 1..=7 {
        let mut found = |timestamp| {
            let answer = list(&mut client, version, timestamp);
            assert_eq!(answer.error_code, 0, "v{version} {timestamp}");
            (answer.offset, answer.timestamp)
        };
        assert_eq!(found(-1), (6, -1));
        assert_eq!(found(-2), (0, -1));
        assert_eq!(found(0), (0, 1_000));
        assert_eq!(found(1_001), (2, 3_000));
        assert_eq!(found(3_000), (2, 3_000));
        assert_eq!(found(3_001), (-1, -1));
    }
    let newest = list(&mut client, 7, -3);
    assert_eq!((newest.offset, newest.timestamp), (2, 3_000));
    for (version, timestamp) in [(6, -3), (7, -4), (7, -9)] {
        assert_eq!(list(&mut client, version, timestamp).error_code, 35);
    }
}

#[test]
fn a_partition_that_is_asked_for_twice_is_an_invalid_request() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition.clone(), partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let answer: ListOffsetsResponse = client.call(ApiKey::ListOffsets, 7, &request);
    let codes: Vec<_> = answer.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(codes, [0, 42]);
}
