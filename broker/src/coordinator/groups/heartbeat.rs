//! Heartbeat: a member shows that it is there, and hears whether a rebalance is under way.

use kafka_protocol::error::ResponseError;

use super::{Done, Groups, group::State};
use crate::coordinator::Now;

/// Who says that it is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heartbeat {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
}

impl Groups {
    /// A session only grows: the timer of the group stays as it is, and finds nothing to do.
    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat, now: Now) -> Done {
        if beat.group.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let Some(group) = self.groups.get_mut(&beat.group) else {
            return Err(ResponseError::UnknownMemberId);
        };
        group.check_member(&beat.member_id, beat.instance.as_deref())?;
        if beat.generation != group.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        if let Some(member) = group.members.get_mut(&beat.member_id) {
            member.touch(now.mono_ms);
        }
        match group.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            // Some begin as soon as they have joined.
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}
