//! One object put for certain: attempts, one hedge, and what is there decides (F1, W6).
//!
//! - At most two attempts are on their way at once; each has a time-out, which grows with the object and with each that was reached.
//! - The outcome is certain: our bytes are there, or somebody else's. An error, a time-out, or a conflict is neither.
//! - A conflict is settled by reading: our bytes are success, others are theirs, nothing means to try again.
//!
//! Only a caller's deadline ends it otherwise.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use object_store::{ObjectStore, PutMode, PutPayload, path::Path};
use tokio::time::{Instant, sleep_until};

use super::folder::{Failed, Folder};
use crate::Error;

/// What has the name in the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    Ours,
    /// Something else, whole.
    Theirs(Bytes),
}

/// How an object is put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// A second attempt is made beside a slow one, and requests are charged to the budget.
    pub(crate) hedged: bool,
    /// No attempt begins after the log's patience.
    pub(crate) patient: bool,
}

impl Manner {
    /// For as long as it takes: a commit.
    pub(crate) const COMMIT: Self = Self {
        hedged: true,
        patient: false,
    };
}

type Attempt<'a> = BoxFuture<'a, (Duration, Result<(), Failed>)>;

struct Put<'a> {
    folder: &'a Folder,
    path: &'a Path,
    pieces: &'a [Bytes],
    len: usize,
    manner: Manner,
    began: Instant,
    /// Failures in a row.
    failed: u32,
    /// How many of them were time-outs.
    late: u32,
    /// The most bytes that an attempt carried, here or there.
    longest: u64,
}

impl Folder {
    /// Puts `pieces` as one object, if there is none, and finds out for certain whether they are what is there.
    ///
    /// # Errors
    /// `Io` past the deadline, if there is one. The object may still appear later.
    pub(crate) async fn put(
        &self,
        path: &Path,
        pieces: &[Bytes],
        manner: Manner,
    ) -> Result<Settled, Error> {
        let len = pieces.iter().map(Bytes::len).sum();
        let put = Put {
            folder: self,
            path,
            pieces,
            len,
            manner,
            began: Instant::now(),
            failed: 0,
            late: 0,
            longest: len as u64,
        };
        put.settle().await
    }

    /// Like [`put`](Self::put), within the log's patience and without a hedge.
    pub(crate) async fn put_patiently(&self, path: &Path, bytes: &Bytes) -> Result<Settled, Error> {
        let manner = Manner {
            hedged: false,
            patient: true,
        };
        self.put(path, std::slice::from_ref(bytes), manner).await
    }
}

impl<'a> Put<'a> {
    fn attempt(&self) -> Attempt<'a> {
        let (folder, path, len) = (self.folder, self.path, self.len as u64);
        let limit = folder.config.attempt_limit(len, self.late);
        let payload = PutPayload::from_iter(self.pieces.iter().cloned());
        Box::pin(async move {
            let began = Instant::now();
            let put = folder.store.put_opts(path, payload, PutMode::Create.into());
            let result = folder.within(limit, len, put).await.map(drop);
            (began.elapsed(), result)
        })
    }

    async fn settle(mut self) -> Result<Settled, Error> {
        let mut attempts = FuturesUnordered::from_iter([self.attempt()]);
        let hedge_after = self.folder.pace.hedge_after(self.len);
        let mut hedge_at = hedge_after
            .filter(|_| self.manner.hedged)
            .map(|after| Instant::now() + after);
        let mut again_at = None;
        loop {
            tokio::select! {
                biased;
                Some((took, result)) = attempts.next(), if !attempts.is_empty() => {
                    if let Some(settled) = self.judge(took, result).await {
                        return Ok(settled);
                    }
                    if attempts.is_empty() {
                        again_at = Some(self.again_at()?);
                    }
                }
                () = at(again_at), if again_at.is_some() => {
                    again_at = None;
                    self.charge();
                    attempts.push(self.attempt());
                }
                // Not while nothing is on its way: then the next attempt comes by itself.
                () = at(hedge_at), if hedge_at.is_some() && !attempts.is_empty() => {
                    hedge_at = match self.folder.pace.try_take() {
                        Ok(()) => {
                            attempts.push(self.attempt());
                            None
                        }
                        Err(later) => Some(later),
                    };
                }
            }
        }
    }

    /// What an attempt's answer makes certain, if anything.
    async fn judge(&mut self, took: Duration, result: Result<(), Failed>) -> Option<Settled> {
        use object_store::Error as Store;
        let failed = match result {
            Ok(()) => {
                self.folder.pace.took(self.len, took);
                return Some(Settled::Ours);
            }
            Err(failed) => failed,
        };
        // A store that names it a precondition means the same.
        let conflict = matches!(
            failed.error,
            Store::AlreadyExists { .. } | Store::Precondition { .. }
        );
        let failed = if conflict {
            match self.folder.get_once(self.path, self.late).await {
                Ok(Some(found)) if same(self.pieces, &found) => return Some(Settled::Ours),
                Ok(Some(found)) => return Some(Settled::Theirs(found)),
                Ok(None) => failed,
                Err(unread) => unread,
            }
        } else {
            failed
        };
        self.failed = self.failed.saturating_add(1);
        self.late = self.late.saturating_add(failed.late.into());
        self.longest = self.longest.max(failed.len);
        // The first, and then ever more seldom: a log that cannot write says so, and does not fill the disk with it.
        if self.failed.is_power_of_two() {
            tracing::warn!(
                place = %self.folder.place, path = %self.path, attempts = self.failed, error = %failed.error,
                "an object of the log is not written yet; it is tried again"
            );
        }
        None
    }

    /// When the next attempt is due.
    fn again_at(&self) -> Result<Instant, Error> {
        let at = Instant::now() + self.folder.pace.wait(self.failed);
        let until = self.began + self.folder.config.patience_for(self.longest);
        if self.manner.patient && at > until {
            let what = format!("not certain after {} attempts", self.failed);
            return Err(self.folder.io("write", self.path, io::Error::other(what)));
        }
        Ok(at)
    }

    fn charge(&self) {
        if self.manner.hedged {
            self.folder.pace.force();
        }
    }
}

async fn at(moment: Option<Instant>) {
    if let Some(moment) = moment {
        sleep_until(moment).await;
    }
}

/// Whether an object is these pieces.
fn same(pieces: &[Bytes], found: &[u8]) -> bool {
    let mut rest = found;
    for piece in pieces {
        match rest.strip_prefix(&piece[..]) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}
