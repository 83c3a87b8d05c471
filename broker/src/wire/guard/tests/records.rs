//! Requests about records and their offsets.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, DeleteRecordsRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    ProducerId, TransactionalId,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};

use uuid::Uuid;

use super::{Row, encoded, largest, name, row, text};

pub(super) const ROWS: &[Row] = &[
    row::<ProduceRequest>(
        ApiKey::Produce,
        produce,
        largest([
            size_of::<TopicProduceData>(),
            size_of::<PartitionProduceData>(),
        ]),
    ),
    row::<FetchRequest>(
        ApiKey::Fetch,
        fetch,
        largest([
            size_of::<FetchTopic>(),
            size_of::<FetchPartition>(),
            size_of::<ForgottenTopic>(),
        ]),
    ),
    row::<ListOffsetsRequest>(
        ApiKey::ListOffsets,
        list_offsets,
        largest([
            size_of::<ListOffsetsTopic>(),
            size_of::<ListOffsetsPartition>(),
        ]),
    ),
    row::<ApiVersionsRequest>(ApiKey::ApiVersions, api_versions, 0),
    row::<DeleteRecordsRequest>(
        ApiKey::DeleteRecords,
        delete_records,
        largest([
            size_of::<DeleteRecordsTopic>(),
            size_of::<DeleteRecordsPartition>(),
        ]),
    ),
    row::<InitProducerIdRequest>(ApiKey::InitProducerId, init_producer_id, 0),
    row::<OffsetForLeaderEpochRequest>(
        ApiKey::OffsetForLeaderEpoch,
        offset_for_leader_epoch,
        largest([
            size_of::<OffsetForLeaderTopic>(),
            size_of::<OffsetForLeaderPartition>(),
        ]),
    ),
];

fn produce(version: i16) -> Bytes {
    let partition = |index, records| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(records)
    };
    let topic = TopicProduceData::default().with_partition_data(vec![
        partition(0, Some(Bytes::from_static(&[7; 200]))),
        partition(1, None),
    ]);
    let topic = match version {
        13.. => topic.with_topic_id(Uuid::from_u128(7)),
        _ => topic.with_name(name("one")),
    };
    let request = ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("t"))))
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    encoded(&request, version)
}

fn fetch(version: i16) -> Bytes {
    let ids = version >= 13;
    let mut partition = FetchPartition::default().with_partition(1);
    if version >= 17 {
        partition.replica_directory_id = Uuid::from_u128(8);
    }
    if version >= 18 {
        partition.high_watermark = 9;
    }
    let mut topic = FetchTopic::default().with_partitions(vec![
        FetchPartition::default().with_fetch_offset(5),
        partition,
    ]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
    if ids {
        topic.topic_id = Uuid::from_u128(7);
        forgotten.topic_id = Uuid::from_u128(7);
    } else {
        topic.topic = name("one");
        forgotten.topic = name("gone");
    }
    let mut request = FetchRequest::default().with_topics(vec![topic]);
    if version >= 7 {
        request.forgotten_topics_data = vec![forgotten];
    }
    if version >= 11 {
        request.rack_id = text("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
    }
    if version >= 15 {
        request.replica_state.replica_id = BrokerId(3);
    }
    encoded(&request, version)
}

fn list_offsets(version: i16) -> Bytes {
    let mut request = ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(name("one"))
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1); 3]),
    ]);
    if version >= 10 {
        request.timeout_ms = 7;
    }
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
