//! What drives a file: the io_uring and the threads keep one contract, and a kernel that refuses the one is served by the other.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use wal::{
    Backend, Error, LogEpoch, LogState,
    block::{BlockLog, Config, Device, FileDevice, FileOptions, Io},
    testing::{
        FaultyDevice, Hear, Heard, MemoryDevice, RecordingDevice, Storage, conformance,
        device_conformance, new_log,
    },
};

const LEN: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn options(io: Io) -> FileOptions {
    FileOptions {
        io,
        ..FileOptions::default()
    }
}

async fn device(folder: &Path, io: Io) -> FileDevice {
    let path = folder.join("wal");
    FileDevice::create(&path, LEN, options(io)).await.unwrap()
}

/// Block-aligned bytes that say which write they are of.
fn data(len: usize, of: u8) -> Bytes {
    let mut memory = BytesMut::zeroed(len + 4096);
    let skip = memory.as_ptr().addr().wrapping_neg() % 4096;
    let mut aligned = memory.split_off(skip);
    aligned.truncate(len);
    aligned.fill(of);
    aligned.freeze()
}

fn outcome<T: Send + 'static>() -> (Box<dyn FnOnce(T) + Send>, Receiver<T>) {
    let (tell, told): (SyncSender<T>, _) = sync_channel(1);
    (Box::new(move |result| tell.send(result).unwrap()), told)
}

fn read(device: &dyn Device, at: u64, len: usize) -> io::Result<Bytes> {
    let (done, told) = outcome();
    device.read(at, len, done);
    told.recv_timeout(PATIENCE).unwrap()
}

fn write(device: &dyn Device, at: u64, data: Bytes) -> io::Result<()> {
    let (done, told) = outcome();
    device.write(at, data, done);
    told.recv_timeout(PATIENCE).unwrap()
}

struct InFolder(tempfile::TempDir, Io);

impl Storage for InFolder {
    fn backend(&self) -> Arc<dyn Backend> {
        let config = Config {
            io: self.1,
            ..Config::default()
        };
        Arc::new(BlockLog::file(self.0.path().join("wal"), 8 << 20).with_config(config))
    }
}

/// What the kernel gives this process.
fn available() -> Io {
    match io_uring::IoUring::new(2) {
        Ok(_) => Io::Uring,
        Err(e) => {
            eprintln!("no io_uring here, threads are tested in its place: {e}");
            Io::Threads
        }
    }
}

#[tokio::test]
async fn an_io_uring_drives_a_file_where_the_kernel_has_one_and_keeps_the_contract() {
    let folder = tempfile::tempdir_in(".").unwrap();
    assert_eq!(device(folder.path(), Io::Uring).await.io(), available());
    conformance(|| InFolder(tempfile::tempdir_in(".").unwrap(), Io::Uring)).await;
}

#[tokio::test]
async fn threads_drive_a_file_when_they_are_asked_for_and_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(device(folder.path(), Io::Threads).await.io(), Io::Threads);
    conformance(|| InFolder(tempfile::tempdir().unwrap(), Io::Threads)).await;
}

/// From here on this thread and those it starts get `errno` from `call`, always or when its second argument is as `when` says.
fn refuse(call: i64, when: Option<(SeccompCmpOp, u64)>, errno: i32) {
    let rule = |(op, value)| {
        let argument = SeccompCondition::new(1, SeccompCmpArgLen::Dword, op, value);
        SeccompRule::new(vec![argument.unwrap()]).unwrap()
    };
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        [(call, when.map(rule).into_iter().collect())].into();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn a_kernel_that_refuses_io_uring_is_served_by_threads_with_the_same_contract() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let refused = thread::Builder::new().spawn(move || {
            // As in many containers.
            refuse(libc::SYS_io_uring_setup, None, errno);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir_in(".").unwrap();
                assert_eq!(device(folder.path(), Io::Uring).await.io(), Io::Threads);
                conformance(|| InFolder(tempfile::tempdir_in(".").unwrap(), Io::Uring)).await;
            });
        });
        refused.unwrap().join().unwrap();
    }
}

#[test]
fn a_kernel_before_the_probe_of_operations_is_served_by_threads() {
    const IORING_REGISTER_PROBE: u64 = 8;
    let old = thread::Builder::new().spawn(|| {
        refuse(
            libc::SYS_io_uring_register,
            Some((SeccompCmpOp::Eq, IORING_REGISTER_PROBE)),
            libc::EINVAL,
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let folder = tempfile::tempdir_in(".").unwrap();
        let device = runtime.block_on(device(folder.path(), Io::Uring));
        assert_eq!(device.io(), Io::Threads);
        write(&device, 0, data(4096, 1)).unwrap();
    });
    old.unwrap().join().unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// Appends until the ring under the log fails, which it does at the first time that so many writes are submitted at once.
async fn append_until_the_ring_fails(place: &BlockLog, state: &mut LogState) -> Vec<u32> {
    let replay = place.open(state).await.unwrap();
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    let mut appended = 0_u32;
    for _ in 0..150 {
        for _ in 0..100 {
            let record = appended.to_be_bytes();
            match Hear::append(&*log, &[&record, &[7; 3000]]) {
                Ok(_) => appended += 1,
                Err(e) => assert!(matches!(e, Error::Failed { .. }), "{e}"),
            }
        }
        let ended = |h: &Heard| h.failed.is_some() || h.records.len() == appended as usize;
        hear.until("every record or the failure", ended).await;
        if hear.heard().failed.is_some() {
            break;
        }
    }
    let heard = hear.heard();
    assert!(
        matches!(&heard.failed, Some(Error::Failed { cause }) if cause.to_string().contains("io_uring failed")),
        "{:?}",
        heard.failed
    );
    let end = log.close().await;
    assert!(matches!(end, Err(Error::Failed { .. })), "{end:?}");
    heard.records.iter().map(|r| number(&r.payload)).collect()
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

#[test]
fn a_ring_that_fails_under_load_ends_the_log_and_the_file_has_what_was_acknowledged() {
    if available() == Io::Threads {
        return;
    }
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("wal");
    let mut state = new_log();
    let config = Config {
        overlap_bytes: 0,
        commit_bytes_max: 4096,
        in_flight_max: 64,
        ..Config::default()
    };
    let place = BlockLog::file(&path, 64 << 20).with_config(config);
    let of_thread = place.clone();
    let failing = thread::Builder::new().spawn(move || {
        let many = (SeccompCmpOp::Ge, 6);
        refuse(libc::SYS_io_uring_enter, Some(many), libc::EBADF);
        let heard = runtime().block_on(append_until_the_ring_fails(&of_thread, &mut state));
        (heard, state)
    });
    let (heard, mut state) = failing.unwrap().join().unwrap();
    state.grant(LogEpoch::new(2));
    // In the same process, at once: the kernel lets the file go when it is done with what was in flight.
    let back: Vec<_> = runtime().block_on(async {
        let mut replay = place.open(&state).await.unwrap();
        let mut back = Vec::new();
        while let Some(piece) = replay.next().await.unwrap() {
            back.extend(piece.iter().map(|r| number(&r.payload)));
        }
        back
    });
    assert!(back.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let owed = heard.last().copied();
    assert!(
        back.last().copied() >= owed,
        "{owed:?} of {:?}",
        back.last()
    );
}

#[tokio::test]
async fn more_operations_than_the_ring_has_slots_all_complete_once() {
    for io in [Io::Uring, Io::Threads] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let device = device(folder.path(), io).await;
        const COUNT: usize = 500;
        let done = Arc::new(AtomicUsize::new(0));
        let (tell, told) = sync_channel(COUNT);
        for n in 0..COUNT {
            let (tell, done) = (tell.clone(), Arc::clone(&done));
            let caller = thread::current().id();
            device.write(
                n as u64 * 4096,
                data(4096, n as u8),
                Box::new(move |result| {
                    result.unwrap();
                    assert_ne!(thread::current().id(), caller, "inside the call");
                    done.fetch_add(1, Ordering::SeqCst);
                    tell.send(n).unwrap();
                }),
            );
        }
        let mut heard: Vec<_> = (0..COUNT)
            .map(|_| told.recv_timeout(PATIENCE).unwrap())
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..COUNT).collect::<Vec<_>>());
        for n in [0, 63, 64, 255, 499_usize] {
            let back = read(&device, n as u64 * 4096, 4096).unwrap();
            assert!(back.iter().all(|b| *b == n as u8), "{io:?}: {n}");
        }
        assert_eq!(done.load(Ordering::SeqCst), COUNT);
    }
}

#[tokio::test]
async fn every_device_refuses_what_it_does_not_admit_and_goes_on() {
    for (io, direct) in [(Io::Uring, true), (Io::Threads, true), (Io::Threads, false)] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let options = FileOptions {
            direct,
            ..options(io)
        };
        let path = folder.path().join("wal");
        device_conformance(&FileDevice::create(&path, LEN, options).await.unwrap());
    }
    let memory = || MemoryDevice::new(LEN as usize);
    device_conformance(&memory());
    device_conformance(&FaultyDevice::new(Arc::new(memory())));
    device_conformance(&RecordingDevice::<()>::new(Arc::new(memory())));
}

#[tokio::test]
async fn a_file_that_became_shorter_gives_no_short_read() {
    for io in [Io::Uring, Io::Threads] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let device = device(folder.path(), io).await;
        let file = fs::File::options()
            .write(true)
            .open(folder.path().join("wal"))
            .unwrap();
        file.set_len(LEN - 4096).unwrap();
        let error = read(&device, LEN - 65_536, 65_536).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{io:?}");
    }
}

/// Says so when a completion is gone, called or not.
struct Fate(SyncSender<()>);

impl Drop for Fate {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_dropped_device_lets_every_completion_go_and_then_its_file() {
    for io in [Io::Uring, Io::Threads] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("wal");
        let device = device(folder.path(), io).await;
        let (tell, told) = sync_channel(200);
        for n in 0..200_u64 {
            let fate = Fate(tell.clone());
            device.write(n * 4096, data(4096, 1), Box::new(move |_| drop(fate)));
        }
        drop(device);
        for n in 0..200 {
            told.recv_timeout(PATIENCE)
                .unwrap_or_else(|e| panic!("{io:?}: completion {n}: {e}"));
        }
        // Exclusive use ends when the last write has landed.
        let again = FileDevice::open(&path, options(io)).await.unwrap();
        assert!(again.is_some());
    }
}

#[tokio::test]
async fn a_completion_that_panics_ends_nothing_else() {
    for io in [Io::Uring, Io::Threads] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let device = device(folder.path(), io).await;
        device.write(
            0,
            data(4096, 1),
            Box::new(|_| panic!("a completion that panics, on purpose")),
        );
        write(&device, 4096, data(4096, 2)).unwrap();
        assert_eq!(read(&device, 4096, 4096).unwrap()[0], 2, "{io:?}");
    }
}

/// CPU time of this process in clock ticks, user and system.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11..13]
        .iter()
        .map(|f| f.parse::<u64>().unwrap())
        .sum()
}

#[test]
#[ignore = "counts the processor time of the process: alone, .ci/run device"]
fn an_idle_device_uses_no_processor() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for io in [Io::Uring, Io::Threads] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let device = runtime.block_on(device(folder.path(), io));
        write(&device, 0, data(4096, 1)).unwrap();
        let before = cpu_ticks();
        thread::park_timeout(Duration::from_millis(500));
        assert!(cpu_ticks() - before <= 2, "{io:?} spins");
    }
}
