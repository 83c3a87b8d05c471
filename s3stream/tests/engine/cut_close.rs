//! A close that dies between any two of its steps: the same log opens again, and nothing is missing (W7). And an opening that may upload nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use s3stream::{Engine, ErrorKind};

use crate::support::{LONG, Places, check, fill, small};

/// A bucket that takes so many writes of the metadata, or of all else, and no more.
#[derive(Debug)]
struct Cut {
    store: Arc<dyn ObjectStore>,
    metadata: bool,
    left: AtomicI64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Cut {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let metadata = location.as_ref().contains("/metadata/");
        if metadata == self.metadata && self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            let source = "cut off".into();
            return Err(Error::Generic {
                store: "test",
                source,
            });
        }
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

async fn open(store: Arc<dyn ObjectStore>) -> Engine {
    let builder = Engine::builder().object_store(store, "cluster");
    let builder = builder.wal("object:").config(small());
    builder.open().await.expect("the log opens")
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_cut_off_anywhere_leaves_a_log_that_opens() {
    let mut closed = false;
    let mut cut_off = 0;
    for writes in 0.. {
        let places = Places::new();
        let engine = open(places.bucket.clone()).await;
        let kept = engine.create_stream().await.unwrap();
        let dropped = engine.create_stream().await.unwrap();
        // At the end of the first life's log lies what nobody wants any more. The second one owes the rest.
        fill(&kept, 20, 1_000).await;
        fill(&dropped, 600, 1_000).await;
        dropped.trim(..600).await.unwrap();
        drop(engine);
        let cut = Arc::new(Cut {
            store: places.bucket.clone(),
            metadata: true,
            left: AtomicI64::new(i64::MAX),
        });
        let engine = open(cut.clone()).await;
        let stream = engine.open_stream(kept.id()).await.unwrap();
        cut.left.store(writes, Ordering::SeqCst);
        match engine.close(Duration::from_secs(5)).await {
            Ok(()) => closed = true,
            Err(_) => cut_off += 1,
        }
        drop((engine, stream));

        let engine = open(places.bucket.clone()).await;
        let stream = engine.open_stream(kept.id()).await.unwrap();
        assert_eq!(stream.confirm(), 20, "after {writes} writes");
        check(&stream, 0..20, 1_000).await;
        engine.close(LONG).await.unwrap();
        if closed {
            break;
        }
    }
    assert!(cut_off >= 3, "{cut_off} places to cut");
}

/// More is in the log than may stay in memory, and the bucket takes none of it.
#[tokio::test(start_paused = true)]
async fn an_opening_that_may_upload_nothing_ends_with_an_error() {
    let places = Places::new();
    let cut = Arc::new(Cut {
        store: places.bucket.clone(),
        metadata: false,
        left: AtomicI64::new(i64::MAX),
    });
    let builder = || places.builder().object_store(cut.clone(), "cluster");
    let engine = builder().open().await.unwrap();
    let stream = engine.create_stream().await.unwrap();
    cut.left.store(0, Ordering::SeqCst);
    fill(&stream, 3_000, 1_000).await;
    drop(engine);
    let hour = Duration::from_secs(3_600);
    let opened = tokio::time::timeout(hour, builder().open()).await;
    let error = opened.expect("it does not wait for ever").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    cut.left.store(i64::MAX, Ordering::SeqCst);
    let engine = builder().open().await.unwrap();
    let stream = engine.open_stream(stream.id()).await.unwrap();
    check(&stream, 0..3_000, 1_000).await;
}
