//! A write-ahead log with one contract and several homes: opaque bytes at positions.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod error;

pub use error::Error;

/// A place in a log: bytes since the log was made, over all its epochs. Never an offset of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(u64);

impl Position {
    /// Wraps a number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
