//! Buckets in memory and in a directory; retries over a store that fails as told.

mod slow;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use object_store::{
    CopyOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutResult,
};
use parking_lot::Mutex;

use super::*;

/// What happens to a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// 500, and nothing was done.
    Before,
    /// Done, and then a 500 or a lost answer.
    After,
    /// A conflict although nothing is there, as a 409 says.
    Conflict,
}

/// What a store says of what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Odd {
    /// A range is answered with the whole object.
    WholeForRange,
    /// A range is an error.
    NoRanges,
    /// A listing shows nothing.
    ListsLate,
}

/// A store in memory whose next writes fail as told.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyStore {
    store: Arc<InMemory>,
    faults: Arc<Mutex<VecDeque<Option<Fault>>>>,
    /// So many deletions do their work and lose the answer.
    lost_deletions: Arc<AtomicU32>,
    odd: Option<Odd>,
}

impl FaultyStore {
    /// The faults of the next writes, in order; `None` is a write that goes well.
    pub(crate) fn plan(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.faults.lock().extend(faults);
    }

    pub(crate) fn planned(&self) -> usize {
        self.faults.lock().len()
    }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

fn server_error() -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: "500".into(),
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let fault = self.faults.lock().pop_front().flatten();
        match fault {
            None => self.store.put_opts(location, payload, opts).await,
            Some(Fault::Before) => Err(server_error()),
            Some(Fault::After) => {
                self.store.put_opts(location, payload, opts).await?;
                Err(server_error())
            }
            Some(Fault::Conflict) => Err(object_store::Error::AlreadyExists {
                path: location.to_string(),
                source: "409".into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        mut options: GetOptions,
    ) -> object_store::Result<GetResult> {
        match (self.odd, options.range.is_some()) {
            (Some(Odd::WholeForRange), true) => options.range = None,
            (Some(Odd::NoRanges), true) => {
                return Err(object_store::Error::NotImplemented {
                    operation: "ranges".into(),
                    implementer: "faulty".into(),
                });
            }
            _ => {}
        }
        self.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        let lost = Arc::clone(&self.lost_deletions);
        let deleted = self.store.delete_stream(locations);
        let answered = deleted.map(move |deleted| {
            let lose = |left: u32| left.checked_sub(1);
            match lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose) {
                Ok(_) => Err(server_error()),
                Err(_) => deleted,
            }
        });
        answered.boxed()
    }

    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.odd {
            Some(Odd::ListsLate) => Box::pin(futures::stream::empty()),
            _ => self.store.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn swapped(
    bucket: &Bucket,
    path: &Path,
    expected: Option<&Tag>,
    content: &'static str,
) -> Option<Tag> {
    match bucket
        .compare_and_swap(path, expected, bytes(content))
        .await
        .unwrap()
    {
        Swap::Swapped(tag) => Some(tag),
        Swap::Conflict => None,
        Swap::Unknown(error) => panic!("{error}"),
    }
}

async fn swaps_one_at_a_time(bucket: Bucket) {
    let path = bucket.path("metadata/head");
    assert_eq!(bucket.read(&path).await.unwrap(), None);
    let first = swapped(&bucket, &path, None, "one").await.unwrap();
    assert_eq!(swapped(&bucket, &path, None, "two").await, None);
    assert_eq!(
        bucket.read_if_changed(&path, &first).await.unwrap(),
        Read::Unchanged
    );
    let second = swapped(&bucket, &path, Some(&first), "two").await.unwrap();
    assert_eq!(swapped(&bucket, &path, Some(&first), "three").await, None);
    let read = bucket.read_if_changed(&path, &first).await.unwrap();
    assert_eq!(read, Read::Changed(bytes("two"), second.clone()));
    assert_eq!(
        bucket.read(&path).await.unwrap(),
        Some((bytes("two"), second))
    );
    // A swap of what is not there is a conflict, not a creation.
    assert_eq!(
        swapped(&bucket, &bucket.path("other"), Some(&first), "x").await,
        None
    );
    assert_eq!(bucket.read(&bucket.path("other")).await.unwrap(), None);
}

#[tokio::test]
async fn a_swap_in_memory_takes_only_what_it_expects() {
    swaps_one_at_a_time(Bucket::memory(&Entropy::seeded(1)).unwrap()).await;
}

#[tokio::test]
async fn a_swap_in_a_directory_takes_only_what_it_expects() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("a/b");
    swaps_one_at_a_time(Bucket::local(&new, &Entropy::seeded(1)).unwrap()).await;
    // Another handle, as of another process, sees the same.
    let bucket = Bucket::local(&new, &Entropy::seeded(2)).unwrap();
    let (read, tag) = bucket
        .read(&bucket.path("metadata/head"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read, "two");
    assert!(
        swapped(&bucket, &bucket.path("metadata/head"), Some(&tag), "three")
            .await
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_in_a_directory_lose_no_swap() {
    let dir = tempfile::tempdir().unwrap();
    let contender = |seed| {
        let bucket = Bucket::local(dir.path(), &Entropy::seeded(seed)).unwrap();
        tokio::spawn(async move {
            let path = bucket.path("count");
            for _ in 0..20 {
                loop {
                    let (mut next, tag) = match bucket.read(&path).await.unwrap() {
                        Some((read, tag)) => (read.to_vec(), Some(tag)),
                        None => (vec![], None),
                    };
                    next.push(seed as u8);
                    let next = Bytes::from(next);
                    let swap = bucket
                        .compare_and_swap(&path, tag.as_ref(), next)
                        .await
                        .unwrap();
                    if matches!(swap, Swap::Swapped(_)) {
                        break;
                    }
                }
            }
        })
    };
    let contenders: Vec<_> = (0..4).map(contender).collect();
    for contender in contenders {
        contender.await.unwrap();
    }
    let bucket = Bucket::local(dir.path(), &Entropy::seeded(9)).unwrap();
    let (read, _) = bucket.read(&bucket.path("count")).await.unwrap().unwrap();
    for seed in 0..4u8 {
        assert_eq!(read.iter().filter(|byte| **byte == seed).count(), 20);
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let error = Bucket::local(&file.join("below"), &Entropy::seeded(1)).unwrap_err();
    assert!(error.to_string().contains("file/below"), "{error}");
}

fn faulty() -> (Bucket, FaultyStore) {
    let store = FaultyStore::default();
    let bucket = Bucket::new(Arc::new(store.clone()), "p", &Entropy::seeded(1)).unwrap();
    (bucket, store)
}

#[tokio::test(start_paused = true)]
async fn a_new_object_is_written_once_whatever_the_answers_were() {
    let (bucket, store) = faulty();
    let path = bucket.path("x");
    // Lost before, then done but the answer lost, then refused by our own bytes.
    store.plan([Some(Fault::Before), Some(Fault::After)]);
    assert!(bucket.put_new(&path, bytes("ours")).await.unwrap());
    assert_eq!(store.planned(), 0);
    assert!(!bucket.put_new(&path, bytes("more")).await.unwrap());
    assert_eq!(bucket.read(&path).await.unwrap().unwrap().0, "ours");
    // A 409 while nothing is there is no answer.
    store.plan([Some(Fault::Conflict)]);
    assert!(bucket.put_new(&bucket.path("y"), bytes("y")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn retries_are_bounded_and_every_attempt_is_counted() {
    let (bucket, store) = faulty();
    let policy = RetryPolicy {
        tries: 3,
        ..RetryPolicy::default()
    };
    let bucket = bucket.with_retries(policy);
    store.plan([Some(Fault::Before); 3]);
    let error = bucket
        .put_new(&bucket.path("x"), bytes("x"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unavailable);
    assert_eq!(bucket.requests().put, 3);
    assert_eq!(bucket.requests().put_bytes, 3);
}

#[tokio::test(start_paused = true)]
async fn a_first_retry_waits_milliseconds() {
    let (bucket, store) = faulty();
    store.plan([Some(Fault::Before)]);
    let began = tokio::time::Instant::now();
    bucket.put_new(&bucket.path("x"), bytes("x")).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(6),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_swap_is_one_attempt_and_its_doubt_is_told() {
    let (bucket, store) = faulty();
    store.plan([Some(Fault::After)]);
    let path = bucket.path("head");
    let swap = bucket
        .compare_and_swap(&path, None, bytes("x"))
        .await
        .unwrap();
    assert!(matches!(swap, Swap::Unknown(_)), "{swap:?}");
    assert_eq!(bucket.requests().put, 1);
    // Sent again, the same bytes meet themselves.
    assert_eq!(swapped(&bucket, &path, None, "x").await, None);
}

#[tokio::test]
async fn the_ledger_counts_each_kind() {
    let bucket = Bucket::memory(&Entropy::seeded(1)).unwrap();
    let path = bucket.path("a/x");
    bucket.put_new(&path, bytes("12345")).await.unwrap();
    bucket.read(&path).await.unwrap();
    bucket.list(&bucket.path("a"), 5).await.unwrap();
    bucket.delete(&path).await.unwrap();
    bucket.delete(&path).await.unwrap();
    let expected = Requests {
        put: 1,
        get: 1,
        list: 1,
        delete: 2,
        put_bytes: 5,
        get_bytes: 5,
    };
    assert_eq!(bucket.requests(), expected);
    assert_eq!(bucket.requests().total(), 5);
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let bucket = Bucket::new(store, "", &Entropy::seeded(1)).unwrap();
    let error = ClusterFile::open(&bucket, &Entropy::seeded(1), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_ranges_is_refused_by_name_and_one_that_lists_late_is_used() {
    for odd in [Odd::WholeForRange, Odd::NoRanges, Odd::ListsLate] {
        let entropy = Entropy::seeded(1);
        let store = Arc::new(FaultyStore {
            odd: Some(odd),
            ..FaultyStore::default()
        });
        let bucket = Bucket::new(store, "p", &entropy).unwrap();
        let opened = ClusterFile::open(&bucket, &entropy, None).await;
        match odd {
            Odd::ListsLate => drop(opened.unwrap()),
            _ => {
                let error = opened.unwrap_err();
                assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{odd:?}: {error}");
                assert!(error.to_string().contains("range"), "{odd:?}: {error}");
                assert!(
                    bucket
                        .read(&bucket.path("cluster"))
                        .await
                        .unwrap()
                        .is_none()
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_tried_again_but_not_for_ever() {
    let store = FaultyStore::default();
    let bucket = Bucket::new(Arc::new(store.clone()), "", &Entropy::seeded(1)).unwrap();
    let path = bucket.path("gone");
    assert!(bucket.put_new(&path, bytes("content")).await.unwrap());
    store.lost_deletions.store(3, Ordering::Relaxed);
    bucket.delete(&path).await.unwrap();
    assert_eq!(bucket.requests().delete, 4);
    assert_eq!(bucket.read(&path).await.unwrap(), None);
    store.lost_deletions.store(u32::MAX, Ordering::Relaxed);
    let error = bucket.delete(&path).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unavailable);
    let tries = u64::from(RetryPolicy::default().tries);
    assert_eq!(bucket.requests().delete, 4 + tries);
}
