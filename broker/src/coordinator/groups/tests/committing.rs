//! Offsets: committed, fetched, staged by transactions, forgotten.

use segment_adapter::Guard;

use super::*;
use crate::coordinator::InTransaction;

fn offset(offset: i64) -> Committed {
    Committed {
        offset,
        leader_epoch: 3,
        metadata: "note".into(),
        committed_ms: 1_000_000,
        expires_ms: None,
    }
}

fn commit_of(generation: i32, member: &str, value: i64) -> Commit {
    Commit {
        group: "g".into(),
        generation,
        member_id: member.into(),
        instance: None,
        offsets: vec![("t".into(), 0, offset(value))],
    }
}

fn commit(world: &mut World, commit: Commit) -> Done {
    let unknown = ResponseError::GroupIdNotFound;
    world.run(|groups, now, out| groups.commit(commit, CommitIn::Nothing { unknown }, now, out))
}

fn commit_in(world: &mut World, producer_id: i64, commit: Commit) -> Done {
    let transaction = InTransaction {
        producer_id,
        producer_epoch: 0,
        guard: Guard::NONE,
    };
    world
        .run(|groups, now, out| groups.commit(commit, CommitIn::Transaction(transaction), now, out))
}

type Found = Result<Option<i64>, ResponseError>;

fn fetch(world: &World, stable: bool) -> Found {
    let wanted = Some(vec![("t".to_owned(), 0)]);
    let found = world.groups.fetch_offsets("g", wanted, stable).remove(0);
    found.found.map(|found| found.map(|found| found.offset))
}

#[test]
fn whoever_is_in_no_group_commits_to_one_without_members() {
    // F31, F32, F33.
    let mut world = World::new();
    assert_eq!(fetch(&world, false), Ok(None));
    assert_eq!(commit(&mut world, commit_of(-1, "", 7)), Ok(()));
    world.crash();
    let wanted = world.groups.fetch_offsets("g", None, true);
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].found, Ok(Some(offset(7))));
    assert_eq!(world.state(), "Empty");
    let listed = world.groups.list();
    assert_eq!((listed.len(), listed[0].protocol_type.as_str()), (1, ""));
    let unknown = commit(
        &mut world,
        Commit {
            group: "nowhere".into(),
            ..commit_of(1, "m", 1)
        },
    );
    assert_eq!(unknown, Err(ResponseError::GroupIdNotFound));
}

#[test]
fn in_a_group_only_its_members_commit_and_only_in_this_generation() {
    // F40.
    let mut world = World::new();
    let (leader, follower) = world.two();
    let id = leader.member_id.as_str();
    for (generation, member, expected) in [
        (1, id, Ok(())),
        (0, id, Err(ResponseError::IllegalGeneration)),
        (2, id, Err(ResponseError::IllegalGeneration)),
        (1, "nobody", Err(ResponseError::UnknownMemberId)),
        (-1, "", Err(ResponseError::UnknownMemberId)),
    ] {
        let done = commit(&mut world, commit_of(generation, member, 1));
        assert_eq!(done, expected, "{generation} {member}");
    }
    let again = world.asks(id);
    let mut again = world.join(again);
    // While others are to join again, what was read is still committed.
    assert_eq!(commit(&mut world, commit_of(1, id, 5)), Ok(()));
    let second = world.asks(&follower.member_id);
    let _second = world.join(second);
    assert_eq!(ready(&mut again).generation, 2);
    let done = commit(&mut world, commit_of(2, id, 6));
    assert_eq!(done, Err(ResponseError::RebalanceInProgress));
    assert_eq!(fetch(&world, false), Ok(Some(5)));
}

#[test]
fn a_commit_shows_that_its_member_is_there() {
    let mut world = World::new();
    let leader = world.one();
    for value in 0..10 {
        world.wait(SESSION_MS - 1);
        let done = commit(&mut world, commit_of(1, &leader.member_id, value));
        assert_eq!(done, Ok(()));
    }
    world.wait(SESSION_MS);
    assert_eq!(world.state(), "Empty");
}

#[test]
fn an_offset_of_a_transaction_counts_when_that_is_committed() {
    // F51.
    let mut world = World::new();
    commit(&mut world, commit_of(-1, "", 1)).unwrap();
    commit_in(&mut world, 7, commit_of(-1, "", 2)).unwrap();
    commit_in(&mut world, 8, commit_of(-1, "", 3)).unwrap();
    for _ in 0..2 {
        assert_eq!(fetch(&world, false), Ok(Some(1)));
        let unstable = Err(ResponseError::UnstableOffsetCommit);
        assert_eq!(fetch(&world, true), unstable);
        world.crash();
    }
    world.end_transaction(7, true);
    world.end_transaction(8, false);
    for _ in 0..2 {
        assert_eq!(fetch(&world, true), Ok(Some(2)));
        world.crash();
    }
    // Ended already: nothing.
    world.end_transaction(8, true);
    assert_eq!(fetch(&world, true), Ok(Some(2)));
}

#[test]
fn of_two_offsets_the_one_that_was_written_later_wins() {
    // F43.
    let mut world = World::new();
    commit_in(&mut world, 7, commit_of(-1, "", 2)).unwrap();
    commit(&mut world, commit_of(-1, "", 9)).unwrap();
    world.end_transaction(7, true);
    assert_eq!(fetch(&world, true), Ok(Some(9)));
    commit(&mut world, commit_of(-1, "", 10)).unwrap();
    commit_in(&mut world, 7, commit_of(-1, "", 4)).unwrap();
    world.end_transaction(7, true);
    assert_eq!(fetch(&world, true), Ok(Some(4)));
    world.crash();
    assert_eq!(fetch(&world, true), Ok(Some(4)));
}

#[test]
fn a_commit_in_a_transaction_is_checked_if_it_says_who_it_is() {
    let mut world = World::new();
    let leader = world.one();
    let id = leader.member_id.as_str();
    for (generation, member, expected) in [
        (1, id, Ok(())),
        // Old clients cannot say it.
        (-1, "", Ok(())),
        (2, id, Err(ResponseError::IllegalGeneration)),
        (1, "nobody", Err(ResponseError::UnknownMemberId)),
    ] {
        let done = commit_in(&mut world, 7, commit_of(generation, member, 1));
        assert_eq!(done, expected, "{generation} {member}");
    }
    let unknown = Commit {
        group: "nowhere".into(),
        ..commit_of(3, "m", 1)
    };
    let unknown = commit_in(&mut world, 7, unknown);
    assert_eq!(unknown, Err(ResponseError::IllegalGeneration));
}

#[test]
fn offsets_are_forgotten_a_while_after_their_group_was_used() {
    let mut world = World::new();
    let leader = world.one();
    commit(&mut world, commit_of(1, &leader.member_id, 5)).unwrap();
    // As long as the group reads the topic, nothing is too old.
    for _ in 0..2 * 1_000_000 / 5_000 {
        world.wait(5_000);
        assert_eq!(world.beat(&leader), Ok(()));
    }
    assert_eq!(fetch(&world, false), Ok(Some(5)));
    assert_eq!(world.leave(&leader.member_id, None), Ok(()));
    world.wait(900_000);
    assert_eq!(fetch(&world, false), Ok(Some(5)));
    world.wait(1_200_000);
    assert_eq!(fetch(&world, false), Ok(None));
    assert!(world.groups.list().is_empty(), "nor is the group kept");
    world.crash();
    assert!(world.groups.list().is_empty());
}

#[test]
fn offsets_of_topics_that_a_group_does_not_read_any_more_are_forgotten() {
    let mut world = World::new();
    let leader = world.one();
    let mut both = commit_of(1, &leader.member_id, 5);
    both.offsets.push(("old".into(), 0, offset(6)));
    commit(&mut world, both).unwrap();
    for _ in 0..2 * 1_000_000 / 5_000 {
        world.wait(5_000);
        assert_eq!(world.beat(&leader), Ok(()));
    }
    let left = world.groups.fetch_offsets("g", None, false);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].topic, "t");
}

#[test]
fn an_offset_with_a_time_of_its_own_goes_then() {
    let mut world = World::new();
    let mut short = commit_of(-1, "", 5);
    short.offsets[0].2.expires_ms = Some(1_000_001);
    commit(&mut world, short).unwrap();
    world.wait(600_000);
    assert_eq!(fetch(&world, false), Ok(None));
}

#[test]
fn an_offset_that_a_transaction_may_change_is_not_forgotten() {
    // F43.
    let mut world = World::new();
    commit(&mut world, commit_of(-1, "", 5)).unwrap();
    commit_in(&mut world, 7, commit_of(-1, "", 6)).unwrap();
    world.wait(3_000_000);
    assert_eq!(fetch(&world, false), Ok(Some(5)));
    world.end_transaction(7, true);
    assert_eq!(fetch(&world, false), Ok(Some(6)));
    world.wait(1_200_000);
    assert_eq!(fetch(&world, false), Ok(None));
}

#[test]
fn thousands_of_old_offsets_are_forgotten_a_part_at_a_time() {
    let mut world = World::new();
    let mut many = commit_of(-1, "", 0);
    many.offsets = (0..2500)
        .map(|partition| ("t".to_owned(), partition, offset(1)))
        .collect();
    commit(&mut world, many).unwrap();
    world.wait(1_200_000);
    let left = world.groups.fetch_offsets("g", None, false).len();
    assert_eq!(left, 1500);
    world.wait(2_000);
    assert!(world.groups.list().is_empty());
}
