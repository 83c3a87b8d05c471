//! Old owners of a block log that wake up: paused at each step of what they did, resumed at each step of a taker's protocol, twice in a row.
//!
//! A block log has one owner because its device has: a lock, `O_EXCL`, or the lease of a [`BlockLog`]. What the old owner had submitted holds the device
//! until it has landed, so a taker gets it only after the last write of the one before, and what the zombie was acknowledged is on it (W5).

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::sync::Arc;

use wal::{
    Backend, Error, Log, LogEpoch, LogState, Position, Replay,
    block::{BlockLog, Config, FileDevice, FileOptions},
    testing::{Fault, FaultyDevice, Hear, MemoryDevice, new_log},
};

const LEN: usize = 128 * 1024 + 32 * 4096;

fn config() -> Config {
    Config {
        overlap_bytes: 0,
        in_flight_max: 4,
        ..Config::default()
    }
}

fn complete_all(device: &MemoryDevice) {
    while device.waiting() > 0 {
        device.complete(0);
    }
}

/// A place whose writes can be held back, and the metadata of its log.
struct World {
    device: MemoryDevice,
    faulty: FaultyDevice,
    place: BlockLog,
    state: LogState,
}

struct Owner {
    log: Arc<dyn Log>,
    hear: Arc<Hear>,
}

impl World {
    fn new() -> Self {
        let device = MemoryDevice::manual(LEN);
        let faulty = FaultyDevice::new(Arc::new(device.clone()));
        let place = BlockLog::on(Arc::new(faulty.clone())).with_config(config());
        Self {
            device,
            faulty,
            place,
            state: new_log(),
        }
    }

    fn open(&self) -> Result<Box<dyn Replay>, Error> {
        self.device.drive(self.place.open(&self.state))
    }

    fn replayed(&self, replay: &mut dyn Replay) -> Vec<u8> {
        let mut back = Vec::new();
        while let Some(piece) = self.device.drive(replay.next()).unwrap() {
            back.extend(piece.iter().map(|r| r.payload[0]));
        }
        back
    }

    fn start(&mut self, replay: Box<dyn Replay>) -> Owner {
        self.state.begin(replay.ends(), replay.start_position());
        let hear = Hear::new();
        let log = self
            .device
            .drive(replay.start(Arc::clone(&hear) as _))
            .unwrap();
        self.state.grant(LogEpoch::new(self.state.epoch.get() + 1));
        Owner { log, hear }
    }

    /// The next owner must be refused as long as this one could still write, and then finds `expected`.
    fn taken_only_when_idle(
        &mut self,
        zombie: Owner,
        mut expected: Vec<u8>,
        paused: &str,
    ) -> Owner {
        // Alive: its lease of the device is not given to another, however long it sleeps.
        let refused = self.open().err();
        assert!(
            matches!(refused, Some(Error::InUse { .. })),
            "{paused}: {refused:?}"
        );
        // Killed: what it had submitted may still land, and holds the device until then.
        let heard_before = zombie.hear.count();
        drop(zombie.log);
        if self.faulty.stalled() + self.device.waiting() > 0 {
            let refused = self
                .device
                .drive(async { self.place.open(&self.state).await.err() });
            assert!(
                matches!(refused, Some(Error::InUse { .. })),
                "{paused}: {refused:?}"
            );
        }
        // It wakes: its writes land, and it hears of nothing any more.
        self.faulty.release();
        complete_all(&self.device);
        assert_eq!(
            zombie.hear.count(),
            heard_before,
            "{paused}: acknowledged after its end"
        );
        let mut replay = self.open().unwrap();
        let back = self.replayed(&mut *replay);
        // W5: all that it ever acknowledged, and of the rest a prefix.
        assert!(
            back.len() >= expected.len(),
            "{paused}: {back:?} of {expected:?}"
        );
        expected.extend(back.get(expected.len()..).unwrap_or_default());
        assert_eq!(back, expected, "{paused}");
        self.start(replay)
    }
}

#[test]
fn a_paused_owner_is_not_taken_over_before_its_last_write_and_acknowledges_nothing_after() {
    // Paused with so many writes submitted, of which the first so many were held back by the device.
    for (submitted, stalled_from) in [(0, 0), (1, 0), (3, 0), (3, 1), (3, 2)] {
        let mut world = World::new();
        let replay = world.open().unwrap();
        let mut owner = world.start(replay);
        let mut acknowledged = Vec::new();
        // Twice in a row: the taker is itself paused and taken over.
        for life in 0..3_u8 {
            let paused = format!("life {life}, {submitted} submitted, held from {stalled_from}");
            for n in stalled_from..submitted {
                world.faulty.plant(Fault::Stall { nth: u64::from(n) });
            }
            for n in 0..submitted {
                Hear::append(&*owner.log, &[&[life * 10 + n; 100]]).unwrap();
            }
            complete_all(&world.device);
            acknowledged.extend(owner.hear.heard().records.iter().map(|r| r.payload[0]));
            owner = world.taken_only_when_idle(owner, acknowledged.clone(), &paused);
            // What was not acknowledged and landed later is final since the taker replayed it (W8).
            acknowledged.extend((stalled_from..submitted).map(|n| life * 10 + n));
        }
    }
}

#[test]
fn a_device_that_lost_its_lock_gives_the_taker_an_epoch_that_fences_the_one_before() {
    // Two places over one device: neither sees the other's lease, as two hosts do not see each other's locks. The metadata granted epochs 2 and 3.
    for step in ["granted", "opened", "started"] {
        let device = MemoryDevice::manual(LEN);
        let place = || BlockLog::on(Arc::new(device.clone())).with_config(config());
        let mut state = new_log();
        let replay = device.drive(place().open(&state)).unwrap();
        state.begin(replay.ends(), replay.start_position());
        drop(device.drive(replay.start(Hear::new() as _)).unwrap());
        state.grant(LogEpoch::new(2));
        let zombie = state.clone();
        let mut held = None;
        if step != "granted" {
            held = Some(device.drive(place().open(&zombie)).unwrap());
        }
        state.grant(LogEpoch::new(3));
        let taker = device.drive(place().open(&state)).unwrap();
        state.begin(taker.ends(), taker.start_position());
        drop(device.drive(taker.start(Hear::new() as _)).unwrap());
        drop(held);
        // It wakes and opens with what it knew: the device says that a higher epoch was started.
        let error = device.drive(place().open(&zombie)).err().unwrap();
        assert!(
            matches!(&error, Error::Fenced { by } if by.contains("epoch 3")),
            "{step}: {error}"
        );
    }
}

#[test]
fn an_epoch_that_was_granted_and_never_wrote_is_passed_over_with_everything_trimmed() {
    let mut world = World::new();
    let replay = world.open().unwrap();
    let owner = world.start(replay);
    for n in 0..4 {
        Hear::append(&*owner.log, &[&[n; 100]]).unwrap();
    }
    complete_all(&world.device);
    let end = owner.log.durable_end();
    world.state.trim(end, end);
    owner.log.trim(end);
    complete_all(&world.device);
    drop(owner);
    // Granted, opened, never started; twice in a row.
    for _ in 0..2 {
        let epoch = world.state.epoch;
        let mut replay = world.open().unwrap();
        assert_eq!(world.replayed(&mut *replay), [0_u8; 0]);
        drop(replay);
        world.state.grant(LogEpoch::new(epoch.get() + 1));
    }
    let replay = world.open().unwrap();
    assert!(replay.start_position() >= end);
    let owner = world.start(replay);
    Hear::append(&*owner.log, &[&[9; 100]]).unwrap();
    complete_all(&world.device);
    drop(owner);
    let mut replay = world.open().unwrap();
    assert_eq!(world.replayed(&mut *replay), [9]);
}

/// Writes records through `place` and crashes; what the next opening is told.
async fn fill(place: &BlockLog, count: u8) -> (LogState, Position) {
    let mut state = new_log();
    let replay = place.open(&state).await.unwrap();
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    for n in 0..count {
        Hear::append(&*log, &[&[n; 3000]]).unwrap();
    }
    hear.until_durable(usize::from(count)).await;
    let end = log.durable_end();
    drop(log);
    state.grant(LogEpoch::new(2));
    (state, end)
}

#[tokio::test]
async fn a_volume_that_is_attached_elsewhere_opens_there() {
    // The same bytes under another name: nothing in a log says where it lives.
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let (mut state, _) = fill(&BlockLog::file(&here, 1 << 20), 5).await;
    // Wait for exclusive use, so that the last write has landed.
    drop(
        FileDevice::open(&here, FileOptions::default())
            .await
            .unwrap()
            .unwrap(),
    );
    std::fs::copy(&here, &there).unwrap();
    std::fs::remove_file(&here).unwrap();
    let place = BlockLog::file(&there, 0);
    let mut replay = place.open(&state).await.unwrap();
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        back.extend(piece.iter().map(|r| r.payload[0]));
    }
    assert_eq!(back, [0, 1, 2, 3, 4]);
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    Hear::append(&*log, &[b"there"]).unwrap();
    hear.until_durable(1).await;
    log.close().await.unwrap();
}
