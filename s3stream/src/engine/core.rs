//! What every part of one engine shares.
//!
//! Locks are short and never nested but in this order: a stream's progress, then the log's own. The session says
//! whether the log is being served; all else outlives it.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher},
    sync::{Arc, OnceLock, atomic::AtomicU64},
    task::Waker,
};

use cache::LogCache;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::{
    admission::Admission, cleaner::Cleaner, object_ids::ObjectIds, objects::Objects, read::Served,
    task::OnPanic,
};
use crate::{
    Clock, ClusterId, Config, Error, NodeEpoch, NodeId, RecordBatch, Result, StreamId,
    entropy::Entropy, metadata::Metadata, store::Bucket, stream::progress::Progress,
};

/// A hasher without a random seed: the same run twice is the same run.
pub(crate) type FixedState = BuildHasherDefault<DefaultHasher>;

pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// This process's life (M5), and how often it has registered.
    pub(crate) incarnation: u128,
    pub(crate) attempts: AtomicU64,
    pub(crate) bucket: Bucket,
    pub(crate) metadata: Metadata,
    pub(crate) wal: Arc<dyn wal::Backend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) admission: Arc<Admission>,
    pub(crate) cache: Mutex<LogCache<RecordBatch>>,
    pub(crate) objects: Objects,
    pub(crate) served: Served,
    pub(crate) object_ids: ObjectIds,
    pub(crate) cleaner: Cleaner,
    pub(crate) streams: RwLock<HashMap<StreamId, Arc<Progress>, FixedState>>,
    /// Woken when there may be something to upload, or the session is over.
    pub(crate) wake: Notify,
    phase: Mutex<Phase>,
    /// How closing went, if that is what ended the engine.
    pub(crate) closed: OnceLock<Result<()>>,
    flush: tokio::sync::watch::Sender<Flushed>,
}

/// Whether there is a log to append to.
#[derive(Clone)]
enum Phase {
    Serving(Session),
    /// The log failed; it is being reopened (W6).
    Reopening(Error),
    /// Closed or fenced: for good.
    Ended(Error),
}

/// One life of the log.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) epoch: NodeEpoch,
    pub(crate) log_uuid: wal::LogUuid,
    pub(crate) log: Arc<dyn wal::Log>,
    /// Where streams end that had records in the log when it was opened (F0 step 5).
    pub(crate) recovered: Arc<HashMap<StreamId, u64, FixedState>>,
}

impl Session {
    /// Where appends to a stream go on: at the sealed end of the epoch before.
    pub(crate) fn end_of(&self, stream: StreamId, committed_end: u64) -> u64 {
        let recovered = self.recovered.get(&stream).copied();
        recovered.unwrap_or(0).max(committed_end)
    }
}

/// How far the log is uploaded. Positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flushed {
    /// Everything below is in the log cache.
    pub(crate) durable: u64,
    /// Somebody waits for everything below to be committed.
    pub(crate) wanted: u64,
    /// Everything below is in blocks that were cut.
    pub(crate) sealed: u64,
    /// Everything below is committed.
    pub(crate) committed: u64,
    /// Records were refused for good: the log keeps them, and cannot be given up.
    pub(crate) stuck: bool,
    /// Counts the lives of the log; a wait does not outlive one.
    pub(crate) session: u64,
}

/// The parts of a core that are given.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) bucket: Bucket,
    pub(crate) metadata: Metadata,
    pub(crate) wal: Arc<dyn wal::Backend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let config = parts.config;
        Arc::new(Self {
            admission: Admission::new(config.log_cache_bytes, config.ready_waiters_max),
            cache: Mutex::new(LogCache::new(config.upload_bytes as usize)),
            objects: Objects::new(parts.bucket.clone(), parts.cluster, &config),
            served: Served::default(),
            object_ids: ObjectIds::default(),
            cleaner: Cleaner::default(),
            streams: RwLock::default(),
            wake: Notify::new(),
            phase: Mutex::new(Phase::Reopening(Error::unavailable(
                "the engine is being opened",
            ))),
            closed: OnceLock::new(),
            flush: tokio::sync::watch::Sender::new(Flushed::default()),
            config,
            cluster: parts.cluster,
            node: parts.node,
            incarnation: parts.entropy.next_u128(),
            attempts: AtomicU64::new(0),
            bucket: parts.bucket,
            metadata: parts.metadata,
            wal: parts.wal,
            clock: parts.clock,
            entropy: parts.entropy,
        })
    }

    /// The log that is served, or why there is none.
    pub(crate) fn session(&self) -> Result<Session> {
        match &*self.phase.lock() {
            Phase::Serving(session) => Ok(session.clone()),
            Phase::Reopening(error) | Phase::Ended(error) => Err(error.clone()),
        }
    }

    /// The error that ended the engine for good, if it ended.
    pub(crate) fn ended(&self) -> Option<Error> {
        match &*self.phase.lock() {
            Phase::Ended(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Whether the session of `epoch` is over.
    pub(crate) fn is_over(&self, epoch: NodeEpoch) -> bool {
        !matches!(&*self.phase.lock(), Phase::Serving(session) if session.epoch == epoch)
    }

    /// Serves `session`; false if the engine ended meanwhile.
    pub(crate) fn serve(&self, session: Session) -> bool {
        {
            let mut phase = self.phase.lock();
            if matches!(*phase, Phase::Ended(_)) {
                return false;
            }
            *phase = Phase::Serving(session.clone());
        }
        self.admission.serve(session.log);
        true
    }

    /// The log failed: every append in it fails as ambiguous, later ones fail until it is reopened. A fence is
    /// final (W6).
    pub(crate) fn fail(&self, error: Error) {
        if error.kind() == crate::ErrorKind::Fenced || error.kind() == crate::ErrorKind::Internal {
            self.end(error);
            return;
        }
        {
            let mut phase = self.phase.lock();
            if !matches!(*phase, Phase::Serving(_)) {
                return;
            }
            *phase = Phase::Reopening(error.clone());
        }
        tracing::warn!(%error, "the log failed and will be reopened");
        self.admission.reset(self.cache.lock().bytes() as u64);
        self.for_each_stream(|stream| stream.shut(error.clone(), false));
        self.wake_all();
    }

    /// The engine is over: every call, waiting or to come, answers `error`.
    pub(crate) fn end(&self, error: Error) {
        {
            let mut phase = self.phase.lock();
            if matches!(*phase, Phase::Ended(_)) {
                return;
            }
            *phase = Phase::Ended(error.clone());
        }
        if error.kind() != crate::ErrorKind::Closed {
            tracing::error!(%error, "the engine ended");
        }
        self.admission.close(error.clone());
        self.admission.reset(self.cache.lock().bytes() as u64);
        self.for_each_stream(|stream| stream.shut(error.clone(), true));
        self.wake_all();
    }

    fn wake_all(&self) {
        self.flush.send_modify(|flushed| flushed.session += 1);
        self.wake.notify_one();
    }

    pub(crate) fn for_each_stream(&self, mut each: impl FnMut(&Arc<Progress>)) {
        let mut streams: Vec<_> = self.streams.read().values().cloned().collect();
        streams.sort_unstable_by_key(|progress| progress.stream);
        streams.iter().for_each(&mut each);
    }

    /// Changes the log cache; what it holds more or less is charged or given back.
    ///
    /// `arrived` are bytes that were admitted and are in the cache from now on.
    pub(crate) fn with_cache<R>(
        &self,
        arrived: u64,
        change: impl FnOnce(&mut LogCache<RecordBatch>) -> R,
    ) -> R {
        let (result, before, after) = {
            let mut cache = self.cache.lock();
            let before = cache.bytes() as u64;
            let result = change(&mut cache);
            (result, before, cache.bytes() as u64)
        };
        self.admission.exchange(before + arrived, after);
        result
    }

    /// Drops settled records until `bytes` more fit, and asks for an upload in case that is not enough.
    pub(crate) fn make_room(&self, bytes: u64) {
        let target = self.admission.limit().saturating_sub(bytes);
        let excess = self.admission.held().saturating_sub(target);
        if excess > 0 {
            let evicted = self.with_cache(0, |cache| {
                cache.evict(cache.bytes().saturating_sub(excess as usize))
            });
            drop(evicted);
        }
        self.wake.notify_one();
    }

    /// Changes whenever a session begins or ends, or something is committed.
    pub(crate) fn watch(&self) -> tokio::sync::watch::Receiver<Flushed> {
        self.flush.subscribe()
    }

    /// How far the log is uploaded, now.
    pub(crate) fn flushed(&self) -> Flushed {
        *self.flush.borrow()
    }

    pub(crate) fn note_durable(&self, position: u64) {
        self.flush.send_if_modified(|flushed| {
            flushed.durable = flushed.durable.max(position);
            false
        });
    }

    pub(crate) fn note_sealed(&self, position: u64) {
        self.flush.send_if_modified(|flushed| {
            flushed.sealed = flushed.sealed.max(position);
            false
        });
    }

    pub(crate) fn note_stuck(&self) {
        self.flush.send_modify(|flushed| flushed.stuck = true);
    }

    /// Nothing of the log is in the cache any more: it is about to be loaded again.
    pub(crate) fn restart_positions(&self) {
        self.flush.send_modify(|flushed| {
            *flushed = Flushed {
                session: flushed.session + 1,
                ..Flushed::default()
            };
        });
    }

    pub(crate) fn note_committed(&self, position: u64) {
        self.flush.send_modify(|flushed| {
            flushed.committed = flushed.committed.max(position);
            flushed.durable = flushed.durable.max(position);
        });
    }

    /// Waits until everything that is durable now is committed.
    pub(crate) async fn flush(&self) -> Result<()> {
        let session = self.session()?;
        let mut flushed = self.flush.subscribe();
        let before = *flushed.borrow_and_update();
        let target = before.durable;
        if before.committed >= target && !before.stuck {
            return Ok(());
        }
        self.flush.send_if_modified(|flushed| {
            flushed.wanted = flushed.wanted.max(target);
            false
        });
        self.wake.notify_one();
        loop {
            let now = *flushed.borrow_and_update();
            if now.stuck {
                return Err(Error::internal(
                    "records were refused by the metadata and stay in the log",
                ));
            }
            if now.committed >= target {
                return Ok(());
            }
            if self.is_over(session.epoch) {
                return Err(self.session().err().unwrap_or_else(|| {
                    Error::unavailable("the log was reopened before the upload was done")
                }));
            }
            if flushed.changed().await.is_err() {
                return Err(Error::closed("the engine is gone"));
            }
        }
    }
}

impl OnPanic for Core {
    fn task_panicked(&self, error: Error) {
        self.end(error);
    }
}

/// Wakes after every lock is gone.
pub(crate) fn wake_each(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
