//! What an opening and a replay keep in memory is bounded by constants, however long the log is; what an opening reads is bounded, too.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use wal::{
    Backend, LogEpoch,
    block::{BlockLog, Config, Device, Geometry, ReadDone, WriteDone},
    testing::{Hear, MemoryDevice, new_log},
};

const RING_START: usize = 128 * 1024;
const RECORD: usize = 16 << 10;

/// Bytes of reads that are under way or alive, now and at most.
#[derive(Debug, Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
    /// Bytes of all reads.
    read: AtomicUsize,
}

/// Read bytes that are counted until they are dropped.
struct Counted(Bytes, Arc<Held>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Counting(MemoryDevice, Arc<Held>);

impl Device for Counting {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        self.0.write(at, data, done);
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let held = Arc::clone(&self.1);
        held.read.fetch_add(len, Ordering::SeqCst);
        let now = held.now.fetch_add(len, Ordering::SeqCst) + len;
        held.most.fetch_max(now, Ordering::SeqCst);
        let done: ReadDone = Box::new(move |result| {
            done(result.map(|bytes| Bytes::from_owner(Counted(bytes, held))));
        });
        self.0.read(at, len, done);
    }

    fn sync(&self, done: WriteDone) {
        self.0.sync(done);
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// The most that was held while a log of `records` was opened and replayed, and how many came back.
fn most_held(records: usize, commit_bytes_max: usize) -> (usize, usize) {
    let mut state = new_log();
    let device = MemoryDevice::manual(RING_START + records * (RECORD + 8192) + (1 << 20));
    let held = Arc::new(Held::default());
    let config = Config {
        commit_bytes_max,
        record_bytes_max: 1 << 20,
        ..Config::default()
    };
    let counting = Arc::new(Counting(device.clone(), Arc::clone(&held)));
    let place = BlockLog::on(counting).with_config(config);
    let replay = device.drive(place.open(&state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    let log = device.drive(replay.start(Hear::new() as _)).unwrap();
    for n in 0..records {
        log.append(&[&vec![n as u8; RECORD]]).unwrap();
        if n % 100 == 0 {
            while device.waiting() > 0 {
                device.complete(0);
            }
        }
    }
    while device.waiting() > 0 {
        device.complete(0);
    }
    drop(log);
    state.grant(LogEpoch::new(2));
    held.most.store(0, Ordering::SeqCst);
    held.read.store(0, Ordering::SeqCst);
    let mut replay = device.drive(place.open(&state)).unwrap();
    let (opening, ring) = (held.read.load(Ordering::SeqCst), device.content().len());
    // The superblock told of the end when it was a quarter of the ring lower at most.
    let bound = ring / 4 + (6 << 20);
    assert!(
        opening <= bound,
        "an opening read {opening} bytes of a ring of {ring}"
    );
    let mut back = 0;
    while let Some(piece) = device.drive(replay.next()).unwrap() {
        let bytes: usize = piece.iter().map(|r| r.footprint).sum();
        assert!(bytes <= 3 << 20, "a piece of {bytes} bytes");
        back += piece.len();
    }
    (held.most.load(Ordering::SeqCst), back)
}

#[test]
fn a_replay_holds_the_same_few_pieces_of_a_short_log_and_of_a_long_one() {
    for commit_bytes_max in [32 << 10, 1 << 20] {
        for records in [512, 4096] {
            let (most, back) = most_held(records, commit_bytes_max);
            assert_eq!(back, records);
            // Six pieces of 1 MiB ahead, and those that the records in hand are slices of.
            assert!(
                most <= 12 << 20,
                "{most} bytes of a log of {records} records"
            );
            assert!(most >= 6 << 20, "nothing was read ahead: {most} bytes");
        }
    }
}
