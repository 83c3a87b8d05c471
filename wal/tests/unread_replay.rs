//! A log that is started before its replay was read to the end keeps all that is owed, and gives back what is trimmed.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{ops::Range, sync::Arc};

use wal::{
    Backend, Error, LogEpoch, LogState, Position,
    block::{BlockLog, Config},
    testing::{Hear, MemoryDevice, new_log},
};

const RING_START: usize = 128 * 1024;
const CAPACITY: usize = 8 << 20;
const RECORD: usize = 60_000;

fn place(device: &MemoryDevice) -> BlockLog {
    BlockLog::on(Arc::new(device.clone())).with_config(Config {
        commit_bytes_max: 64 << 10,
        record_bytes_max: 64 << 10,
        ..Config::default()
    })
}

fn complete_all(device: &MemoryDevice) {
    while device.waiting() > 0 {
        device.complete(0);
    }
}

/// 80 records of a frame each, and what the next opening is told.
fn written() -> (MemoryDevice, LogState, Vec<Range<Position>>) {
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = new_log();
    let replay = device.drive(place(&device).open(&state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new() as _)).unwrap();
    let positions = (0..80).map(|n| {
        let position = log.append(&[&[n; RECORD]]).unwrap();
        complete_all(&device);
        position
    });
    let positions = positions.collect();
    state.grant(LogEpoch::new(2));
    (device, state, positions)
}

/// Starts after `pieces` of the replay were read, trims to the end of record `trimmed`, fills the log up, and says how many records fit.
fn fill_after(pieces: usize, trimmed: usize) -> usize {
    let (device, mut state, positions) = written();
    let mut replay = device.drive(place(&device).open(&state)).unwrap();
    for _ in 0..pieces {
        device.drive(replay.next()).unwrap();
    }
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new() as _)).unwrap();
    let to = positions[trimmed].end;
    state.trim(to, log.durable_end());
    log.trim(to);
    complete_all(&device);
    let mut fit = 0_usize;
    loop {
        match log.append(&[&[fit as u8; RECORD]]) {
            Ok(_) => fit += 1,
            Err(Error::Full { .. }) => break,
            Err(e) => panic!("{e}"),
        }
        complete_all(&device);
    }
    drop(log);
    state.grant(LogEpoch::new(3));
    let mut replay = device.drive(place(&device).open(&state)).unwrap();
    let mut back = Vec::new();
    while let Some(piece) = device.drive(replay.next()).unwrap() {
        back.extend(piece.into_iter().map(|record| record.payload[0]));
    }
    let owed = (trimmed + 1..80).map(|n| n as u8);
    let expected: Vec<u8> = owed.chain((0..fit).map(|n| n as u8)).collect();
    assert_eq!(
        back, expected,
        "after {pieces} pieces, trimmed to {trimmed}"
    );
    fit
}

#[test]
fn a_log_started_in_the_midst_of_its_replay_keeps_what_is_owed_and_gives_back_the_rest() {
    for trimmed in [0, 9, 40, 79] {
        let all_read = fill_after(usize::from(u8::MAX), trimmed);
        assert_eq!(all_read, CAPACITY / 61_440 - (79 - trimmed), "{trimmed}");
        for pieces in 0..6 {
            let fit = fill_after(pieces, trimmed);
            assert!(fit <= all_read, "{pieces} pieces, {trimmed}");
            // What was read is given back at once, and all of it when all is trimmed.
            let read = pieces * 17;
            assert!(
                fit == all_read || (trimmed < 79 && read <= trimmed),
                "{fit} fit after {pieces} pieces and a trim to {trimmed}, {all_read} could"
            );
        }
    }
}
