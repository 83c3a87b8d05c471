//! The ways in which a bucket may be asked: as its place says, and the others, for stores that do not take that.

use super::{RemoteKind, RemotePlace};

pub(super) const ENDPOINT: &str = "endpoint";
pub(super) const HOSTED: &str = "virtual_hosted_style_request";
pub(super) const CHECKSUM: &str = "checksum_algorithm";

/// A way to ask a bucket, see [`RemotePlace::ways`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Way {
    pub(in crate::store) place: RemotePlace,
    /// Asks for the bucket under another name of a host.
    pub(in crate::store) readdressed: bool,
    pub(in crate::store) gives_up: &'static str,
}

impl RemotePlace {
    /// In which ways the bucket can be asked: as the place says, then the others, each with what it gives up of that.
    pub(in crate::store) fn ways(&self) -> Vec<Way> {
        let mut ways = vec![Way {
            place: self.clone(),
            readdressed: false,
            gives_up: "",
        }];
        let mut also = |place: Option<Self>, readdressed, gives_up| {
            ways.extend(place.map(|place| Way {
                place,
                readdressed,
                gives_up,
            }));
        };
        let other = self.readdressed();
        let both = other.as_ref().and_then(Self::without_checksums);
        also(self.without_checksums(), false, "checksums");
        also(other, true, "the addressing");
        also(both, true, "checksums, and the addressing");
        ways
    }

    /// Whether its requests name the bucket in the path: S3's default, which all stores but few take.
    fn is_path_style(&self) -> bool {
        self.kind == RemoteKind::S3 && self.parameter(HOSTED) != Some("true")
    }

    /// Whether each PUT carries a checksum of the store's own kind, which some refuse; objects have checksums of ours in any case.
    fn sends_checksums(&self) -> bool {
        self.parameter(CHECKSUM).is_some()
    }

    fn parameter(&self, key: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == key)?;
        Some(&found.1)
    }

    fn without(&self, key: &str) -> Self {
        let mut place = self.clone();
        place.parameters.retain(|(known, _)| known != key);
        place
    }

    fn without_checksums(&self) -> Option<Self> {
        self.sends_checksums().then(|| self.without(CHECKSUM))
    }

    /// Every deletion a request of its own.
    pub(in crate::store) fn deleting_singly(&self) -> Self {
        let mut place = self.clone();
        if self.kind == RemoteKind::S3 {
            let singly = ("disable_bulk_delete".to_owned(), "true".to_owned());
            place.parameters.push(singly);
        }
        place
    }

    /// With the bucket in the name of the host if it is in the path, and the other way round; `None` where only one can be.
    fn readdressed(&self) -> Option<Self> {
        if self.kind != RemoteKind::S3 {
            return None;
        }
        let hosted = self.is_path_style();
        let mut place = self.without(HOSTED);
        if let Some(endpoint) = self.parameter(ENDPOINT) {
            let mut url = url::Url::parse(endpoint).ok()?;
            // The bucket cannot stand before an address of numbers.
            let url::Host::Domain(host) = url.host()? else {
                return None;
            };
            let host = if hosted {
                format!("{}.{host}", self.bucket)
            } else {
                host.strip_prefix(&format!("{}.", self.bucket))?.to_owned()
            };
            url.set_host(Some(&host)).ok()?;
            let url = url.as_str().trim_end_matches('/').to_owned();
            place = place.without(ENDPOINT);
            place.parameters.push((ENDPOINT.to_owned(), url));
        }
        if hosted {
            place
                .parameters
                .push((HOSTED.to_owned(), "true".to_owned()));
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BucketPlace;

    #[test]
    fn a_bucket_can_be_asked_in_every_way_that_its_endpoint_allows() {
        let ways = |text: &str| {
            let BucketPlace::Remote(place) = text.parse().unwrap() else {
                panic!("{text}");
            };
            let ways = place.ways().into_iter();
            ways.map(|way| way.place.to_string()).collect::<Vec<_>>()
        };
        const HOSTED: &str = "virtual_hosted_style_request=true";
        let plain = "s3://b/p?region=r&endpoint=https://store.test:9000";
        let hosted = format!("s3://b/p?region=r&endpoint=https://b.store.test:9000&{HOSTED}");
        assert_eq!(ways(plain), [plain, &hosted]);
        assert_eq!(ways(&hosted), [&hosted, plain]);
        // No bucket before an address, none to take away, none in the stores of others.
        for text in [
            "s3://b?endpoint=http://127.0.0.1:9000",
            &format!("s3://b?endpoint=https://other.store.test&{HOSTED}"),
            "gs://b",
        ] {
            assert_eq!(ways(text), [text]);
        }
        let sums = "s3://b?checksum_algorithm=sha256";
        let both = format!("{sums}&{HOSTED}");
        assert_eq!(
            ways(sums),
            [sums, "s3://b", &both, &format!("s3://b?{HOSTED}")]
        );
    }
}
