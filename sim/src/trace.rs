//! What happened, in order: the same seed must give the same trace.
//!
//! The hash covers every event ever noted; the lines are kept only when asked for.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::entropy::mix;

/// A shared record of events. Clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// One that keeps its lines, too.
    pub fn with_lines() -> Self {
        let record = Record {
            lines: Some(Vec::new()),
            ..Record::default()
        };
        Self(Arc::new(Mutex::new(record)))
    }

    /// Notes an event at a simulated time.
    pub fn note(&self, at: Duration, event: fmt::Arguments<'_>) {
        let line = format!("{:>14.6} {event}", at.as_secs_f64());
        let mut record = self.0.lock();
        record.events += 1;
        let start = record.hash;
        record.hash = line.as_bytes().chunks(8).fold(start, |hash, chunk| {
            let word = chunk
                .iter()
                .fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
            mix(hash.rotate_left(5) ^ word)
        });
        if let Some(lines) = &mut record.lines {
            lines.push(line);
        }
    }

    /// A hash of all events, and their number.
    pub fn digest(&self) -> (u64, u64) {
        let record = self.0.lock();
        (record.hash, record.events)
    }

    /// The lines, if they are kept.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_time_of_events_are_in_the_digest() {
        let digest = |events: &[(u64, &str)]| {
            let trace = Trace::default();
            for (at, event) in events {
                trace.note(Duration::from_millis(*at), format_args!("{event}"));
            }
            trace.digest()
        };
        assert_eq!(digest(&[(1, "a"), (2, "b")]), digest(&[(1, "a"), (2, "b")]));
        assert_ne!(digest(&[(1, "a"), (2, "b")]), digest(&[(1, "b"), (2, "a")]));
        assert_ne!(digest(&[(1, "a")]), digest(&[(2, "a")]));
        assert!(Trace::default().lines().is_empty());
    }
}
