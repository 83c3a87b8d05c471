//! LeaveGroup: members go, and those who are left share what they had.

use kafka_protocol::error::ResponseError;

use super::{Done, Groups, GroupsOut, group::Group};
use crate::coordinator::Now;

/// Who leaves. A static member may be named by its instance alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaver {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
}

impl Groups {
    /// What becomes of each.
    pub(crate) fn leave(
        &mut self,
        id: &str,
        leavers: &[Leaver],
        now: Now,
        out: &mut GroupsOut,
    ) -> Vec<Done> {
        let settings = self.settings.clone();
        let Some(group) = self.groups.get_mut(id) else {
            return vec![Err(ResponseError::UnknownMemberId); leavers.len()];
        };
        let (mut gone, mut answers, mut gave_up) = (Vec::new(), Vec::new(), false);
        for leaver in leavers {
            let found = group.find_leaver(leaver);
            // Twice in one request is once.
            let found = found.and_then(|id| match id {
                Some(id) if gone.contains(&id) => Err(ResponseError::UnknownMemberId),
                found => Ok(found),
            });
            answers.push(found.as_ref().map(|_| ()).map_err(|error| *error));
            match found {
                Ok(Some(id)) => gone.push(id),
                Ok(None) => gave_up = true,
                Err(_) => {}
            }
        }
        group.remove_all(&gone, now, &settings, out);
        if gave_up {
            group.maybe_complete_join(now, out);
        }
        self.rearm(id);
        answers
    }
}

impl Group {
    /// The member who leaves; `None` for one that has only been given an id, which is taken back.
    fn find_leaver(&mut self, leaver: &Leaver) -> Result<Option<String>, ResponseError> {
        let (id, instance) = (&leaver.member_id, leaver.instance.as_deref());
        if id.is_empty() {
            let member = instance.and_then(|instance| self.static_member(instance));
            let member = member.ok_or(ResponseError::UnknownMemberId)?;
            return Ok(Some(member.id.clone()));
        }
        if self.pending.remove(id).is_some() {
            return Ok(None);
        }
        self.check_member(id, instance)?;
        Ok(Some(id.clone()))
    }
}
