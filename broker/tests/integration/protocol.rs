//! What a connection may say, and what becomes of those that say something else.

use std::time::Duration;

use broker::{Config, Limits};
use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse,
    ProduceResponse,
};
use segment_adapter::{BatchBuilder, Codec};

use super::support::{Client, Running, batch, decode, memory, now_ms, on_disk, produce};

#[test]
fn forged_lengths_end_their_own_connection_and_nothing_else() {
    let running = Running::in_memory();
    let mut bystander = running.client();
    bystander.assert_serves();
    let huge = [0x7f, 0xff, 0xff, 0xff];
    let produce = [&[0xff, 0xff, 0, 1, 0, 0, 0, 1][..], &huge].concat();
    for (key, version, body) in [
        (ApiKey::Metadata, 1, huge.to_vec()),
        (ApiKey::Produce, 7, produce),
        (ApiKey::Metadata, 12, vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        (ApiKey::DeleteTopics, 1, huge.to_vec()),
        (ApiKey::Fetch, 4, vec![0xff; 40]),
    ] {
        let mut client = running.client();
        client.send_body(key as i16, version, &body);
        assert!(client.is_closed(), "{key:?} v{version}");
    }
    bystander.assert_serves();
}

#[test]
fn vector_37_zstd_needs_version_7_of_produce() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let zstd = BatchBuilder::new(Codec::Zstd)
        .record(1, None, Some(b"v"))
        .build()
        .unwrap();
    for (version, code) in [(6, 76), (7, 0)] {
        let request = produce("t", 0, -1, zstd.clone());
        let answer: ProduceResponse = client.call(ApiKey::Produce, version, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, code, "version {version}");
    }
}

/// The error code and the base offset of what became of one batch of a producer.
fn produce_as(client: &mut Client, epoch: i16, sequence: i32, count: usize) -> (i16, i64) {
    let records = (0..count)
        .fold(BatchBuilder::new(Codec::None), |batch, _| {
            batch.record(now_ms(), None, Some(b"v"))
        })
        .producer(7, epoch, sequence)
        .build()
        .unwrap();
    let request = produce("t", 0, -1, records);
    let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
    let answer = &answer.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

#[test]
fn a_batch_that_is_sent_again_is_answered_and_not_written_again_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    assert_eq!(produce_as(&mut client, 0, 0, 2), (0, 0));
    assert_eq!(produce_as(&mut client, 0, 2, 1), (0, 2));
    assert_eq!(produce_as(&mut client, 0, 0, 2), (0, 0));
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    assert_eq!(produce_as(&mut client, 0, 0, 2), (0, 0));
    assert_eq!(produce_as(&mut client, 0, 2, 1), (0, 2));
    assert_eq!(produce_as(&mut client, 0, 4, 1).0, 45);
    assert_eq!(produce_as(&mut client, 1, 0, 1), (0, 3));
    assert_eq!(produce_as(&mut client, 0, 3, 1).0, 47);
    let answer = client.fetch("t", 0, 0);
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 4);
    running.stop();
}

#[test]
fn a_forged_record_count_is_an_error_and_not_an_allocation() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut forged = batch(1, &[b"v"]).to_vec();
    forged[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    let request = produce("t", 0, -1, forged.into());
    let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
    let answer = &answer.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, 87, "{answer:?}");
    client.assert_serves();
}

#[test]
fn a_frame_above_the_limit_or_below_zero_ends_the_connection() {
    let running = Running::in_memory();
    for len in [i32::MAX, -1, 104_857_601] {
        let mut client = running.client();
        client.send_bytes(&len.to_be_bytes());
        assert!(client.is_closed(), "{len}");
    }
    running.client().assert_serves();
}

#[test]
fn an_unknown_key_ends_the_connection_after_what_came_before_is_answered() {
    let running = Running::in_memory();
    let mut client = running.client();
    let id = client.send(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default());
    client.send_body(999, 0, &[]);
    let _: ApiVersionsResponse = client.receive(ApiKey::ApiVersions, 0, id);
    assert!(client.is_closed());
    // Known to the protocol, but not served here.
    let mut client = running.client();
    client.send_body(ApiKey::ShareFetch as i16, 1, &[]);
    assert!(client.is_closed());
    running.client().assert_serves();
}

#[test]
fn produce_below_version_3_is_listed_and_refused() {
    let running = Running::in_memory();
    let mut client = running.client();
    let answer: ApiVersionsResponse =
        client.call(ApiKey::ApiVersions, 3, &ApiVersionsRequest::default());
    let range = |key: ApiKey| {
        let mut rows = answer
            .api_keys
            .iter()
            .filter(|row| row.api_key == key as i16);
        rows.next().map(|row| (row.min_version, row.max_version))
    };
    assert_eq!(range(ApiKey::Produce), Some((0, 13)));
    assert_eq!(range(ApiKey::Fetch), Some((4, 18)));
    assert_eq!(range(ApiKey::JoinGroup), Some((0, 9)));
    assert_eq!(range(ApiKey::ShareFetch), None);
    client.send_body(ApiKey::Produce as i16, 2, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(client.is_closed());
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_with_the_table_in_version_0() {
    let running = Running::in_memory();
    let mut client = running.client();
    let id = client.send_body(ApiKey::ApiVersions as i16, 77, &[1, 2, 3]);
    let answer: ApiVersionsResponse = client.receive(ApiKey::ApiVersions, 0, id);
    assert_eq!(answer.error_code, 35);
    let own = answer
        .api_keys
        .iter()
        .find(|row| row.api_key == 18)
        .unwrap();
    assert_eq!((own.min_version, own.max_version), (0, 4));
    for version in 0..=4 {
        let request = ApiVersionsRequest::default();
        let answer: ApiVersionsResponse = client.call(ApiKey::ApiVersions, version, &request);
        assert_eq!(answer.error_code, 0);
    }
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut sent = Vec::new();
    for i in 0..60i64 {
        let key = match i % 3 {
            0 => ApiKey::Produce,
            1 => ApiKey::ApiVersions,
            _ => ApiKey::Metadata,
        };
        let id = match key {
            ApiKey::Produce => client.send(key, 7, &produce("t", 0, -1, batch(i, &[b"v"]))),
            ApiKey::ApiVersions => client.send(key, 0, &ApiVersionsRequest::default()),
            _ => client.send(key, 4, &MetadataRequest::default()),
        };
        sent.push((key, id));
    }
    let mut next_offset = 0;
    for (key, id) in sent {
        match key {
            ApiKey::Produce => {
                let answer: ProduceResponse = client.receive(key, 7, id);
                let answer = &answer.responses[0].partition_responses[0];
                assert_eq!((answer.error_code, answer.base_offset), (0, next_offset));
                next_offset += 1;
            }
            ApiKey::ApiVersions => drop(client.receive::<ApiVersionsResponse>(key, 0, id)),
            _ => drop(client.receive::<MetadataResponse>(key, 4, id)),
        }
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_answered() {
    let running = Running::in_memory();
    let mut client = running.client();
    for byte in [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 9, 0xff, 0xff] {
        client.send_bytes(&[byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    let (id, body) = client.receive_bytes();
    assert_eq!(id, 9);
    let answer: ApiVersionsResponse = decode(ApiKey::ApiVersions, 0, body);
    assert_eq!(answer.error_code, 0);
}

#[test]
fn acks_0_gets_no_byte_and_its_records_are_there() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    client.send(
        ApiKey::Produce,
        7,
        &produce("t", 0, 0, batch(1, &[b"silent"])),
    );
    // The next byte on the wire is the answer to the next request.
    client.assert_serves();
    assert_eq!(client.produce("t", 0, batch(1, &[b"loud"])), 1);
}

#[test]
fn acks_0_with_an_error_ends_the_connection() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.send(
        ApiKey::Produce,
        7,
        &produce("absent", 0, 0, batch(1, &[b"v"])),
    );
    assert!(client.is_closed());
}

#[test]
fn other_acks_are_refused_per_partition() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for acks in [2, -2, i16::MAX] {
        let request = produce("t", 0, acks, batch(1, &[b"v"]));
        let answer: ProduceResponse = client.call(ApiKey::Produce, 7, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 21);
    }
    assert_eq!(client.produce("t", 0, batch(1, &[b"first"])), 0);
}

#[test]
fn produce_is_served_in_every_accepted_version() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for (offset, version) in (3..=9).enumerate() {
        let request = produce("t", 0, 1, batch(1, &[b"v"]));
        let answer: ProduceResponse = client.call(ApiKey::Produce, version, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "v{version}: {answer:?}");
        assert_eq!(answer.base_offset, offset as i64);
        assert_eq!(answer.log_append_time_ms, -1);
        assert_eq!(answer.log_start_offset, if version >= 5 { 0 } else { -1 });
    }
}

#[test]
fn records_that_are_none_are_refused_and_say_why() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let whole = batch(1, &[b"v"]);
    let two = [&whole[..], &whole[..]].concat();
    let mut damaged = whole.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let mut old = whole.to_vec();
    old[16] = 1;
    for (records, code) in [
        (Bytes::new(), 87),
        (Bytes::from(two), 87),
        (Bytes::from(old), 87),
        (Bytes::from(damaged), 2),
    ] {
        let request = produce("t", 0, -1, records);
        let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, code, "{answer:?}");
        assert!(answer.error_message.is_some());
    }
    assert_eq!(client.produce("t", 0, whole), 0);
}

#[test]
fn a_connection_above_the_limit_is_closed_at_once_and_others_are_served() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let (mut first, mut second) = (running.client(), running.client());
    first.assert_serves();
    second.assert_serves();
    assert!(running.client().is_closed());
    first.assert_serves();
    drop(second);
    // The place is free again as soon as the broker has seen the end.
    let mut served = false;
    for _ in 0..100 {
        let mut client = running.client();
        let id = client.send(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default());
        assert_eq!(id, 1);
        if !client.is_closed() {
            served = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(served);
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_request_is_cut_off() {
    let limits = Limits {
        request_read_timeout_ms: 100,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut client = running.client();
    client.send_bytes(&[0, 0, 0, 100, 1, 2, 3]);
    assert!(client.is_closed());
}

#[test]
fn a_silent_connection_is_closed_after_the_idle_time() {
    let limits = Limits {
        idle_timeout_ms: 100,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    assert!(running.client().is_closed());
}
