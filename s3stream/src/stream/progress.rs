//! Where one stream is: `start <= confirm <= next` (S2), who may append, and who waits for `confirm`.
//!
//! `confirm` moves only forward within an epoch and is what `start` of the next epoch begins with. It does no I/O;
//! the one lock is held for the reservation of offsets and the hand-over to the log, so that the order of calls is
//! the order of records (S9).

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use crate::{Error, GroupId, Result, StreamEpoch, StreamId};

/// Ended epochs that are remembered for appends whose outcome nobody asked for yet.
const ENDED_MAX: usize = 64;

/// The state that all handles of one stream share.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) stream: StreamId,
    pub(crate) group: GroupId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    writer: Writer,
    epoch: StreamEpoch,
    start: u64,
    confirm: u64,
    next: u64,
    waiters: BTreeMap<(u64, u64), Waker>,
    next_ticket: u64,
    ended: Vec<Ended>,
    /// Where the last read from objects ended: one that goes on from there is sequential.
    cold_read: Option<u64>,
}

#[derive(Debug)]
enum Writer {
    Open(Arc<dyn wal::Log>),
    /// No more appends; those in the log still become durable.
    Draining(Error),
    /// The log is being reopened, or the stream is closed for good.
    Shut {
        error: Error,
        forever: bool,
    },
}

/// What became of the appends of an epoch that is over.
#[derive(Debug)]
struct Ended {
    epoch: StreamEpoch,
    acknowledged: u64,
    error: Error,
}

/// A place among those that wait for `confirm`.
#[derive(Debug)]
pub(crate) struct Ticket {
    beyond: u64,
    number: u64,
}

/// A consistent view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    pub(crate) epoch: StreamEpoch,
    pub(crate) start: u64,
    pub(crate) confirm: u64,
    pub(crate) next: u64,
}

impl Progress {
    pub(crate) fn new(stream: StreamId, group: GroupId) -> Arc<Self> {
        Arc::new(Self {
            stream,
            group,
            state: Mutex::new(State {
                writer: Writer::Shut {
                    error: Error::unavailable("the stream is being opened"),
                    forever: false,
                },
                epoch: StreamEpoch::default(),
                start: 0,
                confirm: 0,
                next: 0,
                waiters: BTreeMap::new(),
                next_ticket: 0,
                ended: Vec::new(),
                cold_read: None,
            }),
        })
    }

    /// Begins `epoch` at `end`, the sealed end of the one before.
    pub(crate) fn open(&self, epoch: StreamEpoch, start: u64, end: u64, log: Arc<dyn wal::Log>) {
        let mut state = self.state.lock();
        if matches!(state.writer, Writer::Shut { forever: true, .. }) {
            return;
        }
        if state.is_live() && epoch == state.epoch {
            return; // Attached while the others were being reopened.
        }
        assert!(
            epoch > state.epoch && end >= state.confirm,
            "stream {}: epoch {epoch} at {end} after epoch {} at {}",
            self.stream,
            state.epoch,
            state.confirm,
        );
        state.epoch = epoch;
        state.start = state.start.max(start);
        state.next = end;
        state.writer = Writer::Open(log);
        let wakers = state.confirm_to(end.max(start));
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends the epoch: every append that is not durable now fails as ambiguous. `forever` also ends those that
    /// wait and every later call.
    pub(crate) fn shut(&self, error: Error, forever: bool) {
        let wakers: Vec<_> = {
            let mut state = self.state.lock();
            if matches!(state.writer, Writer::Shut { forever: true, .. }) {
                return;
            }
            if state.is_live() {
                if state.ended.len() == ENDED_MAX {
                    state.ended.remove(0);
                }
                let ended = Ended {
                    epoch: state.epoch,
                    acknowledged: state.confirm,
                    error: error.clone(),
                };
                state.ended.push(ended);
            }
            state.writer = Writer::Shut { error, forever };
            std::mem::take(&mut state.waiters).into_values().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Reserves `count` offsets and hands the record to the log with `queue`; nothing is reserved if it fails.
    pub(crate) fn append(
        &self,
        count: u64,
        queue: impl FnOnce(&dyn wal::Log, StreamEpoch, Range<u64>) -> Result<()>,
    ) -> Result<(StreamEpoch, Range<u64>)> {
        let mut state = self.state.lock();
        let log = match &state.writer {
            Writer::Open(log) => log,
            Writer::Draining(error) | Writer::Shut { error, .. } => return Err(error.clone()),
        };
        let end = state.next.checked_add(count).filter(|_| count > 0);
        let Some(end) = end else {
            return Err(Error::invalid(
                "an append takes at least one offset and no more than there are",
            )
            .with("count", count)
            .with("next", state.next));
        };
        let offsets = state.next..end;
        queue(log.as_ref(), state.epoch, offsets.clone())?;
        state.next = end;
        Ok((state.epoch, offsets))
    }

    /// Records up to `end` of `epoch` are durable and readable. Returns whom to wake, after every lock is gone.
    #[must_use]
    pub(crate) fn confirm(&self, epoch: StreamEpoch, end: u64) -> Vec<Waker> {
        let mut state = self.state.lock();
        if epoch != state.epoch || !state.is_live() {
            return Vec::new();
        }
        debug_assert!(end <= state.next);
        state.confirm_to(end)
    }

    pub(crate) fn trim(&self, start: u64) {
        let mut state = self.state.lock();
        state.start = state.start.max(start);
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let state = self.state.lock();
        Bounds {
            epoch: state.epoch,
            start: state.start,
            confirm: state.confirm,
            next: state.next,
        }
    }

    pub(crate) fn is_sequential(&self, from: u64) -> bool {
        self.state.lock().cold_read == Some(from)
    }

    pub(crate) fn note_cold_read(&self, end: u64) {
        self.state.lock().cold_read = Some(end);
    }

    pub(crate) fn epoch(&self) -> StreamEpoch {
        self.state.lock().epoch
    }

    /// `confirm` of an epoch, or what it was when the epoch ended, as long as that is remembered.
    pub(crate) fn confirm_in(&self, epoch: StreamEpoch) -> Option<u64> {
        let state = self.state.lock();
        if epoch == state.epoch {
            return Some(state.confirm);
        }
        let ended = state.ended.iter().find(|ended| ended.epoch == epoch)?;
        Some(ended.acknowledged)
    }

    /// Refuses appends from now on with `error`; those in the log go on.
    pub(crate) fn drain(&self, error: Error) {
        let mut state = self.state.lock();
        if matches!(state.writer, Writer::Open(_)) {
            state.writer = Writer::Draining(error);
        }
    }

    /// Takes appends again after [`Self::drain`].
    pub(crate) fn resume(&self, log: Arc<dyn wal::Log>) {
        let mut state = self.state.lock();
        if matches!(state.writer, Writer::Draining(_)) {
            state.writer = Writer::Open(log);
        }
    }

    /// The error of a stream that is closed for good.
    pub(crate) fn closed(&self) -> Option<Error> {
        match &self.state.lock().writer {
            Writer::Shut {
                error,
                forever: true,
            } => Some(error.clone()),
            _ => None,
        }
    }

    /// The outcome of the append that took offsets up to `end` in `epoch`.
    pub(crate) fn poll_append(
        &self,
        epoch: StreamEpoch,
        end: u64,
        ticket: &mut Option<Ticket>,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let mut state = self.state.lock();
        if state.is_live() && epoch == state.epoch {
            if state.confirm >= end {
                return Poll::Ready(Ok(()));
            }
            state.wait(end, ticket, context);
            return Poll::Pending;
        }
        let lost = || Error::unavailable("the log was reopened before the append was durable");
        let outcome = match state.ended.iter().find(|ended| ended.epoch == epoch) {
            Some(ended) if ended.acknowledged >= end => Ok(()),
            Some(ended) => Err(ended.error.clone().ambiguous()),
            None => Err(lost().ambiguous()),
        };
        Poll::Ready(outcome)
    }

    /// Ready when `confirm > beyond`, or when the stream is closed for good.
    pub(crate) fn poll_confirm(
        &self,
        beyond: u64,
        ticket: &mut Option<Ticket>,
        context: &mut Context<'_>,
    ) -> Poll<Result<u64>> {
        let mut state = self.state.lock();
        if state.confirm > beyond {
            return Poll::Ready(Ok(state.confirm));
        }
        if let Writer::Shut {
            error,
            forever: true,
        } = &state.writer
        {
            return Poll::Ready(Err(error.clone()));
        }
        state.wait(beyond + 1, ticket, context);
        Poll::Pending
    }

    /// Resolves when everything that was appended so far is durable, or its epoch is over.
    pub(crate) async fn drained(self: &Arc<Self>) -> Result<()> {
        let (epoch, end) = {
            let state = self.state.lock();
            (state.epoch, state.next)
        };
        super::append::Append::new(self.clone(), epoch, end..end)
            .await
            .map(drop)
    }

    /// Takes the waiter's place away.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        state.waiters.remove(&(ticket.beyond, ticket.number));
    }
}

impl State {
    /// Whether what is in the log can still become durable in this epoch.
    fn is_live(&self) -> bool {
        !matches!(self.writer, Writer::Shut { .. })
    }

    fn confirm_to(&mut self, end: u64) -> Vec<Waker> {
        if end <= self.confirm {
            return Vec::new();
        }
        self.confirm = end;
        let rest = self.waiters.split_off(&(end + 1, 0));
        std::mem::replace(&mut self.waiters, rest)
            .into_values()
            .collect()
    }

    fn wait(&mut self, end: u64, ticket: &mut Option<Ticket>, context: &mut Context<'_>) {
        let number = ticket.as_ref().map_or_else(
            || {
                self.next_ticket += 1;
                self.next_ticket
            },
            |ticket| ticket.number,
        );
        *ticket = Some(Ticket {
            beyond: end,
            number,
        });
        self.waiters.insert((end, number), context.waker().clone());
    }
}
