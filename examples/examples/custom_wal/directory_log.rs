//! A write-ahead log in a directory: one file per commit, named by its epoch and its position.
//!
//! - `tail ≤ trim ≤ durable ≤ end`; the commits of an epoch lie back to back.
//! - A file appears under its name only after its bytes were synced, is acknowledged only after the name was synced, and the next one is begun only
//!   after that. So there is no torn tail: a file that is there is whole, or damaged; one that is missing between two others is `Corrupt` (F0).
//!
//! What it does not do: keep out another host (the lock on the directory is known to this host alone: no NFS, no shared volume), write past the page
//! cache, overlap commits, or spare the runtime's threads while it opens and replays. It cannot tell that the very last file was removed by hand, unless
//! the log was closed or its end recorded since. Two syncs a commit make it slower than `wal::block`.

mod appends;
mod commit_file;
mod directory;
mod label;
mod replay;

use std::path::PathBuf;

use async_trait::async_trait;
use s3stream::wal::{
    Admission, Backend, EpochEnd, Error, Found, LogState, LogUuid, Position, Replay, admit,
};

use self::{
    commit_file::{CommitFile, CommitName},
    directory::Directory,
    label::Label,
    replay::DirectoryReplay,
};

/// A place for a log: a directory that exists and holds nothing else. At most `capacity` bytes are kept there, and as many in memory.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryLog {
    path: PathBuf,
    capacity: u64,
}

impl DirectoryLog {
    pub(crate) fn new(path: impl Into<PathBuf>, capacity: u64) -> Self {
        Self {
            path: path.into(),
            capacity,
        }
    }
}

#[async_trait]
impl Backend for DirectoryLog {
    fn url(&self) -> String {
        format!("directory:{}", self.path.display())
    }

    /// Takes the lock for a moment: whoever may not have the log must learn so here, before it registers and fences the owner.
    async fn identify(&self) -> Result<Found, Error> {
        let directory = Directory::lock(&self.path).await?;
        Ok(match Label::read(&directory)? {
            None => Found::Blank,
            Some(label) if label.closed => Found::Closed(label.identity),
            Some(label) => Found::Live(label.identity),
        })
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        state.validate()?;
        // W5: a former owner holds the lock until its last commit is told or given up; from here on it acknowledges nothing.
        let directory = Directory::lock(&self.path).await?;
        let found = Label::read(&directory)?;
        let claim = found.as_ref().map(Label::claim);
        let label = match (admit(&self.url(), claim.as_ref(), state)?, found) {
            (Admission::Resume, Some(label)) => label,
            _ => make(&directory, state)?,
        };
        let log = label.identity.log;
        let (files, ends) = scan(&directory, log, state)?;
        if let Some(last) = files.last() {
            // W8. The name of the last file may never have been synced, and a sync that failed is not asked again (W6): it is written anew.
            let bytes = CommitFile::read(&directory, log, last)?.into_bytes();
            directory.write(&last.to_string(), &bytes)?;
        }
        let start = ends.last().map_or(label.end, |last| last.end);
        if start < label.end {
            let what = format!(
                "the end, though the log was closed or started at {}",
                label.end
            );
            return Err(Error::Corrupt {
                position: start,
                what,
            });
        }
        Ok(Box::new(DirectoryReplay::new(
            directory,
            Label {
                epoch: Some(state.epoch),
                closed: false,
                end: start,
                ..label
            },
            self.capacity,
            files,
            ends,
        )))
    }
}

/// Makes a new log where nothing is owed. It says so of itself until it is started, so that a crash between the two leaves a place that opens.
fn make(directory: &Directory, state: &LogState) -> Result<Label, Error> {
    for name in directory.commits()? {
        directory.remove(&name.to_string())?;
    }
    directory.sync()?;
    let label = Label {
        identity: state.identity.clone(),
        epoch: None,
        closed: true,
        end: Position::default(),
    };
    label.write(directory)?;
    directory.sync_parent()?;
    Ok(label)
}

/// The files that `state` says are owed, every byte checked, and where their epochs end.
fn scan(
    directory: &Directory,
    log: LogUuid,
    state: &LogState,
) -> Result<(Vec<CommitName>, Vec<EpochEnd>), Error> {
    let all = directory.commits()?;
    let (mut files, mut ends) = (Vec::new(), Vec::new());
    for owed in state.started() {
        let mut end = owed.trim;
        // W7: what lies below the trim is not looked at.
        let above = all
            .iter()
            .filter(|name| name.epoch == owed.epoch && name.end() > owed.trim);
        for (index, name) in above.enumerate() {
            // The first may begin below the trim, never above it.
            if name.start > end || (index > 0 && name.start < end) {
                let what = format!("epoch {}: the next commit is at {}", owed.epoch, name.start);
                return Err(Error::Corrupt {
                    position: end,
                    what,
                });
            }
            CommitFile::read(directory, log, name)?;
            end = name.end();
            files.push(name.clone());
        }
        // F2, W8: neither what was known to be durable nor what was sealed may be gone, nor may there be more than was sealed.
        let sealed = owed.sealed_end.unwrap_or(end);
        if end != sealed || end < owed.durable_end {
            let what = format!(
                "epoch {} ends here; sealed at {sealed}, durable to {}",
                owed.epoch, owed.durable_end
            );
            return Err(Error::Corrupt {
                position: end,
                what,
            });
        }
        ends.push(EpochEnd {
            epoch: owed.epoch,
            end,
        });
    }
    Ok((files, ends))
}
