//! Admission: one budget of bytes, first come first served (S9).
//!
//! `held = in flight + log cache`, and `held <= limit` but for the padding of the commits in flight, which is
//! known only when they are durable. `log used + promised <= 7/8 of the log`, and `log queued + promised <= its queue`
//! but for a lone record; a record promises the most that it may take, as the log says. So an append with a current
//! permit is not refused as `Full`. It keeps no bytes itself and knows no streams.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use crate::{Error, RECORD_HEADER_LEN, Result};

/// The budget. One per engine.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: u64,
    waiters_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: u64,
    /// Counts the budgets: a permit of an earlier one is worth nothing (its bytes went with the log).
    generation: u64,
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
    closed: Option<Error>,
    /// None while the log is being reopened: nothing is admitted then.
    log: Option<Arc<dyn wal::Log>>,
    /// Log space of permits that were granted and not yet spent.
    promised: u64,
}

impl State {
    /// Whether `bytes` fit in memory and in the log.
    fn fits(&self, bytes: u64, limit: u64) -> bool {
        self.usage().is_some_and(|log| {
            self.has_room(&log, bytes, limit) && log.admits(self.promised, bytes)
        })
    }

    /// Whether `bytes` fit once the log has written what waits in it.
    fn has_room(&self, log: &wal::Usage, bytes: u64, limit: u64) -> bool {
        self.held + bytes <= limit && log.used + self.promised + log.room_for(bytes) <= usable(log)
    }

    fn usage(&self) -> Option<wal::Usage> {
        self.log.as_ref().map(|log| log.usage())
    }

    /// What the log must have room for until the record is in it.
    fn take(&mut self, bytes: u64) -> u64 {
        let room = self.usage().map_or(0, |log| log.room_for(bytes));
        self.held += bytes;
        self.promised += room;
        room
    }

    fn give_back(&mut self, bytes: u64, room: u64) {
        self.held -= bytes;
        self.promised -= room;
    }
}

/// What of a log is used: the rest is for a log of the caller's that does not know exactly what its padding takes.
fn usable(log: &wal::Usage) -> u64 {
    log.capacity - log.capacity / 8
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    bytes: u64,
    waker: Option<Waker>,
    /// The room in the log that it was granted.
    granted: Option<u64>,
}

impl Admission {
    pub(crate) fn new(limit: u64, waiters_max: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            waiters_max,
            state: Mutex::default(),
        })
    }

    /// Takes `bytes`, or `Full` at once. Never passes a caller that waits.
    pub(crate) fn try_admit(self: &Arc<Self>, bytes: u64) -> Result<Permit> {
        let mut state = self.state.lock();
        self.check_possible(&state, bytes)?;
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        if waits(&state) || !state.fits(bytes, self.limit) {
            return Err(Error::full("no room in the log cache or in the log")
                .with("bytes", bytes)
                .with("held", state.held)
                .with("limit", self.limit));
        }
        let room = state.take(bytes);
        Ok(self.permit(bytes, room, state.generation))
    }

    /// Waits for `bytes`. The place in the queue is taken when this returns, not when it is first polled.
    pub(crate) fn admit(self: &Arc<Self>, bytes: u64) -> Result<Admitted> {
        let mut state = self.state.lock();
        self.check_possible(&state, bytes)?;
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        if state.waiters.len() >= self.waiters_max {
            return Err(
                Error::full("too many callers wait for room").with("waiters", state.waiters.len())
            );
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiters.push_back(Waiter {
            ticket,
            bytes,
            waker: None,
            granted: None,
        });
        let wakers = self.grant(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Ok(Admitted {
            admission: self.clone(),
            ticket: Some(ticket),
        })
    }

    /// What was charged as `before` is now held as `after`.
    pub(crate) fn exchange(&self, before: u64, after: u64) {
        let wakers = {
            let mut state = self.state.lock();
            state.held = (state.held + after).saturating_sub(before);
            self.grant(&mut state)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Forgets what was in flight: it went with its log. Only `held` is left, and nothing is admitted until
    /// [`Self::serve`].
    pub(crate) fn reset(&self, held: u64) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.log = None;
        state.held = held;
        state.promised = 0;
        // Their permits would be of the budget that is gone: they wait again, in their order.
        state
            .waiters
            .iter_mut()
            .for_each(|waiter| waiter.granted = None);
    }

    /// Admits to `log`.
    pub(crate) fn serve(&self, log: Arc<dyn wal::Log>) {
        self.state.lock().log = Some(log);
        self.recheck();
    }

    /// The log has more room.
    pub(crate) fn recheck(&self) {
        let wakers = self.grant(&mut self.state.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Refuses everyone from now on, those that wait included.
    pub(crate) fn close(&self, error: Error) {
        let wakers: Vec<_> = {
            let mut state = self.state.lock();
            state.closed.get_or_insert(error);
            state
                .waiters
                .iter_mut()
                .filter_map(|waiter| waiter.waker.take())
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn held(&self) -> u64 {
        self.state.lock().held
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether an upload would make room: appends wait for more than the log's queue, or the log is more than half full.
    pub(crate) fn is_short(&self) -> bool {
        let state = self.state.lock();
        let Some(log) = state.usage() else {
            return waits(&state);
        };
        let mut waiting = state
            .waiters
            .iter()
            .filter(|waiter| waiter.granted.is_none());
        log.used > log.capacity / 2
            || waiting
                .next()
                .is_some_and(|first| !state.has_room(&log, first.bytes, self.limit))
    }

    /// What those who wait want, together; at most the limit.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let state = self.state.lock();
        let waiting = state
            .waiters
            .iter()
            .filter(|waiter| waiter.granted.is_none());
        waiting
            .map(|waiter| waiter.bytes)
            .sum::<u64>()
            .min(self.limit)
    }

    /// What can never fit is refused: nobody waits for ever.
    fn check_possible(&self, state: &State, bytes: u64) -> Result<()> {
        let never = |log: wal::Usage| log.room_for(bytes) > usable(&log);
        if bytes > self.limit || state.usage().is_some_and(never) {
            return Err(
                Error::invalid("more bytes than the whole budget or the log")
                    .with("bytes", bytes)
                    .with("limit", self.limit),
            );
        }
        Ok(())
    }

    fn permit(self: &Arc<Self>, bytes: u64, room: u64, generation: u64) -> Permit {
        Permit {
            admission: self.clone(),
            bytes,
            room,
            generation,
        }
    }

    #[must_use = "the wakers must be woken after the lock is gone"]
    fn grant(&self, state: &mut State) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let first = state
            .waiters
            .partition_point(|waiter| waiter.granted.is_some());
        for index in first..state.waiters.len() {
            let bytes = state.waiters[index].bytes;
            if !state.fits(bytes, self.limit) {
                break;
            }
            let room = state.take(bytes);
            let waiter = &mut state.waiters[index];
            waiter.granted = Some(room);
            wakers.extend(waiter.waker.take());
        }
        wakers
    }
}

/// Room for so many bytes of one append. Dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: u64,
    room: u64,
    generation: u64,
}

impl Permit {
    /// The bytes admitted, the engine's overhead included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a record with so much payload fits.
    pub(crate) fn has_room_for(&self, payload_len: usize) -> bool {
        self.bytes >= (RECORD_HEADER_LEN + payload_len) as u64
    }

    /// Whether it still stands for room; it does not after the log was reopened.
    pub(crate) fn is_current(&self) -> bool {
        self.admission.state.lock().generation == self.generation
    }

    /// Hands `bytes` over to a record that the log has taken, and gives back the rest.
    pub(crate) fn spend(mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes);
        self.settle(bytes);
        self.bytes = 0;
    }

    fn settle(&self, spent: u64) {
        let mut state = self.admission.state.lock();
        if state.generation != self.generation {
            return;
        }
        state.give_back(self.bytes, self.room);
        state.held += spent;
        let wakers = self.admission.grant(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.settle(0);
        }
    }
}

/// A place in the queue for room; resolves to a [`Permit`].
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    ticket: Option<u64>,
}

impl Future for Admitted {
    type Output = Result<Permit>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let admission = self.admission.clone();
        let mut state = admission.state.lock();
        let Some(index) = self.ticket.and_then(|ticket| place(&state, ticket)) else {
            return Poll::Ready(Err(Error::internal("polled after it was ready")));
        };
        if let Some(error) = state.closed.clone() {
            drop(state);
            return Poll::Ready(Err(error));
        }
        let generation = state.generation;
        let waiter = &mut state.waiters[index];
        let Some(room) = waiter.granted else {
            waiter.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let bytes = waiter.bytes;
        state.waiters.remove(index);
        self.ticket = None;
        Poll::Ready(Ok(admission.permit(bytes, room, generation)))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let wakers = {
            let mut state = self.admission.state.lock();
            let Some(index) = place(&state, ticket) else {
                return;
            };
            if let Some(waiter) = state.waiters.remove(index)
                && let Some(room) = waiter.granted
            {
                state.give_back(waiter.bytes, room);
            }
            self.admission.grant(&mut state)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Whether anyone waits: grants go from the front, so the last tells.
fn waits(state: &State) -> bool {
    state
        .waiters
        .back()
        .is_some_and(|waiter| waiter.granted.is_none())
}

/// Tickets grow along the queue.
fn place(state: &State, ticket: u64) -> Option<usize> {
    state
        .waiters
        .binary_search_by_key(&ticket, |waiter| waiter.ticket)
        .ok()
}

#[cfg(test)]
mod tests;
