//! A write-ahead log with one contract and several homes: opaque bytes at positions.
//!
//! A [`Backend`] is a place where a log lives. Opening it gives a [`Replay`] of what an earlier life acknowledged, and starting that gives a
//! [`Log`] that takes appends and tells a [`Sink`] when they are durable. [`memory::MemoryLog`] is the reference: the contract (W1 to W8) in the
//! fewest lines. [`block`] is the log for disks, [`object`] the one for buckets, [`nfs`] the one for directories that hosts share.
//!
//! It never looks into a record, knows no stream, and keeps no metadata: the caller keeps a [`LogState`] and tells it at every opening.
//!
//! ```
//! use std::sync::Arc;
//! use wal::{Backend, Commit, Error, Identity, LogEpoch, LogState, LogUuid, Sink, memory::MemoryLog};
//!
//! struct Print;
//! impl Sink for Print {
//!     fn durable(&self, commit: Commit) {
//!         println!("{} records durable", commit.records.len());
//!     }
//!     fn failed(&self, error: &Error) {
//!         println!("{error}");
//!     }
//!     fn room(&self) {}
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let backend = MemoryLog::new();
//! let identity = Identity { cluster: 1, log: LogUuid::new(7), node: 1 };
//! let mut state = LogState::new(identity, LogEpoch::new(1));
//!
//! let replay = backend.open(&state).await?;
//! state.begin(replay.ends(), replay.start_position()); // recorded before the start
//! let log = replay.start(Arc::new(Print)).await?;
//! log.append(&[b"hello, ", b"log"])?;
//! log.close().await?;
//!
//! state.grant(LogEpoch::new(2));
//! let mut replay = backend.open(&state).await?;
//! let back = replay.next().await?.expect("one record was acknowledged");
//! assert_eq!(&back[0].payload[..], b"hello, log");
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod admission;
mod backend;
pub mod block;
mod clock;
mod error;
mod id;
mod log;
pub mod memory;
pub mod nfs;
pub mod object;
mod sealed;
mod state;
#[cfg(feature = "testing")]
pub mod testing;

pub use admission::{Admission, Claim, admit};
pub use backend::{Backend, Found, Replay, Replayed};
pub use clock::{BootClock, Clock};
pub use error::Error;
pub use id::{Identity, LogEpoch, LogUuid, Position};
pub use log::{Commit, Durable, Log, Sink, Usage};
pub use state::{EpochEnd, EpochState, LogState};
