//! The record: what the write-ahead log and the data blocks of objects hold. `docs/format.md` §record.
//!
//! `offsets.start < offsets.end`, and the header's payload length is the payload's.
//! It has no checksum of its own: the frame or the data block around it has one. It does not look into the payload.

use std::ops::Range;

use bytes::Bytes;

use crate::{Error, Result, StreamEpoch, StreamId};

/// Length of a record's header in bytes.
pub const RECORD_HEADER_LEN: usize = 40;
const VERSION: u8 = 1;
const _: () = assert!(RECORD_HEADER_LEN == 1 + 1 + 2 + 4 + 8 + 8 + 8 + 8);

/// A run of offsets of one stream and the opaque bytes that stand for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordBatch {
    /// The stream.
    pub stream: StreamId,
    /// The ownership under which it was appended (S7).
    pub epoch: StreamEpoch,
    /// The offsets it occupies; never empty.
    pub offsets: Range<u64>,
    /// What the caller appended.
    pub payload: Bytes,
}

/// The fixed part of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// The stream.
    pub stream: StreamId,
    /// The ownership under which it was appended.
    pub epoch: StreamEpoch,
    /// The offsets it occupies; never empty.
    pub offsets: Range<u64>,
    /// Length of the payload that follows.
    pub payload_len: u32,
}

impl RecordHeader {
    /// The header's bytes, big-endian.
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut out = [0; RECORD_HEADER_LEN];
        out[0] = VERSION;
        out[4..8].copy_from_slice(&self.payload_len.to_be_bytes());
        out[8..16].copy_from_slice(&self.stream.get().to_be_bytes());
        out[16..24].copy_from_slice(&self.epoch.get().to_be_bytes());
        out[24..32].copy_from_slice(&self.offsets.start.to_be_bytes());
        out[32..40].copy_from_slice(&(self.offsets.end - self.offsets.start).to_be_bytes());
        out
    }

    /// Reads the header at the start of `bytes`; what follows the header is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER_LEN>() else {
            return Err(Error::corrupt("record shorter than its header").with("len", bytes.len()));
        };
        if header[0] != VERSION || header[1..4] != [0; 3] {
            return Err(Error::corrupt("record of an unknown version")
                .with("version", header[0])
                .with("known", VERSION));
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::from_be_bytes(word)
        };
        let start = word(24);
        let end = match start.checked_add(word(32)) {
            Some(end) if end > start => end,
            _ => {
                return Err(Error::corrupt("record with an impossible offset range")
                    .with("start", start)
                    .with("count", word(32)));
            }
        };
        Ok(Self {
            stream: StreamId::new(word(8)),
            epoch: StreamEpoch::new(word(16)),
            offsets: start..end,
            payload_len: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        })
    }
}

impl RecordBatch {
    /// The record's length when encoded.
    pub fn encoded_len(&self) -> usize {
        RECORD_HEADER_LEN + self.payload.len()
    }

    /// The header that goes before the payload.
    pub fn header(&self) -> RecordHeader {
        RecordHeader {
            stream: self.stream,
            epoch: self.epoch,
            offsets: self.offsets.clone(),
            payload_len: self.payload.len() as u32,
        }
    }

    /// Takes exactly one record; the payload is a slice of `bytes`, not a copy.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let header = RecordHeader::decode(&bytes)?;
        let payload_len = bytes.len() - RECORD_HEADER_LEN;
        if header.payload_len as usize != payload_len {
            return Err(
                Error::corrupt("record of another length than its header says")
                    .with("expected", header.payload_len)
                    .with("found", payload_len),
            );
        }
        Ok(Self {
            stream: header.stream,
            epoch: header.epoch,
            offsets: header.offsets,
            payload: bytes.slice(RECORD_HEADER_LEN..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let record = RecordBatch {
            stream: StreamId::new(7),
            epoch: StreamEpoch::new(3),
            offsets: 0x1_0000_0000..0x1_0000_0005,
            payload: Bytes::from_static(b"ab"),
        };
        let mut bytes = record.header().encode().to_vec();
        bytes.extend_from_slice(&record.payload);
        let golden = [
            &[1, 0, 0, 0, 0, 0, 0, 2][..],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 0, 0, 1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            b"ab",
        ]
        .concat();
        assert_eq!(bytes, golden);
        assert_eq!(RecordBatch::decode(bytes.into()).unwrap(), record);
    }

    #[test]
    fn a_count_that_overflows_or_is_zero_is_corrupt() {
        let header = RecordHeader {
            stream: StreamId::new(1),
            epoch: StreamEpoch::new(1),
            offsets: u64::MAX - 1..u64::MAX,
            payload_len: 0,
        };
        for count in [0u64, 2, u64::MAX] {
            let mut bytes = header.encode();
            bytes[32..40].copy_from_slice(&count.to_be_bytes());
            let error = RecordHeader::decode(&bytes).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{count}");
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let record = RecordBatch {
            stream: StreamId::new(1),
            epoch: StreamEpoch::new(1),
            offsets: 0..1,
            payload: Bytes::from_static(b"abc"),
        };
        let mut bytes = record.header().encode().to_vec();
        bytes.extend_from_slice(&record.payload);
        for len in 0..bytes.len() {
            assert!(RecordBatch::decode(Bytes::copy_from_slice(&bytes[..len])).is_err());
        }
    }
}
