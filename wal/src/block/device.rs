//! Bytes at offsets that survive: what a block log needs of a disk, event-driven so that a simulator can put tasks where a real one has threads.
//!
//! - A completion comes exactly once, on any thread, in any order, and never from inside the call that asked for it.
//! - A write is durable when its completion says `Ok`. A write that has not completed may be there, not at all, or in part: any subset of its
//!   512-byte sectors.
//! - After a `sync` completes, what `read` returns is what would be read after a power cut, unless something was written since.

use std::{fmt::Debug, io, sync::Arc};

use bytes::Bytes;

use super::reservation::Reservations;

/// Takes the outcome of a write or a sync.
pub type WriteDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Takes the outcome of a read: as many bytes as were asked for, or an error.
pub type ReadDone = Box<dyn FnOnce(io::Result<Bytes>) + Send>;

/// The shape of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Writes and reads start at multiples of this and are multiples of this long, and so is their memory: a power of two, at most 4096.
    pub block_bytes: u32,
    /// Its length.
    pub len_bytes: u64,
}

impl Geometry {
    /// Whether a device of this shape can do an operation on `len` bytes at `at`.
    ///
    /// # Errors
    /// `InvalidInput` that names both.
    pub fn admits(&self, at: u64, len: usize) -> io::Result<()> {
        let block = u64::from(self.block_bytes);
        let fits = at
            .checked_add(len as u64)
            .is_some_and(|end| end <= self.len_bytes);
        if fits && at.is_multiple_of(block) && (len as u64).is_multiple_of(block) {
            return Ok(());
        }
        let text = format!(
            "{len} bytes at {at} of {}, in blocks of {block}",
            self.len_bytes
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// Whether it can write `data` at `at`, from the memory where that is.
    ///
    /// # Errors
    /// `InvalidInput` that says why not.
    pub fn admits_write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.admits(at, data.len())?;
        if data.is_empty()
            || data
                .as_ptr()
                .addr()
                .is_multiple_of(self.block_bytes as usize)
        {
            return Ok(());
        }
        let text = format!("memory not in blocks of {}", self.block_bytes);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// A disk, a file, or a model of one. What its geometry does not [admit](Geometry::admits) fails with `InvalidInput`, changes nothing, and leaves the
/// device as it was. A medium that has become shorter than its geometry says answers a read with `UnexpectedEof`.
///
/// Dropping a completion uncalled counts as a failed operation. Dropping the device drops the completions of what it has not begun.
pub trait Device: Send + Sync + Debug {
    /// Its shape. Does not change.
    fn geometry(&self) -> Geometry;

    /// Writes `data` at `at`, and makes it durable before `done(Ok)`.
    fn write(&self, at: u64, data: Bytes, done: WriteDone);

    /// Reads `len` bytes from `at`.
    fn read(&self, at: u64, len: usize, done: ReadDone);

    /// Makes everything that was written before durable, however it was written and by whom, and forgets any copy that is not the device's own.
    fn sync(&self, done: WriteDone);

    /// What keeps other hosts from writing to it, where it can be attached to several. A write that was kept out fails with `EBADE`, which ends a log as
    /// fenced.
    fn reservations(&self) -> Option<Arc<dyn Reservations>> {
        None
    }

    /// What messages call it.
    fn name(&self) -> String;
}
