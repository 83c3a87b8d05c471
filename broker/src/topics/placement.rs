//! Which nodes a partition is on. Every node of this broker serves every partition, so this is what clients are told, and
//! nothing moves when it changes.
//!
//! The first node of a partition is its leader. `1 <= nodes of a partition <= nodes of the broker`: more replicas than there
//! are nodes may be asked for, and are kept for the day when there are more.

use std::ops::Range;

/// What a topic's creator asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placement {
    /// The replication factor.
    pub(crate) replicas: u16,
    /// The nodes of each partition, where the creator chose them himself; fewer than partitions if others were added.
    pub(crate) assigned: Vec<Vec<i32>>,
}

impl Default for Placement {
    fn default() -> Self {
        Self::replicated(1)
    }
}

impl Placement {
    pub(crate) const fn replicated(replicas: u16) -> Self {
        Self {
            replicas,
            assigned: Vec::new(),
        }
    }

    /// The nodes of a partition, its leader first, out of those there are. Partitions of a topic take turns, and topics begin
    /// at different nodes: `seed` is any number that a topic keeps.
    pub(crate) fn nodes(&self, seed: u64, partition: usize, there: Range<i32>) -> Vec<i32> {
        let assigned = self.assigned.get(partition).into_iter().flatten();
        let assigned: Vec<i32> = assigned.copied().filter(|id| there.contains(id)).collect();
        if !assigned.is_empty() {
            return assigned;
        }
        let count = there.len().max(1) as u64;
        let first = seed.wrapping_add(partition as u64);
        let replicas = u64::from(self.replicas).clamp(1, count);
        (0..replicas)
            .map(|replica| there.start + (first.wrapping_add(replica) % count) as i32)
            .collect()
    }

    /// Lets these partitions be on these nodes; those between keep the places they have now.
    pub(crate) fn assign(&mut self, partition: usize, nodes: Vec<i32>) {
        if self.assigned.len() <= partition {
            self.assigned.resize(partition + 1, Vec::new());
        }
        self.assigned[partition] = nodes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_take_turns_and_stay_where_they_are() {
        let placement = Placement::replicated(2);
        let leaders = |seed| -> Vec<Vec<i32>> {
            (0..4)
                .map(|index| placement.nodes(seed, index, 1..4))
                .collect()
        };
        assert_eq!(leaders(0), [[1, 2], [2, 3], [3, 1], [1, 2]]);
        assert_eq!(leaders(1), [[2, 3], [3, 1], [1, 2], [2, 3]]);
        // The largest number that a topic may keep.
        assert_eq!(placement.nodes(u64::MAX, 1, 1..4).len(), 2);
    }

    #[test]
    fn more_replicas_than_nodes_are_on_every_node_once() {
        let placement = Placement::replicated(3);
        assert_eq!(placement.nodes(7, 0, 5..6), [5]);
        let mut nodes = placement.nodes(7, 0, 5..7);
        nodes.sort_unstable();
        assert_eq!(nodes, [5, 6]);
    }

    #[test]
    fn assigned_nodes_that_are_there_are_taken_in_their_order() {
        let mut placement = Placement::replicated(2);
        placement.assign(1, vec![3, 1]);
        assert_eq!(placement.nodes(0, 0, 1..4), [1, 2]);
        assert_eq!(placement.nodes(0, 1, 1..4), [3, 1]);
        assert_eq!(placement.nodes(0, 1, 1..3), [1]);
        // None of them is there any more.
        assert_eq!(placement.nodes(0, 1, 7..9), [8, 7]);
    }
}
