//! Compare-and-swap on a local directory, which has no conditional update: a lock file, a synced temporary file, a rename, a synced directory.
//!
//! The lock is the kernel's (`flock`), so a process that dies gives it up. What `Swapped` says is durable.
//! Two hosts may share the directory only if its file system carries `flock` between them.

#![allow(
    clippy::disallowed_methods,
    reason = "file operations block: they run on the runtime's blocking threads, as object_store's own do; the simulator uses a store in memory"
)]

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;

use super::{Swap, Tag};
use crate::{Error, Result};

/// Another process holds the lock for one small write; longer than this it is stopped or stuck.
const LOCK_TRIES: u32 = 2000;
const LOCK_WAIT: Duration = Duration::from_millis(1);

/// A directory whose files can be swapped.
#[derive(Debug)]
pub(super) struct LocalSwap {
    root: PathBuf,
}

/// Makes a directory and everything on the way to it, durably. `what` it is for, an error says.
pub(super) fn create_dir(what: &str, dir: &Path) -> Result<()> {
    make_dirs(dir).map_err(|error| {
        Error::invalid(what)
            .with("dir", dir.display())
            .caused_by(error)
    })
}

impl LocalSwap {
    pub(super) fn new(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(|error| {
            Error::invalid("directory of the bucket")
                .with("dir", root.display())
                .caused_by(error)
        })?;
        Ok(Self { root })
    }

    pub(super) async fn swap(
        &self,
        path: &object_store::path::Path,
        expected: Option<&Tag>,
        bytes: Bytes,
    ) -> Result<Swap> {
        let target = path
            .parts()
            .fold(self.root.clone(), |dir, part| dir.join(part.as_ref()));
        let (expected, name) = (expected.cloned(), path.to_string());
        // A caller that goes away leaves the swap to finish: like a request that was sent.
        let swap =
            tokio::task::spawn_blocking(move || swap_file(&target, expected.as_ref(), &bytes));
        match swap.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Failed::Before(error))) => Err(Error::unavailable("swap file")
                .with("path", name)
                .caused_by(error)),
            Ok(Err(Failed::After(error))) => Ok(Swap::Unknown(
                Error::unavailable("swap file")
                    .with("path", name)
                    .caused_by(error),
            )),
            Err(error) => Ok(Swap::Unknown(
                Error::unavailable("swap file")
                    .with("path", name)
                    .caused_by(error),
            )),
        }
    }
}

/// Whether the rename may have happened.
enum Failed {
    Before(io::Error),
    After(io::Error),
}

fn swap_file(target: &Path, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, Failed> {
    let dir = target
        .parent()
        .ok_or_else(|| Failed::Before(io::ErrorKind::InvalidInput.into()))?;
    make_dirs(dir).map_err(Failed::Before)?;
    let lock = open_lock(&with_suffix(target, ".lock")).map_err(Failed::Before)?;
    take_lock(&lock).map_err(Failed::Before)?;
    // From here to the end of the function nobody else swaps this file.
    let current = match fs::read(target) {
        Ok(found) => Some(Tag::of_content(&found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failed::Before(error)),
    };
    let ours = Tag::of_content(bytes);
    if current.as_ref() == Some(&ours) {
        // An earlier attempt renamed and could not sync: no content occurs twice, so it is this one's.
        sync_dir(dir).map_err(Failed::After)?;
        return Ok(Swap::Swapped(ours));
    }
    if current.as_ref() != expected {
        return Ok(Swap::Conflict);
    }
    // The form that the local store hides from listings; one name is enough under the lock.
    let temporary = with_suffix(target, "#1");
    write_synced(&temporary, bytes).map_err(Failed::Before)?;
    fs::rename(&temporary, target).map_err(Failed::After)?;
    sync_dir(dir).map_err(Failed::After)?;
    Ok(Swap::Swapped(ours))
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

fn take_lock(lock: &File) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "another process holds the lock and does not finish",
    ))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a file and its name durable.
pub(super) async fn sync_entry(file: PathBuf) -> io::Result<()> {
    let sync = move || {
        File::open(&file)?.sync_all()?;
        file.parent().map_or(Ok(()), sync_dir)
    };
    let synced = tokio::task::spawn_blocking(sync).await;
    synced.map_err(io::Error::other)?
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// `create_dir_all`, with every directory that got a new entry synced.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
        _ => sync_dir(parent.unwrap_or(Path::new("."))),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
