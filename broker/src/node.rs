//! What every connection of a broker shares.

use std::{net::SocketAddr, sync::Arc};

use kafka_protocol::error::ResponseError;

use crate::{
    admission::Admission,
    api::error_of,
    budget::Budget,
    config::{Config, split_address},
    coordinator::transactions::TransactionCoordinator,
    metrics::Metrics,
    producer_ids::ProducerIds,
    topics::Topics,
};

/// This broker, as its handlers see it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) admission: Arc<Admission>,
    pub(crate) budget: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) topics: Arc<Topics>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) transactions: TransactionCoordinator,
    pub(crate) cluster_id: String,
}

impl Node {
    pub(crate) fn new(config: Config, topics: Topics) -> Self {
        let topics = Arc::new(topics);
        Self {
            admission: Admission::new(&config.limits),
            transactions: TransactionCoordinator::new(topics.clone(), &config.transactions),
            budget: Budget::new(&config.limits),
            metrics: Metrics::new(),
            cluster_id: topics.engine().cluster().to_string(),
            topics,
            producer_ids: ProducerIds::default(),
            config,
        }
    }

    /// The node's number in the protocol.
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.config.node_id).expect("validated: node_id <= i32::MAX")
    }

    /// A producer id that nobody has. The error is what a client tries again after.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, ResponseError> {
        let given = self.producer_ids.next(self.topics.engine()).await;
        given.map_err(|error| {
            tracing::warn!(%error, "no producer id");
            match error_of(&error) {
                // What a client tries again for this request.
                ResponseError::RequestTimedOut => ResponseError::CoordinatorLoadInProgress,
                other => other,
            }
        })
    }

    /// Host and port for a client that has connected to `local`: what works for it once works again. An IPv4 client of a
    /// listener on both families is told an IPv4 address (F8).
    pub(crate) fn advertised(&self, local: SocketAddr) -> (String, u16) {
        match split_address(&self.config.advertise) {
            Some((host, port)) => (host.to_owned(), port),
            None => (local.ip().to_canonical().to_string(), local.port()),
        }
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
        Node::new(Config::default(), topics)
    }
}
