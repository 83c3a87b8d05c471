//! Leader epochs of the log: kept in memory, and noted to a segment before the first batch of an epoch.
//!
//! An epoch without a batch is in memory alone: it is gone when the log is opened again, as in Kafka, whose loading cuts
//! epochs at the log end.

use super::{KafkaLog, State};
use crate::epochs::{EpochEnd, EpochStart, Epochs};
use crate::error::LogError;
use crate::header::BatchHeader;
use crate::summary::{Note, SEGMENT_EPOCHS_MAX};

impl KafkaLog {
    /// Lets a leader epoch begin at the log end, as when becoming leader.
    ///
    /// # Errors
    /// `InvalidEpoch`: it is negative. `Stopped`, `Closed`, `Deleted`: the log is over.
    pub fn assign_epoch_start(&self, epoch: i32) -> Result<(), LogError> {
        self.check_open()?;
        let mut state = self.shared.state.lock();
        let end = self.shared.log.bounds().next as i64;
        state.epochs.assign(epoch, end)
    }

    /// The latest leader epoch, -1 for none.
    pub fn latest_epoch(&self) -> i32 {
        let latest = self.shared.state.lock().epochs.latest();
        latest.map_or(-1, |latest| latest.epoch)
    }

    /// The leader epochs that the log knows, oldest first.
    pub fn epoch_starts(&self) -> Vec<EpochStart> {
        self.known_epochs().starts().to_vec()
    }

    /// The epochs as the log start cuts them. What is kept is not cut, so that notes say where an epoch really began.
    fn known_epochs(&self) -> Epochs {
        let mut epochs = self.shared.state.lock().epochs.clone();
        epochs.truncate_from_start(self.offsets().log_start);
        epochs
    }

    /// Where the largest leader epoch at or below `epoch` ends; never past what is durable (K2). Only after making
    /// sure that the log is still this node's (S8).
    ///
    /// # Errors
    /// `Storage`: try again. `NotLeader`: another owns the log. `Stopped`, `Deleted`: the log is over.
    pub async fn offset_for_leader_epoch(&self, epoch: i32) -> Result<EpochEnd, LogError> {
        self.check_readable()?;
        let current = self.shared.data.latest().await;
        current.map_err(|error| self.failed(error))?;
        // Or of another instance here, if the log below was reopened.
        self.check_readable()?;
        let confirmed = self.offsets().confirmed;
        let mut end = self.known_epochs().end_offset(epoch, confirmed);
        end.end_offset = end.end_offset.min(confirmed);
        Ok(end)
    }

    /// The epoch at `offset`, -1 if it is not known.
    pub(super) fn epoch_at(&self, offset: i64) -> i32 {
        self.shared.state.lock().epochs.at(offset).unwrap_or(-1)
    }

    /// The epochs once this batch is in the log, if the meta stream does not have them yet.
    pub(super) fn epochs_with(
        state: &State,
        header: &BatchHeader,
    ) -> Result<Option<Epochs>, LogError> {
        let (epoch, start) = (header.partition_leader_epoch, header.base_offset);
        let latest = state.epochs.latest().map(|latest| latest.epoch);
        if latest == Some(epoch) && state.noted_epoch == epoch {
            return Ok(None);
        }
        let mut epochs = state.epochs.clone();
        epochs.assign(epoch, start)?;
        Ok(Some(epochs))
    }

    /// Notes the latest of `epochs`, which are in force then. It comes before the batch in the log, so whoever has the
    /// batch has the note.
    pub(super) fn note_epochs(
        &self,
        state: &mut State,
        epochs: Epochs,
        now_ms: i64,
    ) -> s3stream::Result<()> {
        let Some(latest) = epochs.latest() else {
            return Ok(());
        };
        if state.epoch_notes >= SEGMENT_EPOCHS_MAX {
            self.seal(state, now_ms)?;
        }
        let note = Note::Epoch(latest).encode();
        let _order_is_enough = self.shared.log.annotate(note, None)?;
        state.epochs = epochs;
        state.noted_epoch = latest.epoch;
        state.epoch_notes += 1;
        Ok(())
    }
}
