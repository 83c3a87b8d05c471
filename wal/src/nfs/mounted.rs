//! A mounted directory: blocking calls on a few threads of its own.
//!
//! - A write is one `pwrite` with `O_DIRECT | O_DSYNC`, or one `pwrite` and one `fdatasync` where the file system refuses `O_DIRECT`. Over NFS both end
//!   with a COMMIT or a stable write, so an answer means that the server has it for good; `EIO`, `ENOSPC`, `EDQUOT` and `ESTALE` of a write-back are seen.
//! - A file is opened anew for each opening of a log (close-to-open), and its cached pages are dropped where `O_DIRECT` is refused.
//! - No file is mapped: an I/O error would be a signal.
//!
//! Its threads end when it and its files are dropped; what was asked for before that is still done.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Directory, DirectoryFile, Guard, look::failed, names::GUARD, threads::Threads};
use crate::{
    Error,
    block::{ReadDone, WriteDone, aligned, ring::BLOCK, syncs::Syncs},
};

/// Zeros written at once when a file is made.
const FILL_BYTES: usize = 1 << 20;
/// A previous owner that is just ending gives the lock back within this many tries, [`LOCK_PAUSE`] apart.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A directory of a mounted file system.
#[derive(Clone, Debug)]
pub struct MountedDirectory {
    path: PathBuf,
    direct: bool,
    threads: Threads,
}

impl MountedDirectory {
    /// The directory at `path`. `direct` asks for `O_DIRECT`; `threads` operations may be under way at once.
    ///
    /// # Errors
    /// `Io` if there is none; it is never made, so that a mount point without its mount is noticed.
    pub async fn open(path: &Path, direct: bool, threads: usize) -> Result<Self, Error> {
        let threads = Threads::start("wal-nfs", threads)
            .map_err(|e| failed("start a thread for", &path.display().to_string(), e))?;
        let directory = Self {
            path: path.to_owned(),
            direct,
            threads,
        };
        let at = path.to_owned();
        let kind = directory.run(move || fs::metadata(&at)).await;
        match kind {
            Ok(metadata) if metadata.is_dir() => Ok(directory),
            Ok(_) => Err(failed(
                "open directory",
                &path.display().to_string(),
                io::ErrorKind::NotADirectory.into(),
            )),
            Err(e) => Err(failed("open directory", &path.display().to_string(), e)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = oneshot::channel();
        self.threads.send(move || {
            // The caller may have stopped waiting.
            let _ = tell.send(work());
        });
        told.await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

#[async_trait]
impl Directory for MountedDirectory {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        let path = self.path.clone();
        self.run(move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.extend(entry?.file_name().into_string().ok());
            }
            Ok(names)
        })
        .await
    }

    async fn create(&self, name: &str, len: u64, at: u64, data: Bytes) -> io::Result<()> {
        let path = self.path.join(name);
        self.run(move || {
            let file = OpenOptions::new().write(true).create_new(true).open(path)?;
            fill(&file, len)?;
            file.write_all_at(&data, at)?;
            file.sync_all()
        })
        .await
    }

    async fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        self.run(move || fs::hard_link(from, to)).await
    }

    async fn links(&self, name: &str) -> io::Result<u64> {
        let path = self.path.join(name);
        // Opening asks the server; a stat may be answered from a cache.
        self.run(move || Ok(File::open(path)?.metadata()?.nlink()))
            .await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        self.run(move || fs::remove_file(path)).await
    }

    async fn sync(&self) -> io::Result<()> {
        let path = self.path.clone();
        self.run(move || match File::open(path)?.sync_all() {
            // Where a directory cannot be synced its server makes names durable before it answers.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            result => result,
        })
        .await
    }

    async fn open(&self, name: &str) -> io::Result<Arc<dyn DirectoryFile>> {
        let (path, direct) = (self.path.join(name), self.direct);
        let threads = self.threads.clone();
        self.run(move || {
            let (file, direct) = open(&path, direct)?;
            let len_bytes = file.metadata()?.len();
            Ok(Arc::new(MountedFile {
                file: Arc::new(file),
                direct,
                syncs: Arc::default(),
                len_bytes,
                threads,
            }) as Arc<dyn DirectoryFile>)
        })
        .await
    }

    async fn guard(&self) -> io::Result<Option<Guard>> {
        let path = self.path.join(GUARD);
        self.run(move || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            for _ in 0..LOCK_TRIES {
                match file.try_lock() {
                    Ok(()) => return Ok(Some(Box::new(file) as Guard)),
                    Err(TryLockError::WouldBlock) => pause(),
                    // No lock service: this directory cannot tell.
                    Err(TryLockError::Error(error)) => {
                        tracing::info!(%error, "no locks here");
                        return Ok(Some(Box::new(()) as Guard));
                    }
                }
            }
            Ok(None)
        })
        .await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own, for a lock of the real world"
)]
fn pause() {
    thread::sleep(LOCK_PAUSE);
}

/// Opens for durable writes: direct ones where that is asked for and can be.
fn open(path: &Path, direct: bool) -> io::Result<(File, bool)> {
    if let Some(flags) = direct_flags().filter(|_| direct) {
        let mut options = OpenOptions::new();
        match options
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
        {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
            Err(e) => return Err(e),
            // Some file systems accept the flag and refuse the read.
            Ok(file) => match file.read_at(&mut aligned::zeroed(BLOCK as usize), 0) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                Err(e) => return Err(e),
                Ok(_) => return Ok((file, true)),
            },
        }
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    forget_cached(&file)?;
    Ok((file, false))
}

/// Writes zeros: a file that grows with each write costs the server more, and has no room kept for it.
fn fill(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(FILL_BYTES)];
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at)
            .unwrap_or(usize::MAX)
            .min(FILL_BYTES);
        file.write_all_at(zeros.get(..piece).unwrap_or(&zeros), at)?;
        at += piece as u64;
    }
    Ok(())
}

/// An open file.
#[derive(Debug)]
struct MountedFile {
    file: Arc<File>,
    direct: bool,
    /// Of the threads that share the file.
    syncs: Arc<Syncs>,
    len_bytes: u64,
    threads: Threads,
}

impl MountedFile {
    fn bounds(&self, at: u64, len: usize) -> io::Result<()> {
        if at
            .checked_add(len as u64)
            .is_some_and(|end| end <= self.len_bytes)
        {
            return Ok(());
        }
        let text = format!("{len} bytes at {at} of {}", self.len_bytes);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

impl DirectoryFile for MountedFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let (file, syncs) = (Arc::clone(&self.file), Arc::clone(&self.syncs));
        let (direct, fits) = (self.direct, self.bounds(at, data.len()));
        let job = move || {
            done(fits.and_then(|()| match direct {
                true if !aligned::is_aligned(&data) => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "unaligned memory",
                )),
                true => file.write_all_at(&data, at),
                false => {
                    file.write_all_at(&data, at)?;
                    syncs.run(|| file.sync_data())
                }
            }));
        };
        self.threads.send(job);
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let (file, fits) = (Arc::clone(&self.file), self.bounds(at, len));
        let job = move || {
            done(fits.and_then(|()| {
                let mut buffer = aligned::zeroed(len);
                file.read_exact_at(&mut buffer, at)?;
                Ok(buffer.freeze())
            }));
        };
        self.threads.send(job);
    }
}

#[cfg(target_os = "linux")]
fn direct_flags() -> Option<i32> {
    Some(libc::O_DIRECT | libc::O_DSYNC)
}

/// Drops clean pages, so that a read asks the server.
#[cfg(target_os = "linux")]
fn forget_cached(file: &File) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn direct_flags() -> Option<i32> {
    None
}

#[cfg(not(target_os = "linux"))]
fn forget_cached(_: &File) -> io::Result<()> {
    Ok(())
}
