//! Bad input: damaged frames and superblocks, other people's logs, newer formats, truncated and full files. Each ends in one error that names the thing,
//! and nothing is overwritten.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{
    io,
    sync::Arc,
    task::{Context, Waker},
};

use wal::{
    Backend, EpochState, Error, Found, Identity, Log, LogEpoch, LogState, LogUuid, Position,
    block::{BlockLog, Config, Device},
    testing::{Fault, FaultyDevice, Hear, MemoryDevice},
};

const RING_START: usize = 128 * 1024;
const CAPACITY: usize = 32 * 4096;
const COPIES: [usize; 2] = [0, 65_536];

fn identity() -> Identity {
    Identity {
        cluster: 0xc,
        log: LogUuid::new(0x1),
        node: 2,
    }
}

fn config() -> Config {
    Config {
        overlap_bytes: 0,
        commit_bytes_max: 8192,
        in_flight_max: 2,
        ..Config::default()
    }
}

fn log_on(device: &MemoryDevice) -> BlockLog {
    BlockLog::on(Arc::new(device.clone())).with_config(config())
}

fn complete_all(device: &MemoryDevice) {
    while device.waiting() > 0 {
        device.complete(0);
    }
}

/// A log with `records` acknowledged, one per frame, and the state of the next opening.
fn written(records: u8) -> (MemoryDevice, LogState, Vec<std::ops::Range<Position>>) {
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    let (log, positions) = write(&device, &mut state, records);
    drop(log);
    state.grant(LogEpoch::new(2));
    (device, state, positions)
}

fn write(
    device: &MemoryDevice,
    state: &mut LogState,
    records: u8,
) -> (Arc<dyn Log>, Vec<std::ops::Range<Position>>) {
    let replay = device.drive(log_on(device).open(state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new() as _)).unwrap();
    let mut positions = Vec::new();
    for n in 0..records {
        positions.push(Hear::append(&*log, &[&[n; 500]]).unwrap());
        complete_all(device);
    }
    (log, positions)
}

fn replay(device: &MemoryDevice, state: &LogState) -> Result<Vec<u8>, Error> {
    let mut replay = device.drive(log_on(device).open(state))?;
    let mut back = Vec::new();
    while let Some(piece) = device.drive(replay.next())? {
        back.extend(piece.iter().map(|r| r.payload[0]));
    }
    Ok(back)
}

/// The error of an opening that must be refused, and must change nothing.
fn refused(device: &MemoryDevice, state: &LogState) -> Error {
    let before = device.content();
    let error = replay(device, state).expect_err("an opening that must be refused");
    assert!(
        device.content() == before,
        "a refused opening wrote: {error}"
    );
    error
}

fn frame_byte(position: Position) -> usize {
    RING_START + (position.get() as usize - 80) % CAPACITY
}

#[test]
fn a_flipped_bit_below_a_later_frames_knowledge_is_corrupt_and_says_where() {
    for record in 0..4 {
        for (offset, what) in [(0, "magic"), (40, "header"), (90, "body")] {
            let (device, state, positions) = written(5);
            let at = frame_byte(positions[record].start);
            device.damage(at + offset, |bytes| bytes[0] ^= 0x10);
            let error = refused(&device, &state);
            let Error::Corrupt { position, .. } = &error else {
                panic!("{what}: {error}")
            };
            assert_eq!(position.get(), record as u64 * 4096, "{what}: {error}");
            assert!(error.to_string().contains("memory device"), "{error}");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_very_last_frame_is_a_torn_tail_unless_something_recorded_it() {
    let (device, mut state, positions) = written(5);
    device.damage(frame_byte(positions[4].start) + 90, |bytes| bytes[0] ^= 1);
    assert_eq!(
        replay(&device, &state).unwrap(),
        [0, 1, 2, 3],
        "docs/format.md says so"
    );
    // The metadata recorded the durable end with a trim (W7): then it is corruption.
    state.trim(positions[0].end, positions[4].end);
    let error = refused(&device, &state);
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_flipped_bit_in_the_last_frame_of_a_closed_log_is_corrupt() {
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    let (log, positions) = write(&device, &mut state, 3);
    device.drive(log.close()).unwrap();
    state.grant(LogEpoch::new(2));
    assert_eq!(replay(&device, &state).unwrap(), [0, 1, 2]);
    device.damage(frame_byte(positions[2].start) + 90, |bytes| bytes[0] ^= 1);
    let error = refused(&device, &state);
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn what_a_sealed_epoch_lost_is_corrupt_though_nothing_follows() {
    let (device, mut state, positions) = written(3);
    let opened = device.drive(log_on(&device).open(&state)).unwrap();
    state.begin(opened.ends(), opened.start_position());
    drop(opened);
    state.grant(LogEpoch::new(3));
    device.damage(frame_byte(positions[2].start), |bytes| {
        bytes[..4096].fill(0)
    });
    let error = refused(&device, &state);
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn damage_below_the_trim_is_not_looked_at() {
    // W7: a missing piece below the trim is none.
    let (device, mut state, positions) = written(5);
    state.trim(positions[2].end, positions[4].end);
    for position in &positions[..3] {
        device.damage(frame_byte(position.start), |bytes| bytes[..4096].fill(0xff));
    }
    assert_eq!(replay(&device, &state).unwrap(), [3, 4]);
}

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
fn something_else_on_the_device_is_not_overwritten() {
    for at in [0, 1024, 65_536, 100_000, RING_START + 5000] {
        let device = MemoryDevice::manual(RING_START + CAPACITY);
        device.damage(at, |bytes| bytes[0] = 0x53);
        let error = refused(&device, &LogState::new(identity(), LogEpoch::new(1)));
        assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error}");
    }
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
fn a_frame_of_another_log_at_the_same_position_is_not_replayed() {
    // Same cluster, node, epoch, position and sequence: only the salt tells them apart.
    let (device, state, positions) = written(3);
    let other = MemoryDevice::manual(RING_START + CAPACITY);
    let foreign = Identity {
        log: LogUuid::new(0x2),
        ..identity()
    };
    drop(write(
        &other,
        &mut LogState::new(foreign, LogEpoch::new(1)),
        4,
    ));
    let from = RING_START + 3 * 4096;
    let frame = other.content()[from..from + 4096].to_vec();
    device.damage(from, |bytes| bytes[..4096].copy_from_slice(&frame));
    assert_eq!(replay(&device, &state).unwrap(), [0, 1, 2]);
    assert_eq!(positions.len(), 3);
}

#[test]
fn frames_of_the_log_that_was_here_before_are_nothing_to_the_new_one() {
    // Same epoch, and the positions go through the same places: their knowledge is of another log.
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    let (log, positions) = write(&device, &mut state, 6);
    log.trim(positions[5].end);
    complete_all(&device);
    device.drive(log.close()).unwrap();
    drop(log);
    let next = Identity {
        log: LogUuid::new(0x9),
        ..identity()
    };
    let mut state = LogState::new(next, LogEpoch::new(1));
    drop(write(&device, &mut state, 2));
    state.grant(LogEpoch::new(2));
    assert_eq!(replay(&device, &state).unwrap(), [0, 1]);
}

#[test]
fn a_frame_of_a_forked_history_is_not_replayed() {
    // Two copies of one volume were written on in the same epoch; blocks of one end up in the other. Only the chain of checksums tells.
    let (device, state, _) = written(1);
    let fork = MemoryDevice::with_content(device.content());
    for (device, first) in [(&device, 10), (&fork, 20)] {
        let mut state = state.clone();
        let replay = device.drive(log_on(device).open(&state)).unwrap();
        state.begin(replay.ends(), replay.start_position());
        let log = device.drive(replay.start(Hear::new() as _)).unwrap();
        for n in first..first + 4_u8 {
            Hear::append(&*log, &[&[n; 500]]).unwrap();
            complete_all(device);
        }
    }
    let from = RING_START + 3 * 4096;
    let foreign = fork.content()[from..from + 4096].to_vec();
    device.damage(from, |bytes| bytes[..4096].copy_from_slice(&foreign));
    let mut state = state;
    let opened = EpochState {
        epoch: LogEpoch::new(2),
        trim: Position::new(4096),
        durable_end: Position::new(4096),
        sealed_end: None,
        started: true,
    };
    state.owed[0].sealed_end = Some(Position::new(584));
    state.owed.push(opened);
    state.grant(LogEpoch::new(3));
    let error = refused(&device, &state);
    let Error::Corrupt { position, what } = &error else {
        panic!("{error}")
    };
    assert!(
        position.get() == 3 * 4096 && what.contains("follows"),
        "{error}"
    );
}

#[test]
fn a_lost_frame_that_covers_the_trim_is_corrupt_though_the_next_one_is_there() {
    // Two records share a frame, and the trim is between them. The frames after it are sound.
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    let config = Config {
        overlap_bytes: 8192,
        ..config()
    };
    let place = BlockLog::on(Arc::new(device.clone())).with_config(config);
    let replayed = device.drive(place.open(&state)).unwrap();
    state.begin(replayed.ends(), replayed.start_position());
    let log = device.drive(replayed.start(Hear::new() as _)).unwrap();
    Hear::append(&*log, &[&[0; 500]]).unwrap();
    let trim = Hear::append(&*log, &[&[1; 500]]).unwrap().end;
    let second = Hear::append(&*log, &[&[2; 500]]).unwrap();
    complete_all(&device);
    Hear::append(&*log, &[&[3; 500]]).unwrap();
    complete_all(&device);
    state.trim(trim, second.end);
    drop(log);
    state.grant(LogEpoch::new(2));
    assert_eq!(replay(&device, &state).unwrap(), [2, 3]);
    device.damage(RING_START + 4096, |bytes| bytes[..4096].fill(0));
    let error = refused(&device, &state);
    assert!(
        matches!(error, Error::Corrupt { position, .. } if position == trim),
        "{error}"
    );
}

#[test]
fn another_clusters_log_is_refused_by_name() {
    let (device, state, _) = written(1);
    let state = LogState {
        identity: Identity {
            cluster: 0xd,
            ..identity()
        },
        ..state
    };
    let error = refused(&device, &state);
    let Error::Mismatch {
        found, expected, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(found.ends_with("0c") && expected.ends_with("0d"), "{error}");
}

#[test]
fn a_log_is_not_opened_twice_at_once() {
    let (device, state, _) = written(1);
    let place = log_on(&device);
    let first = device.drive(place.open(&state)).unwrap();
    let second = device.drive(place.open(&state)).err();
    assert!(matches!(second, Some(Error::InUse { .. })), "{second:?}");
    drop(first);
    device.drive(place.open(&state)).unwrap();
}

#[test]
fn a_truncated_device_is_corrupt_and_says_both_lengths() {
    let (device, state, _) = written(2);
    let mut content = device.content();
    content.truncate(RING_START + CAPACITY - 4096);
    let error = refused(&MemoryDevice::with_content(content), &state);
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(text.contains("258048") && text.contains("262144"), "{text}");
    let error = refused(&MemoryDevice::with_content(vec![0; 4096]), &state);
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn bit_rot_on_the_way_from_the_device_is_noticed() {
    let (device, state, positions) = written(5);
    let faulty = FaultyDevice::new(Arc::new(device.clone()));
    let byte = frame_byte(positions[1].start) as u64 + 200;
    faulty.plant(Fault::Flip { byte, bit: 3 });
    let log = BlockLog::on(Arc::new(faulty)).with_config(config());
    // Its header says that it was durable; what its body is worth is found out when it is read.
    let mut replay = device.drive(log.open(&state)).unwrap();
    let error = device.drive(replay.next()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_read_or_sync_error_at_open_is_an_error_and_never_an_end() {
    let (device, state, _) = written(3);
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
        let faulty = FaultyDevice::new(Arc::new(device.clone()));
        let place = BlockLog::on(Arc::new(faulty.clone())).with_config(config());
        let replay = device.drive(place.open(&state)).unwrap();
        state.begin(replay.ends(), replay.start_position());
        let hear = Hear::new();
        let log = device.drive(replay.start(Arc::clone(&hear) as _)).unwrap();
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
    let faulty = FaultyDevice::new(Arc::new(device.clone()));
    let place = BlockLog::on(Arc::new(faulty.clone())).with_config(config());
    let replay = device.drive(place.open(&state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = device.drive(replay.start(Arc::clone(&hear) as _)).unwrap();
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
        let faulty = FaultyDevice::new(Arc::new(device.clone()));
        let place = BlockLog::on(Arc::new(faulty.clone())).with_config(config());
        let replay = device.drive(place.open(&state)).unwrap();
        state.begin(replay.ends(), replay.start_position());
        faulty.plant(Fault::Write {
            nth,
            kind: io::ErrorKind::Other,
        });
        let failed = device.drive(replay.start(Hear::new() as _)).err();
        assert!(matches!(failed, Some(Error::Io { .. })), "{failed:?}");
        state.grant(LogEpoch::new(state.epoch.get() + 1));
        assert_eq!(replay_of(&device, &state), [0, 1]);
    }
}

fn replay_of(device: &MemoryDevice, state: &LogState) -> Vec<u8> {
    replay(device, state).unwrap()
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

#[test]
fn identify_reads_and_writes_nothing() {
    let (device, _, _) = written(1);
    let before = device.content();
    let place = BlockLog::on(Arc::new(device.clone()));
    assert_eq!(
        device.drive(place.identify()).unwrap(),
        Found::Live(identity())
    );
    assert!(device.content() == before);
    assert_eq!(device.geometry().len_bytes as usize, before.len());
}
