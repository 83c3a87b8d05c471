//! What each request does to a transactional id: Kafka's rules, in Kafka's order.
//!
//! Functions of what is known of the id, what is asked, and the time. A [`Step`] says what becomes of the id and what the
//! asker is told; nothing is changed here. `docs/decisions/0018-transactions.md` tells where Kafka is followed and why.

use kafka_protocol::error::ResponseError;
use segment_adapter::TransactionVersion;

use super::{
    record,
    transaction::{EPOCH_LAST, Partitions, Status, Transaction},
};

/// The most bytes of a record: well below what a batch may have.
const RECORD_BYTES_MAX: usize = 900 << 10;

/// A producer id with its epoch.
pub(crate) type Holder = (i64, i16);

/// Why a request is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The client is told.
    Error(ResponseError),
    /// It takes a producer id that nobody has: ask again with one.
    NeedsProducerId,
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Self::Error(error)
    }
}

/// What a request does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step<T> {
    /// What the id becomes, one after the other.
    pub(crate) changes: Vec<Transaction>,
    pub(crate) answer: Result<T, Refused>,
}

impl<T> Step<T> {
    fn only(answer: T) -> Self {
        Self {
            changes: Vec::new(),
            answer: Ok(answer),
        }
    }

    fn refused(refused: impl Into<Refused>) -> Self {
        Self {
            changes: Vec::new(),
            answer: Err(refused.into()),
        }
    }

    fn changing(change: Transaction, answer: T) -> Self {
        Self {
            changes: vec![change],
            answer: Ok(answer),
        }
    }
}

/// InitProducerId: somebody wants to be the producer of this id. `holder` is what it has been given before, if anything.
pub(crate) fn init(
    known: Option<&Transaction>,
    holder: Option<Holder>,
    timeout_ms: i32,
    spare: Option<i64>,
    now_ms: i64,
) -> Step<Holder> {
    let Some(txn) = known else {
        return match spare {
            Some(id) => Step::changing(Transaction::new(id, timeout_ms, now_ms), (id, 0)),
            None => Step::refused(Refused::NeedsProducerId),
        };
    };
    if txn.status.is_ending() {
        return Step::refused(ResponseError::ConcurrentTransactions);
    }
    let current = (txn.producer_id, txn.epoch);
    let lost = holder.is_some_and(|(id, epoch)| txn.succeeds(id, epoch));
    if holder.is_some_and(|holder| holder != current) && !lost {
        return Step::refused(ResponseError::ProducerFenced);
    }
    let by_holder = holder.is_some();
    if txn.status == Status::Ongoing {
        // The asker tries again until the transaction has been aborted, and is then given the next epoch.
        return Step {
            changes: vec![txn.fenced(by_holder, now_ms)],
            answer: Err(ResponseError::ConcurrentTransactions.into()),
        };
    }
    let change = match (txn.is_exhausted(), spare) {
        (true, None) => return Step::refused(Refused::NeedsProducerId),
        (true, Some(id)) => txn.rotated(id, by_holder, timeout_ms, now_ms),
        // Its answer was lost: the same again.
        (false, _) if lost => return Step::only(current),
        (false, _) => txn.begun_anew(by_holder, timeout_ms, now_ms),
    };
    let given = (change.producer_id, change.epoch);
    Step::changing(change, given)
}

/// AddPartitionsToTxn, and what stands for it: these partitions are about to be written.
pub(crate) fn add(
    known: Option<&Transaction>,
    holder: Holder,
    partitions: &Partitions,
    version: TransactionVersion,
    now_ms: i64,
) -> Step<()> {
    let Some(txn) = known else {
        return Step::refused(ResponseError::InvalidProducerIdMapping);
    };
    // First of all: its holder may know what it will have when the end is reached.
    if txn.status.is_ending() {
        return Step::refused(ResponseError::ConcurrentTransactions);
    }
    if let Err(error) = check_holder(txn, holder) {
        return Step::refused(error);
    }
    if txn.missing(partitions).is_empty() {
        return Step::only(());
    }
    let change = txn.with_partitions(partitions, version, now_ms);
    if record::encode_value(&change).len() > RECORD_BYTES_MAX {
        return Step::refused(ResponseError::InvalidRequest);
    }
    Step::changing(change, ())
}

/// Those of `partitions` that are not of the transaction that their holder says it writes.
pub(crate) fn verify(
    known: Option<&Transaction>,
    holder: Holder,
    partitions: &Partitions,
) -> Result<Partitions, ResponseError> {
    let txn = known.ok_or(ResponseError::InvalidProducerIdMapping)?;
    check_holder(txn, holder)?;
    if txn.status.is_ending() {
        return Err(ResponseError::ConcurrentTransactions);
    }
    Ok(txn.missing(partitions))
}

fn check_holder(txn: &Transaction, (id, epoch): Holder) -> Result<(), ResponseError> {
    if id != txn.producer_id {
        return Err(ResponseError::InvalidProducerIdMapping);
    }
    if epoch != txn.epoch {
        return Err(ResponseError::ProducerFenced);
    }
    Ok(())
}

/// EndTxn; the answer is the id and epoch of the next transaction.
pub(crate) fn end(
    known: Option<&Transaction>,
    holder: Holder,
    commit: bool,
    version: TransactionVersion,
    spare: Option<i64>,
    now_ms: i64,
) -> Step<Holder> {
    let Some(txn) = known else {
        return Step::refused(ResponseError::InvalidProducerIdMapping);
    };
    let found = match version {
        TransactionVersion::V2 => end_bumping(txn, holder, commit),
        TransactionVersion::V0 | TransactionVersion::V1 => end_same_epoch(txn, holder, commit),
    };
    match found {
        Err(error) => Step::refused(error),
        Ok(End::WasDone) => Step::only((txn.producer_id, txn.epoch)),
        Ok(End::Now) => {
            let rotates = version == TransactionVersion::V2 && txn.is_exhausted();
            if rotates && spare.is_none() {
                return Step::refused(Refused::NeedsProducerId);
            }
            let next = spare.filter(|_| rotates);
            let prepared = txn.ended(commit, version, next, now_ms);
            let completed = prepared.completed(now_ms);
            let given = (completed.producer_id, completed.epoch);
            let mut changes = vec![prepared];
            // Nobody has to be told.
            if txn.status != Status::Ongoing {
                changes.push(completed);
            }
            Step {
                changes,
                answer: Ok(given),
            }
        }
    }
}

/// What an EndTxn finds.
enum End {
    Now,
    /// It is the repetition of one whose answer was lost.
    WasDone,
}

/// The epoch stays over transactions: the same end again is a repetition (F48).
fn end_same_epoch(txn: &Transaction, holder: Holder, commit: bool) -> Result<End, ResponseError> {
    check_holder(txn, holder)?;
    match txn.status {
        Status::Ongoing => Ok(End::Now),
        Status::PrepareCommit | Status::PrepareAbort if ends_so(txn.status, commit) => {
            Err(ResponseError::ConcurrentTransactions)
        }
        Status::CompleteCommit | Status::CompleteAbort if ends_so(txn.status, commit) => {
            Ok(End::WasDone)
        }
        _ => Err(ResponseError::InvalidTxnState),
    }
}

/// The epoch rises with each end: who comes with the one before repeats its last end.
fn end_bumping(txn: &Transaction, holder: Holder, commit: bool) -> Result<End, ResponseError> {
    let (id, epoch) = holder;
    let is_current = holder == (txn.producer_id, txn.epoch);
    let repeats = id == txn.producer_id && epoch.checked_add(1) == Some(txn.epoch);
    let repeats_last = epoch == EPOCH_LAST && id != txn.producer_id && txn.succeeds(id, epoch);
    if txn.status.is_ending() {
        return Err(match (repeats, is_current || txn.next == Some(id)) {
            (true, _) if !ends_so(txn.status, commit) => ResponseError::InvalidTxnState,
            (true, _) | (_, true) => ResponseError::ConcurrentTransactions,
            _ if id != txn.producer_id => ResponseError::InvalidProducerIdMapping,
            _ => ResponseError::ProducerFenced,
        });
    }
    if id != txn.producer_id && !repeats_last {
        return Err(ResponseError::InvalidProducerIdMapping);
    }
    let is_complete = matches!(txn.status, Status::CompleteCommit | Status::CompleteAbort);
    match (is_current, is_complete && (repeats || repeats_last)) {
        (_, true) if ends_so(txn.status, commit) => Ok(End::WasDone),
        (_, true) => Err(ResponseError::InvalidTxnState),
        (false, false) => Err(ResponseError::ProducerFenced),
        (true, false) if txn.status == Status::Ongoing => Ok(End::Now),
        // An abort of nothing: whoever is not sure whether there was anything.
        (true, false) if !commit => Ok(End::Now),
        (true, false) => Err(ResponseError::InvalidTxnState),
    }
}

fn ends_so(status: Status, commit: bool) -> bool {
    match status {
        Status::PrepareCommit | Status::CompleteCommit => commit,
        Status::PrepareAbort | Status::CompleteAbort => !commit,
        Status::Empty | Status::Ongoing | Status::Dead => false,
    }
}

#[cfg(test)]
mod tests;
