//! A disk that several hosts attach, with persistent reservations of the kind "write exclusive, all registrants".
//!
//! - `reserved ⇒ only a registered host's writes land`, judged when they land. All can read.
//! - A write of a host that is paused waits in that host.

use std::{collections::BTreeSet, io, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::MemoryDevice;
use crate::block::{Device, Geometry, ReadDone, Refusal, Reservations, WriteDone};

/// What Linux answers a write that a reservation keeps out: `EBADE`.
const KEPT_OUT: i32 = 52;

/// What a host asks of the reservations, in the order of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// To be registered.
    Register,
    /// To reserve.
    Reserve,
    /// To remove the other hosts.
    Preempt,
}

/// The disk. Clones are the same.
#[derive(Clone, Debug)]
pub struct SharedDisk {
    disk: MemoryDevice,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    registered: BTreeSet<u32>,
    reserved: bool,
    unsupported: bool,
    shared: bool,
    writes: u64,
}

/// The disk as one host has it.
#[derive(Clone)]
pub struct SharedHost {
    shared: SharedDisk,
    number: u32,
    paused: Arc<Mutex<Option<Vec<Held>>>>,
    /// Called before each step.
    before: Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>,
}

type Held = (u64, Bytes, WriteDone);

impl std::fmt::Debug for SharedHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {}", self.number)
    }
}

impl SharedDisk {
    /// `len` zero bytes, that nobody has reserved.
    pub fn new(len: usize) -> Self {
        Self {
            disk: MemoryDevice::new(len),
            table: Arc::default(),
        }
    }

    /// A disk that takes no reservations, and says whether it is shared.
    #[must_use]
    pub fn without_reservations(self, shared: bool) -> Self {
        {
            let mut table = self.table.lock();
            table.unsupported = true;
            table.shared = shared;
        }
        self
    }

    /// A host that has it. `before` is called before each step, and may fail or wait.
    pub fn host(
        &self,
        number: u32,
        before: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static,
    ) -> SharedHost {
        SharedHost {
            shared: self.clone(),
            number,
            paused: Arc::default(),
            before: Arc::new(before),
        }
    }

    /// The hosts whose writes would land.
    pub fn writers(&self) -> Vec<u32> {
        self.table.lock().registered.iter().copied().collect()
    }

    /// Writes that landed.
    pub fn writes(&self) -> u64 {
        self.table.lock().writes
    }
}

impl SharedHost {
    /// Its writes wait from now on, as those of a host that stands still.
    pub fn pause(&self) {
        self.paused.lock().get_or_insert_default();
    }

    /// It goes on: what waited is written, or kept out.
    pub fn resume(&self) {
        for (at, data, done) in self.paused.lock().take().unwrap_or_default() {
            self.land(at, data, done);
        }
    }

    fn land(&self, at: u64, data: Bytes, done: WriteDone) {
        let mut table = self.shared.table.lock();
        if table.reserved && !table.registered.contains(&self.number) {
            let kept_out = io::Error::from_raw_os_error(KEPT_OUT);
            // The completion must not come from inside this call.
            let answer = Box::new(move |_| done(Err(kept_out)));
            return self.shared.disk.sync(answer);
        }
        table.writes += 1;
        self.shared.disk.write(at, data, done);
    }

    fn step(&self, step: Step, change: impl FnOnce(&mut Table)) -> Result<(), Refusal> {
        (self.before)(step).map_err(Refusal::Failed)?;
        let mut table = self.shared.table.lock();
        if table.unsupported {
            return Err(Refusal::Unsupported("this model was told so".to_owned()));
        }
        if step != Step::Register && !table.registered.contains(&self.number) {
            return Err(Refusal::Conflict);
        }
        change(&mut table);
        Ok(())
    }
}

impl Reservations for SharedHost {
    fn register(&self, _key: u64) -> Result<(), Refusal> {
        self.step(Step::Register, |table| {
            table.registered.insert(self.number);
        })
    }

    fn reserve(&self, _key: u64) -> Result<(), Refusal> {
        self.step(Step::Reserve, |table| table.reserved = true)
    }

    fn preempt(&self, _key: u64) -> Result<(), Refusal> {
        self.step(Step::Preempt, |table| {
            table.registered.retain(|host| *host == self.number);
        })
    }

    fn shared(&self) -> io::Result<bool> {
        Ok(self.shared.table.lock().shared)
    }
}

impl Device for SharedHost {
    fn geometry(&self) -> Geometry {
        self.shared.disk.geometry()
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        if let Some(held) = &mut *self.paused.lock() {
            return held.push((at, data, done));
        }
        self.land(at, data, done);
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        self.shared.disk.read(at, len, done);
    }

    fn sync(&self, done: WriteDone) {
        self.shared.disk.sync(done);
    }

    fn reservations(&self) -> Option<Arc<dyn Reservations>> {
        Some(Arc::new(self.clone()))
    }

    fn name(&self) -> String {
        "shared disk".to_owned()
    }
}
