//! Classic groups and consumer groups under one name, and offsets of consumer groups.

use super::*;

fn commit(room: &mut Room, member: &str, epoch: i32, unknown: ResponseError) -> Done {
    let commit = Commit {
        group: "g".into(),
        generation: epoch,
        member_id: member.into(),
        instance: None,
        offsets: vec![("t".into(), 0, Committed::default())],
    };
    let within = CommitIn::Nothing { unknown };
    let world = &mut room.world;
    world.run(|groups, now, out| groups.commit(commit, within, now, out))
}

const NEW: ResponseError = ResponseError::GroupIdNotFound;
const OLD: ResponseError = ResponseError::IllegalGeneration;

#[test]
fn members_commit_and_fetch_at_their_epoch() {
    let mut room = Room::new();
    room.ok(&join("a"));
    assert_eq!(commit(&mut room, "a", 1, NEW), Ok(()));
    assert_eq!(
        commit(&mut room, "a", 0, NEW),
        Err(ResponseError::StaleMemberEpoch)
    );
    assert_eq!(
        commit(&mut room, "a", 1, OLD),
        Err(ResponseError::UnsupportedVersion)
    );
    assert_eq!(
        commit(&mut room, "x", 1, NEW),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(
        commit(&mut room, "", -1, NEW),
        Err(ResponseError::UnknownMemberId)
    );
    let groups = &room.world.groups;
    assert_eq!(groups.check_fetch("g", Some("a"), 1), Ok(()));
    assert_eq!(groups.check_fetch("g", None, -1), Ok(()));
    assert_eq!(groups.check_fetch("none", Some("a"), 1), Ok(()));
    let stale = groups.check_fetch("g", Some("a"), 2);
    assert_eq!(stale, Err(ResponseError::StaleMemberEpoch));
    let unknown = groups.check_fetch("g", Some("x"), 1);
    assert_eq!(unknown, Err(ResponseError::UnknownMemberId));
    // Nobody is in it: tools set offsets.
    room.ok(&beat("a", -1));
    assert_eq!(commit(&mut room, "", -1, OLD), Ok(()));
}

#[test]
fn offsets_of_a_consumer_group_are_kept_as_long_as_somebody_reads() {
    let mut room = Room::new();
    room.ok(&join("a"));
    assert_eq!(commit(&mut room, "a", 1, NEW), Ok(()));
    let wanted = [("t".to_owned(), 0), ("u".to_owned(), 0)];
    let deleted = room
        .world
        .run(|groups, _, out| groups.delete_offsets("g", &wanted, out));
    assert_eq!(
        deleted.unwrap(),
        [Err(ResponseError::GroupSubscribedToTopic), Ok(())]
    );
    let deleted = room.world.run(|groups, _, out| groups.delete("g", out));
    assert_eq!(deleted, Err(ResponseError::NonEmptyGroup));
    for _ in 0..40 {
        room.world.wait(44_000);
        room.ok(&beat("a", 1));
    }
    let kept = |room: &Room| room.world.groups.fetch_offsets("g", None, false).len();
    assert_eq!(kept(&room), 1);
    // Then it goes, and the group with it.
    room.ok(&beat("a", -1));
    room.world.wait(1_200_000);
    assert_eq!((kept(&room), room.state()), (0, ""));
    room.world.crash();
    assert!(room.world.groups.list().is_empty());
}

#[test]
fn a_consumer_group_that_is_deleted_leaves_nothing() {
    let mut room = Room::new();
    room.ok(&join("a"));
    commit(&mut room, "a", 1, NEW).unwrap();
    room.ok(&beat("a", -1));
    let deleted = room.world.run(|groups, _, out| groups.delete("g", out));
    assert_eq!(deleted, Ok(()));
    for _ in 0..2 {
        assert!(room.world.groups.list().is_empty());
        room.world.crash();
    }
    assert_eq!(room.ok(&join("a")).epoch, 1);
}

#[test]
fn a_group_with_members_keeps_its_protocol() {
    let mut room = Room::new();
    room.ok(&join("a"));
    let asks = room.world.asks("");
    let refusal = refused(&mut room.world.join(asks));
    assert_eq!(refusal, ResponseError::InconsistentGroupProtocol);
    let listed = room.world.groups.list();
    let (kind, state) = (listed[0].kind, listed[0].state);
    assert_eq!(
        (kind, state, listed[0].protocol_type.as_str()),
        ("consumer", "Stable", "consumer")
    );
    assert_eq!(room.world.groups.describe("g"), None);

    let mut room = Room::new();
    room.world.one();
    assert_eq!(room.error(&join("a")), ResponseError::GroupIdNotFound);
    assert_eq!(room.world.groups.describe_consumers("g"), None);
    assert_eq!(room.world.groups.list()[0].kind, "classic");
}

#[test]
fn an_empty_group_takes_the_other_protocol_and_keeps_its_offsets() {
    let mut room = Room::new();
    room.ok(&join("a"));
    commit(&mut room, "a", 1, NEW).unwrap();
    room.ok(&beat("a", -1));
    // Classic now.
    let asks = room.world.asks("");
    let mut joined = room.world.join(asks);
    room.world.wait(3_000);
    let joined = ready(&mut joined);
    room.world.sync(&joined, &[]);
    let kept = |room: &Room| room.world.groups.fetch_offsets("g", None, false).len();
    for _ in 0..2 {
        assert_eq!((room.world.state(), kept(&room)), ("Stable", 1));
        assert_eq!(room.world.groups.describe_consumers("g"), None);
        room.world.crash();
    }
    // And back.
    room.world.leave(&joined.member_id, None).unwrap();
    assert_eq!(room.ok(&join("b")).epoch, 1);
    for _ in 0..2 {
        assert_eq!((room.state(), kept(&room)), ("Stable", 1));
        assert_eq!(room.world.groups.describe("g"), None);
        room.world.crash();
    }
}

#[test]
fn nothing_stays_of_a_group_that_nobody_could_join() {
    let mut room = Room::new();
    let mut wrong = join("a");
    wrong.regex = Some("(".into());
    assert_eq!(room.error(&wrong), ResponseError::InvalidRegularExpression);
    assert!(room.world.groups.list().is_empty());
    for id in 0..5 {
        let mut beat = join("a");
        beat.group = format!("g{id}");
        room.ok(&beat);
    }
    assert_eq!(
        room.error(&join("a")),
        ResponseError::CoordinatorNotAvailable
    );
}
