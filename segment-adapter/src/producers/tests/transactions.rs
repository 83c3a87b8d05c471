//! Transactions and markers, and what a leader takes of them.

use super::*;
use crate::position::TransactionVersion::{self, V1, V2};
use crate::verification::Verifications;

/// The header of a batch in a transaction.
fn txn(id: i64, epoch: i16, sequence: i32, count: i32, base: i64) -> BatchHeader {
    let header = header(id, epoch, sequence, count, base);
    BatchHeader {
        attributes: header.attributes.with_transactional(),
        ..header
    }
}

/// The header of a marker.
fn control(id: i64, epoch: i16, base: i64) -> BatchHeader {
    let header = txn(id, epoch, -1, 1, base);
    BatchHeader {
        attributes: header.attributes.with_control(),
        ..header
    }
}

fn marker(header: &BatchHeader, commit: bool, coordinator_epoch: i32) -> Entry<'_> {
    Entry {
        header,
        marker: Some(Marker {
            commit,
            coordinator_epoch,
        }),
    }
}

/// An open transaction of `open` at offset 8, and one of `id` at 9 that is aborted at 10.
pub(super) fn aborted(producers: &mut Producers, open: i64, id: i64) {
    producers.add(&data(&txn(open, 0, 0, 1, 8)), 100);
    producers.add(&data(&txn(id, 1, 0, 1, 9)), 100);
    producers.add(&marker(&control(id, 1, 10), false, 6), 100);
}

/// Producers that take everything without verification.
#[derive(Default)]
struct Log {
    producers: Producers,
    verifications: Verifications,
    end: i64,
}

impl Log {
    fn request<'a>(&'a self, id: i64, guard: &'a Guard) -> Request<'a> {
        Request {
            verification: self.verifications.get(id),
            verify: false,
            guard,
            ..plainly()
        }
    }

    fn append(&mut self, entry: &Entry, request: impl Fn(&Self) -> Result<(), i16>) -> i16 {
        if let Err(code) = request(self) {
            return code;
        }
        self.producers.add(entry, 100);
        self.verifications.appended(entry);
        self.end = entry.header.last_offset() + 1;
        0
    }

    /// Code of the answer, 0 for appended.
    fn send(&mut self, header: BatchHeader) -> i16 {
        self.send_with(header, &Guard::NONE, false)
    }

    fn send_with(&mut self, header: BatchHeader, guard: &Guard, verify: bool) -> i16 {
        let entry = data(&header);
        self.append(&entry, |log| {
            let request = Request {
                verify,
                ..log.request(header.producer_id, guard)
            };
            let checked = log.producers.check(&entry, &request);
            checked.map(drop).map_err(|error| error.code())
        })
    }

    fn end_txn(&mut self, id: i64, epoch: i16, commit: bool, version: TransactionVersion) -> i16 {
        self.end_by(id, epoch, commit, version, 0)
    }

    fn end_by(
        &mut self,
        id: i64,
        epoch: i16,
        commit: bool,
        version: TransactionVersion,
        coordinator: i32,
    ) -> i16 {
        let header = control(id, epoch, self.end);
        let entry = marker(&header, commit, coordinator);
        self.append(&entry, |log| {
            let request = Request {
                origin: Origin::Coordinator,
                version: Some(version),
                ..log.request(id, &NO_GUARD)
            };
            let checked = log.producers.check(&entry, &request);
            checked.map(drop).map_err(|error| error.code())
        })
    }

    fn of(&self, id: i64) -> ActiveProducer {
        let active = self.producers.active();
        active.into_iter().find(|p| p.producer_id == id).unwrap()
    }
}

#[test]
fn vector_41_who_has_only_a_marker_begins_at_sequence_0_of_its_epoch() {
    let mut log = Log::default();
    assert_eq!(log.end_txn(1, 2, false, V1), 0);
    assert_eq!(log.send(header(1, 0, 0, 1, 1)), 47);
    assert_eq!(log.send(header(1, 2, 17, 1, 1)), 45);
    assert_eq!(log.send(header(1, 2, 0, 1, 1)), 0);
}

#[test]
fn vector_42_a_marker_of_the_next_epoch_begins_it() {
    let mut log = Log::default();
    assert_eq!(log.send(txn(1, 0, 0, 3, 0)), 0);
    assert_eq!(log.end_txn(1, 1, true, V2), 0);
    assert_eq!(log.send(txn(1, 1, 2, 1, 4)), 45);
    assert_eq!(log.send(txn(1, 1, 0, 1, 4)), 0);
    assert_eq!(log.of(1).txn_first_offset, 4);
}

#[test]
fn vector_44_a_marker_ends_the_transaction_from_its_first_batch_on() {
    let mut log = Log::default();
    log.send(txn(1, 0, 0, 5, 16));
    log.send(txn(1, 0, 5, 5, 26));
    assert_eq!(log.of(1).txn_first_offset, 16);
    assert!(log.producers.has_open_txn(1, 0) && !log.producers.has_open_txn(1, 1));
    log.end = 40;
    assert_eq!(log.end_txn(1, 0, true, V1), 0);
    assert_eq!(log.producers.ending, [(16, 40)]);
    assert_eq!(log.of(1).txn_first_offset, -1);
    assert_eq!(log.producers.aborted_within(0, 100), []);
}

#[test]
fn vector_45_within_a_transaction_every_batch_is_a_part_of_it() {
    let mut log = Log::default();
    log.send(txn(1, 0, 0, 1, 0));
    assert_eq!(log.send(header(1, 0, 1, 1, 1)), 48);
    assert_eq!(log.send(txn(1, 0, 1, 1, 1)), 0);
}

#[test]
fn vector_46_what_is_unstable_stays_so_until_its_marker_is_durable() {
    let mut log = Log::default();
    log.send(txn(1, 0, 0, 1, 99));
    log.send(txn(2, 0, 0, 1, 105));
    log.end = 109;
    log.end_txn(1, 0, true, V1);
    assert_eq!(log.producers.first_undecided(), Some(105));
    assert_eq!(log.producers.first_unstable(109), Some(99));
    assert_eq!(log.producers.first_unstable(110), Some(105));
    log.end = 112;
    log.end_txn(2, 0, false, V1);
    assert_eq!(log.producers.first_undecided(), None);
    assert_eq!(log.producers.first_unstable(112), Some(105));
    assert_eq!(log.producers.first_unstable(113), None);
}

#[test]
fn vector_47_an_aborted_transaction_says_what_was_stable_then() {
    let mut log = Log::default();
    log.send(txn(2, 0, 0, 1, 0));
    log.send(txn(1, 0, 0, 1, 1));
    log.send(txn(3, 0, 0, 1, 2));
    for id in [1, 2, 3] {
        log.end_txn(id, 0, false, V1);
    }
    let stable: Vec<_> = log
        .producers
        .aborted
        .iter()
        .map(|a| a.stable_offset)
        .collect();
    assert_eq!(stable, [0, 2, 6]);
}

#[test]
fn vector_53_what_is_in_the_log_is_followed_whatever_its_sequence() {
    let mut log = Log::default();
    for (sequence, base) in [(0, 0), (5, 1), (5, 2), (2, 3)] {
        let header = header(1, 0, sequence, 1, base);
        log.producers.add(&data(&header), 100);
    }
    assert_eq!(log.of(1).last_sequence, 2);
    log.producers.add(&data(&txn(1, 0, 9, 1, 4)), 100);
    // Lower epochs in a marker and in a batch, and a lower coordinator epoch.
    let marker_of_old = control(1, 0, 5);
    log.producers.add(&marker(&marker_of_old, true, 3), 100);
    log.producers.add(&marker(&control(1, 0, 6), true, 2), 100);
    assert_eq!(log.of(1).coordinator_epoch, 2);
}

#[test]
fn vector_54_a_coordinators_batches_have_no_sequence() {
    let mut log = Log::default();
    let mut offsets = txn(1, 0, -1, 1, 0);
    for base in 0..3 {
        offsets.base_offset = base;
        let entry = data(&offsets);
        let request = Request {
            origin: Origin::Coordinator,
            ..log.request(1, &NO_GUARD)
        };
        assert_eq!(log.producers.check(&entry, &request).unwrap(), None);
        log.producers.add(&entry, 100);
    }
    let known = log.of(1);
    assert_eq!((known.last_sequence, known.txn_first_offset), (-1, 0));
    assert_eq!(reloaded(&log.producers).active(), log.producers.active());
}

#[test]
fn vector_55_epochs_of_markers() {
    for version in [V1, V2] {
        let mut log = Log::default();
        log.send(txn(1, 5, 0, 1, 0));
        assert_eq!(log.end_txn(1, 3, true, version), 47, "{version:?}");
    }
    let mut log = Log::default();
    log.send(txn(1, 5, 0, 1, 0));
    assert_eq!(log.end_txn(1, 5, true, V2), 47);
    assert_eq!(log.end_txn(1, 6, true, V2), 0);
    // The same once more: a retry.
    assert_eq!(log.end_txn(1, 6, true, V2), 0);
    log.send(txn(1, 6, 0, 1, 3));
    assert_eq!(log.end_txn(1, 6, true, V1), 0);
    // The last epoch there is cannot rise.
    log.send(txn(2, i16::MAX, 0, 1, 5));
    assert_eq!(log.end_txn(2, i16::MAX, true, V2), 0);
}

#[test]
fn vector_56_coordinator_epochs_do_not_fall() {
    let mut log = Log::default();
    for (coordinator, code) in [(1, 0), (1, 0), (2, 0), (1, 52)] {
        assert_eq!(log.end_by(1, 0, true, V1, coordinator), code);
    }
    log.producers = reloaded(&log.producers);
    assert_eq!(log.end_by(1, 0, true, V1, 1), 52);
    assert_eq!(log.end_by(1, 0, true, V1, 2), 0);
}

#[test]
fn vector_57_a_control_batch_without_a_record_changes_nothing_but_the_end() {
    let mut log = Log::default();
    log.send(txn(1, 0, 0, 1, 0));
    let before = log.producers.active();
    let empty = control(1, 4, 1);
    log.producers.add(&data(&empty), 100);
    assert_eq!((log.producers.active(), log.producers.end()), (before, 2));
}

#[test]
fn vectors_59_and_60_a_transaction_does_not_begin_above_what_was_asked_for() {
    let mut log = Log::default();
    let ask = |log: &mut Log, epoch, sequence, bumps| {
        log.verifications.start(1, (epoch, sequence), bumps, 0, 10)
    };
    let guard = ask(&mut log, 0, 0, false);
    // Also where nothing need be verified.
    assert_eq!(log.send(txn(1, 0, 4, 1, 0)), 45);
    assert!(ask(&mut log, 0, 3, false) == guard);
    assert_eq!(log.send(txn(1, 0, 1, 1, 0)), 45);
    // A higher epoch takes its place, a lower one does not.
    let newer = ask(&mut log, 1, 6, false);
    assert!(newer != guard);
    let late = ask(&mut log, 0, 2, false);
    assert!(late != newer && late != guard);
    assert_eq!(log.send(txn(1, 1, 7, 1, 0)), 45);
    ask(&mut log, 1, 5, false);
    assert_eq!(log.send(txn(1, 1, 6, 1, 0)), 45);
    assert_eq!(log.send_with(txn(1, 1, 5, 1, 0), &guard, true), 48);
    assert_eq!(log.send_with(txn(1, 1, 5, 1, 0), &newer, true), 0);

    let mut log = Log::default();
    ask(&mut log, 0, 5, true);
    assert_eq!(log.send(txn(1, 0, 5, 1, 0)), 45);
    let mut log = Log::default();
    ask(&mut log, 0, 5, false);
    assert_eq!(log.send(txn(1, 0, 5, 1, 0)), 0);
}

#[test]
fn vector_62_a_marker_without_a_transaction_counts_for_its_epochs_alone() {
    let mut log = Log::default();
    assert_eq!(log.end_by(1, 3, false, V1, 7), 0);
    let known = log.of(1);
    assert_eq!((known.epoch, known.coordinator_epoch), (3, 7));
    assert_eq!(log.producers.first_unstable(0), None);
    assert_eq!(log.producers.aborted_within(0, 100), []);
}

#[test]
fn so_many_transactions_may_be_open_and_none_of_them_is_forgotten() {
    let mut log = Log::default();
    let open = |log: &Log, id| {
        let header = txn(id, 0, 0, 1, log.end);
        let request = Request {
            open_max: 3,
            ..log.request(id, &NO_GUARD)
        };
        let checked = log.producers.check(&data(&header), &request);
        checked.map(drop).map_err(|error| error.code())
    };
    for id in 0..3 {
        assert_eq!(open(&log, id), Ok(()));
        log.send(txn(id, 0, 0, 1, id));
    }
    assert_eq!(open(&log, 3), Err(7));
    // Other batches come in; they push out each other.
    for id in 3..6 {
        log.producers.add(&data(&header(id, 0, 0, 1, id)), 3);
    }
    log.producers.expire(i64::MAX, 0, 9);
    let left: Vec<_> = log.producers.known.keys().copied().collect();
    assert_eq!(left, [0, 1, 2]);
    log.end = 6;
    log.end_txn(1, 0, true, V1);
    assert_eq!(open(&log, 3), Ok(()));
    log.producers.forget_down_to(2);
    let left: Vec<_> = log.producers.known.keys().copied().collect();
    assert_eq!(left, [0, 2]);
}

#[test]
fn what_was_kept_open_and_is_forgotten_does_not_come_back_open() {
    let mut log = Log::default();
    log.send(txn(1, 0, 0, 1, 0));
    let mut again = Producers::default();
    again
        .apply(&log.producers.encode_changed().unwrap())
        .unwrap();
    log.producers.set_kept();
    log.end_txn(1, 0, true, V1);
    log.producers.forget_down_to(0);
    again
        .apply(&log.producers.encode_changed().unwrap())
        .unwrap();
    assert_eq!(again.first_unstable(i64::MAX), None);
    assert!(again.active().is_empty());
}
