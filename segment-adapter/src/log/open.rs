//! Opening: the meta stream, then the data after the last note of the active segment, which is all that is read.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use s3stream::Stream;
use s3stream::segment::SegmentLog;

use super::{KafkaLog, Life, Shared, State, WallClock};
use crate::config::LogConfig;
use crate::epochs::{EpochStart, Epochs};
use crate::error::LogError;
use crate::log::read::scan;
use crate::producers::{Entry, Producers};
use crate::summary::{Note, Sealed, Summary};
use crate::verification::Verifications;

impl KafkaLog {
    /// Opens the log on the streams of its group, as the engine gives them: the log, its meta stream, what compaction has
    /// written anew. Streams that were never appended to are an empty log.
    ///
    /// # Errors
    /// `InvalidConfig`. `StoredState`: what is stored does not fit together; nothing was changed. `Storage`: it does
    /// not answer, or another log on the same streams has appends in flight; worth another try.
    pub async fn open(
        streams: Vec<Stream>,
        config: LogConfig,
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, LogError> {
        config.validate()?;
        let Ok([data, meta, compacted]) = <[Stream; Self::STREAMS as usize]>::try_from(streams)
        else {
            return Err(LogError::StoredState(format!(
                "a log has {} streams",
                Self::STREAMS
            )));
        };
        let log = SegmentLog::open(data.clone(), meta).await?;
        log.attach(compacted.clone())?;
        let now_ms = clock.now_ms();
        let recovered = recover(&log, &config, now_ms).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                data,
                compacted,
                log,
                clock,
                state: Mutex::new(State {
                    config: Arc::new(config),
                    active: recovered.active,
                    noted_bytes: recovered.noted_bytes,
                    noted_epoch: recovered.epochs.latest().map_or(-1, |latest| latest.epoch),
                    epochs: recovered.epochs,
                    epoch_notes: recovered.epoch_notes,
                    producers: recovered.producers,
                    verifications: Verifications::default(),
                    forgotten_below: -1,
                    topic_id: None,
                    hw: None,
                    truncations: 0,
                    emptied: 0,
                    uncleanable: None,
                    life: Life::Open,
                }),
                maintenance: tokio::sync::Mutex::new(()),
                compacting: tokio::sync::Mutex::new(()),
                moved: tokio::sync::Notify::new(),
            }),
        })
    }
}

/// What is known once the notes were read and the data after them.
struct Recovered {
    active: Summary,
    /// How many bytes of the active segment the last note covers.
    noted_bytes: u64,
    epochs: Epochs,
    /// How many epochs are noted to the active segment.
    epoch_notes: usize,
    producers: Producers,
}

async fn recover(log: &SegmentLog, config: &LogConfig, now_ms: i64) -> Result<Recovered, LogError> {
    let bounds = log.bounds();
    let segments = log.segments();
    let mut recovered = Recovered {
        active: Summary::new(bounds.next as i64, now_ms),
        noted_bytes: 0,
        epochs: Epochs::default(),
        epoch_notes: 0,
        producers: Producers::default(),
    };
    for change in log.take_state() {
        let producers = &mut recovered.producers;
        producers.apply(&change)?;
        // Before the data is read: who wrote last is known for a while whatever the time of the records, as in Kafka. And
        // before others are forgotten for want of room.
        producers.expire(now_ms, config.producer_expiration_ms, usize::MAX);
        producers.forget_down_to(config.producers_max);
    }
    if recovered.producers.end() > bounds.confirm as i64 {
        return Err(LogError::StoredState(format!(
            "producers as of offset {} of a log that ends at {}",
            recovered.producers.end(),
            bounds.confirm
        )));
    }
    for segment in segments.iter().filter(|segment| segment.is_sealed()) {
        for entry in Sealed::decode(&segment.attributes)?.epochs {
            recovered.begin_epoch(entry)?;
        }
    }
    if let Some(active) = segments.last().filter(|segment| !segment.is_sealed()) {
        recovered.active = Summary::new(active.base as i64, now_ms);
        recovered.read_notes(log, active.base as i64)?;
        recovered.read_data(log, config, now_ms).await?;
    }
    recovered.epochs.truncate_from_end(bounds.confirm as i64);
    recovered.epochs.forget_below(bounds.start as i64);
    let producers = &mut recovered.producers;
    producers.forget_aborted_below(bounds.start as i64);
    Ok(recovered)
}

impl Recovered {
    fn begin_epoch(&mut self, entry: EpochStart) -> Result<(), LogError> {
        let assigned = self.epochs.assign(entry.epoch, entry.start);
        assigned.map_err(|error| LogError::StoredState(error.to_string()))
    }

    fn read_notes(&mut self, log: &SegmentLog, base: i64) -> Result<(), LogError> {
        for note in log.annotations() {
            match Note::decode(&note)? {
                Note::Summary(summary) => self.active = summary,
                Note::Epoch(entry) => {
                    self.begin_epoch(entry)?;
                    self.epoch_notes += 1;
                }
            }
        }
        let (end, confirm) = (self.active.end, log.bounds().confirm as i64);
        if end < base || end > confirm {
            return Err(LogError::StoredState(format!(
                "a note of offset {end} in a segment of {base}..{confirm}"
            )));
        }
        self.noted_bytes = self.active.bytes;
        Ok(())
    }

    /// The batches after the last note; their epochs are noted, and some of their producers may be. What the log start
    /// hides counts as long as its segment is kept.
    async fn read_data(
        &mut self,
        log: &SegmentLog,
        config: &LogConfig,
        now_ms: i64,
    ) -> Result<(), LogError> {
        let confirm = log.bounds().confirm;
        let from = self.active.end as u64;
        let reached = scan(log, from, confirm, |record, batch| {
            let bytes = record.payload.len() as u64;
            self.active.add(batch.header(), bytes, now_ms);
            let entry = Entry::of(batch);
            self.producers.add(&entry, config.producers_max);
            ControlFlow::Continue(())
        });
        let reached = reached.await?;
        if reached < confirm {
            return Err(LogError::StoredState(format!(
                "no batch at offset {reached}, below the end {confirm}"
            )));
        }
        Ok(())
    }
}
