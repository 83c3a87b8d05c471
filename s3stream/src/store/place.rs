//! Places as text: buckets, logs, metadata. One parser; the table is in `docs/ARCHITECTURE.md`.
//!
//! A parameter that is not known is refused, and so is anything that looks like a credential: those come apart from the place.
//! `Display` gives a text that parses to the same place.

use std::{
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use self::ways::{CHECKSUM, ENDPOINT, HOSTED};
use crate::{Error, Result};

pub(super) mod ways;

/// Where the objects are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BucketPlace {
    /// `memory:` gone with the process.
    Memory,
    /// `file:///dir` or `file:dir`.
    File(PathBuf),
    /// `s3://`, `az://`, `gs://`.
    Remote(RemotePlace),
}

/// A bucket of an object store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemotePlace {
    /// Which protocol.
    pub kind: RemoteKind,
    /// The bucket or container.
    pub bucket: String,
    /// The cluster's prefix in it; may be empty.
    pub prefix: String,
    /// Known parameters, in the order given.
    pub parameters: Vec<(String, String)>,
}

/// A protocol of object stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteKind {
    /// Amazon's, and all who speak it.
    S3,
    /// Azure Blob.
    Azure,
    /// Google Cloud Storage.
    Gcs,
}

impl RemoteKind {
    const ALL: [Self; 3] = [Self::S3, Self::Azure, Self::Gcs];

    /// The scheme of its places.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "az",
            Self::Gcs => "gs",
        }
    }

    /// The parameters a place may have. None of them is a secret.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[
                ENDPOINT,
                "region",
                "allow_http",
                HOSTED,
                CHECKSUM,
                "skip_signature",
            ],
            Self::Azure => &["account_name", "endpoint", "allow_http", "skip_signature"],
            Self::Gcs => &["base_url", "allow_http", "skip_signature"],
        }
    }
}

/// Where a node's log is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogPlace {
    /// `memory:` gone with the process.
    Memory,
    /// `block:PATH?capacity=SIZE`: a file or a block device.
    Block {
        /// The file or device.
        path: PathBuf,
        /// Bytes to use; needed to make a file, and otherwise the size it has.
        capacity: Option<u64>,
    },
    /// `object:` in the engine's bucket, or `object:` and another bucket's place.
    Object(Option<BucketPlace>),
    /// `nfs:DIR?capacity=SIZE`: a directory that several hosts may mount.
    Nfs {
        /// The directory, which must be there.
        path: PathBuf,
        /// Bytes to use; needed to make a log, and otherwise the size it has.
        capacity: Option<u64>,
    },
}

/// Where the metadata is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataPlace {
    /// `bucket:` beside the objects.
    Bucket,
}

impl FromStr for BucketPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = Parts::parse("bucket", text)?;
        match place.scheme {
            "memory" => place.nothing_else(&[]).map(|()| Self::Memory),
            "file" => {
                place.known(&[])?;
                Ok(Self::File(place.file()?))
            }
            scheme => {
                let remote = RemoteKind::ALL
                    .into_iter()
                    .find(|kind| kind.scheme() == scheme);
                match remote {
                    Some(kind) => place.remote(kind).map(Self::Remote),
                    None => Err(place.refuse("unknown scheme; known are memory, file, s3, az, gs")),
                }
            }
        }
    }
}

impl FromStr for LogPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // What follows is a place of its own, with its own parameters.
        if let Some(bucket) = text.strip_prefix("object:") {
            let other = (!bucket.is_empty()).then(|| bucket.parse()).transpose()?;
            return Ok(Self::Object(other));
        }
        let place = Parts::parse("log", text)?;
        match place.scheme {
            "memory" => place.nothing_else(&[]).map(|()| Self::Memory),
            "block" => Ok(Self::Block {
                path: place.file()?,
                capacity: place.capacity()?,
            }),
            "nfs" => Ok(Self::Nfs {
                path: place.file()?,
                capacity: place.capacity()?,
            }),
            _ => Err(place.refuse("unknown scheme; known are block, nfs, object, memory")),
        }
    }
}

impl FromStr for MetadataPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = Parts::parse("metadata", text)?;
        match place.scheme {
            "bucket" => place.nothing_else(&[]).map(|()| Self::Bucket),
            "etcd" => Err(place.refuse("metadata in etcd is not built yet; use bucket:")),
            _ => Err(place.refuse("unknown scheme; known is bucket")),
        }
    }
}

impl fmt::Display for BucketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write_path(f, "file", path),
            Self::Remote(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", escaped(&self.prefix))?;
        }
        for (index, (key, value)) in self.parameters.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            write!(f, "{mark}{key}={}", escaped(value))?;
        }
        Ok(())
    }
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Block { path, capacity } => write_sized(f, "block", path, *capacity),
            Self::Nfs { path, capacity } => write_sized(f, "nfs", path, *capacity),
            Self::Object(None) => f.write_str("object:"),
            Self::Object(Some(bucket)) => write!(f, "object:{bucket}"),
        }
    }
}

fn write_sized(
    f: &mut fmt::Formatter<'_>,
    scheme: &str,
    path: &std::path::Path,
    capacity: Option<u64>,
) -> fmt::Result {
    write_path(f, scheme, path)?;
    match capacity {
        Some(capacity) => write!(f, "?capacity={capacity}"),
        None => Ok(()),
    }
}

impl fmt::Display for MetadataPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket:")
    }
}

fn write_path(f: &mut fmt::Formatter<'_>, scheme: &str, path: &std::path::Path) -> fmt::Result {
    let slashes = if path.is_absolute() && scheme == "file" {
        "//"
    } else {
        ""
    };
    write!(f, "{scheme}:{slashes}{}", escaped(&path.to_string_lossy()))
}

/// A place taken apart: `scheme:rest?key=value&…`.
struct Parts<'a> {
    what: &'static str,
    scheme: &'a str,
    rest: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl<'a> Parts<'a> {
    fn parse(what: &'static str, text: &'a str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            // The text may be anything, a secret in the wrong place too: it is not repeated.
            return Err(Error::invalid(format!(
                "{what}: a place begins with a scheme and a colon"
            )));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parts = Self {
            what,
            scheme,
            rest,
            parameters: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let value = pair
                .split_once('=')
                .and_then(|(key, value)| Some((key, unescape(value)?)));
            match value {
                Some((key, _)) if parts.parameter(key).is_some() => {
                    return Err(parts
                        .refuse("a parameter is given twice")
                        .with("parameter", key));
                }
                Some((key, value)) => parts.parameters.push((key, value)),
                None => return Err(parts.refuse("parameters are key=value, divided by &")),
            }
        }
        Ok(parts)
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid(format!("{}: {why}", self.what)).with("scheme", self.scheme)
    }

    fn parameter(&self, key: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| *known == key)?;
        Some(&found.1)
    }

    fn known(&self, known: &[&str]) -> Result<()> {
        match self.parameters.iter().find(|(key, _)| !known.contains(key)) {
            // Only the name: the value may be a secret.
            Some((key, _)) => Err(self
                .refuse("unknown parameter")
                .with("parameter", key)
                .with("known", known.join(", "))),
            None => Ok(()),
        }
    }

    /// The capacity, the only parameter there may be.
    fn capacity(&self) -> Result<Option<u64>> {
        self.known(&["capacity"])?;
        let size = self.parameter("capacity").map(|size| {
            parse_size(size).ok_or_else(|| {
                self.refuse("capacity is a number of bytes, or one with KiB, MiB, GiB or TiB")
            })
        });
        size.transpose()
    }

    fn nothing_else(&self, known: &[&str]) -> Result<()> {
        self.known(known)?;
        match self.rest {
            "" | "//" => Ok(()),
            _ => Err(self.refuse("nothing follows this scheme")),
        }
    }

    /// `///abs`, `/abs` or `relative`.
    fn file(&self) -> Result<PathBuf> {
        let path = match self.rest.strip_prefix("//") {
            Some(local) if local.starts_with('/') => local,
            Some(_) => return Err(self.refuse("a path with a host: three slashes, or none")),
            None => self.rest,
        };
        match unescape(path) {
            Some(path) if !path.is_empty() && !path.contains('\0') => Ok(PathBuf::from(path)),
            _ => Err(self.refuse("a path follows this scheme")),
        }
    }

    fn remote(&self, kind: RemoteKind) -> Result<RemotePlace> {
        self.known(kind.parameters())?;
        let Some(rest) = self.rest.strip_prefix("//") else {
            return Err(self.refuse("two slashes and the bucket's name follow this scheme"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err(self.refuse("credentials are not part of a place"));
        }
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if bucket.is_empty() || !bucket.chars().all(usable) {
            return Err(self.refuse("not the name of a bucket"));
        }
        let Some(prefix) = unescape(prefix.trim_end_matches('/')) else {
            return Err(self.refuse("prefix of the bucket"));
        };
        let own = |(key, value): &(&str, String)| ((*key).to_owned(), value.clone());
        Ok(RemotePlace {
            kind,
            bucket: bucket.to_owned(),
            prefix,
            parameters: self.parameters.iter().map(own).collect(),
        })
    }
}

/// Bytes as `4096`, `64KiB`, `256MiB`, `1GiB`, `2TiB`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte)
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match is_plain(byte) {
            true => out.push(char::from(byte)),
            false => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_from_their_text() {
        for text in [
            "memory:",
            "file:///var/lib/s3stream",
            "file:data/bucket",
            "file:///a%20b%3Fc",
            "s3://bucket",
            "s3://bucket/some/prefix?endpoint=http://localhost:8333&region=us-east-1&allow_http=true",
            "az://container/p?account_name=x",
            "gs://bucket/p",
        ] {
            let place: BucketPlace = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
        }
        let place: LogPlace = "block:/dev/nvme0n1?capacity=256MiB".parse().unwrap();
        let expected = LogPlace::Block {
            path: "/dev/nvme0n1".into(),
            capacity: Some(256 << 20),
        };
        assert_eq!(place, expected);
        assert_eq!(place.to_string().parse::<LogPlace>().unwrap(), expected);
        for text in [
            "object:",
            "object:memory:",
            "object:s3://other/p?endpoint=http://localhost:8333&allow_http=true",
        ] {
            assert_eq!(text.parse::<LogPlace>().unwrap().to_string(), text);
        }
        let place: LogPlace = "nfs:/mnt/wal?capacity=1GiB".parse().unwrap();
        let expected = LogPlace::Nfs {
            path: "/mnt/wal".into(),
            capacity: Some(1 << 30),
        };
        assert_eq!(place, expected);
        assert_eq!(place.to_string().parse::<LogPlace>().unwrap(), expected);
        assert_eq!(
            "bucket:".parse::<MetadataPlace>().unwrap(),
            MetadataPlace::Bucket
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_says_what_is() {
        let bucket = |text: &str| text.parse::<BucketPlace>().unwrap_err().to_string();
        assert!(bucket("/var/lib").contains("begins with a scheme"));
        assert!(bucket("ftp://x").contains("known are memory, file, s3"));
        assert!(bucket("s3://b?colour=blue").contains("known: endpoint, region"));
        assert!(bucket("s3://b?region=a&region=b").contains("twice"));
        assert!(bucket("s3:bucket").contains("two slashes"));
        assert!(bucket("file://host/dir").contains("host"));
        assert!(bucket("memory:x").contains("nothing follows"));
        let log = |text: &str| text.parse::<LogPlace>().unwrap_err().to_string();
        assert!(log("object:?capacity=1GiB").contains("begins with a scheme"));
        assert!(log("object:block:x").contains("known are memory, file, s3"));
        assert!(log("nfs:/mnt?lease=1s").contains("known: capacity"));
        assert!(log("nfs:").contains("a path follows"));
        assert!(log("block:x?capacity=1GB").contains("KiB, MiB"));
        assert!(log("block:x?capacity=99999999TiB").contains("KiB, MiB"));
        let metadata = "etcd://h1,h2/p".parse::<MetadataPlace>().unwrap_err();
        assert!(
            metadata.to_string().contains("etcd is not built yet"),
            "{metadata}"
        );
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
        for text in [
            "s3://key:hunter2@bucket/p",
            "s3://bucket?secret_access_key=hunter2",
            "hunter2",
            "s3://bucket/?token=hunter2",
        ] {
            let error = text.parse::<BucketPlace>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
