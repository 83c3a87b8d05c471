//! The index: which run and which offsets each data block holds.
//!
//! - `0 = block[0].position < block[1].position < … < index_position`: blocks lie end to end, so they cannot overlap;
//! - `run[i].first_block < run[i + 1].first_block <= blocks`: every block belongs to exactly one run;
//! - `run.start = block[run.first_block].start < block[next].start < … < run.end`.
//!
//! In memory it takes 40 bytes a run and 16 bytes a block, and pins nothing of what was fetched. It does not say what
//! of an object is valid: exceptions are in the metadata (O6).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{fmt, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    BlockRef, FooterInfo, ObjectKind, StreamRange,
    block::BLOCK_LEN_MIN,
    footer::{Fields, Footer, FooterStep, crc_error},
};
use crate::{ClusterId, Error, ObjectId, Result, StreamEpoch, StreamId};

const RUN_LEN: u64 = 40;
const BLOCK_ROW_LEN: u64 = 16;

/// A row of the run table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) stream: StreamId,
    pub(super) epoch: StreamEpoch,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) first_block: u64,
}

/// A row of the block table. The next row, or the end of the run or of the data, says where it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockRow {
    pub(super) position: u64,
    pub(super) start: u64,
}

/// The verified footer and index of an object.
#[derive(Clone)]
pub struct ObjectIndex {
    footer: Footer,
    runs: Box<[Run]>,
    blocks: Box<[BlockRow]>,
}

/// How far the tail of an object could be read.
#[derive(Debug)]
pub enum TailStep {
    /// The bytes from this position to the end of the object are needed.
    NeedMore {
        /// Where they start.
        from: u64,
    },
    /// The index.
    Index(ObjectIndex),
}

impl ObjectIndex {
    /// What a writer has built. The rows obey the invariants above; `index_crc` and the lengths are filled in.
    pub(super) fn build(
        info: FooterInfo,
        index_position: u64,
        runs: Vec<Run>,
        blocks: Vec<BlockRow>,
    ) -> (Self, Bytes, Bytes) {
        let mut rows = BytesMut::with_capacity(
            size_of_val(runs.as_slice()).saturating_add(size_of_val(blocks.as_slice())),
        );
        for run in &runs {
            rows.put_u64(run.stream.get());
            rows.put_u64(run.epoch.get());
            rows.put_u64(run.start);
            rows.put_u64(run.end);
            rows.put_u64(run.first_block);
        }
        for block in &blocks {
            rows.put_u64(block.position);
            rows.put_u64(block.start);
        }
        let rows = rows.freeze();
        let footer = Footer {
            info,
            object_len: index_position
                .saturating_add(rows.len() as u64)
                .saturating_add(super::footer::FOOTER_LEN as u64),
            index_position,
            runs: runs.len() as u64,
            blocks: blocks.len() as u64,
            index_crc: crc32c::crc32c(&rows),
        };
        let footer_bytes = footer.encode();
        let index = Self {
            footer,
            runs: runs.into_boxed_slice(),
            blocks: blocks.into_boxed_slice(),
        };
        (index, rows, footer_bytes)
    }

    /// Reads the index from `tail`, the last bytes of an object of `object_len` bytes, which must be `object` of
    /// `cluster`. Nothing is allocated before the bytes for it are there and their checksum is right.
    pub fn decode_tail(
        tail: &[u8],
        object_len: u64,
        cluster: ClusterId,
        object: ObjectId,
    ) -> Result<TailStep> {
        Self::decode(tail, object_len, cluster, object)
            .map_err(|error| error.with("reading object", object))
    }

    fn decode(
        tail: &[u8],
        object_len: u64,
        cluster: ClusterId,
        object: ObjectId,
    ) -> Result<TailStep> {
        let Some(tail_position) = object_len.checked_sub(tail.len() as u64) else {
            return Err(Error::invalid("tail longer than its object")
                .with("tail", tail.len())
                .with("object length", object_len));
        };
        let (footer, footer_len) = match Footer::decode(tail, object_len)? {
            FooterStep::NeedMore { from } => return Ok(TailStep::NeedMore { from }),
            FooterStep::Footer(footer, len) => (footer, len as u64),
        };
        check_ids(&footer.info, cluster, object)?;
        let rows_len = footer
            .runs
            .checked_mul(RUN_LEN)
            .zip(footer.blocks.checked_mul(BLOCK_ROW_LEN))
            .and_then(|(runs, blocks)| runs.checked_add(blocks));
        let sum = rows_len
            .and_then(|rows| rows.checked_add(footer.index_position))
            .and_then(|sum| sum.checked_add(footer_len));
        let (Some(rows_len), true) = (rows_len, sum == Some(object_len)) else {
            return Err(
                Error::corrupt("object whose parts do not add up to its length")
                    .with("index at", footer.index_position)
                    .with("runs", footer.runs)
                    .with("blocks", footer.blocks)
                    .with("len", object_len),
            );
        };
        let rows = footer
            .index_position
            .checked_sub(tail_position)
            .and_then(|at| usize::try_from(at).ok())
            .zip(usize::try_from(rows_len).ok())
            .and_then(|(at, len)| tail.get(at..at.checked_add(len)?));
        let Some(rows) = rows else {
            return Ok(TailStep::NeedMore {
                from: footer.index_position,
            });
        };
        let crc = crc32c::crc32c(rows);
        if crc != footer.index_crc {
            return Err(crc_error("object index", crc, footer.index_crc));
        }
        let index = Self::decode_rows(footer, rows)?;
        index.check_blocks()?;
        index.check_runs()?;
        Ok(TailStep::Index(index))
    }

    /// `rows` is exactly as long as the footer's counts say.
    fn decode_rows(footer: Footer, rows: &[u8]) -> Result<Self> {
        let mut fields = Fields(rows);
        let runs = (0..footer.runs)
            .map(|_| {
                Ok(Run {
                    stream: StreamId::new(fields.u64()?),
                    epoch: StreamEpoch::new(fields.u64()?),
                    start: fields.u64()?,
                    end: fields.u64()?,
                    first_block: fields.u64()?,
                })
            })
            .collect::<Result<_>>()?;
        let blocks = (0..footer.blocks)
            .map(|_| {
                Ok(BlockRow {
                    position: fields.u64()?,
                    start: fields.u64()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            footer,
            runs,
            blocks,
        })
    }

    fn check_blocks(&self) -> Result<()> {
        let mut lowest = 0;
        for (number, block) in self.blocks.iter().enumerate() {
            let first = number == 0;
            if block.position < lowest || (first && block.position != 0) {
                return Err(Error::corrupt("object index: data block out of place")
                    .with("block", number)
                    .with("position", block.position));
            }
            lowest = block.position.saturating_add(BLOCK_LEN_MIN);
        }
        if lowest > self.footer.index_position || self.blocks.is_empty() {
            return Err(
                Error::corrupt("object index: data blocks do not fill the data")
                    .with("blocks", self.blocks.len())
                    .with("index at", self.footer.index_position),
            );
        }
        Ok(())
    }

    fn check_runs(&self) -> Result<()> {
        let mut previous: Option<&Run> = None;
        for (number, run) in self.runs.iter().enumerate() {
            let wrong = |what: &str| {
                Err(Error::corrupt(format!("object index: {what}"))
                    .with("run", number)
                    .with("stream", run.stream)
                    .with("offsets", format_args!("{}..{}", run.start, run.end)))
            };
            let ordered = match previous {
                None => true,
                Some(before) if before.stream != run.stream => before.stream < run.stream,
                Some(before) => {
                    before.end <= run.start
                        && before.epoch <= run.epoch
                        && (before.end, before.epoch) != (run.start, run.epoch)
                }
            };
            if run.start >= run.end || !ordered {
                return wrong("run out of order");
            }
            let blocks = self.blocks_of(number);
            let starts_at = match previous {
                None => run.first_block == 0,
                Some(before) => before.first_block < run.first_block,
            };
            let Some(first) = self.blocks.get(blocks.start).filter(|_| starts_at) else {
                return wrong("run without blocks of its own");
            };
            let rows = self.blocks.get(blocks).unwrap_or_default();
            let ascending = rows.is_sorted_by(|a, b| a.start < b.start);
            let below_end = rows.last().is_some_and(|last| last.start < run.end);
            if first.start != run.start || !ascending || !below_end {
                return wrong("run whose blocks hold other offsets");
            }
            previous = Some(run);
        }
        let streams = (self.runs.first(), self.runs.last());
        match (self.footer.info.kind, streams) {
            (ObjectKind::StreamSet, (Some(_), _)) => Ok(()),
            (ObjectKind::Stream, (Some(a), Some(b))) if a.stream == b.stream => Ok(()),
            _ => Err(
                Error::corrupt("object index: runs do not fit the object's kind")
                    .with("runs", self.runs.len()),
            ),
        }
    }

    /// The numbers of a run's blocks.
    fn blocks_of(&self, run: usize) -> Range<usize> {
        // Positions in a table of this many rows, so they fit; a forged number is caught when it is used as an index.
        let at = |run: usize| match self.runs.get(run) {
            Some(run) => usize::try_from(run.first_block).unwrap_or(usize::MAX),
            None => self.blocks.len(),
        };
        at(run)..at(run.saturating_add(1))
    }

    /// Who wrote the object, and what it is.
    pub fn info(&self) -> &FooterInfo {
        &self.footer.info
    }

    /// The object's length in bytes.
    pub fn object_len(&self) -> u64 {
        self.footer.object_len
    }

    /// The length of all data blocks together.
    pub fn data_len(&self) -> u64 {
        self.footer.index_position
    }

    /// How many data blocks there are.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of memory that the index takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            .saturating_add(size_of_val(&*self.runs))
            .saturating_add(size_of_val(&*self.blocks))
    }

    /// The runs, sorted by stream, then offset.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = StreamRange> {
        self.runs.iter().map(|run| StreamRange {
            stream: run.stream,
            epoch: run.epoch,
            offsets: run.start..run.end,
        })
    }

    /// The runs of one stream, in offset order; the first is found in O(log n).
    pub fn ranges_of(&self, stream: StreamId) -> impl Iterator<Item = StreamRange> {
        let first = self.runs.partition_point(|run| run.stream < stream);
        self.ranges()
            .skip(first)
            .take_while(move |range| range.stream == stream)
    }

    /// The blocks that hold any of a stream's `offsets`, in offset order; the first is found in O(log n). Where a gap
    /// lies between two runs of the stream, there is none for it.
    pub fn blocks(&self, stream: StreamId, offsets: Range<u64>) -> impl Iterator<Item = BlockRef> {
        let first_run = self
            .runs
            .partition_point(|run| (run.stream, run.end) <= (stream, offsets.start));
        let runs = self.runs.iter().enumerate().skip(first_run);
        runs.take_while(move |(_, run)| run.stream == stream)
            .flat_map(move |(number, _)| {
                let blocks = self.blocks_of(number);
                let rows = self.blocks.get(blocks.clone()).unwrap_or_default();
                // The last block that starts at or below the offset holds it, unless the run starts above.
                let before = rows.partition_point(|block| block.start <= offsets.start);
                let first = blocks.start.saturating_add(before.saturating_sub(1));
                (first..blocks.end).filter_map(move |block| self.block_ref(number, block))
            })
            .take_while(move |block| !offsets.is_empty() && block.offsets.start < offsets.end)
    }

    /// All blocks, in the order of the object.
    pub fn all_blocks(&self) -> impl Iterator<Item = BlockRef> {
        (0..self.runs.len()).flat_map(move |run| {
            self.blocks_of(run)
                .filter_map(move |block| self.block_ref(run, block))
        })
    }

    fn block_ref(&self, run: usize, block: usize) -> Option<BlockRef> {
        let row = self.blocks.get(block)?;
        let next = block.checked_add(1)?;
        let position_end = self
            .blocks
            .get(next)
            .map_or(self.footer.index_position, |next| next.position);
        let last_of_run = next >= self.blocks_of(run).end;
        let run = self.runs.get(run)?;
        let end = match self.blocks.get(next) {
            Some(next) if !last_of_run => next.start,
            _ => run.end,
        };
        Some(BlockRef {
            position: row.position..position_end,
            stream: run.stream,
            epoch: run.epoch,
            offsets: row.start..end,
        })
    }
}

fn check_ids(info: &FooterInfo, cluster: ClusterId, object: ObjectId) -> Result<()> {
    if info.cluster != cluster {
        return Err(Error::corrupt("object of another cluster")
            .with("found", info.cluster)
            .with("expected", cluster));
    }
    if info.object != object {
        return Err(Error::corrupt("object is another one")
            .with("found", info.object)
            .with("expected", object));
    }
    Ok(())
}

impl fmt::Debug for ObjectIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectIndex")
            .field("info", &self.footer.info)
            .field("object_len", &self.footer.object_len)
            .field("runs", &self.runs.len())
            .field("blocks", &self.blocks.len())
            .finish()
    }
}
