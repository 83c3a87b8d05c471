//! A modelled disk behind [`Device`]: what a crash may do to it is what makes it a model.
//!
//! - A write is durable when its completion said `Ok`, not earlier. Until then any subset of its 512-byte sectors may
//!   be on the disk: writes complete out of order and tear.
//! - When the process dies, sectors of writes in flight stay as they are in the host's cache: *visible* to the next
//!   process and *lost* in a later power cut, unless a sync came between (W8).
//! - When the power fails, every sector that is not durable survives or is lost by chance.
//! - A failed write leaves any subset of its sectors, and every later one may succeed: the log must not go on (W6).
//!
//! Not modelled: sectors that rot by themselves, sectors that tear inside, a device that lies about durability (that
//! is the mutation [`Lie::WriteBeforeDurable`]).

use std::{collections::BTreeMap, io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use s3stream::wal::block::{Device, Geometry, ReadDone, WriteDone};

use crate::{Entropy, Fault, Faults};

/// What a power cut keeps or loses as a whole.
const SECTOR: u64 = 512;

/// How a life ends for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is gone, the host and its cache stay.
    Process,
    /// The host is gone: what was not durable survives by chance.
    Power,
}

/// A defect of the disk, for the checker to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Says `Ok` when the data is only in the cache.
    WriteBeforeDurable,
    /// Says `Ok` to a sync and does nothing.
    SyncNothing,
}

/// The disk, over all lives. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    entropy: Entropy,
    faults: Faults,
    lie: Option<Lie>,
}

#[derive(Debug)]
struct State {
    durable: Vec<u8>,
    /// Sectors that the host's cache holds and the disk does not, by number.
    cached: BTreeMap<u64, Bytes>,
    in_flight: BTreeMap<u64, (u64, Bytes)>,
    next_operation: u64,
    /// Raised by each crash: what an earlier life asked for has no effect any more.
    life: u64,
}

impl SimDisk {
    /// A blank disk of `len_bytes`, a multiple of 4096.
    pub fn new(len_bytes: u64, entropy: Entropy, faults: Faults, lie: Option<Lie>) -> Self {
        let len = usize::try_from(len_bytes).expect("simulated disks are small");
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                durable: vec![0; len],
                cached: BTreeMap::new(),
                in_flight: BTreeMap::new(),
                next_operation: 0,
                life: 0,
            }),
            entropy,
            faults,
            lie,
        }))
    }

    /// The disk as one process sees it until the next crash.
    pub fn attach(&self) -> AttachedDisk {
        AttachedDisk {
            shared: Arc::clone(&self.0),
            life: self.0.state.lock().life,
        }
    }

    /// What the end of a life leaves.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.0.state.lock();
        state.life += 1;
        for (_, (at, data)) in std::mem::take(&mut state.in_flight) {
            state.scatter(at, &data, &self.0.entropy);
        }
        if crash == Crash::Power {
            for (sector, data) in std::mem::take(&mut state.cached) {
                if self.0.entropy.chance(500) {
                    state.harden(sector * SECTOR, &data);
                }
            }
        }
    }

    /// Forgets everything: a new disk in place of the old one.
    pub fn replace(&self) {
        let mut state = self.0.state.lock();
        state.durable.fill(0);
        state.cached.clear();
    }
}

impl State {
    /// Puts some sectors of a write in the cache: those that had arrived when it was cut off.
    fn scatter(&mut self, at: u64, data: &Bytes, entropy: &Entropy) {
        // All, none, or each by itself: the extremes are the interesting ones and would be rare by sector.
        let share = [0, 1_000, 500, 900].get(entropy.within(0..4) as usize);
        for (sector, piece) in sectors(at, data) {
            if entropy.chance(share.copied().unwrap_or(500)) {
                self.cached.insert(sector, piece);
            }
        }
    }

    /// Makes bytes durable; what the cache held there is older.
    fn harden(&mut self, at: u64, data: &[u8]) {
        for sector in at / SECTOR..(at + data.len() as u64).div_ceil(SECTOR) {
            self.cached.remove(&sector);
        }
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(place) = self
            .durable
            .get_mut(start..start.saturating_add(data.len()))
        {
            place.copy_from_slice(data);
        }
    }

    fn read(&self, range: Range<u64>) -> Option<Bytes> {
        let at = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        let mut bytes = self.durable.get(at..end)?.to_vec();
        for (sector, data) in self
            .cached
            .range(range.start / SECTOR..range.end.div_ceil(SECTOR))
        {
            let into = usize::try_from(sector * SECTOR).ok()?.checked_sub(at)?;
            bytes
                .get_mut(into..into + data.len())?
                .copy_from_slice(data);
        }
        Some(bytes.into())
    }
}

fn sectors(at: u64, data: &Bytes) -> impl Iterator<Item = (u64, Bytes)> + '_ {
    (0..data.len()).step_by(SECTOR as usize).map(move |start| {
        let end = (start + SECTOR as usize).min(data.len());
        (at / SECTOR + start as u64 / SECTOR, data.slice(start..end))
    })
}

/// A disk in use by one life.
#[derive(Clone, Debug)]
pub struct AttachedDisk {
    shared: Arc<Shared>,
    life: u64,
}

impl AttachedDisk {
    /// Runs `then` after a while, unless the life is over by then.
    fn later(
        &self,
        wait: Duration,
        then: impl FnOnce(&Shared, &mut State) -> Reply + Send + 'static,
    ) {
        if self.shared.state.lock().life != self.life {
            return;
        }
        let (shared, life) = (Arc::clone(&self.shared), self.life);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let reply = {
                let mut state = shared.state.lock();
                if state.life != life {
                    return;
                }
                then(&shared, &mut state)
            };
            reply();
        });
    }

    fn latency(&self) -> Duration {
        let faults = &self.shared.faults;
        if faults.strikes(Fault::DiskSlow) {
            return self
                .shared
                .entropy
                .wait(Duration::from_millis(5)..Duration::from_secs(3));
        }
        self.shared
            .entropy
            .wait(Duration::from_micros(60)..Duration::from_millis(1))
    }
}

/// Tells the caller, outside the lock.
type Reply = Box<dyn FnOnce() + Send>;

fn broken(what: &'static str) -> io::Error {
    io::Error::other(what)
}

impl Device for AttachedDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_bytes: 4_096,
            len_bytes: self.shared.state.lock().durable.len() as u64,
        }
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let operation = {
            let mut state = self.shared.state.lock();
            if state.life != self.life {
                return;
            }
            let operation = state.next_operation;
            state.next_operation += 1;
            state.in_flight.insert(operation, (at, data));
            operation
        };
        let fails = self.shared.faults.strikes(Fault::DiskWriteFails);
        self.later(self.latency(), move |shared, state| {
            let Some((at, data)) = state.in_flight.remove(&operation) else {
                return Box::new(|| ());
            };
            if fails {
                state.scatter(at, &data, &shared.entropy);
                return Box::new(|| done(Err(broken("simulated write error"))));
            }
            if shared.lie == Some(Lie::WriteBeforeDurable) {
                state.cached.extend(sectors(at, &data));
            } else {
                state.harden(at, &data);
            }
            Box::new(|| done(Ok(())))
        });
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let fails = self.shared.faults.strikes(Fault::DiskReadFails);
        self.later(self.latency(), move |_, state| {
            let found = state.read(at..at.saturating_add(len as u64));
            Box::new(move || {
                done(match found {
                    _ if fails => Err(broken("simulated read error")),
                    Some(bytes) => Ok(bytes),
                    None => Err(io::ErrorKind::InvalidInput.into()),
                });
            })
        });
    }

    fn sync(&self, done: WriteDone) {
        self.later(self.latency(), move |shared, state| {
            if shared.lie != Some(Lie::SyncNothing) {
                for (sector, data) in std::mem::take(&mut state.cached) {
                    state.harden(sector * SECTOR, &data);
                }
            }
            Box::new(|| done(Ok(())))
        });
    }

    fn name(&self) -> String {
        "simulated disk".to_owned()
    }
}

#[cfg(test)]
mod tests;
