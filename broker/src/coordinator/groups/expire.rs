//! What time does to a group: sessions end, rebalances are not waited for, offsets are forgotten.

use std::collections::BTreeSet;

use super::{
    Groups, GroupsOut, Record, Settings,
    group::{Group, Kept, State},
};
use crate::coordinator::Now;

/// Offsets that are forgotten at one time; the others are soon after.
const OFFSETS_AT_ONCE: usize = 1000;
const SOON_MS: u64 = 1000;

impl Group {
    /// Does what is due.
    pub(super) fn expire(&mut self, now: Now, settings: &Settings, out: &mut GroupsOut) {
        let pending = self.pending.len();
        self.pending.retain(|_, until| *until > now.mono_ms);
        if self.pending.len() < pending {
            self.maybe_complete_join(now, out);
        }
        let mut silent = Vec::new();
        for member in self.members.values_mut() {
            if member.deadline > now.mono_ms {
                continue;
            }
            // Who waits for an answer is there; but a new member must not wait for ever.
            let waits = member.joining.is_some() || member.syncing.is_some();
            if waits && !member.is_new {
                member.touch(now.mono_ms);
            } else {
                silent.push(member.id.clone());
            }
        }
        if !silent.is_empty() {
            tracing::info!(group = self.id, members = ?silent, "sessions have ended");
        }
        self.remove_all(&silent, now, settings, out);
        let consumers = self.consumer.expire(&self.id, now).into_iter();
        consumers.for_each(|record| out.record(Record::Consumer(record)));
        if self.join_deadline.is_some_and(|at| at <= now.mono_ms) {
            self.join_is_over(now, settings, out);
        }
        if self.sync_deadline.is_some_and(|at| at <= now.mono_ms) {
            self.sync_deadline = None;
            let members = self.members.values().filter(|member| !member.synced);
            let late: Vec<String> = members.map(|member| member.id.clone()).collect();
            self.remove_all(&late, now, settings, out);
        }
    }

    /// The offsets that are too old, and whether nothing else is left of the group.
    fn expired(&self, now_ms: i64, retention_ms: i64) -> (Vec<(String, i32)>, bool) {
        let subscribed = match (self.state, &self.protocol_type) {
            _ if !self.consumer.is_empty() => Some(self.consumer.topics()),
            (State::Empty, _) | (_, None) => Some(BTreeSet::new()),
            (State::Stable, _) => self.subscribed(),
            _ => None,
        };
        // As long as it is not known what a group reads, it keeps everything.
        let Some(subscribed) = subscribed else {
            return (Vec::new(), false);
        };
        let undecided = |key: &(String, i32)| {
            let mut open = self.undecided.values();
            open.any(|offsets| offsets.contains_key(key))
        };
        let is_old = |kept: &Kept| {
            let committed = &kept.committed;
            let since = match (self.state, &self.protocol_type) {
                (State::Empty, Some(_)) if self.since_ms >= 0 => {
                    self.since_ms.max(committed.committed_ms)
                }
                _ => committed.committed_ms,
            };
            let until = committed.expires_ms;
            until.unwrap_or(since.saturating_add(retention_ms)) <= now_ms
        };
        let old = self
            .offsets
            .iter()
            .filter(|(key, kept)| {
                // An open transaction may be about to write it (F43).
                is_old(kept) && !subscribed.contains(&key.0) && !undecided(key)
            })
            .map(|(key, _)| key.clone());
        let old: Vec<_> = old.take(OFFSETS_AT_ONCE).collect();
        let is_over = self.state == State::Empty
            && self.consumer.is_empty()
            && self.pending.is_empty()
            && self.undecided.is_empty()
            && old.len() == self.offsets.len();
        (old, is_over)
    }
}

impl Groups {
    /// Forgets old offsets, and groups of which nothing is left.
    pub(super) fn expire_offsets(&mut self, now: Now, out: &mut GroupsOut) {
        let (mut forgotten, mut wait_ms) = (0, self.settings.retention_check_ms);
        for group in self.groups.values() {
            let (old, is_over) = group.expired(now.wall_ms, self.settings.retention_ms);
            forgotten += old.len();
            for (topic, partition) in old {
                out.record(Record::Offset {
                    group: group.id.clone(),
                    topic,
                    partition,
                    value: None,
                });
            }
            if is_over {
                let consumers = group.consumer.tombstones(&group.id);
                consumers
                    .into_iter()
                    .for_each(|r| out.record(Record::Consumer(r)));
            }
            if is_over && group.recorded {
                out.record(Record::Group {
                    group: group.id.clone(),
                    value: None,
                });
            }
            if forgotten >= OFFSETS_AT_ONCE {
                wait_ms = wait_ms.min(SOON_MS);
                break;
            }
        }
        self.retention_at = now.mono_ms.saturating_add(wait_ms.max(1));
    }
}
