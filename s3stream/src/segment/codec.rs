//! Reading and writing the parts of segment edits. `docs/format.md` §segment edits.
//!
//! Every length and count is checked against the bytes that are left before it is used; nothing is allocated for a
//! count. Limits on what a log may hold are `list`'s.

use bytes::{BufMut, Bytes};

use super::{Segment, Slice};
use crate::{Error, Result, StreamId};

/// Bytes of one encoded slice.
const SLICE_LEN: usize = 8 + 8 + 8 + 8;
/// Stands for the end of what is still open.
const OPEN: u64 = u64::MAX;

/// Takes fields from the front of a record.
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Bytes> {
        if len > self.bytes.len() {
            return Err(Error::corrupt("segment edit is cut off")
                .with("needed", len)
                .with("left", self.bytes.len()));
        }
        Ok(self.bytes.split_to(len))
    }

    pub(super) fn rest(&mut self) -> Bytes {
        self.bytes.split_off(0)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let mut word = [0; 4];
        word.copy_from_slice(&self.take(4)?);
        Ok(u32::from_be_bytes(word))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        let mut word = [0; 8];
        word.copy_from_slice(&self.take(8)?);
        Ok(u64::from_be_bytes(word))
    }

    /// Bytes with their length before them.
    pub(super) fn bytes(&mut self) -> Result<Bytes> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn end(&mut self) -> Result<Option<u64>> {
        Ok(match self.u64()? {
            OPEN => None,
            end => Some(end),
        })
    }

    pub(super) fn segment(&mut self) -> Result<Segment> {
        let base = self.u64()?;
        let end = self.end()?;
        let count = self.u32()? as usize;
        if count > self.bytes.len() / SLICE_LEN {
            return Err(Error::corrupt("segment with more slices than bytes").with("slices", count));
        }
        let slices = (0..count).map(|_| self.slice()).collect::<Result<_>>()?;
        // A copy: the attributes stay for as long as the segment and must not pin the record they came in.
        let attributes = Bytes::copy_from_slice(&self.bytes()?);
        Ok(Segment {
            base,
            end,
            slices,
            attributes,
        })
    }

    fn slice(&mut self) -> Result<Slice> {
        Ok(Slice {
            stream: StreamId::new(self.u64()?),
            start: self.u64()?,
            end: self.end()?,
            base: self.u64()?,
        })
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

pub(super) fn put_segment(out: &mut Vec<u8>, segment: &Segment) {
    out.put_u64(segment.base);
    out.put_u64(segment.end.unwrap_or(OPEN));
    out.put_u32(segment.slices.len() as u32);
    for slice in &segment.slices {
        out.put_u64(slice.stream.get());
        out.put_u64(slice.start);
        out.put_u64(slice.end.unwrap_or(OPEN));
        out.put_u64(slice.base);
    }
    put_bytes(out, &segment.attributes);
}
