//! M4, rule by rule and in its order; O4; O6.

use super::*;
use crate::metadata::{
    answer::RangeOutcome,
    command::{CloseGroup, TrimStream},
};

#[test]
fn a_commit_moves_the_end_and_the_object_list_at_once() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    let committed = cluster.commit(A, epoch, vec![range(stream, 1, 0..10)]);
    assert!(committed.visible && committed.exceptions.is_empty());
    assert_eq!(cluster.end(stream), 10);
    let sets: Vec<_> = cluster.state.stream_sets().collect();
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].1.valid(&range(stream, 1, 0..10)), 0..10);
}

#[test]
fn dropped_trimmed_and_already_there_are_settled_and_counted_out() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (gone, dropped) = cluster.create(A, epoch);
    let (_, trimmed) = cluster.create(A, epoch);
    let (_, there) = cluster.create(A, epoch);
    let (_, fresh) = cluster.create(A, epoch);
    cluster.commit(A, epoch, vec![range(there, 1, 0..5)]);
    let destroy = Command::Destroy {
        groups: vec![(gone, StreamEpoch::new(1))],
    };
    assert_eq!(
        cluster.ask(A, epoch, destroy),
        Answer::Destroyed(vec![Ok(gone)])
    );
    trim(&mut cluster, epoch, trimmed, 20);
    let ranges = vec![
        range(dropped, 1, 0..10),
        range(trimmed, 1, 0..10),
        range(there, 1, 0..5),
        range(fresh, 1, 0..1),
    ];
    let committed = cluster.commit(A, epoch, ranges.clone());
    assert_eq!(
        committed.exceptions,
        [
            (0, RangeOutcome::Dropped),
            (1, RangeOutcome::Trimmed),
            (2, RangeOutcome::AlreadyThere)
        ]
    );
    assert!(committed.visible && committed.settles_all());
    assert_eq!(cluster.end(fresh), 1);
    let (_, object) = cluster.state.stream_sets().last().unwrap();
    let valid: Vec<_> = ranges.iter().map(|range| object.valid(range)).collect();
    assert_eq!(valid, [0..0, 0..0, 0..0, 0..1]);
}

fn trim(cluster: &mut Cluster, epoch: NodeEpoch, stream: StreamId, start: u64) {
    let streams = vec![TrimStream {
        stream,
        epoch: StreamEpoch::new(1),
        start,
    }];
    let answer = cluster.ask(A, epoch, Command::Trim { streams });
    assert_eq!(answer, Answer::Trimmed(vec![Ok(start)]));
}

#[test]
fn one_refused_range_does_not_wedge_the_others_nor_the_trim() {
    // A moved stream in a set object once wedged its node.
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, gap) = cluster.create(A, epoch);
    let (_, fine) = cluster.create(A, epoch);
    let object = cluster.prepare(A, epoch);
    let mut commit = set_object(object, A, vec![range(gap, 1, 5..10), range(fine, 1, 0..3)]);
    commit.trim = vec![log_trim(epoch, 40, 90)];
    let Answer::Committed(committed) = cluster.ask(A, epoch, Command::Commit(commit)) else {
        panic!("refused");
    };
    assert_eq!(
        committed.exceptions,
        [(0, RangeOutcome::NotSettled { committed_end: 0 })]
    );
    assert!(committed.visible && !committed.settles_all());
    assert_eq!((cluster.end(gap), cluster.end(fine)), (0, 3));
    // The trim goes as far as does not depend on the refused range (O2).
    assert_eq!(committed.trims, [(epoch, Ok(Position::new(40)))]);

    // Sent again behind what precedes it, under a new object id, it is settled.
    let again = cluster.commit(A, epoch, vec![range(gap, 1, 0..5)]);
    assert!(again.settles_all());
    assert!(
        cluster
            .commit(A, epoch, vec![range(gap, 1, 5..10)])
            .settles_all()
    );
    assert_eq!(cluster.end(gap), 10);
}

#[test]
fn a_commit_that_settles_everything_trims_as_far_as_it_says() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    for (offsets, settled, with_this, expected) in [(0..1, 0, 50, 50), (1..2, 10, 20, 50)] {
        let object = cluster.prepare(A, epoch);
        let mut commit = set_object(object, A, vec![range(stream, 1, offsets)]);
        commit.trim = vec![log_trim(epoch, settled, with_this)];
        let Answer::Committed(committed) = cluster.ask(A, epoch, Command::Commit(commit)) else {
            panic!("refused");
        };
        // Monotone (W7).
        assert_eq!(committed.trims, [(epoch, Ok(Position::new(expected)))]);
    }
    let debt = cluster.state.debts().next().unwrap();
    assert_eq!(
        (debt.trim, debt.durable_end),
        (Position::new(50), Position::new(50))
    );
}

#[test]
fn a_log_trim_past_what_is_durable_is_malformed_and_one_of_another_log_refused() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let other = cluster.join(B);
    let (_, stream) = cluster.create(A, epoch);
    let object = cluster.prepare(A, epoch);
    let mut commit = set_object(object, A, vec![range(stream, 1, 0..1)]);
    commit.trim = vec![LogTrim {
        epoch,
        settled: Position::new(5),
        with_this: Position::new(4),
        durable_end: Position::new(9),
    }];
    let answer = cluster.ask(A, epoch, Command::Commit(commit.clone()));
    assert!(
        matches!(answer, Answer::Refused(Refusal::Malformed(_))),
        "{answer:?}"
    );
    assert_eq!(cluster.end(stream), 0);
    commit.trim = vec![log_trim(other, 1, 1)];
    let Answer::Committed(committed) = cluster.ask(A, epoch, Command::Commit(commit)) else {
        panic!("a refused trim stops no commit");
    };
    assert_eq!(committed.trims, [(other, Err(Refusal::NotFound))]);
}

#[test]
fn what_lies_past_the_sealed_end_of_an_ended_epoch_is_settled_without_being_committed() {
    let mut cluster = Cluster::default();
    let first = cluster.join(A);
    let (_, stream) = cluster.create(A, first);
    let second = cluster.register(A).epoch;
    // The replay found offsets up to 10 in the old epoch.
    cluster.start_with(A, second, 500, vec![(stream, 10)]);
    assert_eq!(
        cluster.state.sealed_end(stream, StreamEpoch::new(1)),
        Some(10)
    );

    // An upload that reaches past the seal is clipped to it.
    let clipped = cluster.commit(A, second, vec![range(stream, 1, 0..15)]);
    assert_eq!(
        clipped.exceptions,
        [(0, RangeOutcome::PastSealedEnd { sealed_end: 10 })]
    );
    assert!(clipped.visible && clipped.settles_all());
    assert_eq!(cluster.end(stream), 10);
    let (_, object) = cluster.state.stream_sets().last().unwrap();
    assert_eq!(object.valid(&range(stream, 1, 0..15)), 0..10);

    // The next epoch goes on at the seal; what the old one has past it stays out for ever.
    assert!(
        cluster
            .commit(A, second, vec![range(stream, 2, 10..20)])
            .settles_all()
    );
    let late = cluster.commit(A, second, vec![range(stream, 1, 10..30)]);
    assert_eq!(
        late.exceptions,
        [(0, RangeOutcome::PastSealedEnd { sealed_end: 10 })]
    );
    assert!(!late.visible);
    assert_eq!(cluster.end(stream), 20);
}

#[test]
fn a_record_of_a_stale_epoch_from_a_node_that_holds_no_debt_of_its_log_is_impossible() {
    let mut cluster = Cluster::default();
    let a = cluster.join(A);
    let b = cluster.join(B);
    let (group, stream) = cluster.create(A, a);
    let close = Command::Close {
        groups: vec![CloseGroup {
            group,
            epoch: StreamEpoch::new(1),
            ends: vec![(stream, 0)],
        }],
    };
    assert_eq!(cluster.ask(A, a, close), Answer::Closed(vec![Ok(group)]));
    let open = Command::Open {
        groups: vec![group],
    };
    let Answer::Opened(opened) = cluster.ask(B, b, open) else {
        panic!("not opened");
    };
    assert_eq!(opened[0].as_ref().unwrap().epoch, StreamEpoch::new(2));

    // B claims A's epoch, and an epoch that never was.
    let object = cluster.prepare(B, b);
    let mut commit = set_object(object, B, vec![range(stream, 1, 0..5)]);
    commit.log = log_of(A);
    let Answer::Committed(committed) = cluster.ask(B, b, Command::Commit(commit)) else {
        panic!("refused");
    };
    assert_eq!(
        committed.exceptions,
        [(0, RangeOutcome::Impossible(Refusal::HeldBy(A)))]
    );
    let unknown = cluster.commit(B, b, vec![range(stream, 7, 0..5)]);
    assert_eq!(
        unknown.exceptions,
        [(
            0,
            RangeOutcome::Impossible(Refusal::UnknownEpoch(StreamEpoch::new(7)))
        )]
    );
    assert!(!unknown.visible && !unknown.settles_all());
    assert_eq!(cluster.end(stream), 0);
}

#[test]
fn a_stream_that_left_and_came_back_does_not_find_its_old_unacknowledged_record() {
    let mut cluster = Cluster::default();
    let a = cluster.join(A);
    let b = cluster.join(B);
    let (group, stream) = cluster.create(A, a);
    assert!(cluster.commit(A, a, vec![range(stream, 1, 0..5)]).visible);
    for (node, epoch, stream_epoch) in [(A, a, 1), (B, b, 2)] {
        let close = Command::Close {
            groups: vec![CloseGroup {
                group,
                epoch: StreamEpoch::new(stream_epoch),
                ends: vec![(stream, 5)],
            }],
        };
        assert_eq!(
            cluster.ask(node, epoch, close),
            Answer::Closed(vec![Ok(group)])
        );
        let next = if node == A { (B, b) } else { (A, a) };
        let open = Command::Open {
            groups: vec![group],
        };
        let Answer::Opened(opened) = cluster.ask(next.0, next.1, open) else {
            panic!("not opened");
        };
        assert!(opened[0].is_ok());
    }
    // A's ring still has 5..6 of epoch 1, which was never acknowledged: the seal says that it does not count (S7).
    assert_eq!(
        cluster.state.sealed_end(stream, StreamEpoch::new(1)),
        Some(5)
    );
    let old = cluster.commit(A, a, vec![range(stream, 1, 5..6)]);
    assert_eq!(
        old.exceptions,
        [(0, RangeOutcome::PastSealedEnd { sealed_end: 5 })]
    );
    assert!(cluster.commit(A, a, vec![range(stream, 3, 5..6)]).visible);
}

#[test]
fn a_range_that_overlaps_the_committed_end_is_a_second_history() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    cluster.commit(A, epoch, vec![range(stream, 1, 0..10)]);
    let overlap = cluster.commit(A, epoch, vec![range(stream, 1, 5..15)]);
    assert_eq!(
        overlap.exceptions,
        [(
            0,
            RangeOutcome::Impossible(Refusal::Overlap {
                start: 5,
                end: 15,
                committed_end: 10
            })
        )]
    );
    assert_eq!(cluster.end(stream), 10);
}

#[test]
fn a_trim_past_the_committed_end_lets_the_rest_of_a_range_follow() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    trim(&mut cluster, epoch, stream, 7);
    assert_eq!(cluster.end(stream), 7);
    assert!(
        cluster
            .commit(A, epoch, vec![range(stream, 1, 0..10)])
            .settles_all()
    );
    assert_eq!(cluster.end(stream), 10);
}

#[test]
fn an_object_of_which_nothing_counts_is_condemned_and_can_then_be_forgotten() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    let object = cluster.prepare(A, epoch);
    let commit = set_object(object, A, vec![range(stream, 1, 3..4)]);
    let Answer::Committed(committed) = cluster.ask(A, epoch, Command::Commit(commit.clone()))
    else {
        panic!("refused");
    };
    assert!(!committed.visible);
    assert!(cluster.state.condemned().any(|(id, _)| id == object));
    // Condemn before delete: a later commit of the object is refused (O4), before and after it was forgotten.
    let refused = Answer::Refused(Refusal::NotPrepared(object));
    assert_eq!(
        cluster.ask(A, epoch, Command::Commit(commit.clone())),
        refused
    );
    let forget = Command::Forget {
        objects: vec![object, object],
    };
    assert_eq!(
        cluster.ask(A, epoch, forget),
        Answer::Forgotten(vec![Ok(object), Err(Refusal::NotCondemned(object))])
    );
    assert_eq!(cluster.ask(A, epoch, Command::Commit(commit)), refused);
}

#[test]
fn an_object_cannot_be_committed_twice_nor_condemned_while_it_is_read() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    let object = cluster.prepare(A, epoch);
    let commit = set_object(object, A, vec![range(stream, 1, 0..4)]);
    cluster.ask(A, epoch, Command::Commit(commit.clone()));
    assert_eq!(
        cluster.ask(A, epoch, Command::Commit(commit)),
        Answer::Refused(Refusal::NotPrepared(object))
    );
    let condemn = Command::Condemn {
        objects: vec![object],
    };
    let referenced = Answer::Condemned(vec![Err(Refusal::Referenced(object))]);
    assert_eq!(cluster.ask(A, epoch, condemn), referenced);
    let collect = Command::Collect {
        object,
        ranges: vec![range(stream, 1, 0..4)],
    };
    assert_eq!(cluster.ask(A, epoch, collect.clone()), referenced);
    // Half an index is no evidence.
    let half = Command::Collect {
        object,
        ranges: vec![],
    };
    let answer = cluster.ask(A, epoch, half);
    assert!(
        matches!(answer, Answer::Condemned(ref it) if matches!(it[..], [Err(Refusal::Malformed(_))]))
    );
    trim(&mut cluster, epoch, stream, 4);
    assert_eq!(
        cluster.ask(A, epoch, collect),
        Answer::Condemned(vec![Ok(object)])
    );
    assert_eq!(cluster.state.stream_sets().count(), 0);
}

#[test]
fn a_stream_object_is_an_extent_that_a_look_up_finds_by_any_offset_in_it() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    let mut objects = Vec::new();
    for offsets in [0..10, 10..25, 25..30] {
        let object = cluster.prepare(A, epoch);
        let mut commit = set_object(object, A, vec![range(stream, 1, offsets)]);
        commit.kind = ObjectKind::Stream;
        cluster.ask(A, epoch, Command::Commit(commit));
        objects.push(object);
    }
    let found = |offsets| -> Vec<_> {
        let extents = cluster.state.extents(stream, offsets);
        extents.into_iter().map(|extent| extent.object).collect()
    };
    assert_eq!(found(0..1), objects[..1]);
    assert_eq!(found(9..11), objects[..2]);
    assert_eq!(found(12..13), objects[1..2]);
    assert_eq!(found(24..100), objects[1..]);
    assert_eq!(found(30..100), []);
    assert_eq!(found(5..5), []);
}

#[test]
fn a_malformed_commit_changes_nothing_and_keeps_the_id() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, one) = cluster.create(A, epoch);
    let (_, two) = cluster.create(A, epoch);
    let object = cluster.prepare(A, epoch);
    let bad = [
        vec![],
        vec![range(one, 1, 3..3)],
        vec![range(two, 1, 0..1), range(one, 1, 0..1)],
        vec![range(one, 1, 0..2), range(one, 1, 1..3)],
    ];
    for ranges in bad {
        let commit = Command::Commit(set_object(object, A, ranges));
        let answer = cluster.ask(A, epoch, commit);
        assert!(
            matches!(answer, Answer::Refused(Refusal::Malformed(_))),
            "{answer:?}"
        );
    }
    let mut two_streams = set_object(object, A, vec![range(one, 1, 0..1), range(two, 1, 0..1)]);
    two_streams.kind = ObjectKind::Stream;
    let answer = cluster.ask(A, epoch, Command::Commit(two_streams.clone()));
    assert!(
        matches!(answer, Answer::Refused(Refusal::Malformed(_))),
        "{answer:?}"
    );
    two_streams.kind = ObjectKind::StreamSet;
    let answer = cluster.ask(A, epoch, Command::Commit(two_streams));
    assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
}
