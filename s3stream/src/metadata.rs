//! Metadata: one pure state machine, replicated by a shared log. Contracts F0, M, O4, S7, S8; bytes in `docs/format.md` §Metadata.
//!
//! A node's view is a prefix of the log; it only grows. One batch of a node is outstanding at a time, and everything that waits goes
//! into the next (M5). A node that is fenced stays fenced. Nothing is asked of the bucket while nothing is asked of this.
//! It does not decide when a node is dead, and it deletes no data objects.

mod answer;
mod command;
mod driver;
mod entry;
mod sequencer;
mod state;
mod wire;

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use self::driver::{Driver, Request, Submission};
pub use self::{
    answer::{Answer, Committed, DebtView, OpenedGroup, RangeOutcome, Refusal, Registered},
    command::{
        CloseGroup, Command, Commit, CreateGroup, Expect, KvPut, LogRegistration, LogTrim, Started,
        TrimStream,
    },
    entry::{Batch, Body, EncodedEntry, Entry, EntryHash, Registration, Tip},
    sequencer::{BucketLimits, BucketSequencer, Loaded, MemorySequencer, News, Sequencer},
    state::{Exception, Extent, Group, KNOWN_LEVEL, KvEntry, Object, Outcome, State, StreamView},
};
use crate::{Clock, Error, NodeEpoch, Result, entropy::Entropy};

/// Submissions that may wait.
const QUEUE: usize = 1024;

/// A node's handle on the cluster's metadata. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Metadata {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    _driver: Arc<AbortOnDrop>,
}

/// What a node knows of the log. `index` only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Index of the newest entry applied.
    pub index: u64,
    /// The epoch that ended this node's life, once one has.
    pub fenced: Option<NodeEpoch>,
}

#[derive(Debug)]
struct Shared {
    state: RwLock<State>,
    seen: watch::Sender<Seen>,
    clock: Arc<dyn Clock>,
    /// When the node's epoch was last seen current: the time before that look was sent (S8).
    current_at: Mutex<Option<Duration>>,
    /// Why the driver is gone, if it is by its own fault.
    stopped: Mutex<Option<Error>>,
}

/// The driver ends with its last handle, also while the store does not answer.
#[derive(Debug)]
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Metadata {
    /// Loads the log and starts the node's driver task.
    pub async fn open(
        mut sequencer: Box<dyn Sequencer>,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Result<Self> {
        let mut state = State::default();
        driver::load(&mut state, sequencer.load().await?)?;
        let index = state.tip().index;
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            seen: watch::Sender::new(Seen {
                index,
                fenced: None,
            }),
            clock,
            current_at: Mutex::new(None),
            stopped: Mutex::new(None),
        });
        let (requests, queue) = mpsc::channel(QUEUE);
        let driver = Driver::new(Arc::clone(&shared), sequencer, entropy, queue);
        let task = tokio::spawn(driver.run());
        Ok(Self {
            shared,
            requests,
            _driver: Arc::new(AbortOnDrop(task.abort_handle())),
        })
    }

    /// Begins a life of the node: a new epoch, and its log recorded as owing (M5, M6). A retry of the same incarnation and attempt
    /// gets the same answer. A refusal is `Invalid` and names what is in the way.
    pub async fn register(&self, registration: Registration) -> Result<Registered> {
        let (reply, answer) = oneshot::channel();
        self.ask(
            Request::Register {
                registration,
                reply,
            },
            answer,
        )
        .await
    }

    /// Has commands decided, in order, in one batch with whatever else waits. Each is answered; a refused one stops no other.
    /// An error that `may_have_happened` leaves open whether they were, and so does a call that is dropped. While the store leaves a
    /// swap open this waits: a caller that cannot gives up by itself.
    pub async fn submit(&self, commands: Vec<Command>) -> Result<Vec<Answer>> {
        let (reply, answer) = oneshot::channel();
        let submission = Submission::new(commands, reply)?;
        self.ask(Request::Submit(submission), answer).await
    }

    /// One command.
    pub async fn submit_one(&self, command: Command) -> Result<Answer> {
        let mut answers = self.submit(vec![command]).await?;
        match (answers.pop(), answers.is_empty()) {
            (Some(answer), true) => Ok(answer),
            _ => Err(Error::internal("one command has one answer")),
        }
    }

    /// Takes in what others have appended. When it returns, the state is at least as new as the call.
    pub async fn look(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Look { reply }, answer).await
    }

    /// Whether the node's epoch was seen current by a look sent within `bound` (S8). Asks nobody.
    pub fn seen_current_within(&self, bound: Duration) -> bool {
        let at = *self.shared.current_at.lock();
        let age = at.map(|at| self.shared.clock.now().saturating_sub(at));
        self.shared.seen.borrow().fenced.is_none() && age.is_some_and(|age| age <= bound)
    }

    /// Reads the state. The lock is held meanwhile: keep it short.
    pub fn view<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.shared.state.read())
    }

    /// Tells when the state advances, and when the node is fenced.
    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.shared.seen.subscribe()
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        if self.requests.send(request).await.is_err() {
            return Err(self.gone());
        }
        // The driver had it, so it may have sent it.
        answer
            .await
            .unwrap_or_else(|_| Err(self.gone().ambiguous()))
    }

    fn gone(&self) -> Error {
        let stopped = self.shared.stopped.lock().clone();
        stopped.unwrap_or_else(|| Error::closed("metadata closed"))
    }
}

/// What fuzzing needs of bytes that have no public type.
#[cfg(feature = "testing")]
pub mod testing {
    pub use super::sequencer::{head_again, segment_again};
}

#[cfg(test)]
mod tests;
