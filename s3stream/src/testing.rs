//! What tests of this crate and of those above it need and no production code uses: real servers, started and stopped by the test.
//!
//! Only with feature `testing`. The simulator's models live in its own crate, the log's devices in [`wal::testing`](crate::wal).

#[cfg(feature = "aws")]
mod moto;
#[cfg(feature = "aws")]
mod seaweedfs;

#[cfg(feature = "aws")]
pub use moto::Moto;
#[cfg(feature = "aws")]
pub use seaweedfs::SeaweedFs;
