//! ConsumerGroupDescribe: what there is to see of a consumer group.

use super::{
    ConsumerGroup, Partitions,
    member::{Current, Subscription},
};

/// A group and its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribedConsumers {
    pub(crate) state: &'static str,
    pub(crate) epoch: i32,
    pub(crate) target_epoch: i32,
    pub(crate) assignor: String,
    pub(crate) members: Vec<DescribedConsumer>,
}

/// A member: what it said, what it was told, and what it is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribedConsumer {
    pub(crate) id: String,
    pub(crate) subscription: Subscription,
    pub(crate) current: Current,
    pub(crate) target: Partitions,
}

impl ConsumerGroup {
    pub(crate) fn describe(&self) -> DescribedConsumers {
        let members = self.members.iter().map(|(id, member)| DescribedConsumer {
            id: id.clone(),
            subscription: member.subscription.clone(),
            current: member.current.clone(),
            target: self.target.get(id).cloned().unwrap_or_default(),
        });
        DescribedConsumers {
            state: self.state(),
            epoch: self.epoch.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor().to_owned(),
            members: members.collect(),
        }
    }

    fn assignor(&self) -> &'static str {
        let members = self.members.iter();
        let said = members.map(|(id, member)| (id.as_str(), &member.subscription));
        super::heartbeat::preferred(&said.collect())
    }
}
