//! More than the broker can take: producers are slowed down and lose nothing, and nobody holds up the others for long.

use std::time::{Duration, Instant};

use broker::{Config, Limits};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchResponse};
use rdkafka::producer::Producer;

use super::{
    clients::{Acknowledged, create_topic, producer, read_all, send},
    support::{Running, batch, fetch, memory, on_disk},
};

const MIB: u64 = 1 << 20;

#[test]
fn a_producer_faster_than_the_log_is_slowed_down_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = s3stream::Config {
        log_cache_bytes: 4 * MIB,
        upload_bytes: MIB,
        stream_object_bytes: MIB,
        ..s3stream::Config::default()
    };
    let running = Running::start(Config {
        wal: format!("block:{}?capacity=16MiB", dir.path().join("wal").display()),
        engine,
        ..on_disk(dir.path())
    });
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "t", 4);
    let acks = Acknowledged::default();
    let producer = producer(&bootstrap, "none", &acks);
    // Four times what the log holds, sixteen times what memory may hold.
    let mut value = vec![b'x'; 16 * 1024];
    for index in 0..4_096u32 {
        value[..4].copy_from_slice(&index.to_be_bytes());
        send(&producer, "t", (index % 4) as i32, &value).unwrap();
    }
    producer.flush(Duration::from_secs(120)).unwrap();
    assert_eq!(acks.failed(), 0);
    assert_eq!(acks.by_place().len(), 4_096);
    assert!(read_all(&bootstrap, "t", 4) == acks.by_place());
    running.stop();
}

#[test]
fn a_client_that_takes_no_answers_is_cut_off_and_its_share_goes_to_others() {
    let limits = Limits {
        fetch_bytes_max: 1 << 20,
        response_bytes_max: 1 << 20,
        write_stall_timeout_ms: 500,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut client = running.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[&[7; 900_000]]));
    // Far more than sockets buffer, none of it taken: the share of all answers is held by these.
    let mut slow: Vec<_> = (0..4).map(|_| running.client()).collect();
    for slow in &mut slow {
        for _ in 0..30 {
            slow.send(ApiKey::Fetch, 11, &fetch("t", &[(0, 0)]));
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    let answer: FetchResponse = client.call(ApiKey::Fetch, 11, &fetch("t", &[(0, 0)]));
    let records = answer.responses[0].partitions[0].records.as_ref().unwrap();
    assert!(records.len() > 900_000);
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    // The first of them has had no answer taken for longer than the limit by now.
    let whole = 30 * records.len() as u64;
    let cut_off = slow.iter_mut().any(|slow| {
        slow.shutdown();
        slow.drain() < whole
    });
    assert!(cut_off);
}

#[test]
fn requests_that_never_arrive_give_their_share_back() {
    let limits = Limits {
        request_bytes_max: 1 << 16,
        in_flight_bytes_max: 1 << 16,
        request_read_timeout_ms: 300,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut hogs: Vec<_> = (0..3).map(|_| running.client()).collect();
    for hog in &mut hogs {
        hog.send_bytes(&(1i32 << 16).to_be_bytes());
    }
    let mut client = running.client();
    let began = Instant::now();
    let _: ApiVersionsResponse =
        client.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default());
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    for hog in &mut hogs {
        assert!(hog.is_closed());
    }
}
