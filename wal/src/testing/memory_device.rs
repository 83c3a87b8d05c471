//! A device in memory that can lose what a real one could: writes in flight, in any subset of their sectors, and what only a page cache held.
//!
//! - `durable` changes when a write completes or a sync runs; `cached` lies over it for reads alone.
//! - A write in flight is nowhere until it completes, or until a crash or power cut says which of its sectors made it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};

use crate::block::{Device, Geometry, ReadDone, WriteDone};

/// What a power cut leaves whole.
const SECTOR: usize = 512;

/// A device in memory. Clones are the same device.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    shared: Arc<Shared>,
    /// Ends the thread when the last clone is gone.
    _worker: Option<Arc<Worker>>,
}

#[derive(Debug, Default)]
struct Shared {
    disk: Mutex<Disk>,
    arrived: Condvar,
}

#[derive(Default)]
struct Disk {
    durable: Vec<u8>,
    cached: BTreeMap<usize, Vec<u8>>,
    waiting: VecDeque<Waiting>,
    ending: bool,
}

enum Waiting {
    Write {
        at: usize,
        data: Bytes,
        done: WriteDone,
    },
    Read {
        at: usize,
        len: usize,
        done: ReadDone,
    },
    Sync {
        done: WriteDone,
    },
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (len, waiting) = (self.durable.len(), self.waiting.len());
        f.debug_struct("Disk")
            .field("len", &len)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Worker(Arc<Shared>);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.disk.lock().ending = true;
        self.0.arrived.notify_all();
    }
}

impl MemoryDevice {
    /// `len` zero bytes, and a thread that does what is asked in the order it was asked.
    pub fn new(len: usize) -> Self {
        Self::with_content(vec![0; len]).running()
    }

    /// `len` zero bytes, where nothing happens unless [`complete`](Self::complete) or [`drive`](Self::drive) is called. No thread, so a test is the
    /// same every time.
    pub fn manual(len: usize) -> Self {
        Self::with_content(vec![0; len])
    }

    /// A manual device that holds `content`.
    pub fn with_content(content: Vec<u8>) -> Self {
        let disk = Disk {
            durable: content,
            ..Disk::default()
        };
        let shared = Arc::new(Shared {
            disk: Mutex::new(disk),
            arrived: Condvar::new(),
        });
        Self {
            shared,
            _worker: None,
        }
    }

    /// The same device with a thread.
    #[must_use]
    pub fn running(self) -> Self {
        let shared = Arc::clone(&self.shared);
        shared.disk.lock().ending = false;
        let worker = Arc::new(Worker(Arc::clone(&shared)));
        let thread = thread::Builder::new()
            .name("memory-device".to_owned())
            .spawn(move || {
                loop {
                    let mut disk = shared.disk.lock();
                    while disk.waiting.is_empty() && !disk.ending {
                        shared.arrived.wait(&mut disk);
                    }
                    if disk.ending {
                        return;
                    }
                    let answer = disk.work(0);
                    drop(disk);
                    answer();
                }
            });
        thread.expect("a thread for a test");
        Self {
            _worker: Some(worker),
            ..self
        }
    }

    /// Operations that have not completed.
    pub fn waiting(&self) -> usize {
        self.shared.disk.lock().waiting.len()
    }

    /// Completes the operation at `index` of those that wait, in the order they were asked.
    ///
    /// # Panics
    /// If there is none.
    pub fn complete(&self, index: usize) {
        let answer = self.shared.disk.lock().work(index);
        answer();
    }

    /// Runs a future to its end, completing the oldest operation whenever it waits.
    ///
    /// # Panics
    /// If it waits for something that is not an operation of this device.
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            assert!(
                self.waiting() > 0,
                "a future waits, and the device has nothing to do"
            );
            self.complete(0);
        }
    }

    /// What would be read after a power cut if nothing in flight made it.
    pub fn content(&self) -> Vec<u8> {
        self.shared.disk.lock().durable.clone()
    }

    /// Changes bytes behind the log's back.
    ///
    /// # Panics
    /// Past the end.
    pub fn damage(&self, at: usize, change: impl FnOnce(&mut [u8])) {
        change(
            self.shared
                .disk
                .lock()
                .durable
                .get_mut(at..)
                .expect("within the device"),
        );
    }

    /// What the next process finds after this one was killed: of the writes in flight, the sectors for which `keep(write, sector)` says so are in the
    /// page cache, readable and not durable. The old device does nothing more.
    #[must_use]
    pub fn crash(&self, mut keep: impl FnMut(usize, usize) -> bool) -> Self {
        let mut disk = self.shared.disk.lock();
        let mut next = Disk {
            durable: disk.durable.clone(),
            cached: disk.cached.clone(),
            ..Disk::default()
        };
        for (at, sector) in disk.surviving(&mut keep) {
            next.cached.insert(at, sector);
        }
        disk.waiting.clear();
        let shared = Arc::new(Shared {
            disk: Mutex::new(next),
            arrived: Condvar::new(),
        });
        Self {
            shared,
            _worker: None,
        }
    }

    /// What is found after a power cut: what the page cache held is gone, and of the writes in flight the sectors for which `keep(write, sector)` says so
    /// are there for good. The old device does nothing more.
    #[must_use]
    pub fn power_cut(&self, mut keep: impl FnMut(usize, usize) -> bool) -> Self {
        let mut disk = self.shared.disk.lock();
        let mut next = Disk {
            durable: disk.durable.clone(),
            ..Disk::default()
        };
        for (at, sector) in disk.surviving(&mut keep) {
            next.store(at, &sector);
        }
        disk.waiting.clear();
        let shared = Arc::new(Shared {
            disk: Mutex::new(next),
            arrived: Condvar::new(),
        });
        Self {
            shared,
            _worker: None,
        }
    }
}

impl Disk {
    fn store(&mut self, at: usize, data: &[u8]) {
        let to = self
            .durable
            .get_mut(at..at + data.len())
            .expect("checked when it was asked");
        to.copy_from_slice(data);
        for sector in (at..at + data.len()).step_by(SECTOR) {
            self.cached.remove(&sector);
        }
    }

    fn load(&self, at: usize, len: usize) -> Bytes {
        let from = self
            .durable
            .get(at..at + len)
            .expect("checked when it was asked");
        let mut bytes = BytesMut::from(from);
        for (sector, data) in self.cached.range(at..at + len) {
            if let Some(to) = bytes.get_mut(sector - at..sector - at + SECTOR) {
                to.copy_from_slice(data);
            }
        }
        bytes.freeze()
    }

    fn surviving(&self, keep: &mut impl FnMut(usize, usize) -> bool) -> Vec<(usize, Vec<u8>)> {
        let writes = self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Write { at, data, .. } => Some((*at, data)),
            _ => None,
        });
        let mut kept = Vec::new();
        for (write, (at, data)) in writes.enumerate() {
            for (sector, bytes) in data.chunks(SECTOR).enumerate() {
                if keep(write, sector) {
                    kept.push((at + sector * SECTOR, bytes.to_vec()));
                }
            }
        }
        kept
    }

    /// Does the operation and returns its completion, to be called without the lock.
    fn work(&mut self, index: usize) -> Box<dyn FnOnce() + Send> {
        match self.waiting.remove(index).expect("an operation waits") {
            Waiting::Write { at, data, done } => {
                if let Err(e) = self.geometry().admits_write(at as u64, &data) {
                    return Box::new(move || done(Err(e)));
                }
                self.store(at, &data);
                Box::new(move || done(Ok(())))
            }
            Waiting::Read { at, len, done } => {
                let result = self
                    .geometry()
                    .admits(at as u64, len)
                    .map(|()| self.load(at, len));
                Box::new(move || done(result))
            }
            Waiting::Sync { done } => {
                for (at, sector) in std::mem::take(&mut self.cached) {
                    self.store(at, &sector);
                }
                Box::new(move || done(Ok(())))
            }
        }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            block_bytes: SECTOR as u32,
            len_bytes: self.durable.len() as u64,
        }
    }
}

impl Shared {
    fn ask(&self, waiting: Waiting) {
        self.disk.lock().waiting.push_back(waiting);
        self.arrived.notify_one();
    }
}

impl Device for MemoryDevice {
    fn geometry(&self) -> Geometry {
        self.shared.disk.lock().geometry()
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.shared.ask(Waiting::Write { at, data, done });
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.shared.ask(Waiting::Read { at, len, done });
    }

    fn sync(&self, done: WriteDone) {
        self.shared.ask(Waiting::Sync { done });
    }

    fn name(&self) -> String {
        "memory device".to_owned()
    }
}
