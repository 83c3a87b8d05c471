//! What may be asked of the state. Reads only; what is returned in an order is returned in that order every time.

use std::{collections::BTreeSet, ops::Range};

use bytes::Bytes;

use super::{Group, KvEntry, Object, State};
use crate::{
    GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId,
    metadata::{
        answer::{Answer, DebtView},
        entry::Tip,
    },
};

/// A stream as of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamView {
    /// Its group.
    pub group: GroupId,
    /// Who may append.
    pub owner: Option<NodeId>,
    /// Its epoch.
    pub epoch: StreamEpoch,
    /// Where it starts.
    pub start: u64,
    /// Its committed end.
    pub end: u64,
}

/// A stream object's piece of its stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The offsets that count.
    pub offsets: Range<u64>,
    /// The object.
    pub object: ObjectId,
    /// Its length in bytes.
    pub size: u64,
}

impl State {
    /// The newest entry it has seen.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// The cluster's feature level (M7).
    pub fn level(&self) -> u32 {
        self.level
    }

    /// A stream.
    pub fn stream(&self, id: StreamId) -> Option<StreamView> {
        let stream = self.streams.get(&id)?;
        let group = self.groups.get(&stream.group)?;
        Some(StreamView {
            group: stream.group,
            owner: group.owner,
            epoch: group.epoch,
            start: stream.start,
            end: stream.end,
        })
    }

    /// Where an ended epoch of a stream ended, as long as a log that may hold its records is owed (S7).
    pub fn sealed_end(&self, id: StreamId, epoch: StreamEpoch) -> Option<u64> {
        let sealed = &self.streams.get(&id)?.sealed;
        let found = sealed.iter().find(|sealed| sealed.epoch == epoch)?;
        Some(found.end)
    }

    /// A group.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// All groups, ascending.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// Groups with a tag, ascending.
    pub fn groups_tagged(&self, key: &str, value: &str) -> impl Iterator<Item = GroupId> {
        let tag = (key.to_owned(), value.to_owned());
        self.tags.get(&tag).into_iter().flatten().copied()
    }

    /// The groups a node owns, ascending.
    pub fn groups_of(&self, node: NodeId) -> impl Iterator<Item = GroupId> {
        self.owned.get(&node).into_iter().flatten().copied()
    }

    /// A node's current epoch, also of one that has left.
    pub fn node_epoch(&self, node: NodeId) -> Option<NodeEpoch> {
        self.nodes.get(&node).map(|node| node.epoch)
    }

    /// Log epochs that may owe data, ascending.
    pub fn debts(&self) -> impl Iterator<Item = DebtView> {
        self.debts.iter().map(|(epoch, debt)| debt.view(*epoch))
    }

    /// A key.
    pub fn kv(&self, key: &[u8]) -> Option<&KvEntry> {
        self.kv.get(key)
    }

    /// All keys with a prefix, ascending.
    pub fn kv_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a KvEntry)> {
        let from = (
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        );
        let all = self.kv.range::<[u8], _>(from);
        all.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// A committed object.
    pub fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects.get(&id)
    }

    /// All committed objects, by id.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        self.objects.iter().map(|(id, object)| (*id, object))
    }

    /// All committed stream-set objects, in commit order: of one stream, in the order of its offsets.
    pub fn stream_sets(&self) -> impl DoubleEndedIterator<Item = (ObjectId, &Object)> {
        let object = |id: &ObjectId| Some((*id, self.objects.get(id)?));
        self.sets.values().filter_map(object)
    }

    /// The stream objects that hold anything of `offsets`, ascending.
    pub fn extents(&self, stream: StreamId, offsets: Range<u64>) -> Vec<Extent> {
        // The one before the first that starts inside may reach into it.
        let before = self
            .extents
            .range((stream, 0)..(stream, offsets.start))
            .next_back();
        let inside = self
            .extents
            .range((stream, offsets.start)..(stream, offsets.end.max(offsets.start)));
        let extent = |id: &ObjectId| {
            let object = self.objects.get(id)?;
            Some(Extent {
                offsets: object.offsets.clone(),
                object: *id,
                size: object.size,
            })
        };
        let all = before.into_iter().chain(inside);
        all.filter_map(|(_, id)| extent(id))
            .filter(|extent| extent.offsets.end > offsets.start && !offsets.is_empty())
            .collect()
    }

    /// Reserved ids of a node epoch, ascending.
    pub fn prepared(&self, epoch: NodeEpoch) -> Vec<ObjectId> {
        let own = self.prepared.iter().filter(|(_, by)| **by == epoch);
        own.map(|(id, _)| *id).collect()
    }

    /// Ids that may be deleted after a grace and then forgotten (O4), ascending, with the index of the entry that condemned each.
    pub fn condemned(&self) -> impl Iterator<Item = (ObjectId, u64)> {
        self.condemned.iter().map(|(id, index)| (*id, *index))
    }

    /// Objects in none of the state's sets although their id was reserved: what is left of forgotten ones.
    /// An id at or above this was never reserved.
    pub fn next_object(&self) -> ObjectId {
        ObjectId::new(self.next.object)
    }

    /// The answers kept of a node's last batch, with its sequence.
    pub fn last_answers(&self, node: NodeId) -> Option<(u64, &[Answer])> {
        let node = self.nodes.get(&node)?;
        Some((node.sequence, &node.answers))
    }

    /// Nodes that are registered and have not left, with their epochs.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, NodeEpoch)> {
        let live = self.nodes.iter().filter(|(_, node)| !node.left);
        live.map(|(id, node)| (*id, node.epoch))
    }

    /// Streams of a set of groups.
    pub fn streams_of(&self, groups: &BTreeSet<GroupId>) -> Vec<StreamId> {
        let found = groups.iter().filter_map(|id| self.groups.get(id));
        found
            .flat_map(|group| group.streams.iter().copied())
            .collect()
    }
}
