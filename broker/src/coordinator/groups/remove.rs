//! DeleteGroups, OffsetDelete and deleted topics: what is not needed any more (F42).

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;

use super::{Done, Groups, GroupsOut, Record, group::State};

impl Groups {
    /// Deletes a group that nobody is in, with its offsets.
    pub(crate) fn delete(&mut self, id: &str, out: &mut GroupsOut) -> Done {
        let Some(group) = self.groups.get(id) else {
            return Err(ResponseError::GroupIdNotFound);
        };
        if group.state != State::Empty || !group.consumer.is_empty() {
            return Err(ResponseError::NonEmptyGroup);
        }
        let undecided = group.undecided.values().flat_map(|offsets| offsets.keys());
        for (topic, partition) in group.offsets.keys().chain(undecided) {
            out.record(Record::Offset {
                group: id.to_owned(),
                topic: topic.clone(),
                partition: *partition,
                value: None,
            });
        }
        let consumers = group.consumer.tombstones(id).into_iter();
        consumers.for_each(|record| out.record(Record::Consumer(record)));
        out.record(Record::Group {
            group: id.to_owned(),
            value: None,
        });
        Ok(())
    }

    /// Deletes offsets of a group; the outer error is for all of them. What is subscribed to stays.
    pub(crate) fn delete_offsets(
        &mut self,
        id: &str,
        wanted: &[(String, i32)],
        out: &mut GroupsOut,
    ) -> Result<Vec<Done>, ResponseError> {
        let group = self.groups.get(id);
        let group = group.ok_or(ResponseError::GroupIdNotFound)?;
        let subscribed = match group.state {
            _ if !group.consumer.is_empty() => group.consumer.topics(),
            State::Empty => Default::default(),
            // Of others than consumers it is not known what they read.
            _ => group.subscribed().ok_or(ResponseError::NonEmptyGroup)?,
        };
        let answers = wanted.iter().map(|key| {
            if subscribed.contains(&key.0) {
                return Err(ResponseError::GroupSubscribedToTopic);
            }
            if group.offsets.contains_key(key) || group.is_undecided(key) {
                out.record(Record::Offset {
                    group: id.to_owned(),
                    topic: key.0.clone(),
                    partition: key.1,
                    value: None,
                });
            }
            Ok(())
        });
        Ok(answers.collect())
    }

    /// Forgets what every group has read of a topic that is gone: one of the same name begins anew (F9).
    pub(crate) fn forget_topic(&mut self, topic: &str, out: &mut GroupsOut) {
        for group in self.groups.values() {
            let undecided = group.undecided.values().flat_map(|offsets| offsets.keys());
            let known: BTreeSet<_> = group.offsets.keys().chain(undecided).collect();
            for (name, partition) in known.into_iter().filter(|(name, _)| name == topic) {
                out.record(Record::Offset {
                    group: group.id.clone(),
                    topic: name.clone(),
                    partition: *partition,
                    value: None,
                });
            }
        }
    }
}
