//! What is in a directory: which logs, and what each says of itself.
//!
//! - Of a log, its newest epoch's head speaks; one that never started is spoken for by what it was made with.
//! - An epoch that the caller knows to have started is asked for by its name: no listing decides that it is not there.
//!
//! Reads only.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Directory, DirectoryFile, names::Name};
use crate::{
    Error, Found, LogEpoch, LogState,
    block::{
        ring::{BLOCK, COPIES},
        superblock::{Copies, Superblock},
    },
};

/// A head that is read while its epoch is cleaned up is looked for again so often.
const LOOK_TRIES: u32 = 20;
/// A name is looked up again so often when the file that it led to is gone (`ESTALE`): whether there is another one, or none, the server knows.
const STALE_TRIES: u32 = 5;

/// The logs of a directory, by uuid.
#[derive(Debug)]
pub(crate) struct Logs {
    by_uuid: BTreeMap<u128, Superblock>,
    names: BTreeSet<Name>,
}

impl Logs {
    /// Looks at all logs; of the one of `state`, also for the heads of the epochs that it says were started.
    pub(crate) async fn look(
        directory: &dyn Directory,
        state: Option<&LogState>,
    ) -> Result<Self, Error> {
        let place = directory.name();
        'again: for _ in 0..LOOK_TRIES {
            let names = list(directory).await?;
            let mut heads: BTreeMap<u128, Vec<Option<LogEpoch>>> = BTreeMap::new();
            for name in &names {
                match *name {
                    Name::Made(log) => heads.entry(log).or_default().push(None),
                    Name::Head(log, epoch) => heads.entry(log).or_default().push(Some(epoch)),
                    _ => {}
                }
            }
            if let Some(state) = state {
                let known = heads.entry(state.identity.log.get()).or_default();
                known.push(None);
                known.extend(state.started().map(|e| Some(e.epoch)));
            }
            let mut by_uuid = BTreeMap::new();
            for (log, mut epochs) in heads {
                // A made log without an epoch sorts lowest.
                epochs.sort_unstable();
                epochs.dedup();
                let mut listed = false;
                for epoch in epochs.into_iter().rev() {
                    let name = match epoch {
                        Some(epoch) => Name::Head(log, epoch),
                        None => Name::Made(log),
                    };
                    match read_head(directory, &name.to_string()).await? {
                        Some(superblock) => {
                            by_uuid.insert(log, superblock);
                            break;
                        }
                        None => listed |= names.contains(&name),
                    }
                }
                // What was listed and is gone now was cleaned up since, after something newer was made.
                if listed {
                    continue 'again;
                }
            }
            return Ok(Self { by_uuid, names });
        }
        Err(Error::InUse {
            place,
            by: "an owner that cleans up faster than it can be looked at".to_owned(),
        })
    }

    /// The one that an opening with `state` has to do with: its own, else one that may owe data, else any.
    pub(crate) fn for_state(&self, state: &LogState) -> Option<&Superblock> {
        self.by_uuid
            .get(&state.identity.log.get())
            .or_else(|| self.newest())
    }

    /// What the directory is, without a state to compare it with.
    pub(crate) fn found(&self) -> Found {
        match self.newest() {
            None => Found::Blank,
            Some(superblock) if superblock.closed => Found::Closed(superblock.identity.clone()),
            Some(superblock) => Found::Live(superblock.identity.clone()),
        }
    }

    /// Whether a log owes nothing: its files may go.
    pub(crate) fn is_closed(&self, log: u128) -> bool {
        self.by_uuid.get(&log).is_some_and(|s| s.closed)
    }

    /// The files that were there.
    pub(crate) fn names(&self) -> &BTreeSet<Name> {
        &self.names
    }

    fn newest(&self) -> Option<&Superblock> {
        let rank = |s: &&Superblock| (!s.closed, s.started.map(|(epoch, _)| epoch));
        self.by_uuid.values().max_by_key(rank)
    }
}

/// The names of logs' files.
pub(crate) async fn list(directory: &dyn Directory) -> Result<BTreeSet<Name>, Error> {
    let names = directory.list().await;
    let names = names.map_err(|e| failed("list", &directory.name(), e))?;
    Ok(names.iter().filter_map(|text| Name::parse(text)).collect())
}

/// The superblock in a head or in what a log was made with; `None` if there is no such file.
pub(crate) async fn read_head(
    directory: &dyn Directory,
    name: &str,
) -> Result<Option<Superblock>, Error> {
    let place = format!("{}/{name}", directory.name());
    let [a, b] = COPIES;
    let a = match read(directory, name, a, BLOCK).await {
        Ok(bytes) => Superblock::decode(&bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", &place, e)),
    };
    let b = match read(directory, name, b, BLOCK).await {
        Ok(bytes) => Superblock::decode(&bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", &place, e)),
    };
    match Copies::judge(&place, [a, b])? {
        Some(copies) => Ok(Some(copies.newest)),
        None => Err(Error::Corrupt {
            position: crate::Position::default(),
            what: format!("{place}: no superblock, both copies are blank"),
        }),
    }
}

/// Bytes of a file that is opened for this alone. `NotFound` also if it was removed in between.
pub(crate) async fn read(
    directory: &dyn Directory,
    name: &str,
    at: u64,
    len: u64,
) -> io::Result<Bytes> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    while_stale(|| async {
        let file = directory.open(name).await?;
        read_file(&*file, at, len).await
    })
    .await
}

/// Opens a file anew.
pub(crate) async fn open(
    directory: &dyn Directory,
    name: &str,
) -> io::Result<Arc<dyn DirectoryFile>> {
    while_stale(|| directory.open(name)).await
}

/// Does it again while it fails with `ESTALE`; one that stays is the error, since then it is not the name that leads nowhere.
pub(crate) async fn while_stale<T, F>(mut look_up: impl FnMut() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut tries = 0;
    loop {
        let result = look_up().await;
        tries += 1;
        match result {
            Err(e) if e.raw_os_error() == Some(libc::ESTALE) && tries < STALE_TRIES => {}
            result => return result,
        }
    }
}

/// Reads and waits.
pub(crate) async fn read_file(file: &dyn DirectoryFile, at: u64, len: usize) -> io::Result<Bytes> {
    let bytes = outcome(|done| file.read(at, len, done)).await?;
    if bytes.len() == len {
        return Ok(bytes);
    }
    let short = format!("{} bytes of {len} at {at}", bytes.len());
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, short))
}

/// Writes durably and waits.
pub(crate) async fn write_file(
    file: &Arc<dyn DirectoryFile>,
    at: u64,
    data: Bytes,
) -> io::Result<()> {
    outcome(|done| file.write(at, data, done)).await
}

/// Waits for a completion; one that was dropped is a failure.
async fn outcome<T: Send + 'static>(
    begin: impl FnOnce(Box<dyn FnOnce(io::Result<T>) + Send>),
) -> io::Result<T> {
    let (tell, told) = oneshot::channel();
    begin(Box::new(move |result| {
        // Nobody waits any more: the caller was dropped.
        let _ = tell.send(result);
    }));
    let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the file dropped the operation");
    told.await.unwrap_or_else(|_| Err(gone()))
}

pub(crate) fn failed(op: &'static str, place: &str, source: io::Error) -> Error {
    Error::of_device(op, place.to_owned(), source)
}
