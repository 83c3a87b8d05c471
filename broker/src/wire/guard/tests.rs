//! Every length of a request is checked before the codec sees it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteRecordsRequest,
        DeleteTopicsRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest,
        ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
        ProducerId, TopicName, TransactionalId,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::wire::apis::{self, APIS, Api};

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut buf = BytesMut::new();
    message.encode(&mut buf, version).unwrap();
    buf.freeze()
}

fn metadata(version: i16) -> Bytes {
    let topic = |topic| MetadataRequestTopic::default().with_name(Some(name(topic)));
    let mut request =
        MetadataRequest::default().with_topics(Some(vec![topic("one"), topic("two")]));
    request.include_topic_authorized_operations = version >= 8;
    encoded(&request, version)
}

fn produce(version: i16) -> Bytes {
    let partition = |index, records| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(records)
    };
    let request = ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("t"))))
        .with_acks(-1)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(name("one"))
                .with_partition_data(vec![
                    partition(0, Some(Bytes::from_static(&[7; 200]))),
                    partition(1, None),
                ]),
        ]);
    encoded(&request, version)
}

fn fetch(version: i16) -> Bytes {
    let mut request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(name("one"))
                .with_partitions(vec![
                    FetchPartition::default().with_fetch_offset(5),
                    FetchPartition::default().with_partition(1),
                ]),
        ]);
    if version >= 7 {
        request.forgotten_topics_data = vec![
            ForgottenTopic::default()
                .with_topic(name("gone"))
                .with_partitions(vec![1, 2]),
        ];
    }
    if version >= 11 {
        request.rack_id = text("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
    }
    encoded(&request, version)
}

fn list_offsets(version: i16) -> Bytes {
    let request = ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(name("one"))
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1); 3]),
    ]);
    encoded(&request, version)
}

fn create_topics(version: i16) -> Bytes {
    let request = CreateTopicsRequest::default().with_topics(vec![
        CreatableTopic::default()
            .with_name(name("one"))
            .with_assignments(vec![
                CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]),
            ])
            .with_configs(vec![
                CreatableTopicConfig::default()
                    .with_name(text("k"))
                    .with_value(Some(text("v"))),
                CreatableTopicConfig::default()
                    .with_name(text("null"))
                    .with_value(None),
            ]),
        CreatableTopic::default().with_name(name("two")),
    ]);
    encoded(&request, version)
}

fn delete_topics(version: i16) -> Bytes {
    let request = if version >= 6 {
        DeleteTopicsRequest::default().with_topics(vec![
            DeleteTopicState::default().with_name(Some(name("one"))),
            DeleteTopicState::default()
                .with_name(None)
                .with_topic_id(Uuid::from_u128(7)),
        ])
    } else {
        DeleteTopicsRequest::default().with_topic_names(vec![name("one"), name("two")])
    };
    encoded(&request, version)
}

fn api_versions(version: i16) -> Bytes {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = text("client");
        request.client_software_version = text("1");
    }
    encoded(&request, version)
}

fn find_coordinator(version: i16) -> Bytes {
    let mut request = FindCoordinatorRequest::default().with_key(text("group"));
    request.key_type = i8::from(version >= 1);
    encoded(&request, version)
}

fn delete_records(version: i16) -> Bytes {
    let request = DeleteRecordsRequest::default().with_topics(vec![
        DeleteRecordsTopic::default()
            .with_name(name("one"))
            .with_partitions(vec![DeleteRecordsPartition::default().with_offset(7); 2]),
    ]);
    encoded(&request, version)
}

fn init_producer_id(version: i16) -> Bytes {
    let mut request =
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("t"))));
    if version >= 3 {
        request.producer_id = ProducerId(7);
        request.producer_epoch = 1;
    }
    encoded(&request, version)
}

fn offset_for_leader_epoch(version: i16) -> Bytes {
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![
        OffsetForLeaderTopic::default()
            .with_topic(name("one"))
            .with_partitions(vec![OffsetForLeaderPartition::default(); 2]),
    ]);
    encoded(&request, version)
}

/// A request of `api` in which every field that the version has is filled.
fn filled(api: &Api, version: i16) -> Bytes {
    match api.key {
        ApiKey::Produce => produce(version),
        ApiKey::Fetch => fetch(version),
        ApiKey::ListOffsets => list_offsets(version),
        ApiKey::Metadata => metadata(version),
        ApiKey::ApiVersions => api_versions(version),
        ApiKey::FindCoordinator => find_coordinator(version),
        ApiKey::CreateTopics => create_topics(version),
        ApiKey::DeleteTopics => delete_topics(version),
        ApiKey::DeleteRecords => delete_records(version),
        ApiKey::InitProducerId => init_producer_id(version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch(version),
        other => panic!("add {other:?} here: the guard is only as good as this list"),
    }
}

/// Decodes with the codec; an array that the guard let pass with a forged count would end the test process here.
fn decode(api: &Api, version: i16, mut body: Bytes) -> Result<usize, String> {
    let result = match api.key {
        ApiKey::Produce => ProduceRequest::decode(&mut body, version).map(drop),
        ApiKey::Fetch => FetchRequest::decode(&mut body, version).map(drop),
        ApiKey::ListOffsets => ListOffsetsRequest::decode(&mut body, version).map(drop),
        ApiKey::Metadata => MetadataRequest::decode(&mut body, version).map(drop),
        ApiKey::ApiVersions => ApiVersionsRequest::decode(&mut body, version).map(drop),
        ApiKey::FindCoordinator => FindCoordinatorRequest::decode(&mut body, version).map(drop),
        ApiKey::CreateTopics => CreateTopicsRequest::decode(&mut body, version).map(drop),
        ApiKey::DeleteTopics => DeleteTopicsRequest::decode(&mut body, version).map(drop),
        ApiKey::DeleteRecords => DeleteRecordsRequest::decode(&mut body, version).map(drop),
        ApiKey::InitProducerId => InitProducerIdRequest::decode(&mut body, version).map(drop),
        ApiKey::OffsetForLeaderEpoch => {
            OffsetForLeaderEpochRequest::decode(&mut body, version).map(drop)
        }
        other => panic!("add {other:?} here"),
    };
    result.map(|()| body.len()).map_err(|e| e.to_string())
}

fn guarded(api: &Api, version: i16, body: &[u8]) -> Result<usize, Refusal> {
    check(api.layout, version, api.is_flexible(version), body)
}

/// Where the walk ends: the shortest prefix that it accepts.
fn walked(api: &Api, version: i16, body: &[u8]) -> usize {
    (0..=body.len())
        .find(|&len| guarded(api, version, &body[..len]).is_ok())
        .unwrap()
}

#[test]
fn the_walk_of_every_request_in_every_version_ends_where_the_codec_ends() {
    for api in &APIS {
        for version in api.accepted.clone() {
            let body = filled(api, version);
            assert_eq!(decode(api, version, body.clone()), Ok(0));
            assert_eq!(
                walked(api, version, &body),
                body.len(),
                "{:?} v{version}",
                api.key
            );
        }
    }
}

#[test]
fn forged_counts_of_a_few_bytes_are_refused() {
    let check = |key: ApiKey, version, body: &[u8]| {
        let api = apis::find(key as i16).unwrap();
        assert!(guarded(api, version, body).is_err(), "{key:?} v{version}");
    };
    // Four bytes: 2^31 - 1 topics.
    check(ApiKey::Metadata, 1, &[0x7f, 0xff, 0xff, 0xff]);
    // Twelve bytes: no transactional id, acks, timeout, 2^31 - 1 topics.
    let produce = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff];
    check(ApiKey::Produce, 7, &produce);
    // A varint of 2^32 - 1: that many topics but one.
    check(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    check(ApiKey::DeleteTopics, 6, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    check(ApiKey::CreateTopics, 2, &[0x7f, 0xff, 0xff, 0xff]);
}

#[test]
fn every_length_and_count_forged_one_at_a_time_never_reaches_the_codec_unchecked() {
    for api in &APIS {
        for version in api.accepted.clone() {
            let body = filled(api, version);
            for at in 0..body.len() {
                for forged in [
                    [0x7f, 0xff, 0xff, 0xff],
                    [0xff, 0xff, 0xff, 0x0f],
                    [0x80; 4],
                ] {
                    let mut bytes = body.to_vec();
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].copy_from_slice(&forged[..end - at]);
                    if guarded(api, version, &bytes).is_ok() {
                        let _ = decode(api, version, bytes.into());
                    }
                }
            }
        }
    }
}

#[test]
fn a_number_of_more_than_32_bits_is_refused() {
    // The codec drops the bits above; the walk must not disagree with it about the rest.
    let api = apis::find(ApiKey::Metadata as i16).unwrap();
    let bytes = [0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0];
    assert_eq!(guarded(api, 12, &bytes), Err(Refusal::Overlong));
}

#[test]
fn a_known_tagged_field_of_another_size_is_refused() {
    let api = apis::find(ApiKey::Fetch as i16).unwrap();
    let mut body = encoded(&FetchRequest::default(), 12).to_vec();
    assert_eq!(body.pop(), Some(0)); // no tagged fields
    body.extend_from_slice(&[1, 0, 5, 2, b'c', 0, 0, 0]); // cluster id: 2 bytes in 5
    let refused = Refusal::TaggedSize { tag: 0, extra: 3 };
    assert_eq!(guarded(api, 12, &body), Err(refused));
}

#[test]
fn more_elements_than_the_limit_are_refused_even_if_they_are_there() {
    let api = apis::find(ApiKey::DeleteTopics as i16).unwrap();
    let request = |count: usize| {
        let mut body = (count as u32).to_be_bytes().to_vec();
        body.resize(4 + 2 * count + 4, 0);
        body
    };
    assert_eq!(guarded(api, 1, &request(ELEMENTS_MAX)), Ok(ELEMENTS_MAX));
    assert_eq!(
        guarded(api, 1, &request(ELEMENTS_MAX + 1)),
        Err(Refusal::TooMany)
    );
}

#[test]
fn an_element_costs_no_more_than_it_is_charged() {
    assert!(size_of::<MetadataRequestTopic>() <= ELEMENT_BYTES);
    assert!(size_of::<TopicProduceData>() <= ELEMENT_BYTES);
    assert!(size_of::<PartitionProduceData>() <= ELEMENT_BYTES);
    assert!(size_of::<FetchTopic>() <= ELEMENT_BYTES);
    assert!(size_of::<FetchPartition>() <= ELEMENT_BYTES);
    assert!(size_of::<ListOffsetsPartition>() <= ELEMENT_BYTES);
    assert!(size_of::<CreatableTopic>() <= ELEMENT_BYTES);
    assert!(size_of::<DeleteTopicState>() <= ELEMENT_BYTES);
    assert!(size_of::<DeleteRecordsTopic>() <= ELEMENT_BYTES);
    assert!(size_of::<DeleteRecordsPartition>() <= ELEMENT_BYTES);
    assert!(size_of::<OffsetForLeaderTopic>() <= ELEMENT_BYTES);
    assert!(size_of::<OffsetForLeaderPartition>() <= ELEMENT_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_refused_or_decoded_in_bounds(
        index in 0..APIS.len(),
        step in 0i16..16,
        body in proptest::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..200),
    ) {
        let api = &APIS[index];
        let versions = api.accepted.end() - api.accepted.start() + 1;
        let version = api.accepted.start() + step % versions;
        if guarded(api, version, &body).is_ok() {
            let end = walked(api, version, &body);
            // What the codec still refuses is text that is not UTF-8 or a null where none may be.
            if let Ok(rest) = decode(api, version, Bytes::from(body.clone())) {
                prop_assert_eq!(rest, body.len() - end);
            }
        }
    }
}
