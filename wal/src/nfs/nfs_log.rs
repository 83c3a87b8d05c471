//! The NFS log as a place: takes the directory by its lease, makes what is replayed durable, and hands the rest to the block log's scan and pipeline.
//!
//! - Nothing is written before the lease but the lease itself; nothing that a former owner wrote is changed, ever.
//! - What an opening replays was written again by it, with the bytes it had, as far as nobody may have synced it (W8).
//! - The directory itself is never made: a mount point without its mount must not look like a new log.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;

use super::{
    Config, Directory, Guard, MountedDirectory,
    lease::{Lease, link},
    look::{Logs, failed, read_head},
    names::Name,
    threads::Threads,
    volume::{Volume, remove},
};
use crate::{
    Backend, BootClock, Clock, EpochEnd, Error, Found, Log, LogState, Position, Replay, Replayed,
    Sink, Usage,
    admission::{Admission, admit},
    block::{
        Device,
        reader::{self, Reader},
        replay::{BlockReplay, bounded},
        ring::{BLOCK, CAPACITY_MIN, RING_START, Ring},
        superblock::{Copies, Superblock},
    },
};

/// What is rewritten at once when a tail is made durable.
const REWRITE_BYTES: u64 = 1 << 20;

/// A log in a directory. Clones are the same place. It needs a tokio runtime with time, from the opening on.
#[derive(Clone, Debug)]
pub struct NfsLog {
    home: Home,
    capacity: u64,
    config: Config,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Debug)]
enum Home {
    Path(PathBuf),
    Directory(Arc<dyn Directory>),
}

impl NfsLog {
    /// A log in the directory at `path`, which must be there. A log that is made gets room for `capacity` bytes of frames, rounded up to whole blocks;
    /// what is there keeps the size it has.
    pub fn at(path: impl Into<PathBuf>, capacity: u64) -> Self {
        Self::new(Home::Path(path.into()), capacity)
    }

    /// A log in any [`Directory`].
    pub fn on(directory: Arc<dyn Directory>, capacity: u64) -> Self {
        Self::new(Home::Directory(directory), capacity)
    }

    fn new(home: Home, capacity: u64) -> Self {
        Self {
            home,
            capacity,
            config: Config::default(),
            clock: Arc::new(BootClock),
        }
    }

    /// The same place with other settings.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The same place with another clock: one that counts while the machine sleeps.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    async fn directory(&self) -> Result<Arc<dyn Directory>, Error> {
        Ok(match &self.home {
            Home::Path(path) => Arc::new(
                MountedDirectory::open(path, self.config.commits.direct_io, self.threads()).await?,
            ),
            Home::Directory(directory) => Arc::clone(directory),
        })
    }

    fn threads(&self) -> usize {
        // One more than there are commits, for the lease and the next segment.
        self.config.commits.in_flight_max.min(16) + 1
    }

    /// What is there now that nobody acknowledges anything more, and the log's superblock, made if there is none. What was seen before may be old.
    async fn look_again(
        &self,
        directory: &dyn Directory,
        state: &LogState,
        nonce: u128,
    ) -> Result<(Logs, Superblock), Error> {
        let place = directory.name();
        let logs = Logs::look(directory, Some(state)).await?;
        let superblock = match judge(&place, &logs, state)? {
            Some(found) => found.clone(),
            None => self.make(directory, state, nonce).await?,
        };
        if superblock.identity != state.identity {
            return Err(Error::Mismatch {
                place,
                found: superblock.identity.to_string(),
                expected: state.identity.to_string(),
            });
        }
        Ok((logs, superblock))
    }

    /// The log's first superblock, made if there is none. It says of itself that it owes nothing, so that a crash before the first start leaves a place
    /// that can be made again.
    async fn make(
        &self,
        directory: &dyn Directory,
        state: &LogState,
        nonce: u128,
    ) -> Result<Superblock, Error> {
        let place = directory.name();
        let ring = self
            .capacity
            .checked_next_multiple_of(BLOCK)
            .and_then(Ring::new);
        let ring = ring.ok_or_else(|| {
            Error::Invalid(format!(
                "{place}: capacity of {} bytes, at least {CAPACITY_MIN} are needed",
                self.capacity
            ))
        })?;
        let superblock = Superblock {
            sequence: 1,
            identity: state.identity.clone(),
            started: None,
            closed: true,
            tail: 0,
            durable_end: 0,
            ring,
            window: self.config.commits.limits(ring).window,
        };
        let name = Name::made(state.identity.log).to_string();
        let draft = Name::Draft(nonce).to_string();
        let io = |e| failed("make a log in", &place, e);
        let created = directory
            .create(&draft, RING_START, 0, superblock.encode())
            .await;
        let linked = match created {
            Ok(()) => link(directory, &draft, &name).await,
            Err(error) => Err(error),
        };
        let _ = directory.remove(&draft).await;
        // If it was there before, that is as good: what counts is what it says.
        linked.map_err(io)?;
        directory.sync().await.map_err(io)?;
        let gone = || Error::Missing {
            place: place.clone(),
            what: format!("{name} was removed while it was made"),
        };
        read_head(directory, &name).await?.ok_or_else(gone)
    }
}

/// Admits `state` to what is there.
fn judge<'a>(
    place: &str,
    logs: &'a Logs,
    state: &LogState,
) -> Result<Option<&'a Superblock>, Error> {
    let found = logs.for_state(state);
    let claim = found.map(Superblock::claim);
    match admit(place, claim.as_ref(), state)? {
        Admission::Make => Ok(None),
        Admission::Resume => Ok(found),
    }
}

#[async_trait]
impl Backend for NfsLog {
    fn url(&self) -> String {
        match &self.home {
            Home::Path(path) => format!("nfs:{}?capacity={}", path.display(), self.capacity),
            Home::Directory(directory) => format!("nfs:{}", directory.name()),
        }
    }

    async fn identify(&self) -> Result<Found, Error> {
        let directory = self.directory().await?;
        guard(&*directory).await?.ok_or_else(|| Error::InUse {
            place: directory.name(),
            by: "a process that holds the lock of the file `guard` in it; if that one is dead and its host gone, remove the file".to_owned(),
        })?;
        Ok(Logs::look(&*directory, None).await?.found())
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        state.validate()?;
        self.config.validate()?;
        bounded(state)?;
        let directory = self.directory().await?;
        let place = directory.name();
        let before = Logs::look(&*directory, Some(state)).await?;
        judge(&place, &before, state)?;
        let threads = Threads::start("wal-nfs-answer", 1)
            .map_err(|e| failed("start a thread for", &place, e))?;
        let nonce = nonce();
        let clock = Arc::clone(&self.clock);
        let lease = Lease::take(Arc::clone(&directory), clock, &self.config, state, nonce).await?;
        let lease = Arc::new(lease);
        let place_found = self.look_again(&*directory, state, nonce).await;
        let (logs, superblock) = match place_found {
            Ok(found) => found,
            Err(error) => {
                // Or the next try would wait for the term.
                lease.release().await;
                return Err(error);
            }
        };
        let (log, ring) = (state.identity.log, superblock.ring);
        let volume = Volume::granted(
            Arc::clone(&directory),
            log,
            state.epoch,
            ring,
            &threads,
            (Arc::clone(&lease), nonce),
        );
        let of_epochs = state.started().map(|e| {
            let volume = Volume::of_epoch(Arc::clone(&directory), log, e.epoch, ring, &threads);
            (e.epoch, Arc::new(volume) as Arc<dyn Device>)
        });
        let of_epochs: BTreeMap<_, _> = of_epochs.collect();
        let device: Arc<dyn Device> = Arc::new(volume.clone());
        let reader = Reader::new(Arc::clone(&device), ring).with_epochs(of_epochs.clone());
        let copies = Copies {
            newest: superblock,
            first: 0,
        };
        let commits = &self.config.commits;
        let replay = BlockReplay::open(place, device, copies, reader, commits, state).await?;
        if let Some((epoch, range)) = replay.unconfirmed(state)
            && let Some(device) = of_epochs.get(&epoch)
        {
            rewrite(device, ring, range).await?;
        }
        volume.supersedes(replay.ends().iter().map(|e| (e.epoch, e.end.get())));
        let guard = guard(&*directory).await?;
        Ok(Box::new(NfsReplay {
            replay: Box::new(replay),
            ended: Ended {
                directory,
                lease,
                _guard: guard,
            },
            sweep: Sweep::new(state, before, logs),
        }))
    }
}

/// Exclusive use, if the directory can tell and nobody else has it.
async fn guard(directory: &dyn Directory) -> Result<Option<Guard>, Error> {
    let guard = directory.guard().await;
    guard.map_err(|e| failed("lock", &directory.name(), e))
}

/// Tells this opening from every other; not for secrets.
fn nonce() -> u128 {
    let keys = RandomState::new();
    u128::from(keys.hash_one(0_u64)) << 64 | u128::from(keys.hash_one(1_u64))
}

/// Makes the end of what is replayed durable (W8). A sync of one host does not make durable what another one wrote, but the same bytes, written again, are
/// this host's to sync. The former owner cannot be in the way: it writes each block once, with these bytes.
async fn rewrite(
    device: &Arc<dyn Device>,
    ring: Ring,
    range: std::ops::Range<u64>,
) -> Result<(), Error> {
    let mut at = range.start;
    while at < range.end {
        let (first, _) = ring.extents(at, (range.end - at).min(REWRITE_BYTES));
        let len = usize::try_from(first.len).unwrap_or(usize::MAX);
        let bytes = reader::read(device, first.at, len).await?;
        reader::write(device, first.at, bytes).await?;
        at += first.len;
    }
    Ok(())
}

/// Files that nothing needs, known when the new epoch has begun.
#[derive(Debug)]
struct Sweep {
    state: LogState,
    before: Logs,
    now: Logs,
}

impl Sweep {
    fn new(state: &LogState, before: Logs, now: Logs) -> Self {
        Self {
            state: state.clone(),
            before,
            now,
        }
    }

    /// Whether `name` is left from an epoch that was never started or owes nothing, from a log that owes nothing, or from an opening that ended before this
    /// one got the lease.
    fn is_stale(&self, name: Name) -> bool {
        let log = self.state.identity.log.get();
        match name {
            Name::Lease(_) => false,
            Name::Draft(_) => self.before.names().contains(&name),
            Name::Made(of) => of != log && self.now.is_closed(of),
            Name::Head(of, epoch) | Name::Segment(of, epoch, _) if of == log => {
                epoch < self.state.epoch && self.state.started().all(|e| e.epoch != epoch)
            }
            Name::Head(of, _) | Name::Segment(of, _, _) => self.now.is_closed(of),
        }
    }

    /// Removes what was there at the look that is judged by, while nobody has taken the directory since: what another log has made meanwhile may be owed.
    /// Best effort: the next opening sweeps what stays.
    async fn run(&self, directory: &dyn Directory, lease: &Lease) {
        let stale = self.now.names().iter().filter(|name| self.is_stale(**name));
        // Sorted as text: of an epoch the segments, then the head; of a log the epochs, then what it was made with.
        let stale: BTreeSet<_> = stale.map(Name::to_string).collect();
        for name in stale {
            if lease.hold().await.is_err() {
                return;
            }
            remove(directory, &name).await;
        }
    }
}

/// What is given up with the log.
struct Ended {
    directory: Arc<dyn Directory>,
    lease: Arc<Lease>,
    _guard: Option<Guard>,
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ended")
            .field("directory", &self.directory)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

/// The replay of an NFS log: the block log's, and the lease.
#[derive(Debug)]
struct NfsReplay {
    replay: Box<BlockReplay>,
    ended: Ended,
    sweep: Sweep,
}

#[async_trait]
impl Replay for NfsReplay {
    fn ends(&self) -> &[EpochEnd] {
        self.replay.ends()
    }

    fn start_position(&self) -> Position {
        self.replay.start_position()
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        self.replay.next().await
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.replay.rewind().await
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        let log = self.replay.start(sink).await?;
        let Ended {
            directory, lease, ..
        } = &self.ended;
        self.sweep.run(&**directory, lease).await;
        Ok(Arc::new(NfsAppends {
            log,
            ended: parking_lot::Mutex::new(Some(self.ended)),
        }))
    }
}

/// A live NFS log: the block log's, and the lease that is given back at the end.
#[derive(Debug)]
struct NfsAppends {
    log: Arc<dyn Log>,
    ended: parking_lot::Mutex<Option<Ended>>,
}

#[async_trait]
impl Log for NfsAppends {
    fn append(&self, parts: &[&[u8]]) -> Result<std::ops::Range<Position>, Error> {
        self.log.append(parts)
    }

    fn trim(&self, to: Position) {
        self.log.trim(to);
    }

    fn usage(&self) -> Usage {
        self.log.usage()
    }

    fn max_record_len(&self) -> usize {
        self.log.max_record_len()
    }

    fn durable_end(&self) -> Position {
        self.log.durable_end()
    }

    async fn close(&self) -> Result<(), Error> {
        let closed = self.log.close().await;
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            // Closed, failed or fenced: nothing more is acknowledged.
            ended.lease.release().await;
        }
        closed
    }
}
