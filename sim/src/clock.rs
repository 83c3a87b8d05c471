//! Simulated time over all lives of a node: it goes on where the last life ended.
//!
//! `now() = time before this life + paused tokio time since it began`. A life must call [`SimClock::begin`] inside its
//! own runtime; between two lives the clock stands.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The time of one simulated world. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<Mutex<Reading>>);

#[derive(Debug, Default)]
struct Reading {
    before: Duration,
    began: Option<Instant>,
}

impl SimClock {
    /// A life begins: from here the runtime's paused time counts.
    pub fn begin(&self) {
        self.0.lock().began = Some(Instant::now());
    }

    /// The life is over; must be called inside its runtime.
    pub fn end(&self) {
        let now = self.now();
        *self.0.lock() = Reading {
            before: now,
            began: None,
        };
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        let reading = self.0.lock();
        let since = reading.began.map(|began| began.elapsed());
        reading.before + since.unwrap_or_default()
    }
}
