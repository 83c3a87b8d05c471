//! Reading a segment log: a log offset is mapped to the stream of its slice, and the records back.
//!
//! One fetch reads one slice; a reader goes on where it ended. Nothing at or past `confirm` is read (S3). A read that a
//! trim, a replacement or a cut overtakes is made again in what took the place of its slice.

use std::ops::Range;

use bytes::Bytes;

use super::{SegmentLog, out_of_range};
use crate::segment::Slice;
use crate::segment::list::SegmentList;
use crate::{Error, ErrorKind, Result, Stream};

/// How often one fetch looks again because the list of segments changed under it.
const OVERTAKEN_MAX: usize = 16;

/// A record of a segment log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// The log offsets it occupies; never empty.
    pub offsets: Range<u64>,
    /// What was appended.
    pub payload: Bytes,
}

/// What a fetch of a segment log found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedLog {
    /// Whole records in offset order; the first holds the offset asked for or is the next there is. They are
    /// contiguous. Empty at `confirm`.
    pub records: Vec<LogRecord>,
    /// The end of what is durable, when the slice that was read was looked up.
    pub confirm: u64,
}

impl SegmentLog {
    /// Whole records from the one that holds `from`, or the next there is, up to about `bytes_max` bytes; the first
    /// whatever its size. May stop short at the end of a slice. Answers at once with no records at `confirm`.
    ///
    /// # Errors
    /// `OutOfRange`: `from` is below `start` or past `confirm`. Else as [`Stream::fetch`].
    pub async fn fetch(&self, from: u64, bytes_max: usize) -> Result<FetchedLog> {
        self.fetch_from(from, bytes_max, SegmentList::start).await
    }

    /// As [`Self::fetch`], but also what is hidden below `start` in the first segment, which is kept whole. For an
    /// owner that takes stock of its segments; readers have no business there.
    ///
    /// # Errors
    /// As [`Self::fetch`], with the base of the first segment as the lower bound.
    pub async fn fetch_kept(&self, from: u64, bytes_max: usize) -> Result<FetchedLog> {
        let lowest = |list: &SegmentList| {
            let first = list.segments().first();
            first.map_or(list.start(), |first| first.base.min(list.start()))
        };
        self.fetch_from(from, bytes_max, lowest).await
    }

    async fn fetch_from(
        &self,
        from: u64,
        bytes_max: usize,
        lowest: impl Fn(&SegmentList) -> u64,
    ) -> Result<FetchedLog> {
        let mut at = from;
        let mut overtaken = 0;
        loop {
            let (slice, stream, confirm) = {
                let state = self.usable()?;
                let (lowest, confirm) = (lowest(&state.list), self.confirm_of(&state));
                if from < lowest || at > confirm {
                    return Err(out_of_range(from, lowest, confirm));
                }
                let slice = state.list.slice_at(at).cloned();
                let Some(slice) = slice.filter(|slice| at < confirm && slice.base < confirm) else {
                    return Ok(FetchedLog {
                        records: Vec::new(),
                        confirm,
                    });
                };
                let stream = self.stream_of(&state, slice.stream).ok_or_else(|| {
                    Error::invalid("a slice of a stream that is not attached")
                        .with("stream", slice.stream)
                })?;
                (slice, stream, confirm)
            };
            match read_slice(&slice, &stream, at, bytes_max).await {
                Ok(records) if records.is_empty() => {
                    // The rest of the slice holds nothing, which only a damaged window can cause.
                    at = slice.log_end().filter(|end| *end > at).ok_or_else(|| {
                        Error::corrupt("no record where a slice has one").with("offset", at)
                    })?;
                }
                Ok(records) => {
                    // What was read is this log's only if nobody else had the streams meanwhile.
                    drop(self.usable()?);
                    return Ok(FetchedLog { records, confirm });
                }
                // A trim, a replacement or a cut has overtaken the read: what is there now is looked at again.
                Err(error)
                    if error.kind() == ErrorKind::OutOfRange && overtaken < OVERTAKEN_MAX =>
                {
                    overtaken += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The records of a slice from log offset `from` on, as log records.
async fn read_slice(
    slice: &Slice,
    stream: &Stream,
    from: u64,
    bytes_max: usize,
) -> Result<Vec<LogRecord>> {
    let at = slice.stream_offset(from.max(slice.base));
    let fetched = stream.fetch(at, bytes_max).await?;
    let mut records = Vec::with_capacity(fetched.records.len());
    for record in fetched.records {
        if record.offsets.start < slice.start {
            return Err(Error::corrupt("a slice begins within a record")
                .with("slice", slice.start)
                .with("record", record.offsets.start));
        }
        if slice.end.is_some_and(|end| record.offsets.end > end) {
            break;
        }
        records.push(LogRecord {
            offsets: slice.log_offset(record.offsets.start)..slice.log_offset(record.offsets.end),
            payload: record.payload,
        });
    }
    Ok(records)
}
