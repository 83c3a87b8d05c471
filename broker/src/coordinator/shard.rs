//! A shard: the machine of one partition, the log under it, and the answers that wait for durability.
//!
//! Operations run one after the other under the shard's lock. What one writes is handed to the log and replayed before the
//! next one begins, so the order of operations, of records and of changes is one. `unanswered operations <=
//! [UNANSWERED_MAX]`. When the log has no room, what was written waits in the same queue, in order, until there is.
//!
//! One task per shard loads it, awaits durability, and watches the time. A shard whose log fails is thrown away whole and
//! loaded again: who waits on it is told, and what was not durable has never been.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future;
use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use s3stream::Engine;
use segment_adapter::{
    AppendHandle, AppendOptions, BatchBuilder, Codec, EndTxn, KafkaLog, LogError, Origin,
};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{
    clock::Clock,
    load::{self, LoadError},
    machine::{InTransaction, Machine, Now, Out, Stored},
};
use crate::topics::partition::{Leading, Partition};

/// Operations of one partition that wait for durability.
const UNANSWERED_MAX: usize = 4096;
/// Records of one operation go into batches of about this many bytes: well below what a batch may have.
const BATCH_BYTES: usize = 256 << 10;
/// Between two attempts to load a shard.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);
/// Until what is due is tried again when no operation can be taken in.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The place of a partition and, while it is loaded, its machine.
pub(super) struct Shard<M: Machine> {
    partition: Arc<Partition>,
    clock: Clock,
    life: Mutex<Life<M>>,
    /// The deadline is another one, or the shard's life has ended.
    changed: Notify,
    /// Whether it is loaded, or has been stopped: for those who wait for it.
    ready: watch::Sender<bool>,
}

enum Life<M: Machine> {
    Loading,
    Live(Box<Live<M>>),
    /// An operation is under way; what stays here has ended in a defect.
    Taken,
    Failed(ResponseError),
    Stopped,
}

struct Live<M: Machine> {
    machine: M,
    leading: Leading,
    queue: mpsc::Sender<Waiting>,
    /// Entries of the queue whose durability has not been seen.
    in_flight: usize,
    /// Pieces in the queue that the log has not taken yet.
    unsent: usize,
    /// What the task waits for.
    armed: Option<u64>,
}

type When = Vec<Box<dyn FnOnce(Result<(), ResponseError>) + Send>>;

/// An operation that has been done, and waits.
struct Waiting {
    written: Written,
    when: When,
}

/// How what an operation wrote is on its way.
enum Written {
    /// Nothing; it waits for what it has seen.
    Nothing,
    /// The last of its batches: those before it are durable earlier.
    Sent(AppendHandle),
    /// The log had no room for these.
    Unsent(Vec<Piece>),
}

/// What the log is given.
#[derive(Clone)]
enum Piece {
    Batch(Bytes, AppendOptions),
    End(EndTxn),
}

impl Piece {
    fn append(&self, leading: &Leading) -> Result<AppendHandle, LogError> {
        match self {
            Self::Batch(batch, options) => {
                let (batch, epoch) = (batch.clone(), leading.epoch);
                leading.log.append_with(batch, epoch, options)
            }
            Self::End(end) => leading.log.append_end_txn(*end, leading.epoch),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Batch(batch, _) => batch.len(),
            Self::End(_) => 128,
        }
    }
}

/// What becomes of a live shard after an operation.
enum After {
    Alive(When, Result<(), ResponseError>),
    Queued,
    Failed(When, LogError),
}

impl<M: Machine> Shard<M> {
    pub(super) fn new(partition: Arc<Partition>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            partition,
            clock,
            life: Mutex::new(Life::Loading),
            changed: Notify::new(),
            ready: watch::Sender::new(false),
        })
    }

    /// The log below, while the shard is loaded.
    pub(super) fn log(&self) -> Result<KafkaLog, ResponseError> {
        match &*self.life.lock() {
            Life::Live(live) => Ok(live.leading.log.clone()),
            other => Err(other.error()),
        }
    }

    /// Waits until the shard is loaded.
    pub(super) async fn ready(&self) {
        // It fails if nobody can say so any more.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Runs an operation. The error says that it was not run.
    pub(super) fn act(
        &self,
        operation: impl FnOnce(&mut M, Now, &mut Out<M::Record>),
    ) -> Result<(), ResponseError> {
        let now = self.clock.now();
        let mut life = self.life.lock();
        let mut live = match std::mem::replace(&mut *life, Life::Taken) {
            Life::Live(live) => live,
            other => {
                let error = other.error();
                *life = other;
                return Err(error);
            }
        };
        let Ok(permit) = live.queue.clone().try_reserve_owned() else {
            *life = Life::Live(live);
            return Err(ResponseError::CoordinatorLoadInProgress);
        };
        // A panic from here on leaves the shard taken: it is loaded again.
        let ended = OnPanic(&self.changed);
        let mut out = Out::default();
        operation(&mut live.machine, now, &mut out);
        let after = live.settle(out, permit, Some(now));
        let deadline = live.machine.deadline();
        let sooner =
            deadline.is_some_and(|deadline| live.armed.is_none_or(|armed| deadline < armed));
        std::mem::forget(ended);
        let (when, result) = match after {
            After::Alive(when, result) => {
                *life = Life::Live(live);
                (when, result)
            }
            After::Queued => {
                *life = Life::Live(live);
                (When::new(), Ok(()))
            }
            After::Failed(when, error) => {
                let code = self.failed(&mut life, &live.leading, &error);
                drop(life);
                // Everybody who waits in the machine is answered by its end.
                drop(live);
                self.changed.notify_one();
                run(when, Err(code));
                return Ok(());
            }
        };
        drop(life);
        if sooner {
            self.changed.notify_one();
        }
        run(when, result);
        Ok(())
    }

    /// Takes note that the log cannot be written any more.
    fn failed(&self, life: &mut Life<M>, leading: &Leading, error: &LogError) -> ResponseError {
        let code = answer_to(error);
        tracing::warn!(group = %self.partition.group, %error, "a coordinator's partition is loaded again");
        self.partition.note(leading, error);
        *life = Life::Failed(code);
        code
    }

    /// Ends the shard; whoever waits is told that the coordinator is gone.
    pub(super) fn stop(&self) {
        let ended = std::mem::replace(&mut *self.life.lock(), Life::Stopped);
        drop(ended);
        self.ready.send_replace(true);
        self.changed.notify_one();
    }

    /// Loads the shard and serves it, again and again, until it is stopped. `loads` bounds how many load at one time.
    pub(super) async fn run(
        self: Arc<Self>,
        engine: Engine,
        make: impl Fn(i32, i32) -> M + Send,
        loads: Arc<Semaphore>,
    ) {
        loop {
            let loaded = {
                // Never closed.
                let _turn = loads.acquire().await;
                self.load(&engine, &make).await
            };
            match loaded {
                Ok(Some((queue, leading))) => self.serve(queue, &leading).await,
                Ok(None) => return,
                Err(code) => {
                    let mut life = self.life.lock();
                    if !matches!(*life, Life::Stopped) {
                        *life = Life::Failed(code);
                    }
                }
            }
            if matches!(*self.life.lock(), Life::Stopped) {
                return;
            }
            tokio::time::sleep(RELOAD_PAUSE).await;
        }
    }

    /// A new machine from the log; `None` if the shard has been stopped.
    async fn load(
        &self,
        engine: &Engine,
        make: &impl Fn(i32, i32) -> M,
    ) -> Result<Option<(mpsc::Receiver<Waiting>, Leading)>, ResponseError> {
        {
            let mut life = self.life.lock();
            if matches!(*life, Life::Stopped) {
                return Ok(None);
            }
            *life = Life::Loading;
        }
        self.ready.send_replace(false);
        let leading = self.partition.log(engine).await.map_err(answer_to_code)?;
        let mut machine = make(self.partition.index, leading.epoch);
        if let Err(error) = load::replay(&leading.log, &mut machine).await {
            tracing::error!(group = %self.partition.group, partition = self.partition.index, %error, "a coordinator's partition cannot be loaded");
            if let LoadError::Log(error) = &error {
                self.partition.note(&leading, error);
            }
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let (queue, waiting) = mpsc::channel(UNANSWERED_MAX);
        let live = Live {
            machine,
            leading: leading.clone(),
            queue,
            in_flight: 0,
            unsent: 0,
            armed: None,
        };
        {
            let mut life = self.life.lock();
            if matches!(*life, Life::Stopped) {
                return Ok(None);
            }
            *life = Life::Live(Box::new(live));
        }
        // Cannot be busy: it is the first. If the log fails, serving ends at once.
        let _ = self.act(M::loaded);
        self.ready.send_replace(true);
        Ok(Some((waiting, leading)))
    }

    /// Serves until the shard's life ends, then answers what is left.
    async fn serve(&self, mut queue: mpsc::Receiver<Waiting>, leading: &Leading) {
        let answers = self.answer(&mut queue, leading);
        let times = self.watch_time();
        future::select(std::pin::pin!(answers), std::pin::pin!(times)).await;
        let error = {
            let mut life = self.life.lock();
            match &*life {
                Life::Live(_) | Life::Taken => {
                    *life = Life::Failed(ResponseError::CoordinatorNotAvailable);
                    ResponseError::CoordinatorNotAvailable
                }
                other => other.error(),
            }
        };
        while let Some(waiting) = queue.recv().await {
            run(waiting.when, Err(error));
        }
    }

    /// Lets answers go as what they rest on becomes durable. Returns when that cannot be.
    async fn answer(&self, queue: &mut mpsc::Receiver<Waiting>, leading: &Leading) {
        while let Some(Waiting { written, when }) = queue.recv().await {
            let was_unsent = matches!(written, Written::Unsent(_));
            let durable = match written {
                Written::Nothing => Ok(()),
                Written::Sent(handle) => handle.durable().await,
                Written::Unsent(pieces) => send_late(pieces, leading).await,
            };
            let mut life = self.life.lock();
            let result = match (&mut *life, durable) {
                (Life::Live(live), Ok(())) => {
                    live.in_flight -= 1;
                    live.unsent -= usize::from(was_unsent);
                    Ok(())
                }
                // It has failed meanwhile, but these records are durable, and so are those before them.
                (_, Ok(())) => Ok(()),
                (ended, Err(error)) => {
                    let code = if matches!(ended, Life::Stopped) {
                        ended.error()
                    } else {
                        self.failed(ended, leading, &error)
                    };
                    Err(code)
                }
            };
            drop(life);
            let failed = result.is_err();
            run(when, result);
            if failed {
                return;
            }
        }
    }

    fn deadline(&self) -> Option<u64> {
        match &*self.life.lock() {
            Life::Live(live) => live.machine.deadline(),
            _ => None,
        }
    }

    /// Runs what is due. Returns when the shard's life has ended.
    async fn watch_time(&self) {
        loop {
            let armed = {
                let mut life = self.life.lock();
                let Life::Live(live) = &mut *life else {
                    return;
                };
                live.armed = live.machine.deadline();
                live.armed
            };
            let due = async {
                match armed {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => continue,
                () = due => {}
            }
            let ran = self.act(M::expire).is_ok();
            // What could not be done, as its record was refused, is tried again in a while.
            let is_due = |at: u64| at <= self.clock.now().mono_ms;
            if !ran || self.deadline().is_some_and(is_due) {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
        }
    }
}

/// Appends what the log had no room for, in order, and waits until it is durable.
async fn send_late(pieces: Vec<Piece>, leading: &Leading) -> Result<(), LogError> {
    let mut last = None;
    for piece in pieces {
        last = Some(loop {
            match piece.append(leading) {
                Err(LogError::Overloaded(_)) => match leading.log.ready(piece.len()).await {
                    // Too many wait for room already.
                    Err(LogError::Overloaded(_)) => tokio::time::sleep(BUSY_PAUSE).await,
                    ready => ready?,
                },
                appended => break appended?,
            }
        });
    }
    match last {
        Some(handle) => handle.durable().await,
        None => Ok(()),
    }
}

fn run(when: When, result: Result<(), ResponseError>) {
    for run in when {
        run(result);
    }
}

/// Tells the task that an operation has ended in a defect.
struct OnPanic<'a>(&'a Notify);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl<M: Machine> Life<M> {
    fn error(&self) -> ResponseError {
        match self {
            Self::Loading => ResponseError::CoordinatorLoadInProgress,
            Self::Failed(error) => *error,
            Self::Live(_) | Self::Taken => ResponseError::CoordinatorNotAvailable,
            Self::Stopped => ResponseError::NotCoordinator,
        }
    }
}

impl<M: Machine> Live<M> {
    /// Writes and replays what an operation gave. If that is refused the machine hears of it, with the time of the
    /// operation; what it then writes may be refused, too, but that is the end of it.
    fn settle(
        &mut self,
        out: Out<M::Record>,
        permit: mpsc::OwnedPermit<Waiting>,
        may_undo: Option<Now>,
    ) -> After {
        let Out {
            records,
            transaction,
            end,
            when,
        } = out;
        let pieces = match pieces::<M>(&records, transaction.as_ref(), end) {
            Ok(pieces) => pieces,
            Err(error) => {
                tracing::error!(%error, "a coordinator's record cannot be written");
                let error = ResponseError::UnknownServerError;
                return self.refused(records, when, error, permit, may_undo);
            }
        };
        let written = match self.write(pieces) {
            Ok(written) => written,
            // Nothing was written, and nothing has changed that only records change.
            Err((0, error)) if !is_over(&error) => {
                return self.refused(records, when, answer_to(&error), permit, may_undo);
            }
            Err((_, error)) => return After::Failed(when, error),
        };
        let producer_id = transaction.map(|transaction| transaction.producer_id);
        for record in records {
            self.machine.replay(record, producer_id);
        }
        if let Some(end) = end {
            self.machine.replay_end(end.producer_id, end.commit);
        }
        if matches!(written, Written::Nothing) && (self.in_flight == 0 || when.is_empty()) {
            return After::Alive(when, Ok(()));
        }
        self.in_flight += 1;
        self.unsent += usize::from(matches!(written, Written::Unsent(_)));
        permit.send(Waiting { written, when });
        After::Queued
    }

    /// Tells whoever waits, and lets the machine make good what these records would have gone with.
    fn refused(
        &mut self,
        records: Vec<M::Record>,
        when: When,
        error: ResponseError,
        permit: mpsc::OwnedPermit<Waiting>,
        may_undo: Option<Now>,
    ) -> After {
        let Some(now) = may_undo else {
            return After::Alive(when, Err(error));
        };
        let mut out = Out::default();
        for run in when {
            out.when_durable(move |_| run(Err(error)));
        }
        self.machine.refused(records, now, &mut out);
        self.settle(out, permit, None)
    }

    /// Hands pieces to the log. An error comes with how many it took before.
    fn write(&self, pieces: Vec<Piece>) -> Result<Written, (usize, LogError)> {
        if self.unsent > 0 && !pieces.is_empty() {
            return Ok(Written::Unsent(pieces));
        }
        let mut written = Written::Nothing;
        for (index, piece) in pieces.iter().enumerate() {
            match piece.append(&self.leading) {
                Ok(handle) => written = Written::Sent(handle),
                Err(LogError::Overloaded(_)) => {
                    return Ok(Written::Unsent(pieces[index..].to_vec()));
                }
                Err(error) => return Err((index, error)),
            }
        }
        Ok(written)
    }
}

/// Batches of records, or a marker.
fn pieces<M: Machine>(
    records: &[M::Record],
    transaction: Option<&InTransaction>,
    end: Option<EndTxn>,
) -> Result<Vec<Piece>, Box<dyn std::error::Error + Send + Sync>> {
    let mut pieces = Vec::new();
    let options = AppendOptions {
        origin: Origin::Coordinator,
        guard: transaction.map(|t| t.guard.clone()).unwrap_or_default(),
        version: None,
    };
    let now_ms = crate::clock::now_ms();
    let stored = records.iter().map(M::encode);
    let stored: Vec<_> = stored.collect::<Result<_, _>>()?;
    let mut rest = stored.iter().peekable();
    while rest.peek().is_some() {
        let mut builder = BatchBuilder::new(Codec::None);
        if let Some(transaction) = transaction {
            let (id, epoch) = (transaction.producer_id, transaction.producer_epoch);
            builder = builder.producer(id, epoch, -1).transactional();
        }
        let mut bytes = 0;
        // One that is large by itself has a batch of its own: it must not be refused for what is beside it.
        while let Some(stored) =
            rest.next_if(|next| bytes == 0 || bytes + next.len() <= BATCH_BYTES)
        {
            let Stored { key, value } = stored;
            bytes += stored.len();
            builder = builder.record(now_ms, Some(key), value.as_deref());
        }
        pieces.push(Piece::Batch(builder.build()?, options.clone()));
    }
    pieces.extend(end.map(Piece::End));
    Ok(pieces)
}

/// Whether a log that answers so takes nothing any more, rather than not this.
fn is_over(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Storage(_)
            | LogError::StoredState(_)
            | LogError::NotLeader(_)
            | LogError::Stopped(_)
            | LogError::Closed
            | LogError::Deleted
    )
}

/// What a client is told of an error of the log below its coordinator.
fn answer_to(error: &LogError) -> ResponseError {
    match error {
        // No room in the transaction index of the partition: worth another try.
        LogError::Busy(_) => ResponseError::CoordinatorNotAvailable,
        error => answer_to_code(error.code()),
    }
}

fn answer_to_code(code: i16) -> ResponseError {
    match code {
        6 | 56 => ResponseError::NotCoordinator,
        3 | 7 | 19 => ResponseError::CoordinatorNotAvailable,
        47 => ResponseError::InvalidProducerEpoch,
        48 => ResponseError::InvalidTxnState,
        52 => ResponseError::TransactionCoordinatorFenced,
        _ => ResponseError::UnknownServerError,
    }
}
