//! From a place and credentials to a bucket: the store library's clients, their own retries off.
//!
//! Credentials are shown by nothing: not by `Debug`, not in errors.

use std::{fmt, sync::Arc};

use object_store::{ObjectStore, list::PaginatedListStore};

use super::{Bucket, BucketPlace, RemoteKind, RemotePlace};
use crate::{Error, Result, entropy::Entropy};

/// Settings of the store library that hold secrets, as it names them: `aws_access_key_id`, `google_service_account`, ….
/// The library reads no environment; a program passes what its own contains.
#[derive(Clone, Default)]
pub struct Credentials(Vec<(String, String)>);

impl Credentials {
    /// Nothing: what the store's machine identity gives.
    pub fn none() -> Self {
        Self::default()
    }

    /// From pairs such as a program's environment; what the store library does not know is left out.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let lower = |(key, value): (String, String)| (key.to_ascii_lowercase(), value);
        let theirs = |(key, _): &(String, String)| {
            ["aws_", "azure_", "google_"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
        };
        Self(pairs.into_iter().map(lower).filter(theirs).collect())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} settings)", self.0.len())
    }
}

impl BucketPlace {
    /// Opens the bucket. Asks nothing of a remote store yet.
    pub fn open(&self, credentials: &Credentials, entropy: &Entropy) -> Result<Bucket> {
        match self {
            Self::Memory => Bucket::memory(entropy),
            Self::File(dir) => Bucket::local(dir, entropy),
            Self::Remote(place) => place.open(credentials, entropy),
        }
    }
}

/// Ours sit above, so that the ledger counts every attempt and deadlines hold.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn no_retries() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 0,
        ..Default::default()
    }
}

/// The client's own limit is for requests that nobody limits, which there are none of in the engine: a PUT on a slow way may take long, and what it
/// may take is decided by its bytes, above.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const REQUEST_MOST: std::time::Duration = std::time::Duration::from_secs(3600);

/// A client's builder with credentials, then the place's own parameters, then the bucket.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
macro_rules! client {
    ($builder:ty, $key:ty, $named:ident, $place:expr, $credentials:expr) => {{
        let mut builder = <$builder>::new()
            .with_retry(no_retries())
            .with_client_options(object_store::ClientOptions::new().with_timeout(REQUEST_MOST));
        for (key, value) in &$credentials.0 {
            if let Ok(key) = key.parse::<$key>() {
                builder = builder.with_config(key, value);
            }
        }
        for (key, value) in &$place.parameters {
            let known = key.parse::<$key>().map_err(|error| $place.refused(error))?;
            builder = builder.with_config(known, value);
        }
        let client = builder.$named(&$place.bucket).build();
        let client = Arc::new(client.map_err(|error| $place.refused(error))?);
        Client {
            store: Arc::clone(&client) as _,
            pages: client as _,
        }
    }};
}

/// A store, and the same asked page by page.
pub(super) struct Client {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) pages: Arc<dyn PaginatedListStore>,
}

impl RemotePlace {
    pub(super) fn open(&self, credentials: &Credentials, entropy: &Entropy) -> Result<Bucket> {
        Bucket::new(self.client(credentials)?.store, &self.prefix, entropy)
    }

    pub(super) fn client(&self, credentials: &Credentials) -> Result<Client> {
        match self.kind {
            #[cfg(feature = "aws")]
            RemoteKind::S3 => Ok(client!(
                object_store::aws::AmazonS3Builder,
                object_store::aws::AmazonS3ConfigKey,
                with_bucket_name,
                self,
                credentials
            )),
            #[cfg(feature = "azure")]
            RemoteKind::Azure => Ok(client!(
                object_store::azure::MicrosoftAzureBuilder,
                object_store::azure::AzureConfigKey,
                with_container_name,
                self,
                credentials
            )),
            #[cfg(feature = "gcp")]
            RemoteKind::Gcs => Ok(client!(
                object_store::gcp::GoogleCloudStorageBuilder,
                object_store::gcp::GoogleConfigKey,
                with_bucket_name,
                self,
                credentials
            )),
            #[allow(unreachable_patterns, reason = "each store is a feature")]
            kind => {
                let _ = credentials;
                Err(Error::invalid("this build has no client for the store")
                    .with("scheme", kind.scheme())
                    .with("feature", feature_of(kind)))
            }
        }
    }

    /// The client's words are about its settings and may repeat their values: only what kind of error it was is told.
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    fn refused(&self, error: object_store::Error) -> Error {
        let refused =
            Error::invalid("the store's client refuses its settings").with("bucket", self);
        match error {
            object_store::Error::UnknownConfigurationKey { key, .. } => {
                refused.with("setting", key)
            }
            object_store::Error::Generic { store, .. } => refused.with("client", store),
            _ => refused,
        }
    }
}

fn feature_of(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::S3 => "aws",
        RemoteKind::Azure => "azure",
        RemoteKind::Gcs => "gcp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_shown_by_nothing() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let credentials = Credentials::from_pairs([
            pair("AWS_ACCESS_KEY_ID", "hunter1"),
            pair("AWS_SECRET_ACCESS_KEY", "hunter2"),
            pair("HOME", "/root"),
        ]);
        assert_eq!(format!("{credentials:?}"), "Credentials(2 settings)");
    }

    #[cfg(feature = "aws")]
    #[test]
    fn a_remote_bucket_opens_without_a_request_and_shows_no_secret() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let credentials = Credentials::from_pairs([
            pair("AWS_ACCESS_KEY_ID", "hunter1"),
            pair("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ]);
        let place: BucketPlace = "s3://b/p?endpoint=http://127.0.0.1:1&allow_http=true"
            .parse()
            .unwrap();
        let bucket = place.open(&credentials, &Entropy::seeded(1)).unwrap();
        assert_eq!(bucket.path("a/b").to_string(), "p/a/b");
        assert_eq!(bucket.requests().total(), 0);
        assert!(!format!("{bucket:?}").contains("hunter"), "{bucket:?}");
    }

    #[cfg(feature = "aws")]
    #[test]
    fn half_a_credential_is_refused_without_repeating_it() {
        let credentials =
            Credentials::from_pairs([("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())]);
        let place: BucketPlace = "s3://b".parse().unwrap();
        let error = place.open(&credentials, &Entropy::seeded(1)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
