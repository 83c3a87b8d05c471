//! A sink that remembers, and holds a log to the rules of [`Sink`].
//!
//! - Commits ascend without overlap; no two calls at once; none from inside an append made with [`Hear::append`]; none after `failed`.

use std::{
    cell::Cell,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Commit, Durable, Error, Log, Position, Sink};

/// How long a wait may last before it counts as never.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static APPENDING: Cell<bool> = const { Cell::new(false) };
}

/// What a sink was told.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Every record that became durable, in order.
    pub records: Vec<Durable>,
    /// The sum of the commits' footprints.
    pub footprint: u64,
    /// The failure.
    pub failed: Option<Error>,
    /// Calls of `room`.
    pub rooms: u64,
}

/// A sink that remembers.
#[derive(Debug)]
pub struct Hear {
    heard: Mutex<Heard>,
    calling: AtomicBool,
    changed: watch::Sender<()>,
}

impl Default for Hear {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            calling: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        }
    }
}

impl Hear {
    /// One that has heard nothing.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What it was told so far.
    pub fn heard(&self) -> Heard {
        self.heard.lock().clone()
    }

    /// Records that became durable so far.
    pub fn count(&self) -> usize {
        self.heard.lock().records.len()
    }

    /// Appends, and panics if the sink is called from inside.
    ///
    /// # Errors
    /// Those of the append.
    pub fn append(log: &dyn Log, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        APPENDING.set(true);
        let result = log.append(parts);
        APPENDING.set(false);
        result
    }

    /// Waits until `enough` says so.
    ///
    /// # Panics
    /// After a minute of the runtime's time.
    pub async fn until(&self, what: &str, enough: impl Fn(&Heard) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !enough(&self.heard.lock()) {
                // The sender lives in `self`.
                let _ = changed.changed().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let heard = self.heard.lock();
            let failed = &heard.failed;
            panic!(
                "never heard: {what}; {} records, failed: {failed:?}",
                heard.records.len()
            );
        }
    }

    /// Waits until `count` records are durable.
    pub async fn until_durable(&self, count: usize) {
        self.until(&format!("{count} records durable"), |h| {
            h.records.len() >= count
        })
        .await;
    }

    fn call(&self, tell: impl FnOnce(&mut Heard)) {
        assert!(!APPENDING.get(), "a sink call from inside an append");
        assert!(
            !self.calling.swap(true, Ordering::AcqRel),
            "two sink calls at once"
        );
        {
            let mut heard = self.heard.lock();
            assert!(heard.failed.is_none(), "a sink call after failed");
            tell(&mut heard);
        }
        self.calling.store(false, Ordering::Release);
        self.changed.send_replace(());
    }
}

impl Sink for Hear {
    fn durable(&self, commit: Commit) {
        self.call(|heard| {
            let mut end = heard
                .records
                .last()
                .map_or(Position::default(), |r| r.position.end);
            assert!(
                commit.range.start >= end,
                "W3: commit {:?} after {end}",
                commit.range
            );
            assert!(!commit.records.is_empty(), "a commit without records");
            for record in &commit.records {
                let Range {
                    start,
                    end: record_end,
                } = record.position;
                assert!(
                    start >= end && record_end > start,
                    "W3: record {:?}",
                    record.position
                );
                assert!(start >= commit.range.start && record_end <= commit.range.end);
                end = record_end;
            }
            let bytes: usize = commit.records.iter().map(|r| r.payload.len()).sum();
            assert!(
                commit.footprint >= bytes,
                "footprint {} of {bytes} bytes",
                commit.footprint
            );
            heard.footprint += commit.footprint as u64;
            heard.records.extend(commit.records);
        });
    }

    fn failed(&self, error: &Error) {
        self.call(|heard| heard.failed = Some(error.clone()));
    }

    fn room(&self) {
        self.call(|heard| heard.rooms += 1);
    }
}
