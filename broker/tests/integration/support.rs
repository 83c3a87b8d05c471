//! Brokers on free ports, and a client that says exactly what it is told to say.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use broker::{Broker, Config};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse,
        MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader,
        ResponseHeader, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use segment_adapter::{BatchBuilder, Codec};
use tokio::runtime::Runtime;

/// A broker in this process, on a runtime of its own.
pub(crate) struct Running {
    broker: Option<Broker>,
    address: SocketAddr,
    runtime: Runtime,
}

impl Running {
    /// A broker whose places are memory.
    pub(crate) fn in_memory() -> Self {
        Self::start(memory())
    }

    pub(crate) fn start(config: Config) -> Self {
        let runtime = Runtime::new().unwrap();
        let broker = runtime.block_on(Broker::start(config)).unwrap();
        Self {
            address: broker.address(),
            broker: Some(broker),
            runtime,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses of its nodes.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.broker.as_ref().unwrap().addresses()
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Where the status page is.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.broker.as_ref().unwrap().metrics_address().unwrap()
    }

    /// The engine below.
    pub(crate) fn engine(&self) -> &s3stream::Engine {
        self.broker.as_ref().unwrap().engine()
    }

    /// Uploads everything.
    pub(crate) fn flush(&self) {
        self.runtime.block_on(self.engine().flush()).unwrap();
    }

    /// Waits for something of the engine.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The requests to the bucket so far.
    pub(crate) fn requests(&self) -> s3stream::store::Requests {
        self.engine().requests()
    }

    /// A clean stop.
    pub(crate) fn stop(mut self) {
        let broker = self.broker.take().unwrap();
        self.runtime.block_on(broker.stop()).unwrap();
    }

    /// The end without a stop: tasks are dropped where they are.
    pub(crate) fn crash(mut self) {
        drop(self.broker.take());
        self.runtime.shutdown_timeout(Duration::from_secs(10));
    }
}

/// A configuration on a free port that keeps nothing.
pub(crate) fn memory() -> Config {
    Config {
        listen: "127.0.0.1:0".into(),
        bucket: "memory:".into(),
        wal: "memory:".into(),
        ..Config::default()
    }
}

/// A configuration on a free port that keeps its data under `dir`.
pub(crate) fn on_disk(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".into(),
        bucket: format!("file:{}", dir.join("bucket").display()),
        wal: format!("block:{}?capacity=256MiB", dir.join("wal").display()),
        ..Config::default()
    }
}

/// A connection over which requests are sent and answers read one by one.
pub(crate) struct Client {
    stream: TcpStream,
    next_id: i32,
    /// What it calls itself.
    pub(crate) name: &'static str,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// A client on a connection that was made otherwise.
    pub(crate) fn of(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            next_id: 1,
            name: "test",
        }
    }

    /// Sends a request; returns its number.
    pub(crate) fn send(&mut self, key: ApiKey, version: i16, body: &impl Encodable) -> i32 {
        let mut bytes = BytesMut::new();
        body.encode(&mut bytes, version).unwrap();
        self.send_body(key as i16, version, &bytes)
    }

    /// Sends a request with this body, whatever it is.
    pub(crate) fn send_body(&mut self, key: i16, version: i16, body: &[u8]) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        let header_version =
            ApiKey::try_from(key).map_or(1, |key| key.request_header_version(version).max(1));
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(StrBytes::from_static_str(self.name)))
            .encode(&mut frame, header_version)
            .unwrap();
        frame.extend_from_slice(body);
        self.send_frame(&frame);
        id
    }

    pub(crate) fn send_frame(&mut self, frame: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_u32(frame.len() as u32);
        bytes.extend_from_slice(frame);
        self.send_bytes(&bytes);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next answer, whatever it answers: its number and what follows.
    pub(crate) fn receive_bytes(&mut self) -> (i32, Bytes) {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).unwrap();
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut body).unwrap();
        let mut body = Bytes::from(body);
        (body.get_i32(), body)
    }

    /// The next answer, which must be to request `id`.
    pub(crate) fn receive<M: Decodable>(&mut self, key: ApiKey, version: i16, id: i32) -> M {
        let (found, body) = self.receive_bytes();
        assert_eq!(found, id, "answers are in the order of the requests");
        decode(key, version, body)
    }

    pub(crate) fn call<M: Decodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        body: &impl Encodable,
    ) -> M {
        let id = self.send(key, version, body);
        self.receive(key, version, id)
    }

    /// Whether the broker has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether it was closed without an answer to its first request.
    pub(crate) fn is_refused(&mut self) -> bool {
        let frame = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 255, 255];
        if self.stream.write_all(&frame).is_err() {
            return true;
        }
        !matches!(self.stream.read(&mut [0; 1]), Ok(1))
    }

    /// Whether an answer has begun to arrive, without waiting for it.
    pub(crate) fn has_answer(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0; 1]);
        self.stream.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }

    /// Says that nothing more will be asked.
    pub(crate) fn shutdown(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Takes everything that is still sent until the connection ends; how many bytes that was.
    pub(crate) fn drain(&mut self) -> u64 {
        let mut taken = 0;
        let mut buf = vec![0; 1 << 16];
        while let Ok(read @ 1..) = self.stream.read(&mut buf) {
            taken += read as u64;
        }
        taken
    }

    /// Fails unless the connection still serves.
    pub(crate) fn assert_serves(&mut self) {
        let answer = self.metadata(1, None);
        assert_eq!(answer.brokers.len(), 1);
    }

    pub(crate) fn metadata(&mut self, version: i16, topics: Option<&[&str]>) -> MetadataResponse {
        let topics = topics.map(|topics| {
            let named =
                |topic: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
            topics.iter().map(named).collect()
        });
        let request = MetadataRequest::default().with_topics(topics);
        self.call(ApiKey::Metadata, version, &request)
    }

    pub(crate) fn create(&mut self, topic: &str, partitions: i32) -> CreateTopicsResponse {
        let topic = CreatableTopic::default()
            .with_name(topic_name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let answer: CreateTopicsResponse = self.call(ApiKey::CreateTopics, 5, &request);
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
        answer
    }

    /// Produces one batch and returns where it stands.
    pub(crate) fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> i64 {
        let request = produce(topic, partition, -1, batch);
        let answer: ProduceResponse = self.call(ApiKey::Produce, 9, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, from: i64) -> FetchResponse {
        self.call(ApiKey::Fetch, 12, &fetch(topic, &[(partition, from)]))
    }
}

pub(crate) fn decode<M: Decodable>(key: ApiKey, version: i16, mut body: Bytes) -> M {
    // The number has been taken; a flexible header has its tagged fields left.
    if key.response_header_version(version) >= 1 {
        let mut whole = BytesMut::new();
        whole.put_i32(0);
        whole.extend_from_slice(&body);
        body = whole.freeze();
        ResponseHeader::decode(&mut body, 1).unwrap();
    }
    let message = M::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "{} bytes left over", body.len());
    message
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    since.as_millis() as i64
}

/// A batch of one record per value, at `timestamp`.
pub(crate) fn batch(timestamp: i64, values: &[&[u8]]) -> Bytes {
    let builder = values
        .iter()
        .fold(BatchBuilder::new(Codec::None), |batch, value| {
            batch.record(timestamp, None, Some(value))
        });
    builder.build().unwrap()
}

pub(crate) fn produce(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![topic])
}

/// Asks each (partition, offset) for up to a MiB and does not wait.
pub(crate) fn fetch(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, from)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*from)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(partitions.collect());
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
