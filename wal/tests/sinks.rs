//! What a sink may do inside a call, and what becomes of a log whose sink does what it may not.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
};

use wal::{
    Backend, Commit, Error, Log, Sink,
    block::{BlockLog, Config},
    testing::{MemoryDevice, new_log},
};

fn start(device: &MemoryDevice, sink: Arc<dyn Sink>) -> Arc<dyn Log> {
    let mut state = new_log();
    let config = Config {
        in_flight_max: 1,
        ..Config::default()
    };
    let place = BlockLog::on(Arc::new(device.clone())).with_config(config);
    let replay = device.drive(place.open(&state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    device.drive(replay.start(sink)).unwrap()
}

/// Appends and trims from inside the call, for as long as there is something to do.
struct Chain {
    log: OnceLock<Arc<dyn Log>>,
    left: parking_lot::Mutex<u32>,
}

impl Sink for Chain {
    fn durable(&self, commit: Commit) {
        let log = self.log.get().unwrap();
        log.trim(commit.range.end);
        let mut left = self.left.lock();
        if *left > 0 {
            *left -= 1;
            log.append(&[b"next"]).unwrap();
        }
    }

    fn failed(&self, error: &Error) {
        panic!("{error}");
    }

    fn room(&self) {}
}

#[test]
fn a_sink_may_append_and_trim_and_the_stack_does_not_grow_with_it() {
    // Each completion submits the next write, which completes at once: 20,000 of them on a stack that would not hold a thousand.
    let thread = thread::Builder::new().stack_size(192 << 10).spawn(|| {
        let device = MemoryDevice::manual(1 << 20);
        let left = parking_lot::Mutex::new(20_000);
        let sink = Arc::new(Chain {
            log: OnceLock::new(),
            left,
        });
        let log = start(&device, Arc::clone(&sink) as _);
        sink.log.set(Arc::clone(&log)).unwrap();
        log.append(&[b"first"]).unwrap();
        while device.waiting() > 0 {
            device.complete(0);
        }
        assert_eq!(*sink.left.lock(), 0);
        assert_eq!(log.usage().used, 0);
    });
    thread.unwrap().join().unwrap();
}

struct Panics;

impl Sink for Panics {
    fn durable(&self, _: Commit) {
        panic!("a sink that panics, on purpose");
    }

    fn failed(&self, _: &Error) {}

    fn room(&self) {}
}

#[test]
fn a_sink_that_panics_fails_the_log_and_leaves_nothing_waiting() {
    // Lesson 13: an exception was swallowed and a future never completed.
    let device = MemoryDevice::manual(1 << 20);
    let log = start(&device, Arc::new(Panics));
    log.append(&[b"x"]).unwrap();
    catch_unwind(AssertUnwindSafe(|| device.complete(0))).expect_err("the sink's own panic");
    let refused = log.append(&[b"y"]);
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    let closed = device.drive(log.close());
    assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
}
