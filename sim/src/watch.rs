//! Watches a log over all lives from outside: every append, acknowledgement, trim and replay, against W1 to W4, W7, W8.
//!
//! - What was acknowledged and not trimmed replays, once, in order, with its bytes (W1, W2, W4); nothing else does.
//! - What a started life found replayed is final: later lives find the same of that epoch (W8).
//! - The log is told to give up only what the metadata knows to be given up: a later opening says so (W7, O2).
//!
//! It changes nothing that passes through.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use s3stream::wal::{
    Backend, Commit, EpochEnd, Error, Found, Log, LogState, LogUuid, Position, Replay, Replayed,
    Sink, Usage,
};

use crate::{Violation, entropy::mix};

/// Epoch and start position: a position alone may be taken again after a crash.
type Key = (u64, u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// Appended; may replay.
    Possible,
    /// Must replay until it is trimmed.
    Owed,
    /// A life began without it; must never replay again.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    end: u64,
    digest: u64,
    standing: Standing,
}

/// What is known of a log over all lives. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Past>>);

#[derive(Debug, Default)]
struct Past {
    log: Option<LogUuid>,
    records: BTreeMap<Key, Known>,
    /// The highest trim that the log was ever told.
    trimmed: u64,
    acknowledged: u64,
    replayed: u64,
    violation: Option<Violation>,
}

impl History {
    /// The first contract that was broken.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.0.lock().violation.clone()
    }

    /// Records acknowledged and records replayed so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let past = self.0.lock();
        (past.acknowledged, past.replayed)
    }

    /// The end of the latest record that lies at or below a position.
    pub(crate) fn record_end_at_or_below(&self, position: u64) -> Option<u64> {
        let past = self.0.lock();
        let mut ends = past.records.values().rev().map(|known| known.end);
        ends.find(|end| *end <= position)
    }

    fn opening(&self, state: &LogState) {
        let mut past = self.0.lock();
        // A log that was closed owing nothing is made anew under a new name; its positions begin again.
        if past.log.replace(state.identity.log) != Some(state.identity.log) {
            past.records.clear();
            past.trimmed = 0;
        }
        let known = state.owed.iter().map(|epoch| epoch.trim.get()).max();
        if known.is_some_and(|known| past.trimmed > known) {
            let what = format!(
                "the log was told to trim to {}, the metadata knows of {known:?}",
                past.trimmed
            );
            past.broken("W7", what);
        }
    }

    fn appended(&self, epoch: u64, range: &Range<Position>, parts: &[&[u8]]) {
        let known = Known {
            end: range.end.get(),
            digest: digest(&parts.concat()),
            standing: Standing::Possible,
        };
        self.0
            .lock()
            .records
            .insert((epoch, range.start.get()), known);
    }

    fn durable(&self, epoch: u64, commit: &Commit, last: &mut u64) {
        let mut past = self.0.lock();
        for record in &commit.records {
            let at = record.position.start.get();
            if at < *last {
                past.broken("W3", format!("position {at} was acknowledged after {last}"));
            }
            *last = record.position.end.get();
            past.acknowledged += 1;
            let found = digest(&record.payload);
            match past.records.get_mut(&(epoch, at)) {
                Some(known) if known.digest == found => known.standing = Standing::Owed,
                known => {
                    let what =
                        format!("position {at} was acknowledged as something else than {known:?}");
                    past.broken("W4", what);
                }
            }
        }
    }

    fn trimmed(&self, to: Position) {
        let mut past = self.0.lock();
        past.trimmed = past.trimmed.max(to.get());
    }
}

impl Past {
    fn broken(&mut self, contract: &'static str, what: String) {
        self.violation
            .get_or_insert_with(|| Violation::new(contract, what));
    }

    fn replayed(&mut self, record: &Replayed, last: Option<Key>) -> Key {
        let key = (record.epoch.get(), record.position.start.get());
        self.replayed += 1;
        if last.is_some_and(|last| key <= last) {
            self.broken("W1", format!("{key:?} replayed after {last:?}"));
        }
        match self.records.get(&key).copied() {
            None => self.broken("W4", format!("{key:?} replayed and was never appended")),
            Some(known) if known.standing == Standing::Gone => {
                self.broken(
                    "W8",
                    format!("{key:?} replayed, a life had begun without it"),
                );
            }
            Some(known) if known.digest != digest(&record.payload) => {
                self.broken("W4", format!("{key:?} replayed with other bytes"));
            }
            Some(_) => {}
        }
        key
    }

    /// A replay came to its end: was all there that had to be?
    fn complete(&mut self, state: &LogState, found: &BTreeSet<Key>) {
        for epoch in state.owed.iter().filter(|epoch| epoch.started) {
            let number = epoch.epoch.get();
            let from = (number, epoch.trim.get());
            let missing = self
                .records
                .range(from..(number + 1, 0))
                .find(|(key, known)| known.standing == Standing::Owed && !found.contains(key));
            if let Some((key, known)) = missing {
                let what = format!(
                    "{key:?} to {} was acknowledged and did not replay",
                    known.end
                );
                self.broken("W2", what);
                return;
            }
        }
    }

    /// A life begins on what replayed: it is final (W8).
    fn settle(&mut self, state: &LogState, found: &BTreeSet<Key>) {
        for epoch in &state.owed {
            let number = epoch.epoch.get();
            for (key, known) in self.records.range_mut((number, 0)..(number + 1, 0)) {
                if found.contains(key) {
                    known.standing = Standing::Owed;
                } else if key.1 >= epoch.trim.get() {
                    known.standing = Standing::Gone;
                }
            }
        }
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| {
        mix(hash ^ u64::from_be_bytes(*word))
    });
    rest.iter()
        .fold(hash, |hash, byte| mix(hash ^ u64::from(*byte)))
}

/// A backend that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    backend: Arc<dyn Backend>,
    history: History,
}

impl Watched {
    pub(crate) fn new(backend: Arc<dyn Backend>, history: History) -> Self {
        Self { backend, history }
    }
}

#[async_trait]
impl Backend for Watched {
    fn url(&self) -> String {
        self.backend.url()
    }

    async fn identify(&self) -> Result<Found, Error> {
        self.backend.identify().await
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        self.history.opening(state);
        Ok(Box::new(WatchedReplay {
            replay: self.backend.open(state).await?,
            history: self.history.clone(),
            state: state.clone(),
            found: BTreeSet::new(),
            last: None,
            complete: false,
        }))
    }
}

struct WatchedReplay {
    replay: Box<dyn Replay>,
    history: History,
    state: LogState,
    found: BTreeSet<Key>,
    last: Option<Key>,
    complete: bool,
}

#[async_trait]
impl Replay for WatchedReplay {
    fn ends(&self) -> &[EpochEnd] {
        self.replay.ends()
    }

    fn start_position(&self) -> Position {
        self.replay.start_position()
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        let piece = self.replay.next().await?;
        let mut past = self.history.0.lock();
        match &piece {
            Some(records) => {
                for record in records {
                    let key = past.replayed(record, self.last);
                    self.found.insert(key);
                    self.last = Some(key);
                }
            }
            None => {
                past.complete(&self.state, &self.found);
                self.complete = true;
            }
        }
        Ok(piece)
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.last = None;
        self.replay.rewind().await
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        if self.complete {
            self.history.0.lock().settle(&self.state, &self.found);
        }
        let epoch = self.state.epoch.get();
        let sink = Arc::new(WatchedSink {
            sink,
            history: self.history.clone(),
            epoch,
            last: Mutex::new(0),
        });
        Ok(Arc::new(WatchedLog {
            log: self.replay.start(sink).await?,
            history: self.history,
            epoch,
        }))
    }
}

struct WatchedSink {
    sink: Arc<dyn Sink>,
    history: History,
    epoch: u64,
    last: Mutex<u64>,
}

impl Sink for WatchedSink {
    fn durable(&self, commit: Commit) {
        self.history
            .durable(self.epoch, &commit, &mut self.last.lock());
        self.sink.durable(commit);
    }

    fn failed(&self, error: &Error) {
        self.sink.failed(error);
    }

    fn room(&self) {
        self.sink.room();
    }
}

#[derive(Debug)]
struct WatchedLog {
    log: Arc<dyn Log>,
    history: History,
    epoch: u64,
}

#[async_trait]
impl Log for WatchedLog {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        let range = self.log.append(parts)?;
        self.history.appended(self.epoch, &range, parts);
        Ok(range)
    }

    fn trim(&self, to: Position) {
        self.history.trimmed(to);
        self.log.trim(to);
    }

    fn usage(&self) -> Usage {
        self.log.usage()
    }

    fn max_record_len(&self) -> usize {
        self.log.max_record_len()
    }

    fn durable_end(&self) -> Position {
        self.log.durable_end()
    }

    async fn close(&self) -> Result<(), Error> {
        self.log.close().await
    }
}

#[cfg(test)]
mod tests;
