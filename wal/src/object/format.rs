//! The object: one group commit, or a fence. `docs/format.md`, "Object log".
//!
//! - `object = header | records`; a fence is a header alone, so its length tells it from a commit.
//! - `position = number · 2²⁶ + byte within the object`; an object is shorter than 2²⁶ bytes.
//! - The header's checksum covers the body's, so it stands for the whole object in its successor's `predecessor`.
//!
//! Decoding takes untrusted bytes: it never panics and allocates no more than the records it found. What follows from a flaw is not decided here.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use crate::{Identity, LogEpoch, LogUuid, sealed};

/// Bytes of a header, and of a fence.
pub(crate) const HEADER_LEN: usize = 128;
/// Bytes before each record of a body: its length.
pub(crate) const PREFIX_LEN: usize = 4;
/// Bits of a position that say the byte within an object.
pub(crate) const BYTE_BITS: u32 = 26;
/// An object is shorter than this.
pub(crate) const OBJECT_LEN_MAX: usize = 1 << BYTE_BITS;
/// No number is above this, so that positions stay below 2^62.
pub(crate) const NUMBER_MAX: u64 = (1 << 36) - 1;

pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"S3WALOB\n";

const _: () = assert!(8 + 4 + 1 + 3 + 16 + 16 + 3 * 8 + 16 + 2 * 8 + 5 * 4 + 4 == HEADER_LEN);

/// The number of the object that a position lies in.
pub(crate) fn number_of(position: u64) -> u64 {
    position >> BYTE_BITS
}

/// The byte within its object that a position says.
pub(crate) fn byte_of(position: u64) -> u64 {
    position & ((1 << BYTE_BITS) - 1)
}

/// Where an object begins.
pub(crate) fn position_of(number: u64) -> u64 {
    number << BYTE_BITS
}

/// The first number that nothing below `end` lies in: where an epoch that ends there has its fence.
pub(crate) fn number_after(end: u64) -> u64 {
    number_of(end) + u64::from(byte_of(end) > 0)
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Commit,
    Fence,
}

/// What an object says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    /// The epoch whose number this is.
    pub(crate) epoch: LogEpoch,
    pub(crate) number: u64,
    /// Of the process that put it.
    pub(crate) incarnation: u128,
    /// The epoch that put it: the same for a commit, a higher one for a fence.
    pub(crate) writer: LogEpoch,
    /// Where the last record ends that was acknowledged when this was sealed: nothing below may be missing any more.
    pub(crate) durable_through: u64,
    pub(crate) body_len: u32,
    pub(crate) records: u32,
    /// Checksum of the object before it in its epoch, or [`origin`].
    pub(crate) predecessor: u32,
    pub(crate) body_crc: u32,
}

/// The predecessor of an epoch's first object.
pub(crate) fn origin(log: LogUuid) -> u32 {
    crc32c::crc32c(&log.get().to_be_bytes())
}

impl Header {
    /// A fence.
    pub(crate) fn fence(
        identity: &Identity,
        (epoch, number): (LogEpoch, u64),
        writer: LogEpoch,
        incarnation: u128,
    ) -> Self {
        Self {
            kind: Kind::Fence,
            identity: identity.clone(),
            epoch,
            number,
            incarnation,
            writer,
            durable_through: 0,
            body_len: 0,
            records: 0,
            predecessor: 0,
            body_crc: 0,
        }
    }

    /// The header's bytes, and the checksum that stands for the object.
    pub(crate) fn encode(&self) -> ([u8; HEADER_LEN], u32) {
        let mut bytes = [0; HEADER_LEN];
        let mut to = &mut bytes[..];
        to.put_slice(&MAGIC);
        to.put_u32(VERSION);
        to.put_u8(match self.kind {
            Kind::Commit => 1,
            Kind::Fence => 2,
        });
        to.put_bytes(0, 3);
        to.put_u128(self.identity.cluster);
        to.put_u128(self.identity.log.get());
        to.put_u64(self.identity.node);
        to.put_u64(self.epoch.get());
        to.put_u64(self.number);
        to.put_u128(self.incarnation);
        to.put_u64(self.writer.get());
        to.put_u64(self.durable_through);
        to.put_u32(self.body_len);
        to.put_u32(self.records);
        to.put_u32(self.predecessor);
        to.put_u32(self.body_crc);
        to.put_u32(0);
        let crc = sealed::seal(&mut bytes);
        (bytes, crc)
    }

    /// Reads a whole object: its header and the header's checksum. The body is what the header says.
    pub(crate) fn decode(object: &[u8]) -> Result<(Self, u32), Flaw> {
        let Some((bytes, body)) = object.split_first_chunk::<HEADER_LEN>() else {
            return Err(Flaw::Short(object.len()));
        };
        let mut from = &bytes[..];
        let mut magic = [0; 8];
        from.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(Flaw::Magic);
        }
        let crc = sealed::check(bytes)
            .map_err(|(found, expected)| Flaw::HeaderCrc { found, expected })?;
        let version = from.get_u32();
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        let kind = match from.get_u32() {
            0x0100_0000 => Kind::Commit,
            0x0200_0000 => Kind::Fence,
            _ => return Err(Flaw::Contradiction),
        };
        let header = Self {
            kind,
            identity: Identity {
                cluster: from.get_u128(),
                log: LogUuid::new(from.get_u128()),
                node: from.get_u64(),
            },
            epoch: LogEpoch::new(from.get_u64()),
            number: from.get_u64(),
            incarnation: from.get_u128(),
            writer: LogEpoch::new(from.get_u64()),
            durable_through: from.get_u64(),
            body_len: from.get_u32(),
            records: from.get_u32(),
            predecessor: from.get_u32(),
            body_crc: from.get_u32(),
        };
        if from.get_u32() != 0 || !header.is_sound() {
            return Err(Flaw::Contradiction);
        }
        if body.len() != header.body_len as usize {
            return Err(Flaw::Length {
                found: body.len(),
                expected: header.body_len,
            });
        }
        let found = crc32c::crc32c(body);
        if found != header.body_crc {
            let expected = header.body_crc;
            return Err(Flaw::BodyCrc { found, expected });
        }
        Ok((header, crc))
    }

    fn is_sound(&self) -> bool {
        self.number <= NUMBER_MAX
            && match self.kind {
                Kind::Commit => {
                    self.writer == self.epoch
                        && self.records > 0
                        && self.durable_through <= position_of(self.number)
                        && HEADER_LEN + (self.body_len as usize) < OBJECT_LEN_MAX
                }
                Kind::Fence => {
                    let blank = Self::fence(
                        &self.identity,
                        (self.epoch, self.number),
                        self.writer,
                        self.incarnation,
                    );
                    self.writer > self.epoch && *self == blank
                }
            }
    }

    /// Whether this is the object of `log` with that number in that epoch.
    pub(crate) fn is_at(
        &self,
        identity: &Identity,
        (epoch, number): (LogEpoch, u64),
    ) -> Result<(), Flaw> {
        if self.identity == *identity && self.epoch == epoch && self.number == number {
            return Ok(());
        }
        Err(Flaw::Elsewhere {
            found: format!(
                "number {} of epoch {} of {}",
                self.number, self.epoch, self.identity
            ),
        })
    }

    /// Where its last record ends.
    pub(crate) fn end(&self) -> u64 {
        position_of(self.number) + HEADER_LEN as u64 + u64::from(self.body_len)
    }

    /// The records of a commit, each with its position. `object` is what the header was decoded from.
    pub(crate) fn records(&self, object: &Bytes) -> Result<Vec<(u64, Bytes)>, Flaw> {
        let mut records = Vec::new();
        let mut rest = object.slice(HEADER_LEN.min(object.len())..);
        let mut position = position_of(self.number) + HEADER_LEN as u64;
        while !rest.is_empty() {
            let len = rest.try_get_u32().map_err(|_| Flaw::Contradiction)? as usize;
            if len == 0 || len > rest.len() {
                return Err(Flaw::Contradiction);
            }
            records.push((position, rest.split_to(len)));
            position += (PREFIX_LEN + len) as u64;
        }
        if records.len() == self.records as usize {
            Ok(records)
        } else {
            Err(Flaw::Contradiction)
        }
    }
}

/// Why bytes are not the object that was looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    Short(usize),
    Magic,
    HeaderCrc { found: u32, expected: u32 },
    Version(u32),
    Contradiction,
    Length { found: usize, expected: u32 },
    BodyCrc { found: u32, expected: u32 },
    Elsewhere { found: String },
    Predecessor { found: u32, expected: u32 },
    End { found: u64, expected: u64 },
    Kind,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(len) => write!(f, "cut short at {len} bytes"),
            Self::Magic => write!(f, "not an object of a log"),
            Self::HeaderCrc { found, expected } => {
                write!(f, "header crc {found:#010x}, expected {expected:#010x}")
            }
            Self::Version(found) => write!(f, "version {found}, known is {VERSION}"),
            Self::Contradiction => write!(f, "contradicts itself"),
            Self::Length { found, expected } => {
                write!(f, "body of {found} bytes, expected {expected}")
            }
            Self::BodyCrc { found, expected } => {
                write!(f, "body crc {found:#010x}, expected {expected:#010x}")
            }
            Self::Elsewhere { found } => write!(f, "is {found}"),
            Self::Predecessor { found, expected } => {
                write!(f, "follows {found:#010x}, expected {expected:#010x}")
            }
            Self::End { found, expected } => write!(f, "ends at {found}, expected {expected}"),
            Self::Kind => write!(f, "a fence in the place of a commit, or the reverse"),
        }
    }
}

#[cfg(test)]
mod tests;
