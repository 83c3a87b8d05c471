//! An opened object log before it takes appends: what it replays, and how it starts.
//!
//! - A replay reads exactly the objects that the opening settled, as often as it is asked; what is not there any more is `Corrupt`.
//! - It reads ahead at most `replay_bytes` and `replay_gets` objects, and hands out pieces of some MiB. Each is read by a task of its own, which
//!   goes on while nobody asks for the next piece, and ends with the replay.
//! - Nothing is put before [`start`](Replay::start); then the mark of the start, before the first append.

use std::{collections::VecDeque, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{
    appends::Appends,
    driver::{Core, Driver},
    fence::{Extent, flawed, read},
    folder::{Folder, Name},
    format::{Flaw, HEADER_LEN, Header, Kind, PREFIX_LEN, position_of},
    listing::decode_mark,
    mark::{Event, Mark},
    pipeline::{Author, Kept, Pipeline},
    put::Settled,
};
use crate::{EpochEnd, Error, Log, LogEpoch, Position, Replay, Replayed, Sink};

/// A replay hands out pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Marks of lower epochs that may have come since the opening.
const MARKS_PASSED: usize = 64;

/// An object that is being read, for as long as somebody wants it.
struct Reading(JoinHandle<Result<(Header, u32, Bytes), Error>>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The replay of an object log.
pub(crate) struct ObjectReplay {
    folder: Folder,
    author: Author,
    start: u64,
    ends: Vec<EpochEnd>,
    /// What replays, in order.
    objects: Vec<Kept>,
    /// The number of the newest mark.
    mark: u64,
    garbage: Vec<Name>,
    /// The next object to ask for.
    next: usize,
    /// The next object to hand out.
    out: usize,
    reading: VecDeque<Reading>,
    reading_bytes: u64,
    /// Checksum of the object handed out last.
    predecessor: Option<(LogEpoch, u32)>,
    ready: VecDeque<Replayed>,
}

impl fmt::Debug for ObjectReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReplay")
            .field("author", &self.author)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl ObjectReplay {
    pub(crate) fn new(
        folder: Folder,
        author: Author,
        start: u64,
        extents: Vec<Extent>,
        mark: u64,
        garbage: Vec<Name>,
    ) -> Self {
        let ends = extents.iter().map(|extent| EpochEnd {
            epoch: extent.epoch,
            end: Position::new(extent.end),
        });
        let objects = extents.iter().flat_map(|extent| {
            let objects = extent.objects.iter();
            objects.map(|(number, len)| Kept {
                epoch: extent.epoch,
                number: *number,
                len: *len,
            })
        });
        Self {
            ends: ends.collect(),
            objects: objects.collect(),
            folder,
            author,
            start,
            mark,
            garbage,
            next: 0,
            out: 0,
            reading: VecDeque::new(),
            reading_bytes: 0,
            predecessor: None,
            ready: VecDeque::new(),
        }
    }

    fn read_ahead(&mut self) {
        while let Some(object) = self.objects.get(self.next).copied() {
            let fits = self.reading.len() < self.folder.config.replay_gets
                && self.reading_bytes + object.len <= self.folder.config.replay_bytes as u64;
            if !fits && !self.reading.is_empty() {
                return;
            }
            let (folder, identity) = (self.folder.clone(), self.author.identity.clone());
            let reading =
                async move { read(&folder, &identity, (object.epoch, object.number)).await };
            self.reading.push_back(Reading(tokio::spawn(reading)));
            self.reading_bytes += object.len;
            self.next += 1;
        }
    }

    /// Reads the next object into `ready`; whether there was one.
    async fn object(&mut self) -> Result<bool, Error> {
        self.read_ahead();
        let Some(object) = self.objects.get(self.out).copied() else {
            return Ok(false);
        };
        let Some(Reading(read)) = self.reading.front_mut() else {
            return Ok(false);
        };
        // It stays in front until it is there: a caller that gives up here may ask again.
        let read = read.await.unwrap_or_else(|ended| {
            let (log, at) = (self.author.identity.log, (object.epoch, object.number));
            let path = self.folder.path(Name::Object(log, at.0, at.1));
            Err(self.folder.io("read", &path, std::io::Error::other(ended)))
        });
        self.reading.pop_front();
        self.reading_bytes -= object.len;
        self.out += 1;
        let (header, crc, bytes) = read?;
        let records = self.check(&object, &header, &bytes);
        let at = (object.epoch, object.number);
        let records =
            records.map_err(|flaw| flawed(&self.folder, &self.author.identity, at, flaw))?;
        self.predecessor = Some((object.epoch, crc));
        let shares = records.into_iter().enumerate().map(|(i, (at, payload))| {
            let len = PREFIX_LEN + payload.len();
            Replayed {
                epoch: object.epoch,
                position: Position::new(at)..Position::new(at + len as u64),
                payload,
                footprint: len + if i == 0 { HEADER_LEN } else { 0 },
            }
        });
        self.ready.extend(shares);
        Ok(true)
    }

    /// The object's records, if it is the one that was settled and follows the one before it.
    fn check(
        &self,
        object: &Kept,
        header: &Header,
        bytes: &Bytes,
    ) -> Result<Vec<(u64, Bytes)>, Flaw> {
        if header.kind != Kind::Commit {
            return Err(Flaw::Kind);
        }
        let (found, expected) = (header.end(), position_of(object.number) + object.len);
        if found != expected {
            return Err(Flaw::End { found, expected });
        }
        match self.predecessor {
            Some((epoch, expected)) if epoch == object.epoch && expected != header.predecessor => {
                let found = header.predecessor;
                return Err(Flaw::Predecessor { found, expected });
            }
            _ => {}
        }
        header.records(bytes)
    }

    /// Marks the start after the newest mark; the number of the mark.
    async fn mark_start(&mut self) -> Result<u64, Error> {
        let mark = Mark {
            event: Event::Started,
            identity: self.author.identity.clone(),
            epoch: self.author.epoch,
            position: self.start,
            incarnation: self.author.incarnation,
        };
        let first = self.mark + 1;
        for number in (first..).take(MARKS_PASSED) {
            let path = self.folder.path(Name::Mark(number));
            let found = match self.folder.put_patiently(&path, &mark.encode()).await? {
                Settled::Ours => return Ok(number),
                Settled::Theirs(found) => found,
            };
            let other = decode_mark(&self.folder, number, &found)?;
            // Of an owner that was fenced before: it closed, or started late.
            if other.epoch >= mark.epoch || other.identity.log != mark.identity.log {
                let by = format!("epoch {} of {}", other.epoch, other.identity);
                return Err(Error::Fenced { by });
            }
            // Then the mark that this opening knew was older than it seemed, and so is where it would begin.
            if other.position > mark.position {
                return Err(Error::Mismatch {
                    place: self.folder.place.to_string(),
                    found: format!("epoch {} at position {}", other.epoch, other.position),
                    expected: format!("nothing above position {}", mark.position),
                });
            }
        }
        let path = self.folder.path(Name::Mark(first));
        let many = std::io::Error::other("others keep marking starts of lower epochs");
        Err(self.folder.io("mark", &path, many))
    }
}

#[async_trait]
impl Replay for ObjectReplay {
    fn ends(&self) -> &[EpochEnd] {
        &self.ends
    }

    fn start_position(&self) -> Position {
        Position::new(self.start)
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        while self.ready.is_empty() && self.object().await? {}
        let mut bytes = 0;
        let mut piece = Vec::new();
        while let Some(record) = self.ready.pop_front() {
            bytes += record.footprint;
            if !piece.is_empty() && bytes > PIECE_BYTES {
                self.ready.push_front(record);
                break;
            }
            piece.push(record);
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.reading.clear();
        (self.next, self.out, self.reading_bytes) = (0, 0, 0);
        self.predecessor = None;
        self.ready.clear();
        Ok(())
    }

    async fn start(mut self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        self.rewind().await?;
        let mark = self.mark_start().await?;
        let pipeline = Pipeline::new(
            Arc::clone(&self.folder.config),
            self.author.clone(),
            self.start,
            self.objects.into(),
            self.garbage,
        );
        let core = Arc::new(Core {
            live: Mutex::new(pipeline),
            wake: Notify::new(),
            ended: watch::Sender::new(None),
        });
        let driver = Driver {
            core: Arc::clone(&core),
            folder: self.folder,
            author: self.author,
            sink,
            mark,
        };
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Arc::new(Appends { core, task }))
    }
}
