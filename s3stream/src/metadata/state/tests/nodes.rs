//! Lives of nodes, debts, groups and keys: M2, M3, M5, M6, F0.

use bytes::Bytes;

use super::*;
use crate::metadata::{
    answer::DebtView,
    command::{CloseGroup, Expect, KvPut, TrimStream},
};

fn registration(node: NodeId, incarnation: u128, attempt: u64) -> Registration {
    Registration {
        node,
        incarnation,
        attempt,
        log: Some(LogRegistration {
            uuid: log_of(node),
            url: "block:x".to_owned(),
        }),
    }
}

#[test]
fn two_processes_with_one_node_id_never_get_the_same_epoch() {
    let mut cluster = Cluster::default();
    let one = cluster.entry(Body::Register(registration(A, 11, 1)));
    let two = cluster.entry(Body::Register(registration(A, 22, 1)));
    let (Outcome::Registered(one), Outcome::Registered(two)) = (one, two) else {
        panic!("refused");
    };
    assert!(two.epoch > one.epoch);
    let fenced = Outcome::Fenced { by: two.epoch };
    // The first process can do nothing any more, nor fence its successor by a late retry.
    assert_eq!(cluster.batch(A, one.epoch, vec![Command::Leave]), fenced);
    assert_eq!(
        cluster.entry(Body::Register(registration(A, 11, 1))),
        fenced
    );
    assert_eq!(
        cluster.entry(Body::Register(registration(A, 11, 2))),
        fenced
    );
    assert_eq!(cluster.state.node_epoch(A), Some(two.epoch));
}

#[test]
fn a_repeated_registration_gets_the_same_answer() {
    let mut cluster = Cluster::default();
    let first = cluster.entry(Body::Register(registration(A, 11, 1)));
    let again = cluster.entry(Body::Register(registration(A, 11, 1)));
    assert_eq!(first, again);
    // The next attempt of the same life is a new one.
    let Outcome::Registered(next) = cluster.entry(Body::Register(registration(A, 11, 2))) else {
        panic!("refused");
    };
    assert_eq!(next.epoch, NodeEpoch::new(2));
    let late = cluster.entry(Body::Register(registration(A, 11, 1)));
    assert_eq!(late, Outcome::Fenced { by: next.epoch });
}

#[test]
fn a_repeated_batch_gets_its_first_answers_and_changes_nothing() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let body = Body::Batch(Batch {
        node: A,
        epoch,
        sequence: 2,
        commands: vec![Command::Prepare { count: 3 }],
    });
    let first = cluster.entry(body.clone());
    let mut before = cluster.state.clone();
    assert_eq!(cluster.entry(body), first);
    before.tip = cluster.state.tip;
    assert_eq!(cluster.state, before);
    let skipped = cluster.entry(Body::Batch(Batch {
        node: A,
        epoch,
        sequence: 4,
        commands: vec![Command::Leave],
    }));
    assert_eq!(skipped, Outcome::OutOfSequence { expected: 3 });
}

#[test]
fn the_debt_is_recorded_before_the_first_byte_and_an_unstarted_one_goes_with_its_life() {
    let mut cluster = Cluster::default();
    let first = cluster.register(A);
    assert!(first.log_state.is_empty());
    let debts: Vec<DebtView> = cluster.state.debts().collect();
    assert_eq!(debts.len(), 1);
    assert_eq!(
        (debts[0].epoch, debts[0].holder, debts[0].started),
        (first.epoch, A, false)
    );
    // The process died before it started: it never acknowledged anything.
    let second = cluster.register(A);
    assert!(second.log_state.is_empty());
    cluster.start(A, second.epoch, 0);
    let third = cluster.register(A);
    assert_eq!(third.log_state.len(), 1);
    assert_eq!(third.log_state[0].epoch, second.epoch);
    assert!(third.log_state[0].started);
}

#[test]
fn a_changed_log_does_not_drop_the_tail() {
    let mut cluster = Cluster::default();
    cluster.join(A);
    let other = LogUuid::new(7);
    let refused = Outcome::Refused(Refusal::OtherLog {
        uuid: log_of(A),
        url: format!("block:/log/{}", log_of(A)),
    });
    assert_eq!(cluster.try_register(A, other), refused);
    // Nor may another node bring the log that A owes.
    assert_eq!(
        cluster.try_register(B, log_of(A)),
        Outcome::Refused(Refusal::HeldBy(A))
    );
    // A refused registration fences nobody.
    let epoch = cluster.state.node_epoch(A).unwrap();
    cluster.create(A, epoch);
}

#[test]
fn nothing_is_served_before_the_log_epoch_is_started() {
    let mut cluster = Cluster::default();
    let first = cluster.join(A);
    let (group, stream) = cluster.create(A, first);
    let epoch = cluster.register(A).epoch;
    let create = CreateGroup {
        streams: 1,
        tags: vec![],
        open: true,
    };
    let refused = Answer::Refused(Refusal::NotStarted);
    assert_eq!(cluster.ask(A, epoch, Command::CreateGroup(create)), refused);
    let open = Command::Open {
        groups: vec![group],
    };
    assert_eq!(
        cluster.ask(A, epoch, open),
        Answer::Opened(vec![Err(Refusal::NotStarted)])
    );
    let streams = vec![TrimStream {
        stream,
        epoch: StreamEpoch::new(1),
        start: 1,
    }];
    assert_eq!(
        cluster.ask(A, epoch, Command::Trim { streams }),
        Answer::Trimmed(vec![Err(Refusal::NotOwner)])
    );
    // Nor does a commit count as the current epoch's: its end is not known yet.
    let committed = cluster.commit(A, epoch, vec![range(stream, 1, 0..5)]);
    assert!(!committed.visible);
    assert_eq!(cluster.end(stream), 0);
}

#[test]
fn a_start_seals_every_older_epoch_and_moves_the_streams_to_the_next() {
    let mut cluster = Cluster::default();
    let first = cluster.join(A);
    let (group, listed) = cluster.create(A, first);
    let (_, silent) = cluster.create(A, first);
    cluster.commit(
        A,
        first,
        vec![range(listed, 1, 0..4), range(silent, 1, 0..9)],
    );
    let second = cluster.register(A).epoch;
    let Answer::Started { groups } = cluster.start_with(A, second, 300, vec![(listed, 6)]) else {
        panic!("refused");
    };
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0], (group, StreamEpoch::new(2)));
    assert_eq!(
        cluster.state.sealed_end(listed, StreamEpoch::new(1)),
        Some(6)
    );
    // A stream that the replay did not meet ends at its committed end.
    assert_eq!(
        cluster.state.sealed_end(silent, StreamEpoch::new(1)),
        Some(9)
    );
    assert_eq!(cluster.state.stream(listed).unwrap().owner, Some(A));
    let debts: Vec<_> = cluster.state.debts().collect();
    assert_eq!(debts[0].sealed_end, Some(Position::new(300)));
    assert_eq!(debts[1].trim, Position::new(300));
}

#[test]
fn a_start_that_contradicts_what_is_known_is_refused_as_a_whole() {
    let mut cluster = Cluster::default();
    let first = cluster.join(A);
    let (_, stream) = cluster.create(A, first);
    let object = cluster.prepare(A, first);
    let mut commit = set_object(object, A, vec![range(stream, 1, 0..8)]);
    commit.trim = vec![log_trim(first, 0, 100)];
    cluster.ask(A, first, Command::Commit(commit));
    let second = cluster.register(A).epoch;
    let before = cluster.state.clone();
    let started = |ends: &[(NodeEpoch, u64)], streams: &[(StreamId, u64)]| {
        Command::Started(Started {
            log: log_of(A),
            start: Position::new(500),
            ends: ends
                .iter()
                .map(|(epoch, end)| (*epoch, Position::new(*end)))
                .collect(),
            streams: streams.to_vec(),
        })
    };
    let cases = [
        (started(&[], &[]), Refusal::SealedEnd(first)),
        (
            started(&[(first, 99)], &[]),
            Refusal::EndBelowDurable {
                epoch: first,
                found: Position::new(99),
                known: Position::new(100),
            },
        ),
        (
            started(&[(first, 500)], &[(stream, 7)]),
            Refusal::EndBelowCommitted {
                stream,
                committed_end: 8,
                end: 7,
            },
        ),
        (
            started(&[(first, 500), (second, 500)], &[]),
            Refusal::NotFound,
        ),
    ];
    for (command, refusal) in cases {
        assert_eq!(cluster.ask(A, second, command), Answer::Refused(refusal));
    }
    assert_eq!(cluster.state.debts, before.debts);
    assert_eq!(cluster.state.streams, before.streams);
    // And a second start of the same epoch.
    cluster.start(A, second, 500);
    assert_eq!(
        cluster.start(A, second, 500),
        Answer::Refused(Refusal::AlreadyStarted)
    );
}

#[test]
fn a_seal_is_written_once_and_a_later_replay_must_find_the_same_end() {
    let mut cluster = Cluster::default();
    let first = cluster.join(A);
    let second = cluster.register(A).epoch;
    cluster.start(A, second, 300);
    let third = cluster.register(A).epoch;
    let started = |first_end: u64| {
        let ends = [(first, first_end), (second, 400)];
        Command::Started(Started {
            log: log_of(A),
            start: Position::new(400),
            ends: ends
                .map(|(epoch, end)| (epoch, Position::new(end)))
                .to_vec(),
            streams: vec![],
        })
    };
    assert_eq!(
        cluster.ask(A, third, started(301)),
        Answer::Refused(Refusal::SealedEnd(first))
    );
    let answer = cluster.ask(A, third, started(300));
    assert_eq!(answer, Answer::Started { groups: vec![] });
}

#[test]
fn a_node_condemns_nothing_that_another_may_still_commit() {
    let mut cluster = Cluster::default();
    let a = cluster.join(A);
    let b = cluster.join(B);
    let object = cluster.prepare(A, a);
    let condemn = Command::Condemn {
        objects: vec![object],
    };
    assert_eq!(
        cluster.ask(B, b, condemn.clone()),
        Answer::Condemned(vec![Err(Refusal::InUse(a))])
    );
    assert_eq!(
        cluster.ask(A, a, condemn.clone()),
        Answer::Condemned(vec![Ok(object)])
    );
    assert_eq!(
        cluster.ask(B, b, condemn),
        Answer::Condemned(vec![Ok(object)])
    );
    assert!(cluster.state.prepared(a).iter().all(|id| *id != object));
}

#[test]
fn an_open_does_not_steal_a_group_from_its_owner() {
    let mut cluster = Cluster::default();
    let a = cluster.join(A);
    let b = cluster.join(B);
    let (group, stream) = cluster.create(A, a);
    let open = Command::Open {
        groups: vec![group, GroupId::new(99)],
    };
    assert_eq!(
        cluster.ask(B, b, open.clone()),
        Answer::Opened(vec![Err(Refusal::OwnedBy(A)), Err(Refusal::NotFound)])
    );
    // Not even while the owner is between two lives.
    let a = cluster.register(A).epoch;
    let Answer::Opened(opened) = cluster.ask(B, b, open) else {
        panic!("not answered");
    };
    assert_eq!(opened[0], Err(Refusal::OwnedBy(A)));
    cluster.start_with(A, a, 10, vec![(stream, 3)]);
    // A close needs everything acknowledged to be committed.
    let close = |end| Command::Close {
        groups: vec![CloseGroup {
            group,
            epoch: StreamEpoch::new(2),
            ends: vec![(stream, end)],
        }],
    };
    let refused = Refusal::NotSettled {
        stream,
        committed_end: 0,
        end: 3,
    };
    assert_eq!(
        cluster.ask(A, a, close(3)),
        Answer::Closed(vec![Err(refused)])
    );
    cluster.commit(A, a, vec![range(stream, 1, 0..3)]);
    assert_eq!(cluster.ask(A, a, close(3)), Answer::Closed(vec![Ok(group)]));
    assert_eq!(
        cluster.ask(A, a, close(3)),
        Answer::Closed(vec![Err(Refusal::NotOwner)])
    );
    let Answer::Opened(opened) = cluster.ask(
        B,
        b,
        Command::Open {
            groups: vec![group],
        },
    ) else {
        panic!("not answered");
    };
    let opened = opened[0].as_ref().unwrap();
    assert_eq!(opened.epoch, StreamEpoch::new(3));
    assert_eq!(opened.streams, [(stream, 0..3)]);
}

#[test]
fn a_log_epoch_is_retired_only_when_nothing_in_it_is_owed() {
    let mut cluster = Cluster::default();
    let first = cluster.join(A);
    let (_, stream) = cluster.create(A, first);
    let retire = |epoch| Command::Retire {
        log: log_of(A),
        epochs: vec![epoch],
    };
    assert_eq!(
        cluster.ask(A, first, retire(first)),
        Answer::Retired(vec![Err(Refusal::InUse(first))])
    );
    let second = cluster.register(A).epoch;
    cluster.start_with(A, second, 10, vec![(stream, 5)]);
    let owed = Refusal::NotSettled {
        stream,
        committed_end: 0,
        end: 5,
    };
    assert_eq!(
        cluster.ask(A, second, retire(first)),
        Answer::Retired(vec![Err(owed)])
    );
    cluster.commit(A, second, vec![range(stream, 1, 0..5)]);
    assert_eq!(
        cluster.ask(A, second, retire(first)),
        Answer::Retired(vec![Ok(first)])
    );
    assert_eq!(cluster.state.debts().count(), 1);
    // Its seals are needed no more.
    assert_eq!(cluster.state.sealed_end(stream, StreamEpoch::new(1)), None);
    // A node that owns or owes cannot leave; after a close and a retire it can.
    assert_eq!(
        cluster.ask(A, second, Command::Leave),
        Answer::Refused(Refusal::NotIdle {
            groups: 1,
            debts: 1
        })
    );
    let group = cluster.state.stream(stream).unwrap().group;
    let close = CloseGroup {
        group,
        epoch: StreamEpoch::new(2),
        ends: vec![(stream, 5)],
    };
    cluster.ask(
        A,
        second,
        Command::Close {
            groups: vec![close],
        },
    );
    cluster.ask(A, second, retire(second));
    assert_eq!(cluster.ask(A, second, Command::Leave), Answer::Left);
    assert_eq!(
        cluster.batch(A, second, vec![Command::Prepare { count: 1 }]),
        Outcome::Refused(Refusal::NotStarted)
    );
    // And may bring another log when it comes back.
    let back = cluster.try_register(A, LogUuid::new(5));
    assert!(matches!(back, Outcome::Registered(_)), "{back:?}");
}

#[test]
fn what_a_fenced_life_prepared_can_never_be_committed() {
    let mut cluster = Cluster::default();
    let first = cluster.register(A);
    let second = cluster.register(A);
    let condemned: Vec<_> = cluster.state.condemned().map(|(id, _)| id.get()).collect();
    assert_eq!(condemned, first.objects.clone().collect::<Vec<_>>());
    assert_eq!(second.objects.start, first.objects.end);
    assert_eq!(
        cluster.state.prepared(second.epoch).len(),
        second.objects.count()
    );
}

#[test]
fn ids_are_never_given_twice() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (group, stream) = cluster.create(A, epoch);
    let destroy = Command::Destroy {
        groups: vec![(group, StreamEpoch::new(1))],
    };
    cluster.ask(A, epoch, destroy.clone());
    assert_eq!(
        cluster.ask(A, epoch, destroy),
        Answer::Destroyed(vec![Err(Refusal::NotFound)])
    );
    let (next_group, next_stream) = cluster.create(A, epoch);
    assert!(next_group > group && next_stream > stream);
}

#[test]
fn groups_are_found_by_their_tags() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let tag = |value: &str| ("log".to_owned(), value.to_owned());
    let mut groups = Vec::new();
    for value in ["a", "b", "a"] {
        let create = CreateGroup {
            streams: 2,
            tags: vec![tag(value), tag(value)],
            open: false,
        };
        let Answer::GroupCreated { group, epoch, .. } =
            cluster.ask(A, epoch, Command::CreateGroup(create))
        else {
            panic!("refused");
        };
        assert_eq!(epoch, StreamEpoch::new(0));
        groups.push(group);
    }
    let tagged: Vec<_> = cluster.state.groups_tagged("log", "a").collect();
    assert_eq!(tagged, [groups[0], groups[2]]);
    let destroy = Command::Destroy {
        groups: vec![(groups[0], StreamEpoch::new(0))],
    };
    cluster.ask(A, epoch, destroy);
    let tagged: Vec<_> = cluster.state.groups_tagged("log", "a").collect();
    assert_eq!(tagged, [groups[2]]);
}

#[test]
fn a_key_changes_only_as_expected() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let mut put = |expect, value: Option<&'static str>| {
        let put = KvPut {
            key: Bytes::from_static(b"k/1"),
            expect,
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
        };
        cluster.ask(A, epoch, Command::KvPut(put))
    };
    assert_eq!(
        put(Some(Expect::Version(1)), Some("x")),
        Answer::KvConflict { current: None }
    );
    let Answer::KvDone { version } = put(Some(Expect::Absent), Some("x")) else {
        panic!("conflict");
    };
    let conflict = Answer::KvConflict {
        current: Some(version),
    };
    assert_eq!(put(Some(Expect::Absent), Some("y")), conflict);
    assert_eq!(put(Some(Expect::Version(version + 1)), Some("y")), conflict);
    assert!(matches!(
        put(Some(Expect::Version(version)), Some("y")),
        Answer::KvDone { .. }
    ));
    assert!(matches!(put(None, None), Answer::KvDone { .. }));
    assert!(cluster.state.kv(b"k/1").is_none());
}

#[test]
fn an_unknown_level_stops_before_it_changes_anything() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let before = cluster.state.clone();
    let body = Body::Batch(Batch {
        node: A,
        epoch,
        sequence: 2,
        commands: vec![Command::RaiseLevel {
            level: KNOWN_LEVEL + 1,
        }],
    });
    let entry = Entry::after(cluster.state.tip, body).encode();
    let error = cluster.state.append(&entry).unwrap_err();
    assert!(error.to_string().contains("must be upgraded"), "{error}");
    assert_eq!(cluster.state, before);
    let known = cluster.ask(A, epoch, Command::RaiseLevel { level: KNOWN_LEVEL });
    assert_eq!(known, Answer::Level { level: KNOWN_LEVEL });
}

#[test]
fn an_entry_that_does_not_follow_is_refused() {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let mut rolled_back = cluster.state.clone();
    cluster.create(A, epoch);
    let mut fork = Cluster {
        state: rolled_back.clone(),
        ..cluster.clone()
    };
    fork.sequences.insert((A, epoch), 1);
    fork.prepare(A, epoch);
    let forked = fork.entries.last().unwrap();
    // The same index with another history, and an index that is not next.
    let error = cluster.state.append(forked).unwrap_err();
    assert!(error.to_string().contains("rolled back"), "{error}");
    let next = Entry::after(cluster.state.tip, forked.decode().unwrap().body).encode();
    assert!(rolled_back.append(&next).is_err());
}
