//! What an NFS log needs of a directory: whole files made under one name and linked to another, and durable writes in place.
//!
//! - A name leads to one file or to none; [`link`](Directory::link) never replaces. What was linked and [synced](Directory::sync) stays.
//! - A write is durable when its completion says `Ok`; before that any subset of its 512-byte sectors may be there.
//! - [`open`](Directory::open) sees every write and every name that was done before it was called, by whichever host (close-to-open).

use std::{fmt::Debug, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::block::{ReadDone, WriteDone};

/// Held for as long as the place is in exclusive use, where the directory can know that.
pub type Guard = Box<dyn Send + Sync>;

/// A directory, or a model of one.
#[async_trait]
pub trait Directory: Send + Sync + Debug {
    /// What messages call it.
    fn name(&self) -> String;

    /// The names in it, in any order.
    async fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `len` bytes, zero but for `data` at `at`. Its bytes are durable when this returns, its name need not be. `AlreadyExists` if the
    /// name is taken.
    async fn create(&self, name: &str, len: u64, at: u64, data: Bytes) -> io::Result<()>;

    /// Gives a file a second name. `AlreadyExists` may also be said of a link that was made: an answer was lost, and the request repeated.
    async fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// How many names the file with this name has, as the server knows it.
    async fn links(&self, name: &str) -> io::Result<u64>;

    /// Takes a name away. `NotFound` may also be said of a removal that was done.
    async fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names that were made before durable.
    async fn sync(&self) -> io::Result<()>;

    /// Opens a file anew. `NotFound` if there is none.
    async fn open(&self, name: &str) -> io::Result<Arc<dyn DirectoryFile>>;

    /// Exclusive use, as far as this directory can tell; `None` if someone else has it. It keeps nobody from writing: the lease does. A directory that
    /// cannot tell gives a guard.
    async fn guard(&self) -> io::Result<Option<Guard>>;
}

/// An open file. It does not grow: operations outside its length fail.
///
/// Completions come exactly once, on any thread, in any order, never from inside the call; one that is dropped uncalled counts as a failure.
pub trait DirectoryFile: Send + Sync + Debug {
    /// Its length.
    fn len_bytes(&self) -> u64;

    /// Writes `data` at `at` and makes it durable before `done(Ok)`. Both are multiples of 4096, and the memory is aligned to that.
    fn write(&self, at: u64, data: Bytes, done: WriteDone);

    /// Reads `len` bytes from `at`, from the server and not from a cache that may be older than the [`open`](Directory::open).
    fn read(&self, at: u64, len: usize, done: ReadDone);
}
