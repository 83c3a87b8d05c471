//! OffsetFetch: how far a group has read.

use kafka_protocol::error::ResponseError;

use super::{Committed, Done, Groups, group::Group};

/// What a group has for a partition. Nothing is not an error (F32).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fetched {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) found: Result<Option<Committed>, ResponseError>,
}

impl Groups {
    /// Whether somebody may fetch who says that it is a member of a consumer group: 25, 113. Nobody else has to be one.
    pub(crate) fn check_fetch(&self, id: &str, member: Option<&str>, epoch: i32) -> Done {
        let group = self.groups.get(id);
        match group.filter(|group| group.consumer.exists()) {
            None => Ok(()),
            Some(_) if member.is_none() && epoch < 0 => Ok(()),
            Some(group) => group.consumer.check_epoch(member.unwrap_or(""), epoch),
        }
    }

    /// What is committed for these partitions, or for all that the group knows, in the order of topics. With `stable`, a
    /// partition whose offset an open transaction may change is an error (F51).
    pub(crate) fn fetch_offsets(
        &self,
        id: &str,
        wanted: Option<Vec<(String, i32)>>,
        stable: bool,
    ) -> Vec<Fetched> {
        let group = self.groups.get(id);
        let wanted = wanted.unwrap_or_else(|| group.map(Group::known).unwrap_or_default());
        wanted
            .into_iter()
            .map(|key| {
                let found = match group {
                    Some(group) if stable && group.is_undecided(&key) => {
                        Err(ResponseError::UnstableOffsetCommit)
                    }
                    group => {
                        let kept = group.and_then(|group| group.offsets.get(&key));
                        Ok(kept.map(|kept| kept.committed.clone()))
                    }
                };
                let (topic, partition) = key;
                Fetched {
                    topic,
                    partition,
                    found,
                }
            })
            .collect()
    }
}

impl Group {
    fn known(&self) -> Vec<(String, i32)> {
        self.offsets.keys().cloned().collect()
    }

    pub(super) fn is_undecided(&self, key: &(String, i32)) -> bool {
        let mut open = self.undecided.values();
        open.any(|offsets| offsets.contains_key(key))
    }
}
