//! One partition's log: a leader's appends with offsets given out in order, on the streams of one group (K3).
//!
//! `log_start <= lso <= hw <= confirmed <= leo`, and nothing above `confirmed`, the end of what is durable, is read (K2). Offsets are
//! given out under one short lock, in the order of the calls; durability follows in that order. A failed append stops the
//! log: every later call fails with the first error until the log is opened again. It knows nothing of topics or requests,
//! and it runs nothing by itself: the owner calls [`KafkaLog::delete_old_segments`] and [`KafkaLog::compact`] now and then.

mod append;
mod checkpoint;
mod compact;
mod epochs;
mod follower;
mod open;
mod read;
mod retention;
mod times;
mod transactions;
mod truncate;
mod watermark;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use s3stream::Stream;
use s3stream::segment::{LogBounds, Segment, SegmentLog};

pub use append::AppendHandle;
pub use compact::{Compacted, Dirty};
pub use transactions::EndTxn;

use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::error::LogError;
use crate::position::Offsets;
use crate::producers::Producers;
use crate::summary::{IndexEntry, Note, Sealed, Summary};
use crate::verification::Verifications;

/// The clock of the broker: what timestamps are compared with and taken from.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

/// A Kafka partition's log. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    data: Stream,
    /// What compaction has written anew.
    compacted: Stream,
    log: SegmentLog,
    clock: Arc<dyn WallClock>,
    state: Mutex<State>,
    /// Retention, record deletion, truncation and the swap of a compaction exclude one another.
    maintenance: tokio::sync::Mutex<()>,
    /// Held by whoever appends to what compaction writes anew. Taken before the one above, or only tried.
    compacting: tokio::sync::Mutex<()>,
    /// Told when the high watermark has moved by the broker's word, when the log was cut, and when it is over.
    moved: tokio::sync::Notify,
}

struct State {
    config: Arc<LogConfig>,
    /// Of the active segment, what is not durable included.
    active: Summary,
    /// Bytes of the active segment when it was last noted in the time index.
    noted_bytes: u64,
    epochs: Epochs,
    /// The latest epoch that the meta stream has, -1 for none.
    noted_epoch: i32,
    /// How many epochs are noted to the active segment.
    epoch_notes: usize,
    /// What is not durable included. The meta stream has what they were at the last note or roll.
    producers: Producers,
    verifications: Verifications,
    /// Where the log began when what is known of offsets below was last forgotten, -1 if that is to be done anew.
    forgotten_below: i64,
    /// That of its topic, once somebody has said it.
    topic_id: Option<u128>,
    /// The high watermark that the broker has set; `None` if it has not, and it is the end of what is durable.
    hw: Option<i64>,
    /// How often the log was cut since it was opened.
    truncations: u64,
    /// How many aborted transactions compaction has left nothing of since then.
    emptied: u64,
    /// Why compaction leaves the log alone.
    uncleanable: Option<LogError>,
    life: Life,
}

/// Whether calls are served.
enum Life {
    Open,
    Closed,
    Deleted,
    Stopped(Arc<LogError>),
}

impl KafkaLog {
    /// How many streams its group has.
    pub const STREAMS: u32 = 3;

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.shared.state.lock().config.clone()
    }

    /// Changes the settings; they hold for calls from now on.
    ///
    /// # Errors
    /// `InvalidConfig`: they break a rule; those in force stay.
    pub fn update_config(&self, config: LogConfig) -> Result<(), LogError> {
        config.validate()?;
        let mut state = self.shared.state.lock();
        state.config = Arc::new(config);
        // What was too large for a pass may not be any more.
        state.uncleanable = None;
        Ok(())
    }

    /// Where the log is, at one moment.
    pub fn offsets(&self) -> Offsets {
        self.offsets_in(&mut self.shared.state.lock())
    }

    fn offsets_in(&self, state: &mut State) -> Offsets {
        let bounds = self.bounds_in(state);
        let (log_start, confirmed) = (bounds.start as i64, bounds.confirm as i64);
        let hw = state
            .hw
            .map_or(confirmed, |hw| hw.clamp(log_start, confirmed));
        let unstable = state.producers.first_unstable(hw).unwrap_or(hw);
        Offsets {
            log_start,
            lso: unstable.clamp(log_start, hw),
            hw,
            confirmed,
            leo: bounds.next as i64,
        }
    }

    /// The bounds of the streams. The log start may have moved since somebody looked, also by an edit whose caller went
    /// away: what is known of offsets below goes.
    fn bounds_in(&self, state: &mut State) -> LogBounds {
        let bounds = self.shared.log.bounds();
        let start = bounds.start as i64;
        if start != state.forgotten_below {
            state.epochs.forget_below(start);
            state.producers.forget_aborted_below(start);
            state.forgotten_below = start;
        }
        bounds
    }

    /// Bytes of all batches that are kept, those below the log start included as long as their segment is.
    ///
    /// # Errors
    /// `StoredState`: the attributes of a segment cannot be read.
    pub fn size(&self) -> Result<u64, LogError> {
        let segments = self.described()?;
        Ok(segments
            .iter()
            .map(|(_, sealed)| sealed.summary.bytes)
            .sum())
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.shared.log.segment_count()
    }

    /// Takes no more appends, notes where the log ends so that opening it reads no data, and waits for what is in
    /// flight. Reads go on until the streams are closed, which is the owner's to do.
    ///
    /// # Errors
    /// The log's own error if it had stopped; the error of an append that was in flight.
    pub async fn close(&self) -> Result<(), LogError> {
        let noted = {
            let mut state = self.shared.state.lock();
            let noted = match &state.life {
                Life::Open => self.note_all(&mut state),
                Life::Closed => Ok(None),
                Life::Deleted | Life::Stopped(_) => return Err(state.life.error()),
            };
            state.life = Life::Closed;
            noted
        };
        let outcome = match noted {
            // Queued after every append, so it is durable only when they are.
            Ok(Some(append)) => append.await.map(drop),
            // What is in flight is waited for, also a cut or a close whose caller went away. No room for the note is no
            // reason to fail: opening then reads a little data.
            Ok(None) | Err(_) => self.shared.log.flushed().await,
        };
        outcome.map_err(|error| self.failed(error))
    }

    /// Says whose log it is: the id of its topic. It is known until the log is opened again.
    ///
    /// # Errors
    /// `InconsistentTopicId`: it is the log of another.
    pub fn assign_topic_id(&self, topic_id: u128) -> Result<(), LogError> {
        let known = *self.shared.state.lock().topic_id.get_or_insert(topic_id);
        if known == topic_id {
            return Ok(());
        }
        Err(LogError::InconsistentTopicId {
            asked: topic_id,
            known,
        })
    }

    /// The id of its topic, if anybody has said it.
    pub fn topic_id(&self) -> Option<u128> {
        self.shared.state.lock().topic_id
    }

    /// From now on every call answers `Deleted`, also those that wait. Destroying the streams is the owner's.
    pub fn mark_deleted(&self) {
        self.shared.state.lock().life = Life::Deleted;
        self.shared.moved.notify_waiters();
    }

    /// Whether the log is stopped, and why: drop it and open it again.
    pub fn stopped(&self) -> Option<LogError> {
        if let Some(error) = self.shared.log.stopped() {
            self.failed(error);
        }
        match &self.shared.state.lock().life {
            Life::Stopped(cause) => Some(LogError::Stopped(cause.clone())),
            Life::Open | Life::Closed | Life::Deleted => None,
        }
    }

    /// Turns an error of the streams into the log's, and stops the log if they did.
    fn failed(&self, error: s3stream::Error) -> LogError {
        let stopped = self.shared.log.stopped();
        let mapped = LogError::from(error);
        if let Some(cause) = stopped {
            self.stop(LogError::from(cause));
        }
        mapped
    }

    fn stop(&self, cause: LogError) {
        {
            let mut state = self.shared.state.lock();
            if !matches!(state.life, Life::Open | Life::Closed) {
                return;
            }
            state.life = Life::Stopped(Arc::new(cause));
        }
        // Who waits is answered.
        self.shared.moved.notify_waiters();
    }

    fn check_readable(&self) -> Result<(), LogError> {
        if let Some(error) = self.shared.log.stopped() {
            return Err(self.failed(error));
        }
        let state = self.shared.state.lock();
        match &state.life {
            Life::Open | Life::Closed => Ok(()),
            Life::Deleted | Life::Stopped(_) => Err(state.life.error()),
        }
    }

    fn check_open(&self) -> Result<(), LogError> {
        self.open_config().map(drop)
    }

    /// The settings in force, of a log that takes appends.
    fn open_config(&self) -> Result<Arc<LogConfig>, LogError> {
        let state = self.shared.state.lock();
        match &state.life {
            Life::Open => Ok(state.config.clone()),
            Life::Closed | Life::Deleted | Life::Stopped(_) => Err(state.life.error()),
        }
    }

    /// The segments with what is known of each; for the active one, of its noted index and all that was appended.
    fn described(&self) -> Result<Vec<(Arc<Segment>, Sealed)>, LogError> {
        let (segments, active, notes) = {
            // Under the lock of appends, so that the active segment and its summary belong together.
            let state = self.shared.state.lock();
            let log = &self.shared.log;
            (log.segments(), state.active.clone(), log.annotations())
        };
        let describe = |segment: Arc<Segment>| {
            let sealed = if segment.is_sealed() {
                Sealed::decode(&segment.attributes)?
            } else {
                Sealed {
                    summary: active.clone(),
                    cleaned: 0,
                    epochs: Vec::new(),
                    index: index(&notes)?,
                }
            };
            Ok((segment, sealed))
        };
        segments.into_iter().map(describe).collect()
    }
}

/// The time index that the notes of the active segment make.
fn index(notes: &[Bytes]) -> Result<Vec<IndexEntry>, LogError> {
    let mut entries = Vec::new();
    for note in notes {
        if let Note::Summary(summary) = Note::decode(note)? {
            entries.push(summary.entry());
        }
    }
    Ok(entries)
}

impl Life {
    /// Why calls are not served.
    fn error(&self) -> LogError {
        match self {
            Self::Open | Self::Closed => LogError::Closed,
            Self::Deleted => LogError::Deleted,
            Self::Stopped(cause) => LogError::Stopped(cause.clone()),
        }
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("data", &self.shared.data.id())
            .field("offsets", &self.offsets())
            .finish()
    }
}
