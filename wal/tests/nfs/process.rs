//! Owners that are processes of their own, killed and stopped by signals, and a real server that is killed and stopped under them.
//!
//! Whatever an owner tells that it acknowledged, whenever, is in what its successor replays (W5).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::time::{sleep, timeout};
use wal::{
    Error, LogState,
    nfs::{Config, NfsLog},
    testing::{OwnerProcess, own},
};

use crate::support::*;

const LEASE: Duration = Duration::from_millis(700);
const CAPACITY: u64 = 8 << 20;
const PLACE: &str = "S3STREAM_NFS_OWNER";

fn log_at(place: &Path) -> NfsLog {
    let config = Config {
        lease: LEASE,
        ..Config::default()
    };
    NfsLog::at(place, CAPACITY).with_config(config)
}

#[tokio::test]
#[ignore = "not a test: the process that the tests of this file start, as .ci/run nfs does"]
#[expect(
    clippy::disallowed_methods,
    reason = "a parent tells its child where to work"
)]
async fn owner() {
    let place = std::env::var_os(PLACE).expect("the place, from the parent");
    own(&log_at(Path::new(&place)), |record| payload(record, 300)).await;
}

/// An owner's process that has the log and has acknowledged so much, and the state of its successor.
async fn owner_of(place: &Path, after: usize) -> (OwnerProcess, LogState) {
    let mut state = fresh();
    let place = [(PLACE, place.as_os_str())];
    let mut owner = OwnerProcess::begin("process::owner", &state, 0, &place);
    owner.opened(&mut state).await;
    owner.start();
    owner.until_acknowledged(after).await;
    grant_next(&mut state);
    (owner, state)
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill -{name} {process}");
}

fn assert_all_replayed(acknowledged: &[u32], back: &[u32]) {
    let back: BTreeSet<_> = back.iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|r| !back.contains(r)).collect();
    assert!(
        lost.is_empty(),
        "W5: acknowledged and not replayed: {lost:?}"
    );
}

/// Opens it as an engine does: again, while the server cannot be reached.
async fn take(place: &Path, state: &LogState) -> Opened {
    let log = log_at(place);
    let opening = async {
        loop {
            match open(&log, state).await {
                Err(Error::Io { .. }) => sleep(Duration::from_millis(100)).await,
                opened => return opened,
            }
        }
    };
    let opened = timeout(PATIENCE, opening).await;
    opened.expect("it opens or is refused").unwrap()
}

async fn kill_and_take_over(place: &Path, after: usize) {
    let (mut owner, mut state) = owner_of(place, after).await;
    owner.signal("KILL");
    owner.ended().await;
    let acknowledged = owner.acknowledged();
    let taken = take(place, &state).await;
    assert_all_replayed(&acknowledged, &taken.back);
    let life = taken.start(&mut state).await.unwrap();
    append(&*life.log, 1_000_000, 300).unwrap();
    life.hear.until_durable(1).await;
}

async fn stop_take_over_and_wake(place: &Path, after: usize) {
    let (mut owner, mut state) = owner_of(place, after).await;
    owner.signal("STOP");
    sleep(2 * LEASE).await;
    let taken = take(place, &state).await;
    let back = taken.back.clone();
    let life = taken.start(&mut state).await.unwrap();
    append(&*life.log, 1_000_000, 300).unwrap();
    life.hear.until_durable(1).await;
    owner.signal("CONT");
    owner.ended().await;
    assert_all_replayed(&owner.acknowledged(), &back);
    let failed = owner.failed();
    let fenced = failed
        .as_ref()
        .is_some_and(|by| by.contains("fenced by epoch 2"));
    assert!(fenced, "{failed:?}");

    append(&*life.log, 1_000_001, 300).unwrap();
    life.hear.until_durable(2).await;
    drop(life);
    grant_next(&mut state);
    let again = take(place, &state).await;
    let expected = [&back[..], &[1_000_000, 1_000_001]].concat();
    assert_eq!(again.back, expected, "W8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owners_process_that_is_killed_or_stopped_is_taken_over_with_all_it_ever_acknowledges() {
    let place = tempfile::tempdir().unwrap();
    kill_and_take_over(place.path(), 20).await;
    let place = tempfile::tempdir().unwrap();
    stop_take_over_and_wake(place.path(), 20).await;
}

/// A folder in the mounted directory.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever mounts the directory says where"
)]
fn mounted() -> tempfile::TempDir {
    let mounted = std::env::var_os("S3STREAM_NFS_DIR");
    let mounted = mounted.expect("S3STREAM_NFS_DIR, a mounted directory: .ci/run nfs");
    tempfile::tempdir_in(mounted).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a mounted NFS directory: .ci/run nfs"]
async fn an_nfs_owner_that_is_killed_is_taken_over_with_all_it_acknowledged() {
    for round in 0..6 {
        kill_and_take_over(mounted().path(), 3 + 17 * round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a mounted NFS directory: .ci/run nfs"]
async fn an_nfs_owner_that_is_stopped_acknowledges_nothing_that_was_not_replayed() {
    for round in 0..6 {
        stop_take_over_and_wake(mounted().path(), 3 + 17 * round).await;
    }
}

/// The server's process, which is started again when it ends.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever starts the server says which process it is"
)]
fn server() -> u32 {
    let file = std::env::var_os("S3STREAM_NFS_SERVER");
    let file = PathBuf::from(file.expect("S3STREAM_NFS_SERVER, a process id: .ci/run nfs"));
    std::fs::read_to_string(file)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a mounted NFS directory and its server's process: .ci/run nfs"]
async fn an_nfs_server_that_is_killed_or_stalls_under_load_loses_nothing_and_holds_nobody_for_ever()
{
    for fault in ["KILL", "STOP", "KILL", "STOP"] {
        let place = mounted();
        let mut state = fresh();
        let life = take(place.path(), &state).await.start(&mut state).await;
        let life = life.unwrap();
        let mut record = 0;
        let mut load = async |count: u32, life: &Life| {
            for _ in 0..count {
                record += u32::from(append(&*life.log, record, 300).is_ok());
                sleep(Duration::from_millis(2)).await;
            }
            record as usize
        };
        let before = load(200, &life).await;
        let process = server();
        signal(process, fault);
        load(200, &life).await;
        sleep(2 * LEASE).await;
        if fault == "STOP" {
            signal(process, "CONT");
        }
        let asked = load(200, &life).await;
        let answered = life.hear.until("every answer", |h| {
            h.failed.is_some() || h.records.len() == asked
        });
        timeout(PATIENCE, answered).await.expect("an answer");
        let (acknowledged, failed) = (heard(&life.hear), life.hear.heard().failed);
        println!(
            "{fault}: {} of {asked} acknowledged, {before} asked before, failed: {failed:?}",
            acknowledged.len()
        );
        let closed = timeout(PATIENCE, life.log.close())
            .await
            .expect("it closes");
        assert_eq!(closed.is_err(), failed.is_some(), "{closed:?}");
        grant_next(&mut state);
        let again = take(place.path(), &state).await;
        assert_all_replayed(&acknowledged, &again.back);
        let life = again.start(&mut state).await.unwrap();
        append(&*life.log, 1_000_000, 300).unwrap();
        life.hear.until_durable(1).await;
    }
}
