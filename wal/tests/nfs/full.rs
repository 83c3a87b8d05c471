//! A server without room: every file that cannot be made is an error with its cause, and once there is room the log goes on with all it acknowledged.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use wal::{
    Error, LogState,
    nfs::{Config, NfsLog},
    testing::{DirectoryFault, ModelDirectory},
};

use crate::support::*;

fn assert_no_room(error: &Error, case: &str) {
    let cause = match error {
        Error::Failed { cause } => &**cause,
        error => error,
    };
    let Error::Io { source, .. } = cause else {
        panic!("{case}: {error}")
    };
    assert_eq!(source.kind(), ErrorKind::StorageFull, "{case}: {error}");
}

/// A life with two renewals, up to its end or its failure, and what it acknowledged.
async fn live(log: &NfsLog, state: &mut LogState) -> (Vec<u32>, Result<(), Error>) {
    let opened = match open(log, state).await {
        Ok(opened) => opened,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let life = match opened.start(state).await {
        Ok(life) => life,
        Err(error) => return (Vec::new(), Err(error)),
    };
    for record in 0..6 {
        if append(&*life.log, record, 3000).is_err() {
            break;
        }
        let answered = life.hear.until("an answer", |h| {
            h.failed.is_some() || h.records.len() > record as usize
        });
        answered.await;
        sleep(LEASE / 2).await;
    }
    let closed = timeout(PATIENCE, life.log.close()).await;
    (heard(&life.hear), closed.expect("it closes or fails"))
}

#[test]
fn whichever_file_has_no_room_the_log_says_so_and_goes_on_when_there_is_some() {
    let (mut refused, mut closed) = (0, 0);
    for after in 0..24 {
        // Nothing of a file is there, or a draft that stays.
        for parts in [0, 1] {
            run(async {
                let case = format!("no room from file {after} on, parts {parts}");
                let directory = ModelDirectory::<()>::default();
                let (mut state, host) = (fresh(), directory.host());
                for n in 0..200 {
                    host.fault(DirectoryFault {
                        operation: "create",
                        after: if n == 0 { after } else { 0 },
                        errno: ENOSPC,
                        parts,
                    });
                }
                let (acknowledged, end) = live(&log_on(&host), &mut state).await;
                match end {
                    Ok(()) => closed += 1,
                    Err(error) => {
                        assert_no_room(&error, &case);
                        refused += 1;
                    }
                }
                let names = directory.image().contents().into_keys();
                let drafts = names.filter(|n| n.starts_with("draft.")).count();
                assert_eq!(drafts, 0, "{case}: what has no use takes room");

                grant_next(&mut state);
                let again = open(&log_on(&directory.host()), &state).await.unwrap();
                assert!(again.back.starts_with(&acknowledged), "W2: {case}");
                let life = again.start(&mut state).await.unwrap();
                append(&*life.log, 100, 3000).unwrap();
                life.hear.until_durable(1).await;
            });
        }
    }
    assert!(
        refused > 15 && closed > 5,
        "{refused} refused, {closed} closed"
    );
}

#[test]
fn a_capacity_of_a_few_blocks_is_refused_or_enough() {
    let mut enough = 0;
    for blocks in [0, 1, 14, 15, 16, 17, 31, 32, 33] {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let mut state = fresh();
            let log = log_of(&directory.host(), blocks * 4096 + 1);
            let opened = match open(&log, &state).await {
                Ok(opened) => opened,
                Err(Error::Invalid(what)) => {
                    assert!(what.contains("capacity"), "{what}");
                    return;
                }
                Err(error) => panic!("{blocks}: {error}"),
            };
            enough += 1;
            let life = opened.start(&mut state).await.unwrap();
            let mut held = 0;
            for record in 0..60 {
                while let Err(error) = append(&*life.log, record, 2000) {
                    assert!(matches!(error, Error::Full { .. }), "{blocks}: {error}");
                    assert!(held > 0, "{blocks}: no room for one record");
                    let end = life.log.durable_end();
                    state.trim(end, end);
                    let rooms = life.hear.heard().rooms;
                    life.log.trim(end);
                    life.hear.until("room", |h| h.rooms > rooms).await;
                    held = 0;
                }
                held += 1;
                life.hear.until_durable(record as usize + 1).await;
            }
            drop(life);
            sleep(Duration::from_secs(1)).await;
            grant_next(&mut state);
            let again = open(&log, &state).await.unwrap();
            assert_eq!(again.back.last(), Some(&59), "{blocks}");
        });
    }
    assert_eq!(enough, 6, "all from sixteen blocks on");
}

/// A small file system of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever mounts the file system says where"
)]
fn small() -> PathBuf {
    let small = std::env::var_os("S3STREAM_SMALL_DIR");
    PathBuf::from(small.expect("S3STREAM_SMALL_DIR, a file system of a few megabytes: .ci/run nfs"))
}

/// Takes all the room there is. What an owner has in the making gives its room back when it fails: then there is some again.
fn fill(file: &Path) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(file)
        .unwrap();
    for size in [65_536, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[tokio::test]
#[ignore = "needs a small file system: .ci/run nfs"]
async fn an_nfs_log_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let place = small().join("log");
    fs::create_dir(&place).unwrap();
    let (filler, rest) = (small().join("filler"), small().join("rest"));
    for direct_io in [true, false] {
        fs::write(&filler, vec![1; 1 << 20]).unwrap();
        let mut config = Config {
            lease: Duration::from_millis(200),
            ..config()
        };
        config.commits.direct_io = direct_io;
        // More than there is room for: its segments are made one by one.
        let log = NfsLog::at(&place, 4 << 20).with_config(config);
        let mut state = fresh();
        let life = open(&log, &state).await.unwrap();
        let life = life.start(&mut state).await.unwrap();
        let mut record = 0;
        while append(&*life.log, record, 3000).is_ok() {
            let answered = life.hear.until("an answer", |h| {
                h.failed.is_some() || h.records.len() > record as usize
            });
            answered.await;
            record += 1;
        }
        assert_no_room(&life.hear.heard().failed.unwrap(), "a segment");
        let acknowledged = heard(&life.hear);
        assert!(!acknowledged.is_empty());
        fill(&rest);
        let closed = timeout(PATIENCE, life.log.close()).await.unwrap();
        assert_no_room(&closed.unwrap_err(), "a close");
        let refused = async {
            loop {
                fill(&rest);
                grant_next(&mut state);
                if let Err(error) = open(&log, &state).await {
                    break error;
                }
            }
        };
        let refused = timeout(PATIENCE, refused).await;
        assert_no_room(&refused.expect("no room for a lease"), "a lease");

        fs::remove_file(&rest).unwrap();
        fs::remove_file(&filler).unwrap();
        let again = open(&log, &state).await.unwrap();
        assert_eq!(again.back[..acknowledged.len()], acknowledged, "W2");
        let life = again.start(&mut state).await.unwrap();
        append(&*life.log, record, 3000).unwrap();
        life.hear.until_durable(1).await;

        // The lease runs out and the disk is full: nothing is acknowledged any more.
        // The next segment was asked for, and old numbers go.
        sleep(Duration::from_millis(400)).await;
        fill(&rest);
        append(&*life.log, record + 1, 3000).unwrap();
        let failure = async {
            while life.hear.heard().failed.is_none() {
                fill(&rest);
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, failure).await.expect("the failure");
        assert_no_room(&life.hear.heard().failed.unwrap(), "a renewal");
        assert_eq!(life.hear.count(), 1);
        let _ = timeout(PATIENCE, life.log.close()).await.unwrap();
        fs::remove_file(&rest).unwrap();
        for entry in fs::read_dir(&place).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}
