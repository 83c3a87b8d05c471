//! The files of one epoch, as the device that its frames and superblocks lie on.
//!
//! - `head | ring`, addressed as on a block device; the ring is cut into [`SEGMENTS`] files of the same length, made when they are first written.
//! - The granted epoch's volume has a lease: it completes a write only once the write is durable and, after that, the lease was held.
//! - A head is made before any segment, and by one opening only; nobody else ever writes to the epoch's files, but a taker that makes the last frames
//!   durable with the bytes they have.
//! - The next segment is made while this one is filled.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{
    Directory, DirectoryFile,
    lease::{Lease, link},
    look::{open, read_file, write_file},
    names::Name,
    threads::{Answer, Threads},
};
use crate::{
    Error, LogEpoch, LogUuid,
    block::{
        Device, Geometry, ReadDone, WriteDone, aligned,
        ring::{BLOCK, COPIES, RING_START, Ring, block_ceil},
        superblock::{Copy, Superblock},
    },
};

/// Pieces of a ring. Part of the format.
pub(crate) const SEGMENTS: u64 = 16;

/// The slot of the head.
const HEAD: usize = 0;

/// The length of one piece of a ring. Part of the format.
pub(crate) fn segment_bytes(ring: Ring) -> u64 {
    block_ceil(ring.capacity().div_ceil(SEGMENTS))
}

/// One epoch's files. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    directory: Arc<dyn Directory>,
    log: LogUuid,
    epoch: LogEpoch,
    ring: Ring,
    /// The head, then the segments.
    slots: Vec<Slot>,
    runtime: Handle,
    /// Tell what the runtime drops.
    threads: Threads,
    owner: Option<Owner>,
}

/// What the volume of the granted epoch has besides.
#[derive(Debug)]
struct Owner {
    lease: Arc<Lease>,
    nonce: u128,
    earlier: Mutex<Earlier>,
}

/// Epochs before this one whose files are still there.
#[derive(Debug, Default)]
struct Earlier {
    /// Where each ends.
    ends: BTreeMap<LogEpoch, u64>,
    /// The tail that each copy is known to hold.
    tails: [u64; 2],
}

#[derive(Debug)]
struct Slot {
    name: Name,
    len: u64,
    file: Mutex<Option<Arc<dyn DirectoryFile>>>,
    /// Locked while it is made: whether this opening gave it its name, and may have failed after that.
    making: tokio::sync::Mutex<bool>,
    /// The slot after it was asked for.
    followed: AtomicBool,
}

/// A piece of an operation within one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    slot: usize,
    at: u64,
    len: usize,
}

impl Volume {
    /// The files of an epoch that someone else wrote.
    pub(crate) fn of_epoch(
        directory: Arc<dyn Directory>,
        log: LogUuid,
        epoch: LogEpoch,
        ring: Ring,
        threads: &Threads,
    ) -> Self {
        Self::new(directory, log, epoch, ring, threads, None)
    }

    /// The files of the granted epoch.
    pub(crate) fn granted(
        directory: Arc<dyn Directory>,
        log: LogUuid,
        epoch: LogEpoch,
        ring: Ring,
        threads: &Threads,
        (lease, nonce): (Arc<Lease>, u128),
    ) -> Self {
        let owner = Owner {
            lease,
            nonce,
            earlier: Mutex::default(),
        };
        Self::new(directory, log, epoch, ring, threads, Some(owner))
    }

    fn new(
        directory: Arc<dyn Directory>,
        log: LogUuid,
        epoch: LogEpoch,
        ring: Ring,
        threads: &Threads,
        owner: Option<Owner>,
    ) -> Self {
        let len = segment_bytes(ring);
        let count = ring.capacity().div_ceil(len);
        let slot = |name, len| Slot {
            name,
            len,
            file: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            followed: AtomicBool::new(false),
        };
        let mut slots = vec![slot(Name::head(log, epoch), RING_START)];
        slots.extend((0..count as u32).map(|n| slot(Name::Segment(log.get(), epoch, n), len)));
        Self {
            files: Arc::new(Files {
                directory,
                log,
                epoch,
                ring,
                slots,
                runtime: Handle::current(),
                threads: threads.clone(),
                owner,
            }),
        }
    }

    /// From now on the files of these epochs go once both superblock copies hold a tail at or above their ends (F2).
    pub(crate) fn supersedes(&self, ends: impl Iterator<Item = (LogEpoch, u64)>) {
        if let Some(owner) = &self.files.owner {
            owner.earlier.lock().ends.extend(ends);
        }
    }
}

impl Files {
    fn parts(&self, at: u64, len: usize) -> io::Result<Vec<Part>> {
        let outside = || {
            let text = format!("{len} bytes at {at} of {}", self.ring.device_len());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        let end = at.checked_add(len as u64).ok_or_else(outside)?;
        let blocks = at.is_multiple_of(BLOCK) && (len as u64).is_multiple_of(BLOCK);
        let apart = end <= RING_START || at >= RING_START;
        if !blocks || !apart || end > self.ring.device_len() {
            return Err(outside());
        }
        if end <= RING_START {
            return Ok(vec![Part {
                slot: HEAD,
                at,
                len,
            }]);
        }
        let segment = segment_bytes(self.ring);
        let mut parts = Vec::new();
        let (mut at, end) = (at - RING_START, end - RING_START);
        while at < end {
            let within = at % segment;
            let len = (segment - within).min(end - at);
            parts.push(Part {
                slot: HEAD + 1 + usize::try_from(at / segment).unwrap_or(usize::MAX),
                at: within,
                len: usize::try_from(len).unwrap_or(usize::MAX),
            });
            at += len;
        }
        Ok(parts)
    }

    fn slot(&self, index: usize) -> io::Result<&Slot> {
        self.slots
            .get(index)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// The file if it is open.
    fn ready(&self, slot: usize) -> Option<Arc<dyn DirectoryFile>> {
        self.slots.get(slot)?.file.lock().clone()
    }

    /// The file, opened if it is there.
    async fn there(&self, slot: usize) -> io::Result<Option<Arc<dyn DirectoryFile>>> {
        let slot = self.slot(slot)?;
        let _alone = slot.making.lock().await;
        if let Some(file) = slot.file.lock().clone() {
            return Ok(Some(file));
        }
        match self.open(slot).await {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens the file of a slot, which is as long as it was made.
    async fn open(&self, slot: &Slot) -> io::Result<Arc<dyn DirectoryFile>> {
        let file = open(&*self.directory, &slot.name.to_string()).await?;
        if file.len_bytes() != slot.len {
            let text = format!(
                "{}: {} bytes, it was made with {}",
                slot.name,
                file.len_bytes(),
                slot.len
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        *slot.file.lock() = Some(Arc::clone(&file));
        Ok(file)
    }

    /// The file, made if this epoch has not made it yet. A new head begins with `data` at `at`; a segment is all zero.
    async fn made(
        &self,
        owner: &Owner,
        index: usize,
        (at, data): (u64, Bytes),
    ) -> io::Result<Arc<dyn DirectoryFile>> {
        let slot = self.slot(index)?;
        let mut named = slot.making.lock().await;
        if let Some(file) = slot.file.lock().clone() {
            return Ok(file);
        }
        if !*named {
            self.name_new(owner, index, (at, data)).await?;
            *named = true;
        }
        self.directory.sync().await?;
        self.open(slot).await
    }

    /// Gives a new file the name of a slot, which nobody else may have done.
    ///
    /// A segment's name that is taken was given by a try before this one, whose answer was lost, and the count of names after it: whoever made the head is
    /// alone in making segments, and a draft is whole before it is linked.
    async fn name_new(
        &self,
        owner: &Owner,
        index: usize,
        (at, data): (u64, Bytes),
    ) -> io::Result<()> {
        // Not for a zombie: what it makes is no use to anyone.
        owner.lease.hold().await.map_err(io::Error::other)?;
        let slot = self.slot(index)?;
        let name = slot.name.to_string();
        let draft = Name::Draft(owner.nonce ^ (index as u128 + 1) << 64).to_string();
        let mut linked = self
            .directory
            .create(&draft, slot.len, at, data)
            .await
            .map(|()| false);
        if linked.is_ok() {
            linked = link(&*self.directory, &draft, &name).await;
        }
        // Whatever became of it, the draft is no use any more; one that stays is swept by the next opening.
        let _ = self.directory.remove(&draft).await;
        let own = index != HEAD && self.ready(HEAD).is_some();
        if !linked? && !own {
            let by = format!("another opening of epoch {}, which made {name}", self.epoch);
            return Err(io::Error::other(Error::Fenced { by }));
        }
        Ok(())
    }

    /// Writes each part to its file, which is made if it has to be.
    async fn write(&self, parts: Vec<Part>, mut data: Bytes) -> io::Result<()> {
        for part in parts {
            let piece = data.split_to(part.len);
            let file = match (self.ready(part.slot), &self.owner) {
                (Some(file), _) => file,
                (None, Some(owner)) => {
                    let first = if part.slot == HEAD {
                        (part.at, piece.clone())
                    } else {
                        (0, Bytes::new())
                    };
                    self.made(owner, part.slot, first).await?
                }
                (None, None) => match self.there(part.slot).await? {
                    Some(file) => file,
                    // It reads as zeros, and will.
                    None if piece.iter().all(|b| *b == 0) => continue,
                    None => return Err(io::ErrorKind::NotFound.into()),
                },
            };
            write_file(&file, part.at, piece).await?;
        }
        Ok(())
    }

    /// Tells what became of a write: of a durable one only when the lease was held after that (F3).
    fn finish(
        self: &Arc<Self>,
        result: io::Result<()>,
        copy: Option<(usize, u64)>,
        done: Answer<()>,
    ) {
        let Some(owner) = &self.owner else {
            return done.tell(result);
        };
        if result.is_ok() && owner.lease.is_valid() {
            self.superseded(copy);
            return done.tell(Ok(()));
        }
        let (files, lease) = (Arc::clone(self), Arc::clone(&owner.lease));
        self.runtime.spawn(async move {
            let held = match result {
                Ok(()) => lease.hold().await.map_err(io::Error::other),
                Err(error) => Err(lease.explain(error).await),
            };
            if held.is_ok() {
                files.superseded(copy);
            }
            done.tell(held);
        });
    }

    /// Once both copies hold a tail, the epochs that end below it are only files.
    fn superseded(self: &Arc<Self>, copy: Option<(usize, u64)>) {
        let (Some((copy, tail)), Some(owner)) = (copy, &self.owner) else {
            return;
        };
        let mut earlier = owner.earlier.lock();
        if let Some(known) = earlier.tails.get_mut(copy) {
            *known = tail;
        }
        let [a, b] = earlier.tails;
        let passed: Vec<_> = earlier
            .ends
            .iter()
            .filter(|(_, end)| **end <= a.min(b))
            .map(|(epoch, _)| *epoch)
            .collect();
        for epoch in &passed {
            earlier.ends.remove(epoch);
        }
        drop(earlier);
        if passed.is_empty() {
            return;
        }
        let files = Arc::clone(self);
        self.runtime.spawn(async move {
            for epoch in passed {
                files.remove(epoch).await;
            }
        });
    }

    /// Removes an epoch's files, the head last, so that what is left of a crash in between is found again. Best effort: the next opening sweeps.
    async fn remove(&self, epoch: LogEpoch) {
        let segments = (0..SEGMENTS as u32).map(|n| Name::Segment(self.log.get(), epoch, n));
        for name in segments.chain([Name::head(self.log, epoch)]) {
            remove(&*self.directory, &name.to_string()).await;
        }
    }

    async fn read(&self, at: u64, len: usize) -> io::Result<Bytes> {
        let mut pieces = Vec::new();
        for part in self.parts(at, len)? {
            let piece = match self.there(part.slot).await? {
                Some(file) => read_file(&*file, part.at, part.len).await?,
                // Never written.
                None => aligned::zeroed(part.len).freeze(),
            };
            pieces.push(piece);
        }
        if let [whole] = &pieces[..] {
            return Ok(whole.clone());
        }
        let mut all = aligned::with_capacity(len);
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all.freeze())
    }

    /// Makes the segment after `slot`, ahead of need. A failure is left to the write that needs it.
    async fn make_next(&self, slot: usize) {
        let next = if slot + 1 < self.slots.len() {
            slot + 1
        } else {
            HEAD + 1
        };
        let Some(owner) = &self.owner else { return };
        if let Err(error) = self.made(owner, next, (0, Bytes::new())).await {
            tracing::warn!(place = self.directory.name(), %error, "a segment could not be made ahead of need");
        }
    }

    /// What a write asks for besides: the next segment, and a lease that will be there when it is needed.
    fn look_ahead(self: &Arc<Self>, parts: &[Part]) {
        let Some(owner) = &self.owner else { return };
        if owner.lease.begin_renewal() {
            let lease = Arc::clone(&owner.lease);
            self.runtime.spawn(async move { lease.renew_early().await });
        }
        let last = parts.last().map_or(HEAD, |part| part.slot);
        let follows = last != HEAD
            && self
                .slots
                .get(last)
                .is_some_and(|slot| !slot.followed.swap(true, Ordering::AcqRel));
        if follows {
            let files = Arc::clone(self);
            self.runtime
                .spawn(async move { files.make_next(last).await });
        }
    }
}

/// Removes a file that nobody needs. Best effort.
pub(crate) async fn remove(directory: &dyn Directory, name: &str) {
    if let Err(error) = directory.remove(name).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(place = directory.name(), name, %error, "a file that is not needed stays");
    }
}

impl Drop for Files {
    /// Nothing is in flight any more and nothing will be acknowledged: the next owner need not wait.
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            let lease = Arc::clone(&owner.lease);
            self.runtime.spawn(async move { lease.release().await });
        }
    }
}

impl Device for Volume {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_bytes: BLOCK as u32,
            len_bytes: self.files.ring.device_len(),
        }
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let files = Arc::clone(&self.files);
        let done = Answer::new(done, &files.threads);
        let parts = files.parts(at, data.len());
        let copy = copy_of(at, &data);
        if let Ok(parts) = &parts {
            files.look_ahead(parts);
            if let [part] = parts[..]
                && let Some(file) = files.ready(part.slot)
            {
                let done = Box::new(move |result| files.finish(result, copy, done));
                return file.write(part.at, data, done);
            }
        }
        self.files.runtime.spawn(async move {
            let result = match parts {
                Ok(parts) => files.write(parts, data).await,
                Err(e) => Err(e),
            };
            files.finish(result, copy, done);
        });
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let files = Arc::clone(&self.files);
        let done = Answer::new(done, &files.threads);
        self.files
            .runtime
            .spawn(async move { done.tell(files.read(at, len).await) });
    }

    fn sync(&self, done: WriteDone) {
        // Each write is durable by itself, and what other hosts wrote cannot be synced from here: a taker writes it again.
        let refused = move || done(Err(io::ErrorKind::Unsupported.into()));
        self.files.threads.send(refused);
    }

    fn name(&self) -> String {
        self.files.directory.name()
    }
}

/// Which superblock copy is written, and the tail in it.
fn copy_of(at: u64, data: &[u8]) -> Option<(usize, u64)> {
    let copy = COPIES.iter().position(|copy| *copy == at)?;
    match Superblock::decode(data) {
        Copy::Valid(superblock) => Some((copy, superblock.tail)),
        _ => None,
    }
}
