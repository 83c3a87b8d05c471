//! The topics of the cluster: what the metadata says of them, and their open logs.
//!
//! A topic is created by making its groups first and its key last, and deleted the other way round, so a crash in between
//! leaves groups that no topic names: [`Topics::load`] destroys them. A topic's id is derived from its first group, and
//! groups are never used twice: a recreated topic has a new id (F9). Settings that a topic does not say are those that brokers
//! were told, or Kafka's defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use s3stream::{Engine, ErrorKind, GroupId, metadata::Expect};
use segment_adapter::KafkaLog;
use tokio::sync::Notify;
use uuid::Uuid;

use self::{
    change::Refused,
    config::TopicConfig,
    description::{Description, KEY_PREFIX, key},
    partition::Partition,
    placement::Placement,
};

use crate::settings::{Overrides, broker, store::Store};

pub(crate) mod change;
pub(crate) mod config;
pub(crate) mod description;
pub(crate) mod name;
pub(crate) mod partition;
pub(crate) mod placement;

/// The tags of a partition's group: what it is, and for whoever looks at the metadata, whose.
const TAG_KIND: (&str, &str) = ("kafka", "partition");
const TAG_TOPIC: &str = "kafka.topic";
const TAG_PARTITION: &str = "kafka.partition";
/// Logs that are opened, or groups that are made, at one time.
const CONCURRENT: usize = 256;

/// Between attempts to delete a topic of which it is not known whether it is.
const DELETE_PAUSE_MIN: Duration = Duration::from_millis(100);
const DELETE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Topics that belong to the broker itself (F7).
pub(crate) fn is_internal(name: &str) -> bool {
    name == "__consumer_offsets" || name == "__transaction_state"
}

/// A topic. It does not change: other settings or another number of partitions are a new value.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Arc<Partition>>,
    pub(crate) config: TopicConfig,
    pub(crate) placement: Placement,
}

impl Topic {
    /// The nodes that a partition is on, its leader first, out of those there are.
    pub(crate) fn nodes(&self, partition: i32, there: Range<i32>) -> Vec<i32> {
        let (_, seed) = self.id.as_u64_pair();
        let partition = usize::try_from(partition).unwrap_or(0);
        self.placement.nodes(seed, partition, there)
    }

    fn configure(&self, defaults: &Overrides) {
        let log = self.config.log_over(defaults);
        for partition in &self.partitions {
            partition.configure(log.clone());
        }
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// Why a topic was not created, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("topic {0} exists")]
    Exists(String),
    #[error("topic {0} is being created or deleted")]
    Busy(String),
    #[error("there is no topic {0}")]
    Unknown(String),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Engine(#[from] s3stream::Error),
}

/// All topics.
#[derive(Debug)]
pub(crate) struct Topics {
    engine: Engine,
    /// Settings of brokers and groups.
    pub(crate) settings: Store,
    /// What holds for topics that do not say otherwise.
    defaults: RwLock<Overrides>,
    names: RwLock<Names>,
    /// Names that are being created, changed or deleted right now.
    busy: Mutex<BTreeSet<String>>,
    /// A name is not busy any more.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Names {
    /// How often the topics have changed.
    version: u64,
    by_name: BTreeMap<String, Arc<Topic>>,
    name_by_id: BTreeMap<Uuid, String>,
}

impl Topics {
    /// Reads the topics, destroys groups that no topic names, and opens every log. A log that cannot be opened leaves its
    /// partition unavailable, not the broker.
    pub(crate) async fn load(engine: Engine) -> s3stream::Result<Self> {
        let settings = Store::load(engine.clone())?;
        let own = settings.this_broker();
        let defaults = broker::topic_defaults(&settings, &own, &settings.get(&own));
        let mut names = Names::default();
        let mut named = BTreeSet::new();
        for (key, value) in engine.kv_list(KEY_PREFIX.as_bytes()) {
            let name = String::from_utf8_lossy(&key[KEY_PREFIX.len()..]).into_owned();
            let description = decode(&name, &value)?;
            named.extend(description.groups.iter().copied());
            names.insert(topic(name, description, &defaults));
        }
        let topics = Self {
            engine,
            settings,
            defaults: RwLock::new(defaults),
            names: RwLock::new(names),
            busy: Mutex::default(),
            freed: Notify::new(),
        };
        topics.sweep(&named).await?;
        let partitions = topics
            .all()
            .into_iter()
            .flat_map(|topic| topic.partitions.clone());
        stream::iter(partitions)
            .for_each_concurrent(CONCURRENT, |partition| async {
                let partition = partition;
                // The partition keeps and has logged what is wrong.
                let _ = partition.log(&topics.engine).await;
            })
            .await;
        Ok(topics)
    }

    /// Destroys what a crash has left of topics that do not exist.
    async fn sweep(&self, named: &BTreeSet<GroupId>) -> s3stream::Result<()> {
        for group in self.engine.groups_tagged(TAG_KIND.0, TAG_KIND.1) {
            if !named.contains(&group) {
                tracing::info!(%group, "destroying a partition of no topic");
                self.engine.destroy_group(group).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.names.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        let names = self.names.read();
        names.by_name.get(names.name_by_id.get(&id)?).cloned()
    }

    /// A number that is another one when a topic has come, gone or changed.
    pub(crate) fn version(&self) -> u64 {
        self.names.read().version
    }

    /// The names that pass.
    pub(crate) fn select(&self, passes: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
        let names = self.names.read();
        let selected = names.by_name.keys().filter(|name| passes(name));
        selected.cloned().collect()
    }

    /// Every topic, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.names.read().by_name.values().cloned().collect()
    }

    /// Creates a topic with one replica. It goes on to its end even if the caller is dropped.
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: &str,
        partitions: u32,
        config: TopicConfig,
    ) -> Result<Arc<Topic>, TopicError> {
        let placement = Placement::default();
        self.create_placed(name, partitions, placement, config)
            .await
    }

    /// As [`Self::create`], with other nodes.
    pub(crate) async fn create_placed(
        self: &Arc<Self>,
        name: &str,
        partitions: u32,
        placement: Placement,
        config: TopicConfig,
    ) -> Result<Arc<Topic>, TopicError> {
        let busy = self.reserve(name)?;
        if self.get(name).is_some() {
            return Err(TopicError::Exists(name.into()));
        }
        let topics = self.clone();
        finish(tokio::spawn(async move {
            topics
                .create_reserved(busy, partitions, placement, config)
                .await
        }))
        .await
    }

    async fn create_reserved(
        &self,
        busy: Busy,
        partitions: u32,
        placement: Placement,
        config: TopicConfig,
    ) -> Result<Arc<Topic>, TopicError> {
        let name = &busy.name;
        // A put that was answered too late may have made the topic after all.
        if self.adopt(name).await? {
            return Err(TopicError::Exists(name.clone()));
        }
        let groups = self.create_groups(name, 0..partitions).await?;
        let first = groups.first().copied();
        let description = Description {
            id: self.topic_id(first.expect("a topic has one partition at least")),
            groups,
            placement,
            config,
        };
        self.put(name, &description).await?;
        let topic = self.open(self.topic(name, description)).await;
        tracing::info!(topic = name, id = %topic.id, partitions, "topic created");
        Ok(topic)
    }

    /// Makes the topic exist. If it cannot be known whether it does, its groups stay: the next creation finds it, or the next
    /// start destroys them.
    async fn put(&self, name: &str, description: &Description) -> Result<(), TopicError> {
        let value = Some(description.encode().into());
        let put = self.engine.kv_put(key(name), value, Some(Expect::Absent));
        if put.await?.is_err() {
            self.destroy(&description.groups).await;
            return Err(TopicError::Exists(name.into()));
        }
        Ok(())
    }

    /// Takes in a topic that the metadata knows and this broker does not; `false` if there is none.
    async fn adopt(&self, name: &str) -> Result<bool, TopicError> {
        let Some((value, _)) = self.engine.kv_get(&key(name)) else {
            return Ok(false);
        };
        self.open(self.topic(name, decode(name, &value)?)).await;
        Ok(true)
    }

    fn topic(&self, name: &str, description: Description) -> Arc<Topic> {
        topic(name.to_owned(), description, &self.defaults.read())
    }

    /// Opens the logs of a topic that are not open, then shows it.
    async fn open(&self, topic: Arc<Topic>) -> Arc<Topic> {
        stream::iter(&topic.partitions)
            .for_each_concurrent(CONCURRENT, |partition| async {
                // The partition keeps and has logged what is wrong.
                let _ = partition.log(&self.engine).await;
            })
            .await;
        let mut names = self.names.write();
        // They may have changed meanwhile, of topics that were shown.
        topic.configure(&self.defaults.read());
        names.insert(topic.clone());
        topic
    }

    /// What holds for topics that do not say otherwise.
    pub(crate) fn defaults(&self) -> Overrides {
        self.defaults.read().clone()
    }

    /// Lets other settings hold for topics that do not say otherwise. They go with those of every topic.
    pub(crate) fn set_defaults(&self, defaults: Overrides) {
        let names = self.names.write();
        for topic in names.by_name.values() {
            topic.configure(&defaults);
        }
        *self.defaults.write() = defaults;
    }

    async fn create_groups(
        &self,
        name: &str,
        partitions: Range<u32>,
    ) -> s3stream::Result<Vec<GroupId>> {
        let made: Vec<_> = stream::iter(partitions)
            .map(|index| {
                let tags = vec![
                    (TAG_KIND.0.to_owned(), TAG_KIND.1.to_owned()),
                    (TAG_TOPIC.to_owned(), name.to_owned()),
                    (TAG_PARTITION.to_owned(), index.to_string()),
                ];
                self.engine.create_group(KafkaLog::STREAMS, tags)
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        let failed = made.iter().find_map(|made| made.as_ref().err().cloned());
        let groups: Vec<GroupId> = made.into_iter().flatten().map(|(group, _)| group).collect();
        match failed {
            None => Ok(groups),
            Some(error) => {
                self.destroy(&groups).await;
                Err(error)
            }
        }
    }

    /// Best effort: what stays is destroyed at the next start.
    async fn destroy(&self, groups: &[GroupId]) {
        stream::iter(groups)
            .for_each_concurrent(CONCURRENT, |group| async move {
                if let Err(error) = self.engine.destroy_group(*group).await {
                    tracing::warn!(%group, %error, "a partition is destroyed at the next start");
                }
            })
            .await;
    }

    /// Never the same twice in a cluster, never zero, and in another cluster another.
    fn topic_id(&self, first: GroupId) -> Uuid {
        let cluster = self.engine.cluster().get() as u64;
        Uuid::from_u64_pair(cluster, first.get())
    }

    /// Deletes a topic. It goes on to its end even if the caller is dropped.
    pub(crate) async fn delete(self: &Arc<Self>, topic: Arc<Topic>) -> Result<(), TopicError> {
        let busy = self.reserve(&topic.name)?;
        let current = self.get(&topic.name);
        if current.is_none_or(|current| current.id != topic.id) {
            return Err(TopicError::Unknown(topic.name.clone()));
        }
        let topics = self.clone();
        finish(tokio::spawn(async move {
            topics.delete_reserved(busy, topic).await
        }))
        .await
    }

    async fn delete_reserved(
        self: &Arc<Self>,
        busy: Busy,
        topic: Arc<Topic>,
    ) -> Result<(), TopicError> {
        // A version would say nothing: only this node writes the key, and one caller at a time.
        match self.engine.kv_put(key(&busy.name), None, None).await {
            Ok(gone) => {
                gone.map_err(|_| TopicError::Unknown(busy.name.clone()))?;
            }
            Err(error) if error.may_have_happened() => {
                // If it has, the next start destroys what is acknowledged from now on: it must not stay half deleted.
                tracing::warn!(topic = topic.name, %error, "whether a topic is deleted is not known: it will be");
                tokio::spawn(self.clone().delete_at_last(busy, topic));
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        self.deleted(&topic).await;
        Ok(())
    }

    /// Deletes a topic that may be deleted already, for as long as it takes.
    async fn delete_at_last(self: Arc<Self>, busy: Busy, topic: Arc<Topic>) {
        let mut pause = DELETE_PAUSE_MIN;
        while let Err(error) = self.engine.kv_put(key(&busy.name), None, None).await {
            if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) {
                // This node is over.
                tracing::warn!(topic = topic.name, %error, "whether a topic is deleted shows at the next start");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(DELETE_PAUSE_MAX);
        }
        self.deleted(&topic).await;
    }

    /// Nothing names the topic any more.
    async fn deleted(&self, topic: &Topic) {
        self.names.write().remove(topic);
        for partition in &topic.partitions {
            partition.delete();
        }
        let groups: Vec<_> = topic.partitions.iter().map(|p| p.group).collect();
        self.destroy(&groups).await;
        tracing::info!(topic = topic.name, id = %topic.id, "topic deleted");
    }

    fn reserve(self: &Arc<Self>, name: &str) -> Result<Busy, TopicError> {
        if !self.busy.lock().insert(name.to_owned()) {
            return Err(TopicError::Busy(name.into()));
        }
        Ok(Busy {
            topics: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Waits for whoever has the name.
    async fn reserve_in_turn(self: &Arc<Self>, name: &str) -> Busy {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before the look, so that a name that is freed in between is heard of.
            freed.as_mut().enable();
            if let Ok(busy) = self.reserve(name) {
                return busy;
            }
            freed.await;
        }
    }

    /// Closes every log.
    pub(crate) async fn close(&self) {
        let partitions = self
            .all()
            .into_iter()
            .flat_map(|topic| topic.partitions.clone());
        stream::iter(partitions)
            .for_each_concurrent(
                CONCURRENT,
                |partition| async move { partition.close().await },
            )
            .await;
    }
}

/// The right to create, change or delete a name; others wait, or are told that it is busy.
struct Busy {
    topics: Arc<Topics>,
    name: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.topics.busy.lock().remove(&self.name);
        self.topics.freed.notify_waiters();
    }
}

impl Names {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.version += 1;
        self.name_by_id.insert(topic.id, topic.name.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, topic: &Topic) {
        self.version += 1;
        self.name_by_id.remove(&topic.id);
        self.by_name.remove(&topic.name);
    }
}

fn decode(name: &str, value: &[u8]) -> s3stream::Result<Description> {
    Description::decode(name, value)
        .map_err(|error| s3stream::Error::corrupt("topic").caused_by(error))
}

fn topic(name: String, description: Description, defaults: &Overrides) -> Arc<Topic> {
    let log = description.config.log_over(defaults);
    let partitions = (0..).zip(&description.groups);
    Arc::new(Topic {
        name,
        id: description.id,
        partitions: partitions
            .map(|(index, group)| Partition::new(index, *group, description.id, log.clone()))
            .collect(),
        config: description.config,
        placement: description.placement,
    })
}

async fn finish<T>(task: tokio::task::JoinHandle<Result<T, TopicError>>) -> Result<T, TopicError> {
    task.await.unwrap_or_else(|error| {
        Err(s3stream::Error::internal("topic task ended")
            .caused_by(error)
            .into())
    })
}
