//! Things at offset ranges, kept in memory and bounded by what they really hold.
//!
//! [`LogCache`] holds what a write-ahead log acknowledged, in blocks cut at log positions, until each block is settled
//! elsewhere and its memory is wanted. [`BlockCache`] holds what was read back, by object and block.
//!
//! This crate does no I/O, knows no log and no object, and has no workspace dependency: what it caches is any [`Entry`].
//! It is not a general cache: a [`LogCache`] has one filler, who inserts in offset order.
//!
//! ```
//! use std::ops::Range;
//!
//! #[derive(Clone)]
//! struct Record(u64, Range<u64>, usize);
//!
//! impl cache::Entry for Record {
//!     fn stream(&self) -> u64 { self.0 }
//!     fn range(&self) -> Range<u64> { self.1.clone() }
//!     fn size(&self) -> usize { self.2 }
//! }
//!
//! let mut log_cache = cache::LogCache::new(64 << 20);
//! log_cache.insert(Record(7, 0..10, 1_000), 4_096)?;
//! log_cache.insert(Record(7, 10..11, 100), 8_192)?;
//! let held = log_cache.get(7, 3..11, usize::MAX);
//! assert_eq!(held.len(), 2);
//!
//! let block = log_cache.seal().expect("something was inserted");
//! assert_eq!(block.position_end(), 8_192);
//! log_cache.settle(block.id());
//! drop(block);
//! log_cache.evict(0);
//! assert_eq!(log_cache.bytes(), 0);
//! # Ok::<(), cache::InsertError>(())
//! ```

mod block_cache;
mod entry;
mod log_cache;

pub use block_cache::{BLOCK_OVERHEAD_BYTES, BlockCache, BlockKey};
pub use entry::Entry;
pub use log_cache::{Block, Evicted, InsertError, LogCache};
