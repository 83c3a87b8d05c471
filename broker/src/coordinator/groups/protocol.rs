//! Which protocol a group's members speak. A group that nobody is in takes the other one when somebody comes who speaks
//! it; its offsets stay.

use kafka_protocol::error::ResponseError;

use super::{
    Done, Groups, GroupsOut, Record,
    consumer::{self, Beat, Catalog, ConsumerHeartbeat, ConsumerSettings, Refusal},
    group::Group,
};
use crate::coordinator::Now;

impl Groups {
    /// Answers a member of a consumer group.
    pub(crate) fn consumer_heartbeat(
        &mut self,
        beat: &ConsumerHeartbeat,
        catalog: &dyn Catalog,
        now: Now,
        out: &mut GroupsOut,
    ) -> Result<Beat, Refusal> {
        beat.check()?;
        let ours = &self.settings.consumer;
        let settings = ConsumerSettings {
            session_ms: beat.own_session_ms.unwrap_or(ours.session_ms),
            heartbeat_ms: beat.own_heartbeat_ms.unwrap_or(ours.heartbeat_ms),
            members_max: ours.members_max,
        };
        let group = self.group_of_consumers(beat, now)?;
        let mut records = Vec::new();
        if beat.leaves() {
            let answer = group.consumer.leave(beat, &mut records)?;
            records
                .into_iter()
                .for_each(|r| out.record(Record::Consumer(r)));
            return Ok(answer);
        }
        let recorded = group.recorded;
        let answer = group
            .consumer
            .beat(beat, catalog, now, &settings, &mut records);
        let member = answer.as_ref().ok().map(|answer| &answer.member_id);
        let due = member.and_then(|member| group.consumer.deadline_of(member));
        let sooner = due.is_some_and(|due| group.timer.is_none_or(|timer| due < timer));
        if sooner || group.is_blank() {
            self.rearm(&beat.group);
        }
        let answer = answer?;
        if recorded {
            out.record(Record::Group {
                group: beat.group.clone(),
                value: None,
            });
        }
        records
            .into_iter()
            .for_each(|r| out.record(Record::Consumer(r)));
        Ok(answer)
    }

    /// The group, if it may be one of consumers.
    fn group_of_consumers(
        &mut self,
        beat: &ConsumerHeartbeat,
        now: Now,
    ) -> Result<&mut Group, Refusal> {
        let not_found = || {
            let error = ResponseError::GroupIdNotFound;
            let message = format!("there is no consumer group {:.200}", beat.group);
            Refusal { error, message }
        };
        let found = self.groups.get(&beat.group);
        let is_classic = found.is_some_and(|group| !group.members.is_empty());
        let is_there = found.is_some_and(|group| group.consumer.exists());
        if is_classic || (beat.epoch != 0 && !is_there) {
            return Err(not_found());
        }
        self.group_or_new(&beat.group, now)
            .map_err(|error| Refusal {
                error,
                message: "there are too many groups".into(),
            })
    }

    /// Lets a group without consumers become a classic one, which somebody wants to join.
    pub(super) fn become_classic(&mut self, id: &str, out: &mut GroupsOut) -> Done {
        let group = self.groups.get_mut(id);
        let Some(group) = group.filter(|group| group.consumer.exists()) else {
            return Ok(());
        };
        if !group.consumer.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let records = group.consumer.tombstones(id);
        records
            .into_iter()
            .for_each(|r| out.record(Record::Consumer(r)));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn consumers(&self, id: &str) -> &consumer::ConsumerGroup {
        &self.groups[id].consumer
    }

    pub(super) fn replay_consumer(&mut self, record: consumer::Record) {
        let id = record.group;
        let group = self.groups.entry(id.clone());
        let group = group.or_insert_with(|| Group::new(&id, -1));
        group.consumer.replay(record.change);
        if group.is_blank() {
            self.groups.remove(&id);
        }
    }
}
