//! Operations that fail, are cut short, stall or are only said to be done: one typed error, nothing acknowledged is lost, and the log opens again.

use std::{
    io,
    sync::Arc,
    task::{Context, Waker},
};

use wal::{
    Backend, Error, LogEpoch, LogState,
    block::BlockLog,
    testing::{Fault, FaultyDevice, Hear, MemoryDevice},
};

use crate::support::*;

#[test]
fn a_read_or_sync_error_at_open_is_an_error_and_never_an_end() {
    let (device, mut state, _) = written(3);
    for nth in 0..3 {
        let faulty = FaultyDevice::new(Arc::new(device.clone()));
        faulty.plant(Fault::Read {
            nth,
            kind: io::ErrorKind::Other,
        });
        let log = BlockLog::on(Arc::new(faulty)).with_config(config());
        let error = device.drive(log.open(&state)).err();
        assert!(
            matches!(error, Some(Error::Io { op: "read", .. })),
            "read {nth}: {error:?}"
        );
    }
    let faulty = FaultyDevice::new(Arc::new(device.clone()));
    faulty.plant(Fault::Sync {
        nth: 0,
        kind: io::ErrorKind::Other,
    });
    let log = BlockLog::on(Arc::new(faulty)).with_config(config());
    let error = device.drive(log.open(&state)).err();
    assert!(
        matches!(error, Some(Error::Io { op: "sync", .. })),
        "{error:?}"
    );
    goes_on(&device, &mut state, &[0, 1, 2]);
}

#[test]
fn a_read_error_in_a_replay_is_an_error_and_after_a_rewind_everything_is_there() {
    let (device, state, _) = written(3);
    let (faulty, place) = faulty_log_on(&device);
    let mut opened = device.drive(place.open(&state)).unwrap();
    let kind = io::ErrorKind::Other;
    faulty.plant(Fault::Read { nth: 0, kind });
    let error = device.drive(opened.next()).unwrap_err();
    assert!(matches!(error, Error::Io { op: "read", .. }), "{error}");
    device.drive(opened.rewind()).unwrap();
    let back = device.drive(opened.next()).unwrap().unwrap();
    let back: Vec<_> = back.iter().map(|r| r.payload[0]).collect();
    assert_eq!(back, [0, 1, 2]);
}

#[test]
fn a_failed_write_stops_the_log_until_it_is_reopened() {
    // W6. A write error, a full disk, and lesson 13: a completion that never comes because it was dropped.
    for fault in [
        Fault::Write {
            nth: 1,
            kind: io::ErrorKind::Other,
        },
        Fault::Write {
            nth: 1,
            kind: io::ErrorKind::StorageFull,
        },
        Fault::Drop { nth: 1 },
    ] {
        let (device, mut state, _) = written(1);
        let (faulty, place) = faulty_log_on(&device);
        let (log, hear) = start(&device, &place, &mut state);
        faulty.plant(fault);
        for n in 20..24 {
            Hear::append(&*log, &[&[n; 500]]).unwrap();
        }
        complete_all(&device);
        let heard = hear.heard();
        assert_eq!(
            heard.records.len(),
            1,
            "what came before the failure was acknowledged"
        );
        assert!(
            matches!(heard.failed, Some(Error::Failed { .. })),
            "{:?}",
            heard.failed
        );
        let refused = Hear::append(&*log, &[b"x"]);
        assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
        let closed = device.drive(log.close());
        assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
        drop(log);
        state.grant(LogEpoch::new(3));
        let mut replay = device.drive(place.open(&state)).unwrap();
        let back = device.drive(replay.next()).unwrap().unwrap();
        let back: Vec<_> = back.iter().map(|r| r.payload[0]).collect();
        assert_eq!(back[..2], [0, 20], "W2");
    }
}

#[test]
fn a_stalled_write_holds_back_what_was_written_after_it() {
    // W3: acknowledgements stay in order, however the device completes.
    let (device, mut state, _) = written(0);
    let (faulty, place) = faulty_log_on(&device);
    let (log, hear) = start(&device, &place, &mut state);
    faulty.plant(Fault::Stall { nth: 0 });
    for n in 0..5 {
        Hear::append(&*log, &[&[n; 500]]).unwrap();
    }
    complete_all(&device);
    assert_eq!((hear.count(), faulty.stalled()), (0, 1));
    faulty.release();
    complete_all(&device);
    assert_eq!(hear.count(), 5);
}

#[test]
fn a_failed_start_leaves_the_log_as_it_was() {
    let (device, mut state, _) = written(2);
    for nth in 0..2 {
        let (faulty, place) = faulty_log_on(&device);
        let opened = device.drive(place.open(&state)).unwrap();
        state.begin(opened.ends(), opened.start_position());
        faulty.plant(Fault::Write {
            nth,
            kind: io::ErrorKind::Other,
        });
        let failed = device.drive(opened.start(Hear::new() as _)).err();
        assert!(matches!(failed, Some(Error::Io { .. })), "{failed:?}");
        state.grant(LogEpoch::new(state.epoch.get() + 1));
        assert_eq!(replay(&device, &state).unwrap(), [0, 1]);
    }
}

#[test]
fn a_start_that_is_given_up_keeps_the_place_until_its_write_has_landed() {
    let (device, mut state, _) = written(1);
    let place = log_on(&device);
    let replay = device.drive(place.open(&state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    let mut start = replay.start(Hear::new() as _);
    let mut context = Context::from_waker(Waker::noop());
    assert!(start.as_mut().poll(&mut context).is_pending());
    assert_eq!(device.waiting(), 1);
    drop(start);
    state.grant(LogEpoch::new(3));
    let error = device.drive(async {
        // Nothing of the device is needed for this answer.
        place.open(&state).await.err()
    });
    assert!(matches!(error, Some(Error::InUse { .. })), "{error:?}");
    complete_all(&device);
    assert!(device.drive(place.open(&state)).is_ok());
}

/// Every way in which the `nth` write of so many sectors can go wrong with an error.
fn failing(nth: u64, sectors: usize) -> Vec<Fault> {
    let mut faults: Vec<_> = [io::ErrorKind::Other, io::ErrorKind::StorageFull]
        .into_iter()
        .map(|kind| Fault::Write { nth, kind })
        .collect();
    faults.extend((0..=sectors).map(|sectors| Fault::Torn { nth, sectors }));
    faults
}

#[test]
fn a_frame_write_that_fails_or_is_cut_short_anywhere_costs_nothing_that_was_acknowledged() {
    // Three blocks, and one.
    for (len, sectors) in [(9000, 24), (500, 8)] {
        for fault in failing(1, sectors) {
            let (device, mut state, _) = written(2);
            let (faulty, place) = faulty_log_on(&device);
            let (log, hear) = start(&device, &place, &mut state);
            faulty.plant(fault.clone());
            for (n, len) in [(20, 500), (21, len), (22, 500)] {
                Hear::append(&*log, &[&vec![n; len]]).unwrap();
            }
            complete_all(&device);
            let heard = hear.heard();
            assert_eq!(heard.records.len(), 1, "{fault:?}");
            assert!(matches!(heard.failed, Some(Error::Failed { .. })));
            let later = Hear::append(&*log, &[b"x"]);
            assert!(matches!(later, Err(Error::Failed { .. })), "{later:?}");
            drop(log);
            state.grant(LogEpoch::new(3));
            let back = replay(&device, &state).unwrap();
            // What was whole on the device though it failed, and what was in flight behind it, may be there.
            let possible = [0, 1, 20, 21, 22];
            assert!(back.len() >= 3, "{fault:?}: {back:?}");
            assert_eq!(back, possible[..back.len()], "{fault:?}");
            goes_on(&device, &mut state, &back);
        }
    }
}

/// When superblocks are written.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    Format,
    Start,
    Trim,
    Close,
}

#[test]
fn a_superblock_write_that_fails_at_any_moment_is_an_error_and_costs_nothing() {
    use Moment::{Close, Format, Start, Trim};
    for moment in [Format, Start, Trim, Close] {
        for copy in 0..2 {
            for fault in failing(copy, 8) {
                superblock_fault(moment, &fault, true);
            }
            superblock_fault(moment, &Fault::Lose { nth: copy }, false);
        }
    }
}

/// A superblock copy goes wrong, which must be told if `told`; then the log opens as if nothing had been.
fn superblock_fault(moment: Moment, fault: &Fault, told: bool) {
    let what = format!("{moment:?}, {fault:?}");
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let (faulty, place) = faulty_log_on(&device);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    if moment == Moment::Format {
        faulty.plant(fault.clone());
        let opened = device.drive(place.open(&state));
        let refused = matches!(opened, Err(Error::Io { op: "write", .. }));
        assert_eq!(refused, told, "{what}");
        drop(opened);
        return goes_on(&device, &mut state, &[]);
    }
    let (log, positions) = write(&device, &mut state, 3);
    drop(log);
    state.grant(LogEpoch::new(2));
    let opened = device.drive(place.open(&state)).unwrap();
    state.begin(opened.ends(), opened.start_position());
    if moment == Moment::Start {
        faulty.plant(fault.clone());
    }
    let hear = Hear::new();
    let started = device.drive(opened.start(Arc::clone(&hear) as _));
    if moment == Moment::Start {
        let refused = matches!(started, Err(Error::Io { op: "write", .. }));
        assert_eq!(refused, told, "{what}");
        drop(started);
        state.grant(LogEpoch::new(3));
        return goes_on(&device, &mut state, &[0, 1, 2]);
    }
    let log = started.unwrap();
    let last = Hear::append(&*log, &[&[3; 500]]).unwrap();
    complete_all(&device);
    faulty.plant(fault.clone());
    let owed: &[u8] = if moment == Moment::Trim {
        state.trim(positions[1].end, last.end);
        log.trim(positions[1].end);
        complete_all(&device);
        let later = Hear::append(&*log, &[&[4; 500]]);
        assert_eq!(matches!(later, Err(Error::Failed { .. })), told, "{what}");
        &[2, 3]
    } else {
        let closed = device.drive(log.close());
        assert_eq!(matches!(closed, Err(Error::Failed { .. })), told, "{what}");
        &[0, 1, 2, 3]
    };
    assert_eq!(hear.heard().failed.is_some(), told, "{what}");
    // What was appended after an unnoticed loss never reached the device.
    let device = device.power_cut(|_, _| false);
    drop(log);
    state.grant(LogEpoch::new(3));
    goes_on(&device, &mut state, owed);
}

#[test]
fn a_device_that_loses_both_superblock_copies_of_a_start_is_found_out() {
    let (device, mut state, _) = written(2);
    let (faulty, place) = faulty_log_on(&device);
    let opened = device.drive(place.open(&state)).unwrap();
    state.begin(opened.ends(), opened.start_position());
    for nth in 0..2 {
        faulty.plant(Fault::Lose { nth });
    }
    let hear = Hear::new();
    let log = device.drive(opened.start(Arc::clone(&hear) as _)).unwrap();
    Hear::append(&*log, &[&[20; 500]]).unwrap();
    complete_all(&device);
    assert_eq!(hear.count(), 1);
    drop(log);
    state.grant(LogEpoch::new(3));
    match replay(&device, &state) {
        Ok(back) => assert_eq!(back, [0, 1, 20]),
        Err(error) => assert!(
            matches!(error, Error::Corrupt { .. } | Error::Mismatch { .. }),
            "{error}"
        ),
    }
}
