//! The engine as its users see it, on real parts: block log files, directories as buckets, memory.

mod support;
mod switch;

mod append;
mod bad_input;
mod cleanup;
mod cut_close;
mod lifecycle;
mod limits;
mod log_failure;
mod nfs;
mod object_wal;
#[cfg(feature = "aws")]
mod real_s3;
