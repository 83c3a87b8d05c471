//! The engine: a node's streams, its log, and its part of the bucket.
//!
//! One engine is one life of one node. Two engines live in one process without sharing anything.

mod admission;
mod backoff;
mod builder;
mod cleaner;
mod close;
mod core;
mod current;
mod groups;
mod object_ids;
mod objects;
mod read;
mod recovery;
mod sink;
mod switch;
mod task;
mod upload;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

pub(crate) use self::core::Core;
pub use self::{admission::Permit, builder::EngineBuilder};
use self::{
    backoff::Backoff,
    task::{Owned, spawn},
    upload::Settling,
};
use crate::{
    ClusterId, Error, ErrorKind, GroupId, NodeEpoch, NodeId, Result, Stream, StreamId,
    metadata::{Answer, Command, DebtView, Expect, KvPut},
    store::Requests,
};

const REOPEN_BACKOFF_MOST: Duration = Duration::from_secs(5);
/// A log may be refused so often, half a minute, before that counts as final: another process may have it that is about to end.
const REFUSALS_MAX: u32 = 16;

/// A running engine. Clones are the same engine; it ends with [`Engine::close`], or when the last clone is dropped:
/// then nothing is uploaded any more, and what was acknowledged waits in the log.
#[derive(Clone)]
pub struct Engine {
    running: Arc<Running>,
}

struct Running {
    core: Arc<Core>,
    _keeper: Owned<()>,
    _cleaner: Owned<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.end(Error::closed("the engine was dropped"));
    }
}

impl Engine {
    /// Where an engine begins: components in, settings as plain data.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Creates a stream in a group of its own and opens it.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`, `Closed`; it may have happened.
    pub async fn create_stream(&self) -> Result<Stream> {
        let (_, mut streams) = self.create_group(1, Vec::new()).await?;
        streams
            .pop()
            .ok_or_else(|| Error::internal("a group without its stream"))
    }

    /// Creates a group of `streams` streams with names to find it by, and opens it.
    ///
    /// # Errors
    /// `Invalid` if there are no streams or too many; `Unavailable`, `Fenced`, `Closed`.
    pub async fn create_group(
        &self,
        streams: u32,
        tags: Vec<(String, String)>,
    ) -> Result<(GroupId, Vec<Stream>)> {
        self.core().create_group(streams, tags).await
    }

    /// Opens a group for writing on this node, or returns its streams if it is open here already.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if another node owns it (the error names it); `Fenced`, `Closed`.
    pub async fn open_group(&self, group: GroupId) -> Result<Vec<Stream>> {
        self.core().open_group(group).await
    }

    /// Opens the group of a stream and returns the stream.
    ///
    /// # Errors
    /// As [`Self::open_group`].
    pub async fn open_stream(&self, stream: StreamId) -> Result<Stream> {
        let group = self
            .core()
            .metadata
            .view(|state| state.stream(stream).map(|found| found.group))
            .ok_or_else(|| Error::not_found("no such stream").with("stream", stream))?;
        self.open_group(group)
            .await?
            .into_iter()
            .find(|opened| opened.id() == stream)
            .ok_or_else(|| Error::internal("a group without its stream").with("stream", stream))
    }

    /// Destroys a group with all its data.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` (it may have happened), `Fenced`, `Closed`.
    pub async fn destroy_group(&self, group: GroupId) -> Result<()> {
        self.core().destroy_group(group).await
    }

    /// Groups that were created with this tag, as this node knows, ascending.
    pub fn groups_tagged(&self, key: &str, value: &str) -> Vec<GroupId> {
        self.core()
            .metadata
            .view(|state| state.groups_tagged(key, value).collect())
    }

    /// A key's value and version, as this node knows them.
    pub fn kv_get(&self, key: &[u8]) -> Option<(Bytes, u64)> {
        self.core().metadata.view(|state| {
            state
                .kv(key)
                .map(|entry| (entry.value.clone(), entry.version))
        })
    }

    /// All keys that begin with `prefix` with their values, ascending, as this node knows them.
    pub fn kv_list(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.core().metadata.view(|state| {
            state
                .kv_prefix(prefix)
                .map(|(key, entry)| (key.clone(), entry.value.clone()))
                .collect()
        })
    }

    /// Sets a key, or removes it with `None`, if it is as expected. Returns the new version, or the version that is
    /// there instead.
    ///
    /// # Errors
    /// `Invalid` if key or value are too large; `Unavailable` (it may have happened), `Fenced`, `Closed`.
    pub async fn kv_put(
        &self,
        key: Bytes,
        value: Option<Bytes>,
        expect: Option<Expect>,
    ) -> Result<Result<u64, Option<u64>>> {
        let put = Command::KvPut(KvPut { key, expect, value });
        match self.core().submit_one(put).await? {
            Answer::KvDone { version } => Ok(Ok(version)),
            Answer::KvConflict { current } => Ok(Err(current)),
            other => {
                Err(Error::internal("unexpected answer to a put")
                    .with("answer", format!("{other:?}")))
            }
        }
    }

    /// Uploads everything that is durable now and returns when it is committed.
    ///
    /// # Errors
    /// `Unavailable` if the log was reopened meanwhile: call again.
    pub async fn flush(&self) -> Result<()> {
        self.core().flush().await
    }

    /// Makes sure that this node is still the current one (S8), by at most one request per
    /// [`staleness_ms`](crate::Config::staleness_ms).
    ///
    /// # Errors
    /// `Fenced` if it is not, `Unavailable` if it could not be made sure.
    pub async fn check_current(&self) -> Result<()> {
        self.core().check_current().await
    }

    /// Whether it can serve, and why not.
    ///
    /// # Errors
    /// `Unavailable` while the log is being reopened, else the error that ended it.
    pub fn health(&self) -> Result<()> {
        self.core().session().map(drop)
    }

    /// Waits until the engine is over, and says why: `Closed` after [`Self::close`], else what ended it.
    pub async fn ended(&self) -> Error {
        let core = self.core();
        let mut flushed = core.watch();
        loop {
            flushed.mark_unchanged();
            if let Some(error) = core.ended() {
                return error;
            }
            if flushed.changed().await.is_err() {
                return Error::closed("the engine is gone");
            }
        }
    }

    /// The requests that this engine has sent to its bucket so far.
    pub fn requests(&self) -> Requests {
        self.core().bucket.requests()
    }

    /// Log epochs that may owe data to the bucket, of all nodes, as this node knows (M6).
    pub fn debts(&self) -> Vec<DebtView> {
        self.core().metadata.view(|state| state.debts().collect())
    }

    /// How much memory and log is in use.
    pub fn usage(&self) -> Usage {
        let core = self.core();
        let log = core.session().map(|session| session.log.usage());
        let log = log.unwrap_or_default();
        Usage {
            held_bytes: core.admission.held(),
            unsettled_bytes: core.cache.lock().unsettled_bytes() as u64,
            log_used_bytes: log.used,
            log_capacity_bytes: log.capacity,
        }
    }

    /// How fetches were answered so far.
    pub fn reads(&self) -> Reads {
        let core = self.core();
        let (block_hits, block_misses) = core.objects.hits_and_misses();
        Reads {
            from_log_cache: core.served.from_log_cache.load(Ordering::Relaxed),
            from_objects: core.served.from_objects.load(Ordering::Relaxed),
            block_hits,
            block_misses,
        }
    }

    /// The cluster of its bucket.
    pub fn cluster(&self) -> ClusterId {
        self.core().cluster
    }

    /// The node that it is.
    pub fn node(&self) -> NodeId {
        self.core().node
    }

    /// The life of the node that it is, while the log is served.
    pub fn epoch(&self) -> Option<NodeEpoch> {
        self.core().session().ok().map(|session| session.epoch)
    }

    /// Ends the engine: no more appends, everything uploaded and committed, the log closed and owed nothing, the
    /// node's groups given up. After that the bucket alone has everything and any node may open it.
    ///
    /// # Errors
    /// `Unavailable` if that was not done within `deadline`: the engine is over all the same, nothing acknowledged
    /// is lost, and the same log must be opened again. A later call answers the same.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let core = self.core();
        if let Some(error) = core.ended() {
            return core.closed.get().cloned().unwrap_or(Err(error));
        }
        let result = match tokio::time::timeout(deadline, core.close()).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(
                "not everything was uploaded in time; open the same log again to go on",
            )
            .with("deadline_ms", deadline.as_millis())
            .with("left_bytes", self.usage().unsettled_bytes)),
        };
        let result = core.closed.get_or_init(|| result).clone();
        core.end(Error::closed("the engine was closed"));
        result
    }

    fn core(&self) -> &Arc<Core> {
        &self.running.core
    }

    async fn start(core: Arc<Core>) -> Result<Self> {
        let settling = match core.establish().await {
            Ok(settling) => settling,
            Err(error) => {
                core.end(Error::closed("the engine did not open"));
                return Err(error);
            }
        };
        let keeper = Owned::new(spawn("keeper", &core, keep(core.clone(), settling)));
        let cleaner = Owned::new(spawn("cleaner", &core, core.clone().clean_all()));
        Ok(Self {
            running: Arc::new(Running {
                core,
                _keeper: keeper,
                _cleaner: cleaner,
            }),
        })
    }
}

/// Serves session after session: uploads while the log is well, opens it again when it failed (W6).
async fn keep(core: Arc<Core>, mut settling: Settling) {
    loop {
        if let Ok(session) = core.session() {
            core.upload_all(&session, &mut settling).await;
        }
        // The old log must be gone before it can be opened again.
        settling.let_go();
        let mut backoff = Backoff::new(&core.entropy, REOPEN_BACKOFF_MOST);
        let mut refusals = 0;
        loop {
            if core.ended().is_some() {
                return;
            }
            backoff.wait().await;
            match core.establish().await {
                Ok(reopened) => {
                    tracing::info!("the log was reopened");
                    settling = reopened;
                    break;
                }
                Err(error) => {
                    refusals += u32::from(error.kind() == ErrorKind::Invalid);
                    if is_final(&error) || refusals == REFUSALS_MAX {
                        return core.end(error);
                    }
                    tracing::warn!(%error, "the log could not be reopened yet");
                }
            }
        }
    }
}

/// Trying again cannot help.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Fenced | ErrorKind::Corrupt | ErrorKind::Internal | ErrorKind::Closed
    )
}

/// What an engine holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes charged to [`log_cache_bytes`](crate::Config::log_cache_bytes).
    pub held_bytes: u64,
    /// Of these, bytes that are not committed yet.
    pub unsettled_bytes: u64,
    /// Bytes of the log that are in use, padding included.
    pub log_used_bytes: u64,
    /// Bytes of the log.
    pub log_capacity_bytes: u64,
}

/// How an engine has answered fetches. Counts only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reads {
    /// Fetches of what is in memory because it was written lately.
    pub from_log_cache: u64,
    /// Fetches of what is in the bucket.
    pub from_objects: u64,
    /// Blocks of these that were in the block cache.
    pub block_hits: u64,
    /// Blocks of these that had to be read from the bucket.
    pub block_misses: u64,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("cluster", &self.cluster())
            .field("node", &self.node())
            .field("epoch", &self.epoch())
            .finish()
    }
}
