//! librdkafka's admin client: what is made, changed and described is what a Kafka broker would say.

use std::time::Duration;

use broker::Config;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};
use tokio::runtime::Runtime;

use super::support::{Running, memory};

struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: Runtime,
    options: AdminOptions,
}

impl Admin {
    fn of(running: &Running) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", running.bootstrap());
        Self {
            client: config.create().unwrap(),
            runtime: Runtime::new().unwrap(),
            options: AdminOptions::new(),
        }
    }

    fn create(&self, topics: &[NewTopic<'_>]) -> Vec<Result<String, RDKafkaErrorCode>> {
        let made = self.client.create_topics(topics, &self.options);
        let made = self.runtime.block_on(made).unwrap().into_iter();
        made.map(|one| one.map_err(|(_, code)| code)).collect()
    }

    /// A value and where it comes from.
    fn setting(&self, of: ResourceSpecifier<'_>, name: &str) -> (Option<String>, ConfigSource) {
        let described = self.client.describe_configs([&of], &self.options);
        let mut described = self.runtime.block_on(described).unwrap();
        let mut entries = described.remove(0).unwrap().entries.into_iter();
        let entry = entries.find(|entry| entry.name == name).unwrap();
        (entry.value, entry.source)
    }
}

#[test]
fn topics_are_made_grown_changed_and_described() {
    let running = Running::start(Config {
        nodes: 3,
        ..memory()
    });
    let admin = Admin::of(&running);
    let topic = NewTopic::new("t", 2, TopicReplication::Fixed(3)).set("retention.ms", "5000");
    let wrong = NewTopic::new("wrong", 1, TopicReplication::Fixed(1)).set("no.such.setting", "1");
    let assigned = NewTopic::new("placed", 1, TopicReplication::Variable(&[&[2, 3]]));
    let made = admin.create(&[topic, wrong, assigned]);
    let refused = Err(RDKafkaErrorCode::InvalidConfig);
    assert_eq!(made, [Ok("t".to_owned()), refused, Ok("placed".to_owned())]);

    let more = NewPartitions::new("t", 5);
    let grown = admin.client.create_partitions([&more], &admin.options);
    let grown = admin.runtime.block_on(grown).unwrap();
    assert_eq!(grown, [Ok("t".to_owned())]);

    let of_topic = ResourceSpecifier::Topic("t");
    let chosen = (Some("5000".to_owned()), ConfigSource::DynamicTopic);
    assert_eq!(admin.setting(of_topic, "retention.ms"), chosen);
    let change = AlterConfig::new(of_topic).set("cleanup.policy", "compact");
    let changed = admin.client.alter_configs([&change], &admin.options);
    admin.runtime.block_on(changed).unwrap()[0]
        .as_ref()
        .unwrap();
    let chosen = (Some("compact".to_owned()), ConfigSource::DynamicTopic);
    assert_eq!(admin.setting(of_topic, "cleanup.policy"), chosen);
    let default = (Some("604800000".to_owned()), ConfigSource::Default);
    assert_eq!(admin.setting(of_topic, "retention.ms"), default);
    // The broker itself is asked for its settings.
    let of_broker = ResourceSpecifier::Broker(3);
    let default = (
        Some("9223372036854775807".to_owned()),
        ConfigSource::Default,
    );
    assert_eq!(
        admin.setting(of_broker, "log.flush.interval.messages"),
        default
    );

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", running.bootstrap())
        .create()
        .unwrap();
    let wait = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(None, wait).unwrap();
    assert_eq!(metadata.brokers().len(), 3);
    let topics = metadata.topics().iter();
    let partitions: Vec<_> = topics
        .map(|topic| (topic.name(), topic.partitions().len()))
        .collect();
    assert_eq!(partitions, [("placed", 1), ("t", 5)]);
    let placed = &metadata.topics()[0].partitions()[0];
    assert_eq!((placed.leader(), placed.replicas()), (2, &[2, 3][..]));
}

#[test]
fn a_client_of_three_nodes_sends_to_each_and_reads_everything_back() {
    const RECORDS: usize = 300;
    let running = Running::start(Config {
        nodes: 3,
        ..memory()
    });
    let admin = Admin::of(&running);
    let topic = NewTopic::new("t", 6, TopicReplication::Fixed(3));
    assert_eq!(admin.create(&[topic]), [Ok("t".to_owned())]);
    // The last node is enough to find the others.
    let bootstrap = running.addresses()[2].to_string();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let wait = Duration::from_secs(20);
    let producer: BaseProducer = config.create().unwrap();
    for index in 0..RECORDS {
        let payload = index.to_string();
        let record: BaseRecord<'_, (), str> = BaseRecord::to("t");
        let record = record.partition(index as i32 % 6).payload(&payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(wait).unwrap();
    let consumer: BaseConsumer = config.set("group.id", "g").create().unwrap();
    let mut places = TopicPartitionList::new();
    for partition in 0..6 {
        let place = places.add_partition_offset("t", partition, Offset::Beginning);
        place.unwrap();
    }
    consumer.assign(&places).unwrap();
    let mut found: Vec<usize> = Vec::new();
    while found.len() < RECORDS {
        let message = consumer.poll(wait).expect("a record in time").unwrap();
        let payload = message.payload_view::<str>().unwrap().unwrap();
        found.push(payload.parse().unwrap());
    }
    found.sort_unstable();
    assert_eq!(found, (0..RECORDS).collect::<Vec<_>>());
}
