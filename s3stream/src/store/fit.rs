//! A remote bucket, opened in the way that its store takes: tried at every opening, on two small objects of its own (lesson 27).
//!
//! - A store that refuses writes as the place asks for them is asked in the other ways there are: without the store's own checksums, with the bucket
//!   in the host's name, or in the path. The first that it takes is used, and what was given up is said, with the store's reason.
//! - Only a refusal counts. Trouble that passes, and a bucket that is missing, are no reason to look elsewhere: another way to say where a bucket is
//!   may lead to another bucket. So what was put there must also be listed there.
//! - One that refuses deletions by the batch gets them one by one.
//! - Ranges have to be kept; everything but the log reads by them.
//! - Listings that lag, or are cut into pages that do not go on, are said and borne with: they find what is left over, and nothing rests on them.
//!
//! Whether conditional writes are kept is asked where they matter: by the cluster's file and by the log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};

use super::{
    Bucket, BucketPlace, Credentials, RemotePlace, RetryPolicy, remote::Client, retry::is_refusal,
    store_error,
};
use crate::{Error, Result, entropy::Entropy};

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
        let Some((trial, pages, way)) = self.taken(credentials, entropy).await? else {
            return self.open(credentials, entropy);
        };
        let asked = trial.ask(pages.as_ref()).await;
        let Err(reason) = trial.clean_up().await else {
            return asked.map(|()| trial.given);
        };
        let single = trial.deleting_singly(&way, credentials, entropy)?;
        if single.clean_up().await.is_err() {
            tracing::warn!(bucket = %self, %reason, "the store deletes nothing yet: two small objects stay");
            return asked.map(|()| trial.given);
        }
        tracing::warn!(bucket = %self, %reason, "the store deletes objects one by one only");
        asked.map(|()| single.given)
    }

    /// The first way in which the store takes a write, with the write; `None` if there is none, or none for now.
    async fn taken(
        &self,
        credentials: &Credentials,
        entropy: &Entropy,
    ) -> Result<Option<(Trial, Arc<dyn PaginatedListStore>, Self)>> {
        let mut refused = None;
        for way in self.ways() {
            let Client { store, pages } = way.place.client(credentials)?;
            let trial = Trial::of(Bucket::new(store, &self.prefix, entropy)?, entropy);
            let error = match trial.put(&trial.first).await {
                Ok(()) if way.readdressed && !trial.is_at_home(pages.as_ref()).await => {
                    // Elsewhere: there a batch would be a request of another kind.
                    let single = trial.deleting_singly(&way.place, credentials, entropy)?;
                    if let Err(error) = single.clean_up().await {
                        tracing::warn!(bucket = %self, %error, "an object of ten bytes stays where it does not belong");
                    }
                    break;
                }
                Ok(()) => {
                    if let Some(reason) = refused {
                        tracing::warn!(
                            bucket = %self, given_up = way.gives_up, %reason,
                            "the store refuses writes as its place asks for them, and takes others"
                        );
                    }
                    return Ok(Some((trial, pages, way.place)));
                }
                Err(error) => error,
            };
            // Trouble passes, and a bucket that is missing is not elsewhere.
            let go_on = is_refusal(&error);
            refused = refused.or(Some(error));
            if !go_on {
                break;
            }
        }
        let reason = refused.map_or_else(String::new, |reason| reason.to_string());
        tracing::warn!(bucket = %self, reason, "the store takes no write yet");
        Ok(None)
    }
}

/// The objects of one opening.
#[derive(Clone)]
struct Trial {
    given: Bucket,
    folder: Path,
    first: Path,
    second: Path,
}

impl Trial {
    fn of(given: Bucket, entropy: &Entropy) -> Self {
        let folder = given.path(&format!("probe-{:016x}", entropy.next_u64()));
        Self {
            given,
            first: folder.clone().join("1"),
            second: folder.clone().join("2"),
            folder,
        }
    }

    /// The same, through a client that deletes objects one by one.
    fn deleting_singly(
        &self,
        way: &RemotePlace,
        credentials: &Credentials,
        entropy: &Entropy,
    ) -> Result<Self> {
        let store = way.deleting_singly().client(credentials)?.store;
        Ok(Self {
            given: Bucket::new(store, &way.prefix, entropy)?,
            ..self.clone()
        })
    }

    fn bucket(&self) -> Bucket {
        self.given.clone().with_retries(TRIAL)
    }

    async fn put(&self, path: &Path) -> object_store::Result<()> {
        let store = self.bucket().store();
        let content = Bytes::from_static(CONTENT).into();
        store.put(path, content).await.map(drop)
    }

    /// Whether the first object is listed in the bucket. Where every name of a host leads to one server that looks at none, it was
    /// put into another bucket: that of the first part of its path.
    async fn is_at_home(&self, pages: &dyn PaginatedListStore) -> bool {
        let under = format!("{}/", self.folder);
        let listed = pages.list_paginated(Some(&under), PaginatedListOptions::default());
        let listed = tokio::time::timeout(TRIAL.attempt, listed).await;
        self.given.count_list();
        let is_first = |object: &ObjectMeta| object.location == self.first;
        matches!(listed, Ok(Ok(page)) if page.result.objects.iter().any(is_first))
    }

    async fn ask(&self, pages: &dyn PaginatedListStore) -> Result<()> {
        let put = self.put(&self.second).await;
        put.map_err(|error| store_error("write", &self.second, error))?;
        self.bucket().check_ranges(&self.first, CONTENT).await?;
        if let Err(reason) = self.check_pages(pages).await {
            tracing::warn!(
                bucket = %self.given.store(), reason,
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
            self.given.count_list();
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
        let deleted = self.bucket().store().delete_stream(paths);
        let deleted: Result<Vec<Path>, _> = deleted.try_collect().await;
        match deleted {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error("delete", &self.folder, error)),
        }
    }
}

impl Bucket {
    /// Refuses a store that does not answer a range of an object with the bytes of that range. `content` is what is there.
    pub(super) async fn check_ranges(&self, path: &Path, content: &[u8]) -> Result<()> {
        let range = self.store().get_range(path, 3..6).await;
        match range {
            Ok(bytes) if content.get(3..6) == Some(&bytes[..]) => Ok(()),
            Err(error) if !is_refusal(&error) && !is_whole(&error) => {
                Err(store_error("read", path, error))
            }
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

/// The store has answered a range with the whole object, which its client takes for an error: it says so in words alone.
fn is_whole(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { source, .. } = error else {
        return false;
    };
    source.to_string().contains("non-partial response")
}
