//! Producers without a log: sequences, epochs, what is kept, transactions.

mod transactions;

use proptest::prelude::*;

use super::*;
use crate::header::Attributes;
use crate::position::Origin;
use crate::verification::Guard;

const MAX: i32 = i32::MAX;

/// The header of a batch of `count` records at `base`.
fn header(id: i64, epoch: i16, sequence: i32, count: i32, base: i64) -> BatchHeader {
    BatchHeader {
        base_offset: base,
        batch_length: 100,
        partition_leader_epoch: 0,
        crc: 0,
        attributes: Attributes::new(0),
        last_offset_delta: count - 1,
        base_timestamp: 1000,
        max_timestamp: 1000 + base,
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
        records_count: count,
    }
}

static NO_GUARD: Guard = Guard::NONE;

/// What a client asks that is in no transaction.
fn plainly() -> Request<'static> {
    Request {
        origin: Origin::Client,
        guard: &NO_GUARD,
        version: None,
        verification: None,
        verify: true,
        open_max: 100,
        aborted_max: 100,
    }
}

fn data(header: &BatchHeader) -> Entry<'_> {
    Entry {
        header,
        marker: None,
    }
}

/// What becomes of a batch: its code, or the offsets of its original, or that it is new.
#[derive(Debug, PartialEq)]
enum Answer {
    New,
    Duplicate(i64, i64),
    Refused(i16),
}
use Answer::{Duplicate, New, Refused};

/// A log of one producer id, 1.
#[derive(Default)]
struct Log {
    producers: Producers,
    end: i64,
}

impl Log {
    fn ask(&self, epoch: i16, sequence: i32, count: i32) -> Answer {
        let header = header(1, epoch, sequence, count, self.end);
        match self.producers.check(&data(&header), &plainly()) {
            Ok(None) => New,
            Ok(Some(batch)) => Duplicate(batch.first_offset(), batch.last_offset),
            Err(error) => Refused(error.code()),
        }
    }

    fn send(&mut self, epoch: i16, sequence: i32, count: i32) -> Answer {
        let answer = self.ask(epoch, sequence, count);
        if answer == New {
            let header = header(1, epoch, sequence, count, self.end);
            self.producers.add(&data(&header), 100);
            self.end += i64::from(count);
        }
        answer
    }
}

fn reloaded(producers: &Producers) -> Producers {
    reloaded_from(&producers.encode())
}

fn reloaded_from(bytes: &[u8]) -> Producers {
    let mut again = Producers::default();
    again.apply(bytes).unwrap();
    again
}

#[test]
fn vector_38_sequences_and_epochs_of_a_producer() {
    let mut log = Log::default();
    assert_eq!(log.send(0, 0, 1), New);
    assert_eq!(log.send(0, 1, 1), New);
    assert_eq!(log.send(0, 1, 2), Refused(45));
    assert_eq!(log.send(0, 5, 1), Refused(45));
    assert_eq!(log.send(1, 0, 1), New);
    assert_eq!(log.send(0, 2, 1), Refused(47));
    assert_eq!(log.send(0, 0, 1), Refused(47));
}

#[test]
fn vector_39_an_unknown_producer_may_go_on_anywhere() {
    let mut log = Log::default();
    assert_eq!(log.send(3, 16, 1), New);
    assert_eq!(log.send(3, 17, 1), New);
}

#[test]
fn vector_40_sequences_wrap_within_and_between_batches() {
    let mut log = Log::default();
    assert_eq!(log.send(0, MAX, 1), New);
    assert_eq!(log.ask(0, 1, 1), Refused(45));
    assert_eq!(log.send(0, 0, 1), New);

    let mut log = Log {
        end: 2000,
        ..Log::default()
    };
    assert_eq!(log.send(0, MAX - 10, 21), New);
    assert_eq!(log.send(0, MAX - 10, 21), Duplicate(2000, 2020));
    assert_eq!(log.send(0, 9, 1), Refused(45));
    assert_eq!(log.send(0, 10, 1), New);
}

#[test]
fn vector_43_a_batch_that_was_only_asked_about_changes_nothing() {
    let mut log = Log::default();
    log.send(0, 0, 1);
    let before = log.producers.clone();
    assert_eq!(log.ask(0, 1, 1), New);
    assert_eq!(log.ask(1, 0, 1), New);
    assert_eq!(log.producers, before);
    assert_eq!(log.send(0, 1, 1), New);
}

#[test]
fn vector_50_after_a_reload_all_five_batches_are_known() {
    let mut log = Log::default();
    for sequence in 0..8 {
        log.send(0, sequence, 1);
    }
    let (again, end) = (reloaded(&log.producers), log.end);
    let mut log = Log {
        producers: again,
        end,
    };
    for sequence in 3..8 {
        let offset = i64::from(sequence);
        assert_eq!(log.send(0, sequence, 1), Duplicate(offset, offset));
    }
    assert_eq!(log.send(0, 2, 1), Refused(45));
    assert_eq!(log.send(0, 8, 1), New);
}

#[test]
fn vector_51_without_a_change_nothing_is_written_and_garbage_is_refused() {
    let mut log = Log::default();
    assert_eq!(log.producers.encode_changed(), None);
    log.send(0, 0, 1);
    assert!(log.producers.encode_changed().is_some());
    log.producers.set_kept();
    assert_eq!(log.producers.encode_changed(), None);
    let whole = log.producers.encode();
    // Nine bytes are a state that knows nobody.
    for len in (1..9).chain(10..whole.len()) {
        let error = Producers::default().apply(&whole[..len]).unwrap_err();
        assert_eq!(error.code(), 56, "{len}");
    }
    let other_version = [&[1], &whole[1..]].concat();
    assert!(Producers::default().apply(&other_version).is_err());
}

#[test]
fn vector_52_who_was_silent_for_too_long_is_unknown() {
    let mut log = Log::default();
    log.send(0, 0, 1);
    log.send(0, 1, 1);
    // The newest timestamp is 1001.
    log.producers.expire(1200, 200, 9);
    assert_eq!(log.ask(0, 9, 1), Refused(45));
    log.producers.expire(1201, 200, 9);
    assert!(log.producers.active().is_empty());
    assert_eq!(log.ask(0, 9, 1), New);
}

#[test]
fn vector_61_a_new_epoch_begins_at_sequence_0() {
    let mut log = Log::default();
    log.send(0, 0, 1);
    assert_eq!(log.send(1, 5, 1), Refused(45));
    assert_eq!(log.send(1, 1, 1), Refused(45));
    assert_eq!(log.send(1, 0, 1), New);
    // The old epoch's batches are forgotten with it.
    assert_eq!(log.send(0, 0, 1), Refused(47));
}

#[test]
fn vector_100_five_batches_are_recognised_and_parts_of_them_are_not() {
    let mut log = Log::default();
    for sequence in 0..6 {
        log.send(0, sequence, 1);
    }
    log.send(0, 6, 3);
    let end = log.end;
    assert_eq!(log.send(0, 6, 3), Duplicate(6, 8));
    assert_eq!(log.send(0, 7, 2), Refused(45));
    assert_eq!(log.send(0, 6, 2), Refused(45));
    assert_eq!(log.send(0, 2, 1), Duplicate(2, 2));
    assert_eq!(log.send(0, 1, 1), Refused(45));
    assert_eq!(log.end, end);
}

#[test]
fn vector_102_the_offset_delta_counts_and_not_the_records_that_are_left() {
    let mut producers = Producers::default();
    let compacted = BatchHeader {
        records_count: 0,
        ..header(1, 0, 4, 2, 5)
    };
    producers.add(&data(&compacted), 100);
    let next = header(1, 0, 6, 1, 7);
    assert_eq!(producers.check(&data(&next), &plainly()).unwrap(), None);
    let inside = header(1, 0, 5, 1, 7);
    assert!(producers.check(&data(&inside), &plainly()).is_err());
}

#[test]
fn a_batch_that_is_known_changes_nothing_when_it_is_read_again() {
    let mut log = Log::default();
    for sequence in 0..8 {
        log.send(0, sequence, 1);
    }
    log.send(1, 0, 1);
    let before = log.producers.clone();
    for offset in 0..8 {
        let header = header(1, 0, offset as i32, 1, offset);
        log.producers.add(&data(&header), 100);
    }
    assert_eq!(log.producers, before);
}

#[test]
fn past_the_limit_the_one_that_is_silent_for_longest_is_forgotten() {
    let mut producers = Producers::default();
    for id in 0..10 {
        producers.add(&data(&header(id, 0, 0, 1, id)), 10);
    }
    producers.add(&data(&header(0, 0, 1, 1, 10)), 10);
    producers.add(&data(&header(10, 0, 0, 1, 11)), 10);
    assert_eq!(producers.known.len(), 10);
    assert_eq!(producers.silent.len(), 10);
    // The one that was forgotten is a change, too.
    assert_eq!(producers.changed(), 11);
    assert!(!producers.known.contains_key(&1) && producers.known.contains_key(&0));
}

#[test]
fn batches_without_a_producer_are_nobodys() {
    let mut producers = Producers::default();
    producers.add(&data(&header(-1, -1, -1, 1, 0)), 10);
    assert_eq!((producers.active(), producers.end()), (Vec::new(), 1));
}

#[test]
fn golden_bytes() {
    let mut producers = Producers::default();
    producers.add(&data(&header(7, 3, 4, 2, 5)), 10);
    producers.add(&data(&header(7, 3, 6, 1, 7)), 10);
    transactions::aborted(&mut producers, 8, 9);
    producers.add(&data(&header(9, 1, 0, 1, 11)), 3);
    let seven = [
        &[1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 3][..],
        &[255; 4 + 8],
        &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 3, 0xef],
        &[2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6],
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 0xed],
        &[0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xef],
    ]
    .concat();
    // An open transaction from offset 8, then one that was aborted, from 9 to its marker at 10.
    let open = [
        &[1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 255, 255, 255, 255][..],
        &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8],
        &[0, 0, 0, 0, 0, 0, 3, 0xf0, 1, 0, 0, 0, 0],
        &[
            0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xf0,
        ],
    ]
    .concat();
    let nine = [
        &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 6][..],
        &[255; 8],
        &[0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 3, 0xf3],
        &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xf1],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xf3],
    ]
    .concat();
    let aborted = [
        &[3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9][..],
        &[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 8],
    ]
    .concat();
    let head = [3, 0, 0, 0, 0, 0, 0, 0, 12];
    let golden = [&head[..], &seven, &open, &nine, &aborted].concat();
    assert_eq!(producers.encode(), golden);
    assert_eq!(producers.encode_changed().unwrap(), golden);
    producers.first_unstable(i64::MAX);
    producers.set_kept();
    assert_eq!(reloaded(&producers), producers);
    // Seven is silent for longest, and changed: it is a change that it is gone.
    producers.add(&data(&header(7, 3, 7, 1, 12)), 3);
    producers.add(&data(&header(9, 1, 1, 1, 13)), 2);
    let change = producers.encode_changed().unwrap();
    let gone = [2, 0, 0, 0, 0, 0, 0, 0, 7];
    assert_eq!(change[9..18], gone);
    let mut again = Producers::default();
    again.apply(&golden).unwrap();
    again.apply(&change).unwrap();
    producers.set_kept();
    assert_eq!(again, producers);
    // Nothing is left of what was aborted at 10; that says nothing of the end.
    let (emptied, change) = producers.forget_emptied(&[3, 10]);
    let golden_change = [&[3][..], &[255; 8], &[4, 0, 0, 0, 0, 0, 0, 0, 10]].concat();
    assert_eq!(change.unwrap(), golden_change);
    again.apply(&golden_change).unwrap();
    again.apply(&golden_change).unwrap();
    assert_eq!((again, emptied.len()), (producers.clone(), 1));
    assert!(producers.aborted_within(0, 100).is_empty());
    assert_eq!(producers.forget_emptied(&[10]), (Vec::new(), None));
    let producers = reloaded_from(&golden);
    for at in 0..golden.len() {
        let mut damaged = golden.clone();
        damaged[at] ^= 0xff;
        let mut other = Producers::default();
        if other.apply(&damaged).is_ok() {
            assert_ne!(other, producers, "{at}");
            assert_eq!(reloaded(&other), other);
        }
    }
}

proptest! {
    /// Changes in turn, wherever they are cut, make what the whole makes.
    #[test]
    fn changes_one_after_the_other_are_the_whole(
        sent in prop::collection::vec((0..4i64, 0..3i16, any::<bool>()), 1..60),
    ) {
        let mut producers = Producers::default();
        let mut again = Producers::default();
        let mut epochs = [0; 4];
        for (base, (id, bump, keep)) in (0..).zip(sent) {
            epochs[id as usize] += i16::from(bump == 0);
            producers.add(&data(&header(id, epochs[id as usize], 0, 1, base)), 100);
            if keep {
                again.apply(&producers.encode_changed().unwrap()).unwrap();
                producers.set_kept();
                prop_assert_eq!(&again, &producers);
            }
        }
        producers.set_kept();
        prop_assert_eq!(reloaded(&producers), producers);
    }

    #[test]
    fn no_bytes_make_loading_panic(bytes in prop::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..200)) {
        let _ = Producers::default().apply(&bytes);
    }
}
