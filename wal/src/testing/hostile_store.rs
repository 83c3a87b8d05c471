//! A real bucket behind a hostile way: whatever an answer may say or not say, the put-if-absent behind it is right.
//!
//! - Requests wait, fail before or after they took effect, or are answered by a conflict; one whose client is gone still takes effect.
//! - Tags are missing or wrong. Bodies end early. Listings come in any order, name things twice and things that nobody put, and break off.
//! - A listing that [hides](Whims::hides) names or stops at [some](Whims::names_max) says all the same that it is whole: no store may, some do
//!   (lesson 27).
//!
//! Chance is drawn from a seed; in one thread on a paused clock a run is the same every time.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    path::Path,
};
use parking_lot::Mutex;

/// How hostile a store is. Chances are in a hundred.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Whims {
    /// That a request fails and has no effect.
    pub refuses: u32,
    /// That the answer of a request that took effect is lost.
    pub forgets: u32,
    /// That a put is answered by a conflict, whether or not it took effect.
    pub conflicts: u32,
    /// That a body ends early, without an error.
    pub cuts: u32,
    /// That a listing leaves a name out.
    pub hides: u32,
    /// The most names that a listing gives, the lowest; 0 for all.
    pub names_max: usize,
    /// The longest that a request waits before it takes effect, and again before it is answered.
    pub wait_max: Duration,
}

/// The store. Clones are the same.
#[derive(Clone)]
pub struct HostileStore {
    inner: Arc<dyn ObjectStore>,
    whims: Arc<Mutex<Whims>>,
    dice: Arc<Mutex<u64>>,
}

impl HostileStore {
    /// What is behind `inner`, as hostile as `whims` say.
    pub fn new(inner: Arc<dyn ObjectStore>, whims: Whims, seed: u64) -> Self {
        Self {
            inner,
            whims: Arc::new(Mutex::new(whims)),
            dice: Arc::new(Mutex::new(seed)),
        }
    }

    /// From now on it is so hostile.
    pub fn set(&self, whims: Whims) {
        *self.whims.lock() = whims;
    }

    fn whims(&self) -> Whims {
        *self.whims.lock()
    }

    fn below(&self, range: Range<u64>) -> u64 {
        let mut dice = self.dice.lock();
        *dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        range.start + (*dice >> 33) % (range.end - range.start).max(1)
    }

    fn falls(&self, chance: u32) -> bool {
        self.below(0..100) < u64::from(chance)
    }

    async fn wait(&self) {
        let most = self.whims().wait_max.as_micros() as u64;
        if most > 0 {
            // Mostly short, seldom as long as it may be.
            let most = self.below(0..most) >> self.below(0..8);
            tokio::time::sleep(Duration::from_micros(most)).await;
        }
    }

    /// The request goes its way whether or not anybody still waits for its answer.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let way = async move {
            store.wait().await;
            if store.falls(store.whims().refuses) {
                return Err(broken("refused"));
            }
            let answer = request.await;
            store.wait().await;
            if store.falls(store.whims().forgets) {
                return Err(broken("the answer is lost"));
            }
            answer
        };
        let answer = tokio::spawn(way).await;
        answer.unwrap_or_else(|_| Err(broken("the runtime ends")))
    }

    /// Whatever a tag may be.
    fn tag(&self) -> Option<String> {
        match self.below(0..3) {
            0 => None,
            1 => Some("\"d41d8cd98f00b204e9800998ecf8427e\"".to_owned()),
            _ => Some(format!("W/{}", self.below(0..1 << 30))),
        }
    }

    fn listed(&self, prefix: &Path, mut metas: Vec<ObjectMeta>) -> Vec<Result<ObjectMeta>> {
        let Whims {
            hides, names_max, ..
        } = self.whims();
        metas.sort_by(|a, b| a.location.cmp(&b.location));
        if names_max > 0 {
            metas.truncate(names_max);
        }
        metas.retain(|_| !self.falls(hides));
        let twice: Vec<_> = metas.iter().filter(|_| self.falls(10)).cloned().collect();
        metas.extend(twice);
        let strange = metas.first().cloned().map(|meta| ObjectMeta {
            location: prefix.clone().join("$folder$"),
            size: 0,
            ..meta
        });
        metas.extend(strange);
        for i in (1..metas.len() as u64).rev() {
            metas.swap(i as usize, self.below(0..i + 1) as usize);
        }
        metas.iter_mut().for_each(|meta| meta.e_tag = self.tag());
        let mut listed: Vec<_> = metas.into_iter().map(Ok).collect();
        if self.falls(self.whims().refuses) {
            let at = self.below(0..listed.len() as u64 + 1) as usize;
            listed.truncate(at);
            listed.push(Err(broken("the listing breaks off")));
        }
        listed
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic {
        store: "hostile",
        source: what.into(),
    }
}

fn conflict(path: &Path) -> Error {
    Error::AlreadyExists {
        path: path.to_string(),
        source: "409".into(),
    }
}

impl fmt::Debug for HostileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostileStore({:?})", self.whims())
    }
}

impl fmt::Display for HostileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostile({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for HostileStore {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, o: PutOptions) -> Result<PutResult> {
        let (store, at) = (Arc::clone(&self.inner), path.clone());
        let put = self.ask(async move { store.put_opts(&at, bytes, o).await });
        let mut put = if self.falls(self.whims().conflicts) {
            // With or without an effect.
            if self.falls(50) {
                let _ = put.await;
            }
            return Err(conflict(path));
        } else {
            put.await?
        };
        put.e_tag = self.tag();
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, at) = (Arc::clone(&self.inner), path.clone());
        let get = async move {
            let mut got = store.get_opts(&at, options).await?;
            let (mut meta, range) = (got.meta.clone(), got.range.clone());
            let attributes = std::mem::take(&mut got.attributes);
            let extensions = std::mem::take(&mut got.extensions);
            meta.e_tag = None;
            Ok((got.bytes().await?, meta, range, attributes, extensions))
        };
        let (bytes, mut meta, range, attributes, extensions) = self.ask(get).await?;
        meta.e_tag = self.tag();
        let cut = self.falls(self.whims().cuts);
        let to = match cut {
            true => self.below(0..bytes.len() as u64) as usize,
            false => bytes.len(),
        };
        let body = futures::stream::iter([Ok(bytes.slice(..to))]).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let all = async move {
            let paths: Vec<Path> = paths.filter_map(async |path| path.ok()).collect().await;
            let (refused, asked): (Vec<_>, Vec<_>) = paths
                .into_iter()
                .partition(|_| store.falls(store.whims().refuses));
            let inner = Arc::clone(&store.inner);
            let deletes = async move {
                let asked = futures::stream::iter(asked.into_iter().map(Ok)).boxed();
                Ok(inner.delete_stream(asked).collect::<Vec<_>>().await)
            };
            let mut answers = match store.ask(deletes).await {
                Ok(answers) => answers,
                Err(error) => vec![Err(error)],
            };
            answers.extend(refused.iter().map(|_| Err(broken("not deleted"))));
            futures::stream::iter(answers)
        };
        futures::stream::once(all).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let all = async move {
            let (inner, under) = (Arc::clone(&store.inner), prefix.clone());
            let list = async move { inner.list(Some(&under)).try_collect::<Vec<_>>().await };
            let listed = match store.ask(list).await {
                Ok(metas) => store.listed(&prefix, metas),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(listed)
        };
        futures::stream::once(all).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
