//! The log's part of a bucket: names, and requests with a time-out that are tried again for a stated time.
//!
//! - `prefix/<log>/<epoch>/<number>`, `prefix/marks/<number>`, `prefix/probe`; hexadecimal of fixed width, so names order as numbers do.
//! - An attempt takes at most `attempt_limit` of its bytes, a request begins attempts for at most `patience_for` them; then it is `Io`.
//!
//! It does not know what objects mean.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use tokio::time::Instant;

use super::{config::Config, format::NUMBER_MAX, pace::Pace};
use crate::{Error, LogEpoch, LogUuid};

/// A bucket and a prefix in it, with what all requests share. Clones share everything.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// For messages.
    pub(crate) place: Arc<str>,
    pub(crate) config: Arc<Config>,
    pub(crate) pace: Arc<Pace>,
    /// Names that one listing may give.
    pub(crate) names_max: usize,
}

/// Without the store: its debug form may hold a part of the credentials.
impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({})", self.place)
    }
}

/// What an object's name says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    Object(LogUuid, LogEpoch, u64),
    Mark(u64),
    Probe,
}

/// An attempt without a result.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: object_store::Error,
    /// There was no answer in time.
    pub(crate) late: bool,
    /// What the object's length was said to be, 0 if nothing was said.
    pub(crate) len: u64,
}

const MARKS: &str = "marks";
const PROBE: &str = "probe";

impl Folder {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        place: Arc<str>,
        config: Arc<Config>,
        seed: u128,
    ) -> Self {
        let pace = Arc::new(Pace::new(&config, seed));
        Self {
            store,
            prefix,
            place,
            config,
            pace,
            names_max: NAMES_MAX,
        }
    }

    pub(crate) fn path(&self, name: Name) -> Path {
        match name {
            Name::Object(log, epoch, number) => {
                self.epoch(log, epoch).join(format!("{number:016x}"))
            }
            Name::Mark(number) => self.marks().join(format!("{number:016x}")),
            Name::Probe => self.prefix.clone().join(PROBE),
        }
    }

    /// What a path under the prefix names; `None` if this log makes no such name.
    fn name(&self, path: &Path) -> Option<Name> {
        let parts: Vec<_> = path.prefix_match(&self.prefix)?.collect();
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        match parts[..] {
            [PROBE] => Some(Name::Probe),
            [MARKS, number] => {
                let number = hex(number).filter(|number| *number <= NUMBER_MAX)?;
                Some(Name::Mark(number))
            }
            [log, epoch, number] => {
                let epoch = LogEpoch::new(hex(epoch)?);
                let number = hex(number).filter(|number| *number <= NUMBER_MAX)?;
                Some(Name::Object(log.parse().ok()?, epoch, number))
            }
            _ => None,
        }
    }

    /// Calls `each` for the names of this log below a path, with their sizes, in no certain order; whether these are all. It stops after
    /// `names_max` names, whosever they are.
    pub(crate) async fn list(
        &self,
        under: &Path,
        mut each: impl FnMut(Name, u64),
    ) -> Result<bool, Error> {
        let (mut names, whole) = self
            .patiently("list", under, |late| async move {
                // Each page has a time-out of its own; a listing that breaks begins again.
                let limit = self.config.attempt_limit(0, late);
                let (mut found, mut seen) = (Vec::new(), 0);
                let mut listed = self.store.list(Some(under));
                while let Some(meta) = self.within(limit, 0, listed.try_next()).await? {
                    seen += 1;
                    if seen > self.names_max {
                        return Ok((found, false));
                    }
                    found.extend(self.name(&meta.location).map(|name| (name, meta.size)));
                }
                Ok((found, true))
            })
            .await?;
        names.sort_unstable_by_key(|(name, _)| match *name {
            Name::Object(log, epoch, number) => (log.get(), epoch.get(), number),
            Name::Mark(number) => (0, 0, number),
            Name::Probe => (0, 0, 0),
        });
        for (name, size) in names {
            each(name, size);
        }
        Ok(whole)
    }

    /// Where all names are.
    pub(crate) const fn all(&self) -> &Path {
        &self.prefix
    }

    /// Where the marks are.
    pub(crate) fn marks(&self) -> Path {
        self.prefix.clone().join(MARKS)
    }

    /// Where the objects of an epoch are.
    pub(crate) fn epoch(&self, log: LogUuid, epoch: LogEpoch) -> Path {
        let log = self.prefix.clone().join(log.to_string());
        log.join(format!("{:016x}", epoch.get()))
    }

    /// A whole object, if it is there: one attempt, after so many that were late. Its beginning has the time of an empty one and says how long
    /// the rest may take.
    pub(crate) async fn get_once(&self, path: &Path, late: u32) -> Result<Option<Bytes>, Failed> {
        let limit = self.config.attempt_limit(0, late);
        let found = match self.within(limit, 0, self.store.get(path)).await {
            Ok(found) => found,
            Err(failed) if matches!(failed.error, object_store::Error::NotFound { .. }) => {
                return Ok(None);
            }
            Err(failed) => return Err(failed),
        };
        let len = found.meta.size;
        let limit = self.config.attempt_limit(len, late);
        let bytes = self.within(limit, len, found.bytes()).await?;
        if bytes.len() as u64 == len {
            return Ok(Some(bytes));
        }
        // Half an object is nobody's: it must not pass for another owner's, nor for damage.
        let source = format!("{} of {len} bytes came", bytes.len()).into();
        let store = "log";
        let error = object_store::Error::Generic { store, source };
        let late = false;
        Err(Failed { error, late, len })
    }

    /// A whole object, if it is there.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        self.patiently("read", path, |late| self.get_once(path, late))
            .await
    }

    /// Deletes what is there of `paths`, in batches where the store has them; one attempt. The number that could not be deleted.
    pub(crate) async fn delete(&self, paths: Vec<Path>) -> usize {
        let (asked, mut gone) = (paths.len(), 0);
        let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.store.delete_stream(paths);
        let timeout = self.config.attempt_timeout;
        while let Ok(Some(result)) = tokio::time::timeout(timeout, deleted.next()).await {
            gone += usize::from(matches!(
                result,
                Ok(_) | Err(object_store::Error::NotFound { .. })
            ));
        }
        asked.saturating_sub(gone)
    }

    /// One attempt that carries so many bytes, within the time for it.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        len: u64,
        attempt: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Failed> {
        let (error, late) = match tokio::time::timeout(limit, attempt).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (error, false),
            Err(_) => (unanswered(limit), true),
        };
        Err(Failed { error, late, len })
    }

    /// Attempts until one succeeds, fails for good, or patience is over.
    async fn patiently<T, F>(
        &self,
        op: &'static str,
        path: &Path,
        attempt: impl Fn(u32) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let began = Instant::now();
        let (mut failed, mut late, mut len) = (0, 0, 0);
        loop {
            let last = match attempt(late).await {
                Ok(value) => return Ok(value),
                Err(last) => last,
            };
            failed += 1;
            late += u32::from(last.late);
            len = last.len.max(len);
            let wait = self.pace.wait(failed);
            if !may_pass(&last.error) || began.elapsed() + wait > self.config.patience_for(len) {
                return Err(self.io(op, path, io::Error::other(last.error)));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// An error of the store.
    pub(crate) fn io(&self, op: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io {
            op,
            place: format!("{path} of {}", self.place),
            source: Arc::new(source),
        }
    }
}

/// Names that one listing may give: what nobody deletes for long, or what is not the log's, costs no more memory and time than these.
const NAMES_MAX: usize = 1 << 20;

/// Whether the same request may succeed later.
pub(crate) fn may_pass(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    matches!(
        error,
        Store::Generic { .. }
            | Store::JoinError { .. }
            | Store::AlreadyExists { .. }
            | Store::Precondition { .. }
    )
}

fn unanswered(timeout: Duration) -> object_store::Error {
    object_store::Error::Generic {
        store: "log",
        source: format!("no answer within {timeout:?}").into(),
    }
}

/// A number as this log writes it: 16 lower-case digits.
fn hex(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(text, 16).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn names_come_back_from_their_paths_and_order_as_numbers_do() {
        let folder = Folder::new(
            Arc::new(InMemory::new()),
            Path::from("a/b"),
            "x".into(),
            Arc::default(),
            1,
        );
        let log = LogUuid::new(0xfe);
        for name in [
            Name::Probe,
            Name::Mark(31),
            Name::Object(log, LogEpoch::new(7), 1 << 35),
        ] {
            assert_eq!(folder.name(&folder.path(name)), Some(name));
        }
        let path = |number| folder.path(Name::Object(log, LogEpoch::new(7), number));
        assert_eq!(
            path(0x1f).as_ref(),
            "a/b/000000000000000000000000000000fe/0000000000000007/000000000000001f"
        );
        assert!(path(9) < path(10) && path(255) < path(256));
        for other in [
            "a/b/marks/1",
            "a/b/marks/000000000000001F",
            "a/c/probe",
            "a/b/x/y",
        ] {
            assert_eq!(folder.name(&Path::from(other)), None, "{other}");
        }
    }
}
