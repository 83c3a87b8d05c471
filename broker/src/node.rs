//! What every connection of a broker shares.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use kafka_protocol::error::ResponseError;
use tokio::time::timeout;

use crate::{
    admission::Admission,
    api::error_of,
    budget::Budget,
    config::{Config, split_address},
    coordinator::{Coordinator, groups::Groups, transactions::TransactionCoordinator},
    metrics::Metrics,
    producer_ids::ProducerIds,
    topics::{Topic, Topics},
};

/// How long a request waits for a producer id, for which the metadata may have to be written.
const PRODUCER_ID_MAX: Duration = Duration::from_secs(5);

/// This broker, as its handlers see it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) admission: Arc<Admission>,
    pub(crate) budget: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) topics: Arc<Topics>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) groups: Coordinator<Groups>,
    pub(crate) transactions: TransactionCoordinator,
    pub(crate) cluster_id: String,
    /// The ports of the nodes, in their order.
    ports: Vec<u16>,
}

/// A node, as a client finds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Node {
    pub(crate) fn new(config: Config, topics: Topics, ports: Vec<u16>) -> Self {
        let topics = Arc::new(topics);
        Self {
            groups: Groups::coordinator(topics.clone(), &config.coordinator),
            admission: Admission::new(&config.limits),
            transactions: TransactionCoordinator::new(topics.clone(), &config),
            budget: Budget::new(&config.limits),
            metrics: Metrics::new(),
            cluster_id: topics.engine().cluster().to_string(),
            topics,
            producer_ids: ProducerIds::default(),
            ports,
            config,
        }
    }

    /// The number of the first node in the protocol.
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.config.node_id).expect("validated: node_id <= i32::MAX")
    }

    /// A producer id that nobody has. The error is what a client tries again after.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, ResponseError> {
        let given = self.producer_ids.next(self.topics.engine());
        let Ok(given) = timeout(PRODUCER_ID_MAX, given).await else {
            tracing::warn!("no producer id in time");
            return Err(ResponseError::CoordinatorLoadInProgress);
        };
        given.map_err(|error| {
            tracing::warn!(%error, "no producer id");
            match error_of(&error) {
                // What a client tries again for this request.
                ResponseError::RequestTimedOut => ResponseError::CoordinatorLoadInProgress,
                other => other,
            }
        })
    }

    /// The numbers of all nodes; the first is the controller.
    pub(crate) fn ids(&self) -> Range<i32> {
        self.id()..self.id().saturating_add(self.ports.len() as i32)
    }

    /// The node whose port a client has connected to.
    pub(crate) fn connected(&self, local: SocketAddr) -> i32 {
        let place = self.ports.iter().position(|port| *port == local.port());
        self.id() + place.unwrap_or(0) as i32
    }

    /// Where a client that has connected to `local` finds a node: at the address that worked for it. An IPv4 client of a
    /// listener on both families is told an IPv4 address (F8).
    pub(crate) fn endpoint(&self, id: i32, local: SocketAddr) -> Endpoint {
        let (host, port) = match split_address(&self.config.advertise) {
            // Validated: the last one is a port, too.
            Some((host, port)) => {
                let place = u16::try_from(id - self.id()).unwrap_or(0);
                (host.to_owned(), port.saturating_add(place))
            }
            None => {
                let host = local.ip().to_canonical().to_string();
                (host, self.port(id, local))
            }
        };
        Endpoint { id, host, port }
    }

    /// Where a node listens; the only one where the client has connected to.
    pub(crate) fn port(&self, id: i32, local: SocketAddr) -> u16 {
        let place = usize::try_from(id - self.id()).unwrap_or(0);
        match self.ports.get(place) {
            Some(port) if self.ports.len() > 1 => *port,
            _ => local.port(),
        }
    }

    /// Where a client that has connected to `local` finds each node.
    pub(crate) fn endpoints(&self, local: SocketAddr) -> Vec<Endpoint> {
        self.ids().map(|id| self.endpoint(id, local)).collect()
    }

    /// The nodes that a partition is on, its leader first.
    pub(crate) fn replicas(&self, topic: &Topic, partition: i32) -> Vec<i32> {
        topic.nodes(partition, self.ids())
    }

    /// Whether the node that a client has connected to leads a partition of a topic of the broker itself: who asks every
    /// node then hears of each thing once.
    pub(crate) fn leads(&self, topic: &str, partition: i32, local: SocketAddr) -> bool {
        let topic = self.topics.get(topic);
        topic.is_none_or(|topic| self.leader(&topic, partition) == self.connected(local))
    }

    /// The node that leads a partition.
    pub(crate) fn leader(&self, topic: &Topic, partition: i32) -> i32 {
        let replicas = self.replicas(topic, partition);
        replicas.first().copied().unwrap_or(self.id())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! An engine and a node that keep nothing.

    use s3stream::{Engine, NodeId};

    use super::*;

    pub(crate) async fn engine() -> Engine {
        let engine = Engine::builder().node(NodeId::new(1));
        let engine = engine.bucket("memory:").wal("memory:");
        engine.open().await.unwrap()
    }

    pub(crate) async fn node() -> Node {
        let topics = Topics::load(engine().await).await.unwrap();
        Node::new(Config::default(), topics, vec![9092])
    }
}
