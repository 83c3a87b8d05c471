//! The block log: a ring over a preallocated file or a raw block device (F2). `docs/format.md`, "Block log".

mod device;

pub use device::{Device, Geometry, ReadDone, WriteDone};
