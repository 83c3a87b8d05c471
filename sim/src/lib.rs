//! The simulator: production code on a paused clock, a seed, and modelled parts that fail.
//!
//! `same seed, same trace`. [`simulate`] takes a node through faults and crashes of the process and of the host, and
//! checks what it promised against S1 to S5, O1, O2 and W8, with its log on the disk or in the bucket; [`simulate_log`] takes the block log alone.
//!
//! It does not model several nodes, clocks that drift, or bytes that rot by themselves.

mod actor;
mod bucket;
mod checker;
mod clock;
mod disk;
mod entropy;
mod faults;
mod life;
mod log_alone;
#[cfg(feature = "mutations")]
mod mutation;
mod outcome;
mod payload;
mod trace;
mod violation;
mod watch;
mod world;

pub use bucket::{BucketLie, SimBucket};
pub use clock::SimClock;
pub use disk::{AttachedDisk, Crash, Lie, SimDisk};
pub use entropy::Entropy;
pub use faults::{Fault, Faults};
pub use log_alone::simulate_log;
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use outcome::{Counters, LogKind, Outcome, Settings};
pub use trace::Trace;
pub use violation::Violation;
pub use world::simulate;
