//! Noting where the log is: before it is closed, and when its owner asks for it.

use s3stream::Append;

use super::{KafkaLog, Life, State};
use crate::error::LogError;
use crate::summary::Note;

/// So many notes a segment has before one that somebody asks for begins the next segment: those that an append needs have
/// room as well.
const NOTES_MAX: usize = 2048;
const _: () = assert!(NOTES_MAX * 2 <= s3stream::segment::ANNOTATIONS_MAX);

impl KafkaLog {
    /// Notes where the log is and what it knows of producers, and writes its metadata anew: opening it reads this and what
    /// comes after. Kept when it returns, with all that was appended before.
    ///
    /// # Errors
    /// `Storage`, `Overloaded`: nothing is lost; call again. `Stopped`, `Closed`, `Deleted`: the log is over.
    pub async fn checkpoint(&self) -> Result<(), LogError> {
        let _one_at_a_time = self.shared.maintenance.lock().await;
        self.check_open()?;
        let noted = {
            let mut state = self.shared.state.lock();
            if !matches!(state.life, Life::Open) {
                return Err(state.life.error());
            }
            self.note_all(&mut state)
        };
        // Its order before the checkpoint is enough.
        let _order_is_enough = noted.map_err(|error| self.failed(error))?;
        let written = self.shared.log.checkpoint(|| {
            let state = self.shared.state.lock();
            let producers = state.producers.encode();
            (state, producers)
        });
        written.await.map_err(|error| self.failed(error))?;
        let flushed = self.shared.log.flushed().await;
        flushed.map_err(|error| self.failed(error))
    }

    /// Notes what the active segment holds, and what has changed of the producers, unless both are noted.
    pub(super) fn note_all(&self, state: &mut State) -> s3stream::Result<Option<Append>> {
        let change = state.producers.encode_changed();
        if state.active.bytes == state.noted_bytes && change.is_none() {
            return Ok(None);
        }
        let log = &self.shared.log;
        if state.active.bytes > 0 && log.annotations().len() >= NOTES_MAX {
            let now_ms = self.shared.clock.now_ms();
            self.seal(state, now_ms)?;
            return Ok(None);
        }
        let note = Note::Summary(state.active.clone()).encode();
        let append = log.annotate(note, change)?;
        state.producers.set_kept();
        state.noted_bytes = state.active.bytes;
        Ok(Some(append))
    }
}
