//! Latency made of polling (lesson 18): between an append and its acknowledgement there is the device's or the store's own time and nothing else.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{sync::Arc, time::Duration};

use object_store::memory::InMemory;
use tokio::time::Instant;
use wal::{
    Backend,
    block::BlockLog,
    object::{self, ObjectLog},
    testing::{Hear, MemoryDevice, new_log},
};

#[test]
fn no_timer_and_no_poll_stands_between_a_block_write_and_its_acknowledgement() {
    // No runtime, no thread: whatever waited for a clock, or for somebody to look again, would wait for ever.
    let device = MemoryDevice::manual((128 + 256) << 10);
    let mut state = new_log();
    let place = BlockLog::on(Arc::new(device.clone()));
    let replay = device.drive(place.open(&state)).unwrap();
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = device.drive(replay.start(Arc::clone(&hear) as _)).unwrap();
    for n in 0..10 {
        Hear::append(&*log, &[b"alone"]).unwrap();
        assert_eq!(device.waiting(), 1, "an idle log writes inside the append");
        device.complete(0);
        assert_eq!(hear.count(), n + 1, "the completion acknowledges");
        assert_eq!(device.waiting(), 0);
    }
    // What came while a write was in flight goes with its completion, all of it, in one write.
    for _ in 0..5 {
        Hear::append(&*log, &[b"together"]).unwrap();
    }
    for (waiting, heard) in [(1, 11), (0, 15)] {
        device.complete(0);
        assert_eq!((device.waiting(), hear.count()), (waiting, heard));
    }
    let end = log.durable_end();
    log.trim(end);
    assert_eq!(device.waiting(), 1, "a trim is marked at once");
    device.complete(0);
    device.complete(0);
    assert_eq!(
        log.usage().used,
        0,
        "and the space is free with its second copy"
    );
}

#[tokio::test(start_paused = true)]
async fn no_timer_stands_between_a_put_and_its_acknowledgement() {
    // The clock moves only when everything waits for it.
    let place = ObjectLog::new(Arc::new(InMemory::new()), "wal", 5).unwrap();
    let place = place.with_config(object::Config {
        puts_burst: 1000,
        ..object::Config::default()
    });
    let mut state = new_log();
    let replay = place.open(&state).await.unwrap();
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    for n in 0..20 {
        let began = Instant::now();
        Hear::append(&*log, &[b"alone"]).unwrap();
        hear.until_durable(n + 1).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "append {n}");
    }
    log.close().await.unwrap();
}
