//! A group and its members: what they are, who is who, and what may be known of them without changing them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{
    Joined, JoinedMember, Synced,
    consumer::ConsumerGroup,
    record::{Committed, GroupValue, MemberValue, subscribed},
};
use crate::coordinator::Slot;

/// Where a classic group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum State {
    /// Nobody is in it.
    #[default]
    Empty,
    /// Members are to join again.
    PreparingRebalance,
    /// Everybody has joined, the leader is to say who gets what.
    CompletingRebalance,
    Stable,
}

impl State {
    /// Kafka's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// An offset of a group, and when it came to be known, counted in records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub(super) committed: Committed,
    pub(super) position: u64,
}

/// Offsets by topic and partition.
pub(super) type Offsets = BTreeMap<(String, i32), Kept>;

/// A group. Offsets, generation, protocol and assignments are what records say; the rest does not outlive the process.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids that were given out and have not joined yet, and until when they may.
    pub(super) pending: BTreeMap<String, u64>,
    /// Since when it is where it is, by the wall clock.
    pub(super) since_ms: i64,
    /// Whether the log has a record of it, besides offsets.
    pub(super) recorded: bool,
    /// When joining ends although not everybody has joined.
    pub(super) join_deadline: Option<u64>,
    /// In the first rebalance of an empty group: how much longer joining may be drawn out.
    pub(super) initial_left_ms: Option<u64>,
    /// Whether somebody new has come since that was asked last.
    pub(super) new_member: bool,
    /// When members that do not fetch their assignment are removed.
    pub(super) sync_deadline: Option<u64>,
    /// When [`super::Groups`] looks after it.
    pub(super) timer: Option<u64>,
    pub(super) offsets: Offsets,
    /// Of open transactions, by producer id.
    pub(super) undecided: BTreeMap<i64, Offsets>,
    /// Its members, if they are of the new protocol; then it is empty as a classic group.
    pub(super) consumer: ConsumerGroup,
}

/// Most protocols of a member: clients have a handful, and each is compared with those of all others.
const PROTOCOLS_MAX: usize = 100;

fn names(protocols: &[(String, Bytes)]) -> impl Iterator<Item = &str> {
    protocols.iter().map(|(name, _)| name.as_str())
}

/// A member of a classic group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_ms: u64,
    pub(super) rebalance_ms: u64,
    /// What it supports, best first.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    pub(super) joining: Option<Slot<Joined>>,
    pub(super) syncing: Option<Slot<Synced>>,
    /// Whether it has asked for its assignment in this generation.
    pub(super) synced: bool,
    /// It has not been in a generation yet.
    pub(super) is_new: bool,
    /// When its session ends.
    pub(super) deadline: u64,
}

impl Member {
    /// What it says for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    /// Its session begins again.
    pub(super) fn touch(&mut self, now: u64) {
        self.deadline = now.saturating_add(self.session_ms.max(1));
    }
}

impl Group {
    pub(super) fn new(id: &str, now_ms: i64) -> Self {
        Self {
            id: id.to_owned(),
            since_ms: now_ms,
            ..Self::default()
        }
    }

    /// Whether nothing is known of it: it need not be kept.
    pub(super) fn is_blank(&self) -> bool {
        !self.recorded
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.undecided.is_empty()
            && self.state == State::Empty
            && self.consumer.is_blank()
    }

    /// Whether this is a member: 25, or 82 for one whose place another has taken.
    pub(super) fn check_member(
        &self,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(), ResponseError> {
        match instance {
            Some(instance) => match self.static_member(instance) {
                None => Err(ResponseError::UnknownMemberId),
                Some(member) if member.id != id => Err(ResponseError::FencedInstanceId),
                Some(_) => Ok(()),
            },
            None if self.members.contains_key(id) => Ok(()),
            None => Err(ResponseError::UnknownMemberId),
        }
    }

    pub(super) fn static_member(&self, instance: &str) -> Option<&Member> {
        let mut members = self.members.values();
        members.find(|member| member.instance.as_deref() == Some(instance))
    }

    pub(super) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// Those of some protocols that all members support.
    fn common<'a>(&'a self, protocols: &'a [(String, Bytes)]) -> BTreeSet<&'a str> {
        let mut common: BTreeSet<&str> = names(protocols).collect();
        for member in self.members.values() {
            let known: BTreeSet<&str> = names(&member.protocols).collect();
            common.retain(|name| known.contains(name));
            if common.is_empty() {
                break;
            }
        }
        common
    }

    /// Whether a member with these protocols can be in it.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() || protocols.len() > PROTOCOLS_MAX {
            return false;
        }
        if self.state == State::Empty {
            return true;
        }
        self.protocol_type.as_deref() == Some(protocol_type) && !self.common(protocols).is_empty()
    }

    /// Each member votes for what it likes best of what all support. A tie goes to what the leader likes better.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let common = self.common(&first.protocols);
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(name) = names(&member.protocols).find(|name| common.contains(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let by_leader = leader.into_iter().flat_map(|leader| &leader.protocols);
        let by_leader = by_leader.map(|(name, _)| name.as_str());
        by_leader
            .chain(votes.keys().copied())
            .find(|name| votes.get(name) == Some(most))
            .map(str::to_owned)
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// The longest that a member may take to join again.
    pub(super) fn rebalance_ms(&self) -> u64 {
        let times = self.members.values().map(|member| member.rebalance_ms);
        times.max().unwrap_or(0)
    }

    /// All members with what they say for the protocol: for the leader.
    pub(super) fn for_leader(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let members = self.members.values();
        members
            .map(|member| JoinedMember {
                id: member.id.clone(),
                instance: member.instance.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }

    /// What a member is told that is in this generation.
    pub(super) fn joined(&self, id: &str) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            members: if self.is_leader(id) {
                self.for_leader()
            } else {
                Vec::new()
            },
            ..Joined::of(None, id)
        }
    }

    /// Its record with these assignments.
    pub(super) fn value(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupValue {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let millis = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
        let members = self.members.values();
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: members
                .map(|member| MemberValue {
                    id: member.id.clone(),
                    instance: member.instance.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_ms: millis(member.rebalance_ms),
                    session_ms: millis(member.session_ms),
                    subscription: member.metadata(protocol),
                    assignment: assignment(member),
                })
                .collect(),
        }
    }

    /// Takes a record in. Members that are here go on as they are, with the assignment of the record.
    pub(super) fn replay(&mut self, value: GroupValue) {
        self.recorded = true;
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type).filter(|text| !text.is_empty());
        self.protocol = value.protocol;
        self.leader = value.leader;
        self.since_ms = value.since_ms;
        let stays: BTreeSet<&String> = value.members.iter().map(|member| &member.id).collect();
        self.members.retain(|id, _| stays.contains(id));
        self.state = if value.members.is_empty() {
            State::Empty
        } else {
            State::Stable
        };
        let protocol = self.protocol.clone().unwrap_or_default();
        for value in value.members {
            if let Some(member) = self.members.get_mut(&value.id) {
                member.assignment = value.assignment;
                continue;
            }
            let member = Member {
                id: value.id.clone(),
                instance: value.instance,
                client_id: value.client_id,
                client_host: value.client_host,
                session_ms: u64::try_from(value.session_ms).unwrap_or(0),
                rebalance_ms: u64::try_from(value.rebalance_ms).unwrap_or(0),
                protocols: vec![(protocol.clone(), value.subscription)],
                assignment: value.assignment,
                joining: None,
                syncing: None,
                synced: true,
                is_new: false,
                deadline: 0,
            };
            self.members.insert(value.id, member);
        }
    }

    /// The topics that members of a group of consumers subscribe to; `None` if that cannot be known.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<String>> {
        let protocol = self.protocol.as_deref();
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed(&member.metadata(protocol?))?);
        }
        Some(topics)
    }

    /// When something is to be done that nobody asks for.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let sessions = self.members.values().map(|member| member.deadline);
        let pending = self.pending.values().copied();
        let phases = self.join_deadline.into_iter().chain(self.sync_deadline);
        let consumers = self.consumer.next_deadline();
        sessions.chain(pending).chain(phases).chain(consumers).min()
    }
}
