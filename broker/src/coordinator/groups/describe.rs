//! ListGroups and DescribeGroups: what there is to see of groups.

use bytes::Bytes;

use super::{
    Groups,
    consumer::DescribedConsumers,
    group::{Group, State},
};

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
    /// Kafka's word for the protocol of its members.
    pub(crate) kind: &'static str,
}

/// The type of groups whose members agree among themselves.
const CLASSIC: &str = "classic";
/// The type of groups whose assignment the server computes, and what they are for.
const CONSUMER: &str = "consumer";

/// A group and its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Described {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member, with what it said and got while the group is stable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

/// How a group is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) members: usize,
    /// Partitions that it has committed an offset of.
    pub(crate) partitions: usize,
    /// The sum of what it is behind in each.
    pub(crate) lag: u64,
}

impl Groups {
    /// How every group of this partition is doing; `lag` says how far behind an offset is.
    pub(crate) fn standings(&self, lag: impl Fn(&str, i32, i64) -> u64) -> Vec<Standing> {
        let groups = self.groups.values();
        groups
            .map(|group| {
                let offsets = group.offsets.iter();
                let lags = offsets.map(|((topic, partition), kept)| {
                    lag(topic, *partition, kept.committed.offset)
                });
                let consumers = &group.consumer;
                let state = match consumers.exists() {
                    true => consumers.state(),
                    false => group.state.name(),
                };
                Standing {
                    id: group.id.clone(),
                    state,
                    members: group.members.len() + consumers.len(),
                    partitions: group.offsets.len(),
                    lag: lags.sum(),
                }
            })
            .collect()
    }

    /// Every group of this partition.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let groups = self.groups.values();
        groups
            .map(|group| match group.consumer.exists() {
                true => Listed {
                    id: group.id.clone(),
                    protocol_type: CONSUMER.to_owned(),
                    state: group.consumer.state(),
                    kind: CONSUMER,
                },
                false => Listed {
                    id: group.id.clone(),
                    protocol_type: group.protocol_type.clone().unwrap_or_default(),
                    state: group.state.name(),
                    kind: CLASSIC,
                },
            })
            .collect()
    }

    /// A classic group, if there is one.
    pub(crate) fn describe(&self, id: &str) -> Option<Described> {
        let group = self.groups.get(id);
        let classic = group.filter(|group| !group.consumer.exists());
        classic.map(Group::describe)
    }

    /// A consumer group, if there is one.
    pub(crate) fn describe_consumers(&self, id: &str) -> Option<DescribedConsumers> {
        let group = self.groups.get(id);
        let group = group.filter(|group| group.consumer.exists());
        group.map(|group| group.consumer.describe())
    }
}

impl Group {
    fn describe(&self) -> Described {
        let is_stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| is_stable);
        let protocol = protocol.unwrap_or_default();
        let members = self.members.values().map(|member| DescribedMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if is_stable {
                member.metadata(&protocol)
            } else {
                Bytes::new()
            },
            assignment: if is_stable {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        });
        Described {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }
}
