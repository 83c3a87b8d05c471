//! Both assignors, over members and topics at random and by example.

use proptest::prelude::*;

use super::*;

fn topic(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn reader<'a>(name: &'a str, topics: &[u128], before: Option<&'a Partitions>) -> Reader<'a> {
    Reader {
        name,
        topics: topics.iter().copied().map(topic).collect(),
        before,
    }
}

fn share(of: &[(u128, &[i32])]) -> Partitions {
    let of = of.iter();
    of.map(|(number, partitions)| (topic(*number), partitions.iter().copied().collect()))
        .collect()
}

fn counts(of: &[(u128, i32)]) -> BTreeMap<Uuid, i32> {
    of.iter().map(|(number, n)| (topic(*number), *n)).collect()
}

#[test]
fn range_gives_runs_and_the_first_by_name_the_longer_ones() {
    let readers = [
        reader("b", &[1, 2], None),
        reader("a", &[1], None),
        reader("c", &[1, 3], None),
    ];
    let shares = assign("range", &readers, &counts(&[(1, 5), (2, 1)]));
    assert_eq!(shares[1], share(&[(1, &[0, 1])]));
    assert_eq!(shares[0], share(&[(1, &[2, 3]), (2, &[0])]));
    // There is no topic 3.
    assert_eq!(shares[2], share(&[(1, &[4])]));
}

#[test]
fn uniform_evens_out_and_moves_no_more_than_it_must() {
    let before = share(&[(1, &[0, 1, 2, 3, 4, 5])]);
    let readers = [reader("a", &[1], Some(&before)), reader("b", &[1], None)];
    let shares = assign("uniform", &readers, &counts(&[(1, 7)]));
    assert_eq!(shares[0], share(&[(1, &[0, 1, 2, 3])]));
    assert_eq!(shares[1], share(&[(1, &[4, 5, 6])]));
    // The other one has gone: what it had comes back, nothing else moves.
    let alone = assign(
        "uniform",
        &[reader("b", &[1], Some(&shares[1]))],
        &counts(&[(1, 7)]),
    );
    assert_eq!(alone[0], share(&[(1, &[0, 1, 2, 3, 4, 5, 6])]));
}

#[test]
fn uniform_takes_from_whoever_reads_more_topics() {
    let readers = [reader("a", &[1, 2], None), reader("b", &[1], None)];
    let shares = assign("uniform", &readers, &counts(&[(1, 4), (2, 4)]));
    assert_eq!(shares[0], share(&[(2, &[0, 1, 2, 3])]));
    assert_eq!(shares[1], share(&[(1, &[0, 1, 2, 3])]));
}

#[test]
fn topics_and_partitions_that_are_gone_are_nobodys() {
    let before = share(&[(1, &[0, 1, 2]), (2, &[0])]);
    let readers = [reader("a", &[1, 2], Some(&before))];
    for assignor in ASSIGNORS {
        let shares = assign(assignor, &readers, &counts(&[(1, 2)]));
        assert_eq!(shares[0], share(&[(1, &[0, 1])]), "{assignor}");
    }
}

proptest! {
    /// Whatever was before: every partition with a reader has one owner, who reads its topic; readers of the same topics
    /// are within one of each other; and what is balanced stays as it is.
    #[test]
    fn every_partition_has_one_reader(
        subscriptions in prop::collection::vec(prop::collection::btree_set(1u128..5, 0..4), 1..8),
        sizes in prop::collection::vec(0i32..9, 4),
        before in prop::collection::vec(prop::collection::vec((1u128..6, 0i32..10), 0..12), 8),
    ) {
        let counts: BTreeMap<Uuid, i32> = (1..5).map(topic).zip(sizes).collect();
        let names: Vec<String> = (0..subscriptions.len()).map(|n| format!("m{n}")).collect();
        let before: Vec<Partitions> = before
            .into_iter()
            .map(|all| {
                let mut partitions = Partitions::new();
                for (number, partition) in all {
                    partitions.entry(topic(number)).or_default().insert(partition);
                }
                partitions
            })
            .collect();
        let readers = |before: &'_ [Partitions]| -> Vec<(String, BTreeSet<Uuid>, Partitions)> {
            subscriptions
                .iter()
                .zip(&names)
                .zip(before)
                .map(|((topics, name), before)| {
                    let topics = topics.iter().copied().map(topic).collect();
                    (name.clone(), topics, before.clone())
                })
                .collect()
        };
        fn view(owned: &[(String, BTreeSet<Uuid>, Partitions)]) -> Vec<Reader<'_>> {
            let owned = owned.iter();
            owned
                .map(|(name, topics, before)| Reader {
                    name,
                    topics: topics.clone(),
                    before: Some(before),
                })
                .collect()
        }
        let first = readers(&before);
        for assignor in ASSIGNORS {
            let shares = assign(assignor, &view(&first), &counts);
            let mut owners: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
            for (share, (_, topics, _)) in shares.iter().zip(&first) {
                for (topic, partitions) in share {
                    prop_assert!(topics.contains(topic) && !partitions.is_empty());
                    for partition in partitions {
                        *owners.entry((*topic, *partition)).or_default() += 1;
                    }
                }
            }
            prop_assert!(owners.values().all(|owners| *owners == 1));
            let read: BTreeSet<Uuid> = first.iter().flat_map(|(_, topics, _)| topics).copied().collect();
            let wanted: i32 = counts.iter().filter(|(topic, _)| read.contains(topic)).map(|(_, n)| *n).sum();
            prop_assert_eq!(owners.len(), wanted as usize);
            if assignor == "uniform" {
                let load = |share: &Partitions| share.values().map(BTreeSet::len).sum::<usize>();
                for (one, (_, topics, _)) in shares.iter().zip(&first) {
                    for (other, (_, others, _)) in shares.iter().zip(&first) {
                        prop_assert!(topics != others || load(one).abs_diff(load(other)) <= 1);
                    }
                }
                let again = readers(&shares);
                prop_assert_eq!(assign(assignor, &view(&again), &counts), shares);
            }
        }
    }
}
