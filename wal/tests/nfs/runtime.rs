//! A runtime that ends under a log, with operations in flight.

use std::{thread, time::Duration};

use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};
use wal::{
    Error, Position,
    nfs::{Config, NfsLog},
};

use crate::support::*;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
}

/// Appends until the log refuses for good, and gives up what is durable for room. Panics if the sink is called from inside an append.
fn append_to_the_end(life: &Life) -> (Error, Position) {
    let (mut record, mut trimmed) = (0, Position::default());
    loop {
        match append(&*life.log, record, 3000) {
            Ok(_) => record += 1,
            Err(Error::Full { .. }) => {
                trimmed = life.log.durable_end();
                life.log.trim(trimmed);
                thread::yield_now();
            }
            Err(error) => return (error, trimmed),
        }
    }
}

#[test]
fn a_runtime_that_ends_fails_the_log_once_and_never_inside_an_append() {
    let outside = runtime();
    for round in 0..12 {
        let place = tempfile::tempdir().unwrap();
        let config = Config {
            lease: Duration::from_millis(20),
            ..config()
        };
        let log = NfsLog::at(place.path(), CAPACITY).with_config(config);
        let (mut state, inside) = (fresh(), runtime());
        let life = inside.block_on(async {
            let opened = open(&log, &state).await.unwrap();
            opened.start(&mut state).await.unwrap()
        });
        let (refused, trimmed) = thread::scope(|scope| {
            let appends = scope.spawn(|| append_to_the_end(&life));
            outside.block_on(async { sleep(Duration::from_millis(4 * round)).await });
            inside.shutdown_background();
            outside.block_on(async {
                let failed = life.hear.until("the failure", |h| h.failed.is_some());
                timeout(PATIENCE, failed).await.unwrap();
                let closed = timeout(PATIENCE, life.log.close()).await.unwrap();
                assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
            });
            appends.join().unwrap()
        });
        assert!(matches!(refused, Error::Failed { .. }), "{refused}");

        outside.block_on(async {
            let end = life.log.durable_end();
            state.trim(trimmed, trimmed);
            grant_next(&mut state);
            let again = open(&log, &state).await.unwrap();
            let ends = again.replay.ends();
            assert!(ends[0].end >= end, "W2: {ends:?}, {end} was acknowledged");
        });
    }
}
