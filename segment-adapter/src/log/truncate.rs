//! Cutting the log, as a follower does whose leader has another history.
//!
//! The slice of the last segment is sealed shorter and a new segment begins (K1), so stream offsets are not used twice. A
//! cut is one step in the meta stream, with the producers, transactions and leader epochs as they were at the new end. They
//! are made again by reading what is kept: the whole log, for a transaction may have been open for as long. The cut is in
//! effect when it is queued, and kept when the call returns.

use std::ops::ControlFlow;
use std::sync::Arc;

use s3stream::Append;
use s3stream::segment::{Segment, Truncation};

use super::{KafkaLog, Life};
use crate::epochs::Epochs;
use crate::error::LogError;
use crate::header::BatchHeader;
use crate::log::read::scan;
use crate::position::Offsets;
use crate::producers::{Entry, Producers};
use crate::summary::{Note, Sealed, Summary};
use crate::verification::Verifications;

/// Where a log is cut, and what is known of it there.
struct Cut {
    /// Where the first record begins that goes.
    at: u64,
    /// One past the last offset afterwards, in the gap before that record's batch or within it.
    end: i64,
    start: i64,
    /// Nothing is left.
    anew: bool,
    epochs: Epochs,
    producers: Producers,
    /// What is left of the segment that the cut lies in.
    last: Option<Sealed>,
}

impl KafkaLog {
    /// Cuts the log so that it ends at `end`: a batch that holds `end` goes whole. `false` if it ends there or below
    /// already; then it only forgets a leader epoch that has no batch. The log start goes down with the end.
    ///
    /// # Errors
    /// `OffsetOutOfRange`: `end` is negative. `Busy`: an append is in flight, or came meanwhile; nothing was cut.
    /// `Storage`, `Overloaded`: call again.
    pub async fn truncate_to(&self, end: i64) -> Result<bool, LogError> {
        let _one_at_a_time = self.shared.maintenance.lock().await;
        self.check_open()?;
        let before = self.quiet()?;
        if end < 0 {
            return Err(LogError::OffsetOutOfRange {
                offset: end,
                start: 0,
                end: before.leo,
            });
        }
        if end >= before.leo {
            self.shared.state.lock().epochs.truncate_from_end(end);
            // The log may end here by a cut whose caller went away: it is kept when that is.
            let kept = self.shared.log.flushed().await;
            kept.map_err(|error| self.failed(error))?;
            return Ok(false);
        }
        // A swap whose caller went away would change the segments while they are read.
        let kept = self.shared.log.flushed().await;
        kept.map_err(|error| self.failed(error))?;
        let first = self.shared.log.segments().first().map(|first| first.base);
        let cut = if first.is_some_and(|first| (first as i64) < end) {
            self.find_cut(end, before.log_start.min(end)).await?
        } else {
            Cut::of_everything(end, end)
        };
        self.cut(cut, before).await?;
        Ok(true)
    }

    /// Empties the log; it goes on at `next`. It starts there too, or at `log_start` below.
    ///
    /// # Errors
    /// As [`Self::truncate_to`]; `OffsetOutOfRange` also when `log_start` is negative or past `next`.
    pub async fn truncate_fully_and_start_at(
        &self,
        next: i64,
        log_start: Option<i64>,
    ) -> Result<(), LogError> {
        let _one_at_a_time = self.shared.maintenance.lock().await;
        self.check_open()?;
        let before = self.quiet()?;
        let start = log_start.unwrap_or(next);
        if !(0..=next).contains(&start) {
            return Err(LogError::OffsetOutOfRange {
                offset: start,
                start: 0,
                end: next,
            });
        }
        self.cut(Cut::of_everything(next, start), before).await
    }

    /// The offsets of a log that has nothing in flight.
    fn quiet(&self) -> Result<Offsets, LogError> {
        let offsets = self.offsets();
        if offsets.confirmed < offsets.leo {
            return Err(LogError::Busy("appends are in flight".into()));
        }
        Ok(offsets)
    }

    /// Reads what is kept below `end`.
    async fn find_cut(&self, end: i64, start: i64) -> Result<Cut, LogError> {
        let (mut restoring, mut epochs) = {
            let state = self.shared.state.lock();
            let restoring = state.producers.restore(end, state.config.producers_max);
            (restoring, state.epochs.clone())
        };
        let mut segments = self.described()?;
        segments.retain(|(segment, _)| (segment.base as i64) < end);
        let from = segments.first().map_or(0, |(first, _)| first.base);
        let mut summing = Summing::new(segments);
        let log = &self.shared.log;
        let reached = scan(log, from, end as u64, |record, batch| {
            if record.offsets.end > end as u64 {
                return ControlFlow::Break(());
            }
            restoring.add(&Entry::of(batch));
            summing.add(record.offsets.start, batch.header());
            ControlFlow::Continue(())
        });
        let at = reached.await?.min(end as u64);
        // One that has no batch left goes, as it would when the log is opened again.
        epochs.truncate_from_end(at as i64);
        Ok(Cut {
            at,
            end,
            start,
            anew: false,
            last: summing.finish(at, &epochs),
            epochs,
            producers: restoring.finish(),
        })
    }

    async fn cut(&self, cut: Cut, before: Offsets) -> Result<(), LogError> {
        let start = cut.start as u64;
        let queued = self.queue_cut(cut, before)?;
        self.shared.moved.notify_waiters();
        let append = queued.map_err(|error| self.failed(error))?;
        if let Err(error) = append.await {
            // The log here is cut, and what is kept may not be.
            let error = LogError::from(error);
            self.stop(error.clone());
            return Err(error);
        }
        // What no slice shows any more is given up only now.
        let given_up = self.shared.log.trim_front(..start).await;
        given_up.map_err(|error| self.failed(error))
    }

    /// Cuts, all in one step, unless something was appended since `before`.
    fn queue_cut(&self, cut: Cut, before: Offsets) -> Result<s3stream::Result<Append>, LogError> {
        let now_ms = self.shared.clock.now_ms();
        let mut state = self.shared.state.lock();
        if !matches!(state.life, Life::Open) {
            return Err(state.life.error());
        }
        let bounds = self.shared.log.bounds();
        if bounds.next as i64 != before.leo || bounds.confirm != bounds.next {
            return Err(LogError::Busy("something was appended meanwhile".into()));
        }
        let note = cut.epochs.latest().map(|epoch| Note::Epoch(epoch).encode());
        let truncation = Truncation {
            cut: cut.at,
            end: cut.end as u64,
            start: cut.start as u64,
            attributes: cut.last.map(|last| last.encode()).unwrap_or_default(),
            note,
            state: cut.producers.encode(),
        };
        let queued = self.shared.log.truncate(&truncation);
        if queued.is_ok() {
            state.active = Summary::new(cut.end, now_ms);
            state.noted_bytes = 0;
            state.noted_epoch = cut.epochs.latest().map_or(-1, |latest| latest.epoch);
            state.epoch_notes = usize::from(truncation.note.is_some());
            state.epochs = cut.epochs;
            state.producers = cut.producers;
            state.verifications = Verifications::default();
            // A log that begins anew has nothing that others would have to copy first.
            state.hw = state
                .hw
                .map(|hw| if cut.anew { cut.end } else { hw.min(cut.end) });
            state.truncations += 1;
            state.forgotten_below = -1;
            // What was damaged may be gone.
            state.uncleanable = None;
        }
        Ok(queued)
    }
}

impl Cut {
    /// Nothing is left.
    fn of_everything(end: i64, start: i64) -> Self {
        Self {
            at: 0,
            end,
            start,
            anew: true,
            epochs: Epochs::default(),
            producers: Producers::none_before(end),
            last: None,
        }
    }
}

/// Sums up the segment that the scan is in.
struct Summing {
    segments: Vec<(Arc<Segment>, Sealed)>,
    /// The place of that segment.
    at: usize,
    summary: Summary,
}

impl Summing {
    fn new(segments: Vec<(Arc<Segment>, Sealed)>) -> Self {
        let mut summing = Self {
            segments,
            at: 0,
            summary: Summary::new(0, 0),
        };
        summing.begin();
        summing
    }

    fn begin(&mut self) {
        if let Some((segment, sealed)) = self.segments.get(self.at) {
            self.summary = Summary::new(segment.base as i64, sealed.summary.created_ms);
        }
    }

    fn add(&mut self, offset: u64, header: &BatchHeader) {
        while (self.segments.get(self.at + 1)).is_some_and(|(next, _)| next.base <= offset) {
            self.at += 1;
            self.begin();
        }
        let Some((_, sealed)) = self.segments.get(self.at) else {
            return;
        };
        let modified_ms = sealed.summary.modified_ms;
        self.summary.add(header, header.size(), modified_ms);
    }

    /// What is left of the last segment that begins below the cut.
    fn finish(mut self, cut: u64, epochs: &Epochs) -> Option<Sealed> {
        self.segments.retain(|(segment, _)| segment.base < cut);
        let (segment, sealed) = self.segments.pop()?;
        let mut index = sealed.index;
        index.retain(|entry| entry.end <= cut as i64);
        let epochs = epochs.since_base(segment.base as i64);
        let mut left = Sealed::new(self.summary, epochs, &index);
        left.cleaned = sealed.cleaned.min(cut as i64);
        Some(left)
    }
}
