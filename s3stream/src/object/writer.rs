//! Building an object: payloads are taken as they are, everything else is built around them.
//!
//! `block <= block_bytes`, but for a record that is larger by itself. Records come sorted by stream, then offset; a run
//! has no gaps. What is refused changes nothing. It does not upload.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    CRC_LEN, FooterInfo, ObjectIndex, ObjectKind, StreamRange,
    index::{BlockRow, Run},
};
use crate::{Error, RECORD_HEADER_LEN, RecordBatch, Result};

/// Headers and checksums are cut from buffers of this size.
const FIXED_CHUNK: usize = 4096;

/// Collects records into an object.
#[derive(Debug)]
pub struct ObjectWriter {
    info: FooterInfo,
    block_bytes: u64,
    parts: Vec<Bytes>,
    /// Headers and checksums that are not a part yet.
    fixed: BytesMut,
    runs: Vec<Run>,
    blocks: Vec<BlockRow>,
    /// Length of all closed blocks.
    closed: u64,
    /// Records in the open block, and the checksum of their bytes; none is open at 0.
    open: u64,
    open_crc: u32,
}

/// An object, ready to be stored.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its bytes, in order; payloads are those that were pushed.
    pub parts: Vec<Bytes>,
    /// The length of all parts together.
    pub len: u64,
    /// What it holds, for the commit.
    pub ranges: Vec<StreamRange>,
    /// What a reader would find at its end.
    pub index: ObjectIndex,
}

impl ObjectWriter {
    /// An empty object whose data blocks should be about `block_bytes` long.
    pub fn new(info: FooterInfo, block_bytes: usize) -> Self {
        Self {
            info,
            block_bytes: block_bytes as u64,
            parts: Vec::new(),
            fixed: BytesMut::new(),
            runs: Vec::new(),
            blocks: Vec::new(),
            closed: 0,
            open: 0,
            open_crc: 0,
        }
    }

    /// Adds a record. It must come after the last one: a higher stream, or in the same stream where the last one ended;
    /// only a later epoch may begin at a higher offset.
    pub fn push(&mut self, record: &RecordBatch) -> Result<()> {
        self.check(record)
            .map_err(|error| self.place(error, record))?;
        let new_run = self
            .runs
            .last()
            .is_none_or(|run| (run.stream, run.epoch) != (record.stream, record.epoch));
        let len = record.encoded_len() as u64;
        let full = self.open + len + CRC_LEN as u64 > self.block_bytes;
        if self.open > 0 && (new_run || full) {
            self.close_block();
        }
        if new_run {
            self.runs.push(Run {
                stream: record.stream,
                epoch: record.epoch,
                start: record.offsets.start,
                end: record.offsets.end,
                first_block: self.blocks.len() as u64,
            });
        }
        if self.open == 0 {
            self.blocks.push(BlockRow {
                position: self.closed,
                start: record.offsets.start,
            });
        }
        if let Some(run) = self.runs.last_mut() {
            run.end = record.offsets.end;
        }
        let header = record.header().encode();
        self.put_fixed(&header);
        self.open_crc = crc32c::crc32c_append(self.open_crc, &header);
        self.open_crc = crc32c::crc32c_append(self.open_crc, &record.payload);
        if !record.payload.is_empty() {
            self.cut_fixed();
            self.parts.push(record.payload.clone());
        }
        self.open += len;
        Ok(())
    }

    /// Bytes of data so far.
    pub fn data_len(&self) -> u64 {
        self.closed + self.open
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Ends the object. One without records is `Invalid`: there would be nothing to commit.
    pub fn finish(mut self) -> Result<Built> {
        if self.is_empty() {
            return Err(Error::invalid("object without records").with("object", self.info.object));
        }
        self.close_block();
        self.cut_fixed();
        let (index, rows, footer) =
            ObjectIndex::build(self.info, self.closed, self.runs, self.blocks);
        self.parts.push(rows);
        self.parts.push(footer);
        let len = index.object_len();
        debug_assert_eq!(
            len,
            self.parts.iter().map(|part| part.len() as u64).sum::<u64>()
        );
        Ok(Built {
            parts: self.parts,
            len,
            ranges: index.ranges().collect(),
            index,
        })
    }

    fn check(&self, record: &RecordBatch) -> Result<()> {
        if record.offsets.is_empty() {
            return Err(Error::invalid("record without offsets"));
        }
        if u32::try_from(record.payload.len()).is_err() {
            return Err(Error::invalid("record of 4 GiB or more").with("len", record.payload.len()));
        }
        let Some(last) = self.runs.last() else {
            return Ok(());
        };
        if record.stream != last.stream {
            if self.info.kind == ObjectKind::Stream {
                return Err(Error::invalid("second stream in a stream object"));
            }
            if record.stream < last.stream {
                return Err(Error::invalid("streams out of order"));
            }
            return Ok(());
        }
        if record.offsets.start < last.end {
            return Err(Error::invalid("records overlap or are out of order"));
        }
        if record.epoch < last.epoch {
            return Err(Error::invalid("stream epochs out of order"));
        }
        if record.epoch == last.epoch && record.offsets.start != last.end {
            return Err(Error::invalid("gap between records"));
        }
        Ok(())
    }

    fn place(&self, error: Error, record: &RecordBatch) -> Error {
        let error = error
            .with("object", self.info.object)
            .with("stream", record.stream)
            .with("epoch", record.epoch)
            .with("offsets", format_args!("{:?}", record.offsets));
        match self.runs.last() {
            Some(run) => error
                .with("last stream", run.stream)
                .with("last epoch", run.epoch)
                .with("last end", run.end),
            None => error,
        }
    }

    fn close_block(&mut self) {
        debug_assert!(self.open >= RECORD_HEADER_LEN as u64);
        self.put_fixed(&self.open_crc.to_be_bytes());
        self.closed += self.open + CRC_LEN as u64;
        self.open = 0;
        self.open_crc = 0;
    }

    fn put_fixed(&mut self, bytes: &[u8]) {
        // Never more than what is left of a chunk: a buffer that grows would copy.
        if self.fixed.capacity() - self.fixed.len() < bytes.len() {
            self.cut_fixed();
            self.fixed = BytesMut::with_capacity(FIXED_CHUNK);
        }
        self.fixed.put_slice(bytes);
    }

    /// Makes a part of the headers and checksums since the last payload.
    fn cut_fixed(&mut self) {
        if !self.fixed.is_empty() {
            self.parts.push(self.fixed.split().freeze());
        }
    }
}
