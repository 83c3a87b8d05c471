//! Other people's devices, shorter ones, and ones in use: refused by name and left alone.

use std::sync::Arc;

use wal::{
    Backend, Error, Found, Identity, LogEpoch, LogState,
    block::{BlockLog, Device},
    testing::MemoryDevice,
};

use crate::support::*;

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
