//! The object format: data blocks, an index and a footer, each with a crc32c that every read checks. `docs/format.md`
//! §object.
//!
//! - `object = data blocks · index · footer`, without gaps: the end of a part is the start of the next.
//! - A block holds records of one run only: one stream, one stream epoch, contiguous offsets.
//! - Runs are sorted by stream, then offset, and do not overlap; every block belongs to one run.
//! - Offsets, counts, positions and sizes are 64-bit (O5): no delta is stored anywhere, so none can overflow.
//! - An object is immutable (O3), and this module never overwrites one. Whether it is visible is the metadata's matter (O1).
//!
//! Payloads are not copied by the writer and not looked into. Nothing here retries or caches.

mod block;
mod footer;
mod index;
mod path;
mod reader;
mod writer;

use std::ops::Range;

pub use block::decode_block;
pub use footer::FORMAT_VERSION;
pub use index::{ObjectIndex, TailStep};
pub use path::{object_id, object_path};
pub use reader::{ReadLimits, read_blocks, read_index};
pub use writer::{Built, ObjectWriter};

use crate::{ClusterId, NodeEpoch, ObjectId, StreamEpoch, StreamId};

/// What an object holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Records of many streams.
    StreamSet,
    /// Records of one stream.
    Stream,
}

/// Who wrote an object, and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FooterInfo {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its id, which is also in its path.
    pub object: ObjectId,
    /// The life of the node that wrote it.
    pub node_epoch: NodeEpoch,
    /// What it holds.
    pub kind: ObjectKind,
}

/// A run: contiguous offsets that one epoch of a stream has written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamRange {
    /// The stream.
    pub stream: StreamId,
    /// The ownership under which the records were appended (S7).
    pub epoch: StreamEpoch,
    /// The offsets; never empty.
    pub offsets: Range<u64>,
}

/// Where a data block is, and what it must turn out to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockRef {
    /// Its place in the object, checksum included.
    pub position: Range<u64>,
    /// The stream of all its records.
    pub stream: StreamId,
    /// The stream epoch of all its records.
    pub epoch: StreamEpoch,
    /// The offsets of its records, together.
    pub offsets: Range<u64>,
}

impl BlockRef {
    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> u64 {
        self.position.end - self.position.start
    }
}

/// Length of a crc32c.
const CRC_LEN: usize = 4;

#[cfg(test)]
mod tests;
