//! What a listing says is there: a hint that saves requests, never the last word.
//!
//! - What it lacks is asked for by name before anything is made of its absence.
//! - What it shows was there: objects are written once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    folder::{Folder, Name},
    format::HEADER_LEN,
    mark::{Mark, Unreadable},
};
use crate::{Error, LogEpoch, LogUuid, Position};

/// How often marks are looked for again that somebody deleted between the listing and the reading.
const LOOKS: usize = 4;

/// The names under a log's prefix.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Epoch and number of this log's objects, with their lengths.
    pub(crate) objects: BTreeMap<(LogEpoch, u64), u64>,
    pub(crate) marks: BTreeSet<u64>,
    pub(crate) probed: bool,
}

impl Listing {
    pub(crate) async fn of(folder: &Folder, log: LogUuid) -> Result<Self, Error> {
        let mut listing = Self::default();
        let take = |name, size| {
            match name {
                Name::Object(of, epoch, number) if of == log => {
                    listing.objects.insert((epoch, number), size);
                }
                Name::Object(..) => {}
                Name::Mark(number) => {
                    listing.marks.insert(number);
                }
                Name::Probe => listing.probed = true,
            }
            Ok(())
        };
        folder.list(None, take).await?;
        Ok(listing)
    }

    /// The objects of an epoch, ascending: number and length.
    pub(crate) fn of_epoch(&self, epoch: LogEpoch) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let range = (epoch, 0)..=(epoch, u64::MAX);
        let of_epoch = self.objects.range(range);
        of_epoch.map(|((_, number), len)| (*number, *len))
    }

    /// What may be deleted once the next epoch starts: the commits of retired epochs, and older marks. `keeps` says of an object of an epoch that
    /// is not retired whether it is needed, and `None` if the epoch is retired.
    ///
    /// Of a retired epoch every fence stays: when its commits are gone, a fence that came late may lie below the one that counts.
    pub(crate) fn garbage(
        &self,
        below: LogEpoch,
        keeps: impl Fn(LogEpoch, u64) -> Option<bool>,
    ) -> Vec<Garbage> {
        let mut garbage = Vec::new();
        for ((epoch, number), len) in &self.objects {
            let fence = *len == HEADER_LEN as u64;
            let keep = *epoch >= below || keeps(*epoch, *number).unwrap_or(fence);
            if !keep {
                garbage.push(Garbage::Object(*epoch, *number));
            }
        }
        let newest = self.marks.last();
        let older = self.marks.iter().filter(|mark| Some(*mark) != newest);
        garbage.extend(older.map(|mark| Garbage::Mark(*mark)));
        garbage
    }
}

/// What nobody needs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Garbage {
    Object(LogEpoch, u64),
    Mark(u64),
}

/// The newest of `marks`, read. They are listed again if it is gone: only a newer one lets anybody delete it.
pub(crate) async fn newest_mark(
    folder: &Folder,
    mut marks: BTreeSet<u64>,
) -> Result<Option<(u64, Mark)>, Error> {
    for _ in 0..LOOKS {
        let Some(number) = marks.last().copied() else {
            return Ok(None);
        };
        let path = folder.path(Name::Mark(number));
        if let Some(bytes) = folder.get(&path).await? {
            let mark = decode_mark(folder, number, &bytes)?;
            return Ok(Some((number, mark)));
        }
        marks = list_marks(folder).await?;
    }
    let path = folder.path(Name::Mark(marks.last().copied().unwrap_or_default()));
    let gone = std::io::Error::other("listed, and not there when read");
    Err(folder.io("read", &path, gone))
}

/// A mark that was read.
pub(crate) fn decode_mark(folder: &Folder, number: u64, bytes: &[u8]) -> Result<Mark, Error> {
    Mark::decode(bytes).map_err(|unreadable| match unreadable {
        Unreadable::Version(found) => Error::UnknownFormat {
            place: folder.place.to_string(),
            found,
            known: Mark::VERSION,
        },
        Unreadable::Damaged(what) => {
            let path = folder.path(Name::Mark(number));
            Error::Corrupt {
                position: Position::default(),
                what: format!(
                    "{path} of {}: {what}; nothing was overwritten",
                    folder.place
                ),
            }
        }
    })
}

/// The marks' numbers.
pub(crate) async fn list_marks(folder: &Folder) -> Result<BTreeSet<u64>, Error> {
    let mut marks = BTreeSet::new();
    let take = |name, _| {
        if let Name::Mark(number) = name {
            marks.insert(number);
        }
        Ok(())
    };
    folder.list(Folder::marks(), take).await?;
    Ok(marks)
}
