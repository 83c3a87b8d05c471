//! Reads a device and a ring as a caller of a replay would like to: awaited, by position, ahead.
//!
//! - Memory is bounded: [`AHEAD`] pieces of [`PIECE`] bytes, or the pieces of one frame if it is larger, and that frame in one piece.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{
    device::Device,
    frame::{Flaw, HEADER_LEN, Header},
    ring::{BLOCK, Ring, block_ceil},
};
use crate::{Error, LogEpoch};

/// Bytes read at once.
const PIECE: u64 = 1 << 20;
/// Pieces that are read or held at once.
const AHEAD: usize = 6;

/// Waits for one operation of a device. Dropped completions are errors. The device is held until the operation ends even if the wait does not last so
/// long: exclusive use is not over while a write may still land.
async fn outcome<T>(
    device: &Arc<dyn Device>,
    op: &'static str,
    begin: impl FnOnce(Box<dyn FnOnce(io::Result<T>) + Send>),
) -> Result<T, Error>
where
    T: Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let held = Arc::clone(device);
    begin(Box::new(move |result| {
        drop(held);
        // Nobody waits any more: the caller was dropped.
        let _ = tell.send(result);
    }));
    told.await
        .unwrap_or_else(|_| Err(gone()))
        .map_err(|source| Error::of_device(op, device.name(), source))
}

fn gone() -> io::Error {
    let what = "the device dropped the operation";
    io::Error::new(io::ErrorKind::BrokenPipe, what)
}

/// Whether a read has given all that was asked for.
fn whole(bytes: &Bytes, len: u64, at: u64) -> io::Result<()> {
    if bytes.len() as u64 == len {
        return Ok(());
    }
    let short = format!("{} bytes of {len} at {at}", bytes.len());
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, short))
}

/// Reads from the device.
pub(crate) async fn read(device: &Arc<dyn Device>, at: u64, len: usize) -> Result<Bytes, Error> {
    let bytes = outcome(device, "read", |done| device.read(at, len, done)).await?;
    whole(&bytes, len as u64, at)
        .map_err(|source| Error::of_device("read", device.name(), source))?;
    Ok(bytes)
}

/// Writes to the device, durably.
pub(crate) async fn write(device: &Arc<dyn Device>, at: u64, data: Bytes) -> Result<(), Error> {
    outcome(device, "write", |done| device.write(at, data, done)).await
}

/// Makes what is on the device the device's own.
pub(crate) async fn sync(device: &Arc<dyn Device>) -> Result<(), Error> {
    outcome(device, "sync", |done| device.sync(done)).await
}

/// Reads a ring by position, ahead of what is looked at.
#[derive(Debug)]
pub(crate) struct Reader {
    home: Arc<dyn Device>,
    /// Devices of epochs that have one of their own; the others are at `home`.
    of_epochs: BTreeMap<LogEpoch, Arc<dyn Device>>,
    /// The one that is read now.
    device: Arc<dyn Device>,
    ring: Ring,
    /// Read or being read, back to back, ending at `next`.
    pieces: VecDeque<Piece>,
    next: u64,
    /// Where reading ahead ends.
    until: u64,
    /// The frame whose header was read last: where it begins and how long it is. The next ones are guessed to be as long.
    frame: (u64, u64),
}

/// A contiguous piece of the ring.
#[derive(Debug)]
struct Piece {
    at: u64,
    len: u64,
    bytes: Bytes,
    /// While it is being read.
    coming: Option<oneshot::Receiver<io::Result<Bytes>>>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at + self.len
    }

    /// Waits until it was read.
    async fn arrive(&mut self) -> io::Result<()> {
        if let Some(coming) = &mut self.coming {
            let bytes = coming.await.unwrap_or_else(|_| Err(gone()))?;
            whole(&bytes, self.len, self.at)?;
            self.bytes = bytes;
            self.coming = None;
        }
        Ok(())
    }

    /// What it holds of `range`.
    fn part(&self, range: Range<u64>) -> Bytes {
        let cut = |position: u64| {
            let at = position.clamp(self.at, self.end()) - self.at;
            usize::try_from(at)
                .unwrap_or(usize::MAX)
                .min(self.bytes.len())
        };
        self.bytes.slice(cut(range.start)..cut(range.end))
    }
}

impl Reader {
    pub(crate) fn new(device: Arc<dyn Device>, ring: Ring) -> Self {
        Self {
            home: Arc::clone(&device),
            of_epochs: BTreeMap::new(),
            device,
            ring,
            pieces: VecDeque::new(),
            next: 0,
            until: 0,
            frame: (0, PIECE),
        }
    }

    /// The same, where these epochs have devices of their own, all with the same ring.
    pub(crate) fn with_epochs(self, of_epochs: BTreeMap<LogEpoch, Arc<dyn Device>>) -> Self {
        Self { of_epochs, ..self }
    }

    /// Reads what `epoch` wrote from here on.
    pub(crate) fn enter(&mut self, epoch: LogEpoch) {
        let device = self.of_epochs.get(&epoch).unwrap_or(&self.home);
        if !Arc::ptr_eq(device, &self.device) {
            self.device = Arc::clone(device);
            self.pieces.clear();
        }
    }

    /// Reads ahead from here on, as far as `until`.
    pub(crate) fn ahead(&mut self, until: u64) {
        self.until = until;
    }

    /// The `len` bytes from `position`, both multiples of [`BLOCK`], `len` at most the ring's.
    async fn bytes(&mut self, position: u64, len: u64) -> Result<Bytes, Error> {
        let end = position + len;
        while self.pieces.front().is_some_and(|p| p.end() <= position) {
            self.pieces.pop_front();
        }
        if self.pieces.front().is_none_or(|p| p.at > position) {
            self.pieces.clear();
            self.next = position;
        }
        // A lap further is the same bytes again.
        let until = self
            .until
            .min(position.saturating_add(self.ring.capacity()));
        while self.next < end || (self.next < until && self.pieces.len() < AHEAD) {
            self.begin(end.max(until));
        }
        let mut parts = Vec::new();
        for piece in self.pieces.iter_mut().take_while(|p| p.at < end) {
            if let Err(e) = piece.arrive().await {
                self.pieces.clear();
                return Err(Error::of_device("read", self.device.name(), e));
            }
            parts.push(piece.part(position..end));
        }
        if parts.len() == 1 {
            return Ok(parts.swap_remove(0));
        }
        let mut joined = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
        parts.iter().for_each(|part| joined.extend_from_slice(part));
        Ok(joined.freeze())
    }

    /// Begins to read the next piece, up to `end` at most. It does not hold the device: a read that is given up is nobody's any more.
    fn begin(&mut self, end: u64) {
        let len = self.cut().min(end - self.next).min(self.ring.capacity());
        let (extent, _) = self.ring.extents(self.next, len);
        let (tell, coming) = oneshot::channel();
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
        let done = Box::new(move |result| drop(tell.send(result)));
        self.device.read(extent.at, len, done);
        self.pieces.push_back(Piece {
            at: self.next,
            len: extent.len,
            bytes: Bytes::new(),
            coming: Some(coming),
        });
        self.next += extent.len;
    }

    /// How long the next piece should be: as many whole frames as fit, so that few lie across two pieces and must be copied together.
    fn cut(&self) -> u64 {
        let (position, len) = self.frame;
        let frames = (self.next + PIECE).saturating_sub(position) / len.max(BLOCK);
        match (position + frames * len).checked_sub(self.next) {
            Some(cut) if cut > 0 => cut.min(PIECE),
            _ => PIECE,
        }
    }

    /// Waits for what was begun and gives it up.
    pub(crate) async fn rest(&mut self) {
        self.until = 0;
        for mut piece in self.pieces.drain(..) {
            // Whoever needs it reads it again.
            let _ = piece.arrive().await;
        }
    }

    /// Makes what is held end with the block at `position`, as far down as `lowest`: for a search downwards.
    pub(crate) async fn look_back(&mut self, position: u64, lowest: u64) -> Result<(), Error> {
        let first = self.pieces.front().map_or(u64::MAX, |p| p.at);
        if first <= position && position + BLOCK <= self.next {
            return Ok(());
        }
        let reach = PIECE.min(self.ring.capacity());
        let from = (position + BLOCK)
            .saturating_sub(reach)
            .max(lowest)
            .min(position);
        self.bytes(from, position + BLOCK - from).await.map(drop)
    }

    /// The header at `position`, if a sound one of this log stands there, of a frame that is no longer than `len_max`.
    pub(crate) async fn header(
        &mut self,
        position: u64,
        salt: u64,
        len_max: u64,
    ) -> Result<Result<(Header, u32), Flaw>, Error> {
        let bytes = self.bytes(position, BLOCK).await?;
        let found = Header::decode(bytes.get(..HEADER_LEN).unwrap_or_default());
        let found = found.and_then(|found| self.belongs(found, (position, salt), len_max));
        if let Ok((header, _)) = found {
            self.frame = (position, header.len());
        }
        Ok(found)
    }

    fn belongs(
        &self,
        (header, crc): (Header, u32),
        (position, salt): (u64, u64),
        len_max: u64,
    ) -> Result<(Header, u32), Flaw> {
        let (found, max) = (header.salt, len_max.min(self.ring.capacity()));
        if found != salt {
            return Err(Flaw::Salt {
                found,
                expected: salt,
            });
        }
        if header.position != position {
            return Err(Flaw::Position {
                found: header.position,
            });
        }
        if header.len() > max {
            return Err(Flaw::Length {
                len: header.len(),
                max,
            });
        }
        Ok((header, crc))
    }

    /// The whole frame that `header` is of.
    pub(crate) async fn frame(&mut self, header: &Header) -> Result<Bytes, Error> {
        self.bytes(header.position, block_ceil(header.used())).await
    }
}
