//! A member of a consumer group, and how it walks to what it is to have: first it gives back, then it takes what others
//! have given back. A partition that one member may still read is never told to another.

use std::collections::BTreeSet;

use super::partitions::{Partitions, common, is_apart, is_within, union, without};

/// What a text takes besides its bytes.
pub(super) const TEXT_BYTES: usize = 24;

/// What a member has said of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Subscription {
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) topics: BTreeSet<String>,
    /// Never empty: the empty expression is none (F45).
    pub(crate) regex: Option<String>,
    /// How long it may take to give a partition back.
    pub(crate) rebalance_ms: i32,
    pub(crate) assignor: Option<String>,
}

impl Subscription {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let topics = self.topics.iter().map(|name| name.len() + TEXT_BYTES);
        let regex = self.regex.as_ref().map_or(0, String::len);
        topics.sum::<usize>() + regex + self.client_id.len() + TEXT_BYTES
    }
}

/// How far a member is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum MemberState {
    /// It has what it is to have.
    #[default]
    Stable,
    /// It has to give partitions back.
    Unrevoked,
    /// It waits for partitions that others have not given back.
    Unreleased,
}

/// Of a static member that has gone and may come again.
pub(crate) const AWAY: i32 = -2;

/// What a member has been told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Current {
    /// 0 before the first answer, or [`AWAY`].
    pub(crate) epoch: i32,
    /// The member sends it if it has not seen the answer with the epoch.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Partitions,
    /// What it has to give back first.
    pub(crate) revoking: Partitions,
}

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Member {
    pub(crate) subscription: Subscription,
    pub(crate) current: Current,
}

/// How a member's epoch relates to the one it has been told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Here,
    /// It has not seen the last answer.
    Behind,
    Elsewhere,
}

impl Current {
    /// Whether a member that sends this epoch, and owns this, can be the one that was told.
    pub(super) fn place(&self, epoch: i32, owned: Option<&Partitions>) -> Place {
        if epoch == self.epoch {
            Place::Here
        } else if epoch < self.epoch
            && epoch == self.previous_epoch
            && owned.is_some_and(|owned| is_within(owned, &self.assigned))
        {
            Place::Behind
        } else {
            Place::Elsewhere
        }
    }

    /// Whether it has all that it was to have at this epoch.
    pub(super) fn is_at(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// All that nobody else may get.
    pub(super) fn held(&self) -> impl Iterator<Item = &Partitions> {
        [&self.assigned, &self.revoking].into_iter()
    }

    /// The next step to `target`. `owned` is what the member says that it owns, unless that has not changed; `of_others`
    /// picks what other members hold.
    pub(super) fn step(
        &self,
        target_epoch: i32,
        target: &Partitions,
        owned: Option<&Partitions>,
        of_others: impl FnOnce(&Partitions) -> Partitions,
    ) -> Self {
        let owns_some_of = |set: &Partitions| owned.is_none_or(|owned| !is_apart(owned, set));
        if self.is_at(target_epoch)
            || (self.state == MemberState::Unrevoked && owns_some_of(&self.revoking))
        {
            return self.clone();
        }
        let kept = common(&self.assigned, target);
        let leaving = without(&self.assigned, target);
        if !leaving.is_empty() && owns_some_of(&leaving) {
            return Self {
                state: MemberState::Unrevoked,
                assigned: kept,
                revoking: leaving,
                ..self.clone()
            };
        }
        let coming = without(target, &self.assigned);
        let held = of_others(&coming);
        let next = Self {
            state: if held.is_empty() {
                MemberState::Stable
            } else {
                MemberState::Unreleased
            },
            assigned: union(kept, &without(&coming, &held)),
            revoking: Partitions::new(),
            ..self.clone()
        };
        next.at(target_epoch)
    }

    /// The same with another epoch.
    fn at(mut self, epoch: i32) -> Self {
        if epoch != self.epoch {
            self.previous_epoch = self.epoch;
            self.epoch = epoch;
        }
        self
    }

    /// As a static member leaves that may come again: it has given back what it had to.
    pub(super) fn away(&self) -> Self {
        Self {
            epoch: AWAY,
            revoking: Partitions::new(),
            ..self.clone()
        }
    }

    /// As the one who takes the place of a static member begins.
    pub(super) fn anew(&self) -> Self {
        Self {
            epoch: 0,
            previous_epoch: 0,
            ..self.clone()
        }
    }
}
