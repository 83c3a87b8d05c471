//! What is too much, and what the log refuses: nobody is lost over it.

use super::{joining::of_instance, *};

/// Somebody who supports so many protocols, and says so much of each.
fn saying(world: &mut World, id: &str, protocols: usize, len: usize) -> Join {
    let said = |n: usize| (format!("p{n}"), Bytes::from(vec![0; len]));
    Join {
        protocols: (0..protocols).map(said).collect(),
        ..world.asks(id)
    }
}

#[test]
fn a_group_whose_members_say_too_much_takes_nobody_in() {
    for (protocols, len) in [(100, 150 << 10), (1, 700 << 10)] {
        let mut world = World::new();
        let first = saying(&mut world, "", protocols, len);
        let mut first = world.join(first);
        let second = saying(&mut world, "", protocols, len);
        let second = refused(&mut world.join(second));
        assert_eq!(second, ResponseError::GroupMaxSizeReached);
        let third = saying(&mut world, "", protocols, len / 100);
        let mut third = world.join(third);
        world.wait(4 * DELAY_MS);
        assert_eq!(ready(&mut first).members.len(), 2);
        ready(&mut third);
    }
}

#[test]
fn a_member_that_suddenly_says_too_much_stays_what_it_is() {
    let mut world = World::new();
    let (leader, follower) = world.two();
    for known in [&leader, &follower] {
        let more = saying(&mut world, &known.member_id, 1, 1 << 20);
        let more = refused(&mut world.join(more));
        assert_eq!(more, ResponseError::GroupMaxSizeReached);
        assert_eq!(world.state(), "Stable");
    }
    assert_eq!(world.beat(&leader), Ok(()));
    assert_eq!(ready_sync(&mut world.sync(&leader, &[])).assignment, "one");
    // Between joining and assigning, nobody becomes the leader without knowing.
    let again = world.asks(&leader.member_id);
    let mut again = world.join(again);
    let other = world.asks(&follower.member_id);
    let mut other = world.join(other);
    let (leader, follower) = (ready(&mut again), ready(&mut other));
    let more = saying(&mut world, &leader.member_id, 1, 1 << 20);
    refused(&mut world.join(more));
    let mut followed = world.sync(&follower, &[]);
    assert!(followed.now().is_none(), "the leader has not said");
    let ids = (leader.member_id.clone(), follower.member_id.clone());
    let _led = world.sync(&leader, &[(&ids.0, b"1"), (&ids.1, b"2")]);
    assert_eq!(ready_sync(&mut followed).assignment, "2");
}

#[test]
fn a_static_member_may_say_as_much_as_before_when_it_begins_anew() {
    let mut world = World::new();
    let join = Join {
        instance: Some("i".into()),
        ..saying(&mut world, "", 1, 700 << 10)
    };
    world.stable(join.clone());
    let again = Join {
        fresh_id: "again".into(),
        ..join
    };
    assert_eq!(ready(&mut world.join(again)).member_id, "again");
    assert_eq!(world.state(), "Stable");
}

#[test]
fn more_protocols_than_any_client_has_are_refused() {
    let mut world = World::new();
    let join = saying(&mut world, "", 101, 1);
    let error = refused(&mut world.join(join));
    assert_eq!(error, ResponseError::InconsistentGroupProtocol);
    let join = saying(&mut world, "", 100, 1);
    world.stable(join);
}

#[test]
fn a_refused_assignment_begins_a_rebalance_that_ends() {
    let mut world = World::new();
    let (leader, follower) = (world.asks(""), world.asks(""));
    let (mut leader, mut follower) = (world.join(leader), world.join(follower));
    world.wait(2 * DELAY_MS);
    let (leader, follower) = (ready(&mut leader), ready(&mut follower));
    let mut followed = world.sync(&follower, &[]);
    world.refuses = true;
    let mut led = world.sync(&leader, &[]);
    for synced in [&mut led, &mut followed] {
        let answer = synced.now().expect("answered");
        assert_eq!(answer, Err(ResponseError::UnknownServerError));
    }
    world.refuses = false;
    assert_eq!(world.state(), "PreparingRebalance");
    for known in [&leader, &follower] {
        assert_eq!(world.beat(known), Err(ResponseError::RebalanceInProgress));
    }
    // Only one of them joins again: the other is not waited for without end.
    let again = world.asks(&follower.member_id);
    let mut again = world.join(again);
    world.wait(REBALANCE_MS);
    let again = ready(&mut again);
    assert_eq!((again.generation, again.members.len()), (2, 1));
}

#[test]
fn a_place_is_not_taken_with_a_record_that_would_be_refused() {
    let mut world = World::new();
    let join = of_instance(&mut world, "", "i");
    let mut joined = world.join(join);
    world.wait(DELAY_MS);
    let joined = ready(&mut joined);
    let assignment: &'static [u8] = vec![0; 500 << 10].leak();
    let id = joined.member_id.clone();
    ready_sync(&mut world.sync(&joined, &[(&id, assignment)]));
    // The record would be of both.
    let join = Join {
        instance: Some("i".into()),
        protocols: vec![("range".into(), vec![0; 600 << 10].into())],
        ..world.asks("")
    };
    let after = ready(&mut world.join(join));
    assert_eq!(after.generation, 2, "a rebalance, which needs no record");
    let synced = world.sync(&after, &[(&after.member_id, b"all")]);
    assert_eq!(ready_sync(&mut { synced }).assignment, "all");
}

#[test]
fn a_place_whose_record_is_refused_all_the_same_is_shared_anew() {
    let mut world = World::new();
    let join = of_instance(&mut world, "", "i");
    world.stable(join);
    world.refuses = true;
    let join = of_instance(&mut world, "", "i");
    let mut after = world.join(join);
    let error = Err(ResponseError::UnknownServerError);
    assert_eq!(after.now(), Some(error));
    world.refuses = false;
    assert_eq!(world.state(), "PreparingRebalance");
    let join = of_instance(&mut world, "", "i");
    assert_eq!(ready(&mut world.join(join)).generation, 2);
}
