//! Requests about topics.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    metadata_request::MetadataRequestTopic,
};
use uuid::Uuid;

use super::{Row, encoded, largest, name, row, text};

pub(super) const ROWS: &[Row] = &[
    row::<MetadataRequest>(
        ApiKey::Metadata,
        metadata,
        size_of::<MetadataRequestTopic>(),
    ),
    row::<CreateTopicsRequest>(
        ApiKey::CreateTopics,
        create_topics,
        largest([
            size_of::<CreatableTopic>(),
            size_of::<CreatableReplicaAssignment>(),
            size_of::<CreatableTopicConfig>(),
        ]),
    ),
    row::<DeleteTopicsRequest>(
        ApiKey::DeleteTopics,
        delete_topics,
        size_of::<DeleteTopicState>(),
    ),
];

fn metadata(version: i16) -> Bytes {
    let topic = |topic| MetadataRequestTopic::default().with_name(Some(name(topic)));
    let mut request =
        MetadataRequest::default().with_topics(Some(vec![topic("one"), topic("two")]));
    request.include_topic_authorized_operations = version >= 8;
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
