//! Settings and states that are legal one by one and odd together. Found by fuzzing.

use std::sync::Arc;

use wal::{
    Backend, Error, LogEpoch, LogState, Position,
    block::{BlockLog, Config},
    testing::{Hear, MemoryDevice, new_log},
};

const RING_START: usize = 128 * 1024;
const CAPACITY: usize = 17 * 4096;

/// Opens, begins the granted epoch, appends records until `count` are in, and crashes.
fn life(device: &MemoryDevice, config: &Config, state: &mut LogState, count: usize) {
    let log = BlockLog::on(Arc::new(device.clone())).with_config(config.clone());
    let replay = device.drive(log.open(state)).expect("a sound log");
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new())).expect("a start");
    for _ in 0..count {
        log.append(&[&[7; 3_000]]).expect("room");
        while device.waiting() > 0 {
            device.complete(0);
        }
    }
    let durable_end = log.durable_end();
    state.trim(Position::new(durable_end.get() - 1), durable_end);
    state.grant(LogEpoch::new(state.epoch.get() + 1));
}

/// The window that a superblock records is bytes of settings, and was taken for whole blocks: the read began inside a
/// block, which a raw device refuses and which runs past the end of others.
#[test]
fn a_log_whose_commits_are_not_whole_blocks_opens_again() {
    for commit_bytes_max in [4_096, 5_000, 10_001] {
        let config = Config {
            commit_bytes_max,
            in_flight_max: 1,
            record_bytes_max: 3_000,
            ..Config::default()
        };
        let device = MemoryDevice::manual(RING_START + CAPACITY);
        let mut state = new_log();
        life(&device, &config, &mut state, 5);
        let log = BlockLog::on(Arc::new(device.clone())).with_config(config);
        let mut replay = device.drive(log.open(&state)).unwrap();
        let records = device.drive(replay.next()).unwrap().unwrap();
        assert_eq!(records.len(), 1, "{commit_bytes_max}");
    }
}

/// The free room was computed below zero, which is all the room there is.
#[test]
fn a_state_that_points_far_past_the_ring_is_refused_and_not_appended_to() {
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = new_log();
    life(&device, &Config::default(), &mut state, 2);
    state.owed[0].trim = Position::new(1 << 30);
    state.owed[0].durable_end = Position::new(1 << 30);
    let log = BlockLog::on(Arc::new(device.clone()));
    let before = device.content();
    let error = device.drive(log.open(&state)).err().expect("refused");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(device.content(), before);
}
