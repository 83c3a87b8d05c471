//! Appending as follower: batches as their leader stored them, with the offsets and epochs they have.
//!
//! What a leader has taken is not judged again: no limits of size, no sequences, no transactions; producers are followed
//! as they are. Gaps between batches are allowed. A log whose leader has another history is cut first.

use bytes::Bytes;
use s3stream::Append;

use super::append::AppendHandle;
use super::{KafkaLog, Life, State};
use crate::batch::{Batch, Batches};
use crate::error::LogError;
use crate::position::AppendInfo;

/// Kafka's offsets have 63 bits; a record may begin in the gap before its batch, and one more bit is the streams'.
const LAST_OFFSET_MAX: i64 = 1 << 61;

impl KafkaLog {
    /// Appends whole batches at or past the log end, in order. The first whose leader epoch is above `leader_epoch`, and
    /// all after it, are left off: they are of a leader that this follower does not know yet. So is a batch that is cut
    /// off, and what cannot be appended once something was; go on from where it ended, and hear why.
    ///
    /// # Errors
    /// `Corrupt`, `UnsupportedFormat`, `InvalidEpoch`: a batch is damaged or too old. `UnexpectedAppendOffset`: they begin
    /// below the log end. `OffsetsOutOfOrder`: they do not ascend. `Overloaded`: no room now. In all these cases nothing
    /// was appended. `Stopped`, `Closed`, `Deleted`: the log is over.
    pub fn append_as_follower(
        &self,
        records: Bytes,
        leader_epoch: i32,
    ) -> Result<AppendHandle, LogError> {
        self.check_open()?;
        let batches = known_batches(records, leader_epoch)?;
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return Ok(self.nothing_appended());
        };
        let (first, last) = (first.header().base_offset, last.header().last_offset());
        let mut appended = Appended::default();
        let outcome = {
            let mut state = self.shared.state.lock();
            if !matches!(state.life, Life::Open) {
                return Err(state.life.error());
            }
            let leo = self.shared.log.bounds().next as i64;
            if first < leo {
                return Err(LogError::UnexpectedAppendOffset { first, last, leo });
            }
            self.write_all(&mut state, &batches, &mut appended)
        };
        match (outcome, appended.last) {
            (Ok(()), Some(append)) => {
                let info = AppendInfo {
                    first_offset: first,
                    last_offset: appended.last_offset,
                    max_timestamp: appended.max_timestamp,
                    log_append_time: -1,
                    log_start: self.offsets().log_start,
                    valid_bytes: appended.bytes,
                    duplicate: false,
                };
                Ok(self.queued(info, append))
            }
            (Ok(()), None) => Ok(self.nothing_appended()),
            (Err(error), _) => Err(self.failed(error)),
        }
    }

    fn write_all(
        &self,
        state: &mut State,
        batches: &[Batch],
        appended: &mut Appended,
    ) -> s3stream::Result<()> {
        let config = state.config.clone();
        let now_ms = self.shared.clock.now_ms();
        for batch in batches {
            let header = batch.header();
            let epochs = Self::epochs_with(state, header).expect("epochs were looked at");
            let records = batch.records();
            match self.write(
                state,
                &config,
                self.shared.log.bounds(),
                (header, &records),
                epochs,
                now_ms,
            ) {
                Ok(append) => appended.add(batch, append),
                // What is queued is told. What came in the way does so again when the caller goes on from there.
                Err(_) if appended.last.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What was appended so far.
struct Appended {
    last: Option<Append>,
    last_offset: i64,
    max_timestamp: i64,
    bytes: u64,
}

impl Default for Appended {
    fn default() -> Self {
        Self {
            last: None,
            last_offset: -1,
            max_timestamp: -1,
            bytes: 0,
        }
    }
}

impl Appended {
    fn add(&mut self, batch: &Batch, append: Append) {
        let header = batch.header();
        self.last = Some(append);
        self.last_offset = header.last_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.bytes += header.size();
    }
}

/// The batches up to the first of a leader epoch that is not known yet.
fn known_batches(records: Bytes, leader_epoch: i32) -> Result<Vec<Batch>, LogError> {
    let mut known: Vec<Batch> = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch?;
        let header = batch.header();
        if header.partition_leader_epoch > leader_epoch {
            break;
        }
        batch.verify_checksum()?;
        let (base, last) = (header.base_offset, header.last_offset());
        if header.last_offset_delta < 0 || base < 0 || last > LAST_OFFSET_MAX {
            return Err(LogError::Corrupt(format!(
                "a batch of offsets {base}..={last}"
            )));
        }
        if header.partition_leader_epoch < 0 {
            return Err(LogError::InvalidEpoch {
                epoch: header.partition_leader_epoch,
                start: base,
            });
        }
        let before = known.last().map(|batch| batch.header().last_offset());
        if let Some(last) = before.filter(|last| base <= *last) {
            return Err(LogError::OffsetsOutOfOrder { offset: base, last });
        }
        known.push(batch);
    }
    Ok(known)
}
