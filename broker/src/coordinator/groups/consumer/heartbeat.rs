//! ConsumerGroupHeartbeat: a member comes, stays, says what it wants and what it owns, hears what it gets, and goes.
//!
//! Nothing changes here but times: what an operation finds is in the records that it writes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::{
    Catalog, Change, ConsumerGroup, ConsumerSettings, Epoch, Partitions, Record, Refusal, Resolved,
    assignor::{self, ASSIGNORS, Reader},
    forget,
    member::{AWAY, Current, Place, Subscription},
    of_group,
    partitions::{common, union},
    subscription,
};
use crate::coordinator::Now;

/// Of a member that goes for good.
const LEAVES: i32 = -1;
/// What all members of a group may say together, with what their expressions stand for, in bytes.
const SAID_MAX: usize = 16 << 20;
/// First version in which a member chooses its id, and in which expressions are.
const OWN_IDS: i16 = 1;

/// What a member says. What is `None` is as it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsumerHeartbeat {
    pub(crate) version: i16,
    pub(crate) group: String,
    pub(crate) member_id: String,
    /// How a member is called that has no id, in version 0.
    pub(crate) fresh_id: String,
    pub(crate) epoch: i32,
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    /// -1 if it is as it was.
    pub(crate) rebalance_ms: i32,
    pub(crate) topics: Option<BTreeSet<String>>,
    pub(crate) regex: Option<String>,
    pub(crate) assignor: Option<String>,
    pub(crate) owned: Option<Partitions>,
    /// How long a member of this group may be silent, if that is a setting of its own.
    pub(crate) own_session_ms: Option<u64>,
    /// How often a member of this group is asked to send, if that is a setting of its own.
    pub(crate) own_heartbeat_ms: Option<i32>,
}

/// What a member hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Beat {
    pub(crate) member_id: String,
    pub(crate) epoch: i32,
    pub(crate) heartbeat_ms: i32,
    /// `None` if it is as it was.
    pub(crate) assignment: Option<Partitions>,
}

impl ConsumerHeartbeat {
    /// Whether it is well formed.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let is_empty = |text: &Option<String>| text.as_deref() == Some("");
        let reads_names = self.topics.is_some();
        let reads = match self.version {
            ..OWN_IDS => self
                .topics
                .as_ref()
                .is_some_and(|topics| !topics.is_empty()),
            _ => reads_names || self.regex.is_some(),
        };
        let needs_id = self.version >= OWN_IDS || self.epoch != 0;
        let wrong = [
            (self.group.is_empty(), "the group has no name"),
            (
                self.member_id.is_empty() && needs_id,
                "the member has no id",
            ),
            (is_empty(&self.instance), "the instance has no name"),
            (is_empty(&self.rack), "the rack has no name"),
            (self.epoch < AWAY, "there is no such epoch"),
            (
                self.epoch == AWAY && self.instance.is_none(),
                "only a static member goes for a while",
            ),
            (
                self.epoch == 0 && self.rebalance_ms <= 0,
                "whoever joins says how long it may take to give partitions back",
            ),
            (
                self.epoch == 0 && self.owned.as_ref().is_none_or(|owned| !owned.is_empty()),
                "whoever joins owns no partitions, and says so",
            ),
            (
                self.epoch == 0 && !reads,
                "whoever joins says what it reads",
            ),
        ];
        if let Some((_, what)) = wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(Refusal::invalid(what));
        }
        match &self.assignor {
            Some(assignor) if !ASSIGNORS.contains(&assignor.as_str()) => Err(Refusal::of(
                ResponseError::UnsupportedAssignor,
                format!("there is no assignor {assignor:.200}; there are {ASSIGNORS:?}"),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn leaves(&self) -> bool {
        matches!(self.epoch, LEAVES | AWAY)
    }

    /// Whether it says everything: as one does that does not know what the server knows.
    fn is_full(&self) -> bool {
        let reads = self.topics.is_some() || self.regex.is_some();
        self.rebalance_ms != -1 && reads && self.owned.is_some()
    }

    /// What the member has said by now.
    fn said(&self, before: Subscription) -> Subscription {
        let regex = match &self.regex {
            Some(regex) => Some(regex.clone()).filter(|regex| !regex.is_empty()),
            None => before.regex,
        };
        Subscription {
            instance: self.instance.clone().or(before.instance),
            rack: self.rack.clone().or(before.rack),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            topics: self.topics.clone().unwrap_or(before.topics),
            regex,
            rebalance_ms: match self.rebalance_ms {
                -1 => before.rebalance_ms,
                rebalance_ms => rebalance_ms,
            },
            assignor: self.assignor.clone().or(before.assignor),
        }
    }
}

/// Who a heartbeat is from, and what was known of it.
struct Sender {
    id: String,
    subscription: Subscription,
    current: Current,
    /// It has not seen the last answer.
    behind: bool,
    /// Nothing was known of it.
    is_new: bool,
    /// The static member whose place it takes.
    replaces: Option<String>,
}

/// What is known when a group is what its members and topics are now.
struct Fresh<'a> {
    epoch: Epoch,
    regexes: Cow<'a, BTreeMap<String, Resolved>>,
    /// The version of the topics, unless the epoch is another one because of them: then they are looked at once more.
    seen: Option<u64>,
}

impl ConsumerGroup {
    /// Answers a member that is there, and writes what changes by it.
    pub(crate) fn beat(
        &mut self,
        beat: &ConsumerHeartbeat,
        catalog: &dyn Catalog,
        now: Now,
        settings: &ConsumerSettings,
        out: &mut Vec<Record>,
    ) -> Result<Beat, Refusal> {
        let sender = self.sender(beat, settings)?;
        let id = sender.id.clone();
        let subscription = beat.said(sender.subscription.clone());
        let reads_anew = sender.is_new
            || subscription.topics != sender.subscription.topics
            || subscription.regex != sender.subscription.regex;
        if let Some(regex) = subscription.regex.as_ref().filter(|_| reads_anew) {
            subscription::check(regex)?;
        }
        // Who is in the group from now on.
        let stays = |member: &String| sender.replaces.as_ref() != Some(member);
        let members = self.members.iter().filter(|(member, _)| stays(member));
        let mut members: BTreeMap<&str, &Subscription> = members
            .map(|(member, known)| (member.as_str(), &known.subscription))
            .collect();
        members.insert(&id, &subscription);

        let mut changes = Vec::new();
        let fresh = self.freshen(&members, reads_anew, catalog, now, &mut changes)?;
        if let Some(before) = &sender.replaces {
            changes.extend(forget(before));
        }
        if sender.is_new || sender.replaces.is_some() || subscription != sender.subscription {
            changes.push(Change::Member(id.clone(), Some(subscription.clone())));
        }
        let (target_epoch, target) = self.aim(&sender, &members, &fresh, catalog, &mut changes);
        let owned = beat.owned.as_ref();
        let others = |wanted: &Partitions| self.held_by_others(wanted, &sender);
        let mut current = sender.current.step(target_epoch, &target, owned, others);
        if sender.behind {
            // If this answer is lost, too, the member still comes with the epoch that it knows.
            current.previous_epoch = beat.epoch;
        }
        if sender.is_new || sender.replaces.is_some() || current != sender.current {
            changes.push(Change::Current(id.clone(), Some(current.clone())));
        }
        let is_told = beat.epoch == 0
            || sender.behind
            || beat.is_full()
            || current.assigned != sender.current.assigned;
        out.extend(
            changes
                .into_iter()
                .map(|change| of_group(&beat.group, change)),
        );
        self.seen = fresh.seen;
        self.touch(&id, now, settings);
        self.wait_for(&id, &current, subscription.rebalance_ms, now);
        Ok(Beat {
            member_id: id,
            epoch: current.epoch,
            heartbeat_ms: settings.heartbeat_ms,
            assignment: is_told.then_some(current.assigned),
        })
    }

    /// Lets a member go, for good or for a while.
    pub(crate) fn leave(
        &mut self,
        beat: &ConsumerHeartbeat,
        out: &mut Vec<Record>,
    ) -> Result<Beat, Refusal> {
        let (id, member) = match beat.instance.as_deref() {
            Some(instance) => self.known_instance(beat, instance)?,
            None => self.known(&beat.member_id)?,
        };
        let id = id.clone();
        if beat.epoch == AWAY {
            let away = Change::Current(id.clone(), Some(member.current.away()));
            out.push(of_group(&beat.group, away));
        } else {
            out.extend(self.without(&beat.group, std::slice::from_ref(&id)));
        }
        self.patience.remove(&id);
        Ok(Beat {
            member_id: id,
            epoch: beat.epoch,
            heartbeat_ms: 0,
            assignment: None,
        })
    }

    fn known(&self, id: &str) -> Result<(&String, &super::Member), Refusal> {
        self.members.get_key_value(id).ok_or_else(|| {
            let error = ResponseError::UnknownMemberId;
            Refusal::of(error, format!("{id:.200} is no member of the group"))
        })
    }

    /// The member of an instance, if it is the one that asks.
    fn known_instance(
        &self,
        beat: &ConsumerHeartbeat,
        instance: &str,
    ) -> Result<(&String, &super::Member), Refusal> {
        match self.static_member(instance) {
            None => Err(Refusal::of(
                ResponseError::UnknownMemberId,
                format!("no member of the group is instance {instance:.200}"),
            )),
            Some((id, _)) if *id != beat.member_id => Err(Refusal::of(
                ResponseError::FencedInstanceId,
                format!("instance {instance:.200} is member {id} by now"),
            )),
            Some(found) => Ok(found),
        }
    }

    fn sender(
        &self,
        beat: &ConsumerHeartbeat,
        settings: &ConsumerSettings,
    ) -> Result<Sender, Refusal> {
        let joins = beat.epoch == 0;
        let id = match beat.member_id.as_str() {
            "" => beat.fresh_id.as_str(),
            id => id,
        };
        let instance = beat.instance.as_deref();
        let before = instance.and_then(|instance| self.static_member(instance));
        let found = match (before, instance) {
            (Some((before, member)), _) if joins && member.current.epoch == AWAY => {
                return Ok(Sender {
                    id: id.to_owned(),
                    subscription: member.subscription.clone(),
                    current: member.current.anew(),
                    behind: false,
                    is_new: false,
                    replaces: Some(before.clone()).filter(|before| before != id),
                });
            }
            (Some((before, _)), Some(instance)) if joins && before != id => {
                return Err(Refusal::of(
                    ResponseError::UnreleasedInstanceId,
                    format!("instance {instance:.200} is member {before}, which has not left"),
                ));
            }
            (_, Some(instance)) if !joins => Some(self.known_instance(beat, instance)?.1),
            _ if joins => self.members.get(id),
            _ => Some(self.known(id)?.1),
        };
        let Some(member) = found else {
            if self.members.len() >= settings.members_max {
                return Err(Refusal::of(
                    ResponseError::GroupMaxSizeReached,
                    format!("the group has {} members", settings.members_max),
                ));
            }
            return Ok(Sender {
                id: id.to_owned(),
                subscription: Subscription::default(),
                current: Current::default(),
                behind: false,
                is_new: true,
                replaces: None,
            });
        };
        let current = &member.current;
        let place = current.place(beat.epoch, beat.owned.as_ref());
        if place == Place::Elsewhere {
            return Err(Refusal::of(
                ResponseError::FencedMemberEpoch,
                format!(
                    "the member is at epoch {}, not {}: it must give up all partitions and join again",
                    current.epoch, beat.epoch
                ),
            ));
        }
        Ok(Sender {
            id: id.to_owned(),
            subscription: member.subscription.clone(),
            current: current.clone(),
            behind: place == Place::Behind,
            is_new: false,
            replaces: None,
        })
    }

    /// Looks whether the group is another than it was: its epoch then grows.
    fn freshen(
        &self,
        members: &BTreeMap<&str, &Subscription>,
        reads_anew: bool,
        catalog: &dyn Catalog,
        now: Now,
        changes: &mut Vec<Change>,
    ) -> Result<Fresh<'_>, Refusal> {
        let version = catalog.version();
        let topics_changed = self.seen != Some(version);
        if !reads_anew && !topics_changed {
            return Ok(Fresh {
                epoch: self.epoch,
                regexes: Cow::Borrowed(&self.regexes),
                seen: self.seen,
            });
        }
        let mut is_other = reads_anew;
        let mut regexes = BTreeMap::new();
        let mut of_regexes = Vec::new();
        for regex in members.values().filter_map(|said| said.regex.as_ref()) {
            if regexes.contains_key(regex) {
                continue;
            }
            let known = self.regexes.get(regex);
            let resolved = match known.filter(|_| !topics_changed) {
                Some(known) => known.clone(),
                None => subscription::resolve(regex, catalog, now.wall_ms)?,
            };
            if known.is_none_or(|known| known.topics != resolved.topics) {
                is_other = true;
                of_regexes.push(Change::Regex(regex.clone(), Some(resolved.clone())));
            }
            regexes.insert(regex.clone(), resolved);
        }
        let said = members.values().map(|said| said.bytes()).sum::<usize>();
        let resolved = regexes.values().map(Resolved::bytes).sum::<usize>();
        if said + resolved > SAID_MAX {
            let error = ResponseError::GroupMaxSizeReached;
            return Err(Refusal::of(error, "the members of the group read too much"));
        }
        let gone = self
            .regexes
            .keys()
            .filter(|regex| !regexes.contains_key(*regex));
        of_regexes.extend(gone.map(|regex| Change::Regex(regex.clone(), None)));
        let said = members.values();
        let names: BTreeSet<&str> = said
            .flat_map(|said| subscription::names(said, &regexes))
            .collect();
        let fingerprint = subscription::fingerprint(&names, catalog);
        let (mut epoch, mut seen) = (self.epoch, Some(version));
        if is_other || fingerprint != epoch.fingerprint {
            epoch = Epoch {
                epoch: epoch.epoch.saturating_add(1),
                fingerprint,
            };
            changes.push(Change::Epoch(Some(epoch)));
            seen = self.seen;
        }
        changes.extend(of_regexes);
        Ok(Fresh {
            epoch,
            regexes: Cow::Owned(regexes),
            seen,
        })
    }

    /// The target's epoch, and what it has for the sender; computed anew if it is not the group's.
    fn aim(
        &self,
        sender: &Sender,
        members: &BTreeMap<&str, &Subscription>,
        fresh: &Fresh<'_>,
        catalog: &dyn Catalog,
        changes: &mut Vec<Change>,
    ) -> (i32, Partitions) {
        // Who takes somebody's place is to have what that one was to have.
        let before = |id: &str| match &sender.replaces {
            Some(before) if id == sender.id => self.target.get(before),
            _ => self.target.get(id),
        };
        if fresh.epoch.epoch <= self.target_epoch {
            let target = before(&sender.id).cloned().unwrap_or_default();
            if sender.replaces.is_some() {
                changes.push(Change::Target(sender.id.clone(), Some(target.clone())));
            }
            return (self.target_epoch, target);
        }
        let mut counts: BTreeMap<Uuid, i32> = BTreeMap::new();
        let readers: Vec<Reader<'_>> = members
            .iter()
            .map(|(id, said)| {
                let names = subscription::names(said, &fresh.regexes);
                let found: BTreeMap<Uuid, i32> =
                    names.filter_map(|name| catalog.find(name)).collect();
                counts.extend(&found);
                Reader {
                    name: said.instance.as_deref().unwrap_or(id),
                    topics: found.into_keys().collect(),
                    before: before(id),
                }
            })
            .collect();
        let shares = assignor::assign(preferred(members), &readers, &counts);
        let mut target = Partitions::new();
        for (id, share) in members.keys().zip(shares) {
            if *id == sender.id {
                target = share.clone();
            }
            if self.target.get(*id) != Some(&share) {
                changes.push(Change::Target((*id).to_owned(), Some(share)));
            }
        }
        changes.push(Change::TargetEpoch(Some(fresh.epoch.epoch)));
        (fresh.epoch.epoch, target)
    }

    /// What others may still read of what somebody wants.
    fn held_by_others(&self, wanted: &Partitions, sender: &Sender) -> Partitions {
        let is_other = |id: &String| *id != sender.id && sender.replaces.as_ref() != Some(id);
        let others = self.members.iter().filter(|(id, _)| is_other(id));
        let held = others.flat_map(|(_, member)| member.current.held());
        held.fold(Partitions::new(), |all, held| {
            union(all, &common(wanted, held))
        })
    }
}

/// The assignor that most members ask for, the earlier one of the list if they are as many.
pub(super) fn preferred(members: &BTreeMap<&str, &Subscription>) -> &'static str {
    let votes = |assignor: &str| {
        let said = members.values();
        said.filter(|said| said.assignor.as_deref() == Some(assignor))
            .count()
    };
    let first = ASSIGNORS[0];
    let later = ASSIGNORS.iter().skip(1).copied();
    later.fold(first, |best, assignor| {
        if votes(assignor) > votes(best) {
            assignor
        } else {
            best
        }
    })
}
