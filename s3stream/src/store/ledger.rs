//! A count of every request that reaches the store, and of the bytes.
//!
//! Counts only grow. A read that another read's bytes served is not a request; a listing counts one for each thousand names.
//! It does not know prices.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};

/// Names in one answer of a listing.
const NAMES_PER_LIST: u64 = 1000;

/// Requests since the bucket was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// Writes and copies, each part of a large one by itself.
    pub put: u64,
    /// Reads, also of metadata alone.
    pub get: u64,
    /// Listings.
    pub list: u64,
    /// Objects whose deletion was asked.
    pub delete: u64,
    /// Bytes sent in writes.
    pub put_bytes: u64,
    /// Bytes of the ranges that reads were answered with.
    pub get_bytes: u64,
}

impl Requests {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.put + self.get + self.list + self.delete
    }
}

#[derive(Debug, Default)]
struct Counts {
    put: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    put_bytes: AtomicU64,
    get_bytes: AtomicU64,
}

impl Counts {
    fn put(&self, bytes: usize) {
        self.put.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Counts what passes through it.
pub struct Ledger {
    store: Arc<dyn ObjectStore>,
    counts: Arc<Counts>,
}

impl Ledger {
    /// A ledger before `store`.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            counts: Arc::default(),
        }
    }

    /// What was counted so far.
    pub fn requests(&self) -> Requests {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests {
            put: read(&self.counts.put),
            get: read(&self.counts.get),
            list: read(&self.counts.list),
            delete: read(&self.counts.delete),
            put_bytes: read(&self.counts.put_bytes),
            get_bytes: read(&self.counts.get_bytes),
        }
    }

    /// A page of a listing that took another way.
    pub(super) fn count_list(&self) {
        self.counts.list.fetch_add(1, Ordering::Relaxed);
    }

    /// A write that took another way.
    pub(super) fn count_put(&self, bytes: usize) {
        self.counts.put(bytes);
    }
}

/// The store by its display alone: its debug form may hold a part of the credentials.
impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({}, {:?})", self.store, self.requests())
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

/// Counts names as they pass: one listing for the first, one more for each thousand.
fn count_names(
    counts: &Arc<Counts>,
    names: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    counts.list.fetch_add(1, Ordering::Relaxed);
    let counts = Arc::clone(counts);
    let mut seen = 0u64;
    names
        .inspect(move |_| {
            seen += 1;
            if seen.is_multiple_of(NAMES_PER_LIST) {
                counts.list.fetch_add(1, Ordering::Relaxed);
            }
        })
        .boxed()
}

#[async_trait]
impl ObjectStore for Ledger {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.counts.put(payload.content_length());
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.counts.put(0);
        let upload = self.store.put_multipart_opts(location, opts).await?;
        let counts = Arc::clone(&self.counts);
        Ok(Box::new(CountedUpload { upload, counts }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.counts.get.fetch_add(1, Ordering::Relaxed);
        let head = options.head;
        let found = self.store.get_opts(location, options).await?;
        if !head {
            let Range { start, end } = found.range;
            let bytes = end.saturating_sub(start);
            self.counts.get_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let counts = Arc::clone(&self.counts);
        let counted = locations.inspect(move |_| {
            counts.delete.fetch_add(1, Ordering::Relaxed);
        });
        self.store.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        count_names(&self.counts, self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        count_names(&self.counts, self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.store.list_with_delimiter(prefix).await;
        let names = listed.as_ref().map_or(0, |listed| {
            listed.objects.len() + listed.common_prefixes.len()
        });
        let pages = 1 + names as u64 / NAMES_PER_LIST;
        self.counts.list.fetch_add(pages, Ordering::Relaxed);
        listed
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.counts.put(0);
        self.store.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct CountedUpload {
    upload: Box<dyn MultipartUpload>,
    counts: Arc<Counts>,
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.counts.put(data.content_length());
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.counts.put(0);
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.counts.delete.fetch_add(1, Ordering::Relaxed);
        self.upload.abort().await
    }
}
