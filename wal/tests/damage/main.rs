//! Bad input and bad devices: damaged frames and superblocks, other people's logs, newer formats, truncated and failing devices. Each ends in one error
//! that names the thing, and nothing is overwritten.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

mod failures;
mod frames;
mod places;
mod superblocks;
mod support;
