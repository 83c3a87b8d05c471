//! LeaveGroup: members go, and those who are left share what they had.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;

use super::{
    Done, Groups, GroupsOut,
    group::{Group, Member},
};
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
        let of_instances = group.of_instances();
        let (mut gone, mut answers, mut gave_up) = (BTreeSet::new(), Vec::new(), false);
        for leaver in leavers {
            let found = group.find_leaver(leaver, &of_instances);
            answers.push(match found {
                // Twice in one request is once.
                Ok(Some(id)) if !gone.insert(id.clone()) => Err(ResponseError::UnknownMemberId),
                Ok(Some(_)) => Ok(()),
                Ok(None) => {
                    gave_up = true;
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        let gone: Vec<String> = gone.into_iter().collect();
        group.remove_all(&gone, now, &settings, out);
        if gave_up {
            group.maybe_complete_join(now, out);
        }
        self.rearm(id);
        answers
    }
}

impl Group {
    /// The ids of static members: a request may name many, and each would be looked for among all members.
    fn of_instances(&self) -> BTreeMap<String, String> {
        let members = self.members.values();
        let of_instance = |member: &Member| Some((member.instance.clone()?, member.id.clone()));
        members.filter_map(of_instance).collect()
    }

    /// The member who leaves; `None` for one that has only been given an id, which is taken back.
    fn find_leaver(
        &mut self,
        leaver: &Leaver,
        of_instances: &BTreeMap<String, String>,
    ) -> Result<Option<String>, ResponseError> {
        let id = &leaver.member_id;
        let of_instance = leaver.instance.as_ref().map(|i| of_instances.get(i));
        if id.is_empty() {
            let known = of_instance.flatten();
            let known = known.ok_or(ResponseError::UnknownMemberId)?;
            return Ok(Some(known.clone()));
        }
        if self.pending.remove(id).is_some() {
            return Ok(None);
        }
        match of_instance {
            Some(None) => return Err(ResponseError::UnknownMemberId),
            Some(Some(known)) if known != id => return Err(ResponseError::FencedInstanceId),
            Some(Some(_)) => {}
            None => self.check_member(id, None)?,
        }
        Ok(Some(id.clone()))
    }
}
