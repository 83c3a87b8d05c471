//! The table of what is served: one row per API, and nothing is advertised that has no row.
//!
//! `accepted` is within `advertised`; they differ only where a client misreads an honest range.

use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;

use super::schema::{self, Layout, admin};

/// One API.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    /// What ApiVersions says.
    pub(crate) advertised: RangeInclusive<i16>,
    /// What is answered; another version ends the connection.
    pub(crate) accepted: RangeInclusive<i16>,
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible: i16,
    pub(crate) layout: &'static Layout,
}

const fn api(
    key: ApiKey,
    versions: RangeInclusive<i16>,
    flexible: i16,
    layout: &'static Layout,
) -> Api {
    let (first, last) = (*versions.start(), *versions.end());
    Api {
        key,
        advertised: first..=last,
        accepted: versions,
        flexible,
        layout,
    }
}

/// Every API that is served, by key.
pub(crate) static APIS: &[Api] = &[
    Api {
        // F3: librdkafka silently drops compression unless version 0 is listed. It is still refused.
        advertised: 0..=13,
        ..api(ApiKey::Produce, 3..=13, 9, &schema::PRODUCE)
    },
    api(ApiKey::Fetch, 4..=18, 12, &schema::FETCH),
    api(ApiKey::ListOffsets, 1..=10, 6, &schema::LIST_OFFSETS),
    api(ApiKey::Metadata, 0..=13, 9, &schema::METADATA),
    api(ApiKey::OffsetCommit, 2..=9, 8, &schema::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1..=9, 6, &schema::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0..=6, 3, &schema::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0..=9, 6, &schema::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0..=4, 4, &schema::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0..=5, 4, &schema::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0..=5, 4, &schema::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0..=6, 5, &schema::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0..=5, 3, &schema::LIST_GROUPS),
    api(ApiKey::ApiVersions, 0..=4, 3, &schema::API_VERSIONS),
    api(ApiKey::CreateTopics, 2..=7, 5, &schema::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1..=6, 4, &schema::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0..=2, 2, &schema::DELETE_RECORDS),
    api(ApiKey::InitProducerId, 0..=5, 2, &schema::INIT_PRODUCER_ID),
    api(
        ApiKey::OffsetForLeaderEpoch,
        2..=4,
        4,
        &schema::OFFSET_FOR_LEADER_EPOCH,
    ),
    // From version 4 on it is for brokers among themselves.
    api(
        ApiKey::AddPartitionsToTxn,
        0..=3,
        3,
        &schema::ADD_PARTITIONS_TO_TXN,
    ),
    api(
        ApiKey::AddOffsetsToTxn,
        0..=4,
        3,
        &schema::ADD_OFFSETS_TO_TXN,
    ),
    api(ApiKey::EndTxn, 0..=5, 3, &schema::END_TXN),
    api(
        ApiKey::WriteTxnMarkers,
        1..=1,
        1,
        &schema::WRITE_TXN_MARKERS,
    ),
    api(
        ApiKey::TxnOffsetCommit,
        0..=5,
        3,
        &schema::TXN_OFFSET_COMMIT,
    ),
    api(ApiKey::DescribeAcls, 1..=3, 2, &admin::DESCRIBE_ACLS),
    api(ApiKey::CreateAcls, 1..=3, 2, &admin::CREATE_ACLS),
    api(ApiKey::DeleteAcls, 1..=3, 2, &admin::DELETE_ACLS),
    api(ApiKey::DescribeConfigs, 1..=4, 4, &admin::DESCRIBE_CONFIGS),
    api(ApiKey::AlterConfigs, 0..=2, 2, &admin::ALTER_CONFIGS),
    api(
        ApiKey::AlterReplicaLogDirs,
        1..=2,
        2,
        &admin::ALTER_REPLICA_LOG_DIRS,
    ),
    api(ApiKey::DescribeLogDirs, 1..=4, 2, &admin::DESCRIBE_LOG_DIRS),
    api(
        ApiKey::CreatePartitions,
        0..=3,
        2,
        &admin::CREATE_PARTITIONS,
    ),
    api(ApiKey::DeleteGroups, 0..=2, 2, &schema::DELETE_GROUPS),
    api(ApiKey::ElectLeaders, 0..=2, 2, &admin::ELECT_LEADERS),
    api(
        ApiKey::IncrementalAlterConfigs,
        0..=1,
        1,
        &admin::INCREMENTAL_ALTER_CONFIGS,
    ),
    api(
        ApiKey::AlterPartitionReassignments,
        0..=1,
        0,
        &admin::ALTER_PARTITION_REASSIGNMENTS,
    ),
    api(
        ApiKey::ListPartitionReassignments,
        0..=0,
        0,
        &admin::LIST_PARTITION_REASSIGNMENTS,
    ),
    // No version of it is flexible.
    api(ApiKey::OffsetDelete, 0..=0, 1, &schema::OFFSET_DELETE),
    api(ApiKey::DescribeQuorum, 0..=2, 0, &admin::DESCRIBE_QUORUM),
    api(ApiKey::DescribeCluster, 0..=2, 0, &admin::DESCRIBE_CLUSTER),
    api(
        ApiKey::DescribeProducers,
        0..=0,
        0,
        &schema::DESCRIBE_PRODUCERS,
    ),
    api(
        ApiKey::DescribeTransactions,
        0..=0,
        0,
        &schema::DESCRIBE_TRANSACTIONS,
    ),
    api(
        ApiKey::ListTransactions,
        0..=1,
        0,
        &schema::LIST_TRANSACTIONS,
    ),
    api(
        ApiKey::ConsumerGroupHeartbeat,
        0..=1,
        0,
        &schema::CONSUMER_GROUP_HEARTBEAT,
    ),
    api(
        ApiKey::ConsumerGroupDescribe,
        0..=1,
        0,
        &schema::CONSUMER_GROUP_DESCRIBE,
    ),
    api(
        ApiKey::ListConfigResources,
        0..=1,
        0,
        &admin::LIST_CONFIG_RESOURCES,
    ),
    api(
        ApiKey::DescribeTopicPartitions,
        0..=0,
        0,
        &admin::DESCRIBE_TOPIC_PARTITIONS,
    ),
];

/// The row of `key`.
pub(crate) fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

impl Api {
    /// Whether `version` has compact lengths and tagged fields.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_codec_on_which_versions_are_flexible() {
        for api in APIS {
            for version in api.accepted.clone() {
                assert_eq!(
                    api.is_flexible(version),
                    api.key.request_header_version(version) == 2,
                    "{:?} {version}",
                    api.key
                );
            }
            assert!(api.advertised.contains(api.accepted.start()));
            assert_eq!(api.advertised.end(), api.accepted.end());
        }
    }
}
