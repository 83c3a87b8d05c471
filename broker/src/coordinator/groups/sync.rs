//! SyncGroup: the leader says who gets what, and everybody is told when that is durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{
    Groups, GroupsOut, Record, Synced,
    group::{Group, State},
};
use crate::coordinator::{Now, Slot};

/// A request for an assignment; that of the leader has all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sync {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}

impl Groups {
    /// Answers when there is an assignment (F36).
    pub(crate) fn sync(&mut self, sync: Sync, now: Now, out: &mut GroupsOut, slot: Slot<Synced>) {
        let id = sync.group.clone();
        match self.groups.get_mut(&id) {
            Some(group) => group.sync(sync, now, out, slot),
            None if id.is_empty() => out.reply(slot, Synced::of(ResponseError::InvalidGroupId)),
            None => out.reply(slot, Synced::of(ResponseError::UnknownMemberId)),
        }
        self.rearm(&id);
    }
}

impl Group {
    fn sync(&mut self, sync: Sync, now: Now, out: &mut GroupsOut, slot: Slot<Synced>) {
        if let Err(error) = self.check_sync(&sync) {
            return out.reply(slot, Synced::of(error));
        }
        let is_leader = self.is_leader(&sync.member_id);
        let synced = Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            ..Synced::of(None)
        };
        let Some(member) = self.members.get_mut(&sync.member_id) else {
            return out.reply(slot, Synced::of(ResponseError::UnknownMemberId));
        };
        member.synced = true;
        member.touch(now.mono_ms);
        match self.state {
            State::Stable => {
                let assignment = member.assignment.clone();
                out.reply(
                    slot,
                    Synced {
                        assignment,
                        ..synced
                    },
                );
            }
            State::CompletingRebalance => {
                member.syncing = Some(slot);
                if is_leader {
                    self.assign(sync.assignments, &synced, now, out);
                }
            }
            State::Empty | State::PreparingRebalance => {
                out.reply(slot, Synced::of(ResponseError::RebalanceInProgress));
            }
        }
        if self.members.values().all(|member| member.synced) {
            self.sync_deadline = None;
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), ResponseError> {
        self.check_member(&sync.member_id, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// The record makes the group stable; everybody who waits is told when it is durable. A member that the leader has
    /// forgotten gets nothing.
    fn assign(
        &mut self,
        assignments: Vec<(String, Bytes)>,
        synced: &Synced,
        now: Now,
        out: &mut GroupsOut,
    ) {
        let assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        let assignment = |id: &str| assignments.get(id).cloned().unwrap_or_default();
        self.since_ms = now.wall_ms;
        out.record(Record::Group {
            group: self.id.clone(),
            value: Some(self.value(|member| assignment(&member.id))),
        });
        for member in self.members.values_mut() {
            if let Some(slot) = member.syncing.take() {
                member.touch(now.mono_ms);
                let assignment = assignment(&member.id);
                out.reply(
                    slot,
                    Synced {
                        assignment,
                        ..synced.clone()
                    },
                );
            }
        }
    }
}
