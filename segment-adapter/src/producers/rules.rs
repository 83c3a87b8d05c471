//! Which batches of a producer a leader takes: Kafka's rules of epochs, sequences and transactions, in Kafka's order.
//!
//! Nothing is changed by asking. What is in the log is never judged: a follower, and whoever opens a log, takes it as it is.

use super::producer::{Produced, Producer};
use super::{Entry, Producers};
use crate::error::LogError;
use crate::header::BatchHeader;
use crate::marker::Marker;
use crate::position::{Origin, TransactionVersion};
use crate::verification::{Guard, Verification};

/// What a batch is judged by, besides the producers.
pub(crate) struct Request<'a> {
    pub(crate) origin: Origin,
    pub(crate) guard: &'a Guard,
    pub(crate) version: Option<TransactionVersion>,
    /// That of the producer, if one was started.
    pub(crate) verification: Option<&'a Verification>,
    /// Whether a transaction must have been verified to begin.
    pub(crate) verify: bool,
    /// The most transactions that may be open.
    pub(crate) open_max: usize,
    /// The most that may be open or kept as aborted.
    pub(crate) aborted_max: usize,
}

impl Producers {
    /// Whether a batch may be appended, or is one that was: then that one.
    pub(crate) fn check(
        &self,
        entry: &Entry,
        request: &Request<'_>,
    ) -> Result<Option<Produced>, LogError> {
        let header = entry.header;
        if header.producer_id < 0 {
            return Ok(None);
        }
        let known = self.known.get(&header.producer_id);
        if let Some(marker) = entry.marker {
            check_marker(known, header, marker, request.version)?;
            return Ok(None);
        }
        if request.origin == Origin::Client
            && let Some(original) = known.and_then(|known| known.repeated(header))
        {
            return Ok(Some(original));
        }
        check_epoch(known, header)?;
        self.check_begin(known, header, request)?;
        if request.origin == Origin::Client {
            check_sequence(known, header, request.verification)?;
        }
        if known.is_some_and(Producer::has_open_txn) && !header.attributes.is_transactional() {
            return Err(invalid_txn_state(
                header,
                "it has an open transaction, and the batch is not a part of one",
            ));
        }
        Ok(None)
    }

    /// A transaction begins only with a guard, and if there is room for one more.
    fn check_begin(
        &self,
        known: Option<&Producer>,
        header: &BatchHeader,
        request: &Request<'_>,
    ) -> Result<(), LogError> {
        let open = known.is_some_and(|known| known.has_open_txn());
        let goes_on = open && known.is_some_and(|known| known.epoch == header.producer_epoch);
        if !header.attributes.is_transactional() || goes_on {
            return Ok(());
        }
        let verified = request
            .verification
            .is_some_and(|started| !request.guard.is_none() && started.guard == *request.guard);
        if request.verify && !verified {
            return Err(invalid_txn_state(
                header,
                "the transaction was not verified with its coordinator",
            ));
        }
        if !open && self.open.len() >= request.open_max {
            return Err(LogError::Busy(format!(
                "{} transactions are open, as many as there may be",
                self.open.len()
            )));
        }
        // Each that is open may be aborted, and that is never refused.
        if !open && self.open.len() + self.aborted.len() >= request.aborted_max {
            return Err(LogError::Busy(format!(
                "{} aborted transactions are kept, with {} open ones as many as there may be",
                self.aborted.len(),
                self.open.len()
            )));
        }
        Ok(())
    }
}

fn check_epoch(known: Option<&Producer>, header: &BatchHeader) -> Result<(), LogError> {
    match known {
        Some(known) if header.producer_epoch < known.epoch => Err(old_epoch(known, header)),
        _ => Ok(()),
    }
}

fn check_sequence(
    known: Option<&Producer>,
    header: &BatchHeader,
    verification: Option<&Verification>,
) -> Result<(), LogError> {
    let wrong = |expected| {
        Err(LogError::OutOfOrderSequence {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            sequence: header.base_sequence,
            expected,
        })
    };
    if let Some(started) = verification {
        if started.bumps_epoch && known.is_none() && header.base_sequence != 0 {
            return wrong(0);
        }
        if header.base_sequence > started.sequence {
            return wrong(started.sequence);
        }
    }
    match known.map(|known| known.next_sequence(header.producer_epoch)) {
        Some(expected) if header.base_sequence != expected => wrong(expected),
        _ => Ok(()),
    }
}

fn check_marker(
    known: Option<&Producer>,
    header: &BatchHeader,
    marker: Marker,
    version: Option<TransactionVersion>,
) -> Result<(), LogError> {
    let version = version.ok_or(LogError::NoTransactionVersion)?;
    let Some(known) = known else {
        return Ok(());
    };
    // With epochs that rise, the marker has the next; the same one is the retry of a marker that is there.
    let may_be_same = version != TransactionVersion::V2
        || !known.has_open_txn()
        || header.producer_epoch == i16::MAX;
    let is_old = header.producer_epoch < known.epoch
        || (header.producer_epoch == known.epoch && !may_be_same);
    if is_old {
        return Err(old_epoch(known, header));
    }
    if marker.coordinator_epoch < known.coordinator_epoch {
        return Err(LogError::CoordinatorFenced {
            producer_id: header.producer_id,
            epoch: marker.coordinator_epoch,
            current: known.coordinator_epoch,
        });
    }
    Ok(())
}

fn old_epoch(known: &Producer, header: &BatchHeader) -> LogError {
    LogError::InvalidProducerEpoch {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        current: known.epoch,
    }
}

fn invalid_txn_state(header: &BatchHeader, reason: &'static str) -> LogError {
    LogError::InvalidTxnState {
        producer_id: header.producer_id,
        reason,
    }
}
