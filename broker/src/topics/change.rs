//! Changes of topics that exist: more partitions, other settings, other nodes.
//!
//! A change is one put of the topic's key. New groups are made before it, so a crash in between leaves groups that no topic
//! names, and the next start destroys them. It is based on what the metadata says, not on what is shown: a put that was
//! answered too late counts. Logs that are open take new settings at once.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use s3stream::ErrorKind;

use super::{
    Busy, Topic, TopicError, Topics, decode,
    description::{Description, key},
    partition::Partition,
};
use crate::settings::Overrides;

/// What becomes of a topic.
pub(crate) struct Change {
    pub(crate) description: Description,
    /// How many partitions it has then; as many as its groups, or more.
    pub(crate) partitions: usize,
}

/// Why a change is not made, for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }
}

impl Topics {
    /// Changes a topic, after whatever else is done to its name; with `dry` only looks whether it may be. It goes on to its
    /// end even if the caller is dropped.
    pub(crate) async fn change(
        self: &Arc<Self>,
        name: &str,
        dry: bool,
        edit: impl FnOnce(Description) -> Result<Change, Refused> + Send + 'static,
    ) -> Result<(), TopicError> {
        let busy = self.reserve_in_turn(name).await;
        let topics = self.clone();
        super::finish(tokio::spawn(async move {
            let (topic, before) = topics.described(&busy)?;
            let change = edit(before.clone())?;
            if dry {
                return Ok(());
            }
            topics.change_reserved(&topic, before, change).await
        }))
        .await
    }

    /// A topic as it is shown, and as the metadata has it.
    fn described(&self, busy: &Busy) -> Result<(Arc<Topic>, Description), TopicError> {
        let name = &busy.name;
        let unknown = || TopicError::Unknown(name.clone());
        let topic = self.get(name).ok_or_else(unknown)?;
        let (value, _) = self.engine.kv_get(&key(name)).ok_or_else(unknown)?;
        Ok((topic, decode(name, &value)?))
    }

    async fn change_reserved(
        &self,
        topic: &Topic,
        before: Description,
        change: Change,
    ) -> Result<(), TopicError> {
        let Change {
            mut description,
            partitions,
        } = change;
        let name = &topic.name;
        let had = description.groups.len() as u32;
        let made = self.create_groups(name, had..partitions as u32).await?;
        description.groups.extend(&made);
        if description != before {
            let value = Some(description.encode().into());
            if let Err(error) = self.engine.kv_put(key(name), value, None).await {
                // If it may have happened, the next change or start finds it, or destroys the groups.
                if error.kind() == ErrorKind::Invalid {
                    self.destroy(&made).await;
                }
                return Err(error.into());
            }
        }
        self.open(changed(topic, description, &self.defaults()))
            .await;
        tracing::info!(topic = name, partitions, "topic changed");
        Ok(())
    }
}

/// The topic as it is now, with the partitions that it had: they take the new settings when it is shown.
fn changed(topic: &Topic, description: Description, defaults: &Overrides) -> Arc<Topic> {
    let log = description.config.log_over(defaults);
    let partition = |(index, group): (i32, _)| match topic.partition(index) {
        Some(partition) if partition.group == group => partition.clone(),
        _ => Partition::new(index, group, description.id, log.clone()),
    };
    let groups = description.groups.iter().copied();
    Arc::new(Topic {
        name: topic.name.clone(),
        id: description.id,
        partitions: (0..).zip(groups).map(partition).collect(),
        config: description.config,
        placement: description.placement,
    })
}

#[cfg(test)]
mod tests {
    use s3stream::Engine;

    use super::*;
    use crate::{node::testing::engine, topics::config::TopicConfig};

    fn groups(engine: &Engine) -> usize {
        engine.groups_tagged("kafka", "partition").len()
    }

    fn grow(count: usize) -> impl FnOnce(Description) -> Result<Change, Refused> {
        move |description| {
            Ok(Change {
                partitions: count.max(description.groups.len()),
                description,
            })
        }
    }

    async fn topics() -> (Engine, Arc<Topics>) {
        let engine = engine().await;
        let topics = Arc::new(Topics::load(engine.clone()).await.unwrap());
        topics.create("t", 1, TopicConfig::default()).await.unwrap();
        (engine, topics)
    }

    #[tokio::test]
    async fn a_crash_before_the_description_leaves_the_topic_as_it_was_and_no_stray_group() {
        let (engine, topics) = topics().await;
        topics.create_groups("t", 1..3).await.unwrap();
        assert_eq!(groups(&engine), 3);
        drop(topics);
        let topics = Topics::load(engine.clone()).await.unwrap();
        assert_eq!(topics.get("t").unwrap().partitions.len(), 1);
        assert_eq!(groups(&engine), 1);
    }

    #[tokio::test]
    async fn a_change_goes_on_from_one_that_was_answered_too_late() {
        let (engine, topics) = topics().await;
        // It made its groups and its put happened, but nobody was told.
        let (value, _) = engine.kv_get(&key("t")).unwrap();
        let mut late = decode("t", &value).unwrap();
        late.groups
            .extend(topics.create_groups("t", 1..2).await.unwrap());
        let put = engine.kv_put(key("t"), Some(late.encode().into()), None);
        put.await.unwrap().unwrap();
        topics.change("t", false, grow(2)).await.unwrap();
        let topic = topics.get("t").unwrap();
        let shown: Vec<_> = topic.partitions.iter().map(|one| one.group).collect();
        assert_eq!((shown, groups(&engine)), (late.groups, 2));
    }

    #[tokio::test]
    async fn changes_of_a_topic_at_one_time_all_happen() {
        let (engine, topics) = topics().await;
        let changes = (2..12).map(|count| topics.change("t", false, grow(count)));
        for changed in futures::future::join_all(changes).await {
            changed.unwrap();
        }
        assert_eq!(topics.get("t").unwrap().partitions.len(), 11);
        assert_eq!(groups(&engine), 11);
    }

    #[tokio::test]
    async fn partitions_that_were_there_stay_open() {
        let (_, topics) = topics().await;
        let before = topics.get("t").unwrap().partitions[0].clone();
        topics.change("t", false, grow(2)).await.unwrap();
        let after = topics.get("t").unwrap();
        assert!(Arc::ptr_eq(&before, &after.partitions[0]));
        assert!(after.partitions.iter().all(|one| one.current().is_some()));
    }
}
