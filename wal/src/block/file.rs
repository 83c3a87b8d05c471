//! A file or a raw block device as a [`Device`]: direct, durable writes through an io_uring or by a few threads.
//!
//! - A write is one `pwrite` with `O_DIRECT | O_DSYNC`, or one `pwrite` and one `fdatasync` where the file system refuses `O_DIRECT`.
//! - Exclusive while it lives: a lock on a file, `O_EXCL` on a block device.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    aligned,
    device::{Device, Geometry, ReadDone, WriteDone},
    reservation::Reservations,
    ring::BLOCK,
};
use crate::Error;

mod make;
#[cfg(target_os = "linux")]
mod persistent;
mod threads;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod uring;

use make::{make, sync_folder};
use threads::Threads;

/// Operations that may wait to be begun. A log has far fewer: its commits in flight, one superblock copy, the pieces that a replay reads ahead.
const QUEUE_LEN: usize = 4096;
/// A previous owner that is just ending gives the lock back within this many tries, [`LOCK_PAUSE`] apart.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A file or block device in exclusive use. Its threads end when it is dropped; what they have not begun is dropped.
#[derive(Debug)]
pub struct FileDevice {
    name: String,
    geometry: Geometry,
    queue: Queue,
    reservations: Option<Arc<dyn Reservations>>,
}

/// How to use a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// Operations that may be under way at once by threads, each on one of its own.
    pub threads: usize,
    /// Whether to ask for `O_DIRECT`. Without it, or where it is refused: the page cache, and `fdatasync` after each write.
    pub direct: bool,
    /// What drives it.
    pub io: Io,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            direct: true,
            io: Io::default(),
        }
    }
}

/// What drives the operations of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Io {
    /// One thread and an io_uring. Where there is none to be had (the feature `io-uring` is off, the kernel or its policy refuses, the file is not
    /// used directly) threads, and the log says why.
    #[default]
    Uring,
    /// A few threads with one blocking call each.
    Threads,
}

/// What an open file is asked through.
#[derive(Debug)]
enum Queue {
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Uring(uring::Uring),
    Threads(Threads),
}

impl Queue {
    /// As `options` ask, or by threads and with the reason.
    fn start(
        file: &Arc<File>,
        geometry: Geometry,
        way: Way,
        options: FileOptions,
    ) -> io::Result<(Self, Option<String>)> {
        let reason = match (options.io, way) {
            (Io::Threads, _) => None,
            (Io::Uring, Way::Buffered) => Some("no direct I/O".to_owned()),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            (Io::Uring, Way::Direct) => match uring::Uring::start(file, geometry) {
                Ok(uring) => return Ok((Self::Uring(uring), None)),
                Err(e) => Some(format!("io_uring is refused: {e}")),
            },
            #[cfg(not(all(feature = "io-uring", target_os = "linux")))]
            (Io::Uring, Way::Direct) => Some("built without io_uring".to_owned()),
        };
        let threads = Threads::start(file, geometry, way, options.threads)?;
        Ok((Self::Threads(threads), reason))
    }

    fn send(&self, job: Job) {
        match self {
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(uring) => uring.send(job),
            Self::Threads(threads) => threads.send(job),
        }
    }

    fn io(&self) -> Io {
        match self {
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(_) => Io::Uring,
            Self::Threads(_) => Io::Threads,
        }
    }
}

enum Job {
    Write {
        at: u64,
        data: Bytes,
        done: WriteDone,
    },
    Read {
        at: u64,
        len: usize,
        done: ReadDone,
    },
    Sync {
        done: WriteDone,
    },
}

impl Job {
    /// Whether the device can do it.
    fn admitted(&self, geometry: Geometry) -> io::Result<()> {
        match self {
            Self::Write { at, data, .. } => geometry.admits_write(*at, data),
            Self::Read { at, len, .. } => geometry.admits(*at, *len),
            Self::Sync { .. } => Ok(()),
        }
    }
}

/// Answers a job that is not begun.
fn refuse(job: Job, error: io::Error) {
    match job {
        Job::Write { done, .. } | Job::Sync { done } => done(Err(error)),
        Job::Read { done, .. } => done(Err(error)),
    }
}

/// How writes become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `O_DIRECT | O_DSYNC`.
    Direct,
    /// Through the page cache, `fdatasync` after each write.
    Buffered,
}

impl FileDevice {
    /// Opens what is at `path`; `None` if there is nothing, or an empty file.
    ///
    /// # Errors
    /// `InUse`, `Io`; `Missing`: a block device without a size.
    pub async fn open(path: &Path, options: FileOptions) -> Result<Option<Self>, Error> {
        let path = path.to_owned();
        blocking(move || open_exclusive(&path, options)).await
    }

    /// Makes a file of `len` zero bytes at `path`, where there is none, or an empty one.
    ///
    /// # Errors
    /// `InUse`, `Io`; of a file that could not be made whole nothing stays. `Invalid`: something else is there, or the place is among the devices.
    pub async fn create(path: &Path, len: u64, options: FileOptions) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking(move || {
            make(&path, len)?;
            let vanished = || io_error("open", &path, io::ErrorKind::NotFound.into());
            open_exclusive(&path, options)?.ok_or_else(vanished)
        })
        .await
    }

    fn run(path: &Path, file: File, way: Way, options: FileOptions) -> Result<Option<Self>, Error> {
        let metadata = file.metadata().map_err(|e| io_error("stat", path, e))?;
        let block_device = metadata.file_type().is_block_device();
        let (len_bytes, block_bytes) = if block_device {
            (
                device_len(&file).map_err(|e| io_error("measure", path, e))?,
                sector(&file),
            )
        } else if metadata.is_file() {
            (metadata.len(), 512)
        } else {
            let text = format!("{}: neither a file nor a block device", path.display());
            return Err(Error::Invalid(text));
        };
        if len_bytes == 0 && block_device {
            return Err(Error::Missing {
                place: path.display().to_string(),
                what: "a block device without a size: nothing is attached to it".to_owned(),
            });
        }
        if len_bytes == 0 {
            return Ok(None);
        }
        let mut name = path.display().to_string();
        if way == Way::Buffered {
            name.push_str(" (buffered)");
        }
        let geometry = Geometry {
            block_bytes: block_bytes.max(512),
            len_bytes,
        };
        let file = Arc::new(file);
        let reservations = if block_device {
            reservations(&file)
        } else {
            None
        };
        let (queue, reason) = Queue::start(&file, geometry, way, options)
            .map_err(|e| io_error("start a thread for", path, e))?;
        if let Some(reason) = reason {
            tracing::info!(path = %path.display(), reason, "block log device is driven by threads");
        }
        let io = queue.io();
        tracing::info!(path = %path.display(), ?way, ?io, len_bytes, block_bytes, "block log device open");
        Ok(Some(Self {
            name,
            geometry,
            queue,
            reservations,
        }))
    }

    /// What drives it.
    pub fn io(&self) -> Io {
        self.queue.io()
    }
}

impl Device for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        self.queue.send(Job::Write { at, data, done });
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        self.queue.send(Job::Read { at, len, done });
    }

    fn sync(&self, done: WriteDone) {
        self.queue.send(Job::Sync { done });
    }

    fn reservations(&self) -> Option<Arc<dyn Reservations>> {
        self.reservations.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Runs what may block on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("wal-open".to_owned())
        .spawn(move || {
            // The caller may have stopped waiting.
            let _ = tell.send(work());
        });
    let lost = |source: io::Error| Error::Io {
        op: "start a thread for",
        place: "the block log".to_owned(),
        source: Arc::new(source),
    };
    thread.map_err(lost)?;
    told.await
        .map_err(|_| lost(io::ErrorKind::BrokenPipe.into()))?
}

fn io_error(op: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        op,
        place: path.display().to_string(),
        source: Arc::new(source),
    }
}

fn in_use(path: &Path) -> Error {
    Error::InUse {
        place: path.display().to_string(),
        by: "another process, or another log of this one".to_owned(),
    }
}

fn open_exclusive(path: &Path, options: FileOptions) -> Result<Option<FileDevice>, Error> {
    let block_device = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("stat", path, e)),
        Ok(metadata) => metadata.file_type().is_block_device(),
    };
    let exclusive = if block_device { exclusive_flag() } else { 0 };
    for way in [Way::Direct, Way::Buffered] {
        let direct = if options.direct { direct_flags() } else { None };
        let flags = if way == Way::Direct { direct } else { Some(0) };
        let Some(flags) = flags else { continue };
        let mut tries = 0;
        let file = loop {
            let mut options = OpenOptions::new();
            match options
                .read(true)
                .write(true)
                .custom_flags(flags | exclusive)
                .open(path)
            {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < LOCK_TRIES => {
                    tries += 1;
                    pause();
                }
                result => break result,
            }
        };
        let file = match file {
            Err(e) if way == Way::Direct && e.kind() == io::ErrorKind::InvalidInput => continue,
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(in_use(path)),
            Err(e) => return Err(io_error("open", path, e)),
            Ok(file) => file,
        };
        if !block_device {
            lock(&file, path)?;
            // Who made it may have ended before its name was durable.
            sync_folder(path)?;
        }
        // Some file systems accept the flag and refuse the read.
        if way == Way::Direct && refuses_direct(&file).map_err(|e| io_error("read", path, e))? {
            continue;
        }
        return FileDevice::run(path, file, way, options);
    }
    Err(io_error("open", path, io::ErrorKind::Unsupported.into()))
}

fn refuses_direct(file: &File) -> io::Result<bool> {
    match file.read_at(&mut aligned::zeroed(BLOCK as usize), 0) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(true),
        Err(e) => Err(e),
        Ok(_) => Ok(false),
    }
}

fn lock(file: &File, path: &Path) -> Result<(), Error> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => pause(),
            Err(TryLockError::Error(e)) => return Err(io_error("lock", path, e)),
        }
    }
    Err(in_use(path))
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own, for a lock of the real world"
)]
fn pause() {
    thread::sleep(LOCK_PAUSE);
}

fn device_len(mut file: &File) -> io::Result<u64> {
    io::Seek::seek(&mut file, io::SeekFrom::End(0))
}

#[cfg(target_os = "linux")]
mod platform {
    use std::{fs::File, io, sync::Arc};

    use rustix::{
        fs::{Advice, FallocateFlags, fadvise, fallocate, ioctl_blksszget},
        io::Errno,
    };

    use super::Reservations;

    pub(super) fn reservations(file: &Arc<File>) -> Option<Arc<dyn Reservations>> {
        Some(Arc::new(super::persistent::Persistent(Arc::clone(file))))
    }

    /// Not `O_SYNC`: that also waits for the journal to write the file's new modification time.
    pub(super) fn direct_flags() -> Option<i32> {
        Some(libc::O_DIRECT | libc::O_DSYNC)
    }

    pub(super) fn uncached_flag() -> i32 {
        libc::O_DIRECT
    }

    pub(super) fn exclusive_flag() -> i32 {
        libc::O_EXCL
    }

    /// The logical block size of a block device.
    pub(super) fn sector(file: &File) -> u32 {
        ioctl_blksszget(file).unwrap_or(4096)
    }

    pub(super) fn preallocate(file: &File, len: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            // Filling does the same, later.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Drops clean pages, so that the next read comes from the device: pages of a failed write-back count as clean, and are not what is on disk.
    pub(super) fn forget_cached(file: &File) -> io::Result<()> {
        Ok(fadvise(file, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::{fs::File, io, sync::Arc};

    use super::Reservations;

    pub(super) fn reservations(_: &Arc<File>) -> Option<Arc<dyn Reservations>> {
        None
    }

    pub(super) fn direct_flags() -> Option<i32> {
        None
    }

    pub(super) fn uncached_flag() -> i32 {
        0
    }

    pub(super) fn exclusive_flag() -> i32 {
        0
    }

    pub(super) fn sector(_: &File) -> u32 {
        4096
    }

    pub(super) fn preallocate(_: &File, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn forget_cached(_: &File) -> io::Result<()> {
        Ok(())
    }
}

use platform::{direct_flags, exclusive_flag, forget_cached, reservations, sector};
