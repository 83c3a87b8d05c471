//! A directory in exclusive use, and its files: written whole and durably, or not at all.
//!
//! Nothing that failed is tried again (W6); every error names the operation and the file.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use s3stream::wal::Error;

use super::commit_file::CommitName;

/// Where a file is written before it has its name.
const DRAFT: &str = "draft";
/// No file of the log is larger.
pub(super) const FILE_BYTES_MAX: u64 = 32 << 20;
/// A former owner that is just ending gives the lock back within so many tries, this far apart.
const LOCK_TRIES: usize = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Dropping it gives the lock back.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: File,
}

impl Directory {
    /// Waits a moment for a former owner.
    pub(super) async fn lock(path: &Path) -> Result<Self, Error> {
        let handle = File::open(path).map_err(|e| io_error("open", path, e))?;
        for _ in 0..LOCK_TRIES {
            match handle.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        path: path.to_owned(),
                        handle,
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(e)) => return Err(io_error("lock", path, e)),
            }
        }
        Err(Error::InUse {
            place: path.display().to_string(),
            by: "another process, or another log of this one".to_owned(),
        })
    }

    /// Writes a file. When this returns it is durable under its name; after an error it may or may not be there, but never in part.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (draft, path) = (self.path.join(DRAFT), self.path.join(name));
        let mut file = File::create(&draft).map_err(|e| io_error("create", &draft, e))?;
        file.write_all(bytes)
            .map_err(|e| io_error("write", &draft, e))?;
        file.sync_data().map_err(|e| io_error("sync", &draft, e))?;
        fs::rename(&draft, &path).map_err(|e| io_error("rename to", &path, e))?;
        self.sync()
    }

    /// The bytes of a file, if there is one.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        let len = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|e| io_error("stat", &path, e))?.len(),
        };
        if len > FILE_BYTES_MAX {
            let why = format!("{len} bytes, at most {FILE_BYTES_MAX} are written");
            return Err(io_error("read", &path, io::Error::other(why)));
        }
        fs::read(&path)
            .map(Some)
            .map_err(|e| io_error("read", &path, e))
    }

    /// Removes a file. It may come back after a power cut: whoever reads must not mind.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))
    }

    /// The commits that are there, by epoch and position. Other files are not looked at.
    pub(super) fn commits(&self) -> Result<Vec<CommitName>, Error> {
        let refused = |e| io_error("list", &self.path, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(refused)? {
            let entry = entry.map_err(refused)?;
            let len = entry.metadata().map_err(refused)?.len();
            let name = entry.file_name();
            found.extend(name.to_str().and_then(|name| CommitName::parse(name, len)));
        }
        found.sort();
        Ok(found)
    }

    /// Makes names durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.handle
            .sync_all()
            .map_err(|e| io_error("sync", &self.path, e))
    }

    /// Makes the directory's own name durable.
    pub(super) fn sync_parent(&self) -> Result<(), Error> {
        let parent = self.path.join("..");
        File::open(&parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|e| io_error("sync", &parent, e))
    }
}

pub(super) fn io_error(op: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Io {
        op,
        place: path.display().to_string(),
        source: Arc::new(error),
    }
}
