//! Whether the store is what the log needs, found out at every opening (lesson 27).
//!
//! - A second put-if-absent of one name must be refused: without that nobody can be fenced, and the log is not opened.
//! - A listing that lags costs requests, nothing else: it is only said.
//!
//! The first opening makes the object and tries all of it; a later one asks once whether it is still refused. The log needs nothing else of a
//! store: no ranges, no ETags, no listing that is complete, no multipart.

use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutPayload};

use super::{
    folder::{Folder, Name, may_pass},
    listing::Listing,
};
use crate::{Error, LogUuid};

const FIRST: &[u8] = b"s3stream: the first to put this name, 1\n";
const SECOND: &[u8] = b"s3stream: a second, which has to be refused, 1\n";
const TRIES: u32 = 20;

enum Answer {
    Made,
    Refused,
}

/// Asks the store. `listing` was made before.
pub(crate) async fn probe(folder: &Folder, log: LogUuid, listing: &Listing) -> Result<(), Error> {
    if !listing.probed {
        // Another opening may do the same at this moment.
        create(folder, FIRST).await?;
    }
    if let Answer::Made = create(folder, SECOND).await? {
        return Err(unfit(folder, "it took a second put-if-absent of one name"));
    }
    if listing.probed {
        return Ok(());
    }
    let path = folder.path(Name::Probe);
    match folder.get(&path).await? {
        Some(found) if found == FIRST => {}
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

async fn create(folder: &Folder, bytes: &'static [u8]) -> Result<Answer, Error> {
    use object_store::Error as Store;
    let path = folder.path(Name::Probe);
    let mut failed = 0;
    loop {
        let payload = PutPayload::from(Bytes::from_static(bytes));
        let put = folder
            .store
            .put_opts(&path, payload, PutMode::Create.into());
        let limit = folder.config.attempt_limit(0, 0);
        let error = match folder
            .within(limit, 0, put)
            .await
            .map_err(|failed| failed.error)
        {
            Ok(_) => return Ok(Answer::Made),
            Err(Store::AlreadyExists { .. } | Store::Precondition { .. }) => {
                // Some stores say this while another request is on its way: only what is there counts.
                match folder.get(&path).await? {
                    Some(_) => return Ok(Answer::Refused),
                    None => continue_after(folder, &mut failed).await,
                }
                if failed < TRIES {
                    continue;
                }
                return Err(unfit(
                    folder,
                    "it refuses a put-if-absent of a name that is not there",
                ));
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
