//! The block log as a place: finds out what is there, takes it for one owner, makes it if it is new.
//!
//! - Nothing is written that is not either the making of a new log or after [`Replay::start`].
//! - One owner at a time: a file by a lock, a block device by `O_EXCL`, a [`Device`] by a lease of this value and its clones.
//! - Of the hosts that can attach a device one can write: it holds a reservation, which the next takes from it before it reads (`reservation.rs`).
//!
//! A device that takes no reservations must be attached to one host: a lock and `O_EXCL` hold on one.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    config::Config,
    device::{Device, Geometry, ReadDone, WriteDone},
    file::{FileDevice, FileOptions},
    reader::{self, Reader},
    replay::{BlockReplay, bounded, write_copies},
    reservation::{self, Reservations},
    ring::{BLOCK, CAPACITY_MIN, COPIES, RING_START, Ring},
    superblock::{Copies, Superblock},
};
use crate::{
    Backend, Error, Found, LogState, Position, Replay,
    admission::{Admission, admit},
};

/// Blank means that this many bytes are zero: both superblock areas, all between, and the first blocks of the ring.
const BLANK_BYTES: u64 = RING_START + CAPACITY_MIN;

/// A log on a file, a raw block device, or any [`Device`]. Clones are the same place.
#[derive(Clone, Debug)]
pub struct BlockLog {
    home: Home,
    config: Config,
    leased: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
enum Home {
    Path { path: PathBuf, capacity: u64 },
    Device(Arc<dyn Device>),
}

impl BlockLog {
    /// A log in the file or on the block device at `path`. A file that is made gets room for `capacity` bytes of frames, rounded up to whole blocks, and a
    /// little for superblocks; what is there keeps the size it has.
    pub fn file(path: impl Into<PathBuf>, capacity: u64) -> Self {
        Self::at(Home::Path {
            path: path.into(),
            capacity,
        })
    }

    /// A log on a device. The ring takes all of it.
    pub fn on(device: Arc<dyn Device>) -> Self {
        Self::at(Home::Device(device))
    }

    fn at(home: Home) -> Self {
        Self {
            home,
            config: Config::default(),
            leased: Arc::default(),
        }
    }

    /// The same place with other settings.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    fn place(&self) -> String {
        match &self.home {
            Home::Path { path, .. } => path.display().to_string(),
            Home::Device(device) => device.name(),
        }
    }

    fn file_options(&self) -> FileOptions {
        let threads = self.config.in_flight_max.min(16);
        FileOptions {
            threads,
            direct: self.config.direct_io,
            io: self.config.io,
        }
    }

    /// Exclusive use of the device, made if there is none and `state` says that the log is new.
    async fn acquire(&self, state: &LogState) -> Result<Arc<dyn Device>, Error> {
        let place = self.place();
        match &self.home {
            Home::Path { path, capacity } => {
                let options = self.file_options();
                if let Some(device) = FileDevice::open(path, options).await? {
                    return Ok(Arc::new(device));
                }
                if let Some(newest) = state.started().next_back() {
                    let what = format!(
                        "gone or empty, but epoch {} of {} was started here",
                        newest.epoch, state.identity
                    );
                    return Err(Error::Missing { place, what });
                }
                let ring = capacity.checked_next_multiple_of(BLOCK).and_then(Ring::new);
                let ring = ring.ok_or_else(|| {
                    Error::Invalid(format!(
                        "{place}: capacity of {capacity} bytes, at least {CAPACITY_MIN} are needed"
                    ))
                })?;
                Ok(Arc::new(
                    FileDevice::create(path, ring.device_len(), options).await?,
                ))
            }
            Home::Device(device) => {
                if self.leased.swap(true, Ordering::AcqRel) {
                    let by = "another log of this process".to_owned();
                    return Err(Error::InUse { place, by });
                }
                let leased = Arc::clone(&self.leased);
                Ok(Arc::new(Leased {
                    device: Arc::clone(device),
                    leased,
                }))
            }
        }
    }

    /// Makes a new log on the whole device. It says of itself that it owes nothing, so that a crash before the first start leaves a place that can be
    /// made again.
    async fn make(
        &self,
        device: &Arc<dyn Device>,
        before: Option<Copies>,
        state: &LogState,
    ) -> Result<Copies, Error> {
        let len = device.geometry().len_bytes;
        let ring = Ring::on(len).ok_or_else(|| too_short(&device.name(), len))?;
        let newest = Superblock {
            sequence: before
                .as_ref()
                .map_or(1, |copies| copies.newest.sequence + 1),
            identity: state.identity.clone(),
            started: None,
            closed: true,
            tail: 0,
            durable_end: 0,
            ring,
            window: self.config.limits(ring).window,
        };
        let first = before.map_or(0, |copies| copies.first);
        write_copies(device, &newest, first).await?;
        Ok(Copies { newest, first })
    }
}

#[async_trait]
impl Backend for BlockLog {
    fn url(&self) -> String {
        match &self.home {
            Home::Path { path, capacity } => {
                format!("block:{}?capacity={capacity}", path.display())
            }
            Home::Device(device) => format!("block:{}", device.name()),
        }
    }

    async fn identify(&self) -> Result<Found, Error> {
        let device: Arc<dyn Device> = match &self.home {
            // Exclusively, so that who may not have it learns so before anything is fenced.
            Home::Path { path, .. } => match FileDevice::open(path, self.file_options()).await? {
                Some(device) => Arc::new(device),
                None => return Ok(Found::Blank),
            },
            Home::Device(device) => Arc::clone(device),
        };
        Ok(match look(&device).await? {
            None => Found::Blank,
            Some(copies) if copies.newest.closed => Found::Closed(copies.newest.identity),
            Some(copies) => Found::Live(copies.newest.identity),
        })
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        state.validate()?;
        self.config.validate()?;
        bounded(state)?;
        let device = self.acquire(state).await?;
        let place = device.name();
        let Geometry { block_bytes, .. } = device.geometry();
        if !block_bytes.is_power_of_two() || u64::from(block_bytes) > BLOCK {
            return Err(Error::Invalid(format!(
                "{place}: blocks of {block_bytes} bytes, at most {BLOCK} can be used"
            )));
        }
        if let Some(reservations) = device.reservations() {
            fence(&device, reservations, state).await?;
        }
        // Before anything is read, so that what is read is what a power cut would leave (W8).
        reader::sync(&device).await?;
        let found = look(&device).await?;
        let claim = found.as_ref().map(|copies| copies.newest.claim());
        let copies = match (admit(&place, claim.as_ref(), state)?, found) {
            (Admission::Resume, Some(found)) => found,
            (_, found) => self.make(&device, found, state).await?,
        };
        let superblock = &copies.newest;
        let len = device.geometry().len_bytes;
        if len < superblock.ring.device_len() {
            let what = format!(
                "{place}: {len} bytes, its superblock says {}; was it truncated?",
                superblock.ring.device_len()
            );
            return Err(Error::Corrupt {
                position: Position::new(superblock.durable_end),
                what,
            });
        }
        let reader = Reader::new(Arc::clone(&device), superblock.ring);
        let opened = BlockReplay::open(place, device, copies, reader, &self.config, state).await?;
        Ok(Box::new(opened))
    }
}

/// Keeps other hosts from writing from here on. Whoever may not have the log learns so before it fences the owner.
async fn fence(
    device: &Arc<dyn Device>,
    reservations: Arc<dyn Reservations>,
    state: &LogState,
) -> Result<(), Error> {
    let found = match look(device).await {
        // Another host may be making it: what it wrote between two reads is there at the second look.
        Err(Error::Corrupt { .. }) => look(device).await?,
        found => found?,
    };
    let claim = found.map(|copies| copies.newest.claim());
    admit(&device.name(), claim.as_ref(), state)?;
    reservation::take(device.name(), reservations).await
}

/// Reads both superblock copies; `None` is a blank device.
async fn look(device: &Arc<dyn Device>) -> Result<Option<Copies>, Error> {
    let (place, len) = (device.name(), device.geometry().len_bytes);
    if len < BLANK_BYTES {
        return Err(too_short(&place, len));
    }
    let [a, b] = COPIES;
    let a = Superblock::decode(&reader::read(device, a, BLOCK as usize).await?);
    let b = Superblock::decode(&reader::read(device, b, BLOCK as usize).await?);
    let copies = Copies::judge(&place, [a, b])?;
    if copies.is_none() {
        let start = reader::read(device, 0, BLANK_BYTES as usize).await?;
        if let Some(at) = start.iter().position(|b| *b != 0) {
            let what = format!(
                "{place}: no superblock, and byte {at} is not zero: not a log, or one whose superblocks were erased; nothing was overwritten"
            );
            return Err(Error::Corrupt {
                position: Position::default(),
                what,
            });
        }
    }
    Ok(copies)
}

fn too_short(place: &str, len: u64) -> Error {
    let what = format!("{place}: {len} bytes, a log has at least {BLANK_BYTES}");
    Error::Corrupt {
        position: Position::default(),
        what,
    }
}

/// A device in exclusive use; dropping it ends the use.
#[derive(Debug)]
struct Leased {
    device: Arc<dyn Device>,
    leased: Arc<AtomicBool>,
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.leased.store(false, Ordering::Release);
    }
}

impl Device for Leased {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        self.device.write(at, data, done);
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        self.device.read(at, len, done);
    }

    fn sync(&self, done: WriteDone) {
        self.device.sync(done);
    }

    fn reservations(&self) -> Option<Arc<dyn Reservations>> {
        self.device.reservations()
    }

    fn name(&self) -> String {
        self.device.name()
    }
}
