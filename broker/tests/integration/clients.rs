//! librdkafka, unchanged: every codec, many partitions, and what is read back is what was sent.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::Hasher,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use broker::Config;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{DeliveryResult, Timestamp},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use super::{
    program::{Places, Program},
    support::{Rng, Running, on_disk},
};

pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PARTITIONS: i32 = 16;

/// What was acknowledged where.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged(Arc<Mutex<Acks>>);

#[derive(Default)]
struct Acks {
    by_place: BTreeMap<(i32, i64), Vec<u8>>,
    failed: Vec<(KafkaError, Vec<u8>)>,
}

impl Acknowledged {
    pub(crate) fn by_place(&self) -> BTreeMap<(i32, i64), Vec<u8>> {
        self.0.lock().unwrap().by_place.clone()
    }

    pub(crate) fn failed(&self) -> usize {
        self.0.lock().unwrap().failed.len()
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let mut acks = self.0.lock().unwrap();
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                let value = message.payload().unwrap_or_default().to_vec();
                let twice = acks.by_place.insert(place, value);
                assert!(
                    twice.is_none(),
                    "two records were acknowledged at {place:?}"
                );
            }
            Err((error, message)) => {
                let value = message.payload().unwrap_or_default().to_vec();
                acks.failed.push((error.clone(), value));
            }
        }
    }
}

/// A producer that waits for durability and never sends a record twice.
pub(crate) fn producer(
    bootstrap: &str,
    codec: &str,
    acks: &Acknowledged,
) -> ThreadedProducer<Acknowledged> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("retries", "0")
        .set("compression.type", codec)
        .set("linger.ms", "5")
        .set("message.timeout.ms", "60000")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(acks.clone())
        .unwrap()
}

/// A producer that sends until it is acknowledged.
pub(crate) fn idempotent(bootstrap: &str, acks: &Acknowledged) -> ThreadedProducer<Acknowledged> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("message.timeout.ms", "120000")
        .set("reconnect.backoff.max.ms", "100")
        .set("queue.buffering.max.messages", "20000")
        .create_with_context(acks.clone())
        .unwrap()
}

/// Sends, waiting for room in the client's own queue.
pub(crate) fn send(
    producer: &ThreadedProducer<Acknowledged>,
    topic: &str,
    partition: i32,
    value: &[u8],
) -> Result<(), KafkaError> {
    loop {
        let record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .payload(value);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((error, _)) if error.rdkafka_error_code() == Some(QUEUE_FULL) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

const QUEUE_FULL: rdkafka::types::RDKafkaErrorCode = rdkafka::types::RDKafkaErrorCode::QueueFull;

pub(crate) fn consumer(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "not-a-group")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .unwrap()
}

/// Every record of a partition, from its start to its end now: offsets and values.
pub(crate) fn read_all(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> BTreeMap<(i32, i64), Vec<u8>> {
    let consumer = consumer(bootstrap);
    let mut assignment = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in 0..partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(20))
            .unwrap();
        assert_eq!(low, 0);
        if high > 0 {
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(0))
                .unwrap();
            ends.insert(partition, high);
        }
    }
    consumer.assign(&assignment).unwrap();
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut expected_next = BTreeMap::new();
    while !ends.is_empty() {
        assert!(Instant::now() < deadline, "no more records; left: {ends:?}");
        let Some(message) = consumer.poll(Duration::from_millis(500)) else {
            continue;
        };
        let message = message.unwrap();
        let (partition, offset) = (message.partition(), message.offset());
        let next = expected_next.entry(partition).or_insert(0);
        assert_eq!(offset, *next, "partition {partition} has no gaps");
        *next += 1;
        let value = message.payload().unwrap_or_default().to_vec();
        found.insert((partition, offset), value);
        if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            ends.remove(&partition);
        }
    }
    found
}

fn hashes(records: &BTreeMap<(i32, i64), Vec<u8>>) -> BTreeMap<i32, u64> {
    let mut hashers: BTreeMap<i32, DefaultHasher> = BTreeMap::new();
    for ((partition, offset), value) in records {
        let hasher = hashers.entry(*partition).or_default();
        hasher.write_i64(*offset);
        hasher.write_usize(value.len());
        hasher.write(value);
    }
    let finished = hashers.into_iter().map(|(p, hasher)| (p, hasher.finish()));
    finished.collect()
}

pub(crate) fn create_topic(bootstrap: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime
        .block_on(admin.create_topics([&topic], &AdminOptions::new()))
        .unwrap();
    for one in made {
        one.unwrap();
    }
}

/// Values of different lengths that compress somewhat.
fn value(rng: &mut Rng, codec: &str, index: u64) -> Vec<u8> {
    let len = rng.below(200) as usize;
    let mut value = format!("{codec}/{index}/").into_bytes();
    let letter = b'a' + rng.below(26) as u8;
    value.resize(value.len() + len, letter);
    value.extend_from_slice(&rng.next().to_be_bytes());
    value
}

/// Produces `count` records, a fifth with each codec, into 16 partitions, and reads back exactly those, from the broker that
/// took them and from one that was started anew.
fn round_trip(config: &Config, count: u64) {
    let running = Running::start(config.clone());
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "records", PARTITIONS);
    let mut sent: BTreeMap<i32, Vec<Vec<u8>>> = BTreeMap::new();
    let acks = Acknowledged::default();
    for (step, codec) in CODECS.into_iter().enumerate() {
        let mut rng = Rng::new(step as u64 + 1);
        let producer = producer(&bootstrap, codec, &acks);
        for index in 0..count / CODECS.len() as u64 {
            let value = value(&mut rng, codec, index);
            let partition = rng.below(PARTITIONS as u64) as i32;
            send(&producer, "records", partition, &value).unwrap();
            sent.entry(partition).or_default().push(value);
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    }
    assert_eq!(acks.failed(), 0);
    let acknowledged = acks.by_place();
    // One producer at a time and no retries: a partition's order is the order of sending.
    let expected: BTreeMap<(i32, i64), Vec<u8>> = sent
        .into_iter()
        .flat_map(|(partition, values)| {
            (0..)
                .zip(values)
                .map(move |(offset, value)| ((partition, offset), value))
        })
        .collect();
    assert_eq!(hashes(&acknowledged), hashes(&expected));
    let found = read_all(&bootstrap, "records", PARTITIONS);
    assert_eq!(found.len() as u64, count / 5 * 5);
    assert_eq!(hashes(&found), hashes(&expected));
    running.stop();
    let again = Running::start(config.clone());
    let found = read_all(&again.bootstrap(), "records", PARTITIONS);
    assert_eq!(hashes(&found), hashes(&expected));
    again.stop();
}

#[test]
fn twenty_thousand_records_in_all_codecs_are_read_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    round_trip(&on_disk(dir.path()), 20_000);
}

#[test]
#[ignore = "takes minutes: .ci/run million"]
fn a_million_records_in_all_codecs_are_read_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    round_trip(&on_disk(dir.path()), 1_000_000);
}

/// What librdkafka stores with each codec.
#[test]
fn batches_are_stored_in_the_codec_of_their_producer_and_librdkafka_reads_all() {
    let running = Running::in_memory();
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "t", 1);
    let mut client = running.client();
    for (codec, bits) in [
        ("none", 0),
        ("gzip", 1),
        ("snappy", 2),
        ("lz4", 3),
        ("zstd", 4),
    ] {
        let from = client.fetch("t", 0, 0).responses[0].partitions[0].high_watermark;
        let acks = Acknowledged::default();
        let producer = producer(&bootstrap, codec, &acks);
        send(&producer, "t", 0, &[b'x'; 2_000]).unwrap();
        producer.flush(Duration::from_secs(20)).unwrap();
        let answer = client.fetch("t", 0, from);
        let stored = answer.responses[0].partitions[0].records.clone().unwrap();
        assert_eq!(stored[22] & 7, bits, "{codec}");
    }
    let values: Vec<_> = read_all(&bootstrap, "t", 1).into_values().collect();
    assert_eq!(values, vec![vec![b'x'; 2_000]; 5]);
}

#[test]
fn librdkafka_finds_offsets_by_time() {
    let running = Running::in_memory();
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "t", 1);
    let acks = Acknowledged::default();
    let producer = producer(&bootstrap, "none", &acks);
    // Apart enough in time to be told apart, and not in the future.
    let base = 1_700_000_000_000;
    for step in 0..10 {
        let record = BaseRecord::<[u8], [u8]>::to("t")
            .partition(0)
            .timestamp(base + step * 1_000)
            .payload(b"v");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    let consumer = consumer(&bootstrap);
    let at = |time: i64| {
        let mut times = TopicPartitionList::new();
        times
            .add_partition_offset("t", 0, Offset::Offset(time))
            .unwrap();
        let found = consumer
            .offsets_for_times(times, Duration::from_secs(20))
            .unwrap();
        found.elements()[0].offset()
    };
    assert_eq!(at(base), Offset::Offset(0));
    assert_eq!(at(base + 4_500), Offset::Offset(5));
    assert_eq!(at(base + 9_001), Offset::End);
    let mut from = TopicPartitionList::new();
    from.add_partition_offset("t", 0, Offset::Offset(5))
        .unwrap();
    consumer.assign(&from).unwrap();
    let message = loop {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            break message.unwrap();
        }
    };
    assert_eq!(message.timestamp(), Timestamp::CreateTime(base + 5_000));
}

/// As above through the program, on a real S3 server, with the log deleted after each clean stop.
fn round_trip_on_s3(count: u64) {
    let server = s3stream::testing::SeaweedFs::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        bucket: server.url("cluster"),
        environment: server.environment().to_vec(),
        ..Places::under(dir.path())
    };
    let mut expected = BTreeMap::new();
    for round in 0..2 {
        let program = Program::start(&places, &[]);
        let bootstrap = program.address.to_string();
        if round == 0 {
            create_topic(&bootstrap, "records", PARTITIONS);
        }
        let found = read_all(&bootstrap, "records", PARTITIONS);
        assert_eq!(hashes(&found), hashes(&expected));
        let acks = Acknowledged::default();
        for codec in CODECS {
            let mut rng = Rng::new(round);
            let producer = producer(&bootstrap, codec, &acks);
            for index in 0..count / CODECS.len() as u64 {
                let value = value(&mut rng, codec, index);
                let partition = rng.below(PARTITIONS as u64) as i32;
                send(&producer, "records", partition, &value).unwrap();
            }
            producer.flush(Duration::from_secs(120)).unwrap();
        }
        assert_eq!(acks.failed(), 0);
        let new = acks.by_place();
        assert_eq!(new.len() as u64, count / 5 * 5);
        expected.extend(new);
        let found = read_all(&bootstrap, "records", PARTITIONS);
        assert_eq!(hashes(&found), hashes(&expected));
        program.stop();
        // After a clean stop the bucket alone has everything.
        std::fs::remove_file(dir.path().join("wal")).unwrap();
    }
}

#[test]
#[ignore = "needs SeaweedFS: .ci/run s3"]
fn twenty_thousand_records_in_all_codecs_are_read_back_exactly_from_seaweedfs() {
    round_trip_on_s3(20_000);
}

#[test]
#[ignore = "takes minutes: .ci/run million"]
fn a_million_records_in_all_codecs_are_read_back_exactly_from_a_real_s3_server() {
    round_trip_on_s3(1_000_000);
}
