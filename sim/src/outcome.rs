//! What is asked of a simulation and what it came to: plain data.

use std::{collections::BTreeMap, time::Duration};

#[cfg(feature = "mutations")]
use crate::Mutation;
use crate::{Crash, Fault, Violation};

/// Where the node's log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogKind {
    /// On the disk.
    #[default]
    Block,
    /// In the bucket.
    Object,
}

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Simulated time of a seed's faulty lives together; the last one is not cut short.
    pub time: Duration,
    /// Where the log is.
    pub log: LogKind,
    /// Whether to keep the lines of the trace.
    pub lines: bool,
    /// A defect to plant.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(300),
            log: LogKind::default(),
            lines: false,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first contract that was broken.
    pub violation: Option<Violation>,
    /// What was done.
    pub counters: Counters,
    /// Hash and number of all events.
    pub digest: (u64, u64),
    /// The events, when they were kept.
    pub lines: Vec<String>,
}

/// What was done, and what went wrong on purpose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Simulated time.
    pub simulated: Duration,
    /// Lives of the node.
    pub lives: u64,
    /// Calls of clients.
    pub operations: u64,
    /// Appends acknowledged to clients.
    pub acknowledged: u64,
    /// Records read back and compared byte for byte.
    pub checked: u64,
    /// Records that came back from the log.
    pub replayed: u64,
    /// Requests to the bucket.
    pub requests: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
}

impl Counters {
    /// Adds those of another seed.
    pub fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        self.lives += other.lives;
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.checked += other.checked;
        self.replayed += other.replayed;
        self.requests += other.requests;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Crash(Crash),
    Close,
}
