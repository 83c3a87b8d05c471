//! The transactional ids of one partition of `__transaction_state`: who holds each, what is to be ended, and when.
//!
//! Ids are forgotten after a time of rest, and when there are [`IDS_MAX`] the one that has rested for longest makes room
//! for another, if it has rested for [`REST_MS`].
//! A transaction that is older than its time-out is aborted here, with the epoch after its holder's: nobody has to ask.
//! What is decided is put into the [`Outbox`] until every partition has its marker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::error::ResponseError;
use segment_adapter::TransactionVersion;

use super::{
    markers::Outbox,
    record::{self, RecordError},
    rules::{self, Holder, Refused, Step},
    transaction::{Partitions, Status, Transaction},
};
use crate::coordinator::{Machine, Now, Out, Slot, Stored, StoredError};

/// Transactional ids of one partition.
const IDS_MAX: usize = 5_000;
/// The longest transactional id, in bytes: well below what a record's key may have.
const ID_BYTES_MAX: usize = 1_024;
/// About the memory that all ids of one partition may have, with their transactions.
const BYTES_MAX: usize = 16 << 20;
/// An id makes room for another only after so long a rest: its producer may be between two transactions.
const REST_MS: i64 = 15 * 60 * 1000;
/// Ids that one pass over what is due takes, and about how many bytes of them.
const DUE_MAX: usize = 256;
const DUE_BYTES_MAX: usize = 2 << 20;
/// The least time between two such passes.
const PASS_PAUSE_MS: i64 = 100;

/// What becomes of a transactional id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(super) id: String,
    /// `None` forgets it.
    pub(super) txn: Option<Transaction>,
}

/// A decided transaction, whose partitions are to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ending {
    pub(crate) txn: Transaction,
    /// The epoch of this coordinator: an older one is fenced by the logs.
    pub(crate) coordinator_epoch: i32,
}

/// When something is due, and of which id.
type Due = (i64, String);

/// The state of one partition.
#[derive(Debug)]
pub(crate) struct Transactions {
    partition: i32,
    epoch: i32,
    id_expiration_ms: i64,
    outbox: Arc<Outbox>,
    known: BTreeMap<String, Transaction>,
    /// About the memory of them.
    bytes: usize,
    /// Until then an id that is not known may be one that had to make room before its time.
    made_room_until_ms: i64,
    /// Ongoing transactions by when their time is over, in wall time.
    timeouts: BTreeSet<Due>,
    /// Ids at rest by when they are forgotten.
    expiries: BTreeSet<Due>,
    /// Who waits for the end of a transaction; gone with the shard, so nobody waits for ever.
    waiting: BTreeMap<String, Slot<()>>,
    /// Not before this is a pass made over what is due.
    rests_until_ms: i64,
    /// The last that a pass has offered.
    offered: Option<Due>,
    /// Wall time less the time that deadlines count in.
    skew_ms: i64,
    loaded: bool,
}

impl Transactions {
    pub(super) fn new(
        partition: i32,
        epoch: i32,
        id_expiration_ms: i64,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            partition,
            epoch,
            id_expiration_ms,
            outbox,
            known: BTreeMap::new(),
            bytes: 0,
            made_room_until_ms: i64::MIN,
            timeouts: BTreeSet::new(),
            expiries: BTreeSet::new(),
            waiting: BTreeMap::new(),
            rests_until_ms: i64::MIN,
            offered: None,
            skew_ms: 0,
            loaded: false,
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Transaction> {
        self.known.get(id)
    }

    /// About the memory of what is known of `id`.
    pub(super) fn weight(&self, id: &str) -> usize {
        weight(id, self.known.get(id))
    }

    /// All ids.
    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Transaction)> {
        self.known.iter()
    }

    pub(super) fn init(
        &mut self,
        id: &str,
        holder: Option<Holder>,
        timeout_ms: i32,
        spare: Option<i64>,
        now: Now,
        out: &mut Out<Change>,
    ) -> Result<Holder, Refused> {
        self.note_time(now);
        if id.len() > ID_BYTES_MAX {
            return Err(ResponseError::InvalidRequest.into());
        }
        let known = self.known.contains_key(id);
        if !known && holder.is_some() && now.wall_ms < self.made_room_until_ms {
            // It may have been replaced before its id made room: nobody knows any more.
            return Err(ResponseError::ProducerFenced.into());
        }
        if !known && spare.is_some() {
            self.check_room(weight(id, None))?;
            if self.known.len() >= IDS_MAX {
                self.make_room(now, out)?;
            }
        }
        let known = self.known.get(id);
        let step = rules::init(known, holder, timeout_ms, spare, now.wall_ms);
        self.take(id, step, out)
    }

    /// Forgets whom nobody has asked for in the longest time.
    fn make_room(&mut self, now: Now, out: &mut Out<Change>) -> Result<(), Refused> {
        let first = self.expiries.first().map(|(_, id)| id);
        let rested = first.and_then(|id| Some((id, self.known.get(id)?.updated_ms)));
        let rested = rested.filter(|(_, since)| now.wall_ms.saturating_sub(*since) >= REST_MS);
        let Some((id, since)) = rested else {
            tracing::warn!(
                partition = self.partition,
                "{IDS_MAX} transactional ids are in use, as many as there may be"
            );
            return Err(ResponseError::CoordinatorNotAvailable.into());
        };
        tracing::info!(
            id,
            partition = self.partition,
            "a transactional id makes room for another"
        );
        let until = since.saturating_add(self.id_expiration_ms);
        out.record(Change {
            id: id.clone(),
            txn: None,
        });
        self.made_room_until_ms = self.made_room_until_ms.max(until);
        Ok(())
    }

    /// Whether there is memory for so much more.
    fn check_room(&self, more: usize) -> Result<(), Refused> {
        if self.bytes.saturating_add(more) <= BYTES_MAX {
            return Ok(());
        }
        tracing::warn!(
            partition = self.partition,
            bytes = self.bytes,
            "transactions have as much memory as they may"
        );
        Err(ResponseError::CoordinatorNotAvailable.into())
    }

    pub(super) fn add(
        &mut self,
        id: &str,
        holder: Holder,
        partitions: &Partitions,
        version: TransactionVersion,
        now: Now,
        out: &mut Out<Change>,
    ) -> Result<(), Refused> {
        self.note_time(now);
        let step = rules::add(self.known.get(id), holder, partitions, version, now.wall_ms);
        if let Some(change) = step.changes.last() {
            let before = self.known.get(id).map_or(0, |txn| weight(id, Some(txn)));
            self.check_room(weight(id, Some(change)).saturating_sub(before))?;
        }
        self.take(id, step, out)
    }

    /// Ends a transaction; `done` is filled once every partition has been told.
    #[allow(
        clippy::too_many_arguments,
        reason = "what the request says, and what every operation has"
    )]
    pub(super) fn end(
        &mut self,
        id: &str,
        holder: Holder,
        commit: bool,
        version: TransactionVersion,
        spare: Option<i64>,
        now: Now,
        out: &mut Out<Change>,
        done: Slot<()>,
    ) -> Result<Holder, Refused> {
        self.note_time(now);
        let known = self.known.get(id);
        let step = rules::end(known, holder, commit, version, spare, now.wall_ms);
        match step.changes.last() {
            Some(last) if last.status.is_ending() => drop(self.waiting.insert(id.to_owned(), done)),
            _ => out.reply(done, ()),
        }
        self.take(id, step, out)
    }

    fn take<T>(&self, id: &str, step: Step<T>, out: &mut Out<Change>) -> Result<T, Refused> {
        let mut before = self.known.get(id).map(|txn| txn.status);
        for txn in step.changes {
            debug_assert!(
                before.is_none_or(|before| txn.status.may_follow(before)),
                "{txn:?}"
            );
            before = Some(txn.status);
            self.write(id, txn, out);
        }
        step.answer
    }

    fn write(&self, id: &str, txn: Transaction, out: &mut Out<Change>) {
        out.record(Change {
            id: id.to_owned(),
            txn: Some(txn),
        });
    }

    /// The end of a transaction that is under way.
    pub(super) fn ending(&self, id: &str) -> Option<Ending> {
        let txn = self.known.get(id)?;
        txn.status.is_ending().then(|| Ending {
            txn: txn.clone(),
            coordinator_epoch: self.epoch,
        })
    }

    /// Every partition has its marker.
    pub(super) fn complete(&mut self, id: &str, ending: &Ending, now: Now, out: &mut Out<Change>) {
        self.note_time(now);
        if self.ending(id).as_ref() != Some(ending) {
            return;
        }
        self.write(id, ending.txn.completed(now.wall_ms), out);
        if let Some(done) = self.waiting.remove(id) {
            out.reply(done, ());
        }
    }

    /// Takes `id` out of what it is due for.
    fn forget_deadline(&mut self, id: &str) {
        if let Some(txn) = self.known.get(id) {
            self.timeouts.remove(&(timeout_at(txn), id.to_owned()));
            let expiry = self.expiry_of(txn);
            self.expiries.remove(&(expiry, id.to_owned()));
        }
    }

    fn note_deadline(&mut self, id: &str, txn: &Transaction) {
        match txn.status {
            Status::Ongoing => drop(self.timeouts.insert((timeout_at(txn), id.to_owned()))),
            Status::Empty | Status::CompleteCommit | Status::CompleteAbort => {
                let expiry = self.expiry_of(txn);
                self.expiries.insert((expiry, id.to_owned()));
            }
            Status::PrepareCommit | Status::PrepareAbort | Status::Dead => {}
        }
    }

    fn expiry_of(&self, txn: &Transaction) -> i64 {
        txn.updated_ms.saturating_add(self.id_expiration_ms)
    }

    /// What one pass takes of what is due: time-outs before ids at rest. If the pass before was refused, it takes one alone,
    /// and each pass another: what cannot be written does not hold up the rest.
    fn due(&self, now_ms: i64) -> Vec<Due> {
        let due = |all| BTreeSet::iter(all).take_while(move |(at, _)| *at <= now_ms);
        let is_left = |due: &&Due| self.timeouts.contains(*due) || self.expiries.contains(*due);
        if let Some(refused) = self.offered.as_ref().filter(is_left) {
            let all = || due(&self.timeouts).chain(due(&self.expiries));
            let after = all().skip_while(|due| *due != refused).nth(1);
            return after
                .or_else(|| all().next())
                .into_iter()
                .cloned()
                .collect();
        }
        let mut bytes = 0;
        let mut has_room = |(_, id): &&Due| {
            let room = bytes <= DUE_BYTES_MAX;
            bytes += weight(id, self.known.get(id));
            room
        };
        let all = due(&self.timeouts)
            .take(DUE_MAX)
            .chain(due(&self.expiries).take(DUE_MAX));
        all.take_while(|due| has_room(due)).cloned().collect()
    }

    /// So that a clock that was set does not move what is due.
    fn note_time(&mut self, now: Now) {
        self.skew_ms = now.wall_ms.saturating_sub_unsigned(now.mono_ms);
    }

    #[cfg(test)]
    pub(super) fn is_indexed(&self) -> bool {
        self.known.iter().all(|(id, txn)| {
            let timeout = self.timeouts.contains(&(timeout_at(txn), id.clone()));
            let expiry = self.expiries.contains(&(self.expiry_of(txn), id.clone()));
            let moves = txn.status == Status::Ongoing || txn.status.is_ending();
            timeout == (txn.status == Status::Ongoing) && expiry != moves
        }) && self.timeouts.len() + self.expiries.len() <= self.known.len()
    }
}

/// About the memory of an id: it is kept with its transaction, and with when something is due.
fn weight(id: &str, txn: Option<&Transaction>) -> usize {
    let partitions = txn.iter().flat_map(|txn| &txn.partitions);
    let of_topics = partitions.map(|(topic, indexes)| 128 + topic.len() + 8 * indexes.len());
    512 + 2 * id.len() + of_topics.sum::<usize>()
}

/// When the transaction has lasted for as long as it may.
fn timeout_at(txn: &Transaction) -> i64 {
    txn.started_ms.saturating_add(txn.timeout_ms.into())
}

impl Machine for Transactions {
    type Record = Change;

    fn encode(change: &Change) -> Result<Stored, StoredError> {
        Ok(Stored {
            key: record::encode_key(&change.id).map_err(stored_error)?,
            value: change.txn.as_ref().map(record::encode_value),
        })
    }

    fn decode(stored: &Stored) -> Result<Option<Change>, StoredError> {
        let id = match record::decode_key(&stored.key) {
            // Of a later Kafka.
            Err(RecordError::Version(_)) => return Ok(None),
            id => id.map_err(stored_error)?,
        };
        let txn = stored.value.as_deref().map(record::decode_value);
        let txn = txn.transpose().map_err(stored_error)?;
        Ok(Some(Change { id, txn }))
    }

    fn replay(&mut self, Change { id, txn }: Change, _: Option<i64>) {
        self.forget_deadline(&id);
        let before = self.known.get(&id).map(|txn| weight(&id, Some(txn)));
        self.bytes -= before.unwrap_or(0);
        match txn.filter(|txn| txn.status != Status::Dead) {
            None => drop(self.known.remove(&id)),
            Some(txn) => {
                self.bytes += weight(&id, Some(&txn));
                self.note_deadline(&id, &txn);
                if self.loaded && txn.status.is_ending() {
                    self.outbox.put(self.partition, &id);
                }
                self.known.insert(id, txn);
            }
        }
    }

    /// No transaction writes here.
    fn replay_end(&mut self, _: i64, _: bool) {}

    fn loaded(&mut self, now: Now, _: &mut Out<Change>) {
        self.note_time(now);
        self.loaded = true;
        for (id, txn) in &self.known {
            if txn.status.is_ending() {
                self.outbox.put(self.partition, id);
            }
        }
    }

    fn deadline(&self) -> Option<u64> {
        let first = |due: &BTreeSet<(i64, String)>| due.first().map(|(at, _)| *at);
        let timeout = first(&self.timeouts).into_iter();
        let at = timeout.chain(first(&self.expiries)).min()?;
        let at = at.max(self.rests_until_ms).saturating_sub(self.skew_ms);
        Some(u64::try_from(at).unwrap_or(0))
    }

    fn expire(&mut self, now: Now, out: &mut Out<Change>) {
        self.note_time(now);
        self.rests_until_ms = now.wall_ms.saturating_add(PASS_PAUSE_MS);
        let due = self.due(now.wall_ms);
        self.offered = due.last().cloned();
        for (at, id) in due {
            let Some(txn) = self.known.get(&id) else {
                continue;
            };
            if txn.status == Status::Ongoing {
                tracing::info!(
                    id,
                    producer_id = txn.producer_id,
                    "a transaction has timed out: it is aborted"
                );
                self.write(&id, txn.fenced(false, now.wall_ms), out);
            } else {
                tracing::debug!(id, at, "a transactional id is forgotten");
                out.record(Change { id, txn: None });
            }
        }
    }
}

fn stored_error(error: RecordError) -> StoredError {
    StoredError {
        what: "transaction",
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
