//! Groups, their owners and their streams: M2, M3.
//!
//! An owned group runs under a started log epoch of its owner. Only the owner's close, or F0 on the whole node, takes a group from it.

use super::{Group, SealedEnd, State, StreamState, apply::Caller};
use crate::{
    GroupId, NodeEpoch, StreamEpoch, StreamId,
    metadata::{
        answer::{Answer, OpenedGroup, Refusal},
        command::{CloseGroup, CreateGroup, TrimStream},
    },
};

const STREAMS_MAX: u32 = 1024;
const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 1024;

impl State {
    pub(super) fn create_group(&mut self, caller: Caller, create: &CreateGroup) -> Answer {
        if let Err(refusal) = self.check_create(caller, create) {
            return Answer::Refused(refusal);
        }
        let id = GroupId::new(self.next.group);
        self.next.group += 1;
        let first = self.next.stream;
        self.next.stream += u64::from(create.streams);
        let streams: Vec<_> = (first..self.next.stream).map(StreamId::new).collect();
        for stream in &streams {
            let state = StreamState {
                group: id,
                start: 0,
                end: 0,
                sealed: Vec::new(),
            };
            self.streams.insert(*stream, state);
        }
        let mut tags = create.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        for tag in &tags {
            self.tags.entry(tag.clone()).or_default().insert(id);
        }
        let mut group = Group {
            owner: None,
            epoch: StreamEpoch::new(0),
            log_epoch: NodeEpoch::new(0),
            streams: streams.clone(),
            tags,
        };
        if create.open {
            group.give_to(caller);
            self.owned.entry(caller.node).or_default().insert(id);
        }
        let epoch = group.epoch;
        self.groups.insert(id, group);
        Answer::GroupCreated {
            group: id,
            streams,
            epoch,
        }
    }

    fn check_create(&self, caller: Caller, create: &CreateGroup) -> Result<(), Refusal> {
        if create.streams == 0 || create.streams > STREAMS_MAX {
            return Err(Refusal::Malformed(format!(
                "a group of {} streams, possible are 1 to {STREAMS_MAX}",
                create.streams
            )));
        }
        let long = |(key, value): &(String, String)| key.len() + value.len() > TAG_BYTES_MAX;
        if create.tags.len() > TAGS_MAX || create.tags.iter().any(long) {
            return Err(Refusal::TooLarge(format!(
                "tags: at most {TAGS_MAX} of {TAG_BYTES_MAX} bytes each"
            )));
        }
        if create.open && !self.may_append(caller) {
            return Err(Refusal::NotStarted);
        }
        Ok(())
    }

    /// Whether the node has a log epoch that takes records.
    fn may_append(&self, caller: Caller) -> bool {
        self.debts
            .get(&caller.epoch)
            .is_some_and(|debt| debt.started)
    }

    pub(super) fn open(&mut self, caller: Caller, id: GroupId) -> Result<OpenedGroup, Refusal> {
        let may_append = self.may_append(caller);
        let group = self.groups.get_mut(&id).ok_or(Refusal::NotFound)?;
        match group.owner {
            // Nothing but the owner's own close keeps its log from acknowledging (M3).
            Some(owner) if owner != caller.node => return Err(Refusal::OwnedBy(owner)),
            _ if !may_append => return Err(Refusal::NotStarted),
            Some(_) => {}
            None => {
                group.give_to(caller);
                self.owned.entry(caller.node).or_default().insert(id);
            }
        }
        let at = |id: &StreamId| {
            let range = self
                .streams
                .get(id)
                .map_or(0..0, |stream| stream.start..stream.end);
            (*id, range)
        };
        Ok(OpenedGroup {
            group: id,
            epoch: group.epoch,
            streams: group.streams.iter().map(at).collect(),
        })
    }

    /// The group, if the caller owns it under `epoch` and under its present life.
    fn owned_group(
        &self,
        caller: Caller,
        id: GroupId,
        epoch: StreamEpoch,
    ) -> Result<&Group, Refusal> {
        let group = self.groups.get(&id).ok_or(Refusal::NotFound)?;
        if group.epoch != epoch {
            return Err(Refusal::StaleEpoch(group.epoch));
        }
        match group.owner {
            Some(owner) if owner != caller.node => Err(Refusal::OwnedBy(owner)),
            // Until F0 step 5 the groups stay with the fenced life, unavailable.
            Some(_) if group.log_epoch == caller.epoch => Ok(group),
            _ => Err(Refusal::NotOwner),
        }
    }

    pub(super) fn close(&mut self, caller: Caller, close: &CloseGroup) -> Result<GroupId, Refusal> {
        let group = self.owned_group(caller, close.group, close.epoch)?;
        let log_epoch = group.log_epoch;
        if close.ends.len() != group.streams.len() {
            return Err(Refusal::Malformed(
                "a close names each stream once".to_owned(),
            ));
        }
        for id in &group.streams {
            let Some((_, end)) = close.ends.iter().find(|(listed, _)| listed == id) else {
                return Err(Refusal::Malformed(
                    "a close names each stream once".to_owned(),
                ));
            };
            let committed_end = self.streams.get(id).map_or(0, |stream| stream.end);
            if *end != committed_end {
                return Err(Refusal::NotSettled {
                    stream: *id,
                    committed_end,
                    end: *end,
                });
            }
        }
        // An unacknowledged record may still lie in this log: the seal says that it does not count (S7).
        for (id, end) in &close.ends {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.sealed.push(SealedEnd {
                    epoch: close.epoch,
                    log_epoch,
                    end: *end,
                });
            }
        }
        if let Some(group) = self.groups.get_mut(&close.group) {
            group.owner = None;
        }
        self.disown(caller, close.group);
        Ok(close.group)
    }

    pub(super) fn trim(&mut self, caller: Caller, trim: &TrimStream) -> Result<u64, Refusal> {
        let stream = self.streams.get(&trim.stream).ok_or(Refusal::NotFound)?;
        self.owned_group(caller, stream.group, trim.epoch)?;
        let stream = self
            .streams
            .get_mut(&trim.stream)
            .ok_or(Refusal::NotFound)?;
        stream.start = stream.start.max(trim.start);
        // What is trimmed needs no commit: the next range continues where the stream now starts.
        stream.end = stream.end.max(stream.start);
        Ok(stream.start)
    }

    pub(super) fn destroy(
        &mut self,
        caller: Caller,
        id: GroupId,
        epoch: StreamEpoch,
    ) -> Result<GroupId, Refusal> {
        let group = self.groups.get(&id).ok_or(Refusal::NotFound)?;
        match group.owner {
            Some(_) => drop(self.owned_group(caller, id, epoch)?),
            None if group.epoch != epoch => return Err(Refusal::StaleEpoch(group.epoch)),
            None => {}
        }
        let group = self.groups.remove(&id).ok_or(Refusal::NotFound)?;
        for stream in &group.streams {
            self.streams.remove(stream);
        }
        for tag in group.tags {
            if let Some(tagged) = self.tags.get_mut(&tag) {
                tagged.remove(&id);
                if tagged.is_empty() {
                    self.tags.remove(&tag);
                }
            }
        }
        self.disown(caller, id);
        Ok(id)
    }

    fn disown(&mut self, caller: Caller, id: GroupId) {
        if let Some(owned) = self.owned.get_mut(&caller.node) {
            owned.remove(&id);
            if owned.is_empty() {
                self.owned.remove(&caller.node);
            }
        }
    }
}

impl Group {
    fn give_to(&mut self, caller: Caller) {
        self.owner = Some(caller.node);
        self.epoch = StreamEpoch::new(self.epoch.get() + 1);
        self.log_epoch = caller.epoch;
    }
}
