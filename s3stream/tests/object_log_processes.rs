//! The object log on a real S3 server with owners that are processes: stopped under load and while they open, taken over, taken over once more, and
//! continued. Run by `.ci/run s3`.
#![cfg(all(feature = "aws", feature = "testing"))]

use std::{ffi::OsStr, sync::Arc};

use s3stream::testing::SeaweedFs;
use wal::{
    Backend, LogState,
    object::{Config, ObjectLog},
    testing::{OwnerProcess, grant_next, new_log, own},
};

const ENDPOINT: &str = "S3STREAM_OWNER_ENDPOINT";
const PREFIX: &str = "S3STREAM_OWNER_PREFIX";
/// Records of one owner have numbers from a multiple of this on.
const RECORDS: u32 = 1_000_000;

fn place(endpoint: &str, prefix: &str, incarnation: u128) -> ObjectLog {
    let store = SeaweedFs::store_at(endpoint).expect("a client");
    let config = Config {
        // Several objects are always on their way.
        overlap_bytes: 0,
        commit_bytes_max: 1500,
        puts_per_s: 10_000,
        puts_burst: 10_000,
        ..Config::default()
    };
    let log = ObjectLog::new(Arc::new(store), prefix, incarnation).expect("a place");
    log.with_config(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not a test: the process that the test of this file starts, as .ci/run s3 does"]
#[expect(
    clippy::disallowed_methods,
    reason = "a parent tells its child where to work"
)]
async fn owner() {
    let given = |name| std::env::var(name).expect("where to work, from the parent");
    let log = place(&given(ENDPOINT), &given(PREFIX), std::process::id().into());
    let payload = |record: u32| [&record.to_be_bytes()[..], &[7; 296]].concat();
    own(&log, payload).await;
}

/// The metadata, and the processes that have or had the log.
struct World {
    endpoint: String,
    prefix: String,
    state: LogState,
    owners: Vec<OwnerProcess>,
}

impl World {
    fn new(server: &SeaweedFs, round: usize) -> Self {
        Self {
            endpoint: server.endpoint(),
            prefix: format!("owners/{round}"),
            state: new_log(),
            owners: Vec::new(),
        }
    }

    /// A process that opens the log.
    fn begin(&mut self) {
        if !self.owners.is_empty() {
            grant_next(&mut self.state);
        }
        let first = self.owners.len() as u32 * RECORDS;
        let variables = [
            (ENDPOINT, OsStr::new(&self.endpoint)),
            (PREFIX, OsStr::new(&self.prefix)),
        ];
        let owner = OwnerProcess::begin("owner", &self.state, first, &variables);
        self.owners.push(owner);
    }

    /// A process that takes the log over and has acknowledged so much.
    async fn take_over(&mut self, acknowledged: usize) {
        self.begin();
        let owner = self.owners.last_mut().expect("just begun");
        owner.opened(&mut self.state).await;
        owner.start();
        owner.until_acknowledged(acknowledged).await;
    }

    fn signal(&self, owner: usize, name: &str) {
        self.owners[owner].signal(name);
    }

    /// Replaces the newest owner once more; what every owner acknowledged is in every replay after it, in order, and no replay takes anything back.
    async fn check(mut self, what: &str) {
        let newest = self.owners.len() - 1;
        grant_next(&mut self.state);
        let mut replay = place(&self.endpoint, &self.prefix, 9)
            .open(&self.state)
            .await
            .expect("an opening");
        let mut last = Vec::new();
        while let Some(piece) = replay.next().await.expect("a replay") {
            let names = piece
                .iter()
                .map(|r| r.payload.first_chunk().expect("a number"));
            last.extend(names.map(|name| u32::from_be_bytes(*name)));
        }
        let mut replays = Vec::new();
        for (number, owner) in self.owners.iter_mut().enumerate() {
            // None of them is alive: each was stopped before, or is fenced now.
            owner.ended().await;
            let failed = owner.failed();
            let fenced = failed
                .as_ref()
                .is_none_or(|by| by.contains("fenced by epoch"));
            assert!(fenced, "{what}, owner {number}: {failed:?}");
            assert!(
                number < newest || failed.is_some(),
                "{what}: the newest lives"
            );
            replays.push(owner.replayed());
        }
        replays.push(last);
        for (number, owner) in self.owners.iter().enumerate() {
            let acknowledged = owner.acknowledged();
            for (after, replayed) in replays.iter().enumerate().skip(number + 1) {
                let mut rest = replayed.iter();
                let lost = acknowledged
                    .iter()
                    .find(|name| !rest.any(|record| record == *name));
                // An opening that was stopped and passed may have replayed nothing.
                assert!(
                    lost.is_none() || replayed.is_empty() && after < replays.len() - 1,
                    "W5, {what}: {lost:?} of owner {number} is not in replay {after}"
                );
            }
        }
        for pair in replays.windows(2) {
            assert!(
                pair[1].starts_with(&pair[0]),
                "W8, {what}: a replay takes something back"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn owners_in_processes_on_seaweedfs_that_are_stopped_and_continued_acknowledge_only_what_is_replayed()
 {
    let server = SeaweedFs::start().expect("an S3 server");
    for round in 0..4 {
        let after = 5 + 23 * round;
        let what = format!("taken over, round {round}");
        let mut world = World::new(&server, round);
        world.take_over(after).await;
        world.signal(0, "STOP");
        world.take_over(after).await;
        world.signal(0, "CONT");
        let more = world.owners[1].acknowledged().len() + 20;
        world.owners[1].until_acknowledged(more).await;
        world.check(&what).await;
    }
    for round in 4..8 {
        let after = 5 + 11 * round;
        let what = format!("a take-over of a take-over, round {round}");
        let mut world = World::new(&server, round);
        world.take_over(after).await;
        world.signal(0, "STOP");
        world.take_over(after).await;
        world.signal(1, "STOP");
        world.take_over(after).await;
        // In either order.
        world.signal(round % 2, "CONT");
        world.signal(1 - round % 2, "CONT");
        let more = world.owners[2].acknowledged().len() + 20;
        world.owners[2].until_acknowledged(more).await;
        world.check(&what).await;
    }
    for round in 8..11 {
        let what = format!("a taker that is stopped before its start, round {round}");
        let mut world = World::new(&server, round);
        world.take_over(20).await;
        world.signal(0, "STOP");
        world.begin();
        let taker = &mut world.owners[1];
        taker.opened(&mut world.state).await;
        taker.signal("STOP");
        // It will find that it may start, when it is too late.
        taker.start();
        world.take_over(20).await;
        world.signal(1, "CONT");
        world.signal(0, "CONT");
        let more = world.owners[2].acknowledged().len() + 20;
        world.owners[2].until_acknowledged(more).await;
        world.check(&what).await;
    }
}
