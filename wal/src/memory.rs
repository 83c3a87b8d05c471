//! The reference log: the contract in the fewest lines, in memory that clones share.
//!
//! - `tail ≤ trim ≤ acknowledged ≤ end`; records lie back to back, without headers or padding.
//! - An opening fences the log that was live before it (W5): what that one had not acknowledged by then, it never acknowledges.
//!
//! It is as lasting as its last clone. The knobs ([`MemoryLog::hold`], [`MemoryLog::fail`], [`MemoryLog::forget_unacknowledged`]) are for the tests
//! of whoever builds on a log.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Backend, Commit, Durable, EpochEnd, Error, Found, Identity, Log, LogEpoch, LogState, Position,
    Replay, Replayed, Sink, Usage,
    admission::{Admission, Claim, admit},
};

const PLACE: &str = "memory:";
const CAPACITY_DEFAULT: u64 = 1 << 30;
const RECORD_LEN_MAX: usize = 32 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// A log in memory. Clones share the content, so a clone is what a restarted process would find.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    content: Arc<Mutex<Content>>,
    /// Wakes the task that acknowledges. Carries nothing; every change of `content` that it must see is followed by a send.
    changed: Arc<watch::Sender<()>>,
    capacity: u64,
}

#[derive(Debug, Default)]
struct Content {
    identity: Option<Identity>,
    epoch: Option<LogEpoch>,
    closed: bool,
    /// Counts openings. A log that holds a lower number is fenced.
    holder: u64,
    fenced_by: Option<LogEpoch>,
    records: VecDeque<Record>,
    tail: u64,
    acknowledged: u64,
    end: u64,
    room: bool,
    held: bool,
    failure: Option<Error>,
    forgets: bool,
}

#[derive(Clone, Debug)]
struct Record {
    epoch: LogEpoch,
    position: Range<Position>,
    payload: Bytes,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// A blank place of 1 GiB.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY_DEFAULT)
    }

    /// A blank place of `capacity` bytes.
    pub fn with_capacity(capacity: u64) -> Self {
        Self {
            content: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
            capacity,
        }
    }

    /// Holds acknowledgements back until [`release`](Self::release).
    pub fn hold(&self) {
        self.content.lock().held = true;
    }

    /// Lets acknowledgements go on.
    pub fn release(&self) {
        self.content.lock().held = false;
        self.changed.send_replace(());
    }

    /// Makes the live log fail with `cause` (W6). What was not acknowledged by now stays so, and may replay.
    pub fn fail(&self, cause: Error) {
        self.content.lock().failure = Some(Error::Failed {
            cause: Arc::new(cause),
        });
        self.changed.send_replace(());
    }

    /// Whether an opening drops what was never acknowledged, as a power cut may (W2). It keeps it by default.
    pub fn forget_unacknowledged(&self, forgets: bool) {
        self.content.lock().forgets = forgets;
    }
}

#[async_trait]
impl Backend for MemoryLog {
    fn url(&self) -> String {
        PLACE.to_owned()
    }

    async fn identify(&self) -> Result<Found, Error> {
        let content = self.content.lock();
        Ok(match &content.identity {
            None => Found::Blank,
            Some(identity) if content.closed => Found::Closed(identity.clone()),
            Some(identity) => Found::Live(identity.clone()),
        })
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        state.validate()?;
        let mut content = self.content.lock();
        let claim = content.identity.clone().map(|identity| Claim {
            identity,
            epoch: content.epoch,
            closed: content.closed,
        });
        let admission = admit(PLACE, claim.as_ref(), state)?;
        if admission == Admission::Make {
            *content = Content {
                identity: Some(state.identity.clone()),
                closed: true,
                holder: content.holder,
                held: content.held,
                forgets: content.forgets,
                ..Content::default()
            };
        }
        content.holder += 1;
        content.fenced_by = Some(state.epoch);
        if content.forgets {
            let acknowledged = content.acknowledged;
            content
                .records
                .retain(|r| r.position.end.get() <= acknowledged);
            content.end = acknowledged;
        } else {
            content.acknowledged = content.end;
        }
        let (records, ends) = content.scan(state)?;
        let replay = MemoryReplay {
            holder: content.holder,
            start: Position::new(content.end),
            place: self.clone(),
            epoch: state.epoch,
            records,
            next: 0,
            ends,
        };
        drop(content);
        self.changed.send_replace(());
        Ok(Box::new(replay))
    }
}

impl Content {
    /// The records that `state` says are owed, and where their epochs end.
    fn scan(&self, state: &LogState) -> Result<(Vec<Record>, Vec<EpochEnd>), Error> {
        let mut records = Vec::new();
        let mut ends = Vec::new();
        for owed in state.started() {
            let of_epoch = self
                .records
                .iter()
                .filter(|r| r.epoch == owed.epoch && r.position.end > owed.trim);
            let mut end = owed.trim;
            for record in of_epoch {
                if record.position.start > end {
                    return Err(missing(end, "a gap"));
                }
                end = record.position.end;
                records.push(record.clone());
            }
            if owed.sealed_end.is_some_and(|sealed| sealed != end) || end < owed.durable_end {
                return Err(missing(end, "the end, though more was durable"));
            }
            ends.push(EpochEnd {
                epoch: owed.epoch,
                end,
            });
        }
        Ok((records, ends))
    }

    /// Why the log that opened as `holder` takes nothing.
    fn refuses(&self, holder: u64) -> Option<Error> {
        if self.holder != holder {
            let by = self.fenced_by.unwrap_or_default();
            return Some(Error::Fenced {
                by: format!("epoch {by}"),
            });
        }
        self.failure.clone()
    }
}

fn missing(position: Position, what: &str) -> Error {
    Error::Corrupt {
        position,
        what: format!("{PLACE} {what}"),
    }
}

#[derive(Debug)]
struct MemoryReplay {
    place: MemoryLog,
    holder: u64,
    epoch: LogEpoch,
    start: Position,
    records: Vec<Record>,
    next: usize,
    ends: Vec<EpochEnd>,
}

#[async_trait]
impl Replay for MemoryReplay {
    fn ends(&self) -> &[EpochEnd] {
        &self.ends
    }

    fn start_position(&self) -> Position {
        self.start
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while let Some(record) = self.records.get(self.next) {
            if !piece.is_empty() && bytes + record.payload.len() > PIECE_BYTES {
                break;
            }
            bytes += record.payload.len();
            self.next += 1;
            piece.push(Replayed {
                epoch: record.epoch,
                position: record.position.clone(),
                payload: record.payload.clone(),
                footprint: record.payload.len(),
            });
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.next = 0;
        Ok(())
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        {
            let mut content = self.place.content.lock();
            if content.holder != self.holder {
                let by = content.fenced_by.unwrap_or_default();
                return Err(Error::Fenced {
                    by: format!("epoch {by}"),
                });
            }
            content.epoch = Some(self.epoch);
            content.closed = false;
            content.failure = None;
        }
        let log = Arc::new(MemoryAppends {
            place: self.place.clone(),
            holder: self.holder,
            epoch: self.epoch,
            closing: Mutex::new(false),
            delivered: watch::Sender::new(Delivered {
                to: self.start,
                stopped: false,
            }),
        });
        let changes = self.place.changed.subscribe();
        tokio::spawn(acknowledge(Arc::downgrade(&log), changes, sink));
        Ok(log)
    }
}

#[derive(Debug)]
struct MemoryAppends {
    place: MemoryLog,
    holder: u64,
    epoch: LogEpoch,
    closing: Mutex<bool>,
    delivered: watch::Sender<Delivered>,
}

#[derive(Clone, Copy, Debug)]
struct Delivered {
    to: Position,
    stopped: bool,
}

#[async_trait]
impl Log for MemoryAppends {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let max = self.max_record_len();
        if len == 0 {
            return Err(Error::Invalid("an empty record".to_owned()));
        }
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        let mut content = self.place.content.lock();
        if let Some(error) = content.refuses(self.holder) {
            return Err(error);
        }
        if *self.closing.lock() {
            return Err(Error::Closed);
        }
        let (needed, free) = (
            len as u64,
            self.place.capacity - (content.end - content.tail),
        );
        if needed > free {
            return Err(Error::Full { needed, free });
        }
        // Whoever acknowledges was told of what waits already, and takes all there is when it looks.
        let is_told = content.acknowledged < content.end;
        let mut payload = BytesMut::with_capacity(len);
        parts.iter().for_each(|part| payload.put_slice(part));
        let position = Position::new(content.end)..Position::new(content.end + needed);
        content.end += needed;
        let record = Record {
            epoch: self.epoch,
            position: position.clone(),
            payload: payload.freeze(),
        };
        content.records.push_back(record);
        drop(content);
        if !is_told {
            self.place.changed.send_replace(());
        }
        Ok(position)
    }

    fn trim(&self, to: Position) {
        let mut content = self.place.content.lock();
        if content.holder != self.holder {
            return;
        }
        let to = to.get().min(content.acknowledged);
        while content
            .records
            .front()
            .is_some_and(|r| r.position.end.get() <= to)
        {
            content.records.pop_front();
        }
        let tail = content
            .records
            .front()
            .map_or(content.end, |r| r.position.start.get());
        content.room |= tail > content.tail;
        content.tail = tail;
        drop(content);
        self.place.changed.send_replace(());
    }

    fn usage(&self) -> Usage {
        let content = self.place.content.lock();
        Usage {
            capacity: self.place.capacity,
            used: content.end - content.tail,
            queue_capacity: u64::MAX,
            ..Usage::default()
        }
    }

    fn max_record_len(&self) -> usize {
        usize::try_from(self.place.capacity / 4)
            .unwrap_or(usize::MAX)
            .clamp(1, RECORD_LEN_MAX)
    }

    fn durable_end(&self) -> Position {
        Position::new(self.place.content.lock().acknowledged)
    }

    async fn close(&self) -> Result<(), Error> {
        *self.closing.lock() = true;
        let end = {
            let content = self.place.content.lock();
            Position::new(content.end)
        };
        let mut delivered = self.delivered.subscribe();
        // The sender lives in `self`.
        let _ = delivered.wait_for(|d| d.stopped || d.to >= end).await;
        let mut content = self.place.content.lock();
        if let Some(error) = content.refuses(self.holder) {
            return Err(error);
        }
        content.closed = content.tail == content.end;
        self.delivered.send_modify(|d| d.stopped = true);
        Ok(())
    }
}

impl Drop for MemoryAppends {
    fn drop(&mut self) {
        self.place.changed.send_replace(());
    }
}

/// Tells the sink, until the log is closed, fenced, failed or dropped. One task per log, so calls are in order and one at a time.
async fn acknowledge(
    log: std::sync::Weak<MemoryAppends>,
    mut changes: watch::Receiver<()>,
    sink: Arc<dyn Sink>,
) {
    loop {
        {
            let Some(log) = log.upgrade() else { return };
            if log.delivered.borrow().stopped {
                return;
            }
            let (refusal, room, commit) = {
                let mut content = log.place.content.lock();
                let refusal = content.refuses(log.holder);
                let live = refusal.is_none();
                let room = live && std::mem::take(&mut content.room);
                (
                    refusal,
                    room,
                    if live { content.acknowledge() } else { None },
                )
            };
            if let Some(commit) = commit {
                let to = commit.range.end;
                sink.durable(commit);
                log.delivered.send_modify(|d| d.to = to);
            }
            if room {
                sink.room();
            }
            if let Some(error) = refusal {
                sink.failed(&error);
                log.delivered.send_modify(|d| d.stopped = true);
                return;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Content {
    /// Acknowledges all that waits, as one commit.
    fn acknowledge(&mut self) -> Option<Commit> {
        if self.held || self.acknowledged == self.end {
            return None;
        }
        let waiting = self
            .records
            .partition_point(|r| r.position.end.get() <= self.acknowledged);
        let records: Vec<_> = self
            .records
            .range(waiting..)
            .map(|r| Durable {
                position: r.position.clone(),
                payload: r.payload.clone(),
            })
            .collect();
        let range = Position::new(self.acknowledged)..Position::new(self.end);
        self.acknowledged = self.end;
        let footprint = records.iter().map(|r| r.payload.len()).sum();
        Some(Commit {
            range,
            footprint,
            records,
        })
    }
}

#[cfg(test)]
mod tests;
