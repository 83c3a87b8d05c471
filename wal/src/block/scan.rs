//! Finds what a ring holds of the epochs that are owed: where each begins, where the newest ends, and whether anything is missing (F2, W8).
//!
//! - Of a sealed epoch every frame from its trim to its sealed end must be there.
//! - Of the unsealed one, a bad frame at `p` is corruption if `p` lies below what is known to have been acknowledged: the durable end in the
//!   metadata, in the superblock, or in any sound header at or up to one window above `p`. Otherwise `p` is the end.
//! - What is known to have been acknowledged is not read here, but for its last frame: what is bad or missing among it is corruption, which the replay
//!   tells. What lies above decides where the epoch ends: the headers of that are read, and the bodies of which no header says that they were durable.
//! - What lies above an end is never looked at again: it has a lower epoch than whatever will be written there.
//!
//! It looks ahead for one window, not for the whole ring: a writer never has frames in flight further than that above the acknowledged ones, so the
//! first frame that was sealed after `p` was acknowledged begins within it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    frame::{self, Flaw, HEADER_LEN, Header, PREFIX_LEN},
    pipeline::{Kept, Link},
    reader::Reader,
    ring::{BLOCK, Ring, block_ceil, block_floor},
    superblock::Superblock,
};
use crate::{EpochEnd, EpochState, Error, LogEpoch, LogState, Position, Replayed};

/// The owed part of one epoch, as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) epoch: LogEpoch,
    /// Records that end at or below are dropped.
    pub(crate) trim: u64,
    /// The first frame.
    pub(crate) first: u64,
    /// End of the last record, or the trim if that is higher.
    pub(crate) end: u64,
}

impl Span {
    /// Holds the first frame against the trim: what lies between them is missing.
    pub(crate) fn begins_with(&self, header: &Header, walk: &Walk) -> Result<(), Error> {
        let trim = self.trim;
        if header.position <= trim || header.predecessor_end <= trim {
            return Ok(());
        }
        let what = format!("records up to {} are missing", header.predecessor_end);
        Err(walk.corrupt(trim, what))
    }
}

/// What an opening found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) spans: Vec<Span>,
    pub(crate) ends: Vec<EpochEnd>,
    /// Frames that may not be overwritten yet; those that were not read together.
    pub(crate) kept: VecDeque<Kept>,
    pub(crate) link: Option<Link>,
}

/// Frames at least this far apart are looked at one by one; others are read as they lie, ahead.
const SPARSE_BYTES: u64 = 128 << 10;

/// Reads frame after frame and holds each against the one before.
#[derive(Debug)]
pub(crate) struct Walk {
    reader: Reader,
    salt: u64,
    /// The longest frame that a writer of this log may have written: no more memory than that is taken on a header's word.
    len_max: u64,
    place: String,
    /// The last frame that was read, unless something was skipped since.
    link: Option<Link>,
    /// The sequence and epoch that a frame right after it has, if it has the same epoch.
    next: Option<(LogEpoch, u64)>,
}

impl Walk {
    pub(crate) fn new(reader: Reader, superblock: &Superblock, place: String) -> Self {
        let salt = frame::salt(superblock.identity.log);
        Self {
            reader,
            salt,
            len_max: block_ceil(superblock.window),
            place,
            link: None,
            next: None,
        }
    }

    /// Forgets the frame before: what follows may be a trim away from it.
    pub(crate) fn restart(&mut self) {
        self.link = None;
        self.next = None;
    }

    /// From here on what lies up to `until` is read ahead.
    pub(crate) fn ahead(&mut self, until: u64) {
        self.reader.ahead(until);
    }

    /// The header of the frame of `epoch` at `position`. What its body is worth is not looked at.
    async fn look(
        &mut self,
        epoch: LogEpoch,
        position: u64,
    ) -> Result<Result<Looked, Flaw>, Error> {
        self.reader.enter(epoch);
        let found = self.reader.header(position, self.salt, self.len_max);
        let (header, checksum) = match found.await? {
            Ok(found) => found,
            Err(flaw) => return Ok(Err(flaw)),
        };
        if let Err(flaw) = self.follows(epoch, &header) {
            return Ok(Err(flaw));
        }
        let link = Link {
            checksum,
            records_end: header.records_end(),
        };
        self.link = Some(link);
        self.next = Some((epoch, header.sequence + 1));
        Ok(Ok(Looked { header, link }))
    }

    /// The records of a frame that was looked at, if its body is what the header says.
    async fn body(&mut self, header: &Header) -> Result<Result<Vec<(u64, Bytes)>, Flaw>, Error> {
        let bytes = self.reader.frame(header).await?;
        Ok(header.records(&bytes))
    }

    /// The frame of `epoch` at `position`, with its records.
    pub(crate) async fn step(
        &mut self,
        epoch: LogEpoch,
        position: u64,
    ) -> Result<Result<(Header, Vec<(u64, Bytes)>), Flaw>, Error> {
        let header = match self.look(epoch, position).await? {
            Ok(looked) => looked.header,
            Err(flaw) => return Ok(Err(flaw)),
        };
        Ok(self.body(&header).await?.map(|records| (header, records)))
    }

    fn follows(&self, epoch: LogEpoch, header: &Header) -> Result<(), Flaw> {
        if header.epoch != epoch {
            return Err(Flaw::Epoch {
                found: header.epoch,
                expected: epoch,
            });
        }
        if let Some(link) = self.link {
            if header.predecessor != link.checksum {
                let (found, expected) = (header.predecessor, link.checksum);
                return Err(Flaw::Predecessor { found, expected });
            }
            if header.predecessor_end != link.records_end {
                let (found, expected) = (header.predecessor_end, link.records_end);
                return Err(Flaw::PredecessorEnd { found, expected });
            }
        }
        match self.next {
            Some((of, expected)) if of == epoch && header.sequence != expected => {
                Err(Flaw::Sequence {
                    found: header.sequence,
                    expected,
                })
            }
            Some((of, _)) if of != epoch && header.sequence != 0 => Err(Flaw::Sequence {
                found: header.sequence,
                expected: 0,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn corrupt(&self, position: u64, flaw: impl std::fmt::Display) -> Error {
        Error::Corrupt {
            position: Position::new(position),
            what: format!("{}: {flaw}", self.place),
        }
    }
}

/// A frame whose header is sound and follows.
#[derive(Clone, Copy, Debug)]
struct Looked {
    header: Header,
    link: Link,
}

/// The frames of one epoch as they are found: the last of them may be torn, the others are known to have been durable, and what their bodies are
/// worth is the replay's to tell.
#[derive(Debug)]
struct Chain {
    ring: Ring,
    span: Span,
    /// The end of the last record that is not in doubt.
    missing_from: u64,
    link: Option<Link>,
    /// Frames of which nothing says that they were durable, in order: at most a window of them.
    unproven: VecDeque<Looked>,
}

impl Chain {
    /// Takes in frame after frame from the one at `from` up to the sealed end, or to the first that is not there: what is then known to be durable, and
    /// the place and the flaw. What lies below `from` is part of what is `known` to be durable.
    async fn follow(
        &mut self,
        walk: &mut Walk,
        scan: &mut Scan,
        (from, known): (u64, u64),
        window: u64,
        sealed: Option<u64>,
    ) -> Result<(u64, Option<(u64, Flaw)>), Error> {
        let Span { epoch, first, .. } = self.span;
        let (mut bound, mut position, mut flaw) = (known, from, None);
        walk.ahead(u64::MAX);
        while flaw.is_none() && sealed.is_none_or(|end| position < end) {
            let looked = match walk.look(epoch, position).await? {
                Ok(looked) => looked,
                Err(found) => {
                    flaw = Some((position, found));
                    break;
                }
            };
            let header = looked.header;
            if position == first {
                self.span.begins_with(&header, walk)?;
            } else if position == from {
                let passed = Kept {
                    position: first,
                    records_end: header.predecessor_end,
                };
                scan.kept.push_back(passed);
            }
            let far = header.len() >= SPARSE_BYTES;
            walk.ahead(if far { 0 } else { u64::MAX });
            bound = bound.max(header.durable_through);
            position = header.end();
            self.unproven.push_back(looked);
            self.settle(bound, scan);
            flaw = self.prove(walk, scan, position, window).await?;
        }
        // A body that is bad before the end that the headers show is the end.
        if let Some(earlier) = self.prove(walk, scan, u64::MAX, 0).await? {
            flaw = Some(earlier);
        }
        Ok((bound, flaw))
    }

    /// Takes in what lies below `bound`.
    fn settle(&mut self, bound: u64, scan: &mut Scan) {
        while let Some(looked) = self.unproven.front().copied() {
            if looked.link.records_end > bound {
                return;
            }
            self.unproven.pop_front();
            self.take(looked, scan);
        }
    }

    /// Takes in every frame that begins more than `window` below `position` and whose body is sound; the place and the flaw of the first that is not.
    async fn prove(
        &mut self,
        walk: &mut Walk,
        scan: &mut Scan,
        position: u64,
        window: u64,
    ) -> Result<Option<(u64, Flaw)>, Error> {
        while let Some(looked) = self.unproven.front().copied() {
            let at = looked.header.position;
            if position - at <= window {
                break;
            }
            if let Err(flaw) = walk.body(&looked.header).await? {
                self.unproven.clear();
                return Ok(Some((at, flaw)));
            }
            self.unproven.pop_front();
            self.take(looked, scan);
        }
        Ok(None)
    }

    fn take(&mut self, Looked { header, link }: Looked, scan: &mut Scan) {
        self.span.end = self.span.end.max(link.records_end);
        self.missing_from = link.records_end;
        self.link = Some(link);
        let kept = Kept {
            position: header.position,
            records_end: link.records_end,
        };
        kept.add(&mut scan.kept, self.ring, self.span.first);
    }
}

/// Scans all that `state` says is started and owed on the log that `superblock` describes.
pub(crate) async fn scan(
    walk: &mut Walk,
    superblock: &Superblock,
    state: &LogState,
) -> Result<Scan, Error> {
    let mut scan = Scan {
        spans: Vec::new(),
        ends: Vec::new(),
        kept: VecDeque::new(),
        link: None,
    };
    for owed in state.started() {
        scan_epoch(walk, superblock, owed, &mut scan).await?;
    }
    scan.link = walk.link;
    walk.reader.rest().await;
    Ok(scan)
}

/// What is known to be durable of an epoch before any of its frames was read.
fn known_end(superblock: &Superblock, owed: &EpochState) -> u64 {
    let known = owed.durable_end.max(owed.sealed_end.unwrap_or_default());
    let newest = superblock.started.map(|(epoch, _)| epoch);
    if newest == Some(owed.epoch) && owed.sealed_end.is_none() {
        known.get().max(superblock.durable_end)
    } else {
        known.get()
    }
}

async fn scan_epoch(
    walk: &mut Walk,
    superblock: &Superblock,
    owed: &EpochState,
    scan: &mut Scan,
) -> Result<(), Error> {
    let (epoch, trim) = (owed.epoch, owed.trim.get());
    let sealed = owed.sealed_end.map(Position::get);
    if sealed.is_some_and(|end| end <= trim) {
        scan.ends.push(EpochEnd {
            epoch,
            end: owed.sealed_end.unwrap_or(owed.trim),
        });
        return Ok(());
    }
    let known = known_end(superblock, owed);
    let first = first_frame(walk, superblock, epoch, trim).await?;
    let from = last_known(walk, superblock, epoch, first, known).await?;
    if scan
        .kept
        .back()
        .is_none_or(|kept| block_ceil(kept.records_end) != from)
    {
        walk.restart();
    }
    let mut chain = Chain {
        ring: superblock.ring,
        span: Span {
            epoch,
            trim,
            first,
            end: trim,
        },
        // From a frame's start down to the trim nothing is missing; without a frame that covers the trim, that is told by the next one.
        missing_from: trim,
        link: walk.link,
        unproven: VecDeque::new(),
    };
    let (bound, flaw) = chain
        .follow(walk, scan, (from, known), superblock.window, sealed)
        .await?;
    walk.link = chain.link;
    let span = chain.span;
    if let Some((position, flaw)) = flaw {
        if chain.missing_from < bound {
            return Err(walk.corrupt(position, format!("{flaw}, below the durable end {bound}")));
        }
        let later = later_bound(walk, superblock, epoch, position).await?;
        if position < later {
            let what = format!("{flaw}, below {later} that a later frame knows to be durable");
            return Err(walk.corrupt(position, what));
        }
    }
    if let Some(sealed) = sealed
        && span.end != sealed
    {
        let what = format!("records end at {}, the sealed end is {sealed}", span.end);
        return Err(walk.corrupt(span.end.min(sealed), what));
    }
    scan.ends.push(EpochEnd {
        epoch,
        end: Position::new(span.end),
    });
    scan.spans.push(span);
    Ok(())
}

/// Where the first frame begins that may hold a record above `trim`: the frame at the trim, the one that covers it, or the block after it.
///
/// Nothing below the trim needs to be there (W7), so what is found bad on the way down is passed over.
async fn first_frame(
    walk: &mut Walk,
    superblock: &Superblock,
    epoch: LogEpoch,
    trim: u64,
) -> Result<u64, Error> {
    walk.reader.enter(epoch);
    let after = block_ceil(trim);
    // A window need not be whole blocks: it follows from settings in bytes.
    walk.ahead(0);
    let lowest = block_floor(after.saturating_sub(superblock.window.max(BLOCK)));
    let mut at = block_floor(trim);
    loop {
        walk.reader.look_back(at, lowest).await?;
        let found = walk.reader.header(at, walk.salt, walk.len_max).await?;
        if let Ok((header, _)) = found {
            let covers = header.epoch == epoch && header.records_end() > trim;
            return Ok(if covers { at } else { after });
        }
        if at <= lowest {
            return Ok(after);
        }
        at = block_floor(at - 1);
    }
}

/// Where the frame begins with which what is `known` to be durable ends: what lies below it need not be looked at to find the end. It is `first` if no such
/// frame is found: then the place of what is wrong is.
async fn last_known(
    walk: &mut Walk,
    superblock: &Superblock,
    epoch: LogEpoch,
    first: u64,
    known: u64,
) -> Result<u64, Error> {
    if known <= first {
        return Ok(first);
    }
    let last = known - 1;
    let found = first_frame(walk, superblock, epoch, last).await?;
    // Where none is found it is told the block after.
    Ok(if found < last {
        found.max(first)
    } else {
        first
    })
}

/// What the sound headers within a window above `position` know to be durable.
async fn later_bound(
    walk: &mut Walk,
    superblock: &Superblock,
    epoch: LogEpoch,
    position: u64,
) -> Result<u64, Error> {
    let mut bound = 0;
    let mut at = position;
    let end = position.saturating_add(superblock.window);
    walk.ahead(end);
    while at < end {
        let found = walk.reader.header(at, walk.salt, walk.len_max).await?;
        if let Ok((header, _)) = found
            && header.epoch == epoch
        {
            bound = bound.max(header.durable_through);
        }
        at += BLOCK;
    }
    Ok(bound)
}

/// The records of one frame that `span` owes, each with its share of the frame.
pub(crate) fn replayed(span: &Span, header: &Header, records: Vec<(u64, Bytes)>) -> Vec<Replayed> {
    let count = records.len();
    let overhead = usize::try_from(header.len() - header.used()).unwrap_or(0) + HEADER_LEN;
    let of_span = records
        .into_iter()
        .enumerate()
        .map(|(i, (position, payload))| {
            let len = PREFIX_LEN + payload.len();
            Replayed {
                epoch: span.epoch,
                position: Position::new(position)..Position::new(position + len as u64),
                payload,
                footprint: len + if i + 1 == count { overhead } else { 0 },
            }
        });
    of_span
        .filter(|record| record.position.end.get() > span.trim)
        .collect()
}
