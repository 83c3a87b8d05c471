//! Where an epoch ends: the objects from its trim on, and the fence above them (F1).
//!
//! - Fences are put at the first missing number and above, twice as many each round, until every number below some fence is settled.
//! - The end is the lowest fence, whoever put it. If one is there, no other is put above it.
//! - What is missing below something that was acknowledged is `Corrupt`, with its place, before any fence is put over it.
//!
//! It does not depend on how many puts the owner may have on their way: the owner acknowledges in order, and a fence has a number that it
//! must still write. And not on the listing: that only says where to begin.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    folder::{Folder, Name},
    format::{
        Flaw, Header, Kind, NUMBER_MAX, VERSION, byte_of, number_after, number_of, position_of,
    },
    listing::{Listing, is_fence},
    put::Settled,
};
use crate::{EpochState, Error, Identity, LogEpoch, Position};

/// Fences in one round, all at once.
const WIDTH_MAX: usize = 256;
/// Rounds before an owner that stays ahead is given up on: it would have put some thousand objects in between.
const ROUNDS_MAX: usize = 24;

/// An epoch whose end is settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) epoch: LogEpoch,
    /// Number and length of the objects that replay.
    pub(crate) objects: Vec<(u64, u64)>,
    /// Where its last record ends, or where it began.
    pub(crate) end: u64,
    /// The number of its lowest fence. Of an epoch that was sealed before it follows from its end.
    pub(crate) fence: u64,
}

/// Whoever settles epochs.
#[derive(Debug)]
pub(crate) struct Fencer<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) identity: &'a Identity,
    pub(crate) epoch: LogEpoch,
    pub(crate) incarnation: u128,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// Its length, from the listing or from itself.
    Commit(u64),
    Fence,
}

type Found = BTreeMap<u64, Seen>;

impl Fencer<'_> {
    /// An epoch that was sealed: its objects, all of them, up to exactly where it ends (W8).
    pub(crate) async fn sealed(
        &self,
        owed: &EpochState,
        end: u64,
        listing: &Listing,
    ) -> Result<Extent, Error> {
        let trim = owed.trim.get();
        let mut extent = Extent {
            epoch: owed.epoch,
            objects: Vec::new(),
            end,
            fence: number_after(end),
        };
        if trim >= end {
            return Ok(extent);
        }
        let mut found = seen(listing, owed.epoch, number_of(trim));
        for number in number_of(trim)..extent.fence {
            let len = self.commit(&mut found, (owed.epoch, number)).await?;
            extent.objects.push((number, len));
        }
        let ends_at = extent
            .objects
            .last()
            .map(|(number, len)| position_of(*number) + len);
        if ends_at != Some(end) {
            let what = format!(
                "epoch {} of {} ends at {ends_at:?}, it was sealed at {end}",
                owed.epoch, self.folder.place
            );
            return Err(corrupt(end, what));
        }
        extent.drop_trimmed(trim);
        Ok(extent)
    }

    /// An epoch that is not sealed: fences it, or finds its fence.
    pub(crate) async fn fence(
        &self,
        owed: &EpochState,
        listing: &Listing,
    ) -> Result<Extent, Error> {
        let (epoch, trim) = (owed.epoch, owed.trim.get());
        let first = number_of(trim);
        let mut found = seen(listing, epoch, first);
        if byte_of(trim) > 0 {
            // A trim is where an acknowledged record ends, and the object that it lies in is never deleted.
            self.commit(&mut found, (epoch, first)).await?;
        }
        let from = number_after(trim);
        self.nothing_lost(&mut found, epoch, from).await?;
        let fence = self.settle(&mut found, epoch, from).await?;
        let mut extent = Extent {
            epoch,
            objects: Vec::new(),
            end: trim,
            fence,
        };
        for (number, seen) in found.range(first..fence) {
            match seen {
                Seen::Commit(len) => extent.objects.push((*number, *len)),
                Seen::Fence => return Err(self.flawed((epoch, *number), Flaw::Kind)),
            }
        }
        if let Some((number, len)) = extent.objects.last().copied() {
            // Read in whole: what the epoch's end rests on.
            let (header, _) = self.read((epoch, number)).await?;
            let (found, expected) = (header.end(), position_of(number) + len);
            if found != expected {
                return Err(self.flawed((epoch, number), Flaw::End { found, expected }));
            }
            extent.end = found;
        }
        let durable = owed.durable_end.get().max(trim);
        if extent.end < durable {
            let what = format!(
                "epoch {epoch} of {} ends there, records were acknowledged up to {durable}",
                self.folder.place
            );
            return Err(corrupt(extent.end, what));
        }
        extent.drop_trimmed(trim);
        Ok(extent)
    }

    /// An epoch that was granted and not started: a fence at the number that it would begin with. It never puts anything (decision 0003), so
    /// this finds out whether that is so. A fence that an earlier opening put there is as good: else openings that fail would make the next one longer
    /// and longer.
    pub(crate) async fn unstarted(
        &self,
        epoch: LogEpoch,
        number: u64,
        listing: &Listing,
    ) -> Result<(), Error> {
        let listed = listing.objects.get(&(epoch, number));
        if listed.is_some_and(|len| is_fence(*len)) {
            return Ok(());
        }
        match self.put_fence((epoch, number)).await? {
            (_, Seen::Fence) => Ok(()),
            (_, Seen::Commit(_)) => Err(Error::Mismatch {
                place: self.folder.place.to_string(),
                found: format!("number {number} of epoch {epoch}"),
                expected: format!("nothing of epoch {epoch}, which was never started"),
            }),
        }
    }

    /// Refuses to fence over something that was acknowledged: an object above a missing number may know.
    async fn nothing_lost(
        &self,
        found: &mut Found,
        epoch: LogEpoch,
        from: u64,
    ) -> Result<(), Error> {
        let lowest = lowest_fence(found);
        let highest = found.range(from..lowest.unwrap_or(u64::MAX)).next_back();
        let Some(highest) = highest.map(|(number, _)| *number) else {
            return Ok(());
        };
        if found.range(from..highest).count() as u64 == highest - from {
            return Ok(());
        }
        let (header, _) = self.read((epoch, highest)).await?;
        let acknowledged = number_after(header.durable_through).min(highest);
        for number in from..acknowledged {
            // Asked by name: it may have come while the listing was made.
            self.commit(found, (epoch, number)).await?;
        }
        Ok(())
    }

    /// Puts fences until one is lowest for certain, and gives its number.
    async fn settle(&self, found: &mut Found, epoch: LogEpoch, from: u64) -> Result<u64, Error> {
        if let Some(lowest) = lowest_fence(found) {
            // By its length alone so far.
            let (header, _) = self.read((epoch, lowest)).await?;
            if header.kind != Kind::Fence {
                return Err(self.flawed((epoch, lowest), Flaw::Kind));
            }
        }
        for round in 0..ROUNDS_MAX {
            let lowest = lowest_fence(found);
            let top = lowest.unwrap_or(NUMBER_MAX);
            let width = (1usize << round.min(63)).min(WIDTH_MAX);
            let missing: Vec<_> = (from..top)
                .filter(|number| !found.contains_key(number))
                .take(width)
                .collect();
            match (missing.is_empty(), lowest) {
                (true, Some(lowest)) => return Ok(lowest),
                (true, None) => break,
                (false, _) => {}
            }
            let puts = missing.into_iter().map(|n| self.put_fence((epoch, n)));
            let puts = stream::iter(puts).buffer_unordered(WIDTH_MAX);
            found.extend(puts.try_collect::<Vec<_>>().await?);
        }
        let path = self
            .folder
            .path(Name::Object(self.identity.log, epoch, from));
        let ahead = std::io::Error::other("the owner stays ahead of the fences");
        Err(self.folder.io("fence", &path, ahead))
    }

    async fn put_fence(&self, at: (LogEpoch, u64)) -> Result<(u64, Seen), Error> {
        let fence = Header::fence(self.identity, at, self.epoch, self.incarnation);
        let (bytes, _) = fence.encode();
        let bytes = Bytes::copy_from_slice(&bytes);
        let path = self
            .folder
            .path(Name::Object(self.identity.log, at.0, at.1));
        let seen = match self.folder.put_patiently(&path, &bytes).await? {
            Settled::Ours => Seen::Fence,
            Settled::Theirs(found) => self.seen(at, &found)?,
        };
        Ok((at.1, seen))
    }

    /// A commit that must be there; its length.
    async fn commit(&self, found: &mut Found, at: (LogEpoch, u64)) -> Result<u64, Error> {
        let seen = match found.get(&at.1) {
            Some(seen) => *seen,
            None => {
                let (header, _) = self.read(at).await?;
                let seen = seen_of(&header);
                found.insert(at.1, seen);
                seen
            }
        };
        match seen {
            Seen::Commit(len) => Ok(len),
            Seen::Fence => Err(self.flawed(at, Flaw::Kind)),
        }
    }

    /// An object that must be there, whole.
    async fn read(&self, at: (LogEpoch, u64)) -> Result<(Header, Bytes), Error> {
        read(self.folder, self.identity, at)
            .await
            .map(|(header, _, bytes)| (header, bytes))
    }

    fn seen(&self, at: (LogEpoch, u64), found: &[u8]) -> Result<Seen, Error> {
        let (header, _) = decode(self.folder, self.identity, at, found)?;
        Ok(seen_of(&header))
    }

    fn flawed(&self, at: (LogEpoch, u64), flaw: Flaw) -> Error {
        flawed(self.folder, self.identity, at, flaw)
    }
}

impl Extent {
    /// The first object may lie wholly below the trim.
    fn drop_trimmed(&mut self, trim: u64) {
        self.objects
            .retain(|(number, len)| position_of(*number) + len > trim);
    }
}

fn seen_of(header: &Header) -> Seen {
    match header.kind {
        Kind::Commit => Seen::Commit(header.end() - position_of(header.number)),
        Kind::Fence => Seen::Fence,
    }
}

/// What the listing shows of an epoch from a number on.
fn seen(listing: &Listing, epoch: LogEpoch, from: u64) -> Found {
    let of_epoch = listing.of_epoch(epoch);
    let from = of_epoch.filter(|(number, _)| *number >= from);
    from.map(|(number, len)| match is_fence(len) {
        true => (number, Seen::Fence),
        false => (number, Seen::Commit(len)),
    })
    .collect()
}

fn lowest_fence(found: &Found) -> Option<u64> {
    let mut fences = found.iter().filter(|(_, seen)| **seen == Seen::Fence);
    fences.next().map(|(number, _)| *number)
}

/// Reads the object at a place that must have one.
pub(crate) async fn read(
    folder: &Folder,
    identity: &Identity,
    at: (LogEpoch, u64),
) -> Result<(Header, u32, Bytes), Error> {
    let path = folder.path(Name::Object(identity.log, at.0, at.1));
    let Some(bytes) = folder.get(&path).await? else {
        let what = format!(
            "{path} of {} is not there, though records below and above it were acknowledged or replayed",
            folder.place
        );
        return Err(corrupt(position_of(at.1), what));
    };
    let (header, crc) = decode(folder, identity, at, &bytes)?;
    Ok((header, crc, bytes))
}

fn decode(
    folder: &Folder,
    identity: &Identity,
    at: (LogEpoch, u64),
    bytes: &[u8],
) -> Result<(Header, u32), Error> {
    let decoded = Header::decode(bytes)
        .and_then(|(header, crc)| header.is_at(identity, at).map(|()| (header, crc)));
    decoded.map_err(|flaw| flawed(folder, identity, at, flaw))
}

/// What is wrong with the object at a place.
pub(crate) fn flawed(
    folder: &Folder,
    identity: &Identity,
    at: (LogEpoch, u64),
    flaw: Flaw,
) -> Error {
    let path = folder.path(Name::Object(identity.log, at.0, at.1));
    match flaw {
        Flaw::Version(found) => Error::UnknownFormat {
            place: format!("{path} of {}", folder.place),
            found,
            known: VERSION,
        },
        flaw => corrupt(
            position_of(at.1),
            format!("{path} of {}: {flaw}", folder.place),
        ),
    }
}

fn corrupt(position: u64, what: String) -> Error {
    Error::Corrupt {
        position: Position::new(position),
        what,
    }
}
