//! What came back, a commit at a time, and the start of the next epoch.
//!
//! Until [`start`](Replay::start) the directory is as it was found: a crash before it leaves what the next opening needs.

use std::sync::Arc;

use async_trait::async_trait;
use s3stream::wal::{EpochEnd, Error, Log, Position, Replay, Replayed, Sink};

use super::{
    appends,
    commit_file::{CommitFile, CommitName},
    directory::Directory,
    label::Label,
};

pub(super) struct DirectoryReplay {
    directory: Directory,
    /// As it will be written at the start.
    label: Label,
    capacity: u64,
    files: Vec<CommitName>,
    next: usize,
    ends: Vec<EpochEnd>,
}

impl DirectoryReplay {
    pub(super) fn new(
        directory: Directory,
        label: Label,
        capacity: u64,
        files: Vec<CommitName>,
        ends: Vec<EpochEnd>,
    ) -> Self {
        Self {
            directory,
            label,
            capacity,
            files,
            next: 0,
            ends,
        }
    }
}

#[async_trait]
impl Replay for DirectoryReplay {
    fn ends(&self) -> &[EpochEnd] {
        &self.ends
    }

    fn start_position(&self) -> Position {
        self.label.end
    }

    /// W1: by epoch, then position. A file that the trim divides replays whole; its trimmed records are the caller's to drop (W7).
    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        let Some(name) = self.files.get(self.next) else {
            return Ok(None);
        };
        let commit = CommitFile::read(&self.directory, self.label.identity.log, name)?;
        self.next += 1;
        Ok(Some(commit.replayed()))
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.next = 0;
        Ok(())
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        // What is neither owed nor above a trim: left by an interrupted trim, or of epochs that are retired.
        for name in self.directory.commits()? {
            if self.files.binary_search(&name).is_err() {
                self.directory.remove(&name.to_string())?;
            }
        }
        self.label.write(&self.directory)?;
        appends::start(self.directory, self.label, self.capacity, self.files, sink)
    }
}
