//! JoinGroup: a member comes, comes again, or comes as somebody who was here before.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{
    Groups, GroupsOut, Joined, Record, Settings,
    group::{Group, Member, State},
};
use crate::coordinator::{Now, Slot};

/// How long a new member waits for the others: it cannot show that it is still there, and a client that gave up and came
/// again is another new member.
const NEW_MEMBER_WAIT_MS: u64 = 5 * 60 * 1000;

/// What all members of a group may say together, in bytes.
const SAID_MAX: usize = 16 << 20;

/// What they may say of one protocol each, in bytes: a record, which has their assignments, too, may have about a MiB.
const SAID_OF_ONE_MAX: usize = 768 << 10;

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) group: String,
    /// Empty for whoever has none yet.
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    /// What a new member is called.
    pub(crate) fresh_id: String,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_ms: i32,
    pub(crate) rebalance_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a new member must come again with its id (F34).
    pub(crate) needs_id: bool,
    /// Whether a leader understands that it has nothing to assign.
    pub(crate) can_skip: bool,
}

impl Groups {
    /// Answers when the rebalance is over that this begins or takes part in.
    pub(crate) fn join(&mut self, join: Join, now: Now, out: &mut GroupsOut, slot: Slot<Joined>) {
        let id = join.group.clone();
        let checked = self.check(&join);
        if let Err(error) = checked.and_then(|()| self.become_classic(&id, out)) {
            return out.reply(slot, Joined::of(error, &join.member_id));
        }
        let settings = self.settings.clone();
        match self.group_or_new(&id, now) {
            Ok(group) => group.join(join, now, &settings, out, slot),
            Err(error) => out.reply(slot, Joined::of(error, &join.member_id)),
        }
        self.rearm(&id);
    }

    fn check(&self, join: &Join) -> Result<(), ResponseError> {
        if join.group.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let within = self.settings.session_min_ms..=self.settings.session_max_ms;
        let session_ms = u64::try_from(join.session_ms).ok();
        if !session_ms.is_some_and(|session_ms| within.contains(&session_ms)) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        if !self.groups.contains_key(&join.group) && !join.member_id.is_empty() {
            return Err(ResponseError::UnknownMemberId);
        }
        Ok(())
    }
}

impl Group {
    fn join(
        &mut self,
        join: Join,
        now: Now,
        settings: &Settings,
        out: &mut GroupsOut,
        slot: Slot<Joined>,
    ) {
        if !self.has_room(&join, settings) {
            self.take_back(&join, now, settings, out);
            return out.reply(slot, Joined::of(ResponseError::GroupMaxSizeReached, ""));
        }
        if self.says_too_much(&join) {
            let error = ResponseError::GroupMaxSizeReached;
            return out.reply(slot, Joined::of(error, &join.member_id));
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            let error = ResponseError::InconsistentGroupProtocol;
            return out.reply(slot, Joined::of(error, &join.member_id));
        }
        if !join.member_id.is_empty() {
            return self.join_again(join, now, settings, out, slot);
        }
        let before = join.instance.as_deref();
        let before = before.and_then(|instance| self.static_member(instance));
        if let Some(before) = before {
            let before = before.id.clone();
            return self.replace(&before, join, now, settings, out, slot);
        }
        let id = join.fresh_id.clone();
        if join.needs_id && join.instance.is_none() {
            let until = now.mono_ms.saturating_add(join.session_ms as u64);
            self.pending.insert(id.clone(), until);
            return out.reply(slot, Joined::of(ResponseError::MemberIdRequired, &id));
        }
        self.add(id, join, now, settings, out, slot);
    }

    fn has_room(&self, join: &Join, settings: &Settings) -> bool {
        let is_member = self.members.contains_key(&join.member_id);
        let is_known = is_member || self.pending.contains_key(&join.member_id);
        let replaces = join.instance.as_deref();
        let replaces = replaces.is_some_and(|instance| self.static_member(instance).is_some());
        let max = settings.members_max;
        match self.state {
            State::PreparingRebalance if is_member => {
                let joining = self.members.values().filter(|m| m.joining.is_some());
                let joins = self.members.get(&join.member_id);
                joins.is_some_and(|member| member.joining.is_some()) || joining.count() < max
            }
            _ => is_known || replaces || self.members.len() + self.pending.len() < max,
        }
    }

    /// Whether a member with these protocols makes it too much. Nothing changes: a member that said less stays.
    fn says_too_much(&self, join: &Join) -> bool {
        let said = |protocols: &[(String, Bytes)]| -> usize {
            let bytes = protocols.iter().map(|(name, said)| name.len() + said.len());
            bytes.sum()
        };
        let takes_place = |member: &Member| {
            let is_same = join.instance.is_some() && member.instance == join.instance;
            member.id == join.member_id || is_same
        };
        let of_one = |protocols: &[(String, Bytes)]| -> usize {
            let bytes = protocols.iter().map(|(_, said)| said.len());
            bytes.max().unwrap_or(0)
        };
        let others = self.members.values().filter(|m| !takes_place(m));
        let others = others.map(|member| &member.protocols[..]);
        let all = others.chain([&join.protocols[..]]);
        let (said, of_one) = all.fold((0, 0), |(sum, sum_of_one), protocols| {
            (sum + said(protocols), sum_of_one + of_one(protocols))
        });
        said > SAID_MAX || of_one > SAID_OF_ONE_MAX
    }

    /// For whom there is no room any more is not waited for.
    fn take_back(&mut self, join: &Join, now: Now, settings: &Settings, out: &mut GroupsOut) {
        let id = &join.member_id;
        if self.check_member(id, join.instance.as_deref()).is_ok() {
            self.remove_all(std::slice::from_ref(id), now, settings, out);
        } else if self.pending.remove(id).is_some() {
            self.maybe_complete_join(now, out);
        }
    }

    /// Somebody with an id comes.
    fn join_again(
        &mut self,
        join: Join,
        now: Now,
        settings: &Settings,
        out: &mut GroupsOut,
        slot: Slot<Joined>,
    ) {
        let id = join.member_id.clone();
        if join.instance.is_none() && self.pending.remove(&id).is_some() {
            return self.add(id, join, now, settings, out, slot);
        }
        if let Err(error) = self.check_member(&id, join.instance.as_deref()) {
            return out.reply(slot, Joined::of(error, &id));
        }
        let Some(member) = self.members.get_mut(&id) else {
            return out.reply(slot, Joined::of(ResponseError::UnknownMemberId, &id));
        };
        let is_same = member.protocols == join.protocols;
        let stays = match self.state {
            State::PreparingRebalance => false,
            // It has not seen the answer.
            State::CompletingRebalance => is_same,
            // A leader that comes again has a reason to: a topic has more partitions, for one.
            State::Stable => is_same && !self.is_leader(&id),
            State::Empty => {
                return out.reply(slot, Joined::of(ResponseError::UnknownMemberId, &id));
            }
        };
        if stays {
            if let Some(member) = self.members.get_mut(&id) {
                member.touch(now.mono_ms);
            }
            let joined = self.joined(&id);
            return out.reply(slot, joined);
        }
        self.update(&id, join, now, slot);
        self.rebalance(now, settings, out);
    }

    /// A new member.
    fn add(
        &mut self,
        id: String,
        join: Join,
        now: Now,
        settings: &Settings,
        out: &mut GroupsOut,
        slot: Slot<Joined>,
    ) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.new_member |= self.initial_left_ms.is_some();
        let (session_ms, rebalance_ms) = times(&join);
        let member = Member {
            id: id.clone(),
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_ms,
            rebalance_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: Some(slot),
            syncing: None,
            synced: false,
            is_new: true,
            deadline: now.mono_ms.saturating_add(NEW_MEMBER_WAIT_MS),
        };
        self.members.insert(id, member);
        self.rebalance(now, settings, out);
    }

    /// A member says anew what it supports, and waits.
    fn update(&mut self, id: &str, join: Join, now: Now, slot: Slot<Joined>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        (member.session_ms, member.rebalance_ms) = times(&join);
        member.protocols = join.protocols;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        // Whoever waited for it before has gone away.
        member.joining = Some(slot);
        if !member.is_new {
            member.touch(now.mono_ms);
        }
    }

    /// A static member has begun anew: it takes the place of who it was, under another id, and in a stable group nobody
    /// else hears of it (F39).
    fn replace(
        &mut self,
        before: &str,
        join: Join,
        now: Now,
        settings: &Settings,
        out: &mut GroupsOut,
        slot: Slot<Joined>,
    ) {
        let Some(mut member) = self.members.remove(before) else {
            return;
        };
        let fenced = ResponseError::FencedInstanceId;
        if let Some(slot) = member.joining.take() {
            out.reply(slot, Joined::of(fenced, before));
        }
        if let Some(slot) = member.syncing.take() {
            out.reply(slot, super::Synced::of(fenced));
        }
        let leader_before = self.leader.clone().unwrap_or_default();
        let id = join.fresh_id.clone();
        let can_skip = join.can_skip;
        member.id = id.clone();
        self.members.insert(id.clone(), member);
        if self.is_leader(before) {
            self.leader = Some(id.clone());
        }
        self.update(&id, join, now, slot);
        let goes_on = self.state == State::Stable && self.select_protocol() == self.protocol;
        let record = Record::Group {
            group: self.id.clone(),
            value: Some(self.value(|member| member.assignment.clone())),
        };
        // One that is refused would leave neither of them in its place.
        if !goes_on || !record.can_be_written() {
            return self.rebalance(now, settings, out);
        }
        let mut joined = self.joined(&id);
        if can_skip {
            joined.skip_assignment = self.is_leader(&id);
        } else {
            // A leader of an older client must not take itself for one: it would assign.
            joined.leader = leader_before;
            joined.members = Vec::new();
        }
        out.record(record);
        let member = self.members.get_mut(&id);
        if let Some(slot) = member.and_then(|member| member.joining.take()) {
            out.reply(slot, joined);
        }
    }
}

/// How long the session lasts and how long joining may take. Version 0 has no time for joining (F37).
fn times(join: &Join) -> (u64, u64) {
    let session_ms = u64::try_from(join.session_ms).unwrap_or(0);
    let rebalance_ms = u64::try_from(join.rebalance_ms).unwrap_or(session_ms);
    (session_ms, rebalance_ms)
}
