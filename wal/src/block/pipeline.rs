//! What a live block log decides: which bytes go to the device next, and what a completion means. A state machine without device, sink or thread.
//!
//! - `tail ≤ tail wanted`, `tail ≤ durable end ≤ acknowledged ≤ submitted ≤ end`, each monotone, and `end − tail ≤ capacity`.
//! - Flights are acknowledged from the front only (W3). A frame's `durable_through` is the durable end at its sealing.
//! - `writing ≤ in_flight_max`: a slow write does not keep the device from working on what comes after it.
//! - A frame's end is at most `window` above `acknowledged` when it is submitted: what a replay must look ahead.
//! - After the first failure nothing is submitted, acknowledged or accepted (W6).
//!
//! Group commit has no timer: the device's own time gathers. An idle log submits in the append; a busy one at the next completion.

use std::{collections::VecDeque, io, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    config::Limits,
    frame::{self, HEADER_LEN, Header, PREFIX_LEN},
    gather::{Gather, Unsealed},
    ring::{BLOCK, COPIES, Ring, block_ceil},
    superblock::Superblock,
};
use crate::{Commit, Durable, Error, LogEpoch, Position, Usage};

/// A write for the device.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) at: u64,
    pub(crate) data: Bytes,
    pub(crate) tag: Tag,
}

/// Which write completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tag {
    /// One of the pieces of the frame with this sequence.
    Frame(u64),
    Superblock,
}

/// What the sink must hear, in order.
#[derive(Debug)]
pub(crate) enum Event {
    Durable(Flight),
    Room,
    Failed(Error),
}

/// A frame on its way to the device.
#[derive(Debug)]
pub(crate) struct Flight {
    position: u64,
    records_end: u64,
    bytes: Bytes,
    lens: Vec<u32>,
    /// Pieces that have not completed: two if the frame wraps.
    left: usize,
}

impl Flight {
    /// The records, as slices of the slab.
    pub(crate) fn commit(&self) -> Commit {
        let mut at = HEADER_LEN;
        let records = self.lens.iter().map(|len| {
            let start = Position::new(self.position + at as u64);
            let payload = at + PREFIX_LEN..at + PREFIX_LEN + *len as usize;
            at = payload.end;
            let position = start..Position::new(self.position + at as u64);
            Durable {
                position,
                payload: self.bytes.slice(payload),
            }
        });
        Commit {
            records: records.collect(),
            range: Position::new(self.position)..Position::new(self.records_end),
            footprint: self.bytes.len(),
        }
    }
}

/// Where frames that are not trimmed lie: one, or of a large ring those that begin close to each other. They are given up together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) position: u64,
    pub(crate) records_end: u64,
}

/// Pieces of a ring whose frames are kept apart: 1 MiB of memory at most, and space comes back in 65,536ths.
const KEPT_PIECES: u64 = 1 << 16;

impl Kept {
    /// Adds a frame of `ring` behind those in `list`, together with the last of them if both begin in one piece at or above `floor`.
    pub(crate) fn add(self, list: &mut VecDeque<Self>, ring: Ring, floor: u64) {
        let piece = block_ceil(ring.capacity() / KEPT_PIECES).max(BLOCK);
        match list.back_mut() {
            Some(last)
                if last.position >= floor && last.position / piece == self.position / piece =>
            {
                last.records_end = self.records_end;
            }
            _ => list.push_back(self),
        }
    }
}

/// What the next frame of a log links to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) checksum: u32,
    pub(crate) records_end: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Open,
    Closing,
    Closed,
    Failed(Error),
    Abandoned,
}

/// The superblock's two copies, written one after the other, from the one that is older.
#[derive(Debug)]
struct Marking {
    latest: Superblock,
    first: usize,
    writing: Option<Writing>,
    wanted: bool,
}

impl Marking {
    /// What both copies hold, or will when they are written.
    fn told(&self) -> &Superblock {
        let writing = self.writing.as_ref().map(|writing| &writing.content);
        writing.unwrap_or(&self.latest)
    }
}

#[derive(Debug)]
struct Writing {
    content: Superblock,
    /// The second copy, until it is submitted.
    second: Option<usize>,
    last: bool,
}

/// The state machine. See the module's words.
#[derive(Debug)]
pub(crate) struct Pipeline {
    place: String,
    ring: Ring,
    limits: Limits,
    salt: u64,
    epoch: LogEpoch,
    /// Where the epoch began.
    begun: u64,
    phase: Phase,
    gather: Gather,
    sequence: u64,
    link: Link,
    flights: VecDeque<Flight>,
    /// Of the flights, those that the device has not completed. The others wait for one before them.
    writing: usize,
    /// End of the acknowledged frames, padded.
    acknowledged: u64,
    durable_end: u64,
    kept: VecDeque<Kept>,
    tail_wanted: u64,
    tail: u64,
    marking: Marking,
    events: VecDeque<Event>,
    delivering: bool,
    refused: bool,
}

impl Pipeline {
    /// A log that begins its epoch: `superblock` is what both copies hold, `kept` what is replayed and not trimmed, `first` the copy to write next.
    pub(crate) fn new(
        place: String,
        limits: Limits,
        superblock: Superblock,
        first: usize,
        link: Link,
        kept: VecDeque<Kept>,
    ) -> Self {
        let (epoch, start) = superblock.started.unwrap_or_default();
        Self {
            place,
            ring: superblock.ring,
            limits,
            salt: frame::salt(superblock.identity.log),
            epoch,
            begun: start,
            phase: Phase::Open,
            gather: Gather::new(limits, start),
            sequence: 0,
            link,
            flights: VecDeque::new(),
            writing: 0,
            acknowledged: start,
            durable_end: superblock.durable_end.max(start),
            kept,
            tail_wanted: superblock.tail,
            tail: superblock.tail,
            marking: Marking {
                latest: superblock,
                first,
                writing: None,
                wanted: false,
            },
            events: VecDeque::new(),
            delivering: false,
            refused: false,
        }
    }

    pub(crate) fn durable_end(&self) -> Position {
        Position::new(self.durable_end)
    }

    pub(crate) fn max_record_len(&self) -> usize {
        self.limits.record_bytes_max
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            capacity: self.ring.capacity(),
            used: self.gather.end() - self.tail,
            queue_capacity: self.limits.queue_bytes_max,
            queued: self.gather.bytes(),
            overhead: (HEADER_LEN + PREFIX_LEN) as u64 + BLOCK,
            least: 0,
        }
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

    /// Queues a record.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        match &self.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Closed | Phase::Abandoned => return Err(Error::Closed),
            Phase::Failed(error) => return Err(error.clone()),
        }
        let max = self.limits.record_bytes_max;
        let len = parts
            .iter()
            .try_fold(0_usize, |len, part| len.checked_add(part.len()));
        let len = len.filter(|len| *len <= max).ok_or_else(|| {
            let len = parts
                .iter()
                .fold(0_usize, |len, part| len.saturating_add(part.len()));
            Error::TooLarge { len, max }
        })?;
        if len == 0 {
            return Err(Error::Invalid("an empty record".to_owned()));
        }
        let end = self.gather.end();
        let needed = self.gather.end_with(len) - end;
        let free = self.ring.capacity() - (end - self.tail);
        let waiting = self.gather.bytes();
        let queue = self.limits.queue_bytes_max.saturating_sub(waiting);
        if needed > free || (waiting > 0 && needed > queue) {
            self.refused = true;
            return Err(Error::Full {
                needed,
                free: free.min(queue),
            });
        }
        let range = self.gather.push(parts, len);
        Ok(Position::new(range.start)..Position::new(range.end))
    }

    /// Whatever may go to the device now.
    pub(crate) fn submit(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        if !matches!(self.phase, Phase::Open | Phase::Closing) {
            return requests;
        }
        while self.may_submit() {
            let Some(frame) = self.gather.take() else {
                break;
            };
            self.seal(frame, &mut requests);
        }
        self.mark(&mut requests);
        requests
    }

    /// Whether one more commit is worth a place in flight: always the only one; a further one when enough waits for it.
    fn may_submit(&self) -> bool {
        let bytes = self.gather.next_bytes();
        if bytes == 0 {
            return false;
        }
        self.flights.is_empty()
            || (self.writing < self.limits.in_flight_max
                && bytes >= self.limits.overlap_bytes
                && self.gather.next_end() - self.acknowledged <= self.limits.window)
    }

    /// Gives a frame its header, and cuts it for the device.
    fn seal(&mut self, frame: Unsealed, requests: &mut Vec<Request>) {
        let Unsealed {
            mut bytes,
            position,
            body_len,
            body_crc,
            lens,
        } = frame;
        let header = Header {
            salt: self.salt,
            epoch: self.epoch,
            sequence: self.sequence,
            position,
            predecessor_end: self.link.records_end,
            durable_through: self.durable_end,
            body_len: u32::try_from(body_len).expect("a frame is bounded by its limits"),
            records: u32::try_from(lens.len()).expect("a record has at least one byte"),
            predecessor: self.link.checksum,
            body_crc,
        };
        let (head, checksum) = header.encode();
        if let Some(to) = bytes.first_chunk_mut::<HEADER_LEN>() {
            *to = head;
        }
        let bytes = bytes.freeze();
        let records_end = header.records_end();
        let pieces = self.ring.pieces(position, &bytes);
        self.writing += 1;
        self.flights.push_back(Flight {
            position,
            records_end,
            bytes,
            lens,
            left: pieces.len(),
        });
        let tag = Tag::Frame(self.sequence);
        requests.extend(
            pieces
                .into_iter()
                .map(|(at, data)| Request { at, data, tag }),
        );
        let kept = Kept {
            position,
            records_end,
        };
        kept.add(&mut self.kept, self.ring, self.begun);
        self.link = Link {
            checksum,
            records_end,
        };
        self.sequence += 1;
    }

    /// Begins to write the superblock copies, if that is wanted and not under way; the last time when all else is done and the log is closing.
    fn mark(&mut self, requests: &mut Vec<Request>) {
        if self.marking.writing.is_some() {
            return;
        }
        let idle = self.flights.is_empty()
            && self.gather.bytes() == 0
            && self.events.is_empty()
            && !self.delivering;
        let last = matches!(self.phase, Phase::Closing) && idle;
        if !last && !self.marking.wanted {
            return;
        }
        self.marking.wanted = false;
        let content = Superblock {
            sequence: self.marking.latest.sequence + 1,
            tail: self.tail_wanted,
            durable_end: self.durable_end,
            closed: last && self.kept.is_empty(),
            ..self.marking.latest.clone()
        };
        let first = self.marking.first;
        requests.push(copy_request(&content, first));
        self.marking.writing = Some(Writing {
            content,
            second: Some(1 - first),
            last,
        });
    }

    /// A write came back.
    pub(crate) fn complete(&mut self, tag: Tag, result: io::Result<()>) -> Vec<Request> {
        if !matches!(self.phase, Phase::Open | Phase::Closing) {
            return Vec::new();
        }
        if let Err(source) = result {
            let op = match tag {
                Tag::Frame(_) => "write a frame to",
                Tag::Superblock => "write the superblock of",
            };
            self.fail(Error::of_device(op, self.place.clone(), source));
            return Vec::new();
        }
        let mut requests = match tag {
            Tag::Frame(sequence) => {
                self.frame_written(sequence);
                Vec::new()
            }
            Tag::Superblock => self.copy_written(),
        };
        requests.extend(self.submit());
        requests
    }

    fn frame_written(&mut self, sequence: u64) {
        let first = self.sequence - self.flights.len() as u64;
        let flight = usize::try_from(sequence - first)
            .ok()
            .and_then(|i| self.flights.get_mut(i));
        let flight = flight.expect("a completion comes once, for a frame in flight");
        flight.left -= 1;
        self.writing -= usize::from(flight.left == 0);
        while self.flights.front().is_some_and(|flight| flight.left == 0) {
            let Some(flight) = self.flights.pop_front() else {
                break;
            };
            self.acknowledged = block_ceil(flight.records_end);
            self.durable_end = flight.records_end;
            self.events.push_back(Event::Durable(flight));
            if std::mem::take(&mut self.refused) {
                self.events.push_back(Event::Room);
            }
        }
        let unmarked = self.durable_end - self.marking.told().durable_end;
        self.marking.wanted |= unmarked >= self.limits.unmarked_max;
    }

    fn copy_written(&mut self) -> Vec<Request> {
        let writing = self
            .marking
            .writing
            .as_mut()
            .expect("a copy completes while it is written");
        if let Some(second) = writing.second.take() {
            return vec![copy_request(&writing.content, second)];
        }
        let Some(Writing { content, last, .. }) = self.marking.writing.take() else {
            return Vec::new();
        };
        // Both copies hold it: now the space is free (F2).
        if content.tail > self.tail {
            self.tail = content.tail;
            self.refused = false;
            self.events.push_back(Event::Room);
        }
        self.marking.latest = content;
        if last {
            self.phase = Phase::Closed;
        }
        Vec::new()
    }

    /// Fails the log for good (W6). Only the first cause counts. A fence stays one: who lost the log must not take it back.
    pub(crate) fn fail(&mut self, cause: Error) {
        if !matches!(self.phase, Phase::Open | Phase::Closing) {
            return;
        }
        let error = match cause {
            Error::Fenced { .. } => cause,
            cause => Error::Failed {
                cause: Arc::new(cause),
            },
        };
        self.events.push_back(Event::Failed(error.clone()));
        self.phase = Phase::Failed(error);
        self.gather = Gather::new(self.limits, self.gather.end());
        self.flights.clear();
        self.writing = 0;
    }

    /// Gives up what lies below `to`.
    pub(crate) fn trim(&mut self, to: Position) {
        let to = to.get().min(self.durable_end);
        while self
            .kept
            .front()
            .is_some_and(|frame| frame.records_end <= to)
        {
            self.kept.pop_front();
        }
        let next = self.gather.end() - self.gather.bytes();
        self.tail_wanted = self.kept.front().map_or(next, |frame| frame.position);
        self.marking.wanted |= self.tail_wanted > self.marking.told().tail;
    }

    /// Takes no more appends, and marks the end when all is done.
    pub(crate) fn close(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing;
        }
    }

    /// The owner is gone: whatever is in flight ends unheard.
    pub(crate) fn abandon(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Closing) {
            self.phase = Phase::Abandoned;
        }
        self.gather = Gather::new(self.limits, self.gather.end());
        self.flights.clear();
        self.writing = 0;
        self.events.clear();
    }

    /// Whether the caller is the one to tell the sink: one at a time.
    pub(crate) fn begin_delivery(&mut self) -> bool {
        let begins = !self.delivering && !self.events.is_empty();
        self.delivering |= begins;
        begins
    }

    /// What the sink must hear next; `None` ends the delivery.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        self.delivering = event.is_some();
        event
    }
}

fn copy_request(content: &Superblock, copy: usize) -> Request {
    let at = if copy == 0 { COPIES[0] } else { COPIES[1] };
    Request {
        at,
        data: content.encode(),
        tag: Tag::Superblock,
    }
}

#[cfg(test)]
mod tests;
