//! Requests one by one: what becomes of a transactional id, and what is answered.

use kafka_protocol::error::ResponseError as E;
use segment_adapter::TransactionVersion::{V0, V2};

use super::*;

const NOW: i64 = 1_000;

fn partitions(indexes: &[i32]) -> Partitions {
    Partitions::from([("t".to_owned(), indexes.iter().copied().collect())])
}

fn empty(epoch: i16) -> Transaction {
    Transaction {
        epoch,
        ..Transaction::new(7, 60_000, NOW)
    }
}

fn ongoing(epoch: i16) -> Transaction {
    empty(epoch).with_partitions(&partitions(&[0]), V0, NOW)
}

/// After the end of a transaction of `epoch`, all markers written.
fn complete(epoch: i16, commit: bool, version: TransactionVersion) -> Transaction {
    ongoing(epoch)
        .ended(commit, version, None, NOW)
        .completed(NOW)
}

fn refused<T>(error: E) -> Result<T, Refused> {
    Err(Refused::Error(error))
}

fn last<T>(step: &Step<T>) -> &Transaction {
    step.changes.last().expect("something has changed")
}

#[test]
fn a_new_id_takes_a_producer_id_that_nobody_has() {
    let step = init(None, None, 60_000, None, NOW);
    assert_eq!(step.answer, Err(Refused::NeedsProducerId));
    let step = init(None, None, 60_000, Some(7), NOW);
    assert_eq!((step.answer, step.changes), (Ok((7, 0)), vec![empty(0)]));
    // Whoever was forgotten begins anew.
    let step = init(None, Some((3, 4)), 60_000, Some(7), NOW);
    assert_eq!(step.answer, Ok((7, 0)));
}

#[test]
fn a_new_instance_gets_the_next_epoch_and_fences_the_one_before() {
    for txn in [empty(4), complete(4, true, V0), complete(3, false, V2)] {
        let step = init(Some(&txn), None, 1, None, NOW);
        assert_eq!(step.answer, Ok((7, 5)));
        let after = last(&step).clone();
        assert_eq!((after.status, after.timeout_ms), (Status::Empty, 1));
        for old in [Some((7, 4)), Some((7, 3)), Some((8, 5))] {
            let step = init(Some(&after), old, 1, None, NOW);
            assert_eq!(step.answer, refused(E::ProducerFenced), "{old:?}");
        }
    }
}

#[test]
fn the_answer_to_a_lost_request_for_an_epoch_is_the_same_again() {
    let first = init(Some(&empty(4)), Some((7, 4)), 1, None, NOW);
    assert_eq!(first.answer, Ok((7, 5)));
    let again = init(Some(last(&first)), Some((7, 4)), 1, None, NOW);
    assert_eq!((again.answer, again.changes), (Ok((7, 5)), vec![]));
    // Once it has used the epoch, it has had the answer.
    let used = last(&first).with_partitions(&partitions(&[0]), V0, NOW);
    let late = init(Some(&used), Some((7, 4)), 1, None, NOW);
    assert_eq!(late.answer, refused(E::ProducerFenced));
    // The end of a transaction gives an epoch, too, if epochs rise.
    let ended = complete(4, true, V2);
    assert_eq!(
        init(Some(&ended), Some((7, 4)), 1, None, NOW).answer,
        Ok((7, 5))
    );
}

#[test]
fn f49_an_open_transaction_is_aborted_first_and_the_asker_tries_again() {
    let txn = ongoing(4);
    let step = init(Some(&txn), None, 1, None, NOW);
    assert_eq!(step.answer, refused(E::ConcurrentTransactions));
    let aborting = last(&step).clone();
    assert_eq!((aborting.status, aborting.epoch), (Status::PrepareAbort, 5));
    assert_eq!(aborting.partitions, txn.partitions);
    let step = init(Some(&aborting), None, 1, None, NOW);
    assert_eq!(
        (step.answer, step.changes),
        (refused(E::ConcurrentTransactions), vec![])
    );
    let aborted = aborting.completed(NOW);
    assert_eq!(init(Some(&aborted), None, 1, None, NOW).answer, Ok((7, 6)));
    // The holder itself, as after an error: it is not shut out by its own question.
    let step = init(Some(&txn), Some((7, 4)), 1, None, NOW);
    let aborted = last(&step).completed(NOW);
    assert_eq!(
        init(Some(&aborted), Some((7, 4)), 1, None, NOW).answer,
        Ok((7, 5))
    );
    // A zombie does not abort the transaction of its successor.
    let step = init(Some(&txn), Some((7, 3)), 1, None, NOW);
    assert_eq!(
        (step.answer, step.changes),
        (refused(E::ProducerFenced), vec![])
    );
}

#[test]
fn when_epochs_are_used_up_there_is_another_producer_id() {
    let txn = empty(EPOCH_LAST);
    let step = init(Some(&txn), Some((7, EPOCH_LAST)), 1, None, NOW);
    assert_eq!(step.answer, Err(Refused::NeedsProducerId));
    let step = init(Some(&txn), Some((7, EPOCH_LAST)), 1, Some(9), NOW);
    assert_eq!(step.answer, Ok((9, 0)));
    let rotated = last(&step).clone();
    // The answer was lost.
    let again = init(Some(&rotated), Some((7, EPOCH_LAST)), 1, None, NOW);
    assert_eq!((again.answer, again.changes), (Ok((9, 0)), vec![]));
    let older = init(Some(&rotated), Some((7, EPOCH_LAST - 1)), 1, None, NOW);
    assert_eq!(older.answer, refused(E::ProducerFenced));
    // Somebody else: the one before is fenced.
    let step = init(Some(&txn), None, 1, Some(9), NOW);
    let step = init(Some(last(&step)), Some((7, EPOCH_LAST)), 1, None, NOW);
    assert_eq!(step.answer, refused(E::ProducerFenced));
    // A fence takes the epoch above, which no client is given.
    let fenced = ongoing(EPOCH_LAST).fenced(false, NOW);
    assert_eq!(fenced.epoch, i16::MAX);
    let step = init(Some(&fenced.completed(NOW)), None, 1, Some(9), NOW);
    assert_eq!(step.answer, Ok((9, 0)));
}

#[test]
fn partitions_are_added_once_and_by_the_holder_alone() {
    let add = |txn: Option<&Transaction>, holder, indexes: &[i32]| {
        add(txn, holder, &partitions(indexes), V0, NOW + 5)
    };
    assert_eq!(
        add(None, (7, 0), &[0]).answer,
        refused(E::InvalidProducerIdMapping)
    );
    let txn = empty(4);
    assert_eq!(
        add(Some(&txn), (8, 4), &[0]).answer,
        refused(E::InvalidProducerIdMapping)
    );
    for epoch in [3, 5] {
        let step = add(Some(&txn), (7, epoch), &[0]);
        assert_eq!(step.answer, refused(E::ProducerFenced));
    }
    let step = add(Some(&txn), (7, 4), &[1, 0]);
    let begun = last(&step).clone();
    assert_eq!((begun.status, begun.started_ms), (Status::Ongoing, NOW + 5));
    let step = add(Some(&begun), (7, 4), &[1]);
    assert_eq!((step.answer, step.changes), (Ok(()), vec![]));
    let step = super::add(Some(&begun), (7, 4), &partitions(&[2]), V0, NOW + 9);
    assert_eq!(last(&step).partitions, partitions(&[0, 1, 2]));
    assert_eq!(last(&step).started_ms, NOW + 5);
    // The next transaction does not have those of the last one.
    let step = add(Some(&complete(4, true, V0)), (7, 4), &[3]);
    assert_eq!(last(&step).partitions, partitions(&[3]));
    let ending = ongoing(4).ended(true, V0, None, NOW);
    // Before anything else: its holder may have the next epoch already.
    assert_eq!(
        add(Some(&ending), (9, 9), &[0]).answer,
        refused(E::ConcurrentTransactions)
    );
}

#[test]
fn a_transaction_that_would_not_fit_a_record_is_refused() {
    let topic = |index: i32| (format!("{index:0249}"), [0].into());
    let most: Partitions = (0..3_500).map(topic).collect();
    let step = add(Some(&empty(4)), (7, 4), &most, V0, NOW);
    assert_eq!(step.answer, Ok(()));
    let more: Partitions = (0..4_000).map(topic).collect();
    let step = add(Some(&empty(4)), (7, 4), &more, V0, NOW);
    assert_eq!(
        (step.answer, step.changes),
        (refused(E::InvalidRequest), vec![])
    );
}

#[test]
fn what_is_not_of_the_transaction_is_found() {
    let verify = |txn: Option<&Transaction>, holder| verify(txn, holder, &partitions(&[0, 1]));
    assert_eq!(verify(Some(&ongoing(4)), (7, 4)), Ok(partitions(&[1])));
    assert_eq!(verify(Some(&empty(4)), (7, 4)), Ok(partitions(&[0, 1])));
    assert_eq!(verify(Some(&ongoing(4)), (7, 3)), Err(E::ProducerFenced));
    assert_eq!(
        verify(Some(&ongoing(4)), (8, 4)),
        Err(E::InvalidProducerIdMapping)
    );
    assert_eq!(verify(None, (7, 4)), Err(E::InvalidProducerIdMapping));
    let ending = ongoing(4).ended(false, V0, None, NOW);
    assert_eq!(
        verify(Some(&ending), (7, 4)),
        Err(E::ConcurrentTransactions)
    );
}

/// F48: the table of EndTxn before transaction version 2.
#[test]
fn f48_ends_at_the_same_epoch() {
    let ending = |commit| ongoing(4).ended(commit, V0, None, NOW);
    let done = Ok((7, 4));
    let concurrent = refused(E::ConcurrentTransactions);
    let invalid = refused(E::InvalidTxnState);
    for (txn, commit, answer) in [
        (empty(4), true, invalid),
        (empty(4), false, invalid),
        (ending(true), true, concurrent),
        (ending(true), false, invalid),
        (ending(false), false, concurrent),
        (ending(false), true, invalid),
        (complete(4, true, V0), true, done),
        (complete(4, true, V0), false, invalid),
        (complete(4, false, V0), false, done),
        (complete(4, false, V0), true, invalid),
    ] {
        let step = end(Some(&txn), (7, 4), commit, V0, None, NOW);
        assert_eq!(
            (&step.answer, step.changes),
            (&answer, vec![]),
            "{txn:?} {commit}"
        );
        for (holder, error) in [
            ((8, 4), E::InvalidProducerIdMapping),
            ((7, 3), E::ProducerFenced),
            ((7, 5), E::ProducerFenced),
        ] {
            let step = end(Some(&txn), holder, commit, V0, None, NOW);
            assert_eq!(step.answer, refused(error), "{txn:?}");
        }
    }
    for (commit, status) in [(true, Status::PrepareCommit), (false, Status::PrepareAbort)] {
        let step = end(Some(&ongoing(4)), (7, 4), commit, V0, None, NOW);
        assert_eq!(step.answer, done);
        assert_eq!((last(&step).status, last(&step).epoch), (status, 4));
    }
    let step = end(None, (7, 4), true, V0, None, NOW);
    assert_eq!(step.answer, refused(E::InvalidProducerIdMapping));
}

/// F48: the same with epochs that rise.
#[test]
fn f48_ends_with_the_next_epoch() {
    let ending = |commit| ongoing(4).ended(commit, V2, None, NOW);
    let concurrent = refused(E::ConcurrentTransactions);
    let invalid = refused(E::InvalidTxnState);
    let fenced = refused(E::ProducerFenced);
    for (txn, epoch, commit, answer) in [
        (empty(5), 5, true, invalid),
        (empty(5), 4, false, fenced),
        // Repeated while the markers are written.
        (ending(true), 4, true, concurrent),
        (ending(true), 4, false, invalid),
        (ending(false), 4, false, concurrent),
        // The next one, by who has had the answer.
        (ending(true), 5, false, concurrent),
        (ending(true), 3, true, fenced),
        // Repeated afterwards.
        (complete(4, true, V2), 4, true, Ok((7, 5))),
        (complete(4, true, V2), 4, false, invalid),
        (complete(4, false, V2), 4, false, Ok((7, 5))),
        (complete(4, false, V2), 4, true, invalid),
        (complete(4, true, V2), 5, true, invalid),
        (complete(4, true, V2), 3, true, fenced),
        (complete(4, true, V2), 6, true, fenced),
        (ongoing(5), 4, true, fenced),
    ] {
        let step = end(Some(&txn), (7, epoch), commit, V2, None, NOW);
        assert_eq!(
            (&step.answer, step.changes),
            (&answer, vec![]),
            "{txn:?} {epoch} {commit}"
        );
        let step = end(Some(&txn), (8, epoch), commit, V2, None, NOW);
        assert_eq!(step.answer, refused(E::InvalidProducerIdMapping));
    }
    let step = end(Some(&ongoing(4)), (7, 4), true, V2, None, NOW);
    assert_eq!((step.answer, last(&step).epoch), (Ok((7, 5)), 5));
    assert_eq!(last(&step).status, Status::PrepareCommit);
    // An abort of nothing is complete at once.
    for txn in [empty(5), complete(4, true, V2), complete(4, false, V2)] {
        let step = end(Some(&txn), (7, 5), false, V2, None, NOW);
        assert_eq!(step.answer, Ok((7, 6)));
        let changes = step.changes.iter().map(|txn| (txn.status, txn.epoch));
        let expected = [(Status::PrepareAbort, 6), (Status::CompleteAbort, 6)];
        assert_eq!(changes.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_last_end_of_a_producer_id_gives_another_one() {
    let txn = ongoing(EPOCH_LAST);
    let step = end(Some(&txn), (7, EPOCH_LAST), true, V2, None, NOW);
    assert_eq!(step.answer, Err(Refused::NeedsProducerId));
    let step = end(Some(&txn), (7, EPOCH_LAST), true, V2, Some(9), NOW);
    assert_eq!(step.answer, Ok((9, 0)));
    // Markers are of the old id, with the epoch that no client has.
    let ending = last(&step).clone();
    assert_eq!((ending.producer_id, ending.epoch), (7, i16::MAX));
    let step = end(Some(&ending), (7, EPOCH_LAST), true, V2, None, NOW);
    assert_eq!(step.answer, refused(E::ConcurrentTransactions));
    let step = add(Some(&ending), (9, 0), &partitions(&[0]), V2, NOW);
    assert_eq!(step.answer, refused(E::ConcurrentTransactions));
    let ended = ending.completed(NOW);
    assert_eq!((ended.producer_id, ended.epoch), (9, 0));
    // Its answer was lost.
    let step = end(Some(&ended), (7, EPOCH_LAST), true, V2, None, NOW);
    assert_eq!((step.answer, step.changes), (Ok((9, 0)), vec![]));
    let step = end(Some(&ended), (7, EPOCH_LAST), false, V2, None, NOW);
    assert_eq!(step.answer, refused(E::InvalidTxnState));
    let step = add(Some(&ended), (9, 0), &partitions(&[0]), V2, NOW);
    assert_eq!(step.answer, Ok(()));
}

/// F50: who was timed out is refused, and whoever is of version 2 may go on after an abort.
#[test]
fn f50_after_a_time_out_the_holder_is_fenced() {
    let aborted = ongoing(4).fenced(false, NOW).completed(NOW);
    assert_eq!((aborted.status, aborted.epoch), (Status::CompleteAbort, 5));
    let step = end(Some(&aborted), (7, 4), true, V0, None, NOW);
    assert_eq!(step.answer, refused(E::ProducerFenced));
    let step = end(Some(&aborted), (7, 4), true, V2, None, NOW);
    assert_eq!(step.answer, refused(E::InvalidTxnState));
    let step = end(Some(&aborted), (7, 4), false, V2, None, NOW);
    assert_eq!(step.answer, Ok((7, 5)));
    let step = init(Some(&aborted), Some((7, 4)), 1, None, NOW);
    assert_eq!(step.answer, refused(E::ProducerFenced));
}
