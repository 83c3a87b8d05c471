//! Topics of the broker itself: their logs are the state of coordinators, and clients neither write nor change them.

use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use super::super::support::batch;
use super::*;

const TOPICS: [&str; 2] = ["__transaction_state", "__consumer_offsets"];
const INVALID_TOPIC: i16 = 17;
const NOT_ATTEMPTED: i16 = 55;

/// A client's word on who it is opens nothing: one record that no coordinator understands ends a partition for good.
#[test]
fn nobody_writes_to_a_topic_of_the_broker_itself() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    client.metadata(1, Some(&TOPICS));
    for name in ["test", "__admin_client"] {
        client.name = name;
        for topic in TOPICS {
            let request = produce(topic, 0, -1, batch(now_ms(), &[b"x"]));
            let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
            let code = answer.responses[0].partition_responses[0].error_code;
            assert_eq!(code, INVALID_TOPIC, "{topic} by {name}");
        }
    }
    for topic in TOPICS {
        assert_eq!(producer.ask_add(3, topic, &[0]), [INVALID_TOPIC]);
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str("max.message.bytes"))
            .with_value(Some(StrBytes::from_static_str("1")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer: IncrementalAlterConfigsResponse =
            client.call(ApiKey::IncrementalAlterConfigs, 1, &request);
        assert_eq!(answer.responses[0].error_code, INVALID_TOPIC, "{topic}");
    }
    // One of them stops all.
    let of = |topic: &str| {
        AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![0])
    };
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id("id"))
        .with_v3_and_below_producer_id(ProducerId(producer.producer.0))
        .with_v3_and_below_producer_epoch(producer.producer.1)
        .with_v3_and_below_topics(vec![of("t"), of(TOPICS[0])]);
    let answer: AddPartitionsToTxnResponse = client.call(ApiKey::AddPartitionsToTxn, 3, &request);
    let codes = answer.results_by_topic_v3_and_below.iter();
    let codes: Vec<i16> = codes
        .map(|topic| topic.results_by_partition[0].partition_error_code)
        .collect();
    assert_eq!(codes, [NOT_ATTEMPTED, INVALID_TOPIC]);
    producer.write("t", "v");
    producer.end(true);
    assert_eq!(settled(&mut client, "t"), ["v"]);
    running.stop();
}

/// A request of a few bytes must not become an answer of many.
#[test]
fn what_is_asked_for_again_and_again_is_told_once() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    producer.write("t", "v");
    let ids = vec![transactional_id("id"); 1_000];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let answer: DescribeTransactionsResponse =
        client.call(ApiKey::DescribeTransactions, 0, &request);
    assert_eq!(answer.transaction_states.len(), 1);
    let topic = TopicRequest::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0; 1_000]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic; 2]);
    let answer: DescribeProducersResponse = client.call(ApiKey::DescribeProducers, 0, &request);
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    assert_eq!(partitions.count(), 1);
    running.stop();
}
