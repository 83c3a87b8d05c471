//! The simulator: production code on a paused clock, a seed, and modelled parts that fail.
//!
//! `same seed, same trace`. [`simulate_log`] takes the block log alone through crashes of the process and of the host.
//!
//! It does not model several nodes, clocks that drift, or bytes that rot by themselves.

mod bucket;
mod clock;
mod disk;
mod entropy;
mod faults;
mod log_alone;
#[cfg(feature = "mutations")]
mod mutation;
mod outcome;
mod trace;
mod violation;
mod watch;

pub use bucket::{BucketLie, SimBucket};
pub use clock::SimClock;
pub use disk::{AttachedDisk, Crash, Lie, SimDisk};
pub use entropy::Entropy;
pub use faults::{Fault, Faults};
pub use log_alone::simulate_log;
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use outcome::{Counters, Outcome, Settings};
pub use trace::Trace;
pub use violation::Violation;
