//! Transactions of librdkafka, unchanged: committed, aborted, fenced, and carried over `kill -9` between any two steps.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaError},
    message::BorrowedMessage,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::RDKafkaErrorCode,
};

use super::{
    clients::create_topic,
    program::{Places, Program},
    support::Running,
};

pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) type Transactional = ThreadedProducer<DefaultProducerContext>;

/// A producer of transactions that knows its id, and has not said so.
pub(crate) fn transactional(bootstrap: &str, id: &str) -> Transactional {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "60000")
        .set("linger.ms", "1")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap()
}

pub(crate) fn send(producer: &Transactional, topic: &str, partition: i32, value: &str) {
    let record = BaseRecord::<str, str>::to(topic)
        .partition(partition)
        .payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

/// Does it again as long as the client says that it may.
pub(crate) fn retried(mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + SOON;
    loop {
        match step() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

/// Every committed value of so many partitions up to where each ends now.
pub(crate) fn read_committed(bootstrap: &str, topic: &str, partitions: i32) -> Vec<String> {
    let all = read_committed_by_partition(bootstrap, topic, partitions);
    all.into_iter().map(|(_, value)| value).collect()
}

/// The same, each with its partition.
pub(crate) fn read_committed_by_partition(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> Vec<(i32, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "not-a-group")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut at_end = BTreeSet::new();
    let mut values = Vec::new();
    let deadline = Instant::now() + SOON;
    while at_end.len() < partitions as usize {
        assert!(Instant::now() < deadline, "no end of {topic}");
        match consumer.poll(Duration::from_millis(500)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(at_end.insert(partition)),
            Some(message) => {
                let message = message.unwrap();
                let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                values.push((message.partition(), value));
            }
        }
    }
    values
}

fn code(error: KafkaError) -> (Option<RDKafkaErrorCode>, bool) {
    let fatal = |error: &RDKafkaError| error.is_fatal();
    match &error {
        KafkaError::Transaction(inner) => (Some(inner.code()), fatal(inner)),
        other => (other.rdkafka_error_code(), false),
    }
}

#[test]
fn what_a_client_commits_is_read_and_what_it_aborts_is_not() {
    let running = Running::in_memory();
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "t", 3);
    let producer = transactional(&bootstrap, "id");
    producer.init_transactions(SOON).unwrap();
    let mut expected = Vec::new();
    for round in 0..6 {
        producer.begin_transaction().unwrap();
        for partition in 0..3 {
            let value = format!("{round}/{partition}");
            send(&producer, "t", partition, &value);
            if round % 2 == 0 {
                expected.push(value);
            }
        }
        match round % 2 {
            0 => producer.commit_transaction(SOON).unwrap(),
            _ => {
                // Sent, so that there is something to abort.
                producer.flush(SOON).unwrap();
                producer.abort_transaction(SOON).unwrap();
            }
        }
    }
    // Neither is a transaction of nothing in the way.
    producer.begin_transaction().unwrap();
    producer.commit_transaction(SOON).unwrap();
    let mut found = read_committed(&bootstrap, "t", 3);
    found.sort();
    assert_eq!(found, expected);
    running.stop();
}

#[test]
fn f47_a_client_that_was_replaced_is_over() {
    let running = Running::in_memory();
    let bootstrap = running.bootstrap();
    create_topic(&bootstrap, "t", 1);
    let first = transactional(&bootstrap, "id");
    first.init_transactions(SOON).unwrap();
    first.begin_transaction().unwrap();
    send(&first, "t", 0, "of the first");
    first.flush(SOON).unwrap();
    let second = transactional(&bootstrap, "id");
    second.init_transactions(SOON).unwrap();
    second.begin_transaction().unwrap();
    send(&second, "t", 0, "of the second");
    second.commit_transaction(SOON).unwrap();
    let error = first.commit_transaction(SOON).unwrap_err();
    assert_eq!(code(error), (Some(RDKafkaErrorCode::Fenced), true));
    assert_eq!(read_committed(&bootstrap, "t", 1), ["of the second"]);
    running.stop();
}

/// As above, for whoever reads, writes, and says in the same transaction how far it has read (F51).
#[test]
fn reading_and_writing_in_one_transaction_goes_on_over_a_kill_after_each_step() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let mut program = Program::start(&places, &[]);
    let bootstrap = program.address.to_string();
    create_topic(&bootstrap, "in", 1);
    create_topic(&bootstrap, "out", 1);
    let kill = |program: Program| {
        program.kill();
        Program::start(&places, &["--listen", &bootstrap])
    };
    let (source, producer) = (
        transactional(&bootstrap, "source"),
        transactional(&bootstrap, "app"),
    );
    for producer in [&source, &producer] {
        retried(|| producer.init_transactions(SOON)).unwrap();
    }
    let consumer = reader(&bootstrap, "app");
    let mut expected = Vec::new();
    for step in 0..5 {
        source.begin_transaction().unwrap();
        send(&source, "in", 0, &format!("{step}"));
        retried(|| source.commit_transaction(SOON)).unwrap();
        // Whoever begins anew goes on where the group is.
        let mut at = TopicPartitionList::new();
        at.add_partition("in", 0);
        let committed = consumer.committed_offsets(at, SOON).unwrap();
        let from = committed.find_partition("in", 0).unwrap().offset();
        let mut at = TopicPartitionList::new();
        let from = if from == Offset::Invalid {
            Offset::Beginning
        } else {
            from
        };
        at.add_partition_offset("in", 0, from).unwrap();
        consumer.assign(&at).unwrap();
        let message = until_message(&consumer);
        assert_eq!(message.payload(), Some(format!("{step}").as_bytes()));
        if step == 0 {
            program = kill(program);
        }
        producer.begin_transaction().unwrap();
        let value = format!("out of {step}");
        send(&producer, "out", 0, &value);
        expected.push(value);
        if step == 1 {
            producer.flush(SOON).unwrap();
            program = kill(program);
        }
        let mut read = TopicPartitionList::new();
        let next = Offset::Offset(message.offset() + 1);
        read.add_partition_offset("in", 0, next).unwrap();
        let group = consumer.group_metadata().unwrap();
        retried(|| producer.send_offsets_to_transaction(&read, &group, SOON)).unwrap();
        if step == 2 {
            program = kill(program);
        }
        retried(|| producer.commit_transaction(SOON)).unwrap();
        if step == 3 {
            program = kill(program);
        }
    }
    assert_eq!(read_committed(&bootstrap, "out", 1), expected);
    program.stop();
}

fn reader(bootstrap: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap()
}

fn until_message(consumer: &BaseConsumer) -> BorrowedMessage<'_> {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            return message;
        }
        assert!(Instant::now() < deadline, "no message");
    }
}

/// The client does not know of the kill: it finds another process at the same address, and goes on.
#[test]
fn a_transaction_goes_on_over_a_kill_after_each_of_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let mut program = Program::start(&places, &[]);
    let bootstrap = program.address.to_string();
    create_topic(&bootstrap, "t", 2);
    let kill = |program: Program| {
        program.kill();
        Program::start(&places, &["--listen", &bootstrap])
    };
    let mut expected = Vec::new();
    for step in 0..6 {
        let producer = transactional(&bootstrap, &format!("id {step}"));
        if step == 0 {
            program = kill(program);
        }
        retried(|| producer.init_transactions(SOON)).unwrap();
        if step == 1 {
            program = kill(program);
        }
        producer.begin_transaction().unwrap();
        for partition in 0..2 {
            let value = format!("{step}/{partition}");
            send(&producer, "t", partition, &value);
            expected.push(value);
            if step == 2 {
                program = kill(program);
            }
        }
        producer.flush(SOON).unwrap();
        if step == 3 {
            program = kill(program);
        }
        if step == 4 {
            // In the midst of the end.
            program = std::thread::scope(|scope| {
                let ending = scope.spawn(|| retried(|| producer.commit_transaction(SOON)));
                let program = kill(program);
                ending.join().unwrap().unwrap();
                program
            });
        } else {
            retried(|| producer.commit_transaction(SOON)).unwrap();
        }
        if step == 5 {
            program = kill(program);
        }
    }
    let mut found = read_committed(&bootstrap, "t", 2);
    found.sort();
    assert_eq!(found, expected);
    program.stop();
}
