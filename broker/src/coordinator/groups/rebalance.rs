//! A rebalance: from the first who joins to the generation in which everybody is.

use kafka_protocol::error::ResponseError;

use super::{
    GroupsOut, Joined, Record, Settings, Synced,
    group::{Group, State},
};
use crate::coordinator::Now;

impl Group {
    /// After a change of members: begins a rebalance, or sees whether the one that is under way can end.
    pub(super) fn rebalance(&mut self, now: Now, settings: &Settings, out: &mut GroupsOut) {
        match self.state {
            State::PreparingRebalance => self.maybe_complete_join(now, out),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare(now, settings, out);
            }
        }
    }

    fn prepare(&mut self, now: Now, settings: &Settings, out: &mut GroupsOut) {
        for member in self.members.values_mut() {
            if let Some(slot) = member.syncing.take() {
                out.reply(slot, Synced::of(ResponseError::RebalanceInProgress));
            }
        }
        self.sync_deadline = None;
        let was_empty = self.state == State::Empty;
        self.state = State::PreparingRebalance;
        self.since_ms = now.wall_ms;
        let longest = self.rebalance_ms();
        if was_empty {
            let delay = settings.initial_rebalance_delay_ms;
            self.initial_left_ms = Some(longest.saturating_sub(delay));
            self.new_member = false;
            self.join_deadline = Some(now.mono_ms.saturating_add(delay));
        } else {
            self.initial_left_ms = None;
            self.join_deadline = Some(now.mono_ms.saturating_add(longest));
            self.maybe_complete_join(now, out);
        }
    }

    /// Its record was refused: who waited for an assignment, or has taken the place of another, has been told so. All are
    /// to join again, and whoever does not is gone after a time.
    pub(super) fn refused(&mut self, now: Now, settings: &Settings, out: &mut GroupsOut) {
        if matches!(self.state, State::CompletingRebalance | State::Stable) {
            tracing::warn!(
                group = self.id,
                "a group's record is refused: it rebalances again"
            );
            self.prepare(now, settings, out);
        }
    }

    /// Ends joining if everybody has joined. The first rebalance of a group waits all the same, for others.
    pub(super) fn maybe_complete_join(&mut self, now: Now, out: &mut GroupsOut) {
        let is_preparing = self.state == State::PreparingRebalance;
        if is_preparing && self.initial_left_ms.is_none() && self.all_joined() {
            self.complete_join(now, out);
        }
    }

    /// The time for joining is over: the first rebalance is drawn out as long as somebody comes.
    pub(super) fn join_is_over(&mut self, now: Now, settings: &Settings, out: &mut GroupsOut) {
        if let Some(left) = self.initial_left_ms
            && self.new_member
            && left > 0
        {
            let delay = settings.initial_rebalance_delay_ms.min(left);
            self.new_member = false;
            self.initial_left_ms = Some(left.saturating_sub(settings.initial_rebalance_delay_ms));
            self.join_deadline = Some(now.mono_ms.saturating_add(delay));
            return;
        }
        self.complete_join(now, out);
    }

    fn complete_join(&mut self, now: Now, out: &mut GroupsOut) {
        self.join_deadline = None;
        self.initial_left_ms = None;
        // Static members are waited for until their sessions end.
        self.members
            .retain(|_, member| member.joining.is_some() || member.instance.is_some());
        if !self.elect() {
            let again = now.mono_ms.saturating_add(self.rebalance_ms().max(1));
            self.join_deadline = Some(again);
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.since_ms = now.wall_ms;
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            out.record(Record::Group {
                group: self.id.clone(),
                value: Some(self.value(|member| member.assignment.clone())),
            });
            return;
        }
        self.state = State::CompletingRebalance;
        self.protocol = self.select_protocol();
        self.sync_deadline = Some(now.mono_ms.saturating_add(self.rebalance_ms()));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.is_new = false;
            member.synced = false;
            member.touch(now.mono_ms);
            if let Some(slot) = member.joining.take() {
                out.reply(slot, joined);
            }
        }
    }

    /// Sees to it that the leader is somebody who has joined, if there is anybody. `false` if members are left that have not.
    fn elect(&mut self) -> bool {
        let has_joined = |id: &String| {
            let member = self.members.get(id);
            member.is_some_and(|member| member.joining.is_some())
        };
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let mut members = self.members.values();
        match members.find(|member| member.joining.is_some()) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => self.members.is_empty(),
        }
    }

    /// Takes a member out. Who waits for it is told that it is none.
    pub(super) fn remove(&mut self, id: &str, out: &mut GroupsOut) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(slot) = member.joining {
            out.reply(slot, Joined::of(ResponseError::UnknownMemberId, id));
        }
        if let Some(slot) = member.syncing {
            out.reply(slot, Synced::of(ResponseError::UnknownMemberId));
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Takes members out, and rebalances those who are left.
    pub(super) fn remove_all(
        &mut self,
        ids: &[String],
        now: Now,
        settings: &Settings,
        out: &mut GroupsOut,
    ) {
        for id in ids {
            self.remove(id, out);
        }
        if !ids.is_empty() && self.state != State::Empty {
            self.rebalance(now, settings, out);
        }
    }
}
