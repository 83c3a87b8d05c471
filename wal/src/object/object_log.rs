//! A place for one log in a bucket, and how it is opened (F0, F1).
//!
//! - An opening lists once, fences what is owed and not sealed, and reads the last object of each such epoch; it overwrites and deletes nothing.
//! - An epoch begins at the number after the fence of the one before, so a number never serves two epochs.
//!
//! Without the caller's state it knows nothing: no object says of itself that it is owed.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use object_store::{ObjectStore, path::Path};

use super::{
    config::Config,
    fence::{Extent, Fencer},
    folder::{Folder, Name},
    format::{NUMBER_MAX, number_after, number_of, position_of},
    listing::{Listing, decode_mark, list_marks, newest_mark},
    mark::{Event, Mark},
    pipeline::Author,
    probe::probe,
    put::Settled,
    replay::ObjectReplay,
};
use crate::{
    Backend, Error, Found, LogEpoch, LogState, LogUuid, Position, Replay,
    admission::{Admission, admit},
};

/// Positions of a state are below this.
const POSITION_MAX: u64 = 1 << 62;
/// What an epoch must have before it at least: centuries. Only damage comes nearer.
const NUMBERS_LEFT: u64 = 1 << 32;
/// Logs that others may make at one place while an opening looks at it.
const MAKES: usize = 16;

/// A log in a bucket: at most one under a prefix, which must be the log's alone.
///
/// The bucket's life-cycle rules must not delete what is under the prefix: a fence that is gone lets an owner that was paused acknowledge what
/// nobody will replay.
///
/// ```
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use wal::{Backend, Error, Found, object::ObjectLog};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// // The incarnation: 128 random bits of this process.
/// let log = ObjectLog::new(Arc::new(InMemory::new()), "wal/7", 0x1234)?;
/// assert_eq!(log.identify().await?, Found::Blank);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ObjectLog {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Arc<str>,
    incarnation: u128,
    /// Counts openings, so that two of one process are told apart.
    openings: Arc<AtomicU64>,
    config: Arc<Config>,
}

/// Without the store: its debug form may hold a part of the credentials (lesson 28).
impl fmt::Debug for ObjectLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectLog")
            .field("url", &self.url)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ObjectLog {
    /// The log under `prefix` of a store that does not retry by itself, and gives no request up earlier than the log does (see
    /// [`Config::attempt_timeout`]): a large object on a slow way would never arrive. `incarnation` is random bits of the process: it tells its
    /// own writes from another's.
    ///
    /// # Errors
    /// `Invalid` for a prefix that is no path.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        incarnation: u128,
    ) -> Result<Self, Error> {
        let path = Path::parse(prefix)
            .map_err(|error| Error::Invalid(format!("prefix of an object log: {error}")))?;
        let url = format!("object:{store}/{path}").into();
        Ok(Self {
            store,
            prefix: path,
            url,
            incarnation,
            openings: Arc::default(),
            config: Arc::default(),
        })
    }

    /// The same place with other settings.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = Arc::new(config);
        self
    }

    /// The same place under the name that its user knows it by.
    #[must_use]
    pub fn with_url(mut self, url: &str) -> Self {
        self.url = url.into();
        self
    }

    fn folder(&self, incarnation: u128) -> Folder {
        let config = Arc::clone(&self.config);
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        Folder::new(store, prefix, Arc::clone(&self.url), config, incarnation)
    }
}

#[async_trait]
impl Backend for ObjectLog {
    fn url(&self) -> String {
        self.url.to_string()
    }

    async fn identify(&self) -> Result<Found, Error> {
        let folder = self.folder(self.incarnation);
        let marks = list_marks(&folder).await?;
        Ok(match newest_mark(&folder, &marks).await? {
            None => Found::Blank,
            Some((_, mark)) if mark.claim().closed => Found::Closed(mark.identity),
            Some((_, mark)) => Found::Live(mark.identity),
        })
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        state.validate()?;
        self.config.validate()?;
        bounded(state)?;
        let opening = self.openings.fetch_add(1, Ordering::Relaxed);
        let incarnation = self.incarnation.wrapping_add(u128::from(opening));
        let folder = self.folder(incarnation);
        let listing = Listing::of(
            &folder,
            state.identity.log,
            state.started().map(|owed| owed.epoch),
        )
        .await?;
        let newest = newest_mark(&folder, &listing.marks).await?;
        let claim = newest.as_ref().map(|(_, mark)| mark.claim());
        admit(&self.url, claim.as_ref(), state)?;
        if claim.is_none() {
            nothing_unmarked(&self.url, &listing, state.identity.log)?;
        }
        probe(&folder, state.identity.log, &listing).await?;
        let (number, mark) = make(&folder, newest, state, incarnation).await?;
        agrees(&self.url, &mark, state)?;
        let fencer = Fencer {
            folder: &folder,
            identity: &state.identity,
            epoch: state.epoch,
            incarnation,
        };
        let first = number_after(mark.position);
        let (extents, start) = settle(&fencer, state, &listing, first).await?;
        if start > NUMBER_MAX - NUMBERS_LEFT {
            let what = format!(
                "{}: the next epoch would begin there, too near to the last position",
                self.url
            );
            let position = Position::new(position_of(start.min(NUMBER_MAX)));
            return Err(Error::Corrupt { position, what });
        }
        let garbage = garbage(&listing, state, &extents);
        let author = Author {
            identity: state.identity.clone(),
            epoch: state.epoch,
            incarnation,
        };
        let start = position_of(start);
        Ok(Box::new(ObjectReplay::new(
            folder, author, start, extents, number, garbage,
        )))
    }
}

/// The newest mark if it admits `state`, or a new one that says that the log was made and owes nothing: a start that is recorded after this may
/// never be marked.
async fn make(
    folder: &Folder,
    mut newest: Option<(u64, Mark)>,
    state: &LogState,
    incarnation: u128,
) -> Result<(u64, Mark), Error> {
    let made = Mark {
        event: Event::Made,
        identity: state.identity.clone(),
        epoch: LogEpoch::default(),
        position: 0,
        incarnation,
    };
    for _ in 0..MAKES {
        let claim = newest.as_ref().map(|(_, mark)| mark.claim());
        let admission = admit(&folder.place, claim.as_ref(), state)?;
        let number = match newest {
            Some(newest) if admission == Admission::Resume => return Ok(newest),
            Some((number, _)) => number + 1,
            None => 0,
        };
        let path = folder.path(Name::Mark(number));
        let mark = match folder.put_patiently(&path, &made.encode()).await? {
            Settled::Ours => return Ok((number, made)),
            // Somebody else at this moment. Each round finds one more mark that no longer changes.
            Settled::Theirs(found) => decode_mark(folder, number, &found)?,
        };
        newest = Some((number, mark));
    }
    let path = folder.path(Name::Mark(0));
    let many = std::io::Error::other("others keep making logs here");
    Err(folder.io("mark", &path, many))
}

/// Settles every owed epoch, ascending, and gives the number that the granted one begins with, at least `first`.
async fn settle(
    fencer: &Fencer<'_>,
    state: &LogState,
    listing: &Listing,
    first: u64,
) -> Result<(Vec<Extent>, u64), Error> {
    let mut start = first;
    let mut extents = Vec::new();
    for owed in &state.owed {
        if !owed.started {
            fencer.unstarted(owed.epoch, start, listing).await?;
            continue;
        }
        let extent = match owed.sealed_end {
            Some(end) => fencer.sealed(owed, end.get(), listing).await?,
            None => fencer.fence(owed, listing).await?,
        };
        start = start.max(extent.fence + 1);
        extents.push(extent);
    }
    Ok((extents, start))
}

/// What the started epoch may delete: what nobody owes, and nothing that fences.
fn garbage(listing: &Listing, state: &LogState, extents: &[Extent]) -> Vec<Name> {
    listing.garbage(state.identity.log, state.epoch, |epoch, number| {
        let owed = state.owed.iter().find(|e| e.epoch == epoch)?;
        let extent = extents.iter().find(|e| e.epoch == epoch);
        // The object that a trim lies in is what tells the next opening that nothing is missing there.
        let needed =
            |extent: &Extent| number >= number_of(owed.trim.get()) && number <= extent.fence;
        Some(extent.is_none_or(needed))
    })
}

/// Where no mark says that the logs before owe nothing, what they have left is not called garbage. Nor is what this log left: a mark is made before any
/// object and one stays, so there must be one that was not listed.
fn nothing_unmarked(place: &str, listing: &Listing, log: LogUuid) -> Result<(), Error> {
    let others = listing.others.keys().map(|(log, epoch, _)| (*log, *epoch));
    let own = listing.objects.keys().map(|(epoch, _)| (log, *epoch));
    match others.chain(own).next() {
        None => Ok(()),
        Some((log, epoch)) => Err(Error::NotNew {
            place: place.to_owned(),
            found: format!("objects of epoch {epoch} of log {log}, and no mark"),
        }),
    }
}

/// Positions of a state are bounded before they are added to.
fn bounded(state: &LogState) -> Result<(), Error> {
    let positions = state
        .owed
        .iter()
        .flat_map(|e| [Some(e.trim), Some(e.durable_end), e.sealed_end]);
    match positions.flatten().find(|p| p.get() >= POSITION_MAX) {
        None => Ok(()),
        Some(p) => Err(Error::Invalid(format!(
            "log state of {}: position {p}, all are below {POSITION_MAX}",
            state.identity
        ))),
    }
}

/// The state's first trim of the newest epoch is where its mark says that it began, or above.
fn agrees(place: &str, mark: &Mark, state: &LogState) -> Result<(), Error> {
    if mark.event != Event::Started {
        return Ok(());
    }
    let below = |epoch: LogEpoch, trim: u64| epoch == mark.epoch && trim < mark.position;
    match state.started().find(|e| below(e.epoch, e.trim.get())) {
        None => Ok(()),
        Some(owed) => Err(Error::Mismatch {
            place: place.to_owned(),
            found: format!("epoch {} from position {}", mark.epoch, mark.position),
            expected: format!("epoch {} from position {}", mark.epoch, owed.trim),
        }),
    }
}
