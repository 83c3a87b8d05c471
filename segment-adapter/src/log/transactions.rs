//! Transactions on a log: verification before they begin, the markers that end them, and what an operator asks.

use super::KafkaLog;
use super::append::AppendHandle;
use crate::error::LogError;
use crate::marker::Marker;
use crate::position::{ActiveProducer, AppendOptions, Origin, TransactionVersion};
use crate::verification::Guard;

/// How much longer than the longest time-out a transaction may be open before it is late.
const LATE_AFTER_MS: i64 = 5 * 60 * 1000;

/// The end of a producer's transaction, as its coordinator has decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndTxn {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch; the next one in version 2.
    pub producer_epoch: i16,
    /// The coordinator's epoch.
    pub coordinator_epoch: i32,
    /// Whether what was written counts.
    pub commit: bool,
    /// What the transaction is under.
    pub version: TransactionVersion,
}

impl KafkaLog {
    /// Begins to verify a transaction whose first batch here is about to have this epoch and sequence. With a guard, ask
    /// the coordinator and append with it; [`Guard::NONE`]: the transaction goes on, there is nothing to ask.
    /// `bumps_epoch` says that the producer's epoch rises with each transaction (version 2).
    ///
    /// # Errors
    /// `InvalidProducerEpoch`: a newer instance has written. `Stopped`, `Closed`, `Deleted`: the log is over.
    pub fn start_verification(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        sequence: i32,
        bumps_epoch: bool,
    ) -> Result<Guard, LogError> {
        self.check_open()?;
        let now_ms = self.shared.clock.now_ms();
        let mut state = self.shared.state.lock();
        let known = state.producers.epoch(producer_id);
        if let Some(current) = known.filter(|current| producer_epoch < *current) {
            return Err(LogError::InvalidProducerEpoch {
                producer_id,
                epoch: producer_epoch,
                current,
            });
        }
        if state.producers.has_open_txn(producer_id, producer_epoch) {
            return Ok(Guard::NONE);
        }
        let max = state.config.producers_max;
        let asked = (producer_epoch, sequence);
        let verifications = &mut state.verifications;
        Ok(verifications.start(producer_id, asked, bumps_epoch, now_ms, max))
    }

    /// The coordinator has refused what a guard was given for. Who else has one of the same verification goes on.
    pub fn give_up_verification(&self, producer_id: i64, guard: Guard) {
        let mut state = self.shared.state.lock();
        state.verifications.give_up(producer_id, &guard);
    }

    /// The guard of the verification that was started for a producer, or [`Guard::NONE`].
    pub fn verification_guard(&self, producer_id: i64) -> Guard {
        let state = self.shared.state.lock();
        let started = state.verifications.get(producer_id);
        started.map_or(Guard::NONE, |started| started.guard.clone())
    }

    /// Whether the producer has an open transaction here in this epoch.
    pub fn has_open_transaction(&self, producer_id: i64, producer_epoch: i16) -> bool {
        let state = self.shared.state.lock();
        state.producers.has_open_txn(producer_id, producer_epoch)
    }

    /// Whether the producer has an open transaction here, in whatever epoch.
    pub fn is_in_transaction(&self, producer_id: i64) -> bool {
        let state = self.shared.state.lock();
        let epoch = state.producers.epoch(producer_id);
        epoch.is_some_and(|epoch| state.producers.has_open_txn(producer_id, epoch))
    }

    /// The coordinator's epoch of the last marker of a producer; -1 if there is none.
    pub fn coordinator_epoch(&self, producer_id: i64) -> i32 {
        self.shared
            .state
            .lock()
            .producers
            .coordinator_epoch(producer_id)
    }

    /// Appends the marker that ends a transaction. One without a batch here is ended likewise: its epochs count.
    ///
    /// # Errors
    /// `InvalidProducerEpoch`, `CoordinatorFenced`: somebody newer has spoken. Else as [`Self::append_with`].
    pub fn append_end_txn(&self, end: EndTxn, leader_epoch: i32) -> Result<AppendHandle, LogError> {
        let marker = Marker {
            commit: end.commit,
            coordinator_epoch: end.coordinator_epoch,
        };
        let now_ms = self.shared.clock.now_ms();
        let built = marker.build(end.producer_id, end.producer_epoch, now_ms);
        let batch = built.map_err(|error| LogError::invalid_record(error.to_string()))?;
        let options = AppendOptions {
            origin: Origin::Coordinator,
            guard: Guard::NONE,
            version: Some(end.version),
        };
        self.append_with(batch, leader_epoch, &options)
    }

    /// The first offset of a transaction that is open or whose end is not below the high watermark, not below the log start.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let mut state = self.shared.state.lock();
        let offsets = self.offsets_in(&mut state);
        let unstable = state.producers.first_unstable(offsets.hw);
        unstable.map(|offset| offset.max(offsets.log_start))
    }

    /// How many producers the log knows.
    pub fn producers_count(&self) -> usize {
        self.shared.state.lock().producers.count()
    }

    /// The producers that the log knows, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.shared.state.lock().producers.active()
    }

    /// Whether the oldest open transaction has been silent for longer than any may last: its coordinator has probably
    /// forgotten it, and an operator should end it.
    pub fn has_late_transaction(&self, now_ms: i64) -> bool {
        let state = self.shared.state.lock();
        let limit = state.config.transaction_timeout_max_ms;
        let oldest = state.producers.oldest_open_timestamp();
        let oldest = oldest.filter(|timestamp| *timestamp > 0);
        oldest.is_some_and(|oldest| {
            now_ms.saturating_sub(oldest) > limit.saturating_add(LATE_AFTER_MS)
        })
    }
}
