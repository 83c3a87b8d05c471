//! Finds what a ring holds of the epochs that are owed: where each begins, where the newest ends, and whether anything is missing (F2, W8).
//!
//! - Of a sealed epoch every frame from its trim to its sealed end must be there.
//! - Of the unsealed one, a bad frame at `p` is corruption if `p` lies below what is known to have been acknowledged: the durable end in the
//!   metadata, in the superblock, or in any sound header at or up to one window above `p`. Otherwise `p` is the end.
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
    ring::{BLOCK, block_ceil, block_floor},
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

/// What an opening found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) spans: Vec<Span>,
    pub(crate) ends: Vec<EpochEnd>,
    /// Frames that may not be overwritten yet.
    pub(crate) kept: VecDeque<Kept>,
    pub(crate) link: Option<Link>,
}

/// Reads frame after frame and holds each against the one before.
#[derive(Debug)]
pub(crate) struct Walk {
    reader: Reader,
    salt: u64,
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

    /// The frame of `epoch` at `position`, with its records.
    pub(crate) async fn step(
        &mut self,
        epoch: LogEpoch,
        position: u64,
    ) -> Result<Result<(Header, Vec<(u64, Bytes)>), Flaw>, Error> {
        self.reader.enter(epoch);
        let (header, checksum) = match self.reader.header(position, self.salt).await? {
            Ok(found) => found,
            Err(flaw) => return Ok(Err(flaw)),
        };
        if let Err(flaw) = self.follows(epoch, &header) {
            return Ok(Err(flaw));
        }
        let bytes = self.reader.frame(&header).await?;
        Ok(header.records(&bytes).map(|records| {
            self.link = Some(Link {
                checksum,
                records_end: header.records_end(),
            });
            self.next = Some((epoch, header.sequence + 1));
            (header, records)
        }))
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
    Ok(scan)
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
    let mut bound = owed.durable_end.get().max(sealed.unwrap_or(0));
    if superblock
        .started
        .is_some_and(|(started, _)| started == epoch)
        && sealed.is_none()
    {
        bound = bound.max(superblock.durable_end);
    }
    let first = first_frame(walk, superblock, epoch, trim).await?;
    if scan
        .kept
        .back()
        .is_none_or(|kept| block_ceil(kept.records_end) != first)
    {
        walk.restart();
    }
    let mut span = Span {
        epoch,
        trim,
        first,
        end: trim,
    };
    let mut position = first;
    // From a frame's start down to the trim nothing is missing; without a frame that covers the trim, that is told by the next one.
    let mut missing_from = trim;
    loop {
        if sealed.is_some_and(|end| position >= end) {
            break;
        }
        let flaw = match walk.step(epoch, position).await? {
            Ok((header, _)) => {
                if position == first && header.position > trim && header.predecessor_end > trim {
                    let what = format!("records up to {} are missing", header.predecessor_end);
                    return Err(walk.corrupt(trim, what));
                }
                bound = bound.max(header.durable_through);
                span.end = span.end.max(header.records_end());
                scan.kept.push_back(Kept {
                    position,
                    records_end: header.records_end(),
                });
                position = header.end();
                missing_from = header.records_end();
                continue;
            }
            Err(flaw) => flaw,
        };
        if missing_from < bound {
            return Err(walk.corrupt(position, format!("{flaw}, below the durable end {bound}")));
        }
        let later = later_bound(walk, superblock, epoch, position).await?;
        if position < later {
            let what = format!("{flaw}, below {later} that a later frame knows to be durable");
            return Err(walk.corrupt(position, what));
        }
        break;
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
    let lowest = block_floor(after.saturating_sub(superblock.window.max(BLOCK)));
    let mut at = block_floor(trim);
    loop {
        walk.reader.look_back(at, lowest).await?;
        if let Ok((header, _)) = walk.reader.header(at, walk.salt).await? {
            let covers = header.epoch == epoch && header.records_end() > trim;
            return Ok(if covers { at } else { after });
        }
        if at <= lowest {
            return Ok(after);
        }
        at = block_floor(at - 1);
    }
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
    while at < position.saturating_add(superblock.window) {
        if let Ok((header, _)) = walk.reader.header(at, walk.salt).await?
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
