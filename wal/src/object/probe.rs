//! Whether the store is what the log needs, found out at every opening (lesson 27).
//!
//! - A second put-if-absent of one name must be refused, after the first and beside it: without that nobody can be fenced, and the log is not
//!   opened.
//! - A listing that lags costs requests, nothing else: it is only said.
//!
//! The first opening puts eight different objects under one name at once, of which one may win, and tries all of it; a later one asks once
//! whether it is still refused. The log needs nothing else of a store: no ranges, no ETags, no listing that is complete, no page of a certain size, no
//! checksums of the store's kind, no multipart.

use bytes::Bytes;
use futures::future::join_all;
use object_store::{ObjectStore, PutMode, PutPayload};

use super::{
    folder::{Folder, Name, may_pass},
    listing::Listing,
};
use crate::{Error, LogUuid};

/// The racers; every opening has the same, so that those of another are known.
const FIRST: [&[u8]; 8] = [
    b"s3stream: the first to put this name, 1\n",
    b"s3stream: the first to put this name, 2\n",
    b"s3stream: the first to put this name, 3\n",
    b"s3stream: the first to put this name, 4\n",
    b"s3stream: the first to put this name, 5\n",
    b"s3stream: the first to put this name, 6\n",
    b"s3stream: the first to put this name, 7\n",
    b"s3stream: the first to put this name, 8\n",
];
const SECOND: &[u8] = b"s3stream: a second, which has to be refused, 1\n";
const TRIES: u32 = 20;
const NEVER_THERE: &str = "it refuses a put-if-absent of a name that is not there";

enum Answer {
    Made,
    Refused,
}

/// Asks the store. `listing` was made before.
pub(crate) async fn probe(folder: &Folder, log: LogUuid, listing: &Listing) -> Result<(), Error> {
    let winner = if listing.probed {
        None
    } else {
        Some(race(folder).await?)
    };
    if let Answer::Made = create(folder, SECOND).await? {
        return Err(unfit(folder, "it took a second put-if-absent of one name"));
    }
    let Some(winner) = winner else {
        return Ok(());
    };
    let path = folder.path(Name::Probe);
    match folder.get(&path).await? {
        Some(found) if found == winner => {}
        Some(_) => {
            return Err(unfit(
                folder,
                "a put-if-absent that it refused has overwritten",
            ));
        }
        None => return Err(unfit(folder, "what it has stored cannot be read")),
    }
    if !Listing::of(folder, log, std::iter::empty()).await?.probed {
        tracing::warn!(
            place = %folder.place,
            "the store lists late: openings of the log make more requests and its garbage stays longer"
        );
    }
    Ok(())
}

/// Puts all of `FIRST` at once, until one is there for certain, and gives it. Another opening may do the same at this moment: then theirs may win.
async fn race(folder: &Folder) -> Result<Bytes, Error> {
    use object_store::Error as Store;
    let path = folder.path(Name::Probe);
    let mut made = None;
    let mut failed = 0;
    loop {
        let mut unanswered = None;
        for (racer, result) in join_all(FIRST.map(|racer| put(folder, racer))).await {
            match result {
                Ok(()) if made.is_some() => {
                    return Err(unfit(
                        folder,
                        "it took two put-if-absent of one name at once",
                    ));
                }
                Ok(()) => made = Some(racer),
                Err(Store::AlreadyExists { .. } | Store::Precondition { .. }) => {}
                Err(error @ (Store::NotImplemented { .. } | Store::NotSupported { .. })) => {
                    return Err(unfit(folder, &error.to_string()));
                }
                // It may be there or not: what is read decides.
                Err(error) => unanswered = Some(error),
            }
        }
        match (folder.get(&path).await?, made) {
            (Some(found), Some(made)) if found == made => return Ok(found),
            (Some(_), Some(_)) => {
                return Err(unfit(
                    folder,
                    "another put-if-absent has overwritten what it took",
                ));
            }
            (Some(found), None) if FIRST.contains(&&found[..]) => return Ok(found),
            (Some(_), None) => {
                return Err(unfit(
                    folder,
                    "what it refused to overwrite is not what is there",
                ));
            }
            (None, Some(_)) => return Err(unfit(folder, "what it has stored cannot be read")),
            (None, None) => {}
        }
        continue_after(folder, &mut failed).await;
        match unanswered {
            Some(error) if !may_pass(&error) || failed >= TRIES => {
                return Err(folder.io("write", &path, std::io::Error::other(error)));
            }
            None if failed >= TRIES => return Err(unfit(folder, NEVER_THERE)),
            _ => {}
        }
    }
}

/// One attempt to put the probe's name.
async fn put(
    folder: &Folder,
    bytes: &'static [u8],
) -> (&'static [u8], Result<(), object_store::Error>) {
    let path = folder.path(Name::Probe);
    let payload = PutPayload::from(Bytes::from_static(bytes));
    let put = folder
        .store
        .put_opts(&path, payload, PutMode::Create.into());
    let limit = folder.config.attempt_limit(0, 0);
    let result = folder.within(limit, 0, put).await;
    (bytes, result.map(drop).map_err(|failed| failed.error))
}

async fn create(folder: &Folder, bytes: &'static [u8]) -> Result<Answer, Error> {
    use object_store::Error as Store;
    let path = folder.path(Name::Probe);
    let mut failed = 0;
    loop {
        let error = match put(folder, bytes).await.1 {
            Ok(()) => return Ok(Answer::Made),
            Err(Store::AlreadyExists { .. } | Store::Precondition { .. }) => {
                // Some stores say this while another request is on its way: only what is there counts.
                match folder.get(&path).await? {
                    Some(_) => return Ok(Answer::Refused),
                    None => continue_after(folder, &mut failed).await,
                }
                if failed < TRIES {
                    continue;
                }
                return Err(unfit(folder, NEVER_THERE));
            }
            Err(error @ (Store::NotImplemented { .. } | Store::NotSupported { .. })) => {
                return Err(unfit(folder, &error.to_string()));
            }
            Err(error) => error,
        };
        continue_after(folder, &mut failed).await;
        if !may_pass(&error) || failed >= TRIES {
            return Err(folder.io("write", &path, std::io::Error::other(error)));
        }
    }
}

async fn continue_after(folder: &Folder, failed: &mut u32) {
    *failed += 1;
    tokio::time::sleep(folder.pace.wait(*failed)).await;
}

fn unfit(folder: &Folder, why: &str) -> Error {
    Error::Invalid(format!(
        "{}: the store {} has no conditional writes ({why}), and a log in it could not be fenced; use a store that keeps \
         `If-None-Match: *`, or a log on a block device",
        folder.place, folder.store
    ))
}
