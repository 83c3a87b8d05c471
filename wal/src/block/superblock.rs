//! The superblock: what a device says of the log on it. `docs/format.md`, "Block log", "Superblock".
//!
//! - Two copies; the valid one with the higher sequence counts. The sequence grows with every write, and no clock is in it (lesson 10).
//! - `tail ≤ durable end`, rounded up to a block; both are monotone. Ring space below a `tail` is reused only when both copies hold it (F2).
//! - All of it, checksum included, fits in one 512-byte sector: a power cut leaves a copy old or new.

use bytes::{Buf, BufMut, Bytes};

use super::ring::{BLOCK, COPIES, POSITION_MAX, RING_START, Ring, block_ceil};
use crate::{Error, Identity, LogEpoch, LogUuid, Position, admission::Claim, sealed};

/// The format this version writes.
pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"S3WALSB\n";
const SECTOR: usize = 512;
const STARTED: u32 = 1;
const CLOSED: u32 = 2;

/// One copy's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    /// Of this write.
    pub(crate) sequence: u64,
    pub(crate) identity: Identity,
    /// The newest epoch that was started, and where it began; `None` if none was.
    pub(crate) started: Option<(LogEpoch, u64)>,
    /// The log owes nothing: closed when all was trimmed, or never started.
    pub(crate) closed: bool,
    /// Bytes below may be reused once both copies say so: the start of a frame, or of the epoch.
    pub(crate) tail: u64,
    /// The end of the last record that was acknowledged when this was written: a lower bound, exact after a close.
    pub(crate) durable_end: u64,
    pub(crate) ring: Ring,
    /// A frame is not written before all frames that end more than this many bytes below its own end are acknowledged.
    pub(crate) window: u64,
}

/// What one copy's area holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Copy {
    Valid(Superblock),
    /// A superblock, but of a version that is not known here.
    Unknown(u32),
    /// All zero.
    Blank,
    Bad(String),
}

impl Superblock {
    /// What a place with this superblock says of itself.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            identity: self.identity.clone(),
            epoch: self.started.map(|(epoch, _)| epoch),
            closed: self.closed,
        }
    }

    /// A whole block for the device.
    pub(crate) fn encode(&self) -> Bytes {
        let mut block = super::aligned::zeroed(BLOCK as usize);
        if let Some(sector) = block.first_chunk_mut::<SECTOR>() {
            self.put(sector);
            sealed::seal(sector);
        }
        block.freeze()
    }

    fn put(&self, mut sector: &mut [u8]) {
        sector.put_slice(&MAGIC);
        sector.put_u32(VERSION);
        let mut flags = 0;
        flags |= if self.started.is_some() { STARTED } else { 0 };
        flags |= if self.closed { CLOSED } else { 0 };
        sector.put_u32(flags);
        sector.put_u64(self.sequence);
        sector.put_u128(self.identity.cluster);
        sector.put_u128(self.identity.log.get());
        sector.put_u64(self.identity.node);
        let (epoch, epoch_start) = self.started.unwrap_or_default();
        sector.put_u64(epoch.get());
        sector.put_u64(epoch_start);
        sector.put_u64(self.tail);
        sector.put_u64(self.durable_end);
        sector.put_u64(self.ring.capacity());
        sector.put_u64(self.window);
        sector.put_u64(RING_START);
        sector.put_u32(BLOCK as u32);
    }

    /// Reads one copy.
    pub(crate) fn decode(block: &[u8]) -> Copy {
        let Some(sector) = block.first_chunk::<SECTOR>() else {
            return Copy::Bad(format!("{} bytes", block.len()));
        };
        if block.iter().all(|b| *b == 0) {
            return Copy::Blank;
        }
        let mut from = &sector[..];
        let mut magic = [0; 8];
        from.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Copy::Bad("no superblock".to_owned());
        }
        if let Err((found, expected)) = sealed::check(sector) {
            return Copy::Bad(format!(
                "superblock crc {found:#010x}, expected {expected:#010x}"
            ));
        }
        let version = from.get_u32();
        if version != VERSION {
            return Copy::Unknown(version);
        }
        Self::fields(from).map_or_else(
            || Copy::Bad("superblock contradicts itself".to_owned()),
            Copy::Valid,
        )
    }

    fn fields(mut from: &[u8]) -> Option<Self> {
        let flags = from.get_u32();
        let sequence = from.get_u64();
        let identity = Identity {
            cluster: from.get_u128(),
            log: LogUuid::new(from.get_u128()),
            node: from.get_u64(),
        };
        let started = (LogEpoch::new(from.get_u64()), from.get_u64());
        let (tail, durable_end) = (from.get_u64(), from.get_u64());
        let ring = Ring::new(from.get_u64())?;
        let window = from.get_u64();
        let sound = from.get_u64() == RING_START
            && u64::from(from.get_u32()) == BLOCK
            && flags & !(STARTED | CLOSED) == 0
            && sequence <= POSITION_MAX
            && tail <= POSITION_MAX
            && durable_end <= POSITION_MAX
            && started.1 <= POSITION_MAX
            && tail.is_multiple_of(BLOCK)
            && tail <= block_ceil(durable_end)
            && started.1.is_multiple_of(BLOCK)
            && window <= ring.capacity();
        sound.then_some(Self {
            sequence,
            identity,
            started: (flags & STARTED != 0).then_some(started),
            closed: flags & CLOSED != 0,
            tail,
            durable_end,
            ring,
            window,
        })
    }
}

/// What both copies say together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Copies {
    /// The newest valid one.
    pub(crate) newest: Superblock,
    /// Which of the two to write first: the one that is not the newest, so that one valid copy stays whatever happens to the write.
    pub(crate) first: usize,
}

impl Copies {
    /// Judges the two areas of `place`; `None` if both are blank.
    ///
    /// # Errors
    /// `UnknownFormat` if either copy is newer than this version, `Corrupt` if neither is valid and not both are blank.
    pub(crate) fn judge(place: &str, copies: [Copy; 2]) -> Result<Option<Self>, Error> {
        for copy in &copies {
            if let Copy::Unknown(found) = copy {
                return Err(Error::UnknownFormat {
                    place: place.to_owned(),
                    found: *found,
                    known: VERSION,
                });
            }
        }
        let (newest, first) = match copies {
            [Copy::Valid(a), Copy::Valid(b)] => {
                if a.sequence > b.sequence {
                    (a, 1)
                } else {
                    (b, 0)
                }
            }
            [Copy::Valid(a), _] => (a, 1),
            [_, Copy::Valid(b)] => (b, 0),
            [Copy::Blank, Copy::Blank] => return Ok(None),
            [a, b] => {
                let what = format!(
                    "{place}: no valid superblock: {} at byte {}, {} at byte {}; nothing was overwritten",
                    a.flaw(),
                    COPIES[0],
                    b.flaw(),
                    COPIES[1]
                );
                return Err(Error::Corrupt {
                    position: Position::default(),
                    what,
                });
            }
        };
        Ok(Some(Self { newest, first }))
    }
}

impl Copy {
    fn flaw(&self) -> &str {
        match self {
            Self::Valid(_) => "valid",
            Self::Unknown(_) => "unknown version",
            Self::Blank => "blank",
            Self::Bad(what) => what,
        }
    }
}

#[cfg(test)]
mod tests;
