//! The footer: the last bytes of an object, from which everything else is found.
//!
//! `trailer <= footer <= FOOTER_LEN_MAX`; the trailer (length, version, magic, checksum) is the same in every version,
//! so that a reader tells damage from a newer format.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::{BufMut, Bytes, BytesMut};

use super::{CRC_LEN, FooterInfo, ObjectKind};
use crate::{ClusterId, Error, NodeEpoch, ObjectId, Result};

/// The version of the object format that this crate writes, and the highest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Length of a footer of version 1.
pub(super) const FOOTER_LEN: usize = 88;
/// No version has a longer one.
const FOOTER_LEN_MAX: usize = 4096;
const TRAILER_LEN: usize = 16;
const MAGIC: u32 = u32::from_be_bytes(*b"S3SO");
const _: () = assert!(FOOTER_LEN == 16 + 6 * 8 + 4 + 1 + 1 + 2 + TRAILER_LEN);
const _: () = assert!(TRAILER_LEN == 4 + 4 + 4 + CRC_LEN);

/// What a footer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub(super) info: FooterInfo,
    pub(super) object_len: u64,
    /// Where the data blocks end and the index begins.
    pub(super) index_position: u64,
    pub(super) runs: u64,
    pub(super) blocks: u64,
    pub(super) index_crc: u32,
}

/// How far the end of an object could be read.
pub(super) enum FooterStep {
    /// The bytes from this position on are needed.
    NeedMore { from: u64 },
    /// The footer, and its length.
    Footer(Footer, usize),
}

impl Footer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FOOTER_LEN);
        out.put_u128(self.info.cluster.get());
        out.put_u64(self.info.object.get());
        out.put_u64(self.info.node_epoch.get());
        out.put_u64(self.object_len);
        out.put_u64(self.index_position);
        out.put_u64(self.runs);
        out.put_u64(self.blocks);
        out.put_u32(self.index_crc);
        out.put_u8(kind_code(self.info.kind));
        out.put_u8(0);
        out.put_u16(0);
        out.put_u32(FOOTER_LEN as u32);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(MAGIC);
        out.put_u32(crc32c::crc32c(&out));
        debug_assert_eq!(out.len(), FOOTER_LEN);
        out.freeze()
    }

    /// Reads the footer at the end of `tail`, which are the last bytes of an object of `object_len` bytes.
    pub(super) fn decode(tail: &[u8], object_len: u64) -> Result<FooterStep> {
        let wants = |len: usize| -> Result<FooterStep> {
            match object_len.checked_sub(len as u64) {
                Some(from) => Ok(FooterStep::NeedMore { from }),
                None => Err(Error::corrupt("object shorter than its footer")
                    .with("len", object_len)
                    .with("footer", len)),
            }
        };
        let Some(trailer) = tail.last_chunk::<TRAILER_LEN>() else {
            return wants(FOOTER_LEN);
        };
        let mut fields = Fields(trailer);
        let (len, version, magic) = (fields.u32()? as usize, fields.u32()?, fields.u32()?);
        if magic != MAGIC {
            return Err(Error::corrupt("object without the magic number at its end")
                .with("found", format_args!("{magic:#010x}"))
                .with("expected", format_args!("{MAGIC:#010x}")));
        }
        if !(TRAILER_LEN..=FOOTER_LEN_MAX).contains(&len) {
            return Err(Error::corrupt("object footer of an impossible length").with("len", len));
        }
        let Some(footer) = tail.len().checked_sub(len).and_then(|at| tail.get(at..)) else {
            return wants(len);
        };
        let found = fields.u32()?;
        let checked = footer
            .len()
            .checked_sub(CRC_LEN)
            .and_then(|end| footer.get(..end));
        let expected = crc32c::crc32c(checked.unwrap_or_default());
        if found != expected {
            return Err(crc_error("object footer", found, expected));
        }
        if version > FORMAT_VERSION {
            return Err(Error::invalid(
                "object of a newer format; run a newer version of this software",
            )
            .with("version", version)
            .with("newest known", FORMAT_VERSION));
        }
        if version != FORMAT_VERSION || len != FOOTER_LEN {
            return Err(Error::corrupt("object footer of an unknown version")
                .with("version", version)
                .with("len", len));
        }
        Ok(FooterStep::Footer(
            Self::decode_fields(footer, object_len)?,
            len,
        ))
    }

    fn decode_fields(footer: &[u8], object_len: u64) -> Result<Self> {
        let mut fields = Fields(footer);
        let cluster = ClusterId::new(fields.u128()?);
        let object = ObjectId::new(fields.u64()?);
        let node_epoch = NodeEpoch::new(fields.u64()?);
        let said_len = fields.u64()?;
        let (index_position, runs, blocks) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (index_crc, kind_and_flags) = (fields.u32()?, fields.u32()?);
        if said_len != object_len {
            return Err(
                Error::corrupt("object of another length than its footer says")
                    .with("object", object)
                    .with("len", object_len)
                    .with("expected", said_len),
            );
        }
        let kind = match kind_and_flags.to_be_bytes() {
            [1, 0, 0, 0] => ObjectKind::StreamSet,
            [2, 0, 0, 0] => ObjectKind::Stream,
            [kind, flags, ..] => {
                return Err(
                    Error::corrupt("object of an unknown kind or with unknown flags")
                        .with("object", object)
                        .with("kind", kind)
                        .with("flags", flags),
                );
            }
        };
        Ok(Self {
            info: FooterInfo {
                cluster,
                object,
                node_epoch,
                kind,
            },
            object_len,
            index_position,
            runs,
            blocks,
            index_crc,
        })
    }
}

/// Persisted: never renumber.
fn kind_code(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::StreamSet => 1,
        ObjectKind::Stream => 2,
    }
}

/// A checksum that does not match.
pub(super) fn crc_error(what: &str, found: u32, expected: u32) -> Error {
    Error::corrupt(format!("{what}: wrong checksum"))
        .with("found", format_args!("{found:#010x}"))
        .with("expected", format_args!("{expected:#010x}"))
}

/// Big-endian numbers one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(Error::corrupt("object ends inside a field")
                .with("need", N)
                .with("left", self.0.len()));
        };
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn u128(&mut self) -> Result<u128> {
        self.take().map(u128::from_be_bytes)
    }
}
