//! Joining, assigning, staying and leaving.

use super::*;

#[test]
fn the_first_rebalance_waits_for_others_and_is_drawn_out_while_they_come() {
    // F35.
    let mut world = World::new();
    let first = world.asks("");
    let mut first = world.join(first);
    assert_eq!(world.state(), "PreparingRebalance");
    world.wait(DELAY_MS - 1);
    let second = world.asks("");
    let mut second = world.join(second);
    world.wait(DELAY_MS);
    assert!(first.now().is_none(), "somebody came, so it goes on");
    world.wait(1);
    let (first, second) = (ready(&mut first), ready(&mut second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, first.member_id);
    assert_eq!(second.leader, first.member_id);
    assert_eq!(first.members.len(), 2);
    assert!(second.members.is_empty());
    assert_eq!(first.protocol.as_deref(), Some("range"));
    assert_eq!(world.state(), "CompletingRebalance");
}

#[test]
fn without_a_delay_the_first_rebalance_is_over_at_once() {
    let mut world = World::with(Settings {
        initial_rebalance_delay_ms: 0,
        ..settings()
    });
    let join = world.asks("");
    let mut joined = world.join(join);
    world.wait(0);
    assert_eq!(ready(&mut joined).generation, 1);
}

#[test]
fn the_first_rebalance_is_not_drawn_out_beyond_the_time_for_joining() {
    let mut world = World::with(Settings {
        members_max: 1000,
        ..settings()
    });
    let first = world.asks("");
    let mut first = world.join(first);
    let mut waited = 0;
    while first.now().is_none() {
        let next = world.asks("");
        let _next = world.join(next);
        world.wait(1000);
        waited += 1000;
        assert!(waited <= REBALANCE_MS + DELAY_MS, "{waited}");
    }
    assert!(waited >= REBALANCE_MS - DELAY_MS, "{waited}");
}

#[test]
fn a_new_member_must_come_again_with_its_id() {
    // F34.
    let mut world = World::new();
    let join = Join {
        needs_id: true,
        ..world.asks("")
    };
    let mut told = world.join(join);
    let told = told.now().unwrap().unwrap();
    assert_eq!(told.error, Some(ResponseError::MemberIdRequired));
    assert!(!told.member_id.is_empty());
    let again = Join {
        needs_id: true,
        ..world.asks(&told.member_id)
    };
    let mut again = world.join(again);
    world.wait(DELAY_MS);
    assert_eq!(ready(&mut again).member_id, told.member_id);
    // A static member is known by its instance.
    let join = Join {
        needs_id: true,
        group: "other".into(),
        instance: Some("i".into()),
        ..world.asks("")
    };
    let mut joined = world.join(join);
    world.wait(DELAY_MS);
    ready(&mut joined);
}

#[test]
fn an_id_that_is_not_used_is_taken_back_and_holds_nobody_up_for_longer() {
    let mut world = World::new();
    let leader = world.one();
    let join = Join {
        needs_id: true,
        ..world.asks("")
    };
    let told = world.join(join).now().unwrap().unwrap();
    // The leader joins again; the pending one is waited for.
    let again = world.asks(&leader.member_id);
    let mut again = world.join(again);
    assert!(again.now().is_none());
    world.wait(SESSION_MS);
    assert_eq!(ready(&mut again).generation, 2);
    let late = world.asks(&told.member_id);
    let late = refused(&mut world.join(late));
    assert_eq!(late, ResponseError::UnknownMemberId);
}

#[test]
fn what_cannot_join_is_told_why() {
    let mut world = World::new();
    let mut joins = |edit: fn(&mut Join)| {
        let mut join = world.asks("");
        edit(&mut join);
        refused(&mut world.join(join))
    };
    assert_eq!(
        joins(|join| join.group.clear()),
        ResponseError::InvalidGroupId
    );
    // F38.
    for session_ms in [5_999, 1_800_001, -1] {
        let mut join = world.asks("");
        join.session_ms = session_ms;
        let error = refused(&mut world.join(join));
        assert_eq!(error, ResponseError::InvalidSessionTimeout, "{session_ms}");
    }
    let mut joins = |edit: fn(&mut Join)| {
        let mut join = world.asks("");
        edit(&mut join);
        refused(&mut world.join(join))
    };
    assert_eq!(
        joins(|join| join.member_id = "nobody".into()),
        ResponseError::UnknownMemberId
    );
    for edit in [
        (|join: &mut Join| join.protocols.clear()) as fn(&mut Join),
        |join| join.protocol_type.clear(),
    ] {
        assert_eq!(joins(edit), ResponseError::InconsistentGroupProtocol);
    }
    assert!(world.groups.list().is_empty(), "nothing is left of them");
    world.one();
    let mut joins = |edit: fn(&mut Join)| {
        let mut join = world.asks("");
        edit(&mut join);
        refused(&mut world.join(join))
    };
    for edit in [
        (|join: &mut Join| join.protocol_type = "connect".into()) as fn(&mut Join),
        |join| join.protocols[0].0 = "sticky".into(),
    ] {
        assert_eq!(joins(edit), ResponseError::InconsistentGroupProtocol);
    }
    assert_eq!(world.state(), "Stable");
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut world = World::new();
    let mut joined = Vec::new();
    for _ in 0..4 {
        let join = world.asks("");
        joined.push(world.join(join));
    }
    let fifth = world.asks("");
    let fifth = refused(&mut world.join(fifth));
    assert_eq!(fifth, ResponseError::GroupMaxSizeReached);
    world.wait(4 * DELAY_MS);
    for joined in &mut joined {
        ready(joined);
    }
    // There are as many groups as there may be, too.
    for group in ["a", "b", "c", "d", "e"] {
        let join = Join {
            group: group.into(),
            ..world.asks("")
        };
        let mut joined = world.join(join);
        let found = joined.now().map(|joined| joined.unwrap().error);
        let full = Some(Some(ResponseError::CoordinatorNotAvailable));
        assert_eq!(found, if group == "e" { full } else { None });
    }
}

#[test]
fn the_protocol_is_what_most_like_best_of_what_all_support() {
    let mut world = World::new();
    let mut pending = Vec::new();
    for names in [
        &["cooperative", "range", "sticky"][..],
        &["sticky", "range"],
        &["range", "sticky", "other"],
        &["sticky", "range"],
    ] {
        let protocols = names
            .iter()
            .map(|name| (name.to_string(), Bytes::from(name.to_string())));
        let join = Join {
            protocols: protocols.collect(),
            ..world.asks("")
        };
        pending.push(world.join(join));
    }
    world.wait(4 * DELAY_MS);
    let leader = ready(&mut pending[0]);
    // Two votes each: the leader likes range better.
    assert_eq!(leader.protocol.as_deref(), Some("range"));
    assert!(leader.members.iter().all(|m| m.metadata == "range"));
}

#[test]
fn followers_wait_for_the_leader_and_nobody_gets_an_assignment_of_another_generation() {
    // F36.
    let mut world = World::new();
    let (leader, follower) = world.two();
    // A third one: everybody else is told to join again.
    let third = world.asks("");
    let mut third = world.join(third);
    for known in [&leader, &follower] {
        assert_eq!(world.beat(known), Err(ResponseError::RebalanceInProgress));
        let synced = world.sync(known, &[]).now().unwrap().unwrap();
        assert_eq!(synced.error, Some(ResponseError::RebalanceInProgress));
    }
    let again = world.asks(&leader.member_id);
    let mut leader = world.join(again);
    assert!(third.now().is_none());
    let again = world.asks(&follower.member_id);
    let mut follower = world.join(again);
    let (leader, follower, third) = (ready(&mut leader), ready(&mut follower), ready(&mut third));
    assert_eq!(
        (leader.generation, follower.generation, third.generation),
        (2, 2, 2)
    );
    assert_eq!(world.beat(&leader), Ok(()), "before it has its assignment");
    let mut waits = world.sync(&third, &[]);
    // The leader forgets the follower.
    let ids = (leader.member_id.clone(), third.member_id.clone());
    let led = world.sync(&leader, &[(&ids.0, b"1"), (&ids.1, b"3")]);
    drop(led);
    assert_eq!(ready_sync(&mut waits).assignment, "3");
    assert_eq!(ready_sync(&mut world.sync(&follower, &[])).assignment, "");
    // An old generation is told so (F40).
    let old = Joined {
        generation: 1,
        ..leader
    };
    assert_eq!(world.beat(&old), Err(ResponseError::IllegalGeneration));
    let synced = world.sync(&old, &[]).now().unwrap().unwrap();
    assert_eq!(synced.error, Some(ResponseError::IllegalGeneration));
}

#[test]
fn a_sync_of_another_protocol_is_refused() {
    let mut world = World::new();
    let leader = world.one();
    let sync = Sync {
        group: "g".into(),
        generation: 1,
        member_id: leader.member_id,
        protocol: Some("sticky".into()),
        ..Sync::default()
    };
    let synced = world.ask_sync(sync.clone()).now().unwrap().unwrap();
    assert_eq!(synced.error, Some(ResponseError::InconsistentGroupProtocol));
    for (group, error) in [
        ("", ResponseError::InvalidGroupId),
        ("nowhere", ResponseError::UnknownMemberId),
    ] {
        let sync = Sync {
            group: group.into(),
            ..sync.clone()
        };
        let synced = world.ask_sync(sync).now().unwrap().unwrap();
        assert_eq!(synced.error, Some(error));
    }
}

#[test]
fn who_joins_again_as_it_was_changes_nothing_unless_it_leads() {
    let mut world = World::new();
    let (leader, follower) = world.two();
    let same = world.asks(&follower.member_id);
    assert_eq!(ready(&mut world.join(same)).generation, 1);
    assert_eq!(world.state(), "Stable");
    let mut other = world.asks(&follower.member_id);
    other.protocols[0].1 = subscription("u");
    let _other = world.join(other);
    assert_eq!(world.state(), "PreparingRebalance");
    world.wait(SESSION_MS / 2);
    let leader = world.asks(&leader.member_id);
    let leader = ready(&mut world.join(leader));
    assert_eq!(leader.generation, 2);
    let again = world.asks(&leader.member_id);
    // It has not seen the answer.
    let again = ready(&mut world.join(again));
    assert_eq!((again.generation, again.members.len()), (2, 2));
}

#[test]
fn a_leader_that_joins_again_begins_a_rebalance() {
    let mut world = World::new();
    let leader = world.one();
    let again = world.asks(&leader.member_id);
    assert_eq!(ready(&mut world.join(again)).generation, 2);
}

#[test]
fn a_member_that_is_silent_for_a_session_is_gone() {
    // F44.
    let mut world = World::new();
    let (leader, follower) = world.two();
    for _ in 0..3 {
        world.wait(SESSION_MS / 2);
        let beat = world.beat(&leader);
        if beat == Err(ResponseError::RebalanceInProgress) {
            break;
        }
    }
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.beat(&follower), Err(ResponseError::UnknownMemberId));
    let again = world.asks(&leader.member_id);
    let again = ready(&mut world.join(again));
    assert_eq!((again.generation, again.members.len()), (2, 1));
}

#[test]
fn a_follower_becomes_the_leader_when_that_is_gone() {
    let mut world = World::new();
    let (leader, follower) = world.two();
    assert_eq!(world.leave(&leader.member_id, None), Ok(()));
    assert_eq!(
        world.beat(&follower),
        Err(ResponseError::RebalanceInProgress)
    );
    let again = world.asks(&follower.member_id);
    let again = ready(&mut world.join(again));
    assert_eq!(again.leader, follower.member_id);
    assert_eq!(again.members.len(), 1);
}

#[test]
fn who_does_not_join_again_in_time_is_gone() {
    let mut world = World::new();
    let (leader, follower) = world.two();
    let again = world.asks(&leader.member_id);
    let mut again = world.join(again);
    let beats = 2 * REBALANCE_MS / SESSION_MS;
    for _ in 0..beats {
        world.wait(SESSION_MS / 2);
        // It is there, but does not join.
        let _ = world.beat(&follower);
    }
    assert_eq!(ready(&mut again).members.len(), 1);
    assert_eq!(world.beat(&follower), Err(ResponseError::UnknownMemberId));
}

#[test]
fn who_does_not_fetch_its_assignment_in_time_is_gone() {
    let mut world = World::new();
    let (first, second) = (world.asks(""), world.asks(""));
    let (mut first, mut second) = (world.join(first), world.join(second));
    world.wait(2 * DELAY_MS);
    let (first, second) = (ready(&mut first), ready(&mut second));
    let mut waits = world.sync(&second, &[]);
    for _ in 0..2 * REBALANCE_MS / SESSION_MS {
        let _ = world.beat(&first);
        world.wait(SESSION_MS / 2);
    }
    let waits = waits.now().expect("it does not wait for ever").unwrap();
    assert_eq!(waits.error, Some(ResponseError::RebalanceInProgress));
    assert_eq!(world.beat(&first), Err(ResponseError::UnknownMemberId));
    let again = world.asks(&second.member_id);
    assert_eq!(
        ready(&mut world.join(again)).leader,
        second.member_id.clone()
    );
}

#[test]
fn version_0_has_the_session_for_joining() {
    // F37.
    let mut world = World::new();
    let join = Join {
        rebalance_ms: -1,
        ..world.asks("")
    };
    let leader = world.stable(join);
    let other = world.asks("");
    let _other = world.join(other);
    let again = Join {
        rebalance_ms: -1,
        ..world.asks(&leader.member_id)
    };
    assert_eq!(ready(&mut world.join(again)).members.len(), 2);
    let described = world.groups.groups.get("g").unwrap();
    let member = &described.members[&leader.member_id];
    assert_eq!(member.rebalance_ms, SESSION_MS);
}

pub(super) fn of_instance(world: &mut World, id: &str, instance: &str) -> Join {
    Join {
        instance: Some(instance.into()),
        ..world.asks(id)
    }
}

#[test]
fn a_static_member_takes_its_place_again_without_a_rebalance() {
    // F39.
    let mut world = World::new();
    let join = of_instance(&mut world, "", "i");
    let before = world.stable(join);
    let other = world.asks("");
    let mut other = world.join(other);
    let again = of_instance(&mut world, &before.member_id, "i");
    let leader = ready(&mut world.join(again));
    let other = ready(&mut other);
    let ids = (leader.member_id.clone(), other.member_id.clone());
    let _led = world.sync(&leader, &[(&ids.0, b"1"), (&ids.1, b"2")]);
    let join = of_instance(&mut world, "", "i");
    let after = ready(&mut world.join(join));
    assert_ne!(after.member_id, leader.member_id);
    assert_eq!((after.generation, world.state()), (2, "Stable"));
    assert!(after.skip_assignment && after.members.len() == 2);
    assert_eq!(ready_sync(&mut world.sync(&after, &[])).assignment, "1");
    // Who it was is fenced.
    let beat = Heartbeat {
        group: "g".into(),
        generation: 2,
        member_id: leader.member_id.clone(),
        instance: Some("i".into()),
    };
    let beat = world.run(|groups, now, _| groups.heartbeat(&beat, now));
    assert_eq!(beat, Err(ResponseError::FencedInstanceId));
    let old = of_instance(&mut world, &leader.member_id, "i");
    let old = refused(&mut world.join(old));
    assert_eq!(old, ResponseError::FencedInstanceId);
    // It is the new one after a crash, too.
    world.crash();
    assert_eq!(world.beat(&after), Ok(()));
    assert_eq!(world.beat(&leader), Err(ResponseError::UnknownMemberId));
    // And it leaves by its instance.
    assert_eq!(
        world.leave("", Some("nobody")),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(world.leave("", Some("i")), Ok(()));
    assert_eq!(world.state(), "PreparingRebalance");
}

#[test]
fn an_old_clients_leader_does_not_assign_when_it_comes_back() {
    let mut world = World::new();
    let join = of_instance(&mut world, "", "i");
    let before = world.stable(join);
    let join = Join {
        can_skip: false,
        ..of_instance(&mut world, "", "i")
    };
    let after = ready(&mut world.join(join));
    assert_eq!(after.leader, before.member_id);
    assert_ne!(after.member_id, after.leader);
    assert!(after.members.is_empty() && !after.skip_assignment);
}

#[test]
fn a_static_member_that_says_something_else_begins_a_rebalance_if_it_changes_the_protocol() {
    let mut world = World::new();
    let join = Join {
        protocols: vec![
            ("range".into(), Bytes::new()),
            ("sticky".into(), Bytes::new()),
        ],
        ..of_instance(&mut world, "", "i")
    };
    world.stable(join);
    let join = Join {
        protocols: vec![
            ("sticky".into(), Bytes::new()),
            ("range".into(), Bytes::new()),
        ],
        ..of_instance(&mut world, "", "i")
    };
    let after = ready(&mut world.join(join));
    assert_eq!(
        (after.generation, world.state()),
        (2, "CompletingRebalance")
    );
    assert_eq!(after.protocol.as_deref(), Some("sticky"));
}

#[test]
fn a_static_member_that_waits_is_fenced_by_its_successor() {
    let mut world = World::new();
    let first = of_instance(&mut world, "", "i");
    let mut first = world.join(first);
    let second = of_instance(&mut world, "", "i");
    let mut second = world.join(second);
    assert_eq!(refused(&mut first), ResponseError::FencedInstanceId);
    world.wait(2 * DELAY_MS);
    assert_eq!(ready(&mut second).members.len(), 1);
}

#[test]
fn who_leaves_twice_is_told_so() {
    let mut world = World::new();
    let leader = world.one();
    let leaver = Leaver {
        member_id: leader.member_id.clone(),
        instance: None,
    };
    let twice = [leaver.clone(), leaver, Leaver::default()];
    let answers = world.run(|groups, now, out| groups.leave("g", &twice, now, out));
    let unknown = Err(ResponseError::UnknownMemberId);
    assert_eq!(answers, [Ok(()), unknown, unknown]);
    // Nobody is left: a new generation of nobody.
    assert_eq!(world.state(), "Empty");
    world.crash();
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.groups.groups["g"].generation, 2);
}

#[test]
fn a_group_is_stable_with_its_assignments_after_a_crash() {
    let mut world = World::new();
    let (leader, follower) = world.two();
    world.crash();
    // Everybody has a whole session to show itself, whatever was left of the one before.
    world.wait(SESSION_MS - 1);
    assert_eq!(world.state(), "Stable");
    assert_eq!(
        ready_sync(&mut world.sync(&follower, &[])).assignment,
        "two"
    );
    assert_eq!(world.beat(&leader), Ok(()));
    // Who does not show itself within a session is gone.
    world.wait(SESSION_MS / 2);
    assert_eq!(world.beat(&leader), Ok(()));
    world.wait(SESSION_MS / 2);
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.beat(&follower), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_new_member_does_not_wait_for_ever() {
    let mut world = World::new();
    let join = Join {
        rebalance_ms: i32::MAX,
        ..world.asks("")
    };
    let leader = world.stable(join);
    let other = world.asks("");
    let mut other = world.join(other);
    for _ in 0..2 * 300_000 / SESSION_MS {
        let _ = world.beat(&leader);
        world.wait(SESSION_MS / 2);
    }
    assert_eq!(refused(&mut other), ResponseError::UnknownMemberId);
}

/// What a member reads counts as of its last record: else offsets in use go when they are old.
#[test]
fn members_are_as_their_last_record_says_after_a_crash() {
    let mut world = World::new();
    let first = Join {
        protocols: vec![
            ("new".into(), subscription("t")),
            ("range".into(), subscription("t")),
        ],
        ..world.asks("")
    };
    let second = world.asks("");
    let (mut first, mut second) = (world.join(first), world.join(second));
    world.wait(2 * DELAY_MS);
    let (first, second) = (ready(&mut first), ready(&mut second));
    assert_eq!(first.protocol.as_deref(), Some("range"));
    let id = first.member_id.clone();
    let _led = world.sync(&first, &[(&id, b"1")]);
    let again = Join {
        protocols: vec![
            ("new".into(), subscription("u")),
            ("range".into(), subscription("u")),
        ],
        client_id: "renamed".into(),
        session_ms: 2 * SESSION_MS as i32,
        ..world.asks(&id)
    };
    let mut again = world.join(again);
    assert_eq!(world.leave(&second.member_id, None), Ok(()));
    let again = ready(&mut again);
    assert_eq!(again.protocol.as_deref(), Some("new"));
    ready_sync(&mut world.sync(&again, &[(&id, b"2")]));
    let before = world.groups.describe("g");
    let read = |world: &World| world.groups.groups["g"].subscribed().unwrap();
    assert!(read(&world).contains("u"));
    world.crash();
    assert_eq!(world.groups.describe("g"), before);
    assert_eq!(read(&world), ["u".to_owned()].into());
    assert_eq!(
        world.groups.groups["g"].members[&id].session_ms,
        2 * SESSION_MS
    );
    // Somebody who supports what the group does can come.
    let newcomer = Join {
        protocols: vec![("new".into(), subscription("u"))],
        ..world.asks("")
    };
    assert!(
        world.join(newcomer).now().is_none(),
        "it waits for the other"
    );
}
