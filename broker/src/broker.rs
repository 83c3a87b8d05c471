//! A running broker: an engine, a listener, and the tasks between them.
//!
//! Start: check the configuration, take the address, open the engine, open the logs, serve. Stop: the other way round,
//! and what is not done by the deadline is left to recovery: nothing acknowledged is lost.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use s3stream::{Engine, NodeId, store::Credentials};
use segment_adapter::Compactor;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    cleaner,
    config::{Config, ConfigError, Problem},
    coordinator::transactions::markers,
    listeners::Listeners,
    node::Node,
    retention, server,
    start_error::StartError,
    status,
    topics::Topics,
};

/// A broker that serves Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, Metadata, FindCoordinator, ApiVersions,
/// CreateTopics, DeleteTopics, DeleteRecords, transactions (InitProducerId, AddPartitionsToTxn, EndTxn, WriteTxnMarkers,
/// DescribeProducers, DescribeTransactions and ListTransactions), and administration (CreatePartitions, the configuration of
/// topics, brokers and groups, DescribeCluster, DescribeTopicPartitions, log directories, elections and reassignments).
///
/// Dropping it without [`Broker::stop`] ends it as a crash would: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Broker {
    node: Arc<Node>,
    addresses: Vec<SocketAddr>,
    status: Option<(SocketAddr, JoinHandle<()>)>,
    stopping: watch::Sender<bool>,
    server: JoinHandle<()>,
    retention: JoinHandle<()>,
    cleaner: JoinHandle<()>,
    markers: JoinHandle<()>,
}

impl Broker {
    /// Starts a broker whose bucket asks for no credentials, or for those of the machine. It serves when this returns.
    ///
    /// # Errors
    /// Each names the thing that is wrong and what to do about it. Nothing is overwritten.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Credentials::none()).await
    }

    /// Starts a broker with credentials for its bucket.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_with(config: Config, credentials: Credentials) -> Result<Self, StartError> {
        config.validate()?;
        // First the address: a second broker started by mistake ends before it touches any data.
        let listeners = Listeners::bind(&config.listen, config.nodes).await?;
        let addresses = listeners
            .addresses()
            .map_err(|source| StartError::listen(&config.listen, source))?;
        let of_status = match config.metrics_listen.as_str() {
            "" => None,
            metrics_listen => Some(listen(metrics_listen).await?),
        };
        let engine = Engine::builder()
            .node(NodeId::new(u64::from(config.node_id)))
            .bucket(&config.bucket)
            .credentials(credentials)
            .wal(&config.wal)
            .metadata(&config.metadata)
            .config(config.engine.clone())
            .open()
            .await
            .map_err(|error| StartError::open(&config, error))?;
        let topics = Topics::load(engine)
            .await
            .map_err(|error| StartError::open(&config, error))?;
        let ports = addresses.iter().map(SocketAddr::port).collect();
        let node = Arc::new(Node::new(config, topics, ports));
        let compactor = Compactor::new(node.config.cleaner.compactor()).map_err(|error| {
            ConfigError::Invalid(vec![Problem {
                key: "cleaner".into(),
                what: error.to_string(),
            }])
        })?;
        node.groups.start();
        node.transactions.start();
        let (stopping, stopped) = watch::channel(false);
        Ok(Self {
            server: tokio::spawn(server::run(listeners, node.clone(), stopped)),
            retention: tokio::spawn(retention::run(node.clone())),
            cleaner: tokio::spawn(cleaner::run(node.clone(), compactor)),
            markers: tokio::spawn(markers::run(node.clone())),
            status: of_status.map(|(listener, address)| {
                let page = tokio::spawn(status::run(listener, node.clone()));
                (address, page)
            }),
            addresses,
            node,
            stopping,
        })
    }

    /// The address it listens on, that of its first node.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses of its nodes, one at least.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address of its status page, if it has one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.status.as_ref().map(|(address, _)| *address)
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.node.config
    }

    /// The engine below, for those who measure.
    pub fn engine(&self) -> &Engine {
        self.node.topics.engine()
    }

    /// Resolves when the engine is over for a reason that trying again cannot help: another process took over as this node,
    /// or stored data is damaged. Only a new start can go on.
    pub async fn ended(&self) -> s3stream::Error {
        self.engine().ended().await
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.node.topics.all().len()
    }

    /// Takes no new connections and requests, answers those it has, closes the logs and the engine: afterwards the bucket
    /// alone has everything. All within `shutdown_timeout_ms`.
    ///
    /// # Errors
    /// If not everything was uploaded in time. Start again with the same log to go on.
    pub async fn stop(mut self) -> Result<(), s3stream::Error> {
        let allowed = Duration::from_millis(self.node.config.shutdown_timeout_ms);
        let deadline = Instant::now() + allowed;
        self.stopping.send_replace(true);
        // Who waits for a rebalance is told to look elsewhere, so that its connection can end.
        self.node.groups.stop();
        self.retention.abort();
        self.cleaner.abort();
        // It ends where it waits next, and has let go of its log then; the error is that it was ended.
        let _ = timeout(allowed / 4, &mut self.cleaner).await;
        // Half for clients that do not take their answers; the other half at least is the engine's.
        if timeout(allowed / 2, &mut self.server).await.is_err() {
            tracing::warn!("connections were cut off: they did not take their answers in time");
            self.server.abort();
        }
        // What is decided and not carried out is carried out after the next start.
        self.markers.abort();
        self.node.transactions.stop();
        if timeout_at(deadline, self.node.topics.close())
            .await
            .is_err()
        {
            tracing::warn!("not every log was closed in time");
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.engine().close(left).await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.abort();
        self.retention.abort();
        self.cleaner.abort();
        self.node.groups.stop();
        self.markers.abort();
        self.node.transactions.stop();
        if let Some((_, page)) = &self.status {
            page.abort();
        }
    }
}

async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::listen(address, source);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use segment_adapter::{BatchBuilder, Codec, CompactorConfig, LogError};

    use super::*;
    use crate::{Cleaner, topics::config::TopicConfig};

    const SOON: Duration = Duration::from_secs(20);

    fn keyed(timestamp: i64) -> Bytes {
        BatchBuilder::new(Codec::None)
            .record(timestamp, Some(b"k"), Some(b"v"))
            .build()
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_ends_the_cleaner_in_the_middle_of_a_pass() {
        let broker = Broker::start(Config {
            listen: "127.0.0.1:0".into(),
            bucket: "memory:".into(),
            wal: "memory:".into(),
            // A pass would take minutes.
            cleaner: Cleaner {
                backoff_ms: 1,
                io_bytes_per_second: 1,
                ..Cleaner::default()
            },
            ..Config::default()
        })
        .await
        .unwrap();
        let config = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("segment.ms", "1"),
        ];
        let config = config.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        let config = TopicConfig::new(config).unwrap();
        let topic = broker.node.topics.create("t", 1, config).await.unwrap();
        let leading = topic.partitions[0].current().unwrap();
        for index in 0..20 {
            let appended = leading
                .log
                .append_as_leader(keyed(2 * index), leading.epoch);
            appended.unwrap().durable().await.unwrap();
        }
        let mut other = Compactor::new(CompactorConfig::default()).unwrap();
        let mut try_once = || leading.log.compact(&mut other, 0).now_or_never();
        let under_way = async {
            while !matches!(try_once(), Some(Err(LogError::Busy(_)))) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, under_way).await.expect("a pass begins");
        let begun = Instant::now();
        timeout(SOON, broker.stop()).await.unwrap().unwrap();
        // Much less than a stop allows the cleaner.
        assert!(begun.elapsed() < SOON / 4, "{:?}", begun.elapsed());
        // The pass has let go of the log: it is closed, not busy.
        let after = leading.log.compact(&mut other, 0).await;
        assert!(matches!(after, Err(LogError::Closed)), "{after:?}");
    }
}
