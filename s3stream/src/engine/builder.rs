//! How an engine is put together: places as URLs or components, settings as plain data.

use std::{fmt, sync::Arc};

use object_store::ObjectStore;

use super::{
    Engine,
    core::{Core, Parts},
    switch::settle_registered,
};
use crate::{
    BootClock, Clock, Config, Error, NodeId, Result,
    entropy::Entropy,
    metadata::{BucketSequencer, Metadata},
    store::{Bucket, BucketPlace, ClusterFile, Credentials, LogPlace, MetadataPlace},
};

/// Builds an [`Engine`]. Nothing is opened before [`EngineBuilder::open`].
#[derive(Default)]
pub struct EngineBuilder {
    config: Config,
    node: NodeId,
    bucket: Option<BucketSource>,
    wal: Option<WalSource>,
    metadata: Option<String>,
    credentials: Credentials,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
}

enum BucketSource {
    Url(String),
    Store(Arc<dyn ObjectStore>, String),
}

enum WalSource {
    Url(String),
    Backend(Arc<dyn wal::Backend>),
}

impl EngineBuilder {
    /// The bucket: `file:///dir`, `memory:`, `s3://bucket/prefix?endpoint=…`. Required.
    #[must_use]
    pub fn bucket(mut self, url: impl Into<String>) -> Self {
        self.bucket = Some(BucketSource::Url(url.into()));
        self
    }

    /// Credentials for a bucket given by URL; the default is none beyond what the place itself has.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The bucket as a store of one's own; it must have conditional puts with ETags.
    #[must_use]
    pub fn object_store(mut self, store: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        self.bucket = Some(BucketSource::Store(store, prefix.into()));
        self
    }

    /// The write-ahead log: `block:PATH?capacity=256MiB`, `object:`, `nfs:DIR?capacity=1GiB`, `memory:`. Required. If the node owes data in another log, that one is settled
    /// first: everything in it is uploaded and committed before this one is made.
    #[must_use]
    pub fn wal(mut self, url: impl Into<String>) -> Self {
        self.wal = Some(WalSource::Url(url.into()));
        self
    }

    /// The write-ahead log as a backend of one's own; it must pass the suite in [`wal::testing`](wal).
    #[must_use]
    pub fn wal_backend(mut self, backend: Arc<dyn wal::Backend>) -> Self {
        self.wal = Some(WalSource::Backend(backend));
        self
    }

    /// Where the metadata is ordered: `bucket:`, the default, is the bucket itself.
    #[must_use]
    pub fn metadata(mut self, url: impl Into<String>) -> Self {
        self.metadata = Some(url.into());
        self
    }

    /// The node's id, default 0: two engines of one cluster that run at the same time need two.
    #[must_use]
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = node;
        self
    }

    /// Settings; the default is [`Config::default`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// A clock for the validity of what was looked at (S8); the default is the boot-time clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// A seed for ids and jitter, for simulations: two engines with one seed draw the same ids. The default is drawn
    /// from the operating system.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Opens bucket, metadata and log, in the order of F0, and serves.
    ///
    /// # Errors
    /// `Invalid`: the configuration, with every problem in it; a bucket of another cluster or format; a log that is
    /// in use, is not this node's, or is not the one that the node owes data in. `Corrupt`: a log or metadata that is
    /// not what was written. `Unavailable`: something does not answer. Nothing is overwritten in any of these cases.
    pub async fn open(self) -> Result<Engine> {
        if let Err(problems) = self.config.validate() {
            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(Error::invalid("configuration").with("problems", all.join("; ")));
        }
        let entropy = match self.seed {
            Some(seed) => Entropy::seeded(seed),
            None => Entropy::from_os(),
        };
        let clock = self.clock.unwrap_or_else(|| Arc::new(BootClock));
        let MetadataPlace::Bucket = self.metadata.as_deref().unwrap_or("bucket:").parse()?;
        let bucket = match self.bucket {
            Some(BucketSource::Url(url)) => {
                let place = url.parse::<BucketPlace>()?;
                place.open_fitting(&self.credentials, &entropy).await?
            }
            Some(BucketSource::Store(store, prefix)) => Bucket::new(store, &prefix, &entropy)?,
            None => return Err(Error::invalid("an engine needs a bucket")),
        };
        let backend_at = async |place: &LogPlace| {
            let backend = place.backend(self.node, &bucket, &self.credentials, &entropy);
            backend.await
        };
        let wal = match self.wal {
            Some(WalSource::Url(url)) => {
                let place = url.parse::<LogPlace>()?;
                place.make_dir()?;
                backend_at(&place).await?
            }
            Some(WalSource::Backend(backend)) => backend,
            None => return Err(Error::invalid("an engine needs a write-ahead log")),
        };
        let cluster = ClusterFile::open(&bucket, &entropy, None).await?.id;
        let sequencer = BucketSequencer::new(bucket.clone(), cluster, entropy.clone());
        let metadata = Metadata::open(Box::new(sequencer), clock.clone(), entropy.clone()).await?;
        let parts = Parts {
            config: self.config,
            cluster,
            node: self.node,
            bucket: bucket.clone(),
            metadata,
            wal,
            clock,
            entropy: entropy.clone(),
        };
        settle_registered(&parts, async |url: &str| backend_at(&url.parse()?).await).await?;
        Engine::start(Core::new(parts)).await
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("node", &self.node)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
