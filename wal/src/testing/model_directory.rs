//! A directory in memory that several hosts share, and that can lose what a real one could.
//!
//! - A write is visible before it is durable, and durable when it completes; an image keeps both, with the names that no sync has covered.
//! - Every operation of a [`ModelHost`] has a moment before and one after it takes effect: there a host can be paused, killed, or told a lie.
//! - Waits are tokio's; on a paused runtime a run is the same every time.
//!
//! Hosts see each other's changes at once: caches that lag are not modelled.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    block::{ReadDone, WriteDone},
    nfs::{Directory, DirectoryFile, Guard},
};

/// What a power cut leaves whole.
const SECTOR: usize = 512;

/// One change of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new file.
    Create {
        /// Its name.
        name: String,
        /// Its content.
        content: Bytes,
    },
    /// A second name.
    Link {
        /// Of what.
        from: String,
        /// The new name.
        to: String,
    },
    /// A name gone.
    Remove {
        /// Which.
        name: String,
    },
    /// All names durable.
    Sync,
    /// Bytes in a file.
    Write {
        /// The file's number.
        file: u64,
        /// Where.
        at: usize,
        /// What.
        data: Bytes,
    },
}

impl Change {
    /// How many parts of it can be done or not by themselves: the sectors of a write, and one for all else.
    pub fn parts(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len().div_ceil(SECTOR),
            _ => 1,
        }
    }
}

/// A file's bytes as they are read, and as they would be after a power cut.
type Content = (Arc<Vec<u8>>, Arc<Vec<u8>>);

/// What is in a directory, seen and safe.
#[derive(Clone, Debug, Default)]
pub struct DirectoryImage {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next: u64,
    /// Changes of names that no sync has covered: the name, the file, and whether it was added.
    unsynced: Vec<(String, u64, bool)>,
}

impl DirectoryImage {
    /// The names and the contents, as they are read.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let content = |file| self.files.get(file).map(|(seen, _)| seen.to_vec());
        self.names
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), content(file)?)))
            .collect()
    }

    /// Puts a file there, durably.
    pub fn put(&mut self, name: &str, content: Vec<u8>) {
        let content = Arc::new(content);
        self.next += 1;
        self.files
            .insert(self.next, (Arc::clone(&content), content));
        self.names.insert(name.to_owned(), self.next);
    }

    /// Changes a file's bytes behind the log's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn damage(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.names.get(name).expect("a file to damage");
        let (seen, _) = self.files.get(file).expect("a name leads to a file");
        let mut content = seen.to_vec();
        change(&mut content);
        let content = Arc::new(content);
        self.files.insert(*file, (Arc::clone(&content), content));
    }

    /// What is there after all hosts died: of the changes in flight, what `keep(change, part)` says is seen, and not durable.
    #[must_use]
    pub fn crash(&self, in_flight: &[Change], mut keep: impl FnMut(usize, usize) -> bool) -> Self {
        let mut image = self.clone();
        for (index, change) in in_flight.iter().enumerate() {
            image.apply_in_part(change, |part| keep(index, part), false);
        }
        image
    }

    /// What is there after the server lost its power: of the changes in flight what `keep` says, and of the names that no sync covered what `keep_name`
    /// says.
    #[must_use]
    pub fn power_cut(
        &self,
        in_flight: &[Change],
        mut keep: impl FnMut(usize, usize) -> bool,
        mut keep_name: impl FnMut(usize) -> bool,
    ) -> Self {
        let mut image = self.clone();
        for (seen, durable) in image.files.values_mut() {
            *seen = Arc::clone(durable);
        }
        for (index, change) in in_flight.iter().enumerate() {
            image.apply_in_part(change, |part| keep(index, part), true);
        }
        let unsynced = std::mem::take(&mut image.unsynced);
        for (index, (name, file, added)) in unsynced.into_iter().enumerate().rev() {
            if keep_name(index) {
                continue;
            }
            if added && image.names.get(&name) == Some(&file) {
                image.names.remove(&name);
            } else if !added {
                image.names.entry(name).or_insert(file);
            }
        }
        image
    }

    fn apply_in_part(
        &mut self,
        change: &Change,
        mut keep: impl FnMut(usize) -> bool,
        durable: bool,
    ) {
        match change {
            Change::Write { file, at, data } => {
                for (part, bytes) in data
                    .chunks(SECTOR)
                    .enumerate()
                    .filter(|(part, _)| keep(*part))
                {
                    let at = at + part * SECTOR;
                    // Of a file that is gone nothing is left to tear.
                    let _ = self.write(*file, at, bytes, true);
                    if durable {
                        let _ = self.write(*file, at, bytes, false);
                    }
                }
            }
            change if keep(0) => {
                let _ = self.apply(change);
            }
            _ => {}
        }
    }

    fn write(&mut self, file: u64, at: usize, data: &[u8], seen: bool) -> io::Result<()> {
        // As over NFS: a handle of a file without a name is stale.
        let named = self.names.values().any(|of| *of == file);
        let (visible, durable) = self
            .files
            .get_mut(&file)
            .filter(|_| named)
            .ok_or_else(stale)?;
        let content = Arc::make_mut(if seen { visible } else { durable });
        let to = content.get_mut(at..at + data.len());
        to.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        Ok(())
    }

    fn file(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Does all but a write, which has two steps.
    fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Create { name, content } => {
                if self.names.contains_key(name) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.put(name, content.to_vec());
                self.unsynced.push((name.clone(), self.next, true));
            }
            Change::Link { from, to } => {
                let file = self.file(from)?;
                if self.names.contains_key(to) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.names.insert(to.clone(), file);
                self.unsynced.push((to.clone(), file, true));
            }
            Change::Remove { name } => {
                let file = self.file(name)?;
                self.names.remove(name);
                self.unsynced.push((name.clone(), file, false));
            }
            Change::Sync => self.unsynced.clear(),
            Change::Write { .. } => {}
        }
        Ok(())
    }
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

/// A moment of a run, with all that is needed to crash there.
#[derive(Clone, Debug)]
pub struct Step<M> {
    /// What the test marked, if it is a mark.
    pub mark: Option<M>,
    /// The directory.
    pub image: DirectoryImage,
    /// Changes that were asked for and have not been answered.
    pub in_flight: Vec<Change>,
}

#[derive(Debug)]
struct World<M> {
    image: DirectoryImage,
    in_flight: BTreeMap<u64, Change>,
    next_id: u64,
    recording: bool,
    steps: Vec<Step<M>>,
}

impl<M> World<M> {
    fn note(&mut self, mark: Option<M>) {
        if self.recording {
            let (image, in_flight) = (self.image.clone(), self.in_flight.values().cloned());
            let in_flight = in_flight.collect();
            self.steps.push(Step {
                mark,
                image,
                in_flight,
            });
        }
    }
}

impl<M> World<M> {
    fn ask(&mut self, change: Change) -> u64 {
        self.next_id += 1;
        self.in_flight.insert(self.next_id, change);
        self.note(None);
        self.next_id
    }

    /// The change takes effect; `None` if it was lost with the server.
    fn see(
        &mut self,
        id: u64,
        change: &Change,
        fault: Option<DirectoryFault>,
    ) -> Option<io::Result<()>> {
        self.in_flight.get(&id)?;
        let result = match (fault, change) {
            (Some(fault), change) => {
                self.image
                    .apply_in_part(change, |part| part < fault.parts, true);
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            (None, Change::Write { file, at, data }) => self.image.write(*file, *at, data, true),
            (None, change) => self.image.apply(change),
        };
        self.note(None);
        Some(result)
    }

    /// What took effect is durable.
    fn settle(&mut self, id: u64, change: &Change, seen: io::Result<()>) -> Option<io::Result<()>> {
        self.in_flight.remove(&id)?;
        let result = match (change, seen) {
            (Change::Write { file, at, data }, Ok(())) => self.image.write(*file, *at, data, false),
            (_, seen) => seen,
        };
        self.note(None);
        Some(result)
    }
}

/// A directory that hosts share.
#[derive(Debug)]
pub struct ModelDirectory<M = ()> {
    world: Arc<Mutex<World<M>>>,
}

impl<M> Clone for ModelDirectory<M> {
    fn clone(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
        }
    }
}

impl<M> Default for ModelDirectory<M> {
    fn default() -> Self {
        Self::holding(DirectoryImage::default())
    }
}

impl<M> ModelDirectory<M> {
    /// One that holds `image`.
    pub fn holding(image: DirectoryImage) -> Self {
        let world = World {
            image,
            in_flight: BTreeMap::new(),
            next_id: 0,
            recording: false,
            steps: Vec::new(),
        };
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// The same, which from now on keeps every step.
    #[must_use]
    pub fn recording(self) -> Self {
        self.world.lock().recording = true;
        self
    }

    /// What is there now.
    pub fn image(&self) -> DirectoryImage {
        self.world.lock().image.clone()
    }

    /// Replaces what is there: what hosts find after a power cut of the server.
    pub fn restore(&self, image: DirectoryImage) {
        let mut world = self.world.lock();
        world.image = image;
        world.in_flight.clear();
    }

    /// Changes that were asked for and have not been answered.
    pub fn in_flight(&self) -> Vec<Change> {
        self.world.lock().in_flight.values().cloned().collect()
    }

    /// Notes something between two steps.
    pub fn mark(&self, mark: M) {
        self.world.lock().note(Some(mark));
    }

    /// The steps so far.
    pub fn steps(&self) -> Vec<Step<M>>
    where
        M: Clone,
    {
        self.world.lock().steps.clone()
    }

    /// A host that has it mounted.
    pub fn host(&self) -> ModelHost<M> {
        ModelHost {
            world: Arc::clone(&self.world),
            behaviour: Arc::default(),
        }
    }
}

/// A lie or a failure, told once.
#[derive(Clone, Debug)]
pub struct DirectoryFault {
    /// Of which operation: `create`, `link`, `links`, `remove`, `sync`, `open`, `write`, `read`, `list`.
    pub operation: &'static str,
    /// So many of them are spared before.
    pub after: u32,
    /// The error that is told, as the system numbers it.
    pub errno: i32,
    /// How many parts of the change are done all the same.
    pub parts: usize,
}

#[derive(Debug)]
struct Behaviour {
    faults: Mutex<VecDeque<DirectoryFault>>,
    operations: Mutex<u64>,
    pause_at: Mutex<Option<u64>>,
    /// Whether it goes on; a dead host never does.
    running: watch::Sender<bool>,
    latency: Mutex<Duration>,
    guarded: Arc<Mutex<bool>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            faults: Mutex::default(),
            operations: Mutex::default(),
            pause_at: Mutex::default(),
            running: watch::Sender::new(true),
            latency: Mutex::new(Duration::from_micros(100)),
            guarded: Arc::default(),
        }
    }
}

/// A host that uses a [`ModelDirectory`]. Clones are the same host.
#[derive(Debug)]
pub struct ModelHost<M = ()> {
    world: Arc<Mutex<World<M>>>,
    behaviour: Arc<Behaviour>,
}

impl<M> Clone for ModelHost<M> {
    fn clone(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            behaviour: Arc::clone(&self.behaviour),
        }
    }
}

impl<M> ModelHost<M> {
    /// Nothing of it happens any more, until it is resumed: neither what it asks for nor what it is told.
    pub fn pause(&self) {
        self.behaviour.running.send_replace(false);
    }

    /// Pauses it before its moment `moment`, counted from now; each operation has two, before it is done and before its answer is heard.
    pub fn pause_at(&self, moment: u64) {
        let now = *self.behaviour.operations.lock();
        *self.behaviour.pause_at.lock() = Some(now + moment);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        !*self.behaviour.running.borrow()
    }

    /// Goes on.
    pub fn resume(&self) {
        *self.behaviour.pause_at.lock() = None;
        self.behaviour.running.send_replace(true);
    }

    /// Adds a fault.
    pub fn fault(&self, fault: DirectoryFault) {
        self.behaviour.faults.lock().push_back(fault);
    }

    /// How long its operations take.
    pub fn set_latency(&self, latency: Duration) {
        *self.behaviour.latency.lock() = latency;
    }

    async fn moment(&self) {
        {
            let mut operations = self.behaviour.operations.lock();
            if *self.behaviour.pause_at.lock() == Some(*operations) {
                self.behaviour.running.send_replace(false);
            }
            *operations += 1;
        }
        let mut running = self.behaviour.running.subscribe();
        // The sender lives in `self`.
        let _ = running.wait_for(|running| *running).await;
    }

    /// The fault of the next `operation`, if there is one.
    fn next_fault(&self, operation: &str) -> Option<DirectoryFault> {
        let mut faults = self.behaviour.faults.lock();
        let index = faults.iter().position(|f| f.operation == operation)?;
        let fault = faults.get_mut(index)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        faults.remove(index)
    }

    /// An operation that reads.
    async fn look<T>(
        &self,
        operation: &str,
        at: impl FnOnce(&DirectoryImage) -> io::Result<T>,
    ) -> io::Result<T> {
        self.moment().await;
        let result = match self.next_fault(operation) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => at(&self.world.lock().image),
        };
        self.moment().await;
        result
    }

    /// An operation that changes something: asked for, seen, durable, answered.
    async fn change(&self, operation: &str, change: Change) -> io::Result<()> {
        self.moment().await;
        let id = self.world.lock().ask(change.clone());
        let half = *self.behaviour.latency.lock() / 2;
        tokio::time::sleep(half).await;
        let fault = self.next_fault(operation);
        let seen = self.world.lock().see(id, &change, fault);
        tokio::time::sleep(half).await;
        let settled = seen.and_then(|seen| self.world.lock().settle(id, &change, seen));
        let Some(result) = settled else {
            // The server lost its power meanwhile, and its host died with it.
            return std::future::pending().await;
        };
        self.moment().await;
        result
    }
}

struct ModelGuard(Arc<Mutex<bool>>);

impl Drop for ModelGuard {
    fn drop(&mut self) {
        *self.0.lock() = false;
    }
}

#[async_trait]
impl<M: Clone + Send + std::fmt::Debug + 'static> Directory for ModelHost<M> {
    fn name(&self) -> String {
        "model directory".to_owned()
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        self.look("list", |image| Ok(image.names.keys().cloned().collect()))
            .await
    }

    async fn create(&self, name: &str, len: u64, at: u64, data: Bytes) -> io::Result<()> {
        let mut content = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let to = content.get_mut(at..at + data.len());
        to.ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(&data);
        let change = Change::Create {
            name: name.to_owned(),
            content: content.into(),
        };
        self.change("create", change).await
    }

    async fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let change = Change::Link {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.change("link", change).await
    }

    async fn links(&self, name: &str) -> io::Result<u64> {
        self.look("links", |image| {
            let file = image.file(name)?;
            Ok(image.names.values().filter(|of| **of == file).count() as u64)
        })
        .await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let change = Change::Remove {
            name: name.to_owned(),
        };
        self.change("remove", change).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.change("sync", Change::Sync).await
    }

    async fn open(&self, name: &str) -> io::Result<Arc<dyn DirectoryFile>> {
        let (file, len_bytes) = self
            .look("open", |image| {
                let file = image.file(name)?;
                let len = image.files.get(&file).map_or(0, |(seen, _)| seen.len());
                Ok((file, len as u64))
            })
            .await?;
        Ok(Arc::new(ModelFile {
            host: self.clone(),
            runtime: Handle::current(),
            file,
            len_bytes,
        }))
    }

    async fn guard(&self) -> io::Result<Option<Guard>> {
        let guarded = Arc::clone(&self.behaviour.guarded);
        let taken = std::mem::replace(&mut *guarded.lock(), true);
        Ok((!taken).then(|| Box::new(ModelGuard(guarded)) as Guard))
    }
}

#[derive(Debug)]
struct ModelFile<M> {
    host: ModelHost<M>,
    runtime: Handle,
    file: u64,
    len_bytes: u64,
}

impl<M: Clone + Send + std::fmt::Debug + 'static> DirectoryFile for ModelFile<M> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let (host, file) = (self.host.clone(), self.file);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.runtime.spawn(async move {
            let result = host.change("write", Change::Write { file, at, data }).await;
            done(result);
        });
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let (host, file) = (self.host.clone(), self.file);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.runtime.spawn(async move {
            let read = |image: &DirectoryImage| {
                let named = image.names.values().any(|of| *of == file);
                let (seen, _) = image.files.get(&file).filter(|_| named).ok_or_else(stale)?;
                let bytes = seen.get(at..at + len).ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(Bytes::copy_from_slice(bytes))
            };
            done(host.look("read", read).await);
        });
    }
}
