//! One commit as a file: a header, then records.
//!
//! | offset | size | what |
//! |---:|---:|---|
//! | 0 | 8 | `dircommt` |
//! | 8 | 4 | crc32c of all that follows |
//! | 12 | 16 | log |
//! | 28 | 8 | epoch |
//! | 36 | 8 | position of byte 0 |
//! | 44 | | records: length (4), then so many bytes |
//!
//! Numbers are big-endian. The position of a byte is the file's position plus its offset in the file; a record's range includes its length.
//! The file's name is `EPOCH-POSITION.commit`, both as 16 hexadecimal digits.

use std::{fmt, ops::Range};

use bytes::{Buf, BufMut, Bytes};
use s3stream::wal::{Commit, Durable, Error, LogEpoch, LogUuid, Position, Replayed};

use super::directory::Directory;

const MAGIC: &[u8; 8] = b"dircommt";
const CRC_END: usize = 12;
pub(super) const HEADER_LEN: usize = 44;
pub(super) const LENGTH_LEN: usize = 4;

/// A commit's place: known from the name and the length of its file. Ordered by epoch, then position.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CommitName {
    pub(super) epoch: LogEpoch,
    pub(super) start: Position,
    len: u64,
}

impl CommitName {
    pub(super) fn parse(name: &str, len: u64) -> Option<Self> {
        let (epoch, start) = name.strip_suffix(".commit")?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let parsed = Self {
            epoch: LogEpoch::new(number(epoch)?),
            start: Position::new(number(start)?),
            len,
        };
        // Only the one spelling that is written.
        (parsed.to_string() == name).then_some(parsed)
    }

    pub(super) fn end(&self) -> Position {
        Position::new(self.start.get().saturating_add(self.len))
    }
}

impl fmt::Display for CommitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, start) = (self.epoch.get(), self.start.get());
        write!(f, "{epoch:016x}-{start:016x}.commit")
    }
}

/// A commit in memory: gathered by appends, or read back.
#[derive(Debug)]
pub(super) struct CommitFile {
    epoch: LogEpoch,
    start: u64,
    bytes: Vec<u8>,
    /// Where the payloads are in `bytes`.
    payloads: Vec<Range<usize>>,
}

impl CommitFile {
    pub(super) fn new(log: LogUuid, epoch: LogEpoch, start: u64) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.put_slice(MAGIC);
        bytes.put_u32(0); // The checksum, known when all is gathered.
        bytes.put_u128(log.get());
        bytes.put_u64(epoch.get());
        bytes.put_u64(start);
        Self {
            epoch,
            start,
            bytes,
            payloads: Vec::new(),
        }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record of `len` bytes, which `parts` have together.
    pub(super) fn push(&mut self, parts: &[&[u8]], len: u32) -> Range<Position> {
        self.bytes.put_u32(len);
        let from = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.put_slice(part));
        let payload = from..self.bytes.len();
        let position = self.position(&payload);
        self.payloads.push(payload);
        position
    }

    /// The bytes as they are written, complete.
    pub(super) fn sealed(&mut self) -> &[u8] {
        if let Some((head, covered)) = self.bytes.split_at_mut_checked(CRC_END) {
            let crc = crc32c::crc32c(covered).to_be_bytes();
            head[MAGIC.len()..].copy_from_slice(&crc);
        }
        &self.bytes
    }

    pub(super) fn name(&self) -> CommitName {
        CommitName {
            epoch: self.epoch,
            start: Position::new(self.start),
            len: self.bytes.len() as u64,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads a commit and checks every byte of it (W4).
    pub(super) fn read(
        directory: &Directory,
        log: LogUuid,
        name: &CommitName,
    ) -> Result<Self, Error> {
        let corrupt = |what: String| Error::Corrupt {
            position: name.start,
            what: format!("{name}: {what}"),
        };
        let bytes = directory.read(&name.to_string())?;
        let bytes = bytes.ok_or_else(|| corrupt("gone".to_owned()))?;
        // The header that this file must have; the checksum covers all that is read from it.
        let mut expected = Self::new(log, name.epoch, name.start.get());
        let mut rest = &bytes[..];
        let (magic, crc) = (rest.try_get_u64(), rest.try_get_u32());
        if magic != Ok(u64::from_be_bytes(*MAGIC)) || crc != Ok(crc32c::crc32c(rest)) {
            return Err(corrupt("its checksum is not that of its bytes".to_owned()));
        }
        if !rest.starts_with(&expected.bytes[CRC_END..]) || bytes.len() as u64 != name.len {
            return Err(corrupt("not the commit that its name says".to_owned()));
        }
        let mut at = HEADER_LEN;
        while let Some(len) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let from = at + LENGTH_LEN;
            at = from + u32::from_be_bytes(*len) as usize;
            expected.payloads.push(from..at);
        }
        if at != bytes.len() || expected.payloads.is_empty() {
            return Err(corrupt(format!("records up to {at} of {}", bytes.len())));
        }
        expected.bytes = bytes;
        Ok(expected)
    }

    /// As it comes back.
    pub(super) fn replayed(self) -> Vec<Replayed> {
        let positions: Vec<_> = self.payloads.iter().map(|p| self.position(p)).collect();
        let bytes = Bytes::from(self.bytes);
        let records = self.payloads.into_iter().zip(positions).enumerate();
        records
            .map(|(index, (payload, position))| Replayed {
                epoch: self.epoch,
                position,
                // The first one carries the header, so that the shares add up to the file.
                footprint: payload.len() + LENGTH_LEN + if index == 0 { HEADER_LEN } else { 0 },
                payload: bytes.slice(payload),
            })
            .collect()
    }

    /// As it is told to a sink: slices of the one buffer, which was gathered by one copy.
    pub(super) fn durable(self) -> Commit {
        let (range, footprint) = (self.name().start..self.name().end(), self.bytes.len());
        let replayed = self.replayed().into_iter();
        Commit {
            range,
            footprint,
            records: replayed
                .map(|record| Durable {
                    position: record.position,
                    payload: record.payload,
                })
                .collect(),
        }
    }

    fn position(&self, payload: &Range<usize>) -> Range<Position> {
        let at = |offset: usize| Position::new(self.start + offset as u64);
        at(payload.start - LENGTH_LEN)..at(payload.end)
    }
}
