//! Object ids from reserved to forgotten: O1, O4.
//!
//! reserved → committed → condemned → forgotten, or reserved → condemned → forgotten; never back.

use std::ops::Range;

use super::{Object, State, apply::Caller};
use crate::{
    NodeEpoch, ObjectId,
    metadata::answer::{Answer, Refusal},
    object::{ObjectKind, StreamRange},
};

const PREPARE_MAX: u32 = 4096;

impl State {
    pub(super) fn prepare(&mut self, caller: Caller, count: u32) -> Answer {
        if count == 0 || count > PREPARE_MAX {
            return Answer::Refused(Refusal::Malformed(format!(
                "prepare of {count} ids, possible are 1 to {PREPARE_MAX}"
            )));
        }
        Answer::Prepared {
            objects: self.reserve(caller.epoch, count),
        }
    }

    pub(super) fn reserve(&mut self, epoch: NodeEpoch, count: u32) -> Range<u64> {
        let objects = self.next.object..self.next.object + u64::from(count);
        self.next.object = objects.end;
        self.prepared
            .extend(objects.clone().map(|object| (ObjectId::new(object), epoch)));
        objects
    }

    /// What a fenced life reserved and did not commit may never be committed.
    pub(super) fn condemn_prepared(&mut self, epoch: NodeEpoch) {
        let index = self.tip.index;
        let condemned = &mut self.condemned;
        self.prepared.retain(|object, by| {
            let keep = *by != epoch;
            if !keep {
                condemned.insert(*object, index);
            }
            keep
        });
    }

    pub(super) fn condemn(&mut self, caller: Caller, id: ObjectId) -> Result<ObjectId, Refusal> {
        if self.condemned.contains_key(&id) {
            return Ok(id);
        }
        if let Some(by) = self.prepared.get(&id) {
            if *by != caller.epoch {
                return Err(Refusal::InUse(*by));
            }
            self.prepared.remove(&id);
        } else {
            let object = self.objects.get(&id).ok_or(Refusal::NotFound)?;
            let live = |stream: &super::StreamState| object.offsets.end > stream.start;
            let referenced = match object.kind {
                ObjectKind::Stream => self.streams.get(&object.streams.0).is_some_and(live),
                // Only its index knows what it holds: see `Collect`.
                ObjectKind::StreamSet => true,
            };
            if referenced {
                return Err(Refusal::Referenced(id));
            }
            self.remove_object(id);
        }
        self.condemned.insert(id, self.tip.index);
        Ok(id)
    }

    pub(super) fn collect(
        &mut self,
        id: ObjectId,
        ranges: &[StreamRange],
    ) -> Result<ObjectId, Refusal> {
        if self.condemned.contains_key(&id) {
            return Ok(id);
        }
        let object = self.objects.get(&id).ok_or(Refusal::NotFound)?;
        let (first, last) = object.streams;
        let whole = ranges.len() == object.ranges as usize
            && ranges.first().is_some_and(|range| range.stream == first)
            && ranges.last().is_some_and(|range| range.stream == last);
        if object.kind != ObjectKind::StreamSet || !whole {
            return Err(Refusal::Malformed(format!("not the index of object {id}")));
        }
        if ranges.iter().any(|range| self.lives(object, range)) {
            return Err(Refusal::Referenced(id));
        }
        self.remove_object(id);
        self.condemned.insert(id, self.tip.index);
        Ok(id)
    }

    /// Whether anything of the range of a stream-set object may still be read.
    fn lives(&self, object: &Object, range: &StreamRange) -> bool {
        let Some(stream) = self.streams.get(&range.stream) else {
            return false;
        };
        let valid = object.valid(range);
        !valid.is_empty() && valid.end > stream.start
    }

    pub(super) fn forget(&mut self, id: ObjectId) -> Result<ObjectId, Refusal> {
        match self.condemned.remove(&id) {
            Some(_) => Ok(id),
            None => Err(Refusal::NotCondemned(id)),
        }
    }

    /// Keeps the derived indexes in step with `objects`.
    pub(super) fn index_object(&mut self, id: ObjectId, object: &Object) {
        match object.kind {
            ObjectKind::StreamSet => {
                self.sets.insert(object.order, id);
            }
            ObjectKind::Stream => {
                self.extents
                    .insert((object.streams.0, object.offsets.start), id);
            }
        }
    }

    fn remove_object(&mut self, id: ObjectId) {
        let Some(object) = self.objects.remove(&id) else {
            return;
        };
        match object.kind {
            ObjectKind::StreamSet => {
                self.sets.remove(&object.order);
            }
            ObjectKind::Stream => {
                self.extents
                    .remove(&(object.streams.0, object.offsets.start));
            }
        }
    }
}

impl Object {
    /// What of a range of its index counts (O6). Every reader of a stream-set object asks this.
    pub fn valid(&self, range: &StreamRange) -> Range<u64> {
        let excepted = self
            .exceptions
            .iter()
            .find(|exception| exception.range == *range);
        excepted.map_or_else(
            || range.offsets.clone(),
            |exception| exception.valid.clone(),
        )
    }
}
