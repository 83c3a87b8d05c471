//! Consumer groups, step by step: what each heartbeat writes and answers, without a log or a clock.

use uuid::Uuid;

use super::*;
use crate::coordinator::groups::{
    Commit, CommitIn, Committed,
    tests::{World, ready, refused},
};

mod changes;
mod model;
mod protocols;

const SESSION_MS: u64 = 45_000;
const REBALANCE_MS: i32 = 60_000;

/// The topics that there are: name, id, partitions.
#[derive(Debug, Default)]
struct Names {
    version: u64,
    topics: BTreeMap<String, (Uuid, i32)>,
    next_id: u128,
}

impl Names {
    /// Makes a topic, makes it anew, or gives it more partitions.
    fn create(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        self.next_id += 1;
        let id = Uuid::from_u128(self.next_id);
        let topic = self.topics.entry(name.into()).or_insert((id, 0));
        topic.1 = partitions;
    }

    fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }
}

impl Catalog for Names {
    fn version(&self) -> u64 {
        self.version
    }

    fn find(&self, name: &str) -> Option<(Uuid, i32)> {
        self.topics.get(name).copied()
    }

    fn select(&self, passes: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
        let names = self.topics.keys();
        names.filter(|name| passes(name)).cloned().collect()
    }
}

/// A coordinator with topics.
struct Room {
    world: World,
    names: Names,
}

impl Room {
    /// With topic "t" of three partitions.
    fn new() -> Self {
        let mut names = Names::default();
        names.create("t", 3);
        let world = World::new();
        Self { world, names }
    }

    fn send(&mut self, beat: &ConsumerHeartbeat) -> Result<Beat, Refusal> {
        let names = &self.names;
        self.world
            .run(|groups, now, out| groups.consumer_heartbeat(beat, names, now, out))
    }

    #[track_caller]
    fn ok(&mut self, beat: &ConsumerHeartbeat) -> Beat {
        self.send(beat).unwrap()
    }

    #[track_caller]
    fn error(&mut self, beat: &ConsumerHeartbeat) -> ResponseError {
        self.send(beat).unwrap_err().error
    }

    fn state(&self) -> &'static str {
        let found = self.world.groups.describe_consumers("g");
        found.map_or("", |group| group.state)
    }

    fn epoch(&self) -> i32 {
        let found = self.world.groups.describe_consumers("g");
        found.map_or(0, |group| group.epoch)
    }

    /// Partitions of a topic.
    fn of(&self, name: &str, partitions: &[i32]) -> Partitions {
        let (id, _) = self.names.find(name).unwrap();
        match partitions {
            [] => Partitions::new(),
            some => Partitions::from([(id, some.iter().copied().collect())]),
        }
    }
}

/// Somebody comes who reads topic "t".
fn join(id: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        version: 1,
        group: "g".into(),
        member_id: id.into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_ms: REBALANCE_MS,
        topics: Some(BTreeSet::from(["t".to_owned()])),
        owned: Some(Partitions::new()),
        ..ConsumerHeartbeat::default()
    }
}

/// Somebody is there, and nothing is new.
fn beat(id: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        version: 1,
        group: "g".into(),
        member_id: id.into(),
        epoch,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_ms: -1,
        ..ConsumerHeartbeat::default()
    }
}

/// As [`beat`], with what it owns.
fn owning(id: &str, epoch: i32, owned: &Partitions) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        owned: Some(owned.clone()),
        ..beat(id, epoch)
    }
}

#[test]
fn whoever_is_alone_gets_everything() {
    let mut room = Room::new();
    let all = room.of("t", &[0, 1, 2]);
    let told = room.ok(&join("a"));
    assert_eq!(
        told,
        Beat {
            member_id: "a".into(),
            epoch: 1,
            heartbeat_ms: 5_000,
            assignment: Some(all.clone()),
        }
    );
    for _ in 0..2 {
        // What has not changed is not told again, unless the member says all it knows.
        assert_eq!(room.ok(&beat("a", 1)).assignment, None);
        assert_eq!(room.ok(&owning("a", 1, &all)).assignment, None);
        let full = ConsumerHeartbeat {
            epoch: 1,
            owned: Some(all.clone()),
            ..join("a")
        };
        assert_eq!(room.ok(&full).assignment, Some(all.clone()));
        assert_eq!((room.state(), room.epoch()), ("Stable", 1));
        room.world.crash();
    }
}

#[test]
fn a_partition_is_given_back_before_another_gets_it() {
    let mut room = Room::new();
    let all = room.of("t", &[0, 1, 2]);
    room.ok(&join("a"));
    let second = room.ok(&join("b"));
    assert_eq!(
        (second.epoch, second.assignment),
        (2, Some(Partitions::new()))
    );
    assert_eq!(room.state(), "Reconciling");
    // The first one hears what it may keep, and stays at its epoch until it has given back.
    let kept = room.of("t", &[0, 1]);
    let told = room.ok(&owning("a", 1, &all));
    assert_eq!((told.epoch, told.assignment), (1, Some(kept.clone())));
    room.world.crash();
    assert_eq!(room.ok(&owning("a", 1, &all)).epoch, 1);
    assert_eq!(room.ok(&beat("b", 2)).assignment, None);
    let told = room.ok(&owning("a", 1, &kept));
    assert_eq!((told.epoch, told.assignment), (2, None));
    room.world.crash();
    let told = room.ok(&beat("b", 2));
    assert_eq!(told.assignment, Some(room.of("t", &[2])));
    assert_eq!(room.state(), "Stable");
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut room = Room::new();
    let told = room.ok(&join("a"));
    assert_eq!(room.ok(&join("a")), told);
    room.ok(&join("b"));
    let kept = room.of("t", &[0, 1]);
    room.ok(&beat("a", 1));
    room.ok(&owning("a", 1, &kept));
    // The answer with epoch 2 is lost, and so are those with later ones.
    for (index, id) in ["c", "d"].iter().enumerate() {
        room.ok(&join(id));
        let again = room.ok(&owning("a", 1, &room.of("t", &[0])));
        assert_eq!(again.assignment, Some(room.of("t", &[0])));
        assert_eq!(again.epoch, 3 + index as i32);
        room.world.crash();
    }
}

#[test]
fn whoever_is_at_another_epoch_begins_anew() {
    let mut room = Room::new();
    let all = room.of("t", &[0, 1, 2]);
    assert_eq!(room.error(&beat("a", 1)), ResponseError::GroupIdNotFound);
    room.ok(&join("a"));
    assert_eq!(room.error(&beat("b", 1)), ResponseError::UnknownMemberId);
    assert_eq!(room.error(&beat("a", 2)), ResponseError::FencedMemberEpoch);
    room.ok(&join("b"));
    room.ok(&beat("a", 1));
    let kept = room.of("t", &[0, 1]);
    assert_eq!(room.ok(&owning("a", 1, &kept)).epoch, 2);
    // The epoch before, but with a partition that it must not have, or without a word about it.
    assert_eq!(
        room.error(&owning("a", 1, &all)),
        ResponseError::FencedMemberEpoch
    );
    assert_eq!(room.error(&beat("a", 1)), ResponseError::FencedMemberEpoch);
    assert_eq!(room.error(&join("a")), ResponseError::FencedMemberEpoch);
}

#[test]
fn whoever_leaves_leaves_everything_to_others() {
    let mut room = Room::new();
    room.ok(&join("a"));
    room.ok(&join("b"));
    let gone = room.ok(&beat("a", -1));
    assert_eq!((gone.epoch, gone.assignment), (-1, None));
    assert_eq!(room.error(&beat("a", -1)), ResponseError::UnknownMemberId);
    assert_eq!(room.state(), "Assigning");
    room.world.crash();
    let told = room.ok(&beat("b", 2));
    assert_eq!(told.epoch, 3);
    assert_eq!(told.assignment, Some(room.of("t", &[0, 1, 2])));
    room.ok(&beat("b", -1));
    assert_eq!(room.state(), "Empty");
}

#[test]
fn f44_a_silent_member_is_taken_out() {
    let mut room = Room::new();
    room.ok(&join("a"));
    room.ok(&join("b"));
    room.world.wait(SESSION_MS - 1);
    room.ok(&beat("b", 2));
    // After a load every session begins anew.
    room.world.crash();
    room.world.wait(SESSION_MS - 1);
    room.ok(&beat("b", 2));
    room.world.wait(1);
    assert_eq!(room.error(&beat("a", 1)), ResponseError::UnknownMemberId);
    let told = room.ok(&beat("b", 2));
    assert_eq!(told.assignment, Some(room.of("t", &[0, 1, 2])));
}

#[test]
fn a_group_may_have_a_session_of_its_own() {
    let mut room = Room::new();
    let own = |beat: ConsumerHeartbeat| ConsumerHeartbeat {
        own_session_ms: Some(6_000),
        own_heartbeat_ms: Some(300),
        ..beat
    };
    room.ok(&join("a"));
    assert_eq!(room.ok(&own(beat("a", 1))).heartbeat_ms, 300);
    room.world.wait(5_999);
    room.ok(&own(beat("a", 1)));
    room.world.wait(6_000);
    assert_eq!(room.error(&beat("a", 1)), ResponseError::UnknownMemberId);
}

#[test]
fn whoever_does_not_give_back_in_time_is_taken_out() {
    let mut room = Room::new();
    let all = room.of("t", &[0, 1, 2]);
    room.ok(&join("a"));
    room.ok(&join("b"));
    room.ok(&owning("a", 1, &all));
    for _ in 0..2 {
        room.world.wait(29_999);
        room.ok(&owning("a", 1, &all));
        room.ok(&beat("b", 2));
    }
    room.world.wait(2);
    assert_eq!(
        room.error(&owning("a", 1, &all)),
        ResponseError::UnknownMemberId
    );
    assert_eq!(room.ok(&beat("b", 2)).assignment, Some(all));
}

#[test]
fn a_static_member_comes_again_to_what_it_had() {
    let mut room = Room::new();
    let named = |mut beat: ConsumerHeartbeat| {
        beat.instance = Some("i".into());
        beat
    };
    let half = room.of("t", &[0, 1]);
    room.ok(&named(join("a")));
    room.ok(&join("b"));
    room.ok(&named(beat("a", 1)));
    room.ok(&named(owning("a", 1, &half)));
    room.ok(&beat("b", 2));
    // It is there: nobody else can be it, but it may say again that it comes if it did not hear the answer.
    assert_eq!(
        room.error(&named(join("x"))),
        ResponseError::UnreleasedInstanceId
    );
    assert_eq!(
        room.error(&named(beat("x", 2))),
        ResponseError::FencedInstanceId
    );
    assert_eq!(
        room.error(&named(beat("x", -2))),
        ResponseError::FencedInstanceId
    );
    // It goes for a while, and nobody gets what it had.
    assert_eq!(room.ok(&named(beat("a", -2))).epoch, -2);
    room.world.crash();
    assert_eq!(room.ok(&beat("b", 2)).assignment, None);
    let told = room.ok(&named(join("a2")));
    assert_eq!((told.epoch, told.assignment), (2, Some(half.clone())));
    assert_eq!(room.epoch(), 2);
    assert_eq!(
        room.error(&named(beat("a", 2))),
        ResponseError::FencedInstanceId
    );
    // Also under the name that it had.
    room.ok(&named(beat("a2", -2)));
    let told = room.ok(&named(join("a2")));
    assert_eq!((told.epoch, told.assignment), (2, Some(half)));
    room.world.crash();
    assert_eq!(room.state(), "Stable");
    // It goes for a while and does not come again.
    room.ok(&named(beat("a2", -2)));
    room.world.wait(SESSION_MS - 1);
    room.ok(&beat("b", 2));
    room.world.wait(1);
    let told = room.ok(&beat("b", 2));
    assert_eq!(told.assignment, Some(room.of("t", &[0, 1, 2])));
    assert_eq!(
        room.error(&named(beat("a2", 2))),
        ResponseError::UnknownMemberId
    );
}

#[test]
fn what_is_not_well_formed_is_refused() {
    let mut room = Room::new();
    room.ok(&join("a"));
    let wrong: [fn(&mut ConsumerHeartbeat); 9] = [
        |beat| beat.group.clear(),
        |beat| beat.member_id.clear(),
        |beat| beat.instance = Some(String::new()),
        |beat| beat.rack = Some(String::new()),
        |beat| beat.epoch = -3,
        |beat| beat.epoch = -2,
        |beat| beat.rebalance_ms = -1,
        |beat| beat.owned = None,
        |beat| beat.topics = None,
    ];
    for (index, wrong) in wrong.iter().enumerate() {
        let mut beat = join("a");
        wrong(&mut beat);
        assert_eq!(room.error(&beat), ResponseError::InvalidRequest, "{index}");
    }
    let mut owns = join("b");
    owns.owned = Some(room.of("t", &[0]));
    assert_eq!(room.error(&owns), ResponseError::InvalidRequest);
    let mut asks = join("b");
    asks.assignor = Some("magic".into());
    assert_eq!(room.error(&asks), ResponseError::UnsupportedAssignor);
    assert_eq!(room.epoch(), 1);
}

#[test]
fn version_0_gives_names_and_reads_no_expressions() {
    let mut room = Room::new();
    let mut old = join("");
    old.version = 0;
    old.fresh_id = "made".into();
    assert_eq!(room.ok(&old).member_id, "made");
    old.topics = Some(BTreeSet::new());
    assert_eq!(room.error(&old), ResponseError::InvalidRequest);
}

#[test]
fn a_group_whose_members_say_too_much_takes_nobody_in() {
    let mut room = Room::new();
    let reading = |id: &str, topics: usize| ConsumerHeartbeat {
        topics: Some((0..topics).map(|n| format!("{n:0249}")).collect()),
        ..join(id)
    };
    room.ok(&reading("a", 40_000));
    assert_eq!(
        room.error(&reading("b", 40_000)),
        ResponseError::GroupMaxSizeReached
    );
    room.ok(&reading("b", 20_000));
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut room = Room::new();
    for id in ["a", "b", "c", "d"] {
        room.ok(&join(id));
    }
    assert_eq!(room.error(&join("e")), ResponseError::GroupMaxSizeReached);
    room.ok(&join("d"));
    room.ok(&beat("a", -1));
    room.ok(&join("e"));
}
