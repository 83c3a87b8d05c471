//! What a live object log decides: which object goes to the store next, and what its outcome means. A state machine without store, sink or task.
//!
//! - `trimmed ≤ durable end ≤ end`, each monotone; `used ≤ capacity`; unacknowledged bytes ≤ queue, but for a lone record.
//! - Flights are acknowledged from the front only (W3). An object's `durable_through` is the durable end at its sealing.
//! - After the first failure nothing is put, acknowledged or accepted (W6).
//! - An object is garbage when a trim has passed its number: the one that a trim lies in stays.
//!
//! Group commit has no timer: what arrives while an object is on its way is the next one. An idle log puts at once.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    config::Config,
    folder::Name,
    format::{HEADER_LEN, Header, Kind, PREFIX_LEN, number_of, position_of},
    gather::{Gather, Unsealed},
};
use crate::{Commit, Durable, Error, Identity, LogEpoch, Position, Usage};

/// Garbage that waits for its deletion. More is left to the next opening.
const GARBAGE_MAX: usize = 1 << 16;

/// What the sink must hear, in order.
#[derive(Debug)]
pub(crate) enum Event {
    Durable(Commit),
    Room,
    Failed(Error),
}

/// An object to put.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    /// Header, then body.
    pub(crate) pieces: Vec<Bytes>,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    body: Vec<Bytes>,
    lens: Vec<u32>,
    len: u64,
    settled: bool,
}

impl Flight {
    fn end(&self) -> u64 {
        position_of(self.number) + self.len
    }

    /// The records, as slices of the slabs.
    fn commit(&self) -> Commit {
        let mut position = position_of(self.number) + HEADER_LEN as u64;
        let mut pieces = self.body.iter();
        let mut rest = Bytes::new();
        let records = self.lens.iter().map(|len| {
            if rest.is_empty() {
                rest = pieces.next().cloned().unwrap_or_default();
            }
            let whole = PREFIX_LEN + *len as usize;
            let payload = rest.split_to(whole.min(rest.len())).slice(PREFIX_LEN..);
            let start = position;
            position += whole as u64;
            Durable {
                position: Position::new(start)..Position::new(position),
                payload,
            }
        });
        Commit {
            records: records.collect(),
            range: Position::new(position_of(self.number))..Position::new(self.end()),
            footprint: usize::try_from(self.len).unwrap_or(usize::MAX),
        }
    }
}

/// An acknowledged object that is not trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) epoch: LogEpoch,
    pub(crate) number: u64,
    pub(crate) len: u64,
}

impl Kept {
    fn end(&self) -> u64 {
        position_of(self.number) + self.len
    }
}

#[derive(Clone, Debug)]
enum Phase {
    Open,
    Closing,
    Closed,
    Failed(Error),
    Abandoned,
}

/// Whose objects they are.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) identity: Identity,
    pub(crate) epoch: LogEpoch,
    pub(crate) incarnation: u128,
}

/// The state machine. See the module's words.
#[derive(Debug)]
pub(crate) struct Pipeline {
    config: Arc<Config>,
    author: Author,
    phase: Phase,
    gather: Gather,
    /// Checksum of the last object that was sealed.
    predecessor: u32,
    flights: VecDeque<Flight>,
    flight_bytes: u64,
    durable_end: u64,
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// Trimmed, and not passed by the trim's number yet.
    trimmed: VecDeque<Kept>,
    garbage: VecDeque<Name>,
    events: VecDeque<Event>,
    refused: bool,
}

impl Pipeline {
    /// A log that begins its epoch at `start`, with what was replayed and not trimmed.
    pub(crate) fn new(
        config: Arc<Config>,
        author: Author,
        start: u64,
        kept: VecDeque<Kept>,
        garbage: Vec<Name>,
    ) -> Self {
        let mut pipeline = Self {
            gather: Gather::new(&config, number_of(start)),
            config,
            phase: Phase::Open,
            predecessor: super::format::origin(author.identity.log),
            author,
            flights: VecDeque::new(),
            flight_bytes: 0,
            durable_end: start,
            kept_bytes: kept.iter().map(|object| object.len).sum(),
            kept,
            trimmed: VecDeque::new(),
            garbage: VecDeque::new(),
            events: VecDeque::new(),
            refused: false,
        };
        pipeline.discard(garbage);
        pipeline
    }

    pub(crate) fn durable_end(&self) -> Position {
        Position::new(self.durable_end)
    }

    pub(crate) fn max_record_len(&self) -> usize {
        self.config.record_len_max()
    }

    /// Objects count as at least their share of the capacity.
    fn used_with(&self, bytes: u64, objects: u64) -> u64 {
        let bytes = bytes + self.kept_bytes + self.queued();
        let objects =
            objects + (self.kept.len() + self.flights.len() + self.gather.objects()) as u64;
        bytes.max(objects * self.share())
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            capacity: self.config.capacity,
            used: self.used_with(0, 0),
            queue_capacity: self.config.queue_bytes_max as u64,
            queued: self.queued(),
            overhead: (HEADER_LEN + PREFIX_LEN) as u64,
            least: self.share(),
        }
    }

    /// What an object counts at least.
    fn share(&self) -> u64 {
        self.config.capacity / u64::from(self.config.objects_max)
    }

    /// What is not acknowledged.
    fn queued(&self) -> u64 {
        self.flight_bytes + self.gather.bytes()
    }

    /// How the log ended, if it did.
    pub(crate) fn ended(&self) -> Option<Result<(), Error>> {
        match &self.phase {
            Phase::Open | Phase::Closing => None,
            Phase::Closed => Some(Ok(())),
            Phase::Failed(error) => Some(Err(error.clone())),
            Phase::Abandoned => Some(Err(Error::Closed)),
        }
    }

    fn live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing)
    }

    /// Queues a record.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        match &self.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Closed | Phase::Abandoned => return Err(Error::Closed),
            Phase::Failed(error) => return Err(error.clone()),
        }
        let max = self.max_record_len();
        let len = parts
            .iter()
            .fold(0_usize, |len, part| len.saturating_add(part.len()));
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        if len == 0 {
            return Err(Error::Invalid("an empty record".to_owned()));
        }
        let (bytes, alone) = self.gather.needs(len);
        let used = self.used_with(0, 0);
        let needed = self.used_with(bytes, alone.into()) - used;
        let free = self.config.capacity.saturating_sub(used);
        let queued = self.queued();
        let queue = (self.config.queue_bytes_max as u64).saturating_sub(queued);
        if needed > free {
            self.refused = true;
            return Err(Error::Full { needed, free });
        }
        if queued > 0 && bytes > queue {
            self.refused = true;
            let (needed, free) = (bytes, queue);
            return Err(Error::Full { needed, free });
        }
        let range = self.gather.push(parts, len);
        Ok(Position::new(range.start)..Position::new(range.end))
    }

    /// Whether the next object may go on its way: always as the only one; as a further one when enough waits and there is a place for it, if
    /// the budget has it.
    pub(crate) fn next(&self) -> Next {
        let bytes = self.gather.next_bytes();
        let enough = bytes >= self.config.overlap_bytes || self.gather.objects() > 1;
        if !self.live() || bytes == 0 {
            Next::Nothing
        } else if self.flights.is_empty() {
            Next::Now
        } else if self.flights.len() < self.config.in_flight_max && enough {
            Next::IfBudgeted
        } else {
            Next::Nothing
        }
    }

    /// Seals the next object and puts it on its way.
    pub(crate) fn submit(&mut self) -> Option<Request> {
        let Unsealed {
            number,
            pieces: body,
            body_len,
            body_crc,
            lens,
        } = self.gather.take()?;
        let header = Header {
            kind: Kind::Commit,
            identity: self.author.identity.clone(),
            epoch: self.author.epoch,
            number,
            incarnation: self.author.incarnation,
            writer: self.author.epoch,
            durable_through: self.durable_end,
            body_len: u32::try_from(body_len).expect("an object is shorter than 2^26 bytes"),
            records: u32::try_from(lens.len()).expect("a record has at least one byte"),
            predecessor: self.predecessor,
            body_crc,
        };
        let (head, crc) = header.encode();
        self.predecessor = crc;
        let mut pieces = vec![Bytes::copy_from_slice(&head)];
        pieces.extend(body.iter().cloned());
        let len = (HEADER_LEN + body_len) as u64;
        self.flight_bytes += len;
        self.flights.push_back(Flight {
            number,
            body,
            lens,
            len,
            settled: false,
        });
        Some(Request { number, pieces })
    }

    /// An object is there for certain.
    pub(crate) fn settled(&mut self, number: u64) {
        if !self.live() {
            return;
        }
        for flight in self.flights.iter_mut().filter(|f| f.number == number) {
            flight.settled = true;
        }
        while self.flights.front().is_some_and(|flight| flight.settled) {
            let Some(flight) = self.flights.pop_front() else {
                break;
            };
            self.flight_bytes -= flight.len;
            self.durable_end = flight.end();
            self.kept_bytes += flight.len;
            self.kept.push_back(Kept {
                epoch: self.author.epoch,
                number: flight.number,
                len: flight.len,
            });
            self.events.push_back(Event::Durable(flight.commit()));
            if std::mem::take(&mut self.refused) {
                self.events.push_back(Event::Room);
            }
        }
    }

    /// Fails the log for good (W6). Only the first cause counts.
    pub(crate) fn fail(&mut self, error: Error) {
        if !self.live() {
            return;
        }
        self.events.push_back(Event::Failed(error.clone()));
        self.phase = Phase::Failed(error);
        self.forget();
    }

    fn forget(&mut self) {
        self.gather = Gather::new(&self.config, self.gather.next_number());
        self.flights.clear();
        self.flight_bytes = 0;
        self.garbage.clear();
    }

    /// Gives up what lies below `to`.
    pub(crate) fn trim(&mut self, to: Position) {
        let to = to.get().min(self.durable_end);
        let before = self.kept.len();
        while let Some(object) = pop_if(&mut self.kept, |object| object.end() <= to) {
            self.kept_bytes -= object.len;
            self.trimmed.push_back(object);
        }
        let (log, mut passed) = (self.author.identity.log, Vec::new());
        while let Some(object) = pop_if(&mut self.trimmed, |o| o.number < number_of(to)) {
            passed.push(Name::Object(log, object.epoch, object.number));
        }
        self.discard(passed);
        if self.kept.len() < before && self.live() {
            self.refused = false;
            self.events.push_back(Event::Room);
        }
    }

    /// What nobody needs any more, to be deleted when there is time.
    pub(crate) fn discard(&mut self, garbage: Vec<Name>) {
        if !self.live() {
            return;
        }
        let room = GARBAGE_MAX.saturating_sub(self.garbage.len());
        if garbage.len() > room {
            let left = garbage.len() - room;
            tracing::warn!(
                left,
                "too much garbage to remember; the next opening of the log deletes it"
            );
        }
        self.garbage.extend(garbage.into_iter().take(room));
    }

    /// Garbage for one batch.
    pub(crate) fn garbage(&mut self, most: usize) -> Vec<Name> {
        let most = most.min(self.garbage.len());
        self.garbage.drain(..most).collect()
    }

    /// Takes no more appends.
    pub(crate) fn close(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing;
        }
    }

    /// Whether the log is closing and all is done but its mark: then whether it owes nothing.
    pub(crate) fn may_mark(&self) -> Option<bool> {
        let done = matches!(self.phase, Phase::Closing)
            && self.flights.is_empty()
            && self.gather.bytes() == 0
            && self.events.is_empty();
        done.then_some(self.kept.is_empty())
    }

    /// The close is done.
    pub(crate) fn closed(&mut self) {
        if matches!(self.phase, Phase::Closing) {
            self.phase = Phase::Closed;
        }
    }

    /// The owner is gone: whatever is on its way ends unheard.
    pub(crate) fn abandon(&mut self) {
        if self.live() {
            self.phase = Phase::Abandoned;
        }
        self.forget();
        self.events.clear();
    }

    /// What the sink must hear next.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// What may go on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Nothing,
    Now,
    IfBudgeted,
}

fn pop_if(objects: &mut VecDeque<Kept>, passed: impl Fn(&Kept) -> bool) -> Option<Kept> {
    if objects.front().is_some_and(passed) {
        objects.pop_front()
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
