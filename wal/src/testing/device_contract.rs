//! The suite that every [`Device`] passes: what it takes and what it refuses.
//!
//! It waits for completions, so the device must make them by itself. What a device loses in a power cut it cannot see.

use std::{
    io,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use crate::block::{Device, Geometry};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the suite on a device of zeros, of 256 KiB or more.
///
/// # Panics
/// At the first promise that is not kept.
pub fn device_conformance(device: &dyn Device) {
    let Geometry {
        block_bytes,
        len_bytes,
    } = device.geometry();
    let (block, end) = (
        block_bytes as usize,
        len_bytes - len_bytes % u64::from(block_bytes),
    );
    assert!(block.is_power_of_two() && block <= 4096 && end >= 256 << 10);
    what_it_does_not_admit_is_refused_and_changes_nothing(device, block, end);
    what_is_written_is_read_back_and_its_neighbours_stay(device, block, end);
    many_at_once_complete_outside_of_the_call(device);
}

fn what_it_does_not_admit_is_refused_and_changes_nothing(
    device: &dyn Device,
    block: usize,
    end: u64,
) {
    let len = device.geometry().len_bytes;
    let whole = block as u64;
    let odd = [
        (1, block),
        (whole - 1, block),
        (0, block - 1),
        (0, block + 1),
        (end - whole, 2 * block),
        (end, block),
        (len.next_multiple_of(whole), block),
        (end + (1 << 40), block),
        (u64::MAX - (whole - 1), block),
        (u64::MAX, block),
    ];
    for (at, len) in odd {
        let what = format!("{}: {len} bytes at {at}", device.name());
        refused(
            write(device, at, memory(len, 0, 7)),
            &format!("{what}, written"),
        );
        refused(read(device, at, len), &format!("{what}, read"));
    }
    let what = format!("{}: memory that is not aligned", device.name());
    refused(write(device, 0, memory(block, 8, 7)), &what);
    for at in [0, end - whole] {
        let bytes = read(device, at, block).expect("a read of a device that has refused");
        assert!(bytes.iter().all(|b| *b == 0), "{what}: changed at {at}");
    }
}

fn refused<T>(result: io::Result<T>, what: &str) {
    match result {
        Ok(_) => panic!("{what}: accepted"),
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{what}: {e}"),
    }
}

fn what_is_written_is_read_back_and_its_neighbours_stay(
    device: &dyn Device,
    block: usize,
    end: u64,
) {
    let whole = block as u64;
    for at in [0, 3 * whole, end - 2 * whole] {
        write(device, at, memory(block, 0, 9)).expect("a write");
        sync(device).expect("a sync");
        let bytes = read(device, at, 2 * block).expect("a read");
        let (written, beside) = bytes.split_at(block);
        assert!(
            written.iter().all(|b| *b == 9),
            "at {at}: not what was written"
        );
        assert!(
            beside.iter().all(|b| *b == 0),
            "at {at}: more than was written"
        );
    }
    let all = read(device, 0, usize::try_from(end).expect("a device for tests"));
    let nines = all
        .expect("a read of all")
        .iter()
        .filter(|b| **b == 9)
        .count();
    assert_eq!(nines, 3 * block, "elsewhere than asked");
}

fn many_at_once_complete_outside_of_the_call(device: &dyn Device) {
    const COUNT: usize = 60;
    let (tell, told) = sync_channel(2 * COUNT);
    let caller = thread::current().id();
    for n in 0..COUNT {
        let tell = tell.clone();
        let data = memory(4096, 0, n as u8);
        let done = move |result: io::Result<()>| {
            assert_ne!(thread::current().id(), caller, "completed inside the call");
            result.expect("a write");
            tell.send(n).expect("the test waits");
        };
        device.write(n as u64 * 4096, data, Box::new(done));
    }
    let mut heard: Vec<_> = (0..COUNT)
        .map(|_| told.recv_timeout(PATIENCE).expect("a completion"))
        .collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..COUNT).collect::<Vec<_>>());
    for n in 0..COUNT {
        let bytes = read(device, n as u64 * 4096, 4096).expect("a read");
        assert!(bytes.iter().all(|b| *b == n as u8), "write {n}");
    }
}

/// Bytes that begin `skip` past an aligned address.
fn memory(len: usize, skip: usize, fill: u8) -> Bytes {
    let mut memory = BytesMut::zeroed(len + skip + 4096);
    let aligned = memory.as_ptr().addr().wrapping_neg() % 4096;
    let mut memory = memory.split_off(aligned + skip);
    memory.truncate(len);
    memory.fill(fill);
    memory.freeze()
}

fn read(device: &dyn Device, at: u64, len: usize) -> io::Result<Bytes> {
    outcome(|done| device.read(at, len, done))
}

fn write(device: &dyn Device, at: u64, data: Bytes) -> io::Result<()> {
    outcome(|done| device.write(at, data, done))
}

fn sync(device: &dyn Device) -> io::Result<()> {
    outcome(|done| device.sync(done))
}

type Done<T> = Box<dyn FnOnce(io::Result<T>) + Send>;

fn outcome<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> io::Result<T> {
    let (tell, told) = sync_channel(1);
    let told: Receiver<io::Result<T>> = told;
    begin(Box::new(move |result| drop(tell.send(result))));
    told.recv_timeout(PATIENCE)
        .expect("every operation completes")
}
