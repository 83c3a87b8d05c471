//! Opening: the meta stream, then the data after the last note of the active segment, which is all that is read.

use std::sync::Arc;

use parking_lot::Mutex;
use s3stream::Stream;
use s3stream::segment::SegmentLog;

use super::{KafkaLog, Life, Shared, State, WallClock};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::read::whole_batch;
use crate::summary::{Sealed, Summary};

/// Bytes of data read at once.
const SCAN_BYTES: usize = 1 << 20;

impl KafkaLog {
    /// Opens the log on the streams of its group, as the engine gives them: the log, then its meta stream. Streams
    /// that were never appended to are an empty log.
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
        let Ok([data, meta]) = <[Stream; Self::STREAMS as usize]>::try_from(streams) else {
            return Err(LogError::StoredState(format!(
                "a log has {} streams",
                Self::STREAMS
            )));
        };
        let log = SegmentLog::open(data.clone(), meta).await?;
        let now_ms = clock.now_ms();
        let (active, noted_bytes) = recover(&log, now_ms).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                data,
                log,
                clock,
                state: Mutex::new(State {
                    config: Arc::new(config),
                    active,
                    noted_bytes,
                    life: Life::Open,
                }),
                maintenance: tokio::sync::Mutex::new(()),
            }),
        })
    }
}

/// The summary of the active segment, and how many of its bytes the last note covers.
async fn recover(log: &SegmentLog, now_ms: i64) -> Result<(Summary, u64), LogError> {
    let bounds = log.bounds();
    let segments = log.segments();
    for segment in segments.iter().filter(|segment| segment.is_sealed()) {
        Sealed::decode(&segment.attributes)?;
    }
    let Some(active) = segments.last().filter(|segment| !segment.is_sealed()) else {
        return Ok((Summary::new(bounds.next as i64, now_ms), 0));
    };
    let mut noted_bytes = 0;
    let mut summary = Summary::new(active.base as i64, now_ms);
    let notes = log.annotations();
    super::index(&notes)?;
    if let Some(note) = notes.last() {
        summary = Summary::decode_note(note)?;
        noted_bytes = summary.bytes;
        if summary.end < active.base as i64 || summary.end > bounds.confirm as i64 {
            return Err(LogError::StoredState(format!(
                "a note of offset {} in a segment of {}..{}",
                summary.end, active.base, bounds.confirm
            )));
        }
    }
    // What the log start hides counts as long as its segment is kept.
    let mut at = summary.end as u64;
    while at < bounds.confirm {
        let fetched = log.fetch_kept(at, SCAN_BYTES).await?;
        for record in &fetched.records {
            let batch = whole_batch(record)?;
            summary.add(batch.header(), record.payload.len() as u64, now_ms);
            at = record.offsets.end;
        }
        if fetched.records.is_empty() {
            return Err(LogError::StoredState(format!(
                "no batch at offset {at}, below the end {}",
                bounds.confirm
            )));
        }
    }
    Ok((summary, noted_bytes))
}
