//! What the cases share: a log of a few acknowledged records on a device that can be damaged.

use std::{ops::Range, sync::Arc};

use wal::{
    Backend, Error, Identity, Log, LogEpoch, LogState, LogUuid, Position,
    block::{BlockLog, Config},
    testing::{FaultyDevice, Hear, MemoryDevice},
};

pub(crate) const RING_START: usize = 128 * 1024;
pub(crate) const CAPACITY: usize = 32 * 4096;
pub(crate) const COPIES: [usize; 2] = [0, 65_536];

pub(crate) fn identity() -> Identity {
    Identity {
        cluster: 0xc,
        log: LogUuid::new(0x1),
        node: 2,
    }
}

pub(crate) fn config() -> Config {
    Config {
        overlap_bytes: 0,
        commit_bytes_max: 8192,
        in_flight_max: 2,
        ..Config::default()
    }
}

pub(crate) fn log_on(device: &MemoryDevice) -> BlockLog {
    BlockLog::on(Arc::new(device.clone())).with_config(config())
}

/// The same with a device between that fails as planted.
pub(crate) fn faulty_log_on(device: &MemoryDevice) -> (FaultyDevice, BlockLog) {
    let faulty = FaultyDevice::new(Arc::new(device.clone()));
    let place = BlockLog::on(Arc::new(faulty.clone())).with_config(config());
    (faulty, place)
}

/// Opens what the state describes, and starts it.
pub(crate) fn start(
    device: &MemoryDevice,
    place: &BlockLog,
    state: &mut LogState,
) -> (Arc<dyn Log>, Arc<Hear>) {
    let opened = device.drive(place.open(state)).unwrap();
    state.begin(opened.ends(), opened.start_position());
    let hear = Hear::new();
    let log = device.drive(opened.start(Arc::clone(&hear) as _)).unwrap();
    (log, hear)
}

pub(crate) fn complete_all(device: &MemoryDevice) {
    while device.waiting() > 0 {
        device.complete(0);
    }
}

/// A log with `records` acknowledged, one per frame, and the state of the next opening.
pub(crate) fn written(records: u8) -> (MemoryDevice, LogState, Vec<Range<Position>>) {
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    let (log, positions) = write(&device, &mut state, records);
    drop(log);
    state.grant(LogEpoch::new(2));
    (device, state, positions)
}

pub(crate) fn write(
    device: &MemoryDevice,
    state: &mut LogState,
    records: u8,
) -> (Arc<dyn Log>, Vec<Range<Position>>) {
    let (log, _) = start(device, &log_on(device), state);
    let mut positions = Vec::new();
    for n in 0..records {
        positions.push(Hear::append(&*log, &[&[n; 500]]).unwrap());
        complete_all(device);
    }
    (log, positions)
}

pub(crate) fn replay(device: &MemoryDevice, state: &LogState) -> Result<Vec<u8>, Error> {
    let mut replay = device.drive(log_on(device).open(state))?;
    let mut back = Vec::new();
    while let Some(piece) = device.drive(replay.next())? {
        back.extend(piece.iter().map(|r| r.payload[0]));
    }
    Ok(back)
}

/// The error of an opening that must be refused, and must change nothing.
pub(crate) fn refused(device: &MemoryDevice, state: &LogState) -> Error {
    let before = device.content();
    let error = replay(device, state).expect_err("an opening that must be refused");
    assert!(
        device.content() == before,
        "a refused opening wrote: {error}"
    );
    error
}

pub(crate) fn frame_byte(position: Position) -> usize {
    RING_START + (position.get() as usize - 80) % CAPACITY
}

/// The log opens with what is `owed`, takes a record, and has it the next time.
pub(crate) fn goes_on(device: &MemoryDevice, state: &mut LogState, owed: &[u8]) {
    assert_eq!(replay(device, state).unwrap(), owed);
    let (log, _) = write(device, state, 1);
    drop(log);
    state.grant(LogEpoch::new(state.epoch.get() + 1));
    let expected: Vec<_> = owed.iter().copied().chain([0]).collect();
    assert_eq!(replay(device, state).unwrap(), expected);
}
