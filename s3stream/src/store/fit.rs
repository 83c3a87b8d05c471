//! A remote bucket, opened in the way that its store takes: tried at every opening, on two small objects of its own (lesson 27).
//!
//! - A store that refuses writes as the place asks for them is asked in the other ways there are: without the store's own checksums, with the bucket
//!   in the host's name, or in the path. The first that it takes is used, and what was given up is said, with the store's reason.
//! - A bucket that is missing is not looked for under another name.
//! - A store that takes none is no matter of this module: the engine's own requests say what is wrong, with all their retries.
//! - One that refuses deletions by the batch gets them one by one.
//! - Ranges have to be kept; everything but the log reads by them.
//! - Listings that lag, or are cut into pages that do not go on, are said and borne with: they find what is left over, and nothing rests on them.
//!
//! Whether conditional writes are kept is asked where they matter: by the cluster's file and by the log.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};

use super::{
    Bucket, BucketPlace, Credentials, RemotePlace, RetryPolicy, remote::Client, store_error,
};
use crate::{Error, ErrorKind, Result, entropy::Entropy};

const CONTENT: &[u8] = b"0123456789";
/// Two names in pages of one need two pages, and stores may end with an empty one.
const PAGES_MOST: usize = 4;
/// A way that is refused by mistake costs a checksum, and one that is slow the time of the opening: so a few tries, and not for long.
const TRIAL: RetryPolicy = RetryPolicy {
    tries: 3,
    first_wait: Duration::from_millis(100),
    wait_max: Duration::from_millis(400),
    attempt: Duration::from_secs(5),
    deadline: Duration::from_secs(10),
};

impl BucketPlace {
    /// Opens the bucket, and asks a remote store in which way it takes requests.
    ///
    /// # Errors
    /// `Invalid`: the client refuses the settings, or the store ignores ranges. `Unavailable`: the store takes writes, but has stopped to
    /// answer since.
    pub async fn open_fitting(
        &self,
        credentials: &Credentials,
        entropy: &Entropy,
    ) -> Result<Bucket> {
        match self {
            Self::Memory | Self::File(_) => self.open(credentials, entropy),
            Self::Remote(place) => place.open_fitting(credentials, entropy).await,
        }
    }
}

impl RemotePlace {
    async fn open_fitting(&self, credentials: &Credentials, entropy: &Entropy) -> Result<Bucket> {
        let mut refused: Option<Error> = None;
        for way in self.ways() {
            // A bucket that is not there must not be found elsewhere: where every name leads to one server, the other way names another bucket.
            let is_missing = |error: &Error| error.kind() == ErrorKind::NotFound;
            if way.readdressed && refused.as_ref().is_some_and(is_missing) {
                continue;
            }
            let Client { store, pages } = way.place.client(credentials)?;
            let bucket = Bucket::new(store, &self.prefix, entropy)?;
            let trial = Trial::of(&bucket, entropy);
            match trial.put(&trial.first).await {
                Ok(()) => {
                    if let Some(reason) = refused {
                        tracing::warn!(
                            bucket = %self, given_up = way.gives_up, %reason,
                            "the store refuses writes as its place asks for them, and takes others"
                        );
                    }
                    let asked = trial.ask(pages.as_ref()).await;
                    let Err(reason) = trial.clean_up().await else {
                        return asked.map(|()| bucket);
                    };
                    let single = way.place.deleting_singly().client(credentials)?.store;
                    let single = Bucket::new(single, &self.prefix, entropy)?;
                    return match trial.asking(&single).clean_up().await {
                        Ok(()) => {
                            tracing::warn!(bucket = %self, %reason, "the store deletes objects one by one only");
                            asked.map(|()| single)
                        }
                        Err(_) => {
                            tracing::warn!(bucket = %self, %reason, "the store deletes nothing yet: two small objects stay");
                            asked.map(|()| bucket)
                        }
                    };
                }
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        if let Some(reason) = refused {
            tracing::warn!(bucket = %self, %reason, "the store takes no write yet");
        }
        self.open(credentials, entropy)
    }
}

/// The objects of one opening.
struct Trial {
    bucket: Bucket,
    folder: Path,
    first: Path,
    second: Path,
}

impl Trial {
    fn of(bucket: &Bucket, entropy: &Entropy) -> Self {
        let folder = bucket.path(&format!("probe-{:016x}", entropy.next_u64()));
        Self {
            bucket: bucket.clone().with_retries(TRIAL),
            first: folder.clone().join("1"),
            second: folder.clone().join("2"),
            folder,
        }
    }

    async fn put(&self, path: &Path) -> Result<()> {
        let put = self.bucket.store();
        let put = put.put(path, Bytes::from_static(CONTENT).into()).await;
        put.map(drop)
            .map_err(|error| store_error("write", path, error))
    }

    async fn ask(&self, pages: &dyn PaginatedListStore) -> Result<()> {
        self.put(&self.second).await?;
        self.bucket.check_ranges(&self.first, CONTENT).await?;
        if let Err(reason) = self.check_pages(pages).await {
            tracing::warn!(
                bucket = %self.bucket.store(), reason,
                "the store's listings are not whole: what is left over stays longer, and a log in it asks more when it is opened"
            );
        }
        Ok(())
    }

    /// What is wrong with the listing of two objects in pages of one.
    async fn check_pages(&self, pages: &dyn PaginatedListStore) -> Result<(), String> {
        let mut found = BTreeSet::new();
        let mut token = None;
        let under = format!("{}/", self.folder);
        for _ in 0..PAGES_MOST {
            let options = PaginatedListOptions {
                max_keys: Some(1),
                page_token: token,
                ..PaginatedListOptions::default()
            };
            let page = pages.list_paginated(Some(&under), options);
            let page = tokio::time::timeout(TRIAL.attempt, page).await;
            self.bucket.count_list();
            let page = page
                .map_err(|_| "a page does not come".to_owned())?
                .map_err(|error| error.to_string())?;
            for object in page.result.objects {
                if !found.insert(object.location) {
                    return Err("a page comes again".to_owned());
                }
            }
            token = page.page_token;
            if token.is_none() {
                break;
            }
        }
        let whole = found.contains(&self.first) && found.contains(&self.second);
        match (whole, token) {
            (true, None) => Ok(()),
            (_, Some(_)) => Err("its pages do not end".to_owned()),
            (false, None) => Err(format!("{} of 2 new objects are listed", found.len())),
        }
    }

    /// Both objects go in one batch.
    async fn clean_up(&self) -> Result<()> {
        let paths = [&self.first, &self.second].map(|path| Ok(path.clone()));
        let paths = futures::stream::iter(paths).boxed();
        let deleted = self.bucket.store().delete_stream(paths);
        let deleted: Result<Vec<Path>, _> = deleted.try_collect().await;
        match deleted {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error("delete", &self.folder, error)),
        }
    }

    fn asking(mut self, bucket: &Bucket) -> Self {
        self.bucket = bucket.clone().with_retries(TRIAL);
        self
    }
}

impl Bucket {
    /// Refuses a store that does not answer a range of an object with the bytes of that range. `content` is what is there.
    pub(super) async fn check_ranges(&self, path: &Path, content: &[u8]) -> Result<()> {
        let range = self.store().get_range(path, 3..6).await;
        // Retried as everything is: what is still an error then is an answer.
        match range {
            Ok(bytes) if content.get(3..6) == Some(&bytes[..]) => Ok(()),
            other => {
                tracing::warn!(?other, "a read of bytes 3 to 5 of an object");
                Err(Error::invalid(
                    "the store ignores what everything here rests on: use another store",
                )
                .with("store", self.store())
                .with("ignored", "range"))
            }
        }
    }
}
