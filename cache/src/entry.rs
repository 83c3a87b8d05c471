//! What a log cache holds.

use std::ops::Range;

/// Something that a log acknowledged: a run of offsets of one stream.
///
/// The three answers must not change while the entry is held. `range()` is called O(log n) times by a look-up, so it
/// should only read fields.
pub trait Entry: Clone + Send + Sync {
    /// The stream it belongs to.
    fn stream(&self) -> u64;

    /// The offsets it holds; never empty.
    fn range(&self) -> Range<u64>;

    /// Bytes of memory that it points to. The entry's own `size_of` is counted by the cache.
    fn size(&self) -> usize;
}
