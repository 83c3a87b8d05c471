//! What the suite cannot see of the example's log: writes that fail, crashes between two steps of an opening, deletions that a power cut undoes.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{fs, path::PathBuf, sync::Arc};

use s3stream::wal::{
    Backend, Error, Found, Identity, Log, LogEpoch, LogState, LogUuid, Replayed, testing::Hear,
};

#[path = "../examples/custom_wal"]
mod custom_wal {
    pub(crate) mod directory_log;
}

use custom_wal::directory_log::DirectoryLog;

/// A log's place, and what its caller knows of it.
struct Place {
    _home: tempfile::TempDir,
    log: PathBuf,
    state: LogState,
}

struct Life {
    back: Vec<Replayed>,
    log: Arc<dyn Log>,
    hear: Arc<Hear>,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        fs::create_dir(&log).unwrap();
        let identity = Identity {
            cluster: 1,
            log: LogUuid::new(2),
            node: 3,
        };
        Self {
            _home: home,
            log,
            state: LogState::new(identity, LogEpoch::new(0)),
        }
    }

    fn backend(&self) -> DirectoryLog {
        DirectoryLog::new(&self.log, 1 << 20)
    }

    fn grant(&mut self) {
        let next = LogEpoch::new(self.state.epoch.get() + 1);
        self.state.grant(next);
    }

    async fn live(&mut self) -> Life {
        self.grant();
        let mut replay = self.backend().open(&self.state).await.unwrap();
        let mut back = Vec::new();
        while let Some(piece) = replay.next().await.unwrap() {
            back.extend(piece);
        }
        self.state.begin(replay.ends(), replay.start_position());
        let hear = Hear::new();
        let log = replay.start(hear.clone()).await.unwrap();
        Life { back, log, hear }
    }

    fn commits(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.log).unwrap();
        let mut found: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "commit"))
            .collect();
        found.sort();
        found
    }
}

impl Life {
    async fn write(&self, payload: &[u8]) {
        let before = self.hear.count();
        Hear::append(&*self.log, &[payload]).unwrap();
        self.hear.until_durable(before + 1).await;
    }

    fn payloads(&self) -> Vec<&[u8]> {
        self.back.iter().map(|record| &record.payload[..]).collect()
    }
}

#[tokio::test]
async fn a_write_that_fails_ends_the_log_until_it_is_reopened() {
    let mut place = Place::new();
    let life = place.live().await;
    life.write(b"acknowledged").await;
    let away = place.log.with_file_name("away");
    fs::rename(&place.log, &away).unwrap();
    Hear::append(&*life.log, &[b"lost"]).unwrap();
    life.hear
        .until("the failure", |heard| heard.failed.is_some())
        .await;
    assert_eq!(life.hear.count(), 1, "W6: nothing is acknowledged after it");
    for refused in [
        Hear::append(&*life.log, &[b"refused"]).err(),
        life.log.close().await.err(),
    ] {
        assert!(matches!(refused, Some(Error::Failed { .. })), "{refused:?}");
    }
    fs::rename(&away, &place.log).unwrap();
    // The failed log is still held by someone; its lock is not.
    let life = place.live().await;
    assert_eq!(life.payloads(), [b"acknowledged"]);
    life.write(b"and on").await;
}

#[tokio::test]
async fn a_crash_before_the_first_start_leaves_a_place_that_opens() {
    let mut place = Place::new();
    place.grant();
    let replay = place.backend().open(&place.state).await.unwrap();
    // Recorded, then crashed: the metadata says that epoch 1 was started.
    let mut recorded = place.state.clone();
    recorded.begin(replay.ends(), replay.start_position());
    drop(replay);
    let found = place.backend().identify().await.unwrap();
    assert_eq!(found, Found::Closed(place.state.identity.clone()));
    place.state = recorded;
    let life = place.live().await;
    assert!(life.back.is_empty());
    life.write(b"first").await;
    drop(life);
    assert_eq!(place.live().await.payloads(), [b"first"]);
}

#[tokio::test]
async fn a_trimmed_file_that_comes_back_is_not_looked_at_and_goes() {
    let mut place = Place::new();
    let life = place.live().await;
    life.write(b"trimmed").await;
    let trimmed = place.commits().pop().unwrap();
    life.write(b"kept").await;
    let to = life.hear.heard().records[0].position.end;
    place.state.trim(to, life.log.durable_end());
    life.log.trim(to);
    life.hear.until("room", |heard| heard.rooms > 0).await;
    assert!(!trimmed.exists(), "a trim gives files up");
    drop(life);
    // As a power cut may undo the deletion, and damage what was deleted (W7).
    fs::write(&trimmed, b"damaged").unwrap();
    let life = place.live().await;
    assert_eq!(life.payloads(), [b"kept"]);
    assert!(!trimmed.exists(), "what is not owed goes at the next start");
    assert_eq!(place.commits().len(), 1);
}
