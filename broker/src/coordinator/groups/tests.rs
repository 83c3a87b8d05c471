//! Groups, step by step: what each request does and answers, without a log or a clock.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::*;
use crate::coordinator::{Pending, slot};

mod committing;
mod joining;
mod model;
mod refusing;
mod removing;

pub(super) const SESSION_MS: u64 = 10_000;
pub(super) const REBALANCE_MS: u64 = 60_000;
pub(super) const DELAY_MS: u64 = 3_000;

pub(super) fn settings() -> Settings {
    Settings {
        initial_rebalance_delay_ms: DELAY_MS,
        members_max: 4,
        groups_max: 5,
        session_min_ms: 6_000,
        session_max_ms: 1_800_000,
        retention_ms: 1_000_000,
        retention_check_ms: 600_000,
        consumer: ConsumerSettings {
            session_ms: 45_000,
            heartbeat_ms: 5_000,
            members_max: 4,
        },
    }
}

/// Groups, the records that they have written, and the time.
pub(super) struct World {
    pub(super) groups: Groups,
    pub(super) settings: Arc<Settings>,
    /// As the log has them: records of transactions with their producer, and ends of transactions.
    pub(super) log: Vec<Entry>,
    pub(super) now: Now,
    next_id: u32,
    /// Whether the log refuses what is written.
    pub(super) refuses: bool,
}

pub(super) enum Entry {
    Record(Stored, Option<i64>),
    End(i64, bool),
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let mut world = Self {
            groups: Groups::new(settings.clone()),
            settings,
            log: Vec::new(),
            now: Now {
                wall_ms: 1_000_000,
                mono_ms: 0,
            },
            next_id: 0,
            refuses: false,
        };
        world.run(|groups, now, out| groups.loaded(now, out));
        world
    }

    /// Runs an operation as a shard does.
    pub(super) fn run<T>(
        &mut self,
        operation: impl FnOnce(&mut Groups, Now, &mut GroupsOut) -> T,
    ) -> T {
        let mut out = GroupsOut::default();
        let answer = operation(&mut self.groups, self.now, &mut out);
        let producer_id = out.transaction.as_ref().map(|t| t.producer_id);
        let (records, when) = (out.records, out.when);
        if self.refuses && !records.is_empty() {
            let error = ResponseError::UnknownServerError;
            when.into_iter().for_each(|when| when(Err(error)));
            let mut out = GroupsOut::default();
            self.groups.refused(records, self.now, &mut out);
            assert!(out.records.is_empty());
            out.when.into_iter().for_each(|when| when(Ok(())));
            return answer;
        }
        for record in records {
            let stored = Groups::encode(&record).unwrap();
            self.log.push(Entry::Record(stored, producer_id));
            self.groups.replay(record, producer_id);
        }
        for when in when {
            when(Ok(()));
        }
        answer
    }

    pub(super) fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        self.log.push(Entry::End(producer_id, commit));
        self.groups.replay_end(producer_id, commit);
    }

    /// The process ends and the log is replayed.
    pub(super) fn crash(&mut self) {
        self.groups = Groups::new(self.settings.clone());
        for entry in &self.log {
            match entry {
                Entry::Record(stored, producer_id) => {
                    let record = Groups::decode(stored).unwrap().unwrap();
                    self.groups.replay(record, *producer_id);
                }
                Entry::End(producer_id, commit) => self.groups.replay_end(*producer_id, *commit),
            }
        }
        self.run(|groups, now, out| groups.loaded(now, out));
    }

    /// Time goes by, and what is due on the way is done.
    pub(super) fn wait(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        loop {
            let due = self.groups.deadline().filter(|due| *due <= end);
            let at = due.unwrap_or(end).max(self.now.mono_ms);
            self.now.wall_ms += (at - self.now.mono_ms) as i64;
            self.now.mono_ms = at;
            if due.is_none() {
                return;
            }
            self.run(|groups, now, out| groups.expire(now, out));
        }
    }

    pub(super) fn join(&mut self, join: Join) -> Pending<Joined> {
        let (slot, pending) = slot();
        self.run(|groups, now, out| groups.join(join, now, out, slot));
        pending
    }

    /// A request to join the group "g" by somebody who supports "range" and is known as `id`.
    pub(super) fn asks(&mut self, id: &str) -> Join {
        self.next_id += 1;
        Join {
            group: "g".into(),
            member_id: id.into(),
            instance: None,
            fresh_id: format!("m{}", self.next_id),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_ms: SESSION_MS as i32,
            rebalance_ms: REBALANCE_MS as i32,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription("t"))],
            needs_id: false,
            can_skip: true,
        }
    }

    pub(super) fn sync(
        &mut self,
        joined: &Joined,
        assignments: &[(&str, &'static [u8])],
    ) -> Pending<Synced> {
        let assignments = assignments.iter();
        let sync = Sync {
            group: "g".into(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            assignments: assignments
                .map(|(id, bytes)| (id.to_string(), Bytes::from_static(bytes)))
                .collect(),
            ..Sync::default()
        };
        self.ask_sync(sync)
    }

    pub(super) fn ask_sync(&mut self, sync: Sync) -> Pending<Synced> {
        let (slot, pending) = slot();
        self.run(|groups, now, out| groups.sync(sync, now, out, slot));
        pending
    }

    pub(super) fn beat(&mut self, joined: &Joined) -> Done {
        let beat = Heartbeat {
            group: "g".into(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            instance: None,
        };
        self.run(|groups, now, _| groups.heartbeat(&beat, now))
    }

    pub(super) fn leave(&mut self, id: &str, instance: Option<&str>) -> Done {
        let leaver = Leaver {
            member_id: id.into(),
            instance: instance.map(str::to_owned),
        };
        let answers = self.run(|groups, now, out| groups.leave("g", &[leaver], now, out));
        answers[0]
    }

    pub(super) fn state(&self) -> &'static str {
        self.groups
            .describe("g")
            .map_or("Dead", |group| group.state)
    }

    /// A group of one that is stable.
    pub(super) fn one(&mut self) -> Joined {
        let join = self.asks("");
        self.stable(join)
    }

    /// The first member comes and gets everything.
    pub(super) fn stable(&mut self, join: Join) -> Joined {
        let mut joined = self.join(join);
        self.wait(DELAY_MS);
        let joined = ready(&mut joined);
        let id = joined.member_id.clone();
        let mut synced = self.sync(&joined, &[(&id, b"all")]);
        assert_eq!(ready_sync(&mut synced).assignment, "all");
        assert_eq!(self.state(), "Stable");
        joined
    }

    /// A stable group of a leader and a follower.
    pub(super) fn two(&mut self) -> (Joined, Joined) {
        let (first, second) = (self.asks(""), self.asks(""));
        let mut first = self.join(first);
        let mut second = self.join(second);
        self.wait(2 * DELAY_MS);
        let (first, second) = (ready(&mut first), ready(&mut second));
        let ids = (first.member_id.clone(), second.member_id.clone());
        let mut followed = self.sync(&second, &[]);
        assert!(followed.now().is_none(), "the leader has not said");
        let mut led = self.sync(&first, &[(&ids.0, b"one"), (&ids.1, b"two")]);
        assert_eq!(ready_sync(&mut led).assignment, "one");
        assert_eq!(ready_sync(&mut followed).assignment, "two");
        (first, second)
    }
}

/// What a consumer says that reads one topic.
pub(super) fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&[0xff; 4]);
    bytes.into()
}

#[track_caller]
pub(super) fn ready(pending: &mut Pending<Joined>) -> Joined {
    let joined = pending.now().expect("answered").unwrap();
    assert_eq!(joined.error, None);
    joined
}

#[track_caller]
pub(super) fn ready_sync(pending: &mut Pending<Synced>) -> Synced {
    let synced = pending.now().expect("answered").unwrap();
    assert_eq!(synced.error, None);
    synced
}

#[track_caller]
pub(super) fn refused(pending: &mut Pending<Joined>) -> ResponseError {
    let joined = pending.now().expect("answered").unwrap();
    joined.error.expect("refused")
}
