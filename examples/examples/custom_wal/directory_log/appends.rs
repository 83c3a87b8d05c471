//! The log that takes appends, and the one thread that writes.
//!
//! - Group commit: what is appended while a file is being written becomes the next file. An idle log waits for nothing.
//! - One commit is under way at a time, so acknowledgements are in order (W1, W3) and the sink hears one call at a time.
//! - `used = end − tail ≤ capacity`, what waits in memory included: this is the only bound, and [`Log::trim`] the only thing that makes room.

use std::{collections::VecDeque, ops::Range, sync::Arc, thread};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use s3stream::wal::{Error, Identity, Log, LogEpoch, Position, Sink, Usage};
use tokio::sync::watch;

use super::{
    commit_file::{CommitFile, CommitName, HEADER_LEN, LENGTH_LEN},
    directory::{Directory, FILE_BYTES_MAX, io_error},
    label::Label,
};

/// A commit takes no further record past this; a longer record has one of its own.
const COMMIT_BYTES_MAX: usize = 1 << 20;
/// A record and its header fit a file.
const RECORD_BYTES_MAX: u64 = FILE_BYTES_MAX / 2;

#[derive(Debug)]
struct DirectoryAppends {
    shared: Arc<Shared>,
    identity: Identity,
    epoch: LogEpoch,
    capacity: u64,
    /// How the thread ended.
    ended: watch::Receiver<Option<Result<(), Error>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Commits in order; the last still takes records, and the thread takes the first.
    waiting: VecDeque<CommitFile>,
    tail: u64,
    trim: Position,
    durable: Position,
    end: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Open,
    Closing,
    /// Dropped: a crash. Nothing more is written.
    Abandoned,
    Failed(Error),
}

/// Starts the thread; the label is written. `files` are those that replayed.
pub(super) fn start(
    directory: Directory,
    label: Label,
    capacity: u64,
    files: Vec<CommitName>,
    sink: Arc<dyn Sink>,
) -> Result<Arc<dyn Log>, Error> {
    let start = label.end;
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            waiting: VecDeque::new(),
            tail: files.first().map_or(start, |first| first.start).get(),
            trim: Position::default(),
            durable: start,
            end: start.get(),
            phase: Phase::Open,
        }),
        changed: Condvar::new(),
    });
    let (ending, ended) = watch::channel(None);
    let log = DirectoryAppends {
        shared: shared.clone(),
        identity: label.identity.clone(),
        epoch: label.epoch.unwrap_or_default(),
        capacity,
        ended,
    };
    let writer = Writer {
        directory,
        label,
        files: files.into(),
        shared,
        sink,
    };
    thread::Builder::new()
        .name("directory-log".to_owned())
        .spawn(move || writer.run(ending))
        .map_err(|e| io_error("start", "the thread of the log".as_ref(), e))?;
    Ok(Arc::new(log))
}

#[async_trait]
impl Log for DirectoryAppends {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        let max = self.max_record_len();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len == 0 {
            return Err(Error::Invalid("an empty record".to_owned()));
        }
        let Some(record_len) = u32::try_from(len).ok().filter(|_| len <= max) else {
            return Err(Error::TooLarge { len, max });
        };
        let mut state = self.shared.state.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Abandoned => return Err(Error::Closed),
            Phase::Failed(error) => return Err(error.clone()),
        }
        let framed = LENGTH_LEN + len;
        let joins = state
            .waiting
            .back()
            .is_some_and(|last| last.len() + framed <= COMMIT_BYTES_MAX);
        let needed = (framed + if joins { 0 } else { HEADER_LEN }) as u64;
        let free = self.capacity.saturating_sub(state.end - state.tail);
        if needed > free {
            return Err(Error::Full { needed, free });
        }
        if !joins {
            let commit = CommitFile::new(self.identity.log, self.epoch, state.end);
            state.waiting.push_back(commit);
        }
        state.end += needed;
        let last = state
            .waiting
            .back_mut()
            .expect("a commit was there or made");
        let position = last.push(parts, record_len);
        drop(state);
        self.shared.changed.notify_one();
        Ok(position)
    }

    fn trim(&self, to: Position) {
        let mut state = self.shared.state.lock();
        state.trim = state.trim.max(to.min(state.durable));
        drop(state);
        self.shared.changed.notify_one();
    }

    fn usage(&self) -> Usage {
        let state = self.shared.state.lock();
        Usage {
            capacity: self.capacity,
            used: state.end - state.tail,
            queue_capacity: u64::MAX,
            overhead: (HEADER_LEN + LENGTH_LEN) as u64,
            ..Usage::default()
        }
    }

    fn max_record_len(&self) -> usize {
        (self.capacity / 4).min(RECORD_BYTES_MAX) as usize
    }

    fn durable_end(&self) -> Position {
        self.shared.state.lock().durable
    }

    async fn close(&self) -> Result<(), Error> {
        {
            let mut state = self.shared.state.lock();
            if matches!(state.phase, Phase::Open) {
                state.phase = Phase::Closing;
            }
        }
        self.shared.changed.notify_one();
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        // The thread says how it ended unless a sink panicked.
        ended.map_or(Err(Error::Closed), |how| how.clone().unwrap_or(Ok(())))
    }
}

impl Drop for DirectoryAppends {
    fn drop(&mut self) {
        self.shared.state.lock().phase = Phase::Abandoned;
        self.shared.changed.notify_one();
    }
}

enum Work {
    Write(CommitFile),
    Remove(Position),
    Close,
    Abandon,
}

impl Shared {
    /// Waits for something to do. `first_end` is where the first file ends.
    fn next(&self, first_end: Option<Position>) -> Work {
        let mut state = self.state.lock();
        loop {
            if matches!(state.phase, Phase::Abandoned) {
                return Work::Abandon;
            }
            if first_end.is_some_and(|end| end <= state.trim) {
                return Work::Remove(state.trim);
            }
            if let Some(commit) = state.waiting.pop_front() {
                return Work::Write(commit);
            }
            if matches!(state.phase, Phase::Closing) {
                return Work::Close;
            }
            self.changed.wait(&mut state);
        }
    }
}

/// The thread: it alone touches the directory, and holds the lock until it ends.
struct Writer {
    directory: Directory,
    label: Label,
    files: VecDeque<CommitName>,
    shared: Arc<Shared>,
    sink: Arc<dyn Sink>,
}

impl Writer {
    fn run(mut self, ending: watch::Sender<Option<Result<(), Error>>>) {
        let result = loop {
            let done = match self.shared.next(self.files.front().map(CommitName::end)) {
                Work::Write(commit) => self.write(commit),
                Work::Remove(to) => self.remove(to),
                Work::Close => break self.close(),
                Work::Abandon => return,
            };
            if done.is_err() {
                break done;
            }
        };
        let Self {
            directory,
            shared,
            sink,
            ..
        } = self;
        let result = result.map_err(|error| {
            // W6: whether it is on the disk is not known any more, and it is not tried again.
            let failed = Error::Failed {
                cause: Arc::new(error),
            };
            shared.state.lock().phase = Phase::Failed(failed.clone());
            failed
        });
        // Given back before anyone hears of the end: whoever does may open it again.
        drop(directory);
        if let Err(error) = &result {
            sink.failed(error);
        }
        ending.send_replace(Some(result));
    }

    fn write(&mut self, mut commit: CommitFile) -> Result<(), Error> {
        let name = commit.name();
        self.directory.write(&name.to_string(), commit.sealed())?;
        // W2: durable, and only now acknowledged. No lock is held while the sink is told: it may append and trim.
        self.shared.state.lock().durable = name.end();
        self.files.push_back(name);
        self.sink.durable(commit.durable());
        Ok(())
    }

    /// Gives up whole files; one that the trim divides stays. The caller has recorded the trim (W7): a file that comes back is not looked at.
    fn remove(&mut self, to: Position) -> Result<(), Error> {
        while let Some(first) = self.files.front().filter(|first| first.end() <= to) {
            self.directory.remove(&first.to_string())?;
            self.files.pop_front();
        }
        {
            let mut state = self.shared.state.lock();
            let tail = self
                .files
                .front()
                .map_or(state.durable, |first| first.start);
            state.tail = tail.get();
        }
        self.sink.room();
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.label.end = self.shared.state.lock().durable;
        self.label.closed = self.files.is_empty();
        self.label.write(&self.directory)
    }
}
