//! The NFS log in model directories, where hosts sleep, servers lose their power, and answers are lost; nearly all of it in one thread, on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

mod crash;
mod damage;
mod full;
mod lag;
mod process;
#[path = "../support/records.rs"]
mod records;
mod runtime;
mod support;
mod sweep;
mod zombies;
