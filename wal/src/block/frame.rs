//! The frame: one group commit as bytes. `docs/format.md`, "Block log", "Frame".
//!
//! - A frame begins on a block, at its own position, and is padded with zeros to a block.
//! - `predecessor end ≤ position`, `durable through ≤ position`.
//! - The header's checksum covers the body's, so it stands for the whole frame in its successor's `predecessor`.
//!
//! Decoding takes untrusted bytes: it never panics and allocates nothing. What follows from a flaw (the log's end, or corruption) is not decided
//! here.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use super::ring::{BLOCK, POSITION_MAX, block_ceil};
use crate::{LogEpoch, LogUuid, sealed};

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 80;
/// Bytes before each record of a body: its length.
pub(crate) const PREFIX_LEN: usize = 4;
/// The longest body: what its 32-bit length can say, header and padding included.
pub(crate) const BODY_LEN_MAX: u64 = u32::MAX as u64 - 2 * BLOCK;

const MAGIC: [u8; 4] = *b"S3WF";
const VERSION: u16 = 1;

const _: () = assert!(4 + 2 + 2 + 6 * 8 + 5 * 4 + 4 == HEADER_LEN);

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Of the log: see [`salt`].
    pub(crate) salt: u64,
    pub(crate) epoch: LogEpoch,
    /// Frames of this epoch before it.
    pub(crate) sequence: u64,
    pub(crate) position: u64,
    /// Where the last record before this frame ends.
    pub(crate) predecessor_end: u64,
    /// Where the last record ends that was acknowledged when this frame was sealed: nothing below may be missing any more (F2).
    pub(crate) durable_through: u64,
    pub(crate) body_len: u32,
    pub(crate) records: u32,
    /// Checksum of the frame before, over all epochs, or [`origin`].
    pub(crate) predecessor: u32,
    pub(crate) body_crc: u32,
}

/// What every frame of a log carries, so that another log's bytes are no frames of it.
pub(crate) fn salt(log: LogUuid) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = log.get().to_be_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_be_bytes([i, j, k, l, m, n, o, p])
}

/// The predecessor of a frame that has none that is known.
pub(crate) fn origin(log: LogUuid) -> u32 {
    crc32c::crc32c(&log.get().to_be_bytes())
}

impl Header {
    /// The header's bytes, and the checksum that stands for the frame.
    pub(crate) fn encode(&self) -> ([u8; HEADER_LEN], u32) {
        let mut bytes = [0; HEADER_LEN];
        let mut to = &mut bytes[..];
        to.put_slice(&MAGIC);
        to.put_u16(VERSION);
        to.put_u16(HEADER_LEN as u16);
        to.put_u64(self.salt);
        to.put_u64(self.epoch.get());
        to.put_u64(self.sequence);
        to.put_u64(self.position);
        to.put_u64(self.predecessor_end);
        to.put_u64(self.durable_through);
        to.put_u32(self.body_len);
        to.put_u32(self.records);
        to.put_u32(self.predecessor);
        to.put_u32(self.body_crc);
        to.put_u32(0);
        let crc = sealed::seal(&mut bytes);
        (bytes, crc)
    }

    /// Reads a header that stands at the start of `bytes`, and its checksum.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u32), Flaw> {
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Flaw::Short { len: bytes.len() });
        };
        let mut from = &bytes[..];
        let mut magic = [0; 4];
        from.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(Flaw::NoFrame);
        }
        let crc = sealed::check(bytes)
            .map_err(|(found, expected)| Flaw::HeaderCrc { found, expected })?;
        let (version, header_len) = (from.get_u16(), from.get_u16());
        if version != VERSION || usize::from(header_len) != HEADER_LEN {
            return Err(Flaw::Version {
                version,
                header_len,
            });
        }
        let header = Self {
            salt: from.get_u64(),
            epoch: LogEpoch::new(from.get_u64()),
            sequence: from.get_u64(),
            position: from.get_u64(),
            predecessor_end: from.get_u64(),
            durable_through: from.get_u64(),
            body_len: from.get_u32(),
            records: from.get_u32(),
            predecessor: from.get_u32(),
            body_crc: from.get_u32(),
        };
        let sound = header.position.is_multiple_of(BLOCK)
            && header.position <= POSITION_MAX
            && header.sequence <= POSITION_MAX
            && header.predecessor_end <= header.position
            && header.durable_through <= header.position
            && header.records > 0;
        if sound {
            Ok((header, crc))
        } else {
            Err(Flaw::Contradiction)
        }
    }

    /// Bytes from the header to the end of the last record.
    pub(crate) fn used(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.body_len)
    }

    /// Bytes with padding.
    pub(crate) fn len(&self) -> u64 {
        block_ceil(self.used())
    }

    /// Where its last record ends.
    pub(crate) fn records_end(&self) -> u64 {
        self.position + self.used()
    }

    /// Where the next frame begins.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.len()
    }

    /// The frame's records, each with its position, if the body is what the header says. `frame` begins with the header.
    pub(crate) fn records(&self, frame: &Bytes) -> Result<Vec<(u64, Bytes)>, Flaw> {
        let used = usize::try_from(self.used()).unwrap_or(usize::MAX);
        if frame.len() < used {
            return Err(Flaw::Short { len: frame.len() });
        }
        let body = frame.slice(HEADER_LEN..used);
        let found = crc32c::crc32c(&body);
        if found != self.body_crc {
            return Err(Flaw::BodyCrc {
                found,
                expected: self.body_crc,
            });
        }
        let mut records = Vec::new();
        let mut rest = body;
        let mut position = self.position + HEADER_LEN as u64;
        while !rest.is_empty() {
            let len = rest.try_get_u32().map_err(|_| Flaw::Contradiction)? as usize;
            if len == 0 || len > rest.len() {
                return Err(Flaw::Contradiction);
            }
            let next = position + (PREFIX_LEN + len) as u64;
            records.push((position, rest.split_to(len)));
            position = next;
        }
        if records.len() == self.records as usize {
            Ok(records)
        } else {
            Err(Flaw::Contradiction)
        }
    }
}

/// Why bytes are not the frame that was looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    Short { len: usize },
    NoFrame,
    HeaderCrc { found: u32, expected: u32 },
    Version { version: u16, header_len: u16 },
    Contradiction,
    BodyCrc { found: u32, expected: u32 },
    Salt { found: u64, expected: u64 },
    Position { found: u64 },
    Epoch { found: LogEpoch, expected: LogEpoch },
    Sequence { found: u64, expected: u64 },
    Predecessor { found: u32, expected: u32 },
    PredecessorEnd { found: u64, expected: u64 },
    Length { len: u64, max: u64 },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { len } => write!(f, "frame cut short at {len} bytes"),
            Self::NoFrame => write!(f, "no frame"),
            Self::HeaderCrc { found, expected } => {
                write!(
                    f,
                    "frame header crc {found:#010x}, expected {expected:#010x}"
                )
            }
            Self::Version {
                version,
                header_len,
            } => {
                write!(
                    f,
                    "frame version {version} with a header of {header_len} bytes, known is {VERSION}"
                )
            }
            Self::Contradiction => write!(f, "frame contradicts itself"),
            Self::BodyCrc { found, expected } => {
                write!(f, "frame body crc {found:#010x}, expected {expected:#010x}")
            }
            Self::Salt { found, expected } => {
                write!(
                    f,
                    "frame of another log, salt {found:#018x}, expected {expected:#018x}"
                )
            }
            Self::Position { found } => write!(f, "frame of position {found}"),
            Self::Epoch { found, expected } => {
                write!(f, "frame of epoch {found}, expected epoch {expected}")
            }
            Self::Sequence { found, expected } => {
                write!(f, "frame sequence {found}, expected {expected}")
            }
            Self::Predecessor { found, expected } => {
                write!(f, "frame follows {found:#010x}, expected {expected:#010x}")
            }
            Self::PredecessorEnd { found, expected } => {
                write!(
                    f,
                    "frame follows records up to {found}, expected {expected}"
                )
            }
            Self::Length { len, max } => write!(f, "frame of {len} bytes, at most {max} fit"),
        }
    }
}

#[cfg(test)]
mod tests;
