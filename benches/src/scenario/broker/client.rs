//! The load: librdkafka, with its defaults where nothing is said. Records go to the partitions in turn, uncompressed.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use crate::{
    Failure, Result,
    latency::Latency,
    measure::{payload, runtime},
    process::process_cpu,
    slices::Slice,
};

/// No call waits for longer.
const SOON: Duration = Duration::from_secs(60);
/// Records that are handed in before acknowledgements are taken.
const ROUND: usize = 256;

/// A topic, and how many records have been acknowledged in each partition.
#[derive(Debug)]
pub(super) struct Topic {
    name: String,
    ends: Vec<i64>,
    next: usize,
}

fn admin(address: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    Ok(config.create()?)
}

impl Topic {
    pub(super) fn create(address: &str, name: &str, partitions: usize) -> Result<Self> {
        let count = i32::try_from(partitions)?;
        let topic = NewTopic::new(name, count, TopicReplication::Fixed(1));
        let options = AdminOptions::new().request_timeout(Some(SOON));
        let made = runtime()?.block_on(admin(address)?.create_topics([&topic], &options))?;
        for made in made {
            made.map_err(|(name, code)| format!("topic {name}: {code}"))?;
        }
        Ok(Self {
            name: name.to_owned(),
            ends: vec![0; partitions],
            next: 0,
        })
    }

    pub(super) fn delete(&self, address: &str) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(SOON));
        runtime()?.block_on(admin(address)?.delete_topics(&[self.name.as_str()], &options))?;
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The end offset of each partition, as far as this client has written it.
    pub(super) fn ends(&self) -> &[i64] {
        &self.ends
    }

    fn take_partition(&mut self) -> usize {
        let partition = self.next;
        self.next = (partition + 1) % self.ends.len();
        self.ends[partition] += 1;
        partition
    }
}

/// What is sent, over and over.
pub(super) struct Load {
    payload: Vec<u8>,
}

/// What acknowledgements have told.
#[derive(Default)]
struct Acks {
    start: OnceLock<Instant>,
    latency: Mutex<Latency>,
    failed: AtomicU64,
}

#[derive(Clone)]
struct Context(Arc<Acks>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    /// When it should have been sent, in nanoseconds from the start.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        if result.is_err() {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let since = self.0.start.get().map_or(Duration::ZERO, Instant::elapsed);
        if let Ok(mut latency) = self.0.latency.lock() {
            latency.record(since.saturating_sub(Duration::from_nanos(sent as u64)));
        }
    }
}

impl Load {
    pub(super) fn new(record_bytes: usize) -> Self {
        Self {
            payload: payload(record_bytes).to_vec(),
        }
    }

    /// As fast as it goes for `length`, and until all of it is acknowledged.
    pub(super) fn produce(
        &self,
        address: &str,
        topic: &mut Topic,
        length: Duration,
    ) -> Result<Slice> {
        let producer = producer(address, "5")?;
        let mut sent = 0;
        let measured = measure(&producer, |start| {
            while start.elapsed() < length {
                for _ in 0..ROUND {
                    let now = start.elapsed();
                    send(&producer, topic, &self.payload, now)?;
                    sent += 1;
                }
                producer.poll(Duration::ZERO);
            }
            Ok(())
        })?;
        self.slice(sent, measured)
    }

    /// At a steady rate for `length`; latency counts from when a record should have been sent.
    pub(super) fn produce_steadily(
        &self,
        address: &str,
        topic: &mut Topic,
        length: Duration,
        bytes_per_s: f64,
    ) -> Result<Slice> {
        let producer = producer(address, "1")?;
        let interval = self.payload.len() as f64 / bytes_per_s;
        let count = (length.as_secs_f64() / interval) as u64;
        let measured = measure(&producer, |start| {
            for index in 0..count {
                let due = Duration::from_secs_f64(index as f64 * interval);
                loop {
                    let early = due.saturating_sub(start.elapsed());
                    if early.is_zero() {
                        break;
                    }
                    producer.poll(early.min(Duration::from_millis(1)));
                }
                send(&producer, topic, &self.payload, due)?;
            }
            Ok(())
        })?;
        self.slice(count, measured)
    }

    /// One record to each of the partitions.
    pub(super) fn produce_to_each(&self, address: &str, topic: &mut Topic) -> Result<Slice> {
        let producer = producer(address, "5")?;
        let count = topic.ends.len() as u64;
        let measured = measure(&producer, |start| {
            (0..count).try_for_each(|_| send(&producer, topic, &self.payload, start.elapsed()))
        })?;
        self.slice(count, measured)
    }

    fn slice(&self, records: u64, measured: Slice) -> Result<Slice> {
        if measured.latency.count() != records {
            let acknowledged = measured.latency.count();
            return Err(format!("{acknowledged} of {records} records acknowledged").into());
        }
        Ok(Slice {
            records,
            bytes: records * self.payload.len() as u64,
            ..measured
        })
    }

    /// Everything that lies between `from` and the ends of the partitions.
    pub(super) fn fetch(&self, address: &str, topic: &Topic, from: &[i64]) -> Result<Slice> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("group.id", "s3stream-bench")
            .set("enable.auto.commit", "false")
            // How long it rests when it holds enough: a second is for clients that do something with records.
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let mut places = TopicPartitionList::new();
        for (partition, from) in (0..).zip(from) {
            places.add_partition_offset(&topic.name, partition, Offset::Offset(*from))?;
        }
        let wanted: i64 = topic
            .ends
            .iter()
            .zip(from)
            .map(|(end, from)| end - from)
            .sum();
        let (start, cpu) = (Instant::now(), process_cpu());
        consumer.assign(&places)?;
        let mut slice = Slice::default();
        while slice.records < wanted as u64 {
            let Some(record) = consumer.poll(SOON) else {
                return Err(format!("{} of {wanted} records came", slice.records).into());
            };
            slice.bytes += record?.payload_len() as u64;
            slice.records += 1;
        }
        slice.elapsed = start.elapsed();
        slice.cpu = process_cpu().saturating_sub(cpu);
        Ok(slice)
    }
}

fn producer(address: &str, linger_ms: &str) -> Result<BaseProducer<Context>> {
    let producer: BaseProducer<Context> = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("acks", "all")
        .set("linger.ms", linger_ms)
        .create_with_context(Context(Arc::default()))?;
    // Connected before anything is measured.
    producer.client().fetch_metadata(None, SOON)?;
    Ok(producer)
}

/// Hands in one record, waiting as long as the client's queue is full.
fn send(
    producer: &BaseProducer<Context>,
    topic: &mut Topic,
    payload: &[u8],
    due: Duration,
) -> Result<()> {
    let partition = topic.take_partition() as i32;
    let sent = due.as_nanos() as usize;
    let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&topic.name, sent)
        .partition(partition)
        .payload(payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn measure(
    producer: &BaseProducer<Context>,
    run: impl FnOnce(Instant) -> Result<(), Failure>,
) -> Result<Slice> {
    let acks = &producer.context().0;
    let (start, cpu) = (*acks.start.get_or_init(Instant::now), process_cpu());
    run(start)?;
    producer.flush(SOON)?;
    let elapsed = start.elapsed();
    let failed = acks.failed.load(Ordering::Relaxed);
    if failed > 0 {
        return Err(format!("{failed} records were not acknowledged").into());
    }
    let latency = acks.latency.lock().map_err(|_| "a delivery panicked")?;
    Ok(Slice {
        latency: latency.clone(),
        elapsed,
        cpu: process_cpu().saturating_sub(cpu),
        ..Slice::default()
    })
}
