//! Each limit at its limit: who opens and says nothing, announces and does not send, asks for too much, or sends what expands.

use std::{net::SocketAddr, time::Duration};

use broker::{Config, Limits};
use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse,
    ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    produce_request::PartitionProduceData,
};
use segment_adapter::{BatchBuilder, Codec};

use super::{
    program::{Places, Program},
    support::{Client, Running, batch, fetch, memory, produce, topic_name},
};

const MIB: u64 = 1 << 20;
/// More than a batch may expand to.
const EXPANDED: usize = 200 << 20;
/// MESSAGE_TOO_LARGE.
const TOO_LARGE: i16 = 10;

/// A batch that fits into `max.message.bytes` and expands to [`EXPANDED`].
fn bomb(codec: Codec) -> Bytes {
    let record = BatchBuilder::new(codec).record(1, None, Some(&vec![0; EXPANDED]));
    let bomb = record.build().unwrap();
    assert!(bomb.len() < 1_048_588, "{codec}: {}", bomb.len());
    bomb
}

fn is_served(client: &mut Client) {
    let request = ApiVersionsRequest::default();
    let answer: ApiVersionsResponse = client.call(ApiKey::ApiVersions, 0, &request);
    assert_eq!(answer.error_code, 0);
}

#[test]
fn a_batch_that_expands_beyond_the_limit_is_refused_and_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&Places::under(dir.path()), &[]);
    let mut client = program.client();
    client.create("t", 1);
    client.produce("t", 0, batch(1, &[b"first"]));
    let before = program.peak_bytes();
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let request = produce("t", 0, -1, bomb(codec));
        let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, TOO_LARGE, "{codec}: {answer:?}");
    }
    let more = program.peak_bytes() - before;
    assert!(more < 32 * MIB, "{more} bytes for what expands");
    assert_eq!(client.produce("t", 0, batch(1, &[b"second"])), 1);
    program.stop();
}

#[test]
fn requests_full_of_what_expands_let_others_in_between() {
    const BOMBS: i32 = 30;
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", BOMBS);
    let mut request: ProduceRequest = produce("t", 0, -1, bomb(Codec::Zstd));
    let data = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data = (0..BOMBS)
        .map(|index| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(data.records.clone())
        })
        .collect();
    // As many as there are threads, and more.
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut hogs: Vec<_> = (0..2 * threads).map(|_| running.client()).collect();
    for hog in &mut hogs {
        hog.send(ApiKey::Produce, 9, &request);
    }
    for _ in 0..2 {
        is_served(&mut client);
    }
    assert!(!hogs.iter().any(Client::has_answer), "others had to wait");
    // What they asked is refused as a whole, and they are served on.
    let (_, body) = hogs[0].receive_bytes();
    let answer: ProduceResponse = super::support::decode(ApiKey::Produce, 9, body);
    let codes = answer.responses[0].partition_responses.iter();
    assert!(
        codes
            .map(|answer| answer.error_code)
            .all(|code| code == TOO_LARGE)
    );
}

#[test]
fn look_ups_by_time_in_what_expands_let_others_in_between() {
    const PARTITIONS: i32 = 100;
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", PARTITIONS);
    // As much as is taken; the time that is looked for is that of the last record.
    let large = vec![0; 100 << 20];
    let batch = BatchBuilder::new(Codec::Zstd)
        .record(1, None, Some(&large))
        .record(2, None, Some(b"last"));
    let batch = batch.build().unwrap();
    for partition in 0..PARTITIONS {
        client.produce("t", partition, batch.clone());
    }
    let partitions = (0..PARTITIONS).map(|index| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_timestamp(2)
    });
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut hogs: Vec<_> = (0..2 * threads).map(|_| running.client()).collect();
    for hog in &mut hogs {
        hog.send(ApiKey::ListOffsets, 1, &request);
    }
    is_served(&mut client);
    assert!(!hogs.iter().any(Client::has_answer), "others had to wait");
    let (_, body) = hogs[0].receive_bytes();
    let answer: ListOffsetsResponse = super::support::decode(ApiKey::ListOffsets, 1, body);
    let mut found = answer.topics[0].partitions.iter();
    assert!(found.all(|found| (found.error_code, found.offset) == (0, 1)));
}

#[test]
fn requests_that_are_announced_and_not_sent_hold_no_memory_and_hold_up_no_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&Places::under(dir.path()), &[]);
    let before = program.peak_bytes();
    let mut hogs: Vec<_> = (0..100).map(|_| program.client()).collect();
    for hog in &mut hogs {
        // All that a request may be, and a little of it.
        hog.send_bytes(&(100i32 << 20).to_be_bytes());
        hog.send_bytes(&[0; 1024]);
    }
    // Only three of them fit into what all requests may be together.
    let mut client = program.client();
    client.create("t", 1);
    assert_eq!(client.produce("t", 0, batch(1, &[b"v"])), 0);
    let more = program.peak_bytes() - before;
    assert!(more < 64 * MIB, "{more} bytes for nothing");
    // They are waited for still, so it was not their end that made room.
    assert!(!hogs.iter().any(Client::has_answer));
}

#[test]
fn who_opens_and_says_nothing_loses_its_place_and_who_has_spoken_keeps_it() {
    let limits = Limits {
        connections_max: 2,
        request_read_timeout_ms: 200,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut client = running.client();
    is_served(&mut client);
    for _ in 0..3 {
        assert!(running.client().is_closed());
    }
    is_served(&mut client);
}

#[test]
fn an_address_that_has_its_share_of_connections_leaves_room_for_others() {
    let limits = Limits {
        connections_per_address_max: 2,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut mine = [running.client(), running.client()];
    mine.iter_mut().for_each(is_served);
    assert!(running.client().is_closed());
    let elsewhere: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(elsewhere).unwrap();
        socket.connect(running.address()).await.unwrap()
    };
    let stream = running.wait(connecting).into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    is_served(&mut Client::of(stream));
    mine.iter_mut().for_each(is_served);
}

/// Waits on `t` for as long as the test takes.
fn long_poll() -> FetchRequest {
    fetch("t", &[(0, 0)]).with_max_wait_ms(60_000)
}

#[test]
fn requests_beyond_those_in_flight_stay_in_the_socket() {
    let limits = Limits {
        requests_in_flight_max: 2,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut client = running.client();
    client.create("t", 1);
    client.create("u", 1);
    let mut full = running.client();
    let polls = [0, 1].map(|_| full.send(ApiKey::Fetch, 11, &long_poll()));
    let beyond = full.send(ApiKey::Produce, 9, &produce("u", 0, -1, batch(1, &[b"v"])));
    // It is not begun, however long others go on.
    for _ in 0..50 {
        let answer = client.fetch("u", 0, 0);
        assert_eq!(answer.responses[0].partitions[0].high_watermark, 0);
    }
    client.produce("t", 0, batch(1, &[b"v"]));
    for poll in polls {
        let answer: FetchResponse = full.receive(ApiKey::Fetch, 11, poll);
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
    }
    let answer: ProduceResponse = full.receive(ApiKey::Produce, 9, beyond);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn a_client_that_vanishes_behind_a_long_poll_frees_its_place() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let running = Running::start(Config { limits, ..memory() });
    let mut client = running.client();
    client.create("t", 1);
    let mut gone = running.client();
    gone.send(ApiKey::Fetch, 11, &long_poll());
    drop(gone);
    // Its place is free as soon as its end is seen, long before the poll would end.
    let mut tries = 0;
    let mut next = running.client();
    while next.is_refused() {
        tries += 1;
        assert!(tries < 1000, "the place is not free");
        std::thread::sleep(Duration::from_millis(5));
        next = running.client();
    }
    is_served(&mut client);
}
