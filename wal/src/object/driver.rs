//! The task of a live object log: puts what the pipeline says, tells the sink what became of it, deletes what was trimmed.
//!
//! - One task per log, one more per object on its way and one for a batch of deletes; none per record.
//! - The sink is told from this task alone: in order, one call at a time, never inside an append, under no lock.
//! - It waits for answers, appends and trims. Its only timers are the budget of further objects and the back-off of failed deletes.
//!
//! It ends with the log: closed, failed, or dropped, which stops all of it at once.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    folder::{Folder, Name},
    format::Header,
    mark::{self, Mark},
    pipeline::{Author, Event, Next, Pipeline, Request},
    put::{Manner, Settled},
};
use crate::{Error, Sink};

/// Objects in one batch of deletes: what S3 takes in one request.
const DELETES: usize = 1000;
/// A batch that fails so often waits for the next trim or opening.
const DELETE_TRIES: u32 = 8;
const DELETE_WAIT_MAX: Duration = Duration::from_secs(60);

/// What the log and its task share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) live: Mutex<Pipeline>,
    pub(crate) wake: Notify,
    pub(crate) ended: watch::Sender<Option<Result<(), Error>>>,
}

impl Core {
    /// Lets waiters know how the log ended. The first end counts.
    fn end(&self, result: Result<(), Error>) {
        self.ended.send_if_modified(|to| {
            let first = to.is_none();
            to.get_or_insert(result);
            first
        });
    }
}

pub(crate) struct Driver {
    pub(crate) core: Arc<Core>,
    pub(crate) folder: Folder,
    pub(crate) author: Author,
    pub(crate) sink: Arc<dyn Sink>,
    /// The number of the mark of this epoch's start.
    pub(crate) mark: u64,
}

type Puts = JoinSet<(u64, Result<Settled, Error>)>;

/// The batch of deletes that is on its way, and when the next may be.
#[derive(Default)]
struct Deletes {
    running: JoinSet<(Vec<Name>, usize)>,
    failed: u32,
    not_before: Option<Instant>,
}

impl Driver {
    pub(crate) async fn run(self) {
        let _fall = Fall(&self.core);
        let mut puts = Puts::new();
        let mut deletes = Deletes::default();
        loop {
            // The store first: it works while the sink does.
            let budget_at = self.submit(&mut puts);
            self.deliver();
            self.delete(&mut deletes);
            let (ended, closing) = {
                let live = self.core.live.lock();
                (live.ended(), live.may_mark())
            };
            if let Some(result) = ended {
                return self.core.end(result);
            }
            if let Some(owes_nothing) = closing {
                self.close(owes_nothing, &mut deletes).await;
                continue;
            }
            let delete_at = deletes.not_before;
            tokio::select! {
                biased;
                Some(put) = puts.join_next(), if !puts.is_empty() => self.complete(put),
                Some(batch) = deletes.running.join_next(), if !deletes.running.is_empty() => {
                    self.deleted(batch, &mut deletes);
                }
                () = self.core.wake.notified() => {}
                () = at(budget_at), if budget_at.is_some() => {}
                () = at(delete_at), if delete_at.is_some() => deletes.not_before = None,
            }
        }
    }

    /// Puts what may go on its way; when the budget will let more go, if it is the budget that holds it back.
    fn submit(&self, puts: &mut Puts) -> Option<Instant> {
        let mut live = self.core.live.lock();
        loop {
            match live.next() {
                Next::Nothing => return None,
                Next::Now => self.folder.pace.force(),
                Next::IfBudgeted => {
                    if let Err(later) = self.folder.pace.try_take() {
                        return Some(later);
                    }
                }
            }
            let Request { number, pieces } = live.submit()?;
            let folder = self.folder.clone();
            let name = Name::Object(self.author.identity.log, self.author.epoch, number);
            puts.spawn(async move {
                let path = folder.path(name);
                let settled = folder.put(&path, &pieces, Manner::COMMIT).await;
                (number, settled)
            });
        }
    }

    fn complete(&self, put: Result<(u64, Result<Settled, Error>), JoinError>) {
        let mut live = self.core.live.lock();
        match put {
            Ok((number, Ok(Settled::Ours))) => live.settled(number),
            Ok((number, Ok(Settled::Theirs(found)))) => {
                let by = self.fencer(number, &found);
                live.fail(Error::Fenced { by });
            }
            Ok((_, Err(error))) => live.fail(failed(error)),
            Err(error) => live.fail(failed(Error::Invalid(format!("a put ended: {error}")))),
        }
    }

    /// Who has the number, from the object that is there.
    fn fencer(&self, number: u64, found: &[u8]) -> String {
        match Header::decode(found) {
            Ok((header, _)) if header.writer > self.author.epoch => {
                format!(
                    "epoch {} of {}, which put a fence at number {number} of epoch {}",
                    header.writer, header.identity, self.author.epoch
                )
            }
            Ok((header, _)) => format!(
                "another process under epoch {}: incarnation {:032x} has number {number}",
                header.epoch, header.incarnation
            ),
            Err(flaw) => format!("an object that is not of this log at number {number}: {flaw}"),
        }
    }

    fn deliver(&self) {
        loop {
            let event = self.core.live.lock().next_event();
            match event {
                Some(Event::Durable(commit)) => self.sink.durable(commit),
                Some(Event::Room) => self.sink.room(),
                Some(Event::Failed(error)) => self.sink.failed(&error),
                None => return,
            }
        }
    }

    /// Begins the next batch of deletes, unless one is on its way or has just failed.
    fn delete(&self, deletes: &mut Deletes) {
        if !deletes.running.is_empty() || deletes.not_before.is_some() {
            return;
        }
        let batch = self.core.live.lock().garbage(DELETES);
        if batch.is_empty() {
            return;
        }
        let folder = self.folder.clone();
        deletes.running.spawn(async move {
            let paths = batch.iter().map(|name| folder.path(*name));
            let left = folder.delete(paths.collect()).await;
            (batch, left)
        });
    }

    /// A batch of which something is left is tried again as a whole, later.
    fn deleted(&self, batch: Result<(Vec<Name>, usize), JoinError>, deletes: &mut Deletes) {
        let Ok((batch, left)) = batch else { return };
        if left == 0 {
            deletes.failed = 0;
            return;
        }
        deletes.failed += 1;
        tracing::warn!(place = %self.folder.place, left, "trimmed objects of the log are not deleted yet");
        if deletes.failed >= DELETE_TRIES {
            // The next opening finds them.
            deletes.failed = 0;
            return;
        }
        let wait = Duration::from_secs(1) * 2u32.pow(deletes.failed - 1);
        deletes.not_before = Some(Instant::now() + wait.min(DELETE_WAIT_MAX));
        self.core.live.lock().discard(batch);
    }

    /// All is delivered: says that nothing is owed, if so, and deletes what was trimmed, as far as it comes. The next opening finds the rest.
    async fn close(&self, owes_nothing: bool, deletes: &mut Deletes) {
        let marked = if owes_nothing {
            self.mark_closed().await
        } else {
            Ok(())
        };
        deletes.not_before = None;
        self.delete(deletes);
        let delete = async {
            while let Some(batch) = deletes.running.join_next().await {
                if matches!(batch, Ok((_, 0))) {
                    self.delete(deletes);
                }
            }
        };
        let _in_time = tokio::time::timeout(self.folder.config.patience, delete).await;
        let mut live = self.core.live.lock();
        match marked {
            Ok(()) => live.closed(),
            Err(fenced @ Error::Fenced { .. }) => live.fail(fenced),
            Err(error) => live.fail(failed(error)),
        }
    }

    async fn mark_closed(&self) -> Result<(), Error> {
        let mark = Mark {
            event: mark::Event::Closed,
            identity: self.author.identity.clone(),
            epoch: self.author.epoch,
            position: self.core.live.lock().durable_end().get(),
            incarnation: self.author.incarnation,
        };
        let path = self.folder.path(Name::Mark(self.mark + 1));
        match self.folder.put_patiently(&path, &mark.encode()).await? {
            Settled::Ours => Ok(()),
            Settled::Theirs(found) => {
                let by = match Mark::decode(&found) {
                    Ok(mark) => format!("epoch {} of {}", mark.epoch, mark.identity),
                    Err(_) => format!("an object that is no mark at {path}"),
                };
                Err(Error::Fenced { by })
            }
        }
    }
}

fn failed(cause: Error) -> Error {
    Error::Failed {
        cause: Arc::new(cause),
    }
}

async fn at(moment: Option<Instant>) {
    if let Some(moment) = moment {
        sleep_until(moment).await;
    }
}

/// Fails the log if the sink panics, so that nothing waits for ever for what it would have heard (lesson 13).
struct Fall<'a>(&'a Core);

impl Drop for Fall<'_> {
    fn drop(&mut self) {
        let result = {
            let mut live = self.0.live.lock();
            if live.ended().is_none() {
                live.fail(failed(Error::Invalid("a sink panicked".to_owned())));
            }
            live.ended()
        };
        self.0.end(result.unwrap_or(Err(Error::Closed)));
    }
}
