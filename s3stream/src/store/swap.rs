//! Replacing an object only if it still is what it was: the one primitive under the bucket sequencer.
//!
//! `Swapped` and `Conflict` are certain; `Unknown` says that the bytes may have been written or may yet be.

use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutPayload, UpdateVersion, path::Path};
use sha2::{Digest, Sha256};

use super::{Bucket, is_transient, no_tags, retry::time_of, store_error};
use crate::{Error, Result};

/// One version of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag(Version);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Version {
    /// What the store calls it.
    Store(UpdateVersion),
    /// What is in it: where the store has no conditional update.
    Content([u8; 32]),
}

impl Tag {
    pub(super) fn of_store(e_tag: Option<String>, version: Option<String>) -> Option<Self> {
        let named = e_tag.is_some() || version.is_some();
        named.then_some(Self(Version::Store(UpdateVersion { e_tag, version })))
    }

    pub(super) fn of_content(bytes: &[u8]) -> Self {
        Self(Version::Content(Sha256::digest(bytes).into()))
    }

    pub(super) fn e_tag(&self) -> Option<&str> {
        match &self.0 {
            Version::Store(version) => version.e_tag.as_deref(),
            Version::Content(_) => None,
        }
    }
}

/// What became of a swap.
#[derive(Clone, Debug)]
pub enum Swap {
    /// The object is ours, under this tag.
    Swapped(Tag),
    /// The object was another than expected, or there was one where none was. It may be ours, from an attempt whose answer was lost.
    Conflict,
    /// No answer that says: it may have happened, and may yet happen.
    Unknown(Error),
}

impl Bucket {
    /// Replaces the object if it is what `expected` names, or makes it if nothing is expected. One attempt. An error is definite:
    /// nothing was written. No two callers may ever offer the same bytes for one path: what is there with one's own bytes is one's own.
    pub async fn compare_and_swap(
        &self,
        path: &Path,
        expected: Option<&Tag>,
        bytes: Bytes,
    ) -> Result<Swap> {
        if let Some(local) = &self.local {
            self.ledger.count_put(bytes.len());
            return local.swap(path, expected, bytes).await;
        }
        let mode = match expected.map(|tag| &tag.0) {
            Some(Version::Store(version)) => PutMode::Update(version.clone()),
            Some(Version::Content(_)) => {
                return Err(Error::internal("a tag of another kind of store").with("path", path));
            }
            None => PutMode::Create,
        };
        let limit = SWAP_TIMEOUT + time_of(bytes.len() as u64) * 16;
        // Past the retries: what an answer means is decided above.
        let put = self
            .ledger
            .put_opts(path, PutPayload::from(bytes), mode.into());
        match tokio::time::timeout(limit, put).await {
            Ok(Ok(done)) => match Tag::of_store(done.e_tag, done.version) {
                Some(tag) => Ok(Swap::Swapped(tag)),
                None => Err(no_tags(path)),
            },
            Ok(Err(object_store::Error::Precondition { .. })) => Ok(Swap::Conflict),
            // 412 to a creation, or a 409 to either, which says nothing: the caller looks.
            Ok(Err(object_store::Error::AlreadyExists { .. })) => Ok(Swap::Conflict),
            Ok(Err(error)) if is_transient(&error) => {
                Ok(Swap::Unknown(store_error("swap", path, error)))
            }
            Ok(Err(error)) => Err(store_error("swap", path, error)),
            Err(_) => Ok(Swap::Unknown(
                Error::unavailable("swap object: no answer")
                    .with("path", path)
                    .with("within", format_args!("{limit:?}")),
            )),
        }
    }
}

/// Then, and after what the bytes take at 64 KiB a second, the same bytes are sent again.
const SWAP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
