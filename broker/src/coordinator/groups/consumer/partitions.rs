//! Sets of partitions, by the id of their topic. A topic without partitions is not in a set.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// Partitions by topic.
pub(crate) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// What is in `all` and passes, which is told whether it does topic by topic.
fn select(all: &Partitions, passes: impl Fn(&Uuid, i32) -> bool) -> Partitions {
    let selected = all.iter().map(|(topic, partitions)| {
        let partitions = partitions.iter().copied();
        let partitions: BTreeSet<i32> = partitions.filter(|p| passes(topic, *p)).collect();
        (*topic, partitions)
    });
    selected.filter(|(_, set)| !set.is_empty()).collect()
}

/// Whether a partition is in a set.
pub(super) fn contains(set: &Partitions, topic: &Uuid, partition: i32) -> bool {
    let partitions = set.get(topic);
    partitions.is_some_and(|partitions| partitions.contains(&partition))
}

/// What is in both.
pub(super) fn common(one: &Partitions, other: &Partitions) -> Partitions {
    select(one, |topic, partition| contains(other, topic, partition))
}

/// What is in the first and not in the second.
pub(super) fn without(one: &Partitions, other: &Partitions) -> Partitions {
    select(one, |topic, partition| !contains(other, topic, partition))
}

/// What is in either.
pub(super) fn union(mut one: Partitions, other: &Partitions) -> Partitions {
    for (topic, partitions) in other {
        one.entry(*topic).or_default().extend(partitions);
    }
    one
}

/// Whether all of the first is in the second.
pub(super) fn is_within(one: &Partitions, other: &Partitions) -> bool {
    without(one, other).is_empty()
}

/// Whether nothing is in both.
pub(super) fn is_apart(one: &Partitions, other: &Partitions) -> bool {
    common(one, other).is_empty()
}
