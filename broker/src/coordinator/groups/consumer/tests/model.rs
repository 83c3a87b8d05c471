//! Clients that come and go, lose answers and are slow, a coordinator that crashes, topics that change: no two clients
//! ever own the same partition, and when all is quiet every partition has an owner.

use proptest::prelude::*;

use super::*;

const CLIENTS: usize = 4;
/// A client that has heard nothing for so long takes itself for gone.
const GIVES_UP_MS: u64 = 40_000;

#[derive(Clone, Debug)]
enum Step {
    /// Sends, if it is not gone; the answer may be lost.
    Send {
        client: usize,
        lost: bool,
    },
    /// Lets go of what it was told to.
    Settle {
        client: usize,
    },
    /// Says that it goes, which may be lost on the way.
    Leave {
        client: usize,
        lost: bool,
    },
    /// Goes without a word.
    Vanish {
        client: usize,
    },
    Wait {
        ms: u64,
    },
    /// The coordinator is loaded anew.
    Crash,
    Resize {
        topic: usize,
        partitions: i32,
    },
    Subscribe {
        client: usize,
        topics: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => (client.clone(), prop::bool::weighted(0.2)).prop_map(|(client, lost)| Step::Send { client, lost }),
        6 => client.clone().prop_map(|client| Step::Settle { client }),
        1 => (client.clone(), any::<bool>()).prop_map(|(client, lost)| Step::Leave { client, lost }),
        1 => client.clone().prop_map(|client| Step::Vanish { client }),
        3 => (1u64..20_000).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Crash),
        1 => (0usize..2, 0i32..6).prop_map(|(topic, partitions)| Step::Resize { topic, partitions }),
        1 => (client, 1usize..4).prop_map(|(client, topics)| Step::Subscribe { client, topics }),
    ]
}

/// As a client is: what it knows, and what it takes for its own.
#[derive(Debug, Default)]
struct Client {
    /// It says everything until it has been answered.
    full: bool,
    epoch: i32,
    owned: Partitions,
    told: Partitions,
    /// What it has said that it owns, and was answered.
    said: Option<Partitions>,
    /// Which topics it reads, as bits.
    topics: usize,
    /// Each life has a name of its own.
    lives: usize,
    heard_ms: u64,
}

struct Play {
    room: Room,
    clients: Vec<Client>,
}

const TOPICS: [&str; 2] = ["t", "u"];

impl Play {
    fn new() -> Self {
        let mut room = Room::new();
        room.names.create("u", 2);
        let clients = (0..CLIENTS).map(|_| Client {
            full: true,
            topics: 3,
            ..Client::default()
        });
        let clients = clients.collect();
        Self { room, clients }
    }

    fn now(&self) -> u64 {
        self.room.world.now.mono_ms
    }

    fn id(&self, client: usize) -> String {
        format!("c{client}-{}", self.clients[client].lives)
    }

    fn names(&self, client: usize) -> BTreeSet<String> {
        let bits = self.clients[client].topics;
        let names = TOPICS.iter().enumerate();
        names
            .filter(|(bit, _)| bits & (1 << bit) != 0)
            .map(|(_, name)| (*name).to_owned())
            .collect()
    }

    fn send(&mut self, client: usize, lost: bool) {
        let id = self.id(client);
        let names = self.names(client);
        let now = self.now();
        let one = &mut self.clients[client];
        let mut heartbeat = if one.full {
            ConsumerHeartbeat {
                epoch: one.epoch,
                topics: Some(names),
                owned: Some(one.owned.clone()),
                rebalance_ms: i32::MAX,
                ..join(&id)
            }
        } else {
            beat(&id, one.epoch)
        };
        if one.said.as_ref() != Some(&one.owned) {
            heartbeat.owned = Some(one.owned.clone());
        }
        let said = heartbeat.owned.clone();
        let answer = self.room.send(&heartbeat);
        let one = &mut self.clients[client];
        if lost {
            one.full = true;
            return;
        }
        one.heard_ms = now;
        match answer {
            Ok(told) => {
                one.full = false;
                one.epoch = told.epoch;
                one.said = said.or(one.said.take());
                if let Some(assignment) = told.assignment {
                    for (topic, partitions) in &assignment {
                        one.owned.entry(*topic).or_default().extend(partitions);
                    }
                    one.told = assignment;
                }
            }
            Err(_) => self.begin_anew(client),
        }
    }

    /// It owns nothing any more, and joins when it sends next.
    fn begin_anew(&mut self, client: usize) {
        let (topics, lives) = (self.clients[client].topics, self.clients[client].lives);
        self.clients[client] = Client {
            full: true,
            topics,
            lives,
            heard_ms: self.now(),
            ..Client::default()
        };
    }

    fn settle(&mut self, client: usize) {
        let one = &mut self.clients[client];
        one.owned = partitions::common(&one.owned, &one.told);
    }

    fn wait(&mut self, ms: u64) {
        self.room.world.wait(ms);
        for client in 0..CLIENTS {
            if self.now() - self.clients[client].heard_ms > GIVES_UP_MS {
                self.begin_anew(client);
            }
        }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Send { client, lost } => self.send(client, lost),
            Step::Settle { client } => self.settle(client),
            Step::Leave { client, lost } => {
                if !lost {
                    let id = self.id(client);
                    // It may not be known.
                    let _ = self.room.send(&beat(&id, -1));
                }
                self.begin_anew(client);
                self.clients[client].lives += usize::from(lost);
            }
            Step::Vanish { client } => {
                self.begin_anew(client);
                self.clients[client].lives += 1;
            }
            Step::Wait { ms } => self.wait(ms),
            Step::Crash => self.room.world.crash(),
            Step::Resize { topic, partitions } => {
                let name = TOPICS[topic];
                let now = self.room.names.topics.get(name).map_or(0, |topic| topic.1);
                if partitions == 0 {
                    self.room.names.delete(name);
                } else {
                    self.room.names.create(name, partitions.max(now));
                }
            }
            Step::Subscribe { client, topics } => {
                self.clients[client].topics = topics;
                self.clients[client].full = true;
            }
        }
    }

    fn nothing_is_owned_twice(&self) -> Result<(), TestCaseError> {
        for (index, one) in self.clients.iter().enumerate() {
            for other in &self.clients[index + 1..] {
                let both = partitions::common(&one.owned, &other.owned);
                prop_assert!(both.is_empty(), "{both:?} is owned twice");
            }
        }
        Ok(())
    }

    /// Everybody sends, nothing is lost, and the dead are found dead.
    fn quiet(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..40 {
            for client in 0..CLIENTS {
                self.settle(client);
                self.send(client, false);
                self.nothing_is_owned_twice()?;
            }
            self.wait(5_000);
        }
        Ok(())
    }

    fn everything_is_owned(&self) -> Result<(), TestCaseError> {
        let group = self.room.world.groups.describe_consumers("g").unwrap();
        prop_assert_eq!(group.members.len(), CLIENTS);
        prop_assert_eq!(group.state, "Stable");
        let mut wanted = Partitions::new();
        let mut owned = Partitions::new();
        for client in 0..CLIENTS {
            for name in self.names(client) {
                let Some((id, partitions)) = self.room.names.find(&name) else {
                    continue;
                };
                wanted.insert(id, (0..partitions).collect());
            }
            let (id, one) = (self.id(client), &self.clients[client]);
            owned = partitions::union(owned, &one.owned);
            let member = group.members.iter().find(|member| member.id == id).unwrap();
            prop_assert_eq!(&member.target, &one.owned);
        }
        prop_assert_eq!(owned, wanted);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_partition_is_owned_twice_and_all_are_in_the_end(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut play = Play::new();
        for step in &steps {
            play.play(step);
            play.nothing_is_owned_twice()?;
        }
        play.quiet()?;
        play.everything_is_owned()?;
    }
}
