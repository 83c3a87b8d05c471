//! The budget at its limits.

use std::ops::Range;

use futures::FutureExt;
use wal::Position;

use super::*;
use crate::ErrorKind;

/// A log with so much room and no more, in which nothing waits.
#[derive(Debug)]
struct Room(wal::Usage);

impl Room {
    fn of(capacity: u64) -> Arc<Self> {
        Self::with_queue(capacity, u64::MAX)
    }

    fn with_queue(capacity: u64, queue_capacity: u64) -> Arc<Self> {
        Arc::new(Self(wal::Usage {
            capacity,
            queue_capacity,
            overhead: 4096,
            ..wal::Usage::default()
        }))
    }
}

#[async_trait::async_trait]
impl wal::Log for Room {
    fn append(&self, _record: &[&[u8]]) -> Result<Range<Position>, wal::Error> {
        Err(wal::Error::Closed)
    }
    fn trim(&self, _to: Position) {}
    fn usage(&self) -> wal::Usage {
        self.0
    }
    fn max_record_len(&self) -> usize {
        0
    }
    fn durable_end(&self) -> Position {
        Position::new(0)
    }
    async fn close(&self) -> Result<(), wal::Error> {
        Ok(())
    }
}

fn serving(limit: u64, waiters_max: usize) -> Arc<Admission> {
    let admission = Admission::new(limit, waiters_max);
    admission.serve(Room::of(1 << 30));
    admission
}

#[test]
fn the_limit_is_exact_and_a_dropped_permit_returns() {
    let admission = serving(10, 4);
    let permit = admission.try_admit(10).unwrap();
    assert_eq!(admission.try_admit(1).unwrap_err().kind(), ErrorKind::Full);
    drop(permit);
    admission.try_admit(10).unwrap().spend(10);
    assert_eq!(admission.held(), 10);
    let error = admission.try_admit(11).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn waiters_are_served_in_order_and_nobody_passes_them() {
    let admission = serving(10, 4);
    admission.try_admit(8).unwrap().spend(8);
    let mut large = admission.admit(10).unwrap();
    let mut small = admission.admit(1).unwrap();
    assert!((&mut large).now_or_never().is_none());
    assert!((&mut small).now_or_never().is_none());
    assert_eq!(admission.try_admit(1).unwrap_err().kind(), ErrorKind::Full);
    admission.exchange(8, 0);
    let permit = (&mut large).now_or_never().unwrap().unwrap();
    assert!((&mut small).now_or_never().is_none());
    drop(permit);
    (&mut small).now_or_never().unwrap().unwrap();
}

#[test]
fn a_dropped_waiter_leaves_its_place_and_its_grant() {
    let admission = serving(10, 4);
    admission.try_admit(8).unwrap().spend(8);
    let large = admission.admit(10).unwrap();
    let mut small = admission.admit(2).unwrap();
    assert!((&mut small).now_or_never().is_none());
    drop(large);
    drop((&mut small).now_or_never().unwrap().unwrap());
    drop(admission.admit(2).unwrap());
    assert_eq!(admission.held(), 8);
}

#[test]
fn the_queue_is_bounded_and_closing_wakes_everyone() {
    let admission = serving(1, 1);
    admission.try_admit(1).unwrap().spend(1);
    let waiting = admission.admit(1).unwrap();
    assert_eq!(admission.admit(1).unwrap_err().kind(), ErrorKind::Full);
    admission.close(Error::closed("engine closed"));
    let error = waiting.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_permit_from_before_a_reset_gives_nothing_back() {
    let admission = serving(10, 1);
    let old = admission.try_admit(6).unwrap();
    admission.reset(0);
    assert_eq!(admission.try_admit(1).unwrap_err().kind(), ErrorKind::Full);
    admission.serve(Room::of(1 << 30));
    admission.try_admit(10).unwrap().spend(10);
    assert!(!old.is_current());
    drop(old);
    assert_eq!(admission.held(), 10);
}

#[test]
fn permits_promise_log_space_with_its_padding() {
    let admission = Admission::new(1 << 30, 4);
    admission.serve(Room::of(64 * 1024));
    let permits: Vec<_> = std::iter::from_fn(|| admission.try_admit(1).ok()).collect();
    assert_eq!(permits.len(), 56 * 1024 / 4097);
    let error = admission.admit(52 * 1024 + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "it would wait for ever");
    let waiting = admission.admit(1).unwrap();
    drop(permits);
    waiting.now_or_never().unwrap().unwrap();
}

#[test]
fn permits_promise_what_the_log_lets_wait_and_a_lone_record_is_always_let_in() {
    let admission = Admission::new(1 << 30, 8);
    admission.serve(Room::with_queue(1 << 30, 3 * 4200));
    let permits: Vec<_> = std::iter::from_fn(|| admission.try_admit(100).ok()).collect();
    assert_eq!(permits.len(), 3);
    let mut large = admission.admit(1 << 20).unwrap();
    let mut small = admission.admit(1).unwrap();
    assert!((&mut large).now_or_never().is_none());
    assert!(
        !admission.is_short(),
        "nothing that an upload would make room for"
    );
    drop(permits);
    let alone = (&mut large).now_or_never().unwrap().unwrap();
    assert!((&mut small).now_or_never().is_none());
    drop(alone);
    (&mut small).now_or_never().unwrap().unwrap();
}
