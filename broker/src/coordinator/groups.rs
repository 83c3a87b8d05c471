//! The group coordinator: who is in which group, what each member gets, and how far each group has read.
//!
//! One machine per partition of `__consumer_offsets`. Records are a group between two rebalances and a committed offset;
//! who is joining, and whose session ends when, is in memory alone: after a load every member has a whole session to show
//! itself. Each file beside this one is one concern.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use self::{
    consumer::ConsumerSettings,
    group::{Group, Kept},
};
use super::{Coordinator, Machine, Now, Out, Stored, StoredError};
use crate::{config::Coordinator as Config, topics::Topics};

mod commit;
pub(crate) mod consumer;
mod describe;
mod expire;
mod fetch;
mod group;
mod heartbeat;
mod join;
mod leave;
mod protocol;
mod rebalance;
mod record;
mod remove;
mod sync;
#[cfg(test)]
mod tests;

pub(crate) use commit::{Commit, CommitIn};
pub(crate) use describe::Described;
pub(crate) use fetch::Fetched;
pub(crate) use heartbeat::Heartbeat;
pub(crate) use join::Join;
pub(crate) use leave::Leaver;
pub(crate) use record::{Committed, Record};
pub(crate) use sync::Sync;

/// What whoever runs a broker may choose. Times are milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settings {
    /// How long the first rebalance of an empty group waits for more members.
    pub(crate) initial_rebalance_delay_ms: u64,
    /// Most members of a group.
    pub(crate) members_max: usize,
    /// Most groups of one partition.
    pub(crate) groups_max: usize,
    pub(crate) session_min_ms: u64,
    pub(crate) session_max_ms: u64,
    /// How long an offset is kept after its group was last used.
    pub(crate) retention_ms: i64,
    /// How often offsets are looked through for old ones.
    pub(crate) retention_check_ms: u64,
    pub(crate) consumer: ConsumerSettings,
}

/// What a member is told when it has joined, or why it has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Joined {
    pub(crate) error: Option<ResponseError>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    /// A leader that has nothing to assign.
    pub(crate) skip_assignment: bool,
    pub(crate) member_id: String,
    /// For the leader alone.
    pub(crate) members: Vec<JoinedMember>,
}

/// A member, for the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

impl Joined {
    pub(crate) fn of(error: impl Into<Option<ResponseError>>, member_id: &str) -> Self {
        Self {
            error: error.into(),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

/// What a member gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Synced {
    pub(crate) error: Option<ResponseError>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn of(error: impl Into<Option<ResponseError>>) -> Self {
        Self {
            error: error.into(),
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        }
    }
}

/// Whether it was done.
pub(crate) type Done = Result<(), ResponseError>;

/// What an operation of a group writes into.
pub(crate) type GroupsOut = Out<Record>;

/// The groups of one partition.
#[derive(Debug)]
pub(crate) struct Groups {
    settings: Arc<Settings>,
    groups: BTreeMap<String, Group>,
    /// Groups that have offsets in an open transaction, by producer id.
    open: BTreeMap<i64, BTreeSet<String>>,
    /// When which group is looked after.
    timers: BTreeSet<(u64, String)>,
    /// When offsets are looked through next.
    retention_at: u64,
    /// How many records there have been: the order of the log.
    position: u64,
    /// Whether the whole log has been taken in.
    is_loaded: bool,
}

/// The topic of the state.
pub(crate) const TOPIC: &str = "__consumer_offsets";

impl Groups {
    /// The coordinator of all groups.
    pub(crate) fn coordinator(topics: Arc<Topics>, config: &Config) -> Coordinator<Self> {
        let settings = Arc::new(Settings {
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            members_max: config.group_members_max,
            groups_max: config.groups_per_partition_max,
            session_min_ms: config.group_session_min_ms,
            session_max_ms: config.group_session_max_ms,
            retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
            retention_check_ms: config.offsets_retention_check_interval_ms,
            consumer: ConsumerSettings {
                session_ms: config.consumer_session_timeout_ms,
                heartbeat_ms: config.consumer_heartbeat_interval_ms,
                members_max: config.group_members_max,
            },
        });
        let make = move |_, _| Self::new(settings.clone());
        Coordinator::new(topics, TOPIC, config.partitions, make)
    }

    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            open: BTreeMap::new(),
            timers: BTreeSet::new(),
            retention_at: u64::MAX,
            position: 0,
            is_loaded: false,
        }
    }

    /// A group, made if there is none and there is room.
    fn group_or_new(&mut self, id: &str, now: Now) -> Result<&mut Group, ResponseError> {
        if !self.groups.contains_key(id) && self.groups.len() >= self.settings.groups_max {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let group = self.groups.entry(id.to_owned());
        Ok(group.or_insert_with(|| Group::new(id, now.wall_ms)))
    }

    /// Sees to it that a group is looked after when its next deadline is due, and forgotten when it is blank.
    fn rearm(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let next = group.next_deadline();
        if group.timer != next {
            if let Some(timer) = group.timer.take() {
                self.timers.remove(&(timer, id.to_owned()));
            }
            group.timer = next;
            self.timers.extend(next.map(|next| (next, id.to_owned())));
        }
        if group.is_blank() {
            self.groups.remove(id);
        }
    }

    fn replay_offset(
        &mut self,
        (id, topic, partition): (String, String, i32),
        value: Option<Committed>,
        producer_id: Option<i64>,
    ) {
        self.position += 1;
        let position = self.position;
        let group = self.groups.entry(id.clone());
        let group = group.or_insert_with(|| Group::new(&id, -1));
        let key = (topic, partition);
        match (value, producer_id) {
            (Some(committed), None) => {
                group.offsets.insert(
                    key,
                    Kept {
                        committed,
                        position,
                    },
                );
            }
            (Some(committed), Some(producer_id)) => {
                let undecided = group.undecided.entry(producer_id).or_default();
                undecided.insert(
                    key,
                    Kept {
                        committed,
                        position,
                    },
                );
                self.open.entry(producer_id).or_default().insert(id);
                return;
            }
            (None, _) => {
                group.offsets.remove(&key);
                for undecided in group.undecided.values_mut() {
                    undecided.remove(&key);
                }
                group.undecided.retain(|_, offsets| !offsets.is_empty());
            }
        }
        if group.is_blank() {
            self.groups.remove(&id);
        }
    }
}

impl Machine for Groups {
    type Record = Record;

    fn encode(record: &Record) -> Result<Stored, StoredError> {
        record.encode()
    }

    fn decode(stored: &Stored) -> Result<Option<Record>, StoredError> {
        Record::decode(stored)
    }

    fn replay(&mut self, record: Record, producer_id: Option<i64>) {
        match record {
            Record::Offset {
                group,
                topic,
                partition,
                value,
            } => self.replay_offset((group, topic, partition), value, producer_id),
            Record::Group {
                group: id,
                value: Some(value),
            } => {
                let group = self.groups.entry(id.clone());
                let group = group.or_insert_with(|| Group::new(&id, -1));
                if !self.is_loaded {
                    // Nobody is here: members are as their last record says, not as their first one did.
                    group.members.clear();
                }
                group.replay(value);
            }
            Record::Group {
                group: id,
                value: None,
            } => {
                // Its offsets have records of their own.
                if let Some(group) = self.groups.get_mut(&id) {
                    let (offsets, undecided) = (
                        std::mem::take(&mut group.offsets),
                        std::mem::take(&mut group.undecided),
                    );
                    let consumer = std::mem::take(&mut group.consumer);
                    let timer = group.timer;
                    *group = Group {
                        offsets,
                        undecided,
                        consumer,
                        timer,
                        ..Group::new(&id, -1)
                    };
                    self.rearm(&id);
                }
            }
            Record::Consumer(record) => self.replay_consumer(record),
        }
    }

    fn refused(&mut self, records: Vec<Record>, now: Now, out: &mut GroupsOut) {
        let ids = records.into_iter().filter_map(|record| match record {
            Record::Group { group, .. } => Some(group),
            _ => None,
        });
        let settings = self.settings.clone();
        for id in ids.collect::<BTreeSet<String>>() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.refused(now, &settings, out);
            }
            self.rearm(&id);
        }
    }

    fn replay_end(&mut self, producer_id: i64, commit: bool) {
        for id in self.open.remove(&producer_id).unwrap_or_default() {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let decided = group.undecided.remove(&producer_id).unwrap_or_default();
            for (key, kept) in decided.into_iter().filter(|_| commit) {
                // The later in the log wins (F43).
                let newer = group.offsets.get(&key);
                if newer.is_none_or(|newer| newer.position < kept.position) {
                    group.offsets.insert(key, kept);
                }
            }
            if group.is_blank() {
                self.groups.remove(&id);
            }
        }
    }

    fn loaded(&mut self, now: Now, _: &mut GroupsOut) {
        self.is_loaded = true;
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            if let Some(group) = self.groups.get_mut(&id) {
                let members = group.members.values_mut();
                members.for_each(|member| member.touch(now.mono_ms));
                group.consumer.loaded(now, &self.settings.consumer);
            }
            self.rearm(&id);
        }
        self.retention_at = now.mono_ms.saturating_add(self.settings.retention_check_ms);
    }

    fn deadline(&self) -> Option<u64> {
        let first = self.timers.first().map(|(at, _)| *at);
        Some(first.map_or(self.retention_at, |first| first.min(self.retention_at)))
    }

    fn expire(&mut self, now: Now, out: &mut GroupsOut) {
        while let Some((at, id)) = self.timers.first().cloned()
            && at <= now.mono_ms
        {
            self.timers.remove(&(at, id.clone()));
            if let Some(group) = self.groups.get_mut(&id) {
                group.timer = None;
                group.expire(now, &self.settings, out);
            }
            self.rearm(&id);
        }
        if self.retention_at <= now.mono_ms {
            self.expire_offsets(now, out);
        }
    }
}
