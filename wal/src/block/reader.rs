//! Reads a device and a ring as a caller of a replay would like to: awaited, by position, ahead.
//!
//! - Memory is bounded: one window of [`AHEAD`] bytes, or one frame if that is larger.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{
    device::Device,
    frame::{Flaw, HEADER_LEN, Header},
    ring::{BLOCK, RING_START, Ring, block_ceil},
};
use crate::{Error, LogEpoch};

/// Bytes read at once.
const AHEAD: u64 = 1 << 20;

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
    let gone = || {
        io::Error::new(
            io::ErrorKind::BrokenPipe,
            "the device dropped the operation",
        )
    };
    told.await
        .unwrap_or_else(|_| Err(gone()))
        .map_err(|source| Error::of_device(op, device.name(), source))
}

/// Reads from the device.
pub(crate) async fn read(device: &Arc<dyn Device>, at: u64, len: usize) -> Result<Bytes, Error> {
    let bytes = outcome(device, "read", |done| device.read(at, len, done)).await?;
    if bytes.len() == len {
        return Ok(bytes);
    }
    let short = format!("{} bytes of {len} at {at}", bytes.len());
    let source = Arc::new(io::Error::new(io::ErrorKind::UnexpectedEof, short));
    Err(Error::Io {
        op: "read",
        place: device.name(),
        source,
    })
}

/// Writes to the device, durably.
pub(crate) async fn write(device: &Arc<dyn Device>, at: u64, data: Bytes) -> Result<(), Error> {
    outcome(device, "write", |done| device.write(at, data, done)).await
}

/// Makes what is on the device the device's own.
pub(crate) async fn sync(device: &Arc<dyn Device>) -> Result<(), Error> {
    outcome(device, "sync", |done| device.sync(done)).await
}

/// Reads a ring by position, with a window ahead.
#[derive(Debug)]
pub(crate) struct Reader {
    home: Arc<dyn Device>,
    /// Devices of epochs that have one of their own; the others are at `home`.
    of_epochs: BTreeMap<LogEpoch, Arc<dyn Device>>,
    /// The one that is read now.
    device: Arc<dyn Device>,
    ring: Ring,
    window: Bytes,
    window_at: u64,
}

impl Reader {
    pub(crate) fn new(device: Arc<dyn Device>, ring: Ring) -> Self {
        Self {
            home: Arc::clone(&device),
            of_epochs: BTreeMap::new(),
            device,
            ring,
            window: Bytes::new(),
            window_at: 0,
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
            self.window = Bytes::new();
        }
    }

    /// At least `len` bytes from `position`, both multiples of [`BLOCK`], `len` at most the ring's.
    async fn bytes(&mut self, position: u64, len: u64) -> Result<Bytes, Error> {
        let held = position.checked_sub(self.window_at).filter(|skip| {
            skip.checked_add(len)
                .is_some_and(|end| end <= self.window.len() as u64)
        });
        if let Some(skip) = held {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            return Ok(self.window.slice(skip..));
        }
        let (first, rest) = self
            .ring
            .extents(position, len.max(AHEAD.min(self.ring.capacity())));
        let wraps = first.len < len;
        let mut window = self.read(first.at, first.len).await?;
        if let Some(rest) = rest.filter(|_| wraps) {
            debug_assert_eq!(rest.at, RING_START);
            let rest = self.read(rest.at, len - first.len).await?;
            let mut both = BytesMut::with_capacity(window.len() + rest.len());
            both.extend_from_slice(&window);
            both.extend_from_slice(&rest);
            window = both.freeze();
        }
        self.window = window.clone();
        self.window_at = position;
        Ok(window)
    }

    /// Makes the window end with the block at `position`, as far down as `lowest`: for a search downwards.
    pub(crate) async fn look_back(&mut self, position: u64, lowest: u64) -> Result<(), Error> {
        let holds = position >= self.window_at
            && position + BLOCK <= self.window_at + self.window.len() as u64;
        if holds {
            return Ok(());
        }
        let reach = AHEAD.min(self.ring.capacity());
        let from = (position + BLOCK)
            .saturating_sub(reach)
            .max(lowest)
            .min(position);
        self.bytes(from, position + BLOCK - from).await.map(drop)
    }

    async fn read(&self, at: u64, len: u64) -> Result<Bytes, Error> {
        read(&self.device, at, usize::try_from(len).unwrap_or(usize::MAX)).await
    }

    /// The header at `position`, if a sound one of this log stands there.
    pub(crate) async fn header(
        &mut self,
        position: u64,
        salt: u64,
    ) -> Result<Result<(Header, u32), Flaw>, Error> {
        let bytes = self.bytes(position, BLOCK).await?;
        Ok(
            Header::decode(bytes.get(..HEADER_LEN).unwrap_or_default()).and_then(
                |(header, crc)| {
                    if header.salt != salt {
                        return Err(Flaw::Salt {
                            found: header.salt,
                            expected: salt,
                        });
                    }
                    if header.position != position {
                        return Err(Flaw::Position {
                            found: header.position,
                        });
                    }
                    if header.len() > self.ring.capacity() {
                        return Err(Flaw::Length {
                            len: header.len(),
                            max: self.ring.capacity(),
                        });
                    }
                    Ok((header, crc))
                },
            ),
        )
    }

    /// The whole frame that `header` is of.
    pub(crate) async fn frame(&mut self, header: &Header) -> Result<Bytes, Error> {
        self.bytes(header.position, block_ceil(header.used())).await
    }
}
