//! Superblock copies that rotted, are old or gone: one good one is enough, two bad ones are corruption.

use std::sync::Arc;

use wal::{
    Backend, Error, LogEpoch, LogState,
    block::BlockLog,
    testing::{Fault, FaultyDevice, Hear, MemoryDevice, Operation, RecordingDevice},
};

use crate::support::*;

#[test]
fn one_bad_superblock_copy_is_passed_over_whichever_it_is() {
    for copy in COPIES {
        let (device, mut state, _) = written(2);
        device.damage(copy + 20, |bytes| bytes[0] ^= 1);
        assert_eq!(replay(&device, &state).unwrap(), [0, 1]);
        // And the next start makes both good again.
        drop(write(&device, &mut state, 0));
        for other in COPIES {
            state.grant(LogEpoch::new(state.epoch.get() + 1));
            let content = MemoryDevice::with_content(device.content());
            content.damage(other, |bytes| bytes[0] ^= 1);
            assert_eq!(replay(&content, &state).unwrap(), [0, 1]);
        }
    }
}

#[test]
fn an_older_superblock_copy_never_hides_what_is_owed() {
    // Falling back to the older copy once replayed an overwritten ring as empty.
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    let (log, _) = write(&device, &mut state, 3);
    let older = device.content();
    let end = log.durable_end();
    state.trim(end, end);
    log.trim(end);
    complete_all(&device);
    for n in 10..40 {
        match Hear::append(&*log, &[&[n; 500]]) {
            Ok(_) => complete_all(&device),
            Err(e) => {
                assert!(matches!(e, Error::Full { .. }), "{e}");
                break;
            }
        }
    }
    drop(log);
    state.grant(LogEpoch::new(2));
    let whole = replay(&device, &state).unwrap();
    assert!(whole.len() >= 28);
    for (keep, lose) in [(0, 1), (1, 0)] {
        let device = MemoryDevice::with_content(device.content());
        let at = COPIES[keep];
        device.damage(at, |bytes| {
            bytes[..4096].copy_from_slice(&older[at..at + 4096])
        });
        assert_eq!(replay(&device, &state).unwrap(), whole);
        device.damage(COPIES[lose], |bytes| bytes[0] ^= 1);
        // Alone it is too old to be one of the two that the last trim wrote.
        let error = refused(&device, &state);
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn two_bad_superblock_copies_are_corrupt_and_nothing_is_overwritten() {
    let (device, state, _) = written(2);
    for copy in COPIES {
        device.damage(copy + 30, |bytes| bytes[0] ^= 1);
    }
    for state in [state, LogState::new(identity(), LogEpoch::new(1))] {
        let error = refused(&device, &state);
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("memory device"), "{error}");
    }
    let identified = device.drive(log_on(&device).identify());
    assert!(
        matches!(identified, Err(Error::Corrupt { .. })),
        "{identified:?}"
    );
}

#[test]
fn erased_superblocks_over_a_ring_that_is_not_blank_are_no_new_log() {
    let (device, _, _) = written(2);
    for copy in COPIES {
        device.damage(copy, |bytes| bytes[..4096].fill(0));
    }
    let error = refused(&device, &LogState::new(identity(), LogEpoch::new(1)));
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_newer_format_is_refused_and_named() {
    let (device, state, _) = written(2);
    device.damage(COPIES[1], |bytes| {
        bytes[11] = 7;
        let crc = crc32c::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_be_bytes());
    });
    let error = refused(&device, &state);
    assert!(
        matches!(
            error,
            Error::UnknownFormat {
                found: 7,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn every_flipped_byte_of_one_copy_and_a_copy_that_is_gone_leave_the_log_whole() {
    let (device, state, _) = written(2);
    let content = device.content();
    for copy in COPIES {
        for byte in 0..512 {
            let device = MemoryDevice::with_content(content.clone());
            device.damage(copy + byte, |bytes| bytes[0] ^= 1 << (byte % 8));
            assert_eq!(replay(&device, &state).unwrap(), [0, 1], "{copy}, {byte}");
            // Both of them: nothing is guessed.
            let other = COPIES[usize::from(copy == COPIES[0])];
            device.damage(other + byte, |bytes| bytes[0] ^= 1 << (byte % 8));
            let error = refused(&device, &state);
            assert!(matches!(error, Error::Corrupt { .. }), "{byte}: {error}");
        }
        for fill in [0, 0xff] {
            let device = MemoryDevice::with_content(content.clone());
            device.damage(copy, |bytes| bytes[..4096].fill(fill));
            let mut state = state.clone();
            assert_eq!(replay(&device, &state).unwrap(), [0, 1], "{copy}, {fill}");
            goes_on(&device, &mut state, &[0, 1]);
        }
    }
}

#[test]
fn a_clock_that_runs_backwards_cannot_bring_back_an_old_superblock() {
    // Lesson 10: a header was chosen by its nanoseconds. Here by a sequence that every write raises, over starts, trims, closes and epochs.
    let life = || {
        let device = MemoryDevice::manual(RING_START + CAPACITY);
        let recording = RecordingDevice::<()>::new(Arc::new(device.clone()));
        let mut state = LogState::new(identity(), LogEpoch::new(1));
        for epoch in 2..5 {
            let place = BlockLog::on(Arc::new(recording.clone())).with_config(config());
            let (log, _) = start(&device, &place, &mut state);
            Hear::append(&*log, &[&[1; 500]]).unwrap();
            complete_all(&device);
            let end = log.durable_end();
            state.trim(end, end);
            log.trim(end);
            complete_all(&device);
            device.drive(log.close()).unwrap();
            state.grant(LogEpoch::new(epoch));
        }
        recording.trace()
    };
    let mut writes = Vec::new();
    for operation in life() {
        if let Operation::Write { at, data, .. } = operation
            && COPIES.contains(&(at as usize))
        {
            let sequence = u64::from_be_bytes(data[16..24].try_into().unwrap());
            writes.push((sequence, data));
        }
    }
    // The making, then a start, a trim and a close of each of three lives, each of them twice.
    let sequences: Vec<_> = writes.iter().map(|(sequence, _)| *sequence).collect();
    let expected: Vec<_> = (1..=10).flat_map(|n| [n, n]).collect();
    assert_eq!(sequences, expected);
    for pair in writes.chunks(2) {
        assert_eq!(pair[0].1, pair[1].1, "both copies say the same");
    }
    assert!(
        life() == life(),
        "the same life at another time is the same bytes"
    );
}

#[test]
fn after_a_start_that_died_between_its_copies_the_older_one_is_written_first() {
    // Whatever happens to that write, what the newest copy says stays.
    let (device, mut state, _) = written(1);
    let mut first = COPIES[0];
    for _ in 0..4 {
        let faulty = FaultyDevice::new(Arc::new(device.clone()));
        let recording = RecordingDevice::<()>::new(Arc::new(faulty.clone()));
        let place = BlockLog::on(Arc::new(recording.clone())).with_config(config());
        let opened = device.drive(place.open(&state)).unwrap();
        state.begin(opened.ends(), opened.start_position());
        let kind = std::io::ErrorKind::Other;
        faulty.plant(Fault::Write { nth: 1, kind });
        assert!(device.drive(opened.start(Hear::new() as _)).is_err());
        let writes = recording.trace().into_iter().filter_map(|o| match o {
            Operation::Write { at, .. } => Some(at as usize),
            _ => None,
        });
        assert_eq!(writes.collect::<Vec<_>>()[0], first);
        // It was the one that was written: the other is the older one now.
        first = COPIES[usize::from(first == COPIES[0])];
        state.grant(LogEpoch::new(state.epoch.get() + 1));
    }
}
