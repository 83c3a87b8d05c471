//! Random commands from several nodes: whatever they ask, the invariants of the state hold after every entry.

use proptest::prelude::*;

use super::*;
use crate::metadata::{
    answer::RangeOutcome,
    command::{CloseGroup, TrimStream},
};

/// A step of a node. Small numbers, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Register,
    Start {
        ends: u64,
        extra: u64,
    },
    Create,
    Open(u64),
    Close {
        group: u64,
        wrong: bool,
    },
    Trim {
        stream: u64,
        start: u64,
    },
    Destroy(u64),
    Commit {
        stream: u64,
        epoch_back: u64,
        at: i64,
        len: u64,
        kind: bool,
    },
    Condemn(u64),
    Collect(u64),
    Forget(u64),
    Retire(u64),
    Leave,
    Repeat,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Register),
        3 => (0..50u64, 0..4u64).prop_map(|(ends, extra)| Step::Start { ends, extra }),
        2 => Just(Step::Create),
        2 => (1..6u64).prop_map(Step::Open),
        2 => (1..6u64, any::<bool>()).prop_map(|(group, wrong)| Step::Close { group, wrong }),
        2 => (1..6u64, 0..30u64).prop_map(|(stream, start)| Step::Trim { stream, start }),
        1 => (1..6u64).prop_map(Step::Destroy),
        8 => (1..6u64, 0..3u64, -3..4i64, 1..6u64, any::<bool>()).prop_map(
            |(stream, epoch_back, at, len, kind)| Step::Commit { stream, epoch_back, at, len, kind }
        ),
        1 => (0..40u64).prop_map(Step::Condemn),
        1 => (0..40u64).prop_map(Step::Collect),
        1 => (0..40u64).prop_map(Step::Forget),
        1 => (0..12u64).prop_map(Step::Retire),
        1 => Just(Step::Leave),
        1 => Just(Step::Repeat),
    ]
}

/// What was true before the entry, to compare with what is true after it.
struct Before {
    state: State,
}

impl Before {
    fn check(&self, after: &State) {
        let before = &self.state;
        for (id, stream) in &after.streams {
            assert!(stream.start <= stream.end);
            assert!(after.groups[&stream.group].streams.contains(id));
            if let Some(old) = before.streams.get(id) {
                assert!(
                    old.start <= stream.start && old.end <= stream.end,
                    "{id} went back"
                );
            } else {
                assert!(id.get() >= before.next.stream, "{id} was given twice");
            }
            let epochs: Vec<_> = stream.sealed.iter().map(|sealed| sealed.epoch).collect();
            assert!(
                epochs.is_sorted()
                    && epochs
                        .iter()
                        .all(|epoch| *epoch <= after.groups[&stream.group].epoch)
            );
            // A seal is written once (W8).
            for sealed in &stream.sealed {
                let old = before.sealed_end(*id, sealed.epoch);
                assert!(old.is_none_or(|old| old == sealed.end));
            }
        }
        for (id, group) in &after.groups {
            if let Some(old) = before.groups.get(id) {
                assert!(old.epoch <= group.epoch);
                // Nobody but the owner, or a later life of it, takes a group from a node (M3).
                if let (Some(old_owner), Some(owner)) = (old.owner, group.owner) {
                    assert_eq!(old_owner, owner);
                }
            }
        }
        for (epoch, debt) in &after.debts {
            if let Some(old) = before.debts.get(epoch) {
                assert!(old.trim <= debt.trim && old.durable_end <= debt.durable_end);
                assert!(old.sealed_end.is_none() || old.sealed_end == debt.sealed_end);
            }
            assert!(debt.trim <= debt.durable_end);
        }
        for id in after.objects.keys() {
            assert!(!after.prepared.contains_key(id) && !after.condemned.contains_key(id));
            assert!(before.objects.contains_key(id) || before.prepared.contains_key(id));
        }
        for id in after.condemned.keys() {
            assert!(!after.prepared.contains_key(id));
        }
        // What is deleted is never referenced again (O4).
        for id in before.condemned.keys() {
            assert!(!after.objects.contains_key(id) && !after.prepared.contains_key(id));
        }
    }
}

/// Every committed offset that was not trimmed is held by exactly one object.
fn check_coverage(state: &State, indexes: &BTreeMap<ObjectId, Vec<StreamRange>>) {
    for (id, stream) in &state.streams {
        let mut held: Vec<Range<u64>> = Vec::new();
        for (object_id, object) in &state.objects {
            match object.kind {
                ObjectKind::Stream if object.streams.0 == *id => held.push(object.offsets.clone()),
                ObjectKind::Stream => {}
                ObjectKind::StreamSet => {
                    let own = indexes[object_id]
                        .iter()
                        .filter(|range| range.stream == *id);
                    held.extend(own.map(|range| object.valid(range)));
                }
            }
        }
        held.retain(|range| !range.is_empty() && range.end > stream.start);
        held.sort_unstable_by_key(|range| range.start);
        let mut at = stream.start;
        for range in held {
            assert!(
                range.start <= at,
                "{id}: nothing holds {at}..{}",
                range.start
            );
            assert!(
                range.start == at || range.start < stream.start || at == stream.start,
                "{id}: {at} is held twice"
            );
            at = range.end;
        }
        assert!(
            at == stream.end || stream.end == stream.start,
            "{id}: held to {at}, committed to {}",
            stream.end
        );
    }
}

struct World {
    cluster: Cluster,
    epochs: BTreeMap<NodeId, NodeEpoch>,
    indexes: BTreeMap<ObjectId, Vec<StreamRange>>,
    last: Option<Body>,
}

impl World {
    fn command(&mut self, node: NodeId, step: &Step) -> Option<Command> {
        let state = &self.cluster.state;
        let epoch = *self.epochs.get(&node)?;
        let group_epoch = |id: u64| {
            state
                .group(GroupId::new(id))
                .map_or(StreamEpoch::new(0), |group| group.epoch)
        };
        Some(match *step {
            Step::Start { ends, extra } => {
                let log = log_of(node);
                let older = state
                    .debts()
                    .filter(|debt| debt.log == log && debt.epoch < epoch);
                let ends = older
                    .map(|debt| {
                        let known = debt.durable_end.max(Position::new(ends));
                        (debt.epoch, debt.sealed_end.unwrap_or(known))
                    })
                    .collect();
                let owned: std::collections::BTreeSet<_> = state.groups_of(node).collect();
                let streams = state.streams_of(&owned).into_iter();
                let streams = streams
                    .map(|id| (id, state.stream(id).unwrap().end + extra))
                    .collect();
                Command::Started(Started {
                    log,
                    start: Position::new(1000),
                    ends,
                    streams,
                })
            }
            Step::Create => Command::CreateGroup(CreateGroup {
                streams: 1,
                tags: vec![],
                open: true,
            }),
            Step::Open(group) => Command::Open {
                groups: vec![GroupId::new(group)],
            },
            Step::Close { group, wrong } => {
                let id = GroupId::new(group);
                let streams = state
                    .group(id)
                    .map(|group| group.streams.clone())
                    .unwrap_or_default();
                let end = |id: StreamId| (id, state.stream(id).unwrap().end + u64::from(wrong));
                let ends = streams.into_iter().map(end).collect();
                Command::Close {
                    groups: vec![CloseGroup {
                        group: id,
                        epoch: group_epoch(group),
                        ends,
                    }],
                }
            }
            Step::Trim { stream, start } => Command::Trim {
                streams: vec![TrimStream {
                    stream: StreamId::new(stream),
                    epoch: group_epoch(stream),
                    start,
                }],
            },
            Step::Destroy(group) => Command::Destroy {
                groups: vec![(GroupId::new(group), group_epoch(group))],
            },
            Step::Commit {
                stream,
                epoch_back,
                at,
                len,
                kind,
            } => {
                let object = *state.prepared(epoch).first()?;
                let id = StreamId::new(stream);
                let end = state.stream(id).map_or(0, |stream| stream.end);
                let start = end.saturating_add_signed(at);
                let epoch = group_epoch(stream).get().saturating_sub(epoch_back);
                let ranges = vec![range(id, epoch, start..start + len)];
                self.indexes.insert(object, ranges.clone());
                let mut commit = set_object(object, node, ranges);
                commit.kind = if kind {
                    ObjectKind::Stream
                } else {
                    ObjectKind::StreamSet
                };
                commit.trim = vec![log_trim(self.epochs[&node], start, start + len)];
                Command::Commit(commit)
            }
            Step::Condemn(object) => Command::Condemn {
                objects: vec![ObjectId::new(object)],
            },
            Step::Collect(object) => {
                let object = ObjectId::new(object);
                let ranges = self.indexes.get(&object).cloned().unwrap_or_default();
                Command::Collect { object, ranges }
            }
            Step::Forget(object) => Command::Forget {
                objects: vec![ObjectId::new(object)],
            },
            Step::Retire(back) => Command::Retire {
                log: log_of(node),
                epochs: vec![NodeEpoch::new(epoch.get().saturating_sub(back))],
            },
            Step::Leave => Command::Leave,
            Step::Register | Step::Repeat => return None,
        })
    }

    fn step(&mut self, node: NodeId, step: &Step) {
        match step {
            Step::Register => {
                if let Outcome::Registered(registered) =
                    self.cluster.try_register(node, log_of(node))
                {
                    self.epochs.insert(node, registered.epoch);
                }
            }
            Step::Repeat => {
                if let Some(body) = self.last.clone() {
                    let before = self.cluster.state.clone();
                    self.cluster.entry(body);
                    let mut after = self.cluster.state.clone();
                    after.tip = before.tip;
                    assert_eq!(after, before, "a repeated batch changed the state");
                }
            }
            step => {
                let Some(command) = self.command(node, step) else {
                    return;
                };
                let epoch = self.epochs[&node];
                let sequence = self
                    .cluster
                    .sequences
                    .get(&(node, epoch))
                    .map_or(1, |last| last + 1);
                let body = Body::Batch(Batch {
                    node,
                    epoch,
                    sequence,
                    commands: vec![command],
                });
                let outcome = self.cluster.entry(body.clone());
                if let Outcome::Answers(answers) = outcome {
                    self.cluster.sequences.insert((node, epoch), sequence);
                    self.last = Some(body);
                    check_answers(&answers);
                }
            }
        }
    }
}

fn check_answers(answers: &[Answer]) {
    for answer in answers {
        if let Answer::Committed(committed) = answer {
            let impossible =
                |(_, outcome): &(u32, RangeOutcome)| matches!(outcome, RangeOutcome::Impossible(_));
            assert!(!committed.settles_all() || !committed.exceptions.iter().any(impossible));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_entry(steps in prop::collection::vec((1..3u64, step()), 1..80)) {
        let mut world = World {
            cluster: Cluster::default(),
            epochs: BTreeMap::new(),
            indexes: BTreeMap::new(),
            last: None,
        };
        // Both nodes serve before the first random step, so that most of them mean something.
        for node in [A, B] {
            let epoch = world.cluster.join(node);
            world.epochs.insert(node, epoch);
            world.cluster.create(node, epoch);
        }
        for (node, step) in steps {
            let before = Before { state: world.cluster.state.clone() };
            world.step(NodeId::new(node), &step);
            before.check(&world.cluster.state);
            check_coverage(&world.cluster.state, &world.indexes);
        }
        let bytes = world.cluster.state.encode();
        let restored = State::decode(&bytes).unwrap();
        prop_assert_eq!(&restored, &world.cluster.state);
        let mut replayed = State::default();
        for entry in &world.cluster.entries {
            replayed.append(entry).unwrap();
        }
        prop_assert_eq!(replayed.encode(), bytes);
    }
}
