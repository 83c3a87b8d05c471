//! A host that has a modelled directory mounted: its operations, when it sleeps, and the lies that it is told.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use super::{
    World,
    image::{Change, DirectoryImage},
};
use crate::{
    block::{ReadDone, WriteDone},
    nfs::{Directory, DirectoryFile, Guard},
};

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
    /// What its lists say, if they lag.
    listed: Mutex<Option<Vec<String>>>,
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
            listed: Mutex::default(),
            guarded: Arc::default(),
        }
    }
}

/// A host that uses a [`ModelDirectory`](super::ModelDirectory). Clones are the same host.
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
    pub(super) fn new(world: Arc<Mutex<World<M>>>) -> Self {
        Self {
            world,
            behaviour: Arc::default(),
        }
    }

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

    /// Whether all faults were told.
    pub fn no_faults(&self) -> bool {
        self.behaviour.faults.lock().is_empty()
    }

    /// How long its operations take.
    pub fn set_latency(&self, latency: Duration) {
        *self.behaviour.latency.lock() = latency;
    }

    /// From now on its lists say what they would say now: a cache that it does not ask the server about, not even after changes of its own.
    pub fn lag_lists(&self) {
        *self.behaviour.listed.lock() = Some(self.world.lock().image.names());
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
        let old = self.behaviour.listed.lock().clone();
        self.look("list", |image| Ok(old.unwrap_or_else(|| image.names())))
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
            Ok(image.links(file) as u64)
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
                Ok((file, image.seen(file)?.len() as u64))
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
                let bytes = image
                    .seen(file)?
                    .get(at..at + len)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(Bytes::copy_from_slice(bytes))
            };
            done(host.look("read", read).await);
        });
    }
}
