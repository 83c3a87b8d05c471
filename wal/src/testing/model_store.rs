//! A bucket whose requests the test drives: when they take effect and when, or how, they are answered are two things.
//!
//! - Conditional creation is right and listings are complete; what lies, fails or lags is what the test says.
//! - A request of a client that is gone stays on its way, and may still take effect.
//! - The trace has every request when it came, when it took effect, and the test's own marks, in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, path::Path,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What is in a bucket.
pub type Objects = BTreeMap<Path, Bytes>;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Put if absent.
    Create(Path, Bytes),
    /// A whole object.
    Get(Path),
    /// Names under a prefix.
    List(Path),
    /// A batch of deletes.
    Delete(Vec<Path>),
}

impl Request {
    /// Whether it can change the bucket.
    pub fn changes(&self) -> bool {
        matches!(self, Self::Create(..) | Self::Delete(_))
    }
}

/// A request on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Its name, ascending in the order of arrival.
    pub id: u64,
    /// Who asked.
    pub host: u32,
    /// What.
    pub request: Request,
    /// It took effect.
    pub applied: bool,
    /// It was answered, or who asked is gone.
    pub answered: bool,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreStep<M> {
    /// A request came.
    Arrived(u64, Request),
    /// It took effect.
    Applied(u64),
    /// The test's own.
    Mark(M),
}

/// An answer that says nothing about what happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// A 500, or a connection that broke.
    Unavailable,
    /// A 409.
    Conflict,
    /// A 403.
    Forbidden,
}

/// How many requests of each kind came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// Puts.
    pub put: u64,
    /// Reads.
    pub get: u64,
    /// Listings.
    pub list: u64,
    /// Batches of deletes.
    pub delete: u64,
}

impl Asked {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.put + self.get + self.list + self.delete
    }
}

enum Effect {
    Created(bool),
    Got(Option<Bytes>),
    Listed(Vec<(Path, u64)>),
    Deleted,
}

struct Entry {
    host: u32,
    request: Request,
    effect: Option<Effect>,
    answer: Option<oneshot::Sender<Result<Effect>>>,
}

struct State<M> {
    objects: Objects,
    waiting: BTreeMap<u64, Entry>,
    next: u64,
    held: BTreeSet<u32>,
    asked: BTreeMap<u32, Asked>,
    trace: Vec<StoreStep<M>>,
    overwrites: bool,
    /// So many reads from now on end in the middle of the object, without an error.
    cuts: u32,
}

/// The bucket. Clones share it.
pub struct ModelStore<M = ()> {
    state: Arc<Mutex<State<M>>>,
}

impl<M> Clone for ModelStore<M> {
    fn clone(&self) -> Self {
        let state = Arc::clone(&self.state);
        Self { state }
    }
}

impl<M> Default for ModelStore<M> {
    fn default() -> Self {
        Self::holding(Objects::new())
    }
}

impl<M> fmt::Debug for ModelStore<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelStore")
    }
}

impl<M: Send + 'static> ModelStore<M> {
    /// The bucket as one client sees it.
    pub fn host(&self, host: u32) -> Arc<dyn ObjectStore> {
        let store = self.clone();
        Arc::new(Host { store, host })
    }
}

impl<M> ModelStore<M> {
    /// A bucket with something in it.
    pub fn holding(objects: Objects) -> Self {
        let state = State {
            objects,
            waiting: BTreeMap::new(),
            next: 0,
            held: BTreeSet::new(),
            asked: BTreeMap::new(),
            trace: Vec::new(),
            overwrites: false,
            cuts: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A bucket that ignores the condition of a put (lesson 27).
    pub fn that_overwrites() -> Self {
        let store = Self::default();
        store.state.lock().overwrites = true;
        store
    }

    /// The next reads, so many of them, end in the middle of the object without an error.
    pub fn cut_reads(&self, reads: u32) {
        self.state.lock().cuts = reads;
    }

    /// How much of an object a read gives.
    fn read_len(&self, len: usize) -> usize {
        let cuts = &mut self.state.lock().cuts;
        let cut = *cuts > 0;
        *cuts = cuts.saturating_sub(1);
        if cut { len / 2 } else { len }
    }

    /// From now on a host's requests wait for the test.
    pub fn hold(&self, host: u32) {
        self.state.lock().held.insert(host);
    }

    /// From now on a host's requests take effect and are answered at once; those that wait go on waiting.
    pub fn release(&self, host: u32) {
        self.state.lock().held.remove(&host);
    }

    /// What is on its way, in the order of arrival.
    pub fn waiting(&self) -> Vec<Waiting> {
        let state = self.state.lock();
        let waiting = state.waiting.iter().map(|(id, entry)| Waiting {
            id: *id,
            host: entry.host,
            request: entry.request.clone(),
            applied: entry.effect.is_some(),
            answered: entry.answer.as_ref().is_none_or(oneshot::Sender::is_closed),
        });
        waiting.collect()
    }

    /// Lets a request take effect.
    pub fn apply(&self, id: u64) {
        self.state.lock().apply(id);
    }

    /// Lets a request take effect in part: of a batch, these deletes alone.
    pub fn apply_part(&self, part: &[Path]) {
        let objects = &mut self.state.lock().objects;
        for path in part {
            objects.remove(path);
        }
    }

    /// Answers a request that took effect.
    pub fn answer(&self, id: u64) {
        let mut state = self.state.lock();
        let entry = state.waiting.remove(&id).expect("a request on its way");
        let effect = entry.effect.expect("a request that took effect");
        if let Some(answer) = entry.answer {
            // Who asked may be gone.
            let _ = answer.send(Ok(effect));
        }
    }

    /// Answers a request with something that says nothing about what happened. It stays on its way unless it took effect.
    pub fn lie(&self, id: u64, lie: Lie) {
        let mut state = self.state.lock();
        let entry = state.waiting.get_mut(&id).expect("a request on its way");
        if let Some(answer) = entry.answer.take() {
            // Who asked may be gone.
            let _ = answer.send(Err(lie.error()));
        }
        if entry.effect.is_some() {
            state.waiting.remove(&id);
        }
    }

    /// Loses a request: it will never take effect, and is never answered unless it was.
    pub fn lose(&self, id: u64) {
        self.state.lock().waiting.remove(&id);
    }

    /// What is in the bucket.
    pub fn objects(&self) -> Objects {
        self.state.lock().objects.clone()
    }

    /// Changes the bucket behind everybody's back.
    pub fn damage(&self, damage: impl FnOnce(&mut Objects)) {
        damage(&mut self.state.lock().objects);
    }

    /// What a host asked so far.
    pub fn asked(&self, host: u32) -> Asked {
        let state = self.state.lock();
        state.asked.get(&host).copied().unwrap_or_default()
    }

    /// Adds to the trace.
    pub fn mark(&self, mark: M) {
        self.state.lock().trace.push(StoreStep::Mark(mark));
    }

    /// What happened so far.
    pub fn take_trace(&self) -> Vec<StoreStep<M>> {
        std::mem::take(&mut self.state.lock().trace)
    }
}

impl Lie {
    fn error(self) -> Error {
        let path = "model".to_owned();
        match self {
            Self::Unavailable => Error::Generic {
                store: "model",
                source: "500".into(),
            },
            Self::Conflict => Error::AlreadyExists {
                path,
                source: "409".into(),
            },
            Self::Forbidden => Error::PermissionDenied {
                path,
                source: "403".into(),
            },
        }
    }
}

impl<M> State<M> {
    fn apply(&mut self, id: u64) {
        let entry = self.waiting.get(&id).expect("a request on its way");
        assert!(entry.effect.is_none(), "a request takes effect once");
        let effect = match &entry.request {
            Request::Create(path, bytes) => {
                let free = self.overwrites || !self.objects.contains_key(path);
                if free {
                    self.objects.insert(path.clone(), bytes.clone());
                }
                Effect::Created(free)
            }
            Request::Get(path) => Effect::Got(self.objects.get(path).cloned()),
            Request::List(prefix) => {
                let under = self
                    .objects
                    .iter()
                    .filter(|(p, _)| p.prefix_matches(prefix));
                Effect::Listed(under.map(|(p, b)| (p.clone(), b.len() as u64)).collect())
            }
            Request::Delete(paths) => {
                for path in paths {
                    self.objects.remove(path);
                }
                Effect::Deleted
            }
        };
        let changes = entry.request.changes();
        if let Some(entry) = self.waiting.get_mut(&id) {
            entry.effect = Some(effect);
        }
        if changes {
            self.trace.push(StoreStep::Applied(id));
        }
    }
}

/// One client's way to the bucket.
struct Host<M> {
    store: ModelStore<M>,
    host: u32,
}

impl<M> Host<M> {
    async fn ask(&self, request: Request) -> Result<Effect> {
        let (answer, answered) = oneshot::channel();
        let held = {
            let mut state = self.store.state.lock();
            let asked = state.asked.entry(self.host).or_default();
            *match request {
                Request::Create(..) => &mut asked.put,
                Request::Get(_) => &mut asked.get,
                Request::List(_) => &mut asked.list,
                Request::Delete(_) => &mut asked.delete,
            } += 1;
            let id = state.next;
            state.next += 1;
            if request.changes() {
                state.trace.push(StoreStep::Arrived(id, request.clone()));
            }
            let entry = Entry {
                host: self.host,
                request,
                effect: None,
                answer: Some(answer),
            };
            state.waiting.insert(id, entry);
            if state.held.contains(&self.host) {
                None
            } else {
                state.apply(id);
                Some(id)
            }
        };
        if let Some(id) = held {
            self.store.answer(id);
        }
        match answered.await {
            Ok(result) => result,
            // Lost: no answer ever comes.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<M> fmt::Debug for Host<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.host)
    }
}

impl<M> fmt::Display for Host<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model")
    }
}

fn meta(path: &Path, len: u64) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: len,
        e_tag: None,
        version: None,
    }
}

fn unasked(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "Model".to_owned(),
    }
}

#[async_trait]
impl<M: Send + 'static> ObjectStore for Host<M> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "a log puts if absent");
        let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        let request = Request::Create(location.clone(), bytes.into());
        match self.ask(request).await? {
            Effect::Created(true) => Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Default::default(),
            }),
            _ => Err(Lie::Conflict.error()),
        }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(unasked("multipart"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        assert!(
            options.range.is_none() && !options.head,
            "a log reads whole objects"
        );
        match self.ask(Request::Get(location.clone())).await? {
            Effect::Got(Some(bytes)) => {
                let len = bytes.len() as u64;
                let bytes = bytes.slice(..self.store.read_len(bytes.len()));
                Ok(GetResult {
                    payload: GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed()),
                    meta: meta(location, len),
                    range: 0..len,
                    attributes: Default::default(),
                    extensions: Default::default(),
                })
            }
            _ => Err(Error::NotFound {
                path: location.to_string(),
                source: "404".into(),
            }),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (store, host) = (self.store.clone(), self.host);
        let all = async move {
            let paths: Vec<Path> = locations.filter_map(async |path| path.ok()).collect().await;
            let asked = Host { store, host }
                .ask(Request::Delete(paths.clone()))
                .await;
            let results: Vec<_> = match asked {
                Ok(_) => paths.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(results)
        };
        futures::stream::once(all).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, host) = (self.store.clone(), self.host);
        let prefix = prefix.cloned().unwrap_or_default();
        let all = async move {
            let results: Vec<_> = match (Host { store, host }).ask(Request::List(prefix)).await {
                Ok(Effect::Listed(listed)) => {
                    let metas = listed.into_iter().map(|(path, len)| Ok(meta(&path, len)));
                    metas.collect()
                }
                Ok(_) => Vec::new(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(results)
        };
        futures::stream::once(all).flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unasked("a listing by delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unasked("a copy"))
    }
}
