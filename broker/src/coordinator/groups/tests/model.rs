//! Random clients of one group, with crashes in between: whatever they do, what must hold does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    JoinStatic(usize),
    Sync(usize),
    Beat(usize),
    Leave(usize),
    Commit(usize, i64),
    Wait(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..5usize;
    prop_oneof![
        4 => client.clone().prop_map(Step::Join),
        2 => client.clone().prop_map(Step::JoinStatic),
        5 => client.clone().prop_map(Step::Sync),
        3 => client.clone().prop_map(Step::Beat),
        1 => client.clone().prop_map(Step::Leave),
        2 => (client, 0..1000i64).prop_map(|(client, offset)| Step::Commit(client, offset)),
        3 => (1..SESSION_MS).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

/// A client as it sees itself.
#[derive(Default)]
struct Client {
    joining: Option<Pending<Joined>>,
    syncing: Option<Pending<Synced>>,
    joined: Option<Joined>,
    /// What it holds, and since which generation.
    holds: Option<(i32, Bytes)>,
}

struct Model {
    world: World,
    clients: Vec<Client>,
    /// The leader of each generation that anybody has heard of.
    leaders: BTreeMap<i32, String>,
    /// The members that the leader of a generation was told.
    told: BTreeMap<i32, BTreeSet<String>>,
    /// What the leader of a generation gave out.
    given: BTreeMap<i32, BTreeMap<String, Bytes>>,
    acknowledged: Option<i64>,
}

impl Model {
    fn new() -> Self {
        Self {
            // Nothing is forgotten for being old.
            world: World::with(Settings {
                retention_ms: i64::MAX,
                ..settings()
            }),
            clients: (0..5).map(|_| Client::default()).collect(),
            leaders: BTreeMap::new(),
            told: BTreeMap::new(),
            given: BTreeMap::new(),
            acknowledged: None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(client) => self.join(client, None),
            Step::JoinStatic(client) => self.join(client, Some(format!("i{client}"))),
            Step::Sync(client) => self.sync(client),
            Step::Beat(client) => {
                if let Some(joined) = self.clients[client].joined.clone() {
                    let beat = self.world.beat(&joined);
                    self.heard(client, beat);
                }
            }
            Step::Leave(client) => {
                if let Some(joined) = self.clients[client].joined.take() {
                    let _ = self.world.leave(&joined.member_id, None);
                    self.clients[client].holds = None;
                }
            }
            Step::Commit(client, offset) => self.commit(client, offset),
            Step::Wait(ms) => self.world.wait(ms),
            Step::Crash => {
                self.world.crash();
                // Generations without a record are forgotten, and their numbers are used again.
                let last = self.world.groups.groups.get("g");
                let next = last.map_or(0, |group| group.generation) + 1;
                self.leaders.split_off(&next);
                self.told.split_off(&next);
                self.given.split_off(&next);
                // Connections end: whoever waited asks again.
                for client in &mut self.clients {
                    (client.joining, client.syncing) = (None, None);
                }
            }
        }
        self.collect();
        self.check();
    }

    fn join(&mut self, client: usize, instance: Option<String>) {
        let known = self.clients[client].joined.as_ref();
        let id = match &instance {
            // It has begun anew.
            Some(_) => String::new(),
            None => known
                .map(|joined| joined.member_id.clone())
                .unwrap_or_default(),
        };
        let join = Join {
            instance,
            ..self.world.asks(&id)
        };
        let pending = self.world.join(join);
        let client = &mut self.clients[client];
        client.holds = None;
        client.joining = Some(pending);
        client.syncing = None;
    }

    fn sync(&mut self, client: usize) {
        let Some(joined) = self.clients[client].joined.clone() else {
            return;
        };
        let mut assignments = BTreeMap::new();
        if joined.leader == joined.member_id {
            for member in &joined.members {
                let bytes = format!("{}:{}", joined.generation, member.id);
                assignments.insert(member.id.clone(), Bytes::from(bytes));
            }
        }
        let sync = Sync {
            group: "g".into(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            assignments: assignments.clone().into_iter().collect(),
            ..Sync::default()
        };
        let before = self.world.state();
        self.clients[client].syncing = Some(self.world.ask_sync(sync));
        if (before, self.world.state()) == ("CompletingRebalance", "Stable") {
            self.given.insert(joined.generation, assignments);
        }
    }

    fn commit(&mut self, client: usize, offset: i64) {
        let Some(joined) = self.clients[client].joined.clone() else {
            return;
        };
        let committed = Committed {
            offset,
            ..Committed::default()
        };
        let commit = Commit {
            group: "g".into(),
            generation: joined.generation,
            member_id: joined.member_id,
            instance: None,
            offsets: vec![("t".into(), 0, committed)],
        };
        let unknown = ResponseError::IllegalGeneration;
        let done = self
            .world
            .run(|groups, now, out| groups.commit(commit, CommitIn::Nothing { unknown }, now, out));
        if done.is_ok() {
            self.acknowledged = Some(offset);
        }
        self.heard(client, done);
    }

    /// A member that is none any more, or not of this generation, holds nothing.
    fn heard(&mut self, client: usize, done: Done) {
        let client = &mut self.clients[client];
        match done {
            Ok(()) | Err(ResponseError::RebalanceInProgress) => {}
            Err(ResponseError::IllegalGeneration) => client.holds = None,
            Err(_) => (client.joined, client.holds) = (None, None),
        }
    }

    /// Clients take the answers that are there.
    fn collect(&mut self) {
        for client in &mut self.clients {
            let joined = client.joining.as_mut().and_then(Pending::now);
            if let Some(Ok(joined)) = joined {
                client.joining = None;
                match joined.error {
                    None => {
                        let leader = &joined.leader;
                        let first = self.leaders.entry(joined.generation);
                        let is_first =
                            matches!(first, std::collections::btree_map::Entry::Vacant(_));
                        let first = first.or_insert_with(|| leader.clone());
                        // One generation, one leader; a leader that was replaced is the one exception.
                        assert!(
                            is_first
                                || first == leader
                                || joined.skip_assignment
                                || joined.members.is_empty()
                        );
                        if !joined.members.is_empty() && !joined.skip_assignment {
                            let members = joined.members.iter().map(|m| m.id.clone());
                            self.told
                                .entry(joined.generation)
                                .or_insert_with(|| members.collect());
                        }
                        client.joined = Some(joined);
                    }
                    Some(_) => client.joined = None,
                }
            }
            let synced = client.syncing.as_mut().and_then(Pending::now);
            if let Some(Ok(synced)) = synced {
                client.syncing = None;
                if synced.error.is_none()
                    && let Some(joined) = &client.joined
                {
                    client.holds = Some((joined.generation, synced.assignment));
                }
            }
        }
    }

    fn check(&mut self) {
        let group = self.world.groups.describe("g");
        let generation = self.world.groups.groups.get("g").map(|g| g.generation);
        // Whoever holds something of the current generation was given it by that generation's leader, and nobody else
        // holds the same.
        let mut held = BTreeSet::new();
        for client in &self.clients {
            let Some((since, bytes)) = &client.holds else {
                continue;
            };
            if bytes.is_empty() || Some(*since) != generation {
                continue;
            }
            let given = self.given.get(since).expect("somebody gave it");
            assert!(given.values().any(|known| known == bytes), "{bytes:?}");
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let (_, to) = text.split_once(':').unwrap();
            let told = self.told.get(since);
            assert!(told.is_none_or(|told| told.contains(to)), "{to}");
            assert!(held.insert(text.clone()), "{text} is held twice");
        }
        // What was acknowledged is there.
        if self.acknowledged.is_some() {
            let wanted = Some(vec![("t".to_owned(), 0)]);
            let found = self.world.groups.fetch_offsets("g", wanted, true).remove(0);
            let found = found.found.unwrap().map(|found| found.offset);
            assert_eq!(found, self.acknowledged);
        }
        // Nobody waits in a group that is at rest, and nothing is overdue.
        if let Some(group) = group {
            let inside = &self.world.groups.groups["g"];
            match group.state {
                "Stable" => assert!(
                    inside
                        .members
                        .values()
                        .all(|m| m.joining.is_none() && m.syncing.is_none())
                ),
                "Empty" => assert!(inside.members.is_empty()),
                "PreparingRebalance" => assert!(inside.join_deadline.is_some()),
                _ => assert!(
                    inside.sync_deadline.is_some() || inside.members.values().all(|m| m.synced)
                ),
            }
            if !inside.members.is_empty() {
                let leader = inside
                    .leader
                    .as_ref()
                    .expect("a group with members has a leader");
                assert!(inside.members.contains_key(leader));
                assert!(inside.timer.is_some());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_group_keeps_its_promises(steps in proptest::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        // Left alone, everybody is gone, and nobody waits for ever.
        model.world.wait(2 * (REBALANCE_MS + 300_000));
        prop_assert!(["Empty", "Dead"].contains(&model.world.state()));
        for client in &mut model.clients {
            for pending in client.joining.iter_mut() {
                prop_assert!(pending.now().is_some());
            }
            for pending in client.syncing.iter_mut() {
                prop_assert!(pending.now().is_some());
            }
        }
        let mut again = Model::new().world;
        std::mem::swap(&mut again.log, &mut model.world.log);
        again.crash();
        let found = again.groups.fetch_offsets("g", Some(vec![("t".into(), 0)]), true).remove(0);
        prop_assert_eq!(found.found.unwrap().map(|found| found.offset), model.acknowledged);
    }
}
