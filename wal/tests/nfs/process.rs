//! Owners that are processes of their own, killed and stopped by signals, and a real server that is killed and stopped under them.
//!
//! An owner tells each acknowledgement on its standard output, in its sink. Whatever it tells, whenever, is in what its successor replays (W5).

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use wal::{
    Backend, Commit, Error, LogState, Position, Sink,
    nfs::{Config, NfsLog},
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

/// Tells its parent.
struct Teller;

impl Teller {
    fn tell(line: &str) {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    }
}

impl Sink for Teller {
    fn durable(&self, commit: Commit) {
        for record in commit.records {
            Self::tell(&format!("acknowledged {}", name_of(&record.payload)));
        }
    }

    fn failed(&self, error: &Error) {
        Self::tell(&format!("failed {error}"));
    }

    fn room(&self) {}
}

#[tokio::test]
#[ignore = "not a test: the process that the tests of this file start, as .ci/run nfs does"]
#[expect(
    clippy::disallowed_methods,
    reason = "a parent tells its child where to work"
)]
async fn owner() {
    let place = std::env::var_os(PLACE).expect("the place, from the parent");
    let mut state = fresh();
    let replay = log_at(Path::new(&place)).open(&state).await.unwrap();
    state.begin(replay.ends(), replay.start_position());
    let log = replay.start(Arc::new(Teller)).await.unwrap();
    let mut record = 0;
    loop {
        match append(&*log, record, 300) {
            Ok(_) => record += 1,
            Err(Error::Full { .. }) => {}
            Err(_) => return,
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// An owner's process, and what it told.
struct Owner {
    child: Child,
    told: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Owner {
    fn start(place: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process::owner", "--nocapture"])
            .env(PLACE, place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = Arc::new(Mutex::new(Vec::new()));
        let listening = Arc::clone(&told);
        let reader = thread::Builder::new().name("listener".to_owned());
        let reader = reader.spawn(move || {
            for line in lines.map_while(Result::ok) {
                listening.lock().push(line);
            }
        });
        Self {
            child,
            told,
            reader: Some(reader.unwrap()),
        }
    }

    fn acknowledged(&self) -> Vec<u32> {
        let told = self.told.lock();
        let records = told.iter().filter_map(|l| l.strip_prefix("acknowledged "));
        records.map(|n| n.parse().unwrap()).collect()
    }

    async fn until_acknowledged(&self, count: usize) {
        let wait = async {
            while self.acknowledged().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("an owner that works");
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end, and all that it told.
    fn end(mut self) -> Vec<u32> {
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.acknowledged()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill -{name} {process}");
}

/// The state of the owner's successor.
fn successor() -> LogState {
    let mut state = fresh();
    state.begin(&[], Position::default());
    grant_next(&mut state);
    state
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
    let owner = Owner::start(place);
    owner.until_acknowledged(after).await;
    owner.signal("KILL");
    let acknowledged = owner.end();
    let mut state = successor();
    let taken = take(place, &state).await;
    assert_all_replayed(&acknowledged, &taken.back);
    let life = taken.start(&mut state).await.unwrap();
    append(&*life.log, 1_000_000, 300).unwrap();
    life.hear.until_durable(1).await;
}

async fn stop_take_over_and_wake(place: &Path, after: usize) {
    let owner = Owner::start(place);
    owner.until_acknowledged(after).await;
    owner.signal("STOP");
    sleep(2 * LEASE).await;
    let mut state = successor();
    let taken = take(place, &state).await;
    let back = taken.back.clone();
    let life = taken.start(&mut state).await.unwrap();
    append(&*life.log, 1_000_000, 300).unwrap();
    life.hear.until_durable(1).await;
    let told = Arc::clone(&owner.told);
    owner.signal("CONT");
    let ended = tokio::task::spawn(async move { owner.end() });
    let acknowledged = timeout(PATIENCE, ended).await.expect("it ends").unwrap();
    assert_all_replayed(&acknowledged, &back);
    let fenced = told
        .lock()
        .iter()
        .any(|line| line.contains("fenced by epoch 2"));
    assert!(fenced, "{:?}", told.lock().last());

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
