//! Appending as leader: check, take offsets, queue; rolling and the time index on the way.

use bytes::Bytes;
use s3stream::Append;
use s3stream::segment::LogBounds;

use super::{KafkaLog, State, index};
use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::error::LogError;
use crate::header::{BatchHeader, TimestampType};
use crate::position::{AppendInfo, AppendOptions, Isolation};
use crate::producers::{Entry, Produced, Request};
use crate::summary::{Note, Sealed, Summary};
use crate::validate::{Validated, validate};

/// The time index of an active segment has at most this many entries, whatever the interval.
const ACTIVE_ENTRIES_MAX: u64 = 256;
const _: () = assert!((ACTIVE_ENTRIES_MAX as usize) < s3stream::segment::ANNOTATIONS_MAX);

/// Producers that have changed and transactions that were aborted are kept after this many, so that a change is small and few batches are read again.
const CHANGES_MAX: usize = 256;

/// An append that has its offsets and is on its way to being durable.
#[derive(Debug)]
#[must_use = "the records are durable only when `durable` resolves"]
pub struct AppendHandle {
    /// What was appended, and where.
    pub info: AppendInfo,
    pending: Option<(KafkaLog, Pending)>,
}

/// What an answer waits for.
#[derive(Debug)]
enum Pending {
    Append(s3stream::Append),
    /// The original of a duplicate, which ends at this offset (K2).
    Original(i64),
}

impl AppendHandle {
    /// Waits until the records are durable: `confirmed > info.last_offset`. Dropping it cancels nothing. Of a
    /// duplicate whose original fails it may wait until the streams are appended to again; bound the wait.
    ///
    /// # Errors
    /// `Storage`, `NotLeader`: the append may have happened; the log is stopped.
    pub async fn durable(self) -> Result<(), LogError> {
        match self.pending {
            None => Ok(()),
            Some((log, Pending::Append(append))) => match append.await {
                Ok(_) => Ok(()),
                Err(error) => {
                    let error = LogError::from(error);
                    log.stop(error.clone());
                    Err(error)
                }
            },
            Some((log, Pending::Original(last_offset))) => {
                log.wait_for(Isolation::LogEnd, last_offset).await?;
                // Looked at after the wait: what moved may have been the same offsets after a failure, with other records.
                match log.stopped() {
                    Some(error) => Err(error),
                    None => Ok(()),
                }
            }
        }
    }
}

impl KafkaLog {
    /// As [`Self::append_with`], for a producer outside of a transaction that would begin with the batch.
    ///
    /// # Errors
    /// As [`Self::append_with`].
    pub fn append_as_leader(
        &self,
        records: Bytes,
        leader_epoch: i32,
    ) -> Result<AppendHandle, LogError> {
        self.append_with(records, leader_epoch, &AppendOptions::default())
    }

    /// Checks a batch, gives it the next offsets and queues it; a producer's that was appended before is answered with
    /// its offsets of then. The order of calls is the order of offsets.
    /// One copy of the records is made, into the write-ahead log.
    ///
    /// # Errors
    /// `Corrupt`, `InvalidRecord`, `InvalidTimestamp`, `MessageTooLarge`, `BatchTooLarge`, `UnsupportedCompression`,
    /// `UnsupportedFormat`, `Undecodable`, `OutOfOrderSequence`, `InvalidProducerEpoch`, `InvalidTxnState`,
    /// `CoordinatorFenced`: the batch is at fault, nothing was appended. `InvalidEpoch`, `NoTransactionVersion`: the
    /// caller is. `Overloaded`: no room now; wait with [`Self::ready`]. `Busy`: too many transactions are open; try
    /// again. `Stopped`, `Closed`, `Deleted`: the log is over.
    pub fn append_with(
        &self,
        records: Bytes,
        leader_epoch: i32,
        options: &AppendOptions,
    ) -> Result<AppendHandle, LogError> {
        let config = self.open_config()?;
        let now_ms = self.shared.clock.now_ms();
        let Some(batch) = validate(&records, &config, now_ms, options.origin)? else {
            return Ok(self.nothing_appended());
        };
        if batch.size() > config.segment_bytes {
            return Err(LogError::BatchTooLarge {
                len: batch.size(),
                max: config.segment_bytes,
            });
        }
        self.queue(batch, &config, leader_epoch, options, now_ms)
    }

    /// Waits until the engine has room for an append of `bytes`, first come first served. Others may take the room
    /// first, so [`Self::append_as_leader`] may still answer `Overloaded`.
    ///
    /// # Errors
    /// `Overloaded`: too many wait already. `Storage`, `NotLeader`: it will not come.
    pub async fn ready(&self, bytes: usize) -> Result<(), LogError> {
        self.check_open()?;
        match self.shared.data.ready(bytes).await {
            Ok(_permit_returns_here) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Begins a new segment, unless the active one is empty.
    ///
    /// # Errors
    /// `Overloaded`: no room now. `Stopped`, `Closed`, `Deleted`: the log is over.
    pub fn roll(&self) -> Result<(), LogError> {
        let now_ms = self.shared.clock.now_ms();
        let rolled = {
            let mut state = self.shared.state.lock();
            if !matches!(state.life, super::Life::Open) {
                return Err(state.life.error());
            }
            if state.active.bytes == 0 {
                return Ok(());
            }
            self.seal(&mut state, now_ms)
        };
        rolled.map_err(|error| self.failed(error))
    }

    fn queue(
        &self,
        batch: Validated,
        config: &LogConfig,
        leader_epoch: i32,
        options: &AppendOptions,
        now_ms: i64,
    ) -> Result<AppendHandle, LogError> {
        let queued = {
            let mut state = self.shared.state.lock();
            if !matches!(state.life, super::Life::Open) {
                return Err(state.life.error());
            }
            let bounds = self.bounds_in(&mut state);
            if let Some(original) = state.check(&batch.entry(), config, options)? {
                return Ok(self.duplicate(&original, bounds.start as i64));
            }
            let (header, records) = batch.stamp(bounds.next as i64, leader_epoch);
            let epochs = Self::epochs_with(&state, &header)?;
            self.write(
                &mut state,
                config,
                bounds,
                (&header, &records),
                epochs,
                now_ms,
            )
            .map(|append| (append, header, bounds.start))
        };
        let (append, header, log_start) = queued.map_err(|error| self.failed(error))?;
        let log_append_time = match config.timestamp_type {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        let info = AppendInfo {
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            log_append_time,
            log_start: log_start as i64,
            valid_bytes: header.size(),
            duplicate: false,
        };
        Ok(self.queued(info, append))
    }

    pub(super) fn queued(&self, info: AppendInfo, append: Append) -> AppendHandle {
        AppendHandle {
            info,
            pending: Some((self.clone(), Pending::Append(append))),
        }
    }

    /// Queues a batch that has its offsets, at or past the log end: what lies between is a gap that its record covers
    /// (K1). `bounds` are where the log is. With `epochs`, these are in force from it on.
    pub(super) fn write(
        &self,
        state: &mut State,
        config: &LogConfig,
        bounds: LogBounds,
        (header, records): (&BatchHeader, &[u8]),
        epochs: Option<Epochs>,
        now_ms: i64,
    ) -> s3stream::Result<Append> {
        if let Some(epochs) = epochs {
            self.note_epochs(state, epochs, now_ms)?;
        }
        let log = &self.shared.log;
        // A note moves neither the end nor the base, a roll not the end.
        let at = bounds.next;
        let base = bounds.active_base.unwrap_or(at);
        self.roll_if_due(state, config, header, base, now_ms)?;
        self.note_if_due(state, config)?;
        let count = (header.last_offset() as u64 + 1).saturating_sub(at);
        let append = log.append(at, count, &[&header.encode(), records])?;
        state.active.add(header, header.size(), now_ms);
        let entry = Entry::new(header, records);
        state.producers.add(&entry, config.producers_max);
        state.verifications.appended(&entry);
        Ok(append)
    }

    /// The answer to a batch that was appended before. Its times are those of then whatever the topic keeps, as in Kafka.
    fn duplicate(&self, original: &Produced, log_start: i64) -> AppendHandle {
        AppendHandle {
            info: AppendInfo {
                first_offset: original.first_offset(),
                last_offset: original.last_offset,
                max_timestamp: original.timestamp,
                log_append_time: original.timestamp,
                log_start,
                valid_bytes: 0,
                duplicate: true,
            },
            pending: Some((self.clone(), Pending::Original(original.last_offset))),
        }
    }

    pub(super) fn nothing_appended(&self) -> AppendHandle {
        AppendHandle {
            info: AppendInfo {
                first_offset: -1,
                last_offset: -1,
                max_timestamp: -1,
                log_append_time: -1,
                log_start: self.offsets().log_start,
                valid_bytes: 0,
                duplicate: false,
            },
            pending: None,
        }
    }

    /// Begins a new segment if the active one, which begins at `base`, has no room, has waited long enough, or spans too many offsets.
    fn roll_if_due(
        &self,
        state: &mut State,
        config: &LogConfig,
        header: &BatchHeader,
        base: u64,
        now_ms: i64,
    ) -> s3stream::Result<()> {
        let active = &state.active;
        if active.bytes == 0 {
            return Ok(());
        }
        let waited = if active.first_timestamp >= 0 {
            header.max_timestamp.saturating_sub(active.first_timestamp)
        } else {
            now_ms.saturating_sub(active.created_ms)
        };
        let span = (header.last_offset() as u64).saturating_sub(base);
        let size = header.size();
        let due = active.bytes > config.segment_bytes.saturating_sub(size)
            || waited > config.segment_ms_max() - self.jitter(config, base)
            || span > i32::MAX as u64;
        if due {
            self.seal(state, now_ms)
        } else {
            Ok(())
        }
    }

    /// Seals the active segment, which must hold something, and begins the next.
    pub(super) fn seal(&self, state: &mut State, now_ms: i64) -> s3stream::Result<()> {
        // Notes that cannot be read were refused when the log was opened.
        let index = index(&self.shared.log.annotations()).unwrap_or_default();
        let base = self.shared.log.bounds().active_base.unwrap_or(0) as i64;
        let sealed = Sealed::new(state.active.clone(), state.epochs.since_base(base), &index);
        let goes_on = state
            .epochs
            .latest()
            .map(|epoch| Note::Epoch(epoch).encode());
        // Its order before the next append in the log is enough: if it is lost, so is that append.
        let change = state.producers.encode_changed();
        let _order_is_enough = self.shared.log.roll(sealed.encode(), goes_on, change)?;
        state.producers.set_kept();
        state.noted_epoch = state.epochs.latest().map_or(-1, |latest| latest.epoch);
        state.epoch_notes = 1;
        state.active = Summary::new(state.active.end, now_ms);
        state.noted_bytes = 0;
        Ok(())
    }

    /// What is taken off the longest time for the segment at `base`: the same each time it is asked, spread over logs.
    fn jitter(&self, config: &LogConfig, base: u64) -> i64 {
        let jitter_ms = config.segment_jitter_ms.min(config.segment_ms_max());
        if jitter_ms <= 0 {
            return 0;
        }
        // The finisher of splitmix64.
        let mut mix = self.shared.data.id().get().rotate_left(32) ^ base;
        mix = (mix ^ (mix >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mix = (mix ^ (mix >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mix ^= mix >> 31;
        (mix % jitter_ms as u64) as i64
    }

    /// Notes what the active segment holds so far, once enough has come since the last note, and what has changed of the
    /// producers: whoever has the note has them as of then.
    fn note_if_due(&self, state: &mut State, config: &LogConfig) -> s3stream::Result<()> {
        let interval = config
            .index_interval_bytes
            .max(config.segment_bytes / ACTIVE_ENTRIES_MAX);
        let due = state.active.bytes - state.noted_bytes >= interval;
        let full = state.producers.changed() >= CHANGES_MAX;
        if !due && !full {
            return Ok(());
        }
        let log = &self.shared.log;
        let kept = match state.producers.encode_changed() {
            Some(change) if !due => log.change_state(change),
            change => log.annotate(Note::Summary(state.active.clone()).encode(), change),
        };
        match kept {
            Ok(_order_is_enough) => {
                state.producers.set_kept();
                if due {
                    state.noted_bytes = state.active.bytes;
                }
                Ok(())
            }
            // So many changes must not grow without end.
            Err(error) if full => Err(error),
            // Without room for it the next append tries again; a note is a help, not a need.
            Err(_) => Ok(()),
        }
    }
}

impl State {
    /// Whether a batch may be appended, or is one that was: then that one.
    fn check(
        &self,
        entry: &Entry<'_>,
        config: &LogConfig,
        options: &AppendOptions,
    ) -> Result<Option<Produced>, LogError> {
        let request = Request {
            origin: options.origin,
            guard: &options.guard,
            version: options.version,
            verification: self.verifications.get(entry.header.producer_id),
            verify: config.verify_transactions,
            open_max: config.producers_max,
            aborted_max: config.aborted_max,
        };
        self.producers.check(entry, &request)
    }
}
