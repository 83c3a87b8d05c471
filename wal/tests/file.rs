//! The block log in files and on block devices of this machine.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use wal::{
    Backend, Error, Found, Log, LogEpoch, LogState, Replay,
    block::{BlockLog, Config, Device, FileDevice, FileOptions, Refusal},
    testing::{Hear, Storage, conformance, new_log},
};

const CAPACITY: u64 = 4 << 20;

fn log_in(folder: &Path) -> (PathBuf, BlockLog) {
    let path = folder.join("wal");
    (path.clone(), BlockLog::file(path, CAPACITY))
}

async fn start(place: &BlockLog, state: &mut LogState) -> (Arc<dyn Log>, Arc<Hear>) {
    let replay = place.open(state).await.unwrap();
    start_replay(replay, state).await
}

async fn start_replay(replay: Box<dyn Replay>, state: &mut LogState) -> (Arc<dyn Log>, Arc<Hear>) {
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    state.grant(LogEpoch::new(state.epoch.get() + 1));
    (log, hear)
}

async fn refused(place: &BlockLog, state: &LogState) -> Error {
    match place.open(state).await {
        Ok(_) => panic!("opened"),
        Err(e) => e,
    }
}

struct Buffered(tempfile::TempDir);

impl Storage for Buffered {
    fn backend(&self) -> Arc<dyn Backend> {
        let config = Config {
            direct_io: false,
            ..Config::default()
        };
        Arc::new(log_in(self.0.path()).1.with_config(config))
    }
}

#[tokio::test]
async fn a_file_through_the_page_cache_keeps_the_contract_and_says_so() {
    conformance(|| Buffered(tempfile::tempdir().unwrap())).await;
    let folder = tempfile::tempdir().unwrap();
    let options = FileOptions {
        direct: false,
        ..FileOptions::default()
    };
    let device = FileDevice::create(&folder.path().join("wal"), 1 << 20, options)
        .await
        .unwrap();
    assert!(
        device.name().ends_with("wal (buffered)"),
        "{}",
        device.name()
    );
}

#[tokio::test]
async fn a_new_file_is_allocated_and_written_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    let (log, _) = start(&place, &mut new_log()).await;
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), CAPACITY + 128 * 1024);
    assert!(
        metadata.blocks() * 512 >= metadata.len(),
        "{} blocks",
        metadata.blocks()
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "the draft is gone"
    );
    assert_eq!(log.usage().capacity, CAPACITY);
}

#[tokio::test]
async fn identify_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    assert_eq!(place.identify().await.unwrap(), Found::Blank);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_log_in_use_is_neither_opened_nor_identified() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    let mut state = new_log();
    let (log, _) = start(&place, &mut state).await;
    let second = BlockLog::file(&path, CAPACITY);
    let error = refused(&second, &state).await;
    assert!(
        matches!(&error, Error::InUse { place, .. } if place.ends_with("wal")),
        "{error}"
    );
    let identified = second.identify().await;
    assert!(
        matches!(identified, Err(Error::InUse { .. })),
        "{identified:?}"
    );
    log.close().await.unwrap();
    second.open(&state).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_gone_or_empty_though_it_owes_is_missing_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    let mut state = new_log();
    let (log, _) = start(&place, &mut state).await;
    log.close().await.unwrap();
    fs::remove_file(&path).unwrap();
    let error = refused(&place, &state).await;
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(!path.exists());
    fs::write(&path, b"").unwrap();
    let error = refused(&place, &state).await;
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[tokio::test]
async fn a_truncated_file_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    let mut state = new_log();
    let (log, _) = start(&place, &mut state).await;
    log.close().await.unwrap();
    for len in [CAPACITY, 4096] {
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len)
            .unwrap();
        let error = refused(&place, &state).await;
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("{len} bytes")),
            "{error}"
        );
        assert_eq!(fs::metadata(&path).unwrap().len(), len);
    }
}

#[tokio::test]
async fn a_full_disk_at_creation_is_one_clear_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wal");
    let place = BlockLog::file(&path, 10 << 40);
    let error = refused(&place, &new_log()).await;
    let Error::Io {
        op: "preallocate",
        place,
        source,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(Path::new(place), path);
    assert!(
        matches!(
            source.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::FileTooLarge
        ),
        "{source}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_draft_that_a_crash_left_is_no_log_and_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    fs::write(folder.path().join("wal.new"), vec![0; 300_000]).unwrap();
    assert_eq!(place.identify().await.unwrap(), Found::Blank);
    let (log, hear) = start(&place, &mut new_log()).await;
    Hear::append(&*log, &[b"x"]).unwrap();
    hear.until_durable(1).await;
    assert!(path.exists() && !folder.path().join("wal.new").exists());
}

#[tokio::test]
async fn what_is_no_draft_of_a_log_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    let theirs = folder.path().join("wal.new");
    fs::write(&theirs, b"somebody's").unwrap();
    let error = refused(&place, &new_log()).await;
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert_eq!(fs::read(&theirs).unwrap(), b"somebody's");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = log_in(folder.path());
    std::os::unix::fs::symlink("/dev/disk/by-id/detached", &path).unwrap();
    let error = refused(&place, &new_log()).await;
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A file there would be in memory, and whatever was acknowledged gone with the next start of the machine.
#[tokio::test]
async fn a_device_that_is_missing_does_not_become_a_file() {
    let on = |path: &str| fs::metadata(path).unwrap().dev();
    assert_ne!(
        on("/dev"),
        on("/"),
        "devices have a file system of their own"
    );
    let path = Path::new("/dev/s3stream-no-such-device");
    let place = BlockLog::file(path, CAPACITY);
    let error = refused(&place, &new_log()).await;
    assert!(error.to_string().contains("no such device"), "{error}");
    assert!(!path.exists() && !path.with_extension("new").exists());
}

#[tokio::test]
async fn places_that_cannot_be_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no").join("wal");
    let error = refused(&BlockLog::file(&nowhere, CAPACITY), &new_log()).await;
    assert!(error.to_string().contains("no/wal"), "{error}");
    let error = refused(&BlockLog::file(folder.path(), CAPACITY), &new_log()).await;
    assert!(
        error.to_string().contains(folder.path().to_str().unwrap()),
        "{error}"
    );
    let error = refused(&BlockLog::file(folder.path().join("wal"), 100), &new_log()).await;
    assert!(matches!(error, Error::Invalid(_)), "{error}");
}

#[tokio::test]
async fn a_log_that_is_dropped_gives_its_file_back() {
    let folder = tempfile::tempdir().unwrap();
    let (_, place) = log_in(folder.path());
    let mut state = new_log();
    for life in 0..20_u8 {
        let mut replay = place.open(&state).await.unwrap();
        let mut back = 0;
        while let Some(piece) = replay.next().await.unwrap() {
            back += piece.len();
        }
        assert!(back >= usize::from(life) * 2, "{back} in life {life}");
        let (log, hear) = start_replay(replay, &mut state).await;
        Hear::append(&*log, &[&[life; 3000]]).unwrap();
        Hear::append(&*log, &[&[life; 3000]]).unwrap();
        hear.until_durable(2).await;
        // In flight when the log is dropped.
        Hear::append(&*log, &[&[life; 3000]]).unwrap();
    }
}

/// A loop device over a file, detached when dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn over(path: &Path, sector: &str) -> Self {
        let output = std::process::Command::new("losetup")
            .args(["--direct-io=on", "--sector-size", sector, "-f", "--show"])
            .arg(path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["-d", &self.0])
            .status();
    }
}

/// A directory on the disk, and one in memory.
const PLACES: [&str; 2] = [".", "/dev/shm"];

#[tokio::test]
#[ignore = "needs root and losetup: .ci/run device"]
async fn a_raw_block_device_keeps_the_contract() {
    for (sector, place) in [("512", PLACES[0]), ("4096", PLACES[0]), ("4096", PLACES[1])] {
        conformance(|| {
            let folder = tempfile::tempdir_in(place).unwrap();
            let file = folder.path().join("disk");
            fs::write(&file, vec![0; 8 << 20]).unwrap();
            let device = LoopDevice::over(&file, sector);
            move || {
                let _ = &folder;
                Arc::new(BlockLog::file(&device.0, 0)) as Arc<dyn Backend>
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs root and losetup: .ci/run device"]
async fn a_volume_that_is_attached_again_opens_there() {
    // Detached from one device node and attached to another, as a volume that moves to another host.
    let folder = tempfile::tempdir_in(".").unwrap();
    let file = folder.path().join("disk");
    fs::write(&file, vec![0; 8 << 20]).unwrap();
    let mut state = new_log();
    let here = LoopDevice::over(&file, "4096");
    let (log, hear) = start(&BlockLog::file(&here.0, 0), &mut state).await;
    for n in 0..5_u8 {
        Hear::append(&*log, &[&[n; 3000]]).unwrap();
    }
    hear.until_durable(5).await;
    log.close().await.unwrap();
    // Before the old node is given back, so that it is another one.
    let there = LoopDevice::over(&file, "4096");
    assert_ne!(there.0, here.0);
    drop(here);
    let mut replay = BlockLog::file(&there.0, 0).open(&state).await.unwrap();
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        back.extend(piece.iter().map(|r| r.payload[0]));
    }
    assert_eq!(back, [0, 1, 2, 3, 4]);
}

#[tokio::test]
#[ignore = "needs root and losetup: .ci/run device"]
async fn a_block_device_that_nothing_is_attached_to_is_no_place_for_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    fs::write(&file, vec![0; 8 << 20]).unwrap();
    let device = LoopDevice::over(&file, "4096");
    let place = BlockLog::file(&device.0, CAPACITY);
    assert_eq!(place.identify().await.unwrap(), Found::Blank);
    drop(device);
    let found = place.identify().await;
    assert!(matches!(found, Err(Error::Missing { .. })), "{found:?}");
    let error = refused(&place, &new_log()).await;
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[tokio::test]
#[ignore = "needs root and losetup: .ci/run device"]
async fn a_block_device_is_used_by_one_log_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    fs::write(&file, vec![0; 8 << 20]).unwrap();
    let device = LoopDevice::over(&file, "4096");
    let place = BlockLog::file(&device.0, 0);
    let mut state = new_log();
    let (log, _) = start(&place, &mut state).await;
    assert_eq!(log.usage().capacity, (8 << 20) - 128 * 1024);
    let error = refused(&place, &state).await;
    assert!(matches!(error, Error::InUse { .. }), "{error}");
}

#[tokio::test]
#[ignore = "needs root and losetup: .ci/run device"]
async fn a_block_device_without_reservations_says_so_and_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    fs::write(&file, vec![0; 8 << 20]).unwrap();
    let disk = LoopDevice::over(&file, "4096");
    let options = FileOptions::default();
    let device = FileDevice::open(Path::new(&disk.0), options).await.unwrap();
    let reservations = device.as_ref().unwrap().reservations().unwrap();
    let refused = reservations.register(1);
    assert!(
        matches!(refused, Err(Refusal::Unsupported(_))),
        "{refused:?}"
    );
    assert!(!reservations.shared().unwrap());
    drop((device, reservations));
    start(&BlockLog::file(&disk.0, 0), &mut new_log()).await;
    let plain = FileDevice::open(&file, options).await.unwrap().unwrap();
    assert!(plain.reservations().is_none(), "a file has none");
}
