//! Slices and segments: a log made of windows of streams, with offsets of its own.
//!
//! A [`Slice`] maps a window of a stream to log offsets: `log offset = slice.base + (stream offset - slice.start)` (K1).
//! A [`Segment`] is a run of slices, sealed or active; a [`SegmentLog`] is a list of segments that is changed by small
//! edits in a stream of its own. Segments ascend and do not overlap; gaps between them are allowed; at most the last
//! is active. What a segment is for, and what its attributes say, is the caller's.

mod codec;
mod edit;
mod list;
mod log;

use bytes::Bytes;

pub use log::{FetchedLog, LogBounds, LogRecord, SegmentLog};

use crate::StreamId;

/// A window of a stream and the log offsets it stands for. Both ends are record bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The stream.
    pub stream: StreamId,
    /// The first stream offset of the window.
    pub start: u64,
    /// One past the last, or `None` while records are appended through the slice.
    pub end: Option<u64>,
    /// The log offset that `start` stands for.
    pub base: u64,
}

impl Slice {
    /// The log offset of a stream offset at or after `start`.
    pub fn log_offset(&self, stream_offset: u64) -> u64 {
        debug_assert!(stream_offset >= self.start);
        self.base + (stream_offset - self.start)
    }

    /// The stream offset of a log offset at or after `base`.
    pub fn stream_offset(&self, log_offset: u64) -> u64 {
        debug_assert!(log_offset >= self.base);
        self.start + (log_offset - self.base)
    }

    /// One past its last log offset, or `None` while it is appended to.
    pub fn log_end(&self) -> Option<u64> {
        self.end.map(|end| self.log_offset(end))
    }
}

/// A unit of a log: sealed, or the active one that takes appends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its first log offset.
    pub base: u64,
    /// One past its last log offset, or `None` while it is active.
    pub end: Option<u64>,
    /// Where its records are: ascending, not overlapping, within `base..end`.
    pub slices: Vec<Slice>,
    /// What the caller said of it when it was sealed; opaque, at most [`ATTRIBUTES_BYTES_MAX`] bytes.
    pub attributes: Bytes,
}

impl Segment {
    /// Whether it takes no more appends.
    pub fn is_sealed(&self) -> bool {
        self.end.is_some()
    }
}

/// How [`SegmentLog::truncate`] cuts a log.
#[derive(Clone, Debug)]
pub struct Truncation {
    /// Where the first record or segment that goes begins.
    pub cut: u64,
    /// Where the log goes on, at or past the cut; what lies between is a gap.
    pub end: u64,
    /// Where it starts, at or below `end`.
    pub start: u64,
    /// Those of the segment that the cut lies in.
    pub attributes: Bytes,
    /// The first note of the segment that is begun.
    pub note: Option<Bytes>,
    /// The whole of the owner's state.
    pub state: Bytes,
}

/// The most bytes of attributes of one segment.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of one annotation.
pub const ANNOTATION_BYTES_MAX: usize = 1024;
/// The most annotations of the active segment.
pub const ANNOTATIONS_MAX: usize = 4096;
/// The most slices of one segment.
pub const SLICES_MAX: usize = 1024;
