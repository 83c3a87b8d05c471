//! Seeing groups, and deleting them.

use super::*;

fn delete(world: &mut World, group: &str) -> Done {
    world.run(|groups, _, out| groups.delete(group, out))
}

fn delete_offsets(world: &mut World, topics: &[&str]) -> Result<Vec<Done>, ResponseError> {
    let wanted = topics.iter().map(|topic| (topic.to_string(), 0));
    let wanted: Vec<(String, i32)> = wanted.collect();
    world.run(|groups, _, out| groups.delete_offsets("g", &wanted, out))
}

fn commit(world: &mut World, joined: Option<&Joined>, topics: &[&str]) {
    let offsets = topics.iter().map(|topic| {
        let committed = Committed {
            offset: 1,
            ..Committed::default()
        };
        (topic.to_string(), 0, committed)
    });
    let commit = Commit {
        group: "g".into(),
        generation: joined.map_or(-1, |joined| joined.generation),
        member_id: joined.map_or(String::new(), |joined| joined.member_id.clone()),
        instance: None,
        offsets: offsets.collect(),
    };
    let unknown = ResponseError::IllegalGeneration;
    world
        .run(|groups, now, out| groups.commit(commit, CommitIn::Nothing { unknown }, now, out))
        .unwrap();
}

#[test]
fn a_group_that_somebody_is_in_is_not_deleted() {
    // F42.
    let mut world = World::new();
    assert_eq!(delete(&mut world, "g"), Err(ResponseError::GroupIdNotFound));
    let leader = world.one();
    commit(&mut world, Some(&leader), &["t"]);
    assert_eq!(delete(&mut world, "g"), Err(ResponseError::NonEmptyGroup));
    world.leave(&leader.member_id, None).unwrap();
    assert_eq!(delete(&mut world, "g"), Ok(()));
    for _ in 0..2 {
        assert!(world.groups.list().is_empty());
        assert_eq!(world.groups.fetch_offsets("g", None, false), []);
        world.crash();
    }
    // What comes after begins anew.
    assert_eq!(world.one().generation, 1);
}

#[test]
fn offsets_of_a_topic_that_is_read_are_not_deleted() {
    // F42.
    let mut world = World::new();
    let missing = delete_offsets(&mut world, &["t"]);
    assert_eq!(missing, Err(ResponseError::GroupIdNotFound));
    let leader = world.one();
    commit(&mut world, Some(&leader), &["t", "old"]);
    let subscribed = Err(ResponseError::GroupSubscribedToTopic);
    let deleted = delete_offsets(&mut world, &["t", "old", "none"]);
    assert_eq!(deleted, Ok(vec![subscribed, Ok(()), Ok(())]));
    assert_eq!(world.groups.fetch_offsets("g", None, false).len(), 1);
    world.leave(&leader.member_id, None).unwrap();
    assert_eq!(delete_offsets(&mut world, &["t"]), Ok(vec![Ok(())]));
    world.crash();
    assert!(world.groups.fetch_offsets("g", None, false).is_empty());
}

#[test]
fn what_was_read_of_a_deleted_topic_is_forgotten() {
    // F9.
    let mut world = World::new();
    commit(&mut world, None, &["t", "other"]);
    world.run(|groups, _, out| groups.forget_topic("t", out));
    for _ in 0..2 {
        let left = world.groups.fetch_offsets("g", None, false);
        let topics: Vec<&str> = left.iter().map(|left| left.topic.as_str()).collect();
        assert_eq!(topics, ["other"]);
        world.crash();
    }
    world.run(|groups, _, out| groups.forget_topic("other", out));
    assert!(world.groups.list().is_empty());
}

#[test]
fn of_others_than_consumers_it_is_not_known_what_they_read() {
    let mut world = World::new();
    let join = Join {
        protocol_type: "connect".into(),
        ..world.asks("")
    };
    let leader = world.stable(join);
    commit(&mut world, Some(&leader), &["t"]);
    let deleted = delete_offsets(&mut world, &["t"]);
    assert_eq!(deleted, Err(ResponseError::NonEmptyGroup));
}

#[test]
fn a_group_is_seen_as_it_is() {
    // F41.
    let mut world = World::new();
    assert_eq!(world.groups.describe("g"), None);
    let join = world.asks("");
    let mut joined = world.join(join);
    let seen = world.groups.describe("g").unwrap();
    assert_eq!(
        (seen.state, seen.protocol.as_str()),
        ("PreparingRebalance", "")
    );
    assert!(seen.members[0].metadata.is_empty());
    world.wait(DELAY_MS);
    let joined = ready(&mut joined);
    assert_eq!(world.state(), "CompletingRebalance");
    let id = joined.member_id.clone();
    let _synced = world.sync(&joined, &[(&id, b"all")]);
    let seen = world.groups.describe("g").unwrap();
    assert_eq!((seen.state, seen.protocol.as_str()), ("Stable", "range"));
    assert_eq!(seen.protocol_type, "consumer");
    let member = &seen.members[0];
    assert_eq!(member.metadata, subscription("t"));
    assert_eq!(member.assignment, "all");
    assert_eq!(member.client_host, "/127.0.0.1");
    let listed = &world.groups.list()[0];
    assert_eq!(
        (listed.state, listed.protocol_type.as_str()),
        ("Stable", "consumer")
    );
    world.leave(&id, None).unwrap();
    assert_eq!(world.state(), "Empty");
}

#[test]
fn nothing_is_kept_of_a_group_that_nobody_was_ever_in() {
    let mut world = World::new();
    let join = Join {
        needs_id: true,
        ..world.asks("")
    };
    let _told = world.join(join);
    assert_eq!(world.groups.list().len(), 1);
    world.wait(SESSION_MS);
    assert!(world.groups.list().is_empty());
    assert!(world.log.is_empty());
}
