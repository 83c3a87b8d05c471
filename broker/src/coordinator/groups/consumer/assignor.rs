//! Who gets which partition: the assignors of the server. Both are pure, and give every partition that somebody reads to
//! exactly one of its readers.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Partitions;

/// What members may ask for. The first is taken if nobody asks for one.
pub(crate) const ASSIGNORS: [&str; 2] = ["uniform", "range"];
/// How often [`uniform`] goes through the topics, each time with less left to do.
const ROUNDS_MAX: usize = 100;

/// A member, as an assignor sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader<'a> {
    /// What it is sorted by: a static member's place does not change when it comes again.
    pub(super) name: &'a str,
    pub(super) topics: BTreeSet<Uuid>,
    /// What it was to have before.
    pub(super) before: Option<&'a Partitions>,
}

/// What each reader gets, given how many partitions the topics have.
pub(super) fn assign(
    assignor: &str,
    readers: &[Reader<'_>],
    counts: &BTreeMap<Uuid, i32>,
) -> Vec<Partitions> {
    match assignor {
        "range" => range(readers, counts),
        _ => uniform(readers, counts),
    }
}

/// Readers by topic, as places in the list.
fn by_topic(readers: &[Reader<'_>]) -> BTreeMap<Uuid, Vec<usize>> {
    let mut by_topic: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (place, reader) in readers.iter().enumerate() {
        for topic in &reader.topics {
            by_topic.entry(*topic).or_default().push(place);
        }
    }
    by_topic
}

/// Of each topic, every reader gets a run of partitions, the first ones a longer one.
fn range(readers: &[Reader<'_>], counts: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut shares = vec![Partitions::new(); readers.len()];
    for (topic, mut places) in by_topic(readers) {
        places.sort_by_key(|place| readers[*place].name);
        let count = usize::try_from(counts.get(&topic).copied().unwrap_or(0)).unwrap_or(0);
        let (each, longer) = (count / places.len(), count % places.len());
        let mut next = 0;
        for (index, place) in places.into_iter().enumerate() {
            let end = next + each + usize::from(index < longer);
            let run = (next..end).filter_map(|partition| i32::try_from(partition).ok());
            let run: BTreeSet<i32> = run.collect();
            if !run.is_empty() {
                shares[place].insert(topic, run);
            }
            next = end;
        }
    }
    shares
}

/// What one reader has so far.
#[derive(Clone, Debug, Default)]
struct Share {
    partitions: Partitions,
    load: usize,
}

/// Everybody keeps what they had, what is free goes to whoever has least, and then whoever has too much gives to whoever
/// has least: readers of the same topics end within one partition of each other, and no partition moves without need.
fn uniform(readers: &[Reader<'_>], counts: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut shares = vec![Share::default(); readers.len()];
    let by_topic = by_topic(readers);
    let mut free: BTreeMap<Uuid, BTreeSet<i32>> = by_topic
        .keys()
        .map(|topic| {
            let count = counts.get(topic).copied().unwrap_or(0);
            (*topic, (0..count).collect())
        })
        .collect();
    for (reader, share) in readers.iter().zip(&mut shares) {
        for (topic, partitions) in reader.before.into_iter().flatten() {
            let Some(free) = free
                .get_mut(topic)
                .filter(|_| reader.topics.contains(topic))
            else {
                continue;
            };
            for partition in partitions
                .iter()
                .filter(|partition| free.remove(*partition))
            {
                share.add(*topic, *partition);
            }
        }
    }
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for (topic, places) in &by_topic {
            let free = free.remove(topic).unwrap_or_default();
            moved |= settle(*topic, places, free, &mut shares);
        }
        if !moved {
            break;
        }
    }
    shares.into_iter().map(|share| share.partitions).collect()
}

/// Gives away what is free of a topic, and evens out among its readers. `false` if nothing has changed. It ends: a move
/// makes two loads more alike.
fn settle(topic: Uuid, places: &[usize], free: BTreeSet<i32>, shares: &mut [Share]) -> bool {
    let mut moved = !free.is_empty();
    let loads = places.iter().map(|place| (shares[*place].load, *place));
    let mut by_load: BTreeSet<(usize, usize)> = loads.collect();
    for partition in free {
        let Some((load, place)) = by_load.pop_first() else {
            break;
        };
        shares[place].add(topic, partition);
        by_load.insert((load + 1, place));
    }
    while let Some(&(least, taker)) = by_load.first() {
        let mut givers = by_load.iter().rev().copied();
        let mut givers = givers.by_ref().take_while(|(load, _)| *load >= least + 2);
        let Some((load, giver, partition)) = givers.find_map(|(load, place)| {
            let last = shares[place].partitions.get(&topic)?.last()?;
            Some((load, place, *last))
        }) else {
            break;
        };
        shares[giver].remove(topic, partition);
        shares[taker].add(topic, partition);
        by_load.remove(&(load, giver));
        by_load.remove(&(least, taker));
        by_load.extend([(load - 1, giver), (least + 1, taker)]);
        moved = true;
    }
    moved
}

impl Share {
    fn add(&mut self, topic: Uuid, partition: i32) {
        self.partitions.entry(topic).or_default().insert(partition);
        self.load += 1;
    }

    fn remove(&mut self, topic: Uuid, partition: i32) {
        if let Some(partitions) = self.partitions.get_mut(&topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.partitions.remove(&topic);
            }
        }
        self.load -= 1;
    }
}

#[cfg(test)]
mod tests;
