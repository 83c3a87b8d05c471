//! Appends so many 100-byte records to a block log on a device in memory, on one thread: to be counted by callgrind. Two runs of different length differ by
//! what a record costs.
//!
//! `valgrind --tool=callgrind target/release/examples/appends 100000`

#![allow(clippy::print_stdout, reason = "a program that says what it did")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use wal::{
    Backend, Commit, Error, Identity, LogEpoch, LogState, LogUuid, Sink, block::BlockLog,
    testing::MemoryDevice,
};

/// Records between two completions: as many as come while a device writes.
const GROUP: u64 = 1_000;

#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Sink for Counted {
    fn durable(&self, commit: Commit) {
        self.0
            .fetch_add(commit.records.len() as u64, Ordering::Relaxed);
    }

    fn failed(&self, error: &Error) {
        panic!("{error}");
    }

    fn room(&self) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let records: u64 = std::env::args()
        .nth(1)
        .ok_or("how many records?")?
        .parse()?;
    let device = MemoryDevice::manual(8 << 20);
    let identity = Identity {
        cluster: 1,
        log: LogUuid::new(1),
        node: 1,
    };
    let mut state = LogState::new(identity, LogEpoch::new(1));
    let place = BlockLog::on(Arc::new(device.clone()));
    let replay = device.drive(place.open(&state))?;
    state.begin(replay.ends(), replay.start_position());
    let sink = Arc::new(Counted::default());
    let log = device.drive(replay.start(Arc::clone(&sink) as _))?;
    for n in 0..records {
        log.append(&[&[7; 100]])?;
        if n % GROUP == 0 {
            log.trim(log.durable_end());
            while device.waiting() > 0 {
                device.complete(0);
            }
        }
    }
    while device.waiting() > 0 {
        device.complete(0);
    }
    let durable = sink.0.load(Ordering::Relaxed);
    println!("{durable} of {records} records are durable");
    Ok(())
}
