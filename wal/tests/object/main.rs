//! The object log in modelled buckets, where each request takes effect and is answered when the test says; nearly all of it on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

mod answers;
mod conformance;
mod crash;
mod damage;
mod hostile;
#[path = "../support/records.rs"]
mod records;
mod support;
mod zombies;
