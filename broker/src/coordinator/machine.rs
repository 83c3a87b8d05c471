//! What a coordinator is: a deterministic state machine, and what its operations give back.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use segment_adapter::{EndTxn, Guard};
use tokio::sync::oneshot;

/// The time of an operation. It comes in as an argument, so that tests drive it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Now {
    /// Milliseconds since 1970: for what is stored.
    pub(crate) wall_ms: i64,
    /// Milliseconds that only grow: for sessions and other deadlines.
    pub(crate) mono_ms: u64,
}

/// A record as the topic has it: a key, and a value unless the key is deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

impl Stored {
    pub(crate) fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Bytes of a record that this program does not understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a stored {what}: {reason}")]
pub(crate) struct StoredError {
    pub(crate) what: &'static str,
    pub(crate) reason: String,
}

/// The state of one partition, and what changes it.
pub(crate) trait Machine: Send + Sized + 'static {
    /// One record of the topic.
    type Record: Send + Sync + 'static;

    /// As it is written.
    fn encode(record: &Self::Record) -> Result<Stored, StoredError>;

    /// As it is read; `None` for what belongs to a feature that this program does not have.
    fn decode(stored: &Stored) -> Result<Option<Self::Record>, StoredError>;

    /// Takes a record in, at the load and live, in the order of the log. That of an open transaction comes with its
    /// producer id and counts when the transaction is committed.
    fn replay(&mut self, record: Self::Record, producer_id: Option<i64>);

    /// A transaction has ended on this partition.
    fn replay_end(&mut self, producer_id: i64, commit: bool);

    /// The log has refused these records of an operation, or they cannot be written: none of them has been replayed, and
    /// whoever it answered is told so. What the operation has changed besides is undone here, or made good.
    fn refused(&mut self, _records: Vec<Self::Record>, _now: Now, _out: &mut Out<Self::Record>) {}

    /// The whole log has been taken in.
    fn loaded(&mut self, now: Now, out: &mut Out<Self::Record>);

    /// When [`Self::expire`] has something to do, as [`Now::mono_ms`] counts.
    fn deadline(&self) -> Option<u64>;

    /// Does what is due. The deadline must then be a later one, or none.
    fn expire(&mut self, now: Now, out: &mut Out<Self::Record>);
}

/// The transaction that the records of an operation are a part of.
#[derive(Clone, Debug)]
pub(crate) struct InTransaction {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// Of the verification, if this may be its first batch on the partition.
    pub(crate) guard: Guard,
}

/// Runs when what an operation has written, and all it has seen, is durable, or with the error if that cannot be.
type When = Box<dyn FnOnce(Result<(), ResponseError>) + Send>;

/// What an operation gives back: records to write, and answers that leave when these are durable.
pub(crate) struct Out<R> {
    pub(super) records: Vec<R>,
    pub(super) transaction: Option<InTransaction>,
    pub(super) end: Option<EndTxn>,
    pub(super) when: Vec<When>,
}

impl<R> Default for Out<R> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            transaction: None,
            end: None,
            when: Vec::new(),
        }
    }
}

impl<R> Out<R> {
    /// Writes a record. It is replayed when the operation has returned: until then the state is without it.
    pub(crate) fn record(&mut self, record: R) {
        self.records.push(record);
    }

    /// Makes all records a part of a transaction.
    pub(crate) fn in_transaction(&mut self, transaction: InTransaction) {
        self.transaction = Some(transaction);
    }

    /// Writes the marker that ends a transaction on this partition; such an operation writes nothing else.
    pub(crate) fn end_transaction(&mut self, end: EndTxn) {
        self.end = Some(end);
    }

    /// Answers, once it is all durable.
    pub(crate) fn reply<T: Send + 'static>(&mut self, slot: Slot<T>, answer: T) {
        self.when_durable(move |durable| slot.fill(durable.map(|()| answer)));
    }

    /// Does something else then. It runs outside of the partition's lock and must not wait.
    pub(crate) fn when_durable(
        &mut self,
        run: impl FnOnce(Result<(), ResponseError>) + Send + 'static,
    ) {
        self.when.push(Box::new(run));
    }

    #[cfg(test)]
    /// What was written; answers are given as if it were durable.
    pub(crate) fn settle(self) -> Vec<R> {
        for when in self.when {
            when(Ok(()));
        }
        self.records
    }
}

/// Where an answer goes. A machine may keep it until there is one; dropped, it answers that the coordinator is gone.
#[derive(Debug)]
pub(crate) struct Slot<T>(oneshot::Sender<Result<T, ResponseError>>);

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) struct Pending<T>(oneshot::Receiver<Result<T, ResponseError>>);

/// A place for an answer, and the wait for it.
pub(crate) fn slot<T>() -> (Slot<T>, Pending<T>) {
    let (sender, receiver) = oneshot::channel();
    (Slot(sender), Pending(receiver))
}

impl<T> Slot<T> {
    /// Gives the answer at once. An answer that rests on what an operation saw or wrote goes through [`Out::reply`].
    pub(super) fn fill(self, answer: Result<T, ResponseError>) {
        // Whoever asked may have gone away.
        let _ = self.0.send(answer);
    }
}

impl<T> Pending<T> {
    /// The answer.
    pub(crate) async fn answer(self) -> Result<T, ResponseError> {
        self.0.await.unwrap_or(Err(ResponseError::NotCoordinator))
    }

    /// The answer, if it is there.
    #[cfg(test)]
    pub(crate) fn now(&mut self) -> Option<Result<T, ResponseError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(ResponseError::NotCoordinator)),
        }
    }
}
