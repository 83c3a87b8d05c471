//! Consumer groups of the new protocol (KIP-848): the server computes who gets what, and each member walks to it with
//! its heartbeats.
//!
//! # Epochs
//! `target epoch <= group epoch`, and a member's epoch is at most the target's. The group's grows when a member comes,
//! goes or reads other topics, and when its topics change; the next heartbeat of any member then computes a new target.
//! A member moves to the target's epoch when it has given back what it is not to have.
//!
//! # What is stored
//! All of it but the time: after a load every member has a whole session to show itself. The records of one operation
//! may be cut in two by a crash; so the group's epoch is written first and the target's after the target, and a target
//! that is half written is computed anew.
//!
//! A heartbeat is answered by [`heartbeat`]; how a member walks is in [`member`], who gets what in [`assignor`].

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;

use self::member::{Current, Member, MemberState, Subscription};
pub(crate) use self::{
    describe::{DescribedConsumer, DescribedConsumers},
    heartbeat::{Beat, ConsumerHeartbeat},
    partitions::Partitions,
    record::{Change, Epoch, Record},
    subscription::{Catalog, Resolved},
};
use super::Done;
use crate::coordinator::Now;

mod assignor;
mod describe;
mod heartbeat;
mod member;
mod partitions;
mod record;
mod subscription;
#[cfg(test)]
mod tests;

/// What whoever runs a broker may choose. Times are milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConsumerSettings {
    /// How long a member may be silent.
    pub(crate) session_ms: u64,
    /// How often a member is asked to send.
    pub(crate) heartbeat_ms: i32,
    /// Most members of a group.
    pub(crate) members_max: usize,
}

/// Why a member is not answered, in words for whoever looks into it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

impl Refusal {
    fn of(error: ResponseError, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { error, message }
    }

    fn invalid(message: &str) -> Self {
        Self::of(ResponseError::InvalidRequest, message)
    }
}

/// When a member that has to give partitions back is not waited for any more, at the epoch that it has.
#[derive(Clone, Copy, Debug)]
struct Patience {
    until: u64,
    epoch: i32,
}

/// A consumer group. One with epoch 0 is none.
#[derive(Debug, Default)]
pub(crate) struct ConsumerGroup {
    epoch: Epoch,
    target_epoch: i32,
    members: BTreeMap<String, Member>,
    /// What members are to have.
    target: BTreeMap<String, Partitions>,
    regexes: BTreeMap<String, Resolved>,
    /// When members' sessions end. A member that has just come is here before its records are.
    sessions: BTreeMap<String, u64>,
    patience: BTreeMap<String, Patience>,
    /// The version of the topics that the group's epoch is known to be right for.
    seen: Option<u64>,
}

impl ConsumerGroup {
    /// Whether there is one.
    pub(super) fn exists(&self) -> bool {
        self.epoch.epoch > 0
    }

    /// Whether nothing is known of it, not even that somebody is about to be in it.
    pub(super) fn is_blank(&self) -> bool {
        !self.exists() && self.members.is_empty() && self.sessions.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members it has.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Kafka's word for where it is.
    pub(super) fn state(&self) -> &'static str {
        let mut members = self.members.values();
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch.epoch > self.target_epoch {
            "Assigning"
        } else if members.all(|member| member.current.is_at(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// The topics that members read.
    pub(super) fn topics(&self) -> BTreeSet<String> {
        let members = self.members.values();
        let names =
            members.flat_map(|member| subscription::names(&member.subscription, &self.regexes));
        names.map(str::to_owned).collect()
    }

    /// Whether this is a member at this epoch: 25, or 113.
    pub(super) fn check_epoch(&self, member: &str, epoch: i32) -> Done {
        let member = self.members.get(member);
        match member.ok_or(ResponseError::UnknownMemberId)? {
            member if member.current.epoch == epoch => Ok(()),
            _ => Err(ResponseError::StaleMemberEpoch),
        }
    }

    fn static_member(&self, instance: &str) -> Option<(&String, &Member)> {
        let mut members = self.members.iter();
        members.find(|(_, member)| member.subscription.instance.as_deref() == Some(instance))
    }

    /// Records that delete it.
    pub(super) fn tombstones(&self, id: &str) -> Vec<Record> {
        let members = self.members.keys().chain(self.target.keys());
        let mut members: Vec<&String> = members.collect();
        members.sort();
        members.dedup();
        let of_members = members.into_iter().flat_map(|member| forget(member));
        let regexes = self.regexes.keys();
        let regexes = regexes.map(|regex| Change::Regex(regex.clone(), None));
        let epochs = [Change::TargetEpoch(None), Change::Epoch(None)];
        let epochs = epochs.into_iter().filter(|_| self.exists());
        let changes = of_members.chain(regexes).chain(epochs);
        changes.map(|change| of_group(id, change)).collect()
    }

    /// Takes a record in.
    pub(super) fn replay(&mut self, change: Change) {
        match change {
            Change::Epoch(Some(epoch)) => self.epoch = epoch,
            Change::Epoch(None) => *self = Self::default(),
            Change::TargetEpoch(epoch) => self.target_epoch = epoch.unwrap_or(0),
            Change::Member(id, Some(subscription)) => {
                self.members.entry(id).or_default().subscription = subscription;
            }
            Change::Member(id, None) => {
                self.members.remove(&id);
                self.sessions.remove(&id);
                self.patience.remove(&id);
            }
            Change::Target(id, Some(partitions)) => {
                self.target.insert(id, partitions);
            }
            Change::Target(id, None) => {
                self.target.remove(&id);
            }
            Change::Current(id, Some(current)) => {
                self.members.entry(id).or_default().current = current;
            }
            Change::Current(id, None) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.current = Current::default();
                }
            }
            Change::Regex(regex, Some(resolved)) => {
                self.regexes.insert(regex, resolved);
            }
            Change::Regex(regex, None) => {
                self.regexes.remove(&regex);
            }
        }
    }

    /// Every member begins a session, and has all the time there is to give partitions back.
    pub(super) fn loaded(&mut self, now: Now, settings: &ConsumerSettings) {
        let members: Vec<(String, i32, Current)> = self
            .members
            .iter()
            .map(|(id, m)| (id.clone(), m.subscription.rebalance_ms, m.current.clone()))
            .collect();
        for (id, rebalance_ms, current) in members {
            self.touch(&id, now, settings);
            self.wait_for(&id, &current, rebalance_ms, now);
        }
    }

    fn touch(&mut self, member: &str, now: Now, settings: &ConsumerSettings) {
        let until = now.mono_ms.saturating_add(settings.session_ms.max(1));
        self.sessions.insert(member.to_owned(), until);
    }

    /// Sees to it that a member with partitions to give back is waited for, as long as it has said, and no other.
    fn wait_for(&mut self, member: &str, current: &Current, rebalance_ms: i32, now: Now) {
        let epoch = current.epoch;
        if current.state != MemberState::Unrevoked || epoch == member::AWAY {
            self.patience.remove(member);
        } else if self.patience.get(member).is_none_or(|p| p.epoch != epoch) {
            let wait_ms = u64::try_from(rebalance_ms).unwrap_or(0).max(1);
            let until = now.mono_ms.saturating_add(wait_ms);
            self.patience
                .insert(member.to_owned(), Patience { until, epoch });
        }
    }

    /// When something is to be done about a member, unless it sends again.
    pub(super) fn deadline_of(&self, member: &str) -> Option<u64> {
        let session = self.sessions.get(member).copied();
        let patience = self.patience.get(member).map(|patience| patience.until);
        session.into_iter().chain(patience).min()
    }

    /// When something is to be done that nobody asks for.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let sessions = self.sessions.values().copied();
        let patience = self.patience.values().map(|patience| patience.until);
        sessions.chain(patience).min()
    }

    /// Takes out who has been silent, or has kept what it had to give back, for too long.
    pub(super) fn expire(&mut self, id: &str, now: Now) -> Vec<Record> {
        let is_due = |until: u64| until <= now.mono_ms;
        let silent = self.sessions.iter().filter(|(_, until)| is_due(**until));
        let slow = self.patience.iter().filter(|(_, p)| is_due(p.until));
        let due = silent.map(|(member, _)| member);
        let mut due: Vec<String> = due.chain(slow.map(|(member, _)| member)).cloned().collect();
        due.sort();
        due.dedup();
        for member in &due {
            // Of one that is gone already, or whose records were refused, nothing else is left.
            self.sessions.remove(member);
            self.patience.remove(member);
        }
        due.retain(|member| self.members.contains_key(member));
        if due.is_empty() {
            return Vec::new();
        }
        tracing::info!(group = id, members = ?due, "members of a consumer group are silent or too slow");
        self.without(id, &due)
    }

    /// Records that take members out. The next heartbeat of another one finds a new assignment.
    fn without(&self, id: &str, leaving: &[String]) -> Vec<Record> {
        let epoch = Epoch {
            epoch: self.epoch.epoch.saturating_add(1),
            ..self.epoch
        };
        let is_read = |regex: &String| {
            let mut members = self.members.iter();
            members.any(|(id, member)| {
                !leaving.contains(id) && member.subscription.regex.as_ref() == Some(regex)
            })
        };
        let unread = self.regexes.keys().filter(|regex| !is_read(regex));
        let unread = unread.map(|regex| Change::Regex(regex.clone(), None));
        let changes = [Change::Epoch(Some(epoch))].into_iter();
        let changes = changes.chain(leaving.iter().flat_map(|member| forget(member)));
        let changes = changes.chain(unread);
        changes.map(|change| of_group(id, change)).collect()
    }
}

/// All that there is of a member.
fn forget(member: &str) -> [Change; 3] {
    [
        Change::Current(member.to_owned(), None),
        Change::Target(member.to_owned(), None),
        Change::Member(member.to_owned(), None),
    ]
}

fn of_group(id: &str, change: Change) -> Record {
    let group = id.to_owned();
    Record { group, change }
}
