//! What a log and its device are tested with: the suite that every backend passes, and devices that record, forget, tear and fail.
//!
//! For tests alone (feature `testing`): everything here panics instead of returning errors.

#[allow(
    clippy::indexing_slicing,
    reason = "a suite panics where a contract is broken"
)]
mod conformance;
mod device_contract;
mod faulty_device;
mod hear;
mod hostile_store;
mod memory_device;
mod model_directory;
mod model_store;
mod owner_process;
mod recording_device;
mod runtime_clock;
mod shared_disk;
mod states;

pub use conformance::{Storage, conformance};
pub use device_contract::device_conformance;
pub use faulty_device::{Fault, FaultyDevice};
pub use hear::{Hear, Heard};
pub use hostile_store::{HostileStore, Whims};
pub use memory_device::MemoryDevice;
pub use model_directory::{
    Change, DirectoryFault, DirectoryImage, ModelDirectory, ModelHost, Step,
};
pub use model_store::{Asked, Lie, ModelStore, Objects, Request, StoreStep, Waiting};
pub use owner_process::{OwnerProcess, own};
pub use recording_device::{Operation, RecordingDevice};
pub use runtime_clock::RuntimeClock;
pub use shared_disk::{SharedDisk, SharedHost, Step as ReservationStep};
pub use states::{grant_next, new_log, trim_of};
