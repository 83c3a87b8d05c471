//! One object put for certain: attempts, one hedge, and what is there decides (F1, W6).
//!
//! - At most two attempts are on their way at once; each has a time-out.
//! - The outcome is certain: our bytes are there, or somebody else's. An error, a time-out, or a conflict is neither.
//! - A conflict is settled by reading: our bytes are success, others are theirs, nothing means to try again.
//!
//! Only a caller's deadline ends it otherwise.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use object_store::{ObjectStore, PutMode, PutPayload, path::Path};
use tokio::time::{Instant, sleep_until};

use super::folder::Folder;
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
    /// When to give up.
    pub(crate) until: Option<Instant>,
}

impl Manner {
    /// For as long as it takes: a commit.
    pub(crate) const COMMIT: Self = Self {
        hedged: true,
        until: None,
    };
}

type Attempt<'a> = BoxFuture<'a, (Duration, Result<(), object_store::Error>)>;

struct Put<'a> {
    folder: &'a Folder,
    path: &'a Path,
    pieces: &'a [Bytes],
    len: usize,
    manner: Manner,
    /// Failures in a row.
    failed: u32,
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
        let put = Put {
            folder: self,
            path,
            pieces,
            len: pieces.iter().map(Bytes::len).sum(),
            manner,
            failed: 0,
        };
        put.settle().await
    }

    /// Like [`put`](Self::put), within the log's patience and without a hedge.
    pub(crate) async fn put_patiently(&self, path: &Path, bytes: &Bytes) -> Result<Settled, Error> {
        let manner = Manner {
            hedged: false,
            until: Some(Instant::now() + self.config.patience),
        };
        self.put(path, std::slice::from_ref(bytes), manner).await
    }
}

impl Put<'_> {
    async fn settle(mut self) -> Result<Settled, Error> {
        let (folder, path, pieces) = (self.folder, self.path, self.pieces);
        let attempt = || -> Attempt<'_> { Box::pin(attempt(folder, path, pieces)) };
        let mut attempts = FuturesUnordered::from_iter([attempt()]);
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
                    attempts.push(attempt());
                }
                // Not while nothing is on its way: then the next attempt comes by itself.
                () = at(hedge_at), if hedge_at.is_some() && !attempts.is_empty() => {
                    hedge_at = match self.folder.pace.try_take() {
                        Ok(()) => {
                            attempts.push(attempt());
                            None
                        }
                        Err(later) => Some(later),
                    };
                }
            }
        }
    }

    /// What an attempt's answer makes certain, if anything.
    async fn judge(
        &mut self,
        took: Duration,
        result: Result<(), object_store::Error>,
    ) -> Option<Settled> {
        use object_store::Error as Store;
        let error = match result {
            Ok(()) => {
                self.folder.pace.took(self.len, took);
                return Some(Settled::Ours);
            }
            Err(error) => error,
        };
        // A store that names it a precondition means the same.
        let conflict = matches!(
            error,
            Store::AlreadyExists { .. } | Store::Precondition { .. }
        );
        let error = if conflict {
            match self.folder.get_once(self.path).await {
                Ok(Some(found)) if same(self.pieces, &found) => return Some(Settled::Ours),
                Ok(Some(found)) => return Some(Settled::Theirs(found)),
                Ok(None) => error,
                Err(unread) => unread,
            }
        } else {
            error
        };
        self.failed = self.failed.saturating_add(1);
        // The first, and then ever more seldom: a log that cannot write says so, and does not fill the disk with it.
        if self.failed.is_power_of_two() {
            tracing::warn!(
                place = %self.folder.place, path = %self.path, attempts = self.failed, %error,
                "an object of the log is not written yet; it is tried again"
            );
        }
        None
    }

    /// When the next attempt is due.
    fn again_at(&self) -> Result<Instant, Error> {
        let at = Instant::now() + self.folder.pace.wait(self.failed);
        if self.manner.until.is_some_and(|until| at > until) {
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

async fn attempt(
    folder: &Folder,
    path: &Path,
    pieces: &[Bytes],
) -> (Duration, Result<(), object_store::Error>) {
    let began = Instant::now();
    let payload = PutPayload::from_iter(pieces.iter().cloned());
    let put = folder.store.put_opts(path, payload, PutMode::Create.into());
    let result = folder.within(put).await.map(drop);
    (began.elapsed(), result)
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
