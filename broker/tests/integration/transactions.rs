//! Transactions, request by request: what counts, what does not, who is refused, and what a crash leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kafka_protocol::{
    messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, DeleteTopicsRequest,
        DeleteTopicsResponse, DescribeProducersRequest, DescribeProducersResponse,
        DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse,
        FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
        InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse, ProduceResponse,
        ProducerId, TransactionalId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        describe_producers_request::TopicRequest,
        describe_transactions_response::TransactionState,
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    },
    protocol::StrBytes,
};
use segment_adapter::{BatchBuilder, Batches, Codec};

use super::support::{Client, Running, fetch, memory, now_ms, on_disk, produce, topic_name};

mod crashes;
mod internal;
mod offsets;
mod operators;

const CONCURRENT: i16 = 51;
const FENCED: i16 = 90;
const OLD_EPOCH: i16 = 47;
const INVALID_STATE: i16 = 48;
const INVALID_MAPPING: i16 = 49;
const ABORTABLE: i16 = 120;
const SOON: Duration = Duration::from_secs(20);

fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(id.to_owned()))
}

/// A producer that does as it is told.
struct Transactional {
    client: Client,
    id: String,
    producer: (i64, i16),
    sequence: i32,
    /// Whether its epoch rises with each transaction.
    bumps: bool,
}

impl Transactional {
    fn new(running: &Running, id: &str) -> Self {
        let mut client = running.client();
        find_coordinator(&mut client, id);
        let mut new = Self {
            client,
            id: id.to_owned(),
            producer: (-1, -1),
            sequence: 0,
            bumps: false,
        };
        new.producer = new.init();
        new
    }

    /// A producer of transaction version 2.
    fn bumping(running: &Running, id: &str) -> Self {
        Self {
            bumps: true,
            ..Self::new(running, id)
        }
    }

    fn ask_init(
        &mut self,
        version: i16,
        timeout_ms: i32,
        holder: (i64, i16),
    ) -> InitProducerIdResponse {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&self.id)))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(holder.0))
            .with_producer_epoch(holder.1);
        self.client.call(ApiKey::InitProducerId, version, &request)
    }

    /// As a new instance, until it is one.
    fn init(&mut self) -> (i64, i16) {
        until(|| {
            let answer = self.ask_init(4, 60_000, (-1, -1));
            match answer.error_code {
                0 => Some((answer.producer_id.0, answer.producer_epoch)),
                CONCURRENT | 14 | 15 | 16 => None,
                code => panic!("error {code}"),
            }
        })
    }

    fn ask_add(&mut self, version: i16, topic: &str, partitions: &[i32]) -> Vec<i16> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(&self.id))
            .with_v3_and_below_producer_id(ProducerId(self.producer.0))
            .with_v3_and_below_producer_epoch(self.producer.1)
            .with_v3_and_below_topics(vec![topic]);
        let answer: AddPartitionsToTxnResponse =
            self.client
                .call(ApiKey::AddPartitionsToTxn, version, &request);
        let topic = &answer.results_by_topic_v3_and_below[0];
        let results = topic.results_by_partition.iter();
        let results = results.map(|result| (result.partition_index, result.partition_error_code));
        let results: BTreeMap<_, _> = results.collect();
        partitions.iter().map(|index| results[index]).collect()
    }

    fn add(&mut self, topic: &str, partition: i32) {
        until(|| match self.ask_add(3, topic, &[partition])[0] {
            0 => Some(()),
            CONCURRENT | 14 | 15 | 16 => None,
            code => panic!("error {code}"),
        });
    }

    /// Writes one record; the code.
    fn ask_write(&mut self, version: i16, topic: &str, partition: i32, value: &str) -> i16 {
        let batch = BatchBuilder::new(Codec::None)
            .producer(self.producer.0, self.producer.1, self.sequence)
            .transactional()
            .record(now_ms(), None, Some(value.as_bytes()))
            .build()
            .unwrap();
        let mut request = produce(topic, partition, -1, batch);
        if version >= 13 {
            let found = self.client.metadata(12, Some(&[topic]));
            request.topic_data[0].topic_id = found.topics[0].topic_id;
            request.topic_data[0].name = topic_name("");
        }
        let request = request.with_transactional_id(Some(transactional_id(&self.id)));
        let answer: ProduceResponse = self.client.call(ApiKey::Produce, version, &request);
        answer.responses[0].partition_responses[0].error_code
    }

    /// Writes one record to partition 0 in the transaction, which begins with it.
    fn write(&mut self, topic: &str, value: &str) {
        if !self.bumps {
            self.add(topic, 0);
        }
        let version = if self.bumps { 12 } else { 11 };
        until(|| match self.ask_write(version, topic, 0, value) {
            0 => Some(()),
            CONCURRENT | 19 => None,
            code => panic!("error {code}"),
        });
        self.sequence += 1;
    }

    fn ask_end(&mut self, version: i16, commit: bool) -> EndTxnResponse {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_committed(commit);
        self.client.call(ApiKey::EndTxn, version, &request)
    }

    fn end(&mut self, commit: bool) {
        let version = if self.bumps { 5 } else { 3 };
        let answer = self.ask_end(version, commit);
        assert_eq!(answer.error_code, 0);
        if self.bumps {
            let next = (answer.producer_id.0, answer.producer_epoch);
            assert_eq!(next, (self.producer.0, self.producer.1 + 1));
            self.producer = next;
            self.sequence = 0;
        }
    }

    fn describe(&mut self) -> TransactionState {
        let id = transactional_id(&self.id);
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
        let answer: DescribeTransactionsResponse =
            self.client.call(ApiKey::DescribeTransactions, 0, &request);
        answer.transaction_states[0].clone()
    }
}

fn find_coordinator(client: &mut Client, id: &str) {
    find(client, 1, id);
}

/// Asks who coordinates a group (0) or a transactional id (1).
fn find(client: &mut Client, kind: i8, id: &str) {
    let request = FindCoordinatorRequest::default()
        .with_key(StrBytes::from_string(id.to_owned()))
        .with_key_type(kind);
    until(|| {
        let answer: FindCoordinatorResponse = client.call(ApiKey::FindCoordinator, 2, &request);
        (answer.error_code == 0).then_some(())
    });
}

/// Asks until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a reader of committed data gets of partition 0, by Kafka's rules for clients; and the last stable offset with the
/// high watermark.
fn committed(client: &mut Client, topic: &str) -> (Vec<String>, i64, i64) {
    let mut request = fetch(topic, &[(0, 0)]);
    request.isolation_level = 1;
    let answer: FetchResponse = client.call(ApiKey::Fetch, 12, &request);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    let mut aborted: Vec<_> = partition.aborted_transactions.clone().unwrap_or_default();
    assert!(
        aborted.is_sorted_by_key(|txn| txn.first_offset),
        "F24: {aborted:?}"
    );
    let mut dropping = BTreeSet::new();
    let mut values = Vec::new();
    for batch in Batches::new(partition.records.clone().unwrap()) {
        let batch = batch.unwrap();
        let header = batch.header();
        aborted.retain(|txn| {
            let begins = txn.first_offset <= header.last_offset();
            if begins {
                dropping.insert(txn.producer_id.0);
            }
            !begins
        });
        if header.attributes.is_control() {
            dropping.remove(&header.producer_id);
        } else if !header.attributes.is_transactional() || !dropping.contains(&header.producer_id) {
            let mut bytes = batch.bytes().clone();
            let decoded = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap();
            let records = decoded.records.into_iter();
            values.extend(records.map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap()));
        }
    }
    (
        values,
        partition.last_stable_offset,
        partition.high_watermark,
    )
}

/// Waits until nothing is undecided.
fn settled(client: &mut Client, topic: &str) -> Vec<String> {
    until(|| {
        let (values, stable, end) = committed(client, topic);
        (stable == end).then_some(values)
    })
}

#[test]
fn f24_what_is_committed_counts_and_what_is_aborted_does_not() {
    for bumps in [false, true] {
        let running = Running::in_memory();
        let mut client = running.client();
        client.create("t", 1);
        let mut producers: Vec<_> = (0..3)
            .map(|index| Transactional {
                bumps,
                ..Transactional::new(&running, &format!("id {index}"))
            })
            .collect();
        let mut expected = Vec::new();
        for round in 0..4 {
            for (index, producer) in producers.iter_mut().enumerate() {
                producer.write("t", &format!("{round}/{index}"));
            }
            assert_eq!(
                committed(&mut client, "t").0,
                expected,
                "nothing is decided"
            );
            // The last first, so that what is aborted is not in the order of its beginnings.
            for (index, producer) in producers.iter_mut().enumerate().rev() {
                let commit = (round + index) % 3 == 0;
                producer.end(commit);
                if commit {
                    expected.push(format!("{round}/{index}"));
                }
            }
            assert_eq!(settled(&mut client, "t"), expected);
        }
        running.stop();
    }
}

#[test]
fn f46_a_time_out_that_is_too_long_or_none_is_refused() {
    let running = Running::in_memory();
    let mut producer = Transactional::new(&running, "id");
    for (timeout_ms, code) in [(0, 50), (-1, 50), (900_001, 50), (900_000, 0)] {
        let answer = producer.ask_init(4, timeout_ms, (-1, -1));
        assert_eq!(answer.error_code, code, "{timeout_ms}");
    }
    producer.id = String::new();
    assert_eq!(producer.ask_init(4, 1_000, (-1, -1)).error_code, 42);
    running.stop();
}

#[test]
fn f47_a_second_producer_of_the_same_id_fences_the_first() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut first = Transactional::new(&running, "id");
    first.write("t", "of the first");
    let mut second = Transactional::new(&running, "id");
    assert_eq!(second.producer.0, first.producer.0);
    assert!(second.producer.1 > first.producer.1);
    // Its transaction is aborted, and nothing of it can come any more.
    assert_eq!(first.ask_write(11, "t", 0, "late"), OLD_EPOCH);
    assert_eq!(first.ask_write(12, "t", 0, "late"), OLD_EPOCH);
    for (version, code) in [(3, FENCED), (2, FENCED), (1, OLD_EPOCH), (0, OLD_EPOCH)] {
        assert_eq!(
            first.ask_end(version, true).error_code,
            code,
            "EndTxn {version}"
        );
        let added = first.ask_add(version, "t", &[0]);
        assert_eq!(added, [code], "AddPartitionsToTxn {version}");
    }
    assert_eq!(first.ask_end(5, true).error_code, FENCED);
    let own = first.producer;
    assert_eq!(first.ask_init(4, 60_000, own).error_code, FENCED);
    assert_eq!(first.ask_init(3, 60_000, own).error_code, OLD_EPOCH);
    second.write("t", "of the second");
    second.end(true);
    assert_eq!(settled(&mut client, "t"), ["of the second"]);
    running.stop();
}

/// Epochs stay over transactions: the same end again is told the same, another is not.
#[test]
fn f48_an_end_may_be_asked_for_again() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    assert_eq!(producer.ask_end(3, true).error_code, INVALID_STATE);
    for commit in [true, false] {
        producer.write("t", "v");
        producer.end(commit);
        settled(&mut client, "t");
        let again = until(|| {
            Some(producer.ask_end(3, commit).error_code).filter(|code| *code != CONCURRENT)
        });
        assert_eq!(again, 0);
        assert_eq!(producer.ask_end(3, !commit).error_code, INVALID_STATE);
    }
    producer.producer.0 += 1;
    assert_eq!(producer.ask_end(3, true).error_code, INVALID_MAPPING);
    producer.id = "nobody".into();
    assert_eq!(producer.ask_end(3, true).error_code, INVALID_MAPPING);
    running.stop();
}

/// Epochs rise with each transaction: the end of the one before again is told what it was told.
#[test]
fn f48_an_end_may_be_asked_for_again_when_epochs_rise() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut producer = Transactional::bumping(&running, "id");
    for commit in [true, false] {
        producer.write("t", "v");
        let before = producer.producer;
        producer.end(commit);
        let after = producer.producer;
        settled(&mut client, "t");
        producer.producer = before;
        let again = until(|| {
            Some(producer.ask_end(5, commit)).filter(|answer| answer.error_code != CONCURRENT)
        });
        assert_eq!(
            (
                again.error_code,
                (again.producer_id.0, again.producer_epoch)
            ),
            (0, after)
        );
        assert_eq!(producer.ask_end(5, !commit).error_code, INVALID_STATE);
        producer.producer = after;
    }
    // An abort of nothing, which whoever is not sure asks for, is an end like any other; a commit of nothing is none.
    assert_eq!(producer.ask_end(5, true).error_code, INVALID_STATE);
    producer.end(false);
    producer.write("t", "last");
    producer.end(true);
    assert_eq!(settled(&mut client, "t"), ["v", "last"]);
    running.stop();
}

/// The answer to a request for another epoch is lost: the same is given again, and to nobody else.
#[test]
fn another_epoch_may_be_asked_for_again() {
    let running = Running::in_memory();
    let mut producer = Transactional::new(&running, "id");
    let first = producer.producer;
    let given = producer.ask_init(4, 60_000, first);
    assert_eq!((given.error_code, given.producer_epoch), (0, first.1 + 1));
    assert_eq!(producer.ask_init(4, 60_000, first), given);
    let other = Transactional::new(&running, "id");
    assert_eq!(other.producer.1, first.1 + 2);
    for old in [first.1, first.1 + 1] {
        let answer = producer.ask_init(4, 60_000, (first.0, old));
        assert_eq!(answer.error_code, FENCED);
    }
    running.stop();
}

#[test]
fn f50_a_transaction_that_lasts_too_long_is_aborted() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    let given = producer.ask_init(4, 200, (-1, -1));
    producer.producer = (given.producer_id.0, given.producer_epoch);
    producer.write("t", "too late");
    assert_eq!(settled(&mut client, "t"), [""; 0]);
    until(|| (producer.describe().transaction_state.as_str() == "CompleteAbort").then_some(()));
    assert_eq!(producer.ask_end(3, true).error_code, FENCED);
    assert_eq!(producer.ask_write(11, "t", 0, "later"), OLD_EPOCH);
    producer.producer = producer.init();
    producer.sequence = 0;
    producer.write("t", "in time");
    producer.end(true);
    assert_eq!(settled(&mut client, "t"), ["in time"]);
    running.stop();
}

#[test]
fn f52_a_partition_that_is_not_of_the_transaction_is_not_written() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 2);
    let mut producer = Transactional::new(&running, "id");
    for (version, code) in [(9, INVALID_STATE), (10, INVALID_STATE), (11, ABORTABLE)] {
        assert_eq!(producer.ask_write(version, "t", 0, "v"), code, "{version}");
    }
    producer.add("t", 0);
    assert_eq!(producer.ask_write(11, "t", 1, "v"), ABORTABLE);
    assert_eq!(producer.ask_write(11, "t", 0, "v"), 0);
    // One that does not exist stops the others.
    assert_eq!(producer.ask_add(3, "t", &[1, 2]), [55, 3]);
    assert_eq!(producer.ask_write(11, "t", 1, "v"), ABORTABLE);
    // From version 12 on nobody has to say it before.
    assert_eq!(producer.ask_write(12, "t", 1, "v"), 0);
    client.create("by-id", 1);
    assert_eq!(producer.ask_write(13, "by-id", 0, "v"), 0);
    let topics = producer.describe().topics;
    let topics: BTreeSet<_> = topics.iter().map(|topic| topic.topic.as_str()).collect();
    assert_eq!(topics, ["by-id", "t"].into());
    let stranger = Transactional::new(&running, "stranger").producer;
    producer.producer = stranger;
    assert_eq!(producer.ask_write(11, "t", 0, "v"), INVALID_MAPPING);
    running.stop();
}
