//! One file per API: from a decoded request to an answer.
//!
//! A request is *begun* in the order in which it arrived on its connection: what changes something (an append, a new topic)
//! is done or queued when `begin` returns. What remains is a future that the connection awaits when it is that answer's
//! turn: an acknowledgement, or a look-up, which so sees everything that was asked before it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use kafka_protocol::{
    error::ResponseError,
    messages::{ApiKey, TopicName},
    protocol::Decodable,
};
use s3stream::ErrorKind;
use segment_adapter::Isolation;
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::{
    node::Node,
    topics::{
        Topic, TopicError,
        change::Refused,
        partition::{Leading, Partition},
    },
    wire::response::{EncodeError, Head, Response},
};

mod acls;
mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
mod configs;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod elect_leaders;
mod end_txn;
mod fetch;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;
mod txn_offset_commit;
mod write_txn_markers;

pub(crate) use api_versions::unsupported_version;

const READ_COMMITTED: i8 = 1;

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The address that the client has connected to.
    pub(crate) local: SocketAddr,
    /// The client's own address.
    pub(crate) peer: SocketAddr,
    /// Becomes true when the connection or the broker ends: whoever waits for more data answers with what there is.
    pub(crate) closing: watch::Receiver<bool>,
}

/// A request whose body the guard has walked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) client_id: Option<String>,
    pub(crate) body: Bytes,
}

/// What `begin` leaves to be done.
pub(crate) enum Reply {
    /// No answer at all (F11).
    Silent,
    /// An answer, in its turn.
    Later(BoxFuture<'static, Result<Response, Abort>>),
}

/// Why a connection is ended instead of answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Abort {
    #[error("{key:?} v{version} request: {reason}")]
    Undecodable {
        key: ApiKey,
        version: i16,
        reason: String,
    },
    #[error(transparent)]
    Unencodable(#[from] EncodeError),
    /// acks=0 has no answer in which an error could stand: Kafka, too, ends the connection.
    #[error("a produce request that wants no answer failed: {0}")]
    SilentFailure(String),
    #[error("{0:?} is in the table of what is served but has no code")]
    Unserved(ApiKey),
    #[error("the broker is stopping")]
    Stopping,
}

/// Does what must happen in the order of the connection.
pub(crate) async fn begin(
    node: &Arc<Node>,
    session: &Session,
    request: Request,
) -> Result<Reply, Abort> {
    let node = node.clone();
    match request.head.key {
        ApiKey::ApiVersions => api_versions::begin(request),
        ApiKey::Metadata => metadata::begin(node, session, request).await,
        ApiKey::Produce => produce::begin(node, request).await,
        ApiKey::Fetch => fetch::begin(node, session, request),
        ApiKey::ListOffsets => list_offsets::begin(node, request),
        ApiKey::OffsetCommit => offset_commit::begin(node, request),
        ApiKey::OffsetFetch => offset_fetch::begin(node, request),
        ApiKey::FindCoordinator => find_coordinator::begin(node, session, request),
        ApiKey::JoinGroup => join_group::begin(node, session, request),
        ApiKey::Heartbeat => heartbeat::begin(node, request),
        ApiKey::LeaveGroup => leave_group::begin(node, request),
        ApiKey::SyncGroup => sync_group::begin(node, request),
        ApiKey::DescribeGroups => describe_groups::begin(node, request),
        ApiKey::ListGroups => list_groups::begin(node, session, request),
        ApiKey::DeleteGroups => delete_groups::begin(node, request),
        ApiKey::OffsetDelete => offset_delete::begin(node, request),
        ApiKey::CreateTopics => create_topics::begin(node, request).await,
        ApiKey::DeleteTopics => delete_topics::begin(node, request).await,
        ApiKey::DeleteRecords => delete_records::begin(node, request).await,
        ApiKey::InitProducerId => init_producer_id::begin(node, request),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::begin(node, request),
        ApiKey::AddPartitionsToTxn => add_partitions_to_txn::begin(node, request),
        ApiKey::AddOffsetsToTxn => add_offsets_to_txn::begin(node, request),
        ApiKey::EndTxn => end_txn::begin(node, request),
        ApiKey::TxnOffsetCommit => txn_offset_commit::begin(node, request),
        ApiKey::WriteTxnMarkers => write_txn_markers::begin(node, request),
        ApiKey::DescribeProducers => describe_producers::begin(node, request),
        ApiKey::DescribeTransactions => describe_transactions::begin(node, request),
        ApiKey::ListTransactions => list_transactions::begin(node, session, request),
        ApiKey::ConsumerGroupHeartbeat => consumer_group_heartbeat::begin(node, session, request),
        ApiKey::ConsumerGroupDescribe => consumer_group_describe::begin(node, request),
        _ => begin_admin(node, session, request).await,
    }
}

/// The same, of requests about settings, partitions and the cluster.
async fn begin_admin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    match request.head.key {
        ApiKey::DescribeAcls => acls::describe(request),
        ApiKey::CreateAcls => acls::create(request),
        ApiKey::DeleteAcls => acls::delete(request),
        ApiKey::DescribeConfigs => describe_configs::begin(node, session, request),
        ApiKey::AlterConfigs => alter_configs::begin(node, request).await,
        ApiKey::AlterReplicaLogDirs => alter_replica_log_dirs::begin(&node, request),
        ApiKey::DescribeQuorum => describe_quorum::begin(&node, session, request),
        ApiKey::DescribeLogDirs => describe_log_dirs::begin(node, session, request),
        ApiKey::CreatePartitions => create_partitions::begin(node, request).await,
        ApiKey::ElectLeaders => elect_leaders::begin(&node, request),
        ApiKey::IncrementalAlterConfigs => incremental_alter_configs::begin(node, request).await,
        ApiKey::AlterPartitionReassignments => {
            alter_partition_reassignments::begin(node, request).await
        }
        ApiKey::ListPartitionReassignments => list_partition_reassignments::begin(request),
        ApiKey::DescribeCluster => describe_cluster::begin(&node, session, request),
        ApiKey::ListConfigResources => list_config_resources::begin(&node, request),
        ApiKey::DescribeTopicPartitions => describe_topic_partitions::begin(&node, request),
        key => Err(Abort::Unserved(key)),
    }
}

/// The partition that a request names, with its log open. The error is the code for the client.
pub(crate) async fn find_partition(
    node: &Node,
    topic: &str,
    index: i32,
) -> Result<(Arc<Partition>, Leading), i16> {
    let partition = node
        .topics
        .get(topic)
        .and_then(|topic| topic.partition(index).cloned())
        .ok_or(ResponseError::UnknownTopicOrPartition.code())?;
    let leading = partition.log(node.topics.engine()).await?;
    Ok((partition, leading))
}

/// A topic as a request names it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Named {
    Name(TopicName),
    /// In versions that have ids alone.
    Id(Uuid),
}

/// The topic that a request names.
fn topic_of(node: &Node, topic: &Named) -> Option<Arc<Topic>> {
    match topic {
        Named::Name(name) => node.topics.get(name.as_str()),
        Named::Id(id) => node.topics.by_id(*id),
    }
}

/// As [`find_partition`]; a topic that was deleted is not found by its id, whatever has its name now (F9).
async fn find_named(
    node: &Node,
    topic: &Named,
    index: i32,
) -> Result<(Arc<Partition>, Leading), i16> {
    let id = match topic {
        Named::Name(name) => return find_partition(node, name.as_str(), index).await,
        Named::Id(id) => *id,
    };
    let topic = node.topics.by_id(id);
    let topic = topic.ok_or(ResponseError::UnknownTopicId.code())?;
    let partition = topic.partition(index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition.code())?;
    let leading = partition.log(node.topics.engine()).await?;
    check_topic(&leading, id)?;
    Ok((partition.clone(), leading))
}

/// Whether a log is of the topic that its partition was found by.
fn check_topic(leading: &Leading, id: Uuid) -> Result<(), i16> {
    match leading.log.topic_id() {
        Some(known) if known == id.as_u128() => Ok(()),
        _ => Err(ResponseError::InconsistentTopicId.code()),
    }
}

/// Checks the leader epoch that a client believes in; -1 believes in any.
fn check_epoch(leading: &Leading, believed: i32) -> Result<(), ResponseError> {
    match believed {
        -1 => Ok(()),
        older if older < leading.epoch => Err(ResponseError::FencedLeaderEpoch),
        newer if newer > leading.epoch => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What a fenced producer is told: clients before version `first` know only of old epochs.
fn fenced_before(first: i16, version: i16, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if version < first => ResponseError::InvalidProducerEpoch,
        other => other,
    }
}

/// For so long a request may keep a thread to itself: to look through what a few bytes expand to takes longer.
const TURN: Duration = Duration::from_millis(5);

/// Lets others have a turn, unless this one, begun at `turn`, is still short.
async fn let_others(turn: &mut Instant) {
    if turn.elapsed() > TURN {
        tokio::task::yield_now().await;
        *turn = Instant::now();
    }
}

/// What the reader of a request sees.
fn isolation(level: i8) -> Isolation {
    match level {
        READ_COMMITTED => Isolation::TxnCommitted,
        _ => Isolation::HighWatermark,
    }
}

/// Why a topic was not changed, for the client.
fn refused(error: TopicError) -> Refused {
    let code = match error {
        TopicError::Refused(refused) => return refused,
        TopicError::Exists(_) | TopicError::Busy(_) => ResponseError::TopicAlreadyExists,
        TopicError::Unknown(_) => ResponseError::UnknownTopicOrPartition,
        TopicError::Engine(ref error) => error_of(error),
    };
    Refused::new(code, error.to_string())
}

/// The code for an error of the engine outside a log: all but one are worth another try.
pub(crate) fn error_of(error: &s3stream::Error) -> ResponseError {
    match error.kind() {
        ErrorKind::Fenced | ErrorKind::Closed => ResponseError::NotController,
        ErrorKind::Full | ErrorKind::Unavailable => ResponseError::RequestTimedOut,
        ErrorKind::Corrupt => ResponseError::KafkaStorageError,
        _ => ResponseError::UnknownServerError,
    }
}

impl Request {
    fn decode<M: Decodable>(&self) -> Result<M, Abort> {
        M::decode(&mut self.body.clone(), self.head.version).map_err(|error| Abort::Undecodable {
            key: self.head.key,
            version: self.head.version,
            reason: error.to_string(),
        })
    }
}

impl Reply {
    fn later(
        future: impl Future<Output = Result<Response, Abort>> + Send + 'static,
    ) -> Result<Self, Abort> {
        Ok(Self::Later(Box::pin(future)))
    }

    fn now(response: Result<Response, EncodeError>) -> Result<Self, Abort> {
        let response = response?;
        Self::later(async move { Ok(response) })
    }
}

#[cfg(test)]
mod tests {
    use segment_adapter::{KafkaLog, LogConfig};

    use super::*;
    use crate::node::testing::engine;

    #[tokio::test]
    async fn the_log_of_another_topic_is_not_served() {
        let engine = engine().await;
        let (group, _) = engine
            .create_group(KafkaLog::STREAMS, Vec::new())
            .await
            .unwrap();
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let partition = Partition::new(0, group, own, LogConfig::default());
        let leading = partition.log(&engine).await.unwrap();
        assert_eq!(check_topic(&leading, own), Ok(()));
        assert_eq!(check_topic(&leading, other), Err(103));
    }
}
