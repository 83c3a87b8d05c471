//! What operators see of transactions, and how they end one that its coordinator has forgotten.

use super::*;

#[test]
fn operators_see_transactions_and_producers_and_can_end_one() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    assert_eq!(producer.describe().transaction_state.as_str(), "Empty");
    producer.write("t", "v");
    let state = producer.describe();
    assert_eq!(state.transaction_state.as_str(), "Ongoing");
    assert_eq!(
        (state.producer_id.0, state.producer_epoch),
        producer.producer
    );
    assert_eq!(
        (
            state.topics[0].topic.as_str(),
            &state.topics[0].partitions[..]
        ),
        ("t", &[0][..])
    );
    let list = |client: &mut Client, version: i16, request: ListTransactionsRequest| {
        let answer: ListTransactionsResponse =
            client.call(ApiKey::ListTransactions, version, &request);
        assert_eq!(answer.error_code, 0);
        let unknown = answer.unknown_state_filters.len();
        let states = answer.transaction_states.iter();
        (
            states
                .map(|state| state.transactional_id.to_string())
                .collect::<Vec<_>>(),
            unknown,
        )
    };
    let any = ListTransactionsRequest::default;
    let in_state =
        |name: &'static str| any().with_state_filters(vec![StrBytes::from_static_str(name)]);
    assert_eq!(list(&mut client, 0, any()), (vec!["id".to_owned()], 0));
    assert_eq!(list(&mut client, 0, in_state("Ongoing")).0, ["id"]);
    assert_eq!(list(&mut client, 0, in_state("Empty")).0, [""; 0]);
    assert_eq!(list(&mut client, 0, in_state("Odd")), (vec![], 1));
    assert_eq!(
        list(&mut client, 1, any().with_duration_filter(0)).0,
        ["id"]
    );
    assert_eq!(
        list(&mut client, 1, any().with_duration_filter(3_600_000)).0,
        [""; 0]
    );
    let of = |id| any().with_producer_id_filters(vec![ProducerId(id)]);
    assert_eq!(list(&mut client, 0, of(producer.producer.0)).0, ["id"]);
    assert_eq!(list(&mut client, 0, of(producer.producer.0 + 1)).0, [""; 0]);

    let topic = TopicRequest::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0, 1]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let answer: DescribeProducersResponse = client.call(ApiKey::DescribeProducers, 0, &request);
    let partitions = &answer.topics[0].partitions;
    assert_eq!(partitions[1].error_code, 3);
    let found = &partitions[0].active_producers[0];
    let expected = (producer.producer.0, i32::from(producer.producer.1), 0, 0);
    assert_eq!(
        (
            found.producer_id.0,
            found.producer_epoch,
            found.last_sequence,
            found.current_txn_start_offset
        ),
        expected
    );

    // Whoever finds a transaction that its coordinator has forgotten ends it with these.
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0, 1]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(found.producer_id)
        .with_producer_epoch(producer.producer.1)
        .with_coordinator_epoch(found.coordinator_epoch)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let answer: WriteTxnMarkersResponse = client.call(ApiKey::WriteTxnMarkers, 1, &request);
    let codes = answer.markers[0].topics[0].partitions.iter();
    let codes: BTreeMap<_, _> = codes.map(|p| (p.partition_index, p.error_code)).collect();
    assert_eq!(codes, [(0, 0), (1, 3)].into());
    assert_eq!(settled(&mut client, "t"), [""; 0]);
    producer.id = "nobody".into();
    assert_eq!(producer.describe().error_code, 105);
    running.stop();
}
