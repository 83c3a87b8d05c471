//! Requests about settings, partitions and the cluster.

use bytes::Bytes;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiKey,
    BrokerId, CreateAclsRequest, CreatePartitionsRequest, DeleteAclsRequest, DescribeAclsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, DescribeQuorumRequest,
    DescribeTopicPartitionsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest, alter_configs_request,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    create_acls_request::AclCreation,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    delete_acls_request::DeleteAclsFilter,
    describe_configs_request::DescribeConfigsResource,
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_quorum_request,
    describe_topic_partitions_request::{Cursor, TopicRequest},
    elect_leaders_request::TopicPartitions,
    incremental_alter_configs_request,
    list_partition_reassignments_request::ListPartitionReassignmentsTopics,
};

use super::{Row, encoded, largest, name, row, text};

pub(super) const ROWS: &[Row] = &[
    row::<DescribeAclsRequest>(ApiKey::DescribeAcls, describe_acls, 0),
    row::<CreateAclsRequest>(ApiKey::CreateAcls, create_acls, size_of::<AclCreation>()),
    row::<DeleteAclsRequest>(
        ApiKey::DeleteAcls,
        delete_acls,
        size_of::<DeleteAclsFilter>(),
    ),
    row::<DescribeConfigsRequest>(
        ApiKey::DescribeConfigs,
        describe_configs,
        size_of::<DescribeConfigsResource>(),
    ),
    row::<AlterConfigsRequest>(
        ApiKey::AlterConfigs,
        alter_configs,
        largest([
            size_of::<alter_configs_request::AlterConfigsResource>(),
            size_of::<alter_configs_request::AlterableConfig>(),
        ]),
    ),
    row::<AlterReplicaLogDirsRequest>(
        ApiKey::AlterReplicaLogDirs,
        alter_replica_log_dirs,
        largest([
            size_of::<AlterReplicaLogDir>(),
            size_of::<AlterReplicaLogDirTopic>(),
        ]),
    ),
    row::<DescribeQuorumRequest>(
        ApiKey::DescribeQuorum,
        describe_quorum,
        largest([
            size_of::<describe_quorum_request::TopicData>(),
            size_of::<describe_quorum_request::PartitionData>(),
        ]),
    ),
    row::<DescribeLogDirsRequest>(
        ApiKey::DescribeLogDirs,
        describe_log_dirs,
        size_of::<DescribableLogDirTopic>(),
    ),
    row::<CreatePartitionsRequest>(
        ApiKey::CreatePartitions,
        create_partitions,
        largest([
            size_of::<CreatePartitionsTopic>(),
            size_of::<CreatePartitionsAssignment>(),
        ]),
    ),
    row::<ElectLeadersRequest>(
        ApiKey::ElectLeaders,
        elect_leaders,
        size_of::<TopicPartitions>(),
    ),
    row::<IncrementalAlterConfigsRequest>(
        ApiKey::IncrementalAlterConfigs,
        incremental_alter_configs,
        largest([
            size_of::<incremental_alter_configs_request::AlterConfigsResource>(),
            size_of::<incremental_alter_configs_request::AlterableConfig>(),
        ]),
    ),
    row::<AlterPartitionReassignmentsRequest>(
        ApiKey::AlterPartitionReassignments,
        alter_partition_reassignments,
        largest([
            size_of::<ReassignableTopic>(),
            size_of::<ReassignablePartition>(),
        ]),
    ),
    row::<ListPartitionReassignmentsRequest>(
        ApiKey::ListPartitionReassignments,
        list_partition_reassignments,
        size_of::<ListPartitionReassignmentsTopics>(),
    ),
    row::<DescribeClusterRequest>(ApiKey::DescribeCluster, describe_cluster, 0),
    row::<ListConfigResourcesRequest>(ApiKey::ListConfigResources, list_config_resources, 0),
    row::<DescribeTopicPartitionsRequest>(
        ApiKey::DescribeTopicPartitions,
        describe_topic_partitions,
        size_of::<TopicRequest>(),
    ),
];

fn describe_acls(version: i16) -> Bytes {
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_resource_name_filter(Some(text("one")))
        .with_principal_filter(None)
        .with_host_filter(Some(text("host")));
    encoded(&request, version)
}

fn create_acls(version: i16) -> Bytes {
    let creation = AclCreation::default()
        .with_resource_name(text("one"))
        .with_principal(text("User:a"))
        .with_host(text("*"));
    let request = CreateAclsRequest::default().with_creations(vec![creation; 2]);
    encoded(&request, version)
}

fn delete_acls(version: i16) -> Bytes {
    let filter = DeleteAclsFilter::default()
        .with_resource_name_filter(None)
        .with_principal_filter(Some(text("User:a")))
        .with_host_filter(None);
    let request = DeleteAclsRequest::default().with_filters(vec![filter; 2]);
    encoded(&request, version)
}

fn describe_configs(version: i16) -> Bytes {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("one"));
    let keyed = resource
        .clone()
        .with_configuration_keys(Some(vec![text("k"), text("l")]));
    let mut request = DescribeConfigsRequest::default()
        .with_resources(vec![resource.with_configuration_keys(None), keyed])
        .with_include_synonyms(true);
    request.include_documentation = version >= 3;
    encoded(&request, version)
}

fn alter_configs(version: i16) -> Bytes {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |value| {
        AlterableConfig::default()
            .with_name(text("k"))
            .with_value(value)
    };
    let resource = AlterConfigsResource::default()
        .with_resource_name(text("one"))
        .with_configs(vec![config(Some(text("v"))), config(None)]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    encoded(&request, version)
}

fn alter_replica_log_dirs(version: i16) -> Bytes {
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(name("one"))
        .with_partitions(vec![1, 2]);
    let dir = AlterReplicaLogDir::default()
        .with_path(text("dir"))
        .with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
    encoded(&request, version)
}

fn describe_quorum(version: i16) -> Bytes {
    use describe_quorum_request::{PartitionData, TopicData};
    let topic = TopicData::default()
        .with_topic_name(name("one"))
        .with_partitions(vec![PartitionData::default(); 2]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    encoded(&request, version)
}

fn describe_log_dirs(version: i16) -> Bytes {
    let topic = DescribableLogDirTopic::default()
        .with_topic(name("one"))
        .with_partitions(vec![1, 2]);
    let request = DescribeLogDirsRequest::default().with_topics(Some(vec![topic]));
    encoded(&request, version)
}

fn create_partitions(version: i16) -> Bytes {
    let assignment =
        CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
    let topic = CreatePartitionsTopic::default().with_name(name("one"));
    let placed = topic.clone().with_assignments(Some(vec![assignment; 2]));
    let request =
        CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None), placed]);
    encoded(&request, version)
}

fn elect_leaders(version: i16) -> Bytes {
    let topic = TopicPartitions::default()
        .with_topic(name("one"))
        .with_partitions(vec![1, 2]);
    let mut request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
    request.election_type = i8::from(version >= 1);
    encoded(&request, version)
}

fn incremental_alter_configs(version: i16) -> Bytes {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |value| {
        AlterableConfig::default()
            .with_name(text("k"))
            .with_value(value)
    };
    let resource = AlterConfigsResource::default()
        .with_resource_name(text("one"))
        .with_configs(vec![config(Some(text("v"))), config(None)]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    encoded(&request, version)
}

fn alter_partition_reassignments(version: i16) -> Bytes {
    let to = |nodes| ReassignablePartition::default().with_replicas(nodes);
    let topic = ReassignableTopic::default()
        .with_name(name("one"))
        .with_partitions(vec![to(Some(vec![BrokerId(1)])), to(None)]);
    let mut request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    if version >= 1 {
        request.allow_replication_factor_change = false;
    }
    encoded(&request, version)
}

fn list_partition_reassignments(version: i16) -> Bytes {
    let topic = ListPartitionReassignmentsTopics::default()
        .with_name(name("one"))
        .with_partition_indexes(vec![1, 2]);
    let request = ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic]));
    encoded(&request, version)
}

fn describe_cluster(version: i16) -> Bytes {
    let mut request =
        DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    if version >= 1 {
        request.endpoint_type = 2;
    }
    request.include_fenced_brokers = version >= 2;
    encoded(&request, version)
}

fn list_config_resources(version: i16) -> Bytes {
    let mut request = ListConfigResourcesRequest::default();
    if version >= 1 {
        request.resource_types = vec![2, 4];
    }
    encoded(&request, version)
}

fn describe_topic_partitions(version: i16) -> Bytes {
    let cursor = Cursor::default()
        .with_topic_name(name("one"))
        .with_partition_index(7);
    let topic = |topic| TopicRequest::default().with_name(name(topic));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic("one"), topic("two")])
        .with_cursor(Some(cursor));
    encoded(&request, version)
}
