//! The log in a directory that several hosts may mount: NFSv3 and v4, EFS, FSx, Azure Files, or any POSIX directory (F3). `docs/format.md`, "NFS log".
//!
//! - An epoch writes only files of its own, so a zombie cannot touch what a later owner wrote; together they are the ring of a block log, with its
//!   frames, superblocks and group commit.
//! - A lease is a chain of numbered files. Whoever links the first missing number owns the directory, after it has waited for the owner before.
//! - `acknowledged ⇒ durable, and after that: lease valid on the own clock, or renewed`.
//! - Idle costs nothing: a lease is renewed by the write that needs it.
//!
//! It takes no lock that a server keeps, except as a courtesy to [`identify`](crate::Backend::identify); it maps no memory, and repeats no write or sync
//! that failed (W6). Outside of its bound are hosts whose clock since boot can stop (a virtual machine that is paused, and whose clock does not catch up
//! when it goes on) or runs slower than [`Config::drift_ppm`] allows: such an owner would believe in a lease that has ended.

#[cfg(not(unix))]
compile_error!("the NFS log needs a Unix: positioned reads and writes, links");

mod config;
mod directory;
mod lease;
mod lease_record;
mod look;
mod mounted;
mod names;
mod nfs_log;
mod threads;
mod volume;

pub use config::Config;
pub use directory::{Directory, DirectoryFile, Guard};
pub use mounted::MountedDirectory;
pub use nfs_log::NfsLog;
