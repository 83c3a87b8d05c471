//! Subscriptions and topics that change.

use super::*;

fn reading(mut beat: ConsumerHeartbeat, topics: &[&str], regex: Option<&str>) -> ConsumerHeartbeat {
    beat.topics = Some(topics.iter().map(|name| (*name).to_owned()).collect());
    beat.regex = regex.map(str::to_owned);
    beat
}

#[test]
fn topics_that_come_grow_and_go_are_seen_by_the_next_heartbeat() {
    let mut room = Room::new();
    room.ok(&reading(join("a"), &["t", "later"], None));
    assert_eq!(room.epoch(), 1);
    room.names.create("other", 1);
    assert_eq!(room.ok(&beat("a", 1)).epoch, 1);
    room.names.create("later", 1);
    let told = room.ok(&beat("a", 1));
    let mut all = room.of("t", &[0, 1, 2]);
    all.extend(room.of("later", &[0]));
    assert_eq!((told.epoch, told.assignment), (2, Some(all.clone())));
    room.names.create("t", 4);
    room.world.crash();
    let told = room.ok(&beat("a", 2));
    all.extend(room.of("t", &[0, 1, 2, 3]));
    assert_eq!((told.epoch, told.assignment), (3, Some(all.clone())));
    let kept = room.of("later", &[0]);
    room.names.delete("t");
    assert_eq!(
        room.ok(&owning("a", 3, &all)).assignment,
        Some(kept.clone())
    );
    assert_eq!(room.ok(&owning("a", 3, &kept)).epoch, 4);
    // The same topics after a load: nothing happens.
    room.world.crash();
    assert_eq!(room.ok(&beat("a", 4)).assignment, None);
    assert_eq!((room.epoch(), room.state()), (4, "Stable"));
}

/// Another topic of the same name has other partitions.
#[test]
fn a_topic_that_is_made_anew_is_another_one() {
    let mut room = Room::new();
    room.ok(&join("a"));
    let before = room.of("t", &[0, 1, 2]);
    room.names.delete("t");
    room.names.create("t", 3);
    assert_eq!(
        room.ok(&owning("a", 1, &before)).assignment,
        Some(Partitions::new())
    );
    let told = room.ok(&owning("a", 1, &Partitions::new()));
    assert_eq!(
        (told.epoch, told.assignment),
        (2, Some(room.of("t", &[0, 1, 2])))
    );
}

#[test]
fn a_member_that_reads_something_else_gets_something_else() {
    let mut room = Room::new();
    room.names.create("u", 1);
    room.ok(&join("a"));
    let now = reading(beat("a", 1), &["u"], None);
    assert_eq!(room.ok(&now).assignment, Some(Partitions::new()));
    let told = room.ok(&owning("a", 1, &Partitions::new()));
    assert_eq!((told.epoch, told.assignment), (2, Some(room.of("u", &[0]))));
}

#[test]
fn f45_the_empty_expression_is_none() {
    let mut room = Room::new();
    let told = room.ok(&reading(join("a"), &[], Some("")));
    assert_eq!(told.assignment, Some(Partitions::new()));
    let told = room.ok(&reading(beat("a", told.epoch), &["t"], Some("")));
    assert_eq!(told.assignment, Some(room.of("t", &[0, 1, 2])));
}

#[test]
fn an_expression_is_resolved_by_the_server_and_again_when_topics_change() {
    let mut room = Room::new();
    room.names.create("tt", 1);
    room.ok(&reading(join("a"), &[], Some("t+")));
    let mut all = room.of("t", &[0, 1, 2]);
    all.extend(room.of("tt", &[0]));
    room.names.create("u", 1);
    let told = room.ok(&beat("a", 1));
    assert_eq!((told.epoch, told.assignment), (1, None));
    room.names.create("ttt", 1);
    all.extend(room.of("ttt", &[0]));
    room.world.crash();
    let told = room.ok(&beat("a", 1));
    assert_eq!((told.epoch, told.assignment), (2, Some(all)));
    // Nobody has it any more: nothing of it stays.
    let last = room.ok(&reading(beat("a", 2), &["u"], Some("")));
    assert_eq!(last.epoch, 2);
    room.world.crash();
    let group = &room.world.groups.consumers("g").regexes;
    assert!(group.is_empty(), "{group:?}");
    assert_eq!(
        room.error(&reading(beat("a", 2), &[], Some("t("))),
        ResponseError::InvalidRegularExpression
    );
    assert_eq!(
        room.error(&reading(join("b"), &[], Some("(?<=t)"))),
        ResponseError::InvalidRegularExpression
    );
}

#[test]
fn most_members_choose_the_assignor() {
    let mut room = Room::new();
    let assignor = |room: &Room| room.world.groups.describe_consumers("g").unwrap().assignor;
    let asking = |id: &str, assignor: &str| {
        let mut beat = join(id);
        beat.assignor = Some(assignor.into());
        beat
    };
    room.ok(&join("a"));
    assert_eq!(assignor(&room), "uniform");
    room.ok(&asking("b", "range"));
    assert_eq!(assignor(&room), "range");
    room.ok(&asking("c", "uniform"));
    assert_eq!(assignor(&room), "uniform");
    room.ok(&asking("d", "range"));
    assert_eq!(assignor(&room), "range");
    let told = room.world.groups.describe_consumers("g").unwrap();
    let target = |id: &str| {
        let found = told.members.iter().find(|member| member.id == id);
        found.unwrap().target.clone()
    };
    assert_eq!(target("a"), room.of("t", &[0]));
    assert_eq!(target("d"), Partitions::new());
}

/// What an operation wrote of a new target was cut by a crash: it is computed anew.
#[test]
fn a_target_that_is_half_written_is_computed_anew() {
    let mut room = Room::new();
    room.ok(&join("a"));
    let before = room.world.log.len();
    room.ok(&join("b"));
    let whole = room.world.log.len();
    for cut in before..whole {
        let mut room = Room::new();
        room.ok(&join("a"));
        room.ok(&join("b"));
        assert_eq!(room.world.log.len(), whole);
        room.world.log.truncate(cut);
        room.world.crash();
        // The second one has not been answered, and comes again.
        let told = room.ok(&join("b"));
        assert_eq!(told.assignment, Some(Partitions::new()), "cut at {cut}");
        let kept = room.ok(&beat("a", 1)).assignment.unwrap();
        let told = room.ok(&owning("a", 1, &kept));
        let other = room.ok(&beat("b", told.epoch)).assignment.unwrap();
        assert_eq!(
            (kept, other),
            (room.of("t", &[0, 1]), room.of("t", &[2])),
            "cut at {cut}"
        );
    }
}
