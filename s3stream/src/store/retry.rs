//! Retries above the store: bounded tries, jittered waits that start in milliseconds, one deadline for all of them.
//!
//! - An attempt has a limit that grows with its bytes, and doubles when it is reached: a store that stalls is found again soon after it comes back,
//!   and a way that carries 64 KiB a second carries every object.
//! - Answers that come in pieces (listings, batches of deletes, large bodies) have a limit for each piece. Nothing waits without one.
//!
//! Reads, listings that gave nothing yet, plain writes and deletes are tried again. A write of a new object is settled by content: what
//! is there with our bytes is ours. A conditional update is tried once: only its caller knows what an answer means.
//! Multipart uploads, copies and streams of deletes pass through: [`Bucket::delete`](super::Bucket::delete) is the one that is tried again.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, path::Path,
};
use tokio::time::Instant;

use crate::entropy::Entropy;

/// Reads up to this size are taken in whole, so that a connection that breaks midway is a retry too.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, at least one.
    pub tries: u32,
    /// The wait after the first failure is below this; the bound doubles.
    pub first_wait: Duration,
    /// The bound of a wait.
    pub wait_max: Duration,
    /// What an attempt may take, and beside it the time of its bytes at 1 MiB a second. Doubles with each attempt that takes longer, up to 16 times.
    pub attempt: Duration,
    /// No attempt begins after this and 40 times the time of its bytes, and none runs longer.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 10,
            first_wait: Duration::from_millis(5),
            wait_max: Duration::from_secs(1),
            attempt: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
        }
    }
}

const BYTES_PER_S: u64 = 1 << 20;
const DOUBLINGS_MAX: u32 = 4;
/// Attempts that take 1, 2, 4, 8 and 16 times what the bytes take, and their waits.
const PATIENCE_MULTIPLE: u32 = 40;

/// What bytes take at first.
pub(super) fn time_of(len: u64) -> Duration {
    Duration::from_millis(len.min(u32::MAX.into()) * 1000 / BYTES_PER_S)
}

fn unanswered(limit: Duration) -> Error {
    Error::Generic {
        store: "bucket",
        source: format!("no answer within {limit:?}").into(),
    }
}

/// A stream each item of which must come within `limit`; it ends with the first that does not.
fn paced<T: Send + 'static>(
    limit: Duration,
    items: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let next = move |items: Option<BoxStream<'static, Result<T>>>| async move {
        let mut items = items?;
        match tokio::time::timeout(limit, items.next()).await {
            Ok(item) => item.map(|item| (item, Some(items))),
            Err(_) => Some((Err(unanswered(limit)), None)),
        }
    };
    futures::stream::unfold(Some(items), next).boxed()
}

/// Whether the same request may succeed later.
pub(crate) fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Generic { .. } | Error::JoinError { .. })
}

/// Whether the store has answered that it will not do this, and will say so again; for what is not known it has not. Nothing is said of an object,
/// or a bucket, that is missing.
pub(super) fn is_refusal(error: &Error) -> bool {
    match error {
        Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotImplemented { .. }
        | Error::NotSupported { .. } => true,
        Error::Generic { source, .. } => {
            let causes = std::iter::successors(Some(&**source as &Cause), |cause| cause.source());
            causes.filter_map(status_of).next().is_some_and(|status| {
                // 408 and 429 ask for patience.
                matches!(status, 300..=407 | 409..=428 | 430..=499 | 501)
            })
        }
        _ => false,
    }
}

type Cause = dyn std::error::Error + 'static;

/// The status that an error of the store's client speaks of: the type that has it is the library's own. A test has the library say it.
fn status_of(error: &Cause) -> Option<u16> {
    let text = error.to_string();
    let (_, status) = text.split_once("status code: ")?;
    status.get(..3)?.parse().ok()
}

/// The waits of one request.
struct Tries<'a> {
    policy: &'a RetryPolicy,
    entropy: &'a Entropy,
    began: Instant,
    failed: u32,
    /// How many of them were time-outs.
    late: u32,
    /// The most bytes that an attempt carried.
    longest: u64,
}

impl Tries<'_> {
    fn left(&self) -> Duration {
        let most = self.policy.deadline + time_of(self.longest) * PATIENCE_MULTIPLE;
        most.saturating_sub(self.began.elapsed())
    }

    /// Runs one attempt that carries so many bytes, within its limit and what is left of the deadline.
    async fn attempt<T>(
        &mut self,
        len: u64,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.longest = self.longest.max(len);
        let limit = (self.policy.attempt + time_of(len)) * 2u32.pow(self.late.min(DOUBLINGS_MAX));
        let limit = limit.min(self.left());
        let result = tokio::time::timeout(limit, attempt).await;
        self.late += u32::from(result.is_err());
        result.unwrap_or_else(|_| Err(unanswered(limit)))
    }

    /// Waits before the next attempt, or gives `error` back because there is none.
    async fn after(&mut self, error: Error) -> Result<()> {
        self.failed += 1;
        if !is_transient(&error) || self.failed >= self.policy.tries {
            return Err(error);
        }
        let doubled = 1u32.checked_shl(self.failed - 1).unwrap_or(u32::MAX);
        let bound = self.policy.first_wait.saturating_mul(doubled);
        let wait = self.entropy.below(bound.min(self.policy.wait_max));
        if wait >= self.left() {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// A store whose transient failures are tried again.
#[derive(Clone, Debug)]
pub struct Retrying {
    store: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    entropy: Entropy,
}

impl Retrying {
    /// Retries before `store`.
    pub fn new(store: Arc<dyn ObjectStore>, policy: RetryPolicy, entropy: Entropy) -> Self {
        Self {
            store,
            policy,
            entropy,
        }
    }

    /// The same store with another policy.
    #[must_use]
    pub fn with_policy(&self, policy: RetryPolicy) -> Self {
        Self {
            policy,
            ..self.clone()
        }
    }

    /// Removes one object; an attempt whose answer was lost makes the next say that there is none.
    pub(super) async fn delete_one(&self, location: &Path) -> Result<()> {
        let mut tries = self.tries();
        loop {
            match tries.attempt(0, self.store.delete(location)).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    fn tries(&self) -> Tries<'_> {
        Tries {
            policy: &self.policy,
            entropy: &self.entropy,
            began: Instant::now(),
            failed: 0,
            late: 0,
            longest: 0,
        }
    }

    /// One attempt: its beginning has the time of an empty answer and says how long the rest may take.
    async fn get_whole(
        &self,
        location: &Path,
        options: GetOptions,
        tries: &mut Tries<'_>,
    ) -> Result<GetResult> {
        let head = options.head;
        let mut found = tries
            .attempt(0, self.store.get_opts(location, options))
            .await?;
        let len = found.range.end.saturating_sub(found.range.start);
        let body = match found.payload {
            GetResultPayload::Stream(body) if !head => body,
            payload => return Ok(GetResult { payload, ..found }),
        };
        if len > WHOLE_BYTES_MAX {
            let body = paced(self.policy.deadline, body);
            found.payload = GetResultPayload::Stream(body);
            return Ok(found);
        }
        let pieces: Vec<Bytes> = tries.attempt(len, body.try_collect()).await?;
        let read: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if read != len {
            return Err(Error::Generic {
                store: "bucket",
                source: format!("{location}: {read} bytes came, {len} were promised").into(),
            });
        }
        let pieces = pieces.into_iter().map(Ok);
        found.payload = GetResultPayload::Stream(futures::stream::iter(pieces).boxed());
        Ok(found)
    }

    /// Whether the object that is in the way is ours: an attempt of this write whose answer was lost.
    async fn is_ours(&self, location: &Path, payload: &PutPayload) -> Result<bool> {
        let found = self.get_opts(location, GetOptions::default()).await?;
        if found.meta.size != payload.content_length() as u64 {
            return Ok(false);
        }
        let found = found.bytes().await?;
        let mut rest = &found[..];
        for piece in payload.iter() {
            match rest.strip_prefix(piece.as_ref()) {
                Some(after) => rest = after,
                None => return Ok(false),
            }
        }
        Ok(rest.is_empty())
    }
}

impl fmt::Display for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Retrying {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let mut tries = self.tries();
        let len = payload.content_length() as u64;
        loop {
            let put = self.store.put_opts(location, payload.clone(), opts.clone());
            match tries.attempt(len, put).await {
                Err(error) if matches!(opts.mode, PutMode::Update(_)) => return Err(error),
                // Some stores say 409 while another request is in flight: what is there decides, and nothing there is no answer.
                Err(Error::AlreadyExists { path, source }) if opts.mode == PutMode::Create => {
                    match self.is_ours(location, &payload).await {
                        Ok(true) => {
                            let meta = self.head(location).await?;
                            return Ok(PutResult {
                                e_tag: meta.e_tag,
                                version: meta.version,
                                extensions: Default::default(),
                            });
                        }
                        Ok(false) => return Err(Error::AlreadyExists { path, source }),
                        Err(Error::NotFound { .. }) => {
                            tries
                                .after(Error::Generic {
                                    store: "bucket",
                                    source,
                                })
                                .await?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => tries.after(error).await?,
                Ok(done) => return Ok(done),
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.store.put_multipart_opts(location, opts);
        self.tries().attempt(0, begun).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut tries = self.tries();
        loop {
            let get = self.get_whole(location, options.clone(), &mut tries);
            match get.await {
                Ok(found) => return Ok(found),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        paced(self.policy.deadline, self.store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let first_page = async move {
            let mut tries = this.tries();
            loop {
                // Fused: a listing that is empty ends before the chain begins.
                let mut names = this.store.list(prefix.as_ref()).fuse();
                match tries.attempt(0, names.try_next()).await {
                    Ok(first) => {
                        let first = futures::stream::iter(first.map(Ok));
                        let rest = paced(this.policy.deadline, names.boxed());
                        return Ok::<_, Error>(first.chain(rest));
                    }
                    Err(error) => tries.after(error).await?,
                }
            }
        };
        futures::stream::once(first_page).try_flatten().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        paced(
            self.policy.deadline,
            self.store.list_with_offset(prefix, offset),
        )
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut tries = self.tries();
        loop {
            match tries
                .attempt(0, self.store.list_with_delimiter(prefix))
                .await
            {
                Ok(listed) => return Ok(listed),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copied = self.store.copy_opts(from, to, options);
        self.tries().attempt(0, copied).await
    }
}
