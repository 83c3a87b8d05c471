//! A modelled object store: requests take time, fail before or after their effect, or have it much later.
//!
//! - A request that was sent may arrive although its caller gave up or died: it is the network's then.
//! - `PutMode::Create` and `Update` are judged when the request *arrives*.
//! - What was answered with success is stored: the store itself loses nothing and orders all effects.
//!
//! Not modelled: lists that lag, bodies that break off, bit rot; and multipart uploads are one PUT at their end.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart, memory::InMemory, path::Path,
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::sleep};

use crate::{Entropy, Fault, Faults, SimClock, Trace};

/// A defect of the store, for the checker to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BucketLie {
    /// Now and then an upload is answered with success and not stored.
    SwallowUpload,
    /// A conditional swap is done whatever the condition says.
    SwapAlways,
}

/// How a request fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Answered,
    Refused(&'static str),
    AnswerLost,
    ArrivesLate,
}

type Effect = Box<dyn FnOnce(&InMemory) + Send>;

/// The bucket, over all lives. Clones are the same bucket.
#[derive(Clone)]
pub struct SimBucket(Arc<Shared>);

struct Shared {
    stored: InMemory,
    entropy: Entropy,
    faults: Faults,
    clock: SimClock,
    trace: Trace,
    lie: Option<BucketLie>,
    traffic: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    /// Sent and not yet arrived: when it will, and what it does then.
    under_way: BTreeMap<u64, (Duration, Effect)>,
    next: u64,
    refused_until: Duration,
    requests: u64,
}

impl SimBucket {
    /// An empty bucket.
    pub fn new(
        entropy: Entropy,
        faults: Faults,
        clock: SimClock,
        trace: Trace,
        lie: Option<BucketLie>,
    ) -> Self {
        Self(Arc::new(Shared {
            stored: InMemory::new(),
            entropy,
            faults,
            clock,
            trace,
            lie,
            traffic: Mutex::default(),
        }))
    }

    /// The sender is gone: what it had under way arrives or is lost.
    pub fn crash(&self) {
        let entropy = &self.0.entropy;
        let mut traffic = self.0.traffic.lock();
        traffic.under_way.retain(|_, _| entropy.chance(500));
    }

    /// A new life begins, in its runtime: what earlier ones left under way goes on.
    pub fn begin(&self) {
        let now = self.0.clock.now();
        let left: Vec<(u64, Duration)> = {
            let traffic = self.0.traffic.lock();
            traffic
                .under_way
                .iter()
                .map(|(request, (due, _))| (*request, due.saturating_sub(now)))
                .collect()
        };
        for (request, wait) in left {
            self.deliver(request, wait);
        }
    }

    /// How many requests were sent so far.
    pub fn requests(&self) -> u64 {
        self.0.traffic.lock().requests
    }

    fn fate(&self) -> Fate {
        let faults = &self.0.faults;
        let now = self.0.clock.now();
        let mut traffic = self.0.traffic.lock();
        traffic.requests += 1;
        if faults.strikes(Fault::BucketThrottles) {
            let pause = Duration::from_millis(200)..Duration::from_secs(10);
            traffic.refused_until = now + self.0.entropy.wait(pause);
        }
        if faults.strikes(Fault::BucketOutage) {
            let outage = Duration::from_secs(10)..Duration::from_secs(240);
            traffic.refused_until = now + self.0.entropy.wait(outage);
        }
        if now < traffic.refused_until {
            return Fate::Refused("slow down");
        }
        if faults.strikes(Fault::BucketFails) {
            return Fate::Refused("internal error");
        }
        if faults.strikes(Fault::BucketAnswerLost) {
            return Fate::AnswerLost;
        }
        if faults.strikes(Fault::BucketArrivesLate) {
            return Fate::ArrivesLate;
        }
        Fate::Answered
    }

    fn latency(&self) -> Duration {
        let (low, high) = if self.0.faults.strikes(Fault::BucketSlow) {
            (Duration::from_millis(200), Duration::from_secs(60))
        } else {
            (Duration::from_millis(5), Duration::from_millis(200))
        };
        self.0.entropy.wait(low..high)
    }

    fn send(&self, effect: Effect, wait: Duration) {
        let request = {
            let mut traffic = self.0.traffic.lock();
            let request = traffic.next;
            traffic.next += 1;
            let due = self.0.clock.now() + wait;
            traffic.under_way.insert(request, (due, effect));
            request
        };
        self.deliver(request, wait);
    }

    fn deliver(&self, request: u64, wait: Duration) {
        let bucket = self.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            let arrived = bucket.0.traffic.lock().under_way.remove(&request);
            if let Some((_, effect)) = arrived {
                effect(&bucket.0.stored);
            }
        });
    }

    /// Sends `operation` and gives its answer, or an error in its place.
    async fn request<T: Send + 'static>(
        &self,
        what: String,
        operation: impl FnOnce(&InMemory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (fate, latency) = (self.fate(), self.latency());
        self.0
            .trace
            .note(self.0.clock.now(), format_args!("bucket {what}: {fate:?}"));
        let (send, receive) = oneshot::channel();
        let effect: Effect = Box::new(move |stored| {
            // The caller may be gone; the effect is not.
            let _ = send.send(operation(stored));
        });
        match fate {
            Fate::Refused(why) => {
                sleep(latency).await;
                Err(refused(why))
            }
            Fate::ArrivesLate => {
                let late = Duration::from_secs(1)..Duration::from_secs(120);
                self.send(effect, self.0.entropy.wait(late));
                sleep(latency).await;
                Err(refused("timed out"))
            }
            Fate::Answered | Fate::AnswerLost => {
                self.send(effect, latency / 2);
                let answer = receive.await.map_err(|_| refused("connection lost"))?;
                sleep(latency / 2).await;
                if fate == Fate::AnswerLost {
                    return Err(refused("connection reset"));
                }
                answer
            }
        }
    }

    /// Whether this upload is to be lost with a success for an answer. The metadata is spared: it would be noticed at
    /// once.
    fn swallows(&self, location: &Path) -> bool {
        self.0.lie == Some(BucketLie::SwallowUpload)
            && !is_metadata(location)
            && self.0.entropy.chance(300)
    }

    /// Whether this swap is done unconditionally. The probe at open is spared: it would refuse the store.
    fn swaps(&self, location: &Path, mode: &PutMode) -> bool {
        self.0.lie == Some(BucketLie::SwapAlways)
            && is_metadata(location)
            && matches!(mode, PutMode::Update(_))
    }
}

fn is_metadata(location: &Path) -> bool {
    location.as_ref().contains("metadata/")
}

fn refused(why: &'static str) -> Error {
    Error::Generic {
        store: "simulated bucket",
        source: why.into(),
    }
}

/// The in-memory store never waits.
fn at_once<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    answer
        .now_or_never()
        .unwrap_or_else(|| Err(refused("the in-memory store waited")))
}

impl fmt::Debug for SimBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimBucket")
    }
}

impl fmt::Display for SimBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated bucket")
    }
}

#[async_trait]
impl ObjectStore for SimBucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let swallow = self.swallows(location);
        if self.swaps(location, &options.mode) {
            options.mode = PutMode::Overwrite;
        }
        let what = format!("put {location} {} bytes", payload.content_length());
        let location = location.clone();
        self.request(what, move |stored| {
            let put = at_once(stored.put_opts(&location, payload, options));
            if swallow {
                at_once(stored.delete(&location))?;
            }
            put
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(SimUpload {
            bucket: self.clone(),
            location: location.clone(),
            parts: Vec::new(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = format!("get {location} {:?}", options.range);
        let location = location.clone();
        self.request(what, move |stored| {
            at_once(stored.get_opts(&location, options))
        })
        .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let bucket = self.clone();
        locations
            .and_then(move |location| {
                let bucket = bucket.clone();
                async move {
                    let gone = location.clone();
                    bucket
                        .request(format!("delete {location}"), move |stored| {
                            let one = futures::stream::iter([Ok(gone.clone())]).boxed();
                            at_once(stored.delete_stream(one).try_collect::<Vec<_>>())
                        })
                        .await
                        .map(|_| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bucket, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            bucket
                .request(format!("list {prefix:?}"), move |stored| {
                    at_once(stored.list(prefix.as_ref()).try_collect::<Vec<_>>())
                })
                .await
                .map(|found| futures::stream::iter(found.into_iter().map(Ok)))
        };
        listed.try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned();
        self.request(format!("list {prefix:?}"), move |stored| {
            at_once(stored.list_with_delimiter(prefix.as_ref()))
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.request(format!("copy {from} {to}"), move |stored| {
            at_once(stored.copy_opts(&from, &to, options))
        })
        .await
    }
}

#[derive(Debug)]
struct SimUpload {
    bucket: SimBucket,
    location: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for SimUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        futures::future::ready(Ok(())).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let whole = self.parts.iter().flatten().cloned().collect();
        self.bucket
            .put_opts(&self.location, whole, PutOptions::default())
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
