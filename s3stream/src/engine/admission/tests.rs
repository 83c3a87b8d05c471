//! The budget at its limits.

use std::ops::Range;

use futures::FutureExt;
use wal::Position;

use super::*;
use crate::ErrorKind;

/// A log with so much room and no more.
#[derive(Debug)]
struct Room {
    capacity: u64,
}

#[async_trait::async_trait]
impl wal::Log for Room {
    fn append(&self, _record: &[&[u8]]) -> Result<Range<Position>, wal::Error> {
        Err(wal::Error::Closed)
    }
    fn trim(&self, _to: Position) {}
    fn usage(&self) -> wal::Usage {
        wal::Usage {
            capacity: self.capacity,
            used: 0,
        }
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
    admission.serve(Arc::new(Room { capacity: 1 << 30 }));
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
    admission.serve(Arc::new(Room { capacity: 1 << 30 }));
    admission.try_admit(10).unwrap().spend(10);
    assert!(!old.is_current());
    drop(old);
    assert_eq!(admission.held(), 10);
}

#[test]
fn permits_promise_log_space_with_its_padding() {
    let admission = Admission::new(1 << 30, 4);
    admission.serve(Arc::new(Room {
        capacity: 64 * 1024,
    }));
    let permits: Vec<_> = std::iter::from_fn(|| admission.try_admit(1).ok()).collect();
    assert_eq!(permits.len(), 56 * 1024 / 8193);
    let error = admission.admit(48 * 1024 + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "it would wait for ever");
    let waiting = admission.admit(1).unwrap();
    drop(permits);
    waiting.now_or_never().unwrap().unwrap();
}
