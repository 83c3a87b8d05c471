//! Frames that rotted, were lost, or are of another log: corruption below what is known to be durable, a torn tail above it (F2).

use std::sync::Arc;

use wal::Backend;
use wal::{
    EpochState, Error, Identity, LogEpoch, LogState, LogUuid, Position,
    block::{BlockLog, Config},
    testing::{Fault, FaultyDevice, Hear, MemoryDevice},
};

use crate::support::*;

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
    let (log, _) = start(&device, &place, &mut state);
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
fn every_byte_of_a_frames_header_and_of_its_body_counts() {
    let (device, state, positions) = written(3);
    let content = device.content();
    for (record, owed) in [(1, true), (2, false)] {
        for byte in 0..584 {
            let device = MemoryDevice::with_content(content.clone());
            let at = frame_byte(positions[record].start) + byte;
            device.damage(at, |bytes| bytes[0] ^= 1 << (byte % 8));
            if !owed {
                // The last one, which nothing recorded: a torn tail, and never a record with another content.
                assert_eq!(replay(&device, &state).unwrap(), [0, 1], "byte {byte}");
                continue;
            }
            let error = refused(&device, &state);
            assert!(
                matches!(error, Error::Corrupt { position, .. } if position.get() == 4096),
                "byte {byte}: {error}"
            );
        }
    }
}

#[test]
fn a_write_that_the_device_only_said_to_be_done_is_corrupt_and_no_torn_tail() {
    for lost in 0..3 {
        let (device, mut state, _) = written(0);
        let (faulty, place) = faulty_log_on(&device);
        let (log, hear) = start(&device, &place, &mut state);
        faulty.plant(Fault::Lose { nth: lost });
        let mut positions = Vec::new();
        for n in 0..4 {
            positions.push(Hear::append(&*log, &[&[n; 500]]).unwrap());
            complete_all(&device);
        }
        assert_eq!(hear.count(), 4);
        drop(log);
        state.grant(LogEpoch::new(3));
        let error = refused(&device, &state);
        let begins = positions[lost as usize].start.get() - 80;
        assert!(
            matches!(error, Error::Corrupt { position, .. } if position.get() == begins),
            "{lost}: {error}"
        );
    }
}

#[test]
fn a_frame_that_turns_up_after_the_seal_is_not_replayed() {
    // W8: a read went wrong on its way, the log was sealed without the last frame, and the next time it reads well.
    let (device, mut state, positions) = written(3);
    let faulty = FaultyDevice::new(Arc::new(device.clone()));
    let byte = frame_byte(positions[2].start) as u64 + 200;
    faulty.plant(Fault::Flip { byte, bit: 3 });
    let place = BlockLog::on(Arc::new(faulty)).with_config(config());
    let opened = device.drive(place.open(&state)).unwrap();
    assert_eq!(opened.ends()[0].end, positions[1].end);
    state.begin(opened.ends(), opened.start_position());
    drop(opened);
    // It never started: nothing stands where the frame is.
    state.grant(LogEpoch::new(3));
    goes_on(&device, &mut state, &[0, 1]);
}
