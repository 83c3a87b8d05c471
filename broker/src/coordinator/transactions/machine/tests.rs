//! One partition: what is due, what is kept, and what a load brings back.

use kafka_protocol::error::ResponseError as E;
use segment_adapter::TransactionVersion::{V0, V2};

use super::*;
use crate::coordinator::slot;

const DAY_MS: i64 = 86_400_000;

fn machine() -> Transactions {
    let mut machine = Transactions::new(3, 9, DAY_MS, Arc::new(Outbox::default()));
    machine.loaded(at(0), &mut Out::default());
    machine
}

fn at(ms: i64) -> Now {
    Now {
        wall_ms: 1_000_000 + ms,
        mono_ms: u64::try_from(ms).unwrap(),
    }
}

fn partitions() -> Partitions {
    Partitions::from([("t".to_owned(), [0].into())])
}

impl Transactions {
    /// Runs an operation as the shard does.
    fn run<T>(
        &mut self,
        operation: impl FnOnce(&mut Self, &mut Out<Change>) -> T,
    ) -> (T, Vec<Change>) {
        let mut out = Out::default();
        let answer = operation(self, &mut out);
        let written = out.settle();
        for change in written.clone() {
            let stored = Self::encode(&change).unwrap();
            assert_eq!(Self::decode(&stored), Ok(Some(change.clone())));
            self.replay(change, None);
        }
        // Looks at all.
        assert!(self.known.len() > 100 || self.is_indexed());
        (answer, written)
    }

    fn begin(&mut self, id: &str, timeout_ms: i32, ms: i64) -> Holder {
        let init = |m: &mut Self, out: &mut _| m.init(id, None, timeout_ms, Some(7), at(ms), out);
        let holder = self.run(init).0.unwrap();
        self.run(|m, out| m.add(id, holder, &partitions(), V2, at(ms), out))
            .0
            .unwrap();
        holder
    }

    fn status(&self, id: &str) -> Option<Status> {
        Some(self.get(id)?.status)
    }
}

#[test]
fn f50_a_transaction_is_aborted_when_its_time_is_over_and_not_before() {
    let mut machine = machine();
    machine.begin("slow", 500, 10);
    machine.begin("quick", 100, 20);
    assert_eq!(machine.deadline(), Some(120));
    machine.run(|m, out| m.expire(at(119), out));
    assert_eq!(machine.status("quick"), Some(Status::Ongoing));
    // After a pass that had nothing to do there is a rest.
    assert_eq!(machine.deadline(), Some(219));
    machine.run(|m, out| m.expire(at(219), out));
    assert_eq!(machine.status("quick"), Some(Status::PrepareAbort));
    assert_eq!(machine.status("slow"), Some(Status::Ongoing));
    assert_eq!(machine.get("quick").unwrap().epoch, 1);
    assert_eq!(machine.outbox.len(), 1);
    assert_eq!(machine.deadline(), Some(510));
    let ending = machine.ending("quick").unwrap();
    assert_eq!(
        (ending.txn.partitions.clone(), ending.coordinator_epoch),
        (partitions(), 9)
    );
    machine.run(|m, out| m.complete("quick", &ending, at(300), out));
    assert_eq!(machine.status("quick"), Some(Status::CompleteAbort));
    // What is over is not completed twice.
    let (_, written) = machine.run(|m, out| m.complete("quick", &ending, at(301), out));
    assert_eq!(written, []);
}

#[test]
fn ids_at_rest_are_forgotten_after_a_time_and_open_ones_are_not() {
    let mut machine = machine();
    machine.begin("open", i32::MAX, 0);
    let holder = machine.begin("ended", 1_000, 0);
    let (done, mut pending) = slot();
    let end = |m: &mut Transactions, out: &mut _| {
        m.end("ended", holder, true, V0, None, at(5), out, done)
    };
    machine.run(end).0.unwrap();
    assert!(pending.now().is_none(), "the markers are not written");
    let ending = machine.ending("ended").unwrap();
    machine.run(|m, out| m.complete("ended", &ending, at(6), out));
    assert_eq!(pending.now(), Some(Ok(())));
    machine.run(|m, out| m.expire(at(DAY_MS + 5), out));
    assert_eq!(machine.status("ended"), Some(Status::CompleteCommit));
    let (_, written) = machine.run(|m, out| m.expire(at(DAY_MS + 6), out));
    let forgotten = Change {
        id: "ended".into(),
        txn: None,
    };
    assert_eq!(written, [forgotten]);
    assert_eq!(machine.status("ended"), None);
    assert_eq!(machine.status("open"), Some(Status::Ongoing));
}

#[test]
fn past_the_limit_the_id_that_has_rested_for_longest_is_forgotten() {
    let mut machine = machine();
    for index in 0..IDS_MAX {
        let ms = index as i64;
        let id = format!("{index}");
        let init =
            |m: &mut Transactions, out: &mut _| m.init(&id, None, 1_000_000, Some(7), at(ms), out);
        machine.run(init).0.unwrap();
    }
    machine
        .run(|m, out| m.add("0", (7, 0), &partitions(), V0, at(0), out))
        .0
        .unwrap();
    let come = |id: &'static str, holder, ms| {
        move |m: &mut Transactions, out: &mut Out<Change>| {
            m.init(id, holder, 1, Some(8), at(ms), out)
        }
    };
    // Each may be between two of its transactions.
    let full = Err(Refused::Error(E::CoordinatorNotAvailable));
    assert_eq!(machine.run(come("new", None, REST_MS)).0, full);
    assert_eq!(machine.run(come("new", None, REST_MS + 1)).0, Ok((8, 0)));
    assert_eq!(machine.known.len(), IDS_MAX);
    assert_eq!(
        (machine.status("0"), machine.status("1")),
        (Some(Status::Ongoing), None)
    );
    // Who held it may have been replaced meanwhile: nobody knows, so it is not let in over whoever has.
    let fenced = Err(Refused::Error(E::ProducerFenced));
    let again = come("1", Some((7, 0)), DAY_MS);
    assert_eq!(machine.run(again).0, fenced);
    let again = come("1", Some((7, 0)), DAY_MS + 1);
    assert_eq!(machine.run(again).0, Ok((8, 0)));
    machine.run(|m, out| {
        out.record(Change {
            id: "1".into(),
            txn: None,
        });
        m.note_time(at(0));
    });
    assert_eq!(machine.status("2"), None);
    for index in 3..IDS_MAX {
        let id = format!("{index}");
        machine
            .run(|m, out| m.add(&id, (7, 0), &partitions(), V0, at(0), out))
            .0
            .unwrap();
    }
    machine
        .run(|m, out| m.add("new", (8, 0), &partitions(), V0, at(0), out))
        .0
        .unwrap();
    machine.begin("last", 1_000_000, 0);
    let init =
        |m: &mut Transactions, out: &mut _| m.init("newer", None, 1, Some(9), at(9_000), out);
    assert_eq!(
        machine.run(init).0,
        Err(Refused::Error(E::CoordinatorNotAvailable))
    );
}

#[test]
fn a_clock_that_is_set_moves_no_time_out_of_what_begins_then() {
    const YEAR_MS: i64 = 365 * DAY_MS;
    let mut machine = machine();
    let late = Now {
        wall_ms: YEAR_MS,
        mono_ms: 10,
    };
    let init = |m: &mut Transactions, out: &mut _| m.init("id", None, 500, Some(7), late, out);
    machine.run(init).0.unwrap();
    let add = |m: &mut Transactions, out: &mut _| m.add("id", (7, 0), &partitions(), V0, late, out);
    machine.run(add).0.unwrap();
    assert_eq!(machine.deadline(), Some(510));
}

/// What the log refuses, for whatever reason, is not offered for ever together with what it would take.
#[test]
fn one_that_cannot_be_written_does_not_hold_up_the_others() {
    let mut machine = machine();
    for (id, ms) in [("a", 1), ("b", 2), ("c", 3)] {
        machine.begin(id, 100, ms);
    }
    let offer = |machine: &mut Transactions, ms| {
        let mut out = Out::default();
        machine.expire(at(ms), &mut out);
        out.settle()
    };
    let ids = |changes: &[Change]| {
        let ids = changes.iter().map(|change| change.id.clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&offer(&mut machine, 200)), ["a", "b", "c"]);
    assert_eq!(ids(&offer(&mut machine, 300)), ["a"]);
    let taken = offer(&mut machine, 400);
    assert_eq!(ids(&taken), ["b"]);
    for change in taken {
        machine.replay(change, None);
    }
    assert_eq!(ids(&offer(&mut machine, 500)), ["a", "c"]);
    assert_eq!(ids(&offer(&mut machine, 600)), ["a"]);
    assert_eq!(ids(&offer(&mut machine, 700)), ["c"]);
    assert_eq!(ids(&offer(&mut machine, 800)), ["a"]);
}

#[test]
fn an_id_is_short_and_all_transactions_have_so_much_memory() {
    let mut machine = machine();
    let mut init = |id: &str| {
        let init = |m: &mut Transactions, out: &mut _| m.init(id, None, 9, Some(7), at(0), out);
        machine.run(init).0
    };
    assert_eq!(init(&"x".repeat(ID_BYTES_MAX)), Ok((7, 0)));
    let too_long = init(&"x".repeat(ID_BYTES_MAX + 1));
    assert_eq!(too_long, Err(Refused::Error(E::InvalidRequest)));

    let many = Partitions::from([("t".to_owned(), (0..200_000).collect())]);
    let mut refused = None;
    for index in 0..20 {
        let id = format!("{index}");
        let init = |m: &mut Transactions, out: &mut _| m.init(&id, None, 9, Some(7), at(0), out);
        machine.run(init).0.unwrap();
        let add = |m: &mut Transactions, out: &mut _| m.add(&id, (7, 0), &many, V0, at(0), out);
        refused = machine.run(add).0.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(Refused::Error(E::CoordinatorNotAvailable)));
    assert!(machine.bytes <= BYTES_MAX && machine.bytes > BYTES_MAX / 2);
    // One pass takes a part of what is due.
    let (_, written) = machine.run(|m, out| m.expire(at(100), out));
    assert_eq!(written.len(), 2);
    for change in machine.known.keys().cloned().collect::<Vec<_>>() {
        machine.replay(
            Change {
                id: change,
                txn: None,
            },
            None,
        );
    }
    assert_eq!(machine.bytes, 0);
}

/// A load is the same as having been there, and takes up what was decided.
#[test]
fn a_load_takes_up_what_was_decided() {
    let mut machine = machine();
    let mut log = Vec::new();
    for id in ["commit", "open"] {
        let init = |m: &mut Transactions, out: &mut _| m.init(id, None, 1_000, Some(7), at(0), out);
        log.extend(machine.run(init).1);
        log.extend(
            machine
                .run(|m, out| m.add(id, (7, 0), &partitions(), V2, at(0), out))
                .1,
        );
    }
    let (done, mut pending) = slot();
    let end = |m: &mut Transactions, out: &mut _| {
        m.end("commit", (7, 0), true, V2, None, at(1), out, done)
    };
    log.extend(machine.run(end).1);
    let mut loaded = Transactions::new(3, 10, DAY_MS, Arc::new(Outbox::default()));
    for change in log {
        loaded.replay(change, None);
    }
    assert_eq!(loaded.outbox.len(), 0, "not before it is loaded");
    loaded.run(|m, out| m.loaded(at(5), out));
    assert_eq!(loaded.known, machine.known);
    assert_eq!(loaded.outbox.len(), 1);
    assert_eq!(loaded.ending("commit").unwrap().coordinator_epoch, 10);
    assert_eq!(loaded.deadline(), Some(1_000));
    // Who waited has an answer all the same.
    drop(machine);
    assert_eq!(pending.now(), Some(Err(E::NotCoordinator)));
}

#[test]
fn records_of_a_later_kafka_are_passed_over_and_damaged_ones_are_not() {
    let stored = |key: &'static [u8], value: &'static [u8]| Stored {
        key: key.into(),
        value: Some(value.into()),
    };
    assert_eq!(Transactions::decode(&stored(&[0, 5, 1], &[])), Ok(None));
    assert!(Transactions::decode(&stored(&[0, 0, 0, 1], &[])).is_err());
    assert!(Transactions::decode(&stored(&[0, 0, 0, 1, b'a'], &[0, 1])).is_err());
}
