//! The bucket: what the engine needs of an object store, on memory, a local directory, S3, Azure and GCS.
//!
//! Every object of a cluster lies under one prefix. Each attempt is counted in the ledger; the store library's own retries are off
//! and ours sit above it, so that deadlines hold. A swap whose outcome is not certain is never called failed (M, the bucket sequencer).
//! It does not know what objects mean, and it keeps no credentials.

mod cluster;
mod fit;
mod gather;
mod ledger;
mod local;
mod log;
mod place;
mod remote;
mod retry;
mod swap;

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    GetOptions, ObjectStore, PutMode, PutPayload, local::LocalFileSystem, memory::InMemory,
    path::Path,
};

pub use self::{
    cluster::ClusterFile,
    ledger::{Ledger, Requests},
    place::{BucketPlace, LogPlace, MetadataPlace, RemoteKind, RemotePlace},
    remote::Credentials,
    retry::{RetryPolicy, Retrying},
    swap::{Swap, Tag},
};
use self::{gather::Gathering, local::LocalSwap, retry::is_transient};
use crate::{Error, Result, entropy::Entropy};

/// One cluster's part of an object store. Clones share everything.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Retrying above counting above the store itself.
    store: Arc<Retrying>,
    ledger: Arc<Ledger>,
    prefix: Path,
    /// A local directory has no conditional update of its own.
    local: Option<Arc<LocalSwap>>,
}

/// What a conditional read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// What the tag names.
    Unchanged,
    /// Something else.
    Changed(Bytes, Tag),
    /// No such object.
    Missing,
}

impl Bucket {
    /// A store of the caller's, which must have conditional writes, and the prefix of the cluster in it.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str, entropy: &Entropy) -> Result<Self> {
        Self::with(store, prefix, None, entropy)
    }

    /// A bucket in memory, empty, that lives as long as its clones.
    pub fn memory(entropy: &Entropy) -> Result<Self> {
        Self::new(Arc::new(InMemory::new()), "", entropy)
    }

    /// A local directory, made if it is missing. What was written is durable when the call returns.
    pub fn local(dir: &std::path::Path, entropy: &Entropy) -> Result<Self> {
        local::create_dir("directory of the bucket", dir)?;
        let store = LocalFileSystem::new_with_prefix(dir)
            .map_err(|error| store_error("open", &Path::default(), error))?
            // Files, and every directory entry on the way to them.
            .with_fsync(true);
        let swap = LocalSwap::new(dir)?;
        let store = Arc::new(Gathering(store));
        Self::with(store, "", Some(Arc::new(swap)), entropy)
    }

    fn with(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        local: Option<Arc<LocalSwap>>,
        entropy: &Entropy,
    ) -> Result<Self> {
        let prefix = Path::parse(prefix).map_err(|error| {
            Error::invalid("prefix of the bucket")
                .with("prefix", prefix)
                .caused_by(error)
        })?;
        let ledger = Arc::new(Ledger::new(store));
        let counted = Arc::clone(&ledger) as Arc<dyn ObjectStore>;
        let store = Retrying::new(counted, RetryPolicy::default(), entropy.clone());
        Ok(Self {
            store: Arc::new(store),
            ledger,
            prefix,
            local,
        })
    }

    /// Another policy for retries.
    #[must_use]
    pub fn with_retries(mut self, policy: RetryPolicy) -> Self {
        self.store = Arc::new(self.store.with_policy(policy));
        self
    }

    /// The store, retrying and counted. Paths are from the root of the store: see [`Bucket::path`].
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as Arc<dyn ObjectStore>
    }

    /// The store, counted and not retrying: for a log, which settles its own requests.
    pub fn counted(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.ledger) as Arc<dyn ObjectStore>
    }

    fn count_list(&self) {
        self.ledger.count_list();
    }

    /// The prefix of the cluster.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// A path under the prefix; `name` has parts divided by `/`.
    pub fn path(&self, name: &str) -> Path {
        let parts = name.split('/');
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// What was asked of the store so far, every attempt counted.
    pub fn requests(&self) -> Requests {
        self.ledger.requests()
    }

    /// An object and the tag of this version.
    pub async fn read(&self, path: &Path) -> Result<Option<(Bytes, Tag)>> {
        match self.get(path, None).await? {
            Read::Changed(bytes, tag) => Ok(Some((bytes, tag))),
            Read::Missing => Ok(None),
            Read::Unchanged => Err(Error::internal("an unconditional read was not answered")),
        }
    }

    /// An object, unless it still is what `tag` names: then one small request.
    pub async fn read_if_changed(&self, path: &Path, tag: &Tag) -> Result<Read> {
        Ok(match self.get(path, tag.e_tag()).await? {
            Read::Changed(_, found) if found == *tag => Read::Unchanged,
            read => read,
        })
    }

    async fn get(&self, path: &Path, unless: Option<&str>) -> Result<Read> {
        let options = GetOptions {
            // The local store's tag is a file's time and size, which two versions may share.
            if_none_match: unless.filter(|_| self.local.is_none()).map(str::to_owned),
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(path, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Read::Missing),
            Err(object_store::Error::NotModified { .. }) => return Ok(Read::Unchanged),
            Err(error) => return Err(store_error("read", path, error)),
        };
        let version = (found.meta.e_tag.clone(), found.meta.version.clone());
        let bytes = found
            .bytes()
            .await
            .map_err(|error| store_error("read", path, error))?;
        let tag = match self.local {
            Some(_) => Tag::of_content(&bytes),
            None => Tag::of_store(version.0, version.1).ok_or_else(|| no_tags(path))?,
        };
        Ok(Read::Changed(bytes, tag))
    }

    /// Writes an object if there is none. Whether what is there now is ours: an object with these very bytes is, from an attempt
    /// whose answer was lost.
    pub async fn put_new(&self, path: &Path, bytes: Bytes) -> Result<bool> {
        let options = PutMode::Create.into();
        match self
            .store
            .put_opts(path, PutPayload::from(bytes), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(store_error("write", path, error)),
        }
    }

    /// Removes an object, if it is there.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.store.delete_one(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error("delete", path, error)),
        }
    }

    /// Whether nothing is under a folder, but for the lock files of a local directory.
    pub async fn is_empty(&self, folder: &Path) -> Result<bool> {
        let mut listed = self.store.list(Some(folder));
        loop {
            match listed.try_next().await {
                Ok(Some(found)) if found.location.as_ref().ends_with(".lock") => {}
                Ok(found) => return Ok(found.is_none()),
                Err(error) => return Err(store_error("list", folder, error)),
            }
        }
    }

    /// Names under a folder, ascending; refused when there are more than `most`.
    pub async fn list(&self, folder: &Path, most: usize) -> Result<Vec<Path>> {
        let mut listed = self.store.list(Some(folder));
        let mut paths = Vec::new();
        while let Some(found) = listed
            .try_next()
            .await
            .map_err(|error| store_error("list", folder, error))?
        {
            if paths.len() == most {
                return Err(
                    Error::unavailable("a folder of the bucket has too many objects")
                        .with("folder", folder)
                        .with("most", most),
                );
            }
            paths.push(found.location);
        }
        paths.sort_unstable();
        Ok(paths)
    }
}

fn no_tags(path: &Path) -> Error {
    Error::invalid("the store gives no ETag, so there is no conditional write").with("path", path)
}

/// What the caller can do about it; the store's own words as the cause. They hold no credentials: those travel in headers.
pub(crate) fn store_error(what: &'static str, path: &Path, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let kind = match &error {
        Store::NotFound { .. } => crate::ErrorKind::NotFound,
        Store::NotImplemented { .. }
        | Store::NotSupported { .. }
        | Store::InvalidPath { .. }
        | Store::UnknownConfigurationKey { .. } => crate::ErrorKind::Invalid,
        _ => crate::ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{what} object"))
        .with("path", path)
        .caused_by(error)
}

#[cfg(test)]
pub(crate) mod tests;
