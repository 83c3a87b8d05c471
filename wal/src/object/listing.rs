//! What a listing says is there: a hint that saves requests, never the last word.
//!
//! - What it lacks is asked for by name before anything is made of its absence.
//! - What it shows was there: objects are written once.
//! - It may be cut short, at a million names or by the store. Then the marks and each owed epoch are listed by themselves, so that nobody else's names
//!   hide them.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path;

use super::{
    folder::{Folder, Name},
    format::HEADER_LEN,
    mark::{Mark, Unreadable},
};
use crate::{Error, LogEpoch, LogUuid, Position};

/// The names under a log's prefix.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Epoch and number of this log's objects, with their lengths.
    pub(crate) objects: BTreeMap<(LogEpoch, u64), u64>,
    /// Objects of other logs, which were here before, with their lengths.
    pub(crate) others: BTreeMap<(LogUuid, LogEpoch, u64), u64>,
    pub(crate) marks: BTreeSet<u64>,
    pub(crate) probed: bool,
}

impl Listing {
    pub(crate) async fn of(
        folder: &Folder,
        log: LogUuid,
        owed: impl Iterator<Item = LogEpoch>,
    ) -> Result<Self, Error> {
        let mut listing = Self::default();
        let whole = listing.take(folder, folder.all(), log).await?;
        // A mark is made before any object: some stores stop after a thousand names and say that these are all.
        let marked = !listing.marks.is_empty() || !listing.holds_objects();
        if whole && marked {
            return Ok(listing);
        }
        tracing::warn!(
            place = %folder.place, names_max = folder.names_max,
            "there is more under the log's prefix than is listed; is the prefix the log's alone?"
        );
        listing.marks = list_marks(folder).await?;
        for epoch in owed {
            // If this is cut short as well, what is missing is asked for by name.
            listing.take(folder, &folder.epoch(log, epoch), log).await?;
        }
        Ok(listing)
    }

    /// Adds what is listed below a path; whether that is all.
    async fn take(&mut self, folder: &Folder, under: &Path, log: LogUuid) -> Result<bool, Error> {
        let take = |name, size| match name {
            Name::Object(of, epoch, number) if of == log => {
                self.objects.insert((epoch, number), size);
            }
            Name::Object(of, epoch, number) => {
                self.others.insert((of, epoch, number), size);
            }
            Name::Mark(number) => {
                self.marks.insert(number);
            }
            Name::Probe => self.probed = true,
        };
        folder.list(under, take).await
    }

    /// Whether any log has something here.
    fn holds_objects(&self) -> bool {
        !self.objects.is_empty() || !self.others.is_empty()
    }

    /// The objects of an epoch, ascending: number and length.
    pub(crate) fn of_epoch(&self, epoch: LogEpoch) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let range = (epoch, 0)..=(epoch, u64::MAX);
        let of_epoch = self.objects.range(range);
        of_epoch.map(|((_, number), len)| (*number, *len))
    }

    /// What may be deleted once the next epoch of `log` starts: the commits of its retired epochs and of the logs before it.
    /// `keeps` says of an object of an epoch that is not retired whether it is needed, and `None` if the epoch is retired.
    ///
    /// Of a retired epoch, and of a log before, every fence stays: when the commits are gone, a fence that came late may lie below the one that
    /// counts.
    pub(crate) fn garbage(
        &self,
        log: LogUuid,
        below: LogEpoch,
        keeps: impl Fn(LogEpoch, u64) -> Option<bool>,
    ) -> Vec<Name> {
        let mut garbage = Vec::new();
        for ((epoch, number), len) in &self.objects {
            let keep = *epoch >= below || keeps(*epoch, *number).unwrap_or(is_fence(*len));
            if !keep {
                garbage.push(Name::Object(log, *epoch, *number));
            }
        }
        let others = self.others.iter().filter(|(_, len)| !is_fence(**len));
        garbage.extend(others.map(|((log, epoch, number), _)| Name::Object(*log, *epoch, *number)));
        garbage
    }
}

/// No commit is as short.
pub(crate) fn is_fence(len: u64) -> bool {
    len == HEADER_LEN as u64
}

/// The newest of `marks`, read.
pub(crate) async fn newest_mark(
    folder: &Folder,
    marks: &BTreeSet<u64>,
) -> Result<Option<(u64, Mark)>, Error> {
    let Some(number) = marks.last().copied() else {
        return Ok(None);
    };
    let path = folder.path(Name::Mark(number));
    if let Some(bytes) = folder.get(&path).await? {
        let mark = decode_mark(folder, number, &bytes)?;
        return Ok(Some((number, mark)));
    }
    // Nobody deletes marks.
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
    };
    let under = folder.marks();
    if folder.list(&under, take).await? {
        return Ok(marks);
    }
    // The newest could be missing. A log has a handful of them.
    let many = std::io::Error::other(format!("more than {} names of marks", folder.names_max));
    Err(folder.io("list", &under, many))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;

    #[tokio::test]
    async fn a_listing_that_is_cut_short_has_the_marks_and_what_is_owed() {
        let store = Arc::new(InMemory::new());
        let url = "x".into();
        let mut folder = Folder::new(store.clone(), Path::from("a"), url, Arc::default(), 1);
        folder.names_max = 5;
        let (log, owed) = (LogUuid::new(2), LogEpoch::new(9));
        let name = |epoch, number| Name::Object(log, LogEpoch::new(epoch), number);
        let retired = (0..5).map(|number| name(1, number));
        let names = retired.chain([name(9, 7), Name::Mark(3), Name::Mark(4), Name::Probe]);
        for name in names {
            store.put(&folder.path(name), "x".into()).await.unwrap();
        }
        let listing = Listing::of(&folder, log, [owed].into_iter()).await.unwrap();
        assert_eq!(listing.marks, [3, 4].into());
        assert_eq!(listing.of_epoch(owed).collect::<Vec<_>>(), [(7, 1)]);
        assert!(listing.objects.len() == 6 && !listing.probed);
        // Exactly as many as may be listed are all of them.
        folder.names_max = 9;
        let listing = Listing::of(&folder, log, [].into_iter()).await.unwrap();
        assert!(listing.objects.len() == 6 && listing.probed);
        // Marks decide: they are all there, or it is said.
        folder.names_max = 1;
        assert!(matches!(list_marks(&folder).await, Err(Error::Io { .. })));
    }
}
