//! Record batches as bytes: found in a buffer and handed on without a copy.
//!
//! `batch.bytes().len() == header.batch_length + 12`, and at least a header. Every length is checked against the bytes
//! that are there before it is used. Iteration ends silently at a batch that is cut off, as Kafka's does; it does not
//! look at checksums or records until asked.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::compact::plain;
use crate::compress::Codec;
use crate::error::LogError;
use crate::header::{BATCH_HEADER_LEN, BATCH_LENGTH_OVERHEAD, BatchHeader, CRC_START};
use crate::record::{RecordHead, walk};

/// Bytes up to and including the format number; shorter than this nothing can be said of a batch.
const PREFIX_LEN: usize = 17;
/// The least length field of any format; less is damage.
const BATCH_LENGTH_MIN: i32 = 14;

/// One whole record batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// The batch that this header and these records make; the length and the checksum of the header are set.
    pub(crate) fn new(mut header: BatchHeader, records: &[u8]) -> Result<Self, LogError> {
        let len = BATCH_HEADER_LEN + records.len();
        header.batch_length =
            i32::try_from(len - BATCH_LENGTH_OVERHEAD).map_err(|_| LogError::MessageTooLarge {
                len: len as u64,
                max: i32::MAX as u64 + BATCH_LENGTH_OVERHEAD as u64,
            })?;
        header.crc = header.checksum(records);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(records);
        Ok(Self {
            header,
            bytes: bytes.into(),
        })
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What follows the header, compressed if the batch is.
    pub fn records(&self) -> Bytes {
        self.bytes.slice(BATCH_HEADER_LEN..)
    }

    /// The same, borrowed.
    pub(crate) fn record_bytes(&self) -> &[u8] {
        &self.bytes[BATCH_HEADER_LEN..]
    }

    /// Refuses a batch whose checksum is not that of its bytes.
    pub fn verify_checksum(&self) -> Result<(), LogError> {
        let found = crc32c::crc32c(&self.bytes[CRC_START..]);
        if found == self.header.crc {
            return Ok(());
        }
        Err(LogError::Corrupt(format!(
            "crc {found:#010x}, expected {:#010x}",
            self.header.crc
        )))
    }

    /// The same batch with its records as they are without a codec, at most so many bytes of them.
    ///
    /// # Errors
    /// `UnsupportedCompression`, `Undecodable`: they cannot be read. `MessageTooLarge`: there are more.
    pub fn decompressed(&self, decompressed_bytes_max: u64) -> Result<Self, LogError> {
        if self.header.attributes.codec()? == Codec::None {
            return Ok(self.clone());
        }
        let mut records = Vec::new();
        plain(self, decompressed_bytes_max, &mut records)?;
        let mut header = self.header;
        header.attributes = header.attributes.with_codec(Codec::None);
        Self::new(header, &records)
    }

    /// Visits the records in order, decompressing as far as needed but never past `decompressed_bytes_max`.
    ///
    /// When every record was visited, what is left over is an error; a visitor that breaks ends the walk at once.
    pub fn visit_records(
        &self,
        decompressed_bytes_max: u64,
        visit: impl FnMut(u32, RecordHead) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        let codec = self.header.attributes.codec()?;
        walk(
            codec,
            self.record_bytes(),
            self.header.records_count,
            decompressed_bytes_max,
            visit,
        )
    }
}

/// The batches of a buffer, front to back; stops after the first error.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
    stopped: bool,
}

impl Batches {
    /// Iterates over `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            rest: bytes,
            stopped: false,
        }
    }

    /// What has not been iterated over: at the end, the bytes of a batch that is cut off.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    fn split(&mut self) -> Result<Option<Batch>, LogError> {
        let Some(len) = batch_len(&self.rest)? else {
            return Ok(None);
        };
        let Some(header) = self.rest.first_chunk::<BATCH_HEADER_LEN>() else {
            // Format 0 and 1 have shorter headers; one of format 2 cannot be this short.
            return Err(match self.rest[16] {
                0 | 1 => LogError::UnsupportedFormat("record format below 2".into()),
                _ => LogError::Corrupt(format!("batch of {len} bytes is shorter than a header")),
            });
        };
        let header = BatchHeader::decode(header)?;
        if len < BATCH_HEADER_LEN {
            return Err(LogError::Corrupt(format!(
                "batch of {len} bytes is shorter than a header"
            )));
        }
        Ok(Some(Batch {
            header,
            bytes: self.rest.split_to(len),
        }))
    }
}

/// The length of the batch at the front, `None` if it is cut off.
fn batch_len(bytes: &[u8]) -> Result<Option<usize>, LogError> {
    if bytes.len() < BATCH_LENGTH_OVERHEAD {
        return Ok(None);
    }
    let length = i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if length < BATCH_LENGTH_MIN {
        return Err(LogError::Corrupt(format!(
            "batch length {length} is less than {BATCH_LENGTH_MIN}"
        )));
    }
    if bytes.len() < PREFIX_LEN {
        return Ok(None);
    }
    let magic = bytes[16] as i8;
    if !(0..=2).contains(&magic) {
        return Err(LogError::Corrupt(format!("record format {magic}")));
    }
    let len = length as usize + BATCH_LENGTH_OVERHEAD;
    Ok((bytes.len() >= len).then_some(len))
}

impl Iterator for Batches {
    type Item = Result<Batch, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stopped {
            return None;
        }
        let next = self.split().transpose();
        self.stopped = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
pub(crate) mod tests;
