//! The block log: a ring over a preallocated file or a raw block device (F2). `docs/format.md`, "Block log".
//!
//! - `superblock copies | ring`; ring space is reused only below the tail that both copies hold.
//! - A block that holds an acknowledged record is never rewritten; a frame begins on a block of its own.
//! - An acknowledgement follows the completion of the durable write that covers it, and of all before it.
//!
//! [`BlockLog`] is the place; under it is a [`Device`], of which [`FileDevice`] is the real one. The log itself has no threads and no clocks.
//!
//! What it cannot know: the very last acknowledged frame, damaged afterwards, looks like one that was never finished, unless a close, a trim or a
//! later frame recorded that it was durable. And one host: see [`BlockLog`].

#[cfg(not(unix))]
compile_error!("the block log needs a Unix: positioned reads and writes, locks, O_EXCL");

pub(crate) mod aligned;
mod appends;
mod block_log;
mod config;
mod device;
mod file;
mod frame;
mod gather;
mod pipeline;
pub(crate) mod reader;
pub(crate) mod replay;
mod reservation;
pub(crate) mod ring;
mod scan;
pub(crate) mod superblock;
pub(crate) mod syncs;

pub use block_log::BlockLog;
pub use config::Config;
pub use device::{Device, Geometry, ReadDone, WriteDone};
pub use file::{FileDevice, FileOptions, Io};
pub use reservation::{Refusal, Reservations};
