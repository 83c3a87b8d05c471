//! The object log: a log in any bucket with conditional writes (F1). `docs/format.md`, "Object log".
//!
//! - Objects of an epoch have consecutive numbers and are made with put-if-absent; numbers go on over epochs, and `position = number · 2²⁶ + byte`.
//! - The PUT is the lease check: an acknowledgement follows the PUT of its object and of all below it, and costs no other request.
//! - An epoch ends at its lowest fence, whoever put it. A fence takes the one number that its epoch must still write, and is never deleted.
//! - A PUT has failed only when another's object has its number (W6); whatever else happens to it is tried again or settled by reading.
//! - An idle log makes no request.
//!
//! [`ObjectLog`] is the place. The store that it is given must not retry by itself: attempts are counted, timed and hedged here.
//!
//! What it does not do: it has no lease and knows no exclusive use, so whoever opens fences the owner. LIST decides nothing, it saves requests.
//! Nothing is read in ranges. Life-cycle rules of the bucket must spare its prefix.

mod appends;
mod budget;
mod config;
mod driver;
mod fence;
mod folder;
mod format;
mod gather;
mod listing;
mod mark;
mod object_log;
mod pace;
mod pipeline;
mod probe;
mod put;
mod replay;

pub use config::Config;
pub use object_log::ObjectLog;
