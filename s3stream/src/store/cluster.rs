//! `<prefix>/cluster`: whose bucket this is, and who can read it. `docs/format.md` §Cluster.
//!
//! Written once, by whoever comes first, and never changed. Read at every open, before anything else is.

use bytes::Bytes;

use super::{Bucket, Swap};
use crate::{ClusterId, Error, Result, entropy::Entropy};

const NAME: &str = "cluster";
const MAGIC: [u8; 8] = *b"s3stream";
/// The format of the whole bucket that this version writes.
const FORMAT: u16 = 1;
/// What every format keeps at these places; a newer one may append.
const LEN: usize = 32;
const _: () = assert!(LEN == 8 + 2 + 2 + 16 + 4);

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterFile {
    /// The cluster.
    pub id: ClusterId,
    /// The format it was written in.
    pub format: u16,
    /// The lowest format a reader must know.
    pub least_reader: u16,
}

impl ClusterFile {
    /// Reads the file, or makes it, in which case the store is tried first: without conditional writes nothing here is safe.
    /// With `expected`, a bucket of another cluster is refused.
    pub async fn open(
        bucket: &Bucket,
        entropy: &Entropy,
        expected: Option<ClusterId>,
    ) -> Result<Self> {
        let path = bucket.path(NAME);
        let found = match bucket.read(&path).await? {
            Some((bytes, _)) => Self::decode(&bytes),
            None => match expected {
                Some(expected) => {
                    return Err(Error::invalid(
                        "the bucket holds no cluster, but one is expected there",
                    )
                    .with("path", &path)
                    .with("expected", expected));
                }
                None => Self::create(bucket, entropy).await,
            },
        };
        let found =
            found.map_err(|error| error.with("path", &path).with("store", bucket.store()))?;
        match expected {
            Some(expected) if expected != found.id => {
                Err(Error::invalid("the bucket is another cluster's")
                    .with("path", path)
                    .with("found", found.id)
                    .with("expected", expected))
            }
            _ => Ok(found),
        }
    }

    async fn create(bucket: &Bucket, entropy: &Entropy) -> Result<Self> {
        probe(bucket, entropy).await?;
        let file = Self {
            id: ClusterId::new(entropy.next_u128()),
            format: FORMAT,
            least_reader: FORMAT,
        };
        let path = bucket.path(NAME);
        if bucket.put_new(&path, file.encode()).await? {
            return Ok(file);
        }
        // Another node was first.
        match bucket.read(&path).await? {
            Some((bytes, _)) => Self::decode(&bytes),
            None => Err(Error::unavailable("the cluster file came and went")),
        }
    }

    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.format.to_be_bytes());
        out.extend_from_slice(&self.least_reader.to_be_bytes());
        out.extend_from_slice(&self.id.get().to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(head) = bytes.first_chunk::<LEN>() else {
            return Err(Error::corrupt("cluster file too short").with("len", bytes.len()));
        };
        let (body, crc) = head.split_at(LEN - 4);
        if body[..8] != MAGIC {
            return Err(Error::invalid(
                "this is no cluster file: the prefix is used by something else",
            ));
        }
        let (found, expected) = (crc32c::crc32c(body).to_be_bytes(), crc);
        if found != expected {
            return Err(Error::corrupt("cluster file with a wrong checksum"));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&body[12..28]);
        let file = Self {
            format: u16::from_be_bytes([body[8], body[9]]),
            least_reader: u16::from_be_bytes([body[10], body[11]]),
            id: ClusterId::new(u128::from_be_bytes(id)),
        };
        if file.least_reader > FORMAT {
            return Err(Error::invalid(
                "the bucket has a newer format: this version must be upgraded",
            )
            .with("format", file.format)
            .with("least reader", file.least_reader)
            .with("known", FORMAT));
        }
        if file.format <= FORMAT && bytes.len() != LEN {
            return Err(
                Error::corrupt("cluster file with bytes after its end").with("len", bytes.len())
            );
        }
        Ok(file)
    }
}

/// Stores differ: some take a conditional write and ignore the condition, some answer a range with the whole object. Tried once in a
/// bucket's life, on an object of its own.
async fn probe(bucket: &Bucket, entropy: &Entropy) -> Result<()> {
    let path = bucket.path(&format!("probe-{:016x}", entropy.next_u64()));
    let probed = probe_at(bucket, &path).await;
    bucket.delete(&path).await?;
    match probed? {
        None => Ok(()),
        Some(what) => Err(Error::invalid(
            "the store ignores what everything here rests on: use another store",
        )
        .with("store", bucket.store())
        .with("ignored", what)),
    }
}

async fn probe_at(
    bucket: &Bucket,
    path: &object_store::path::Path,
) -> Result<Option<&'static str>> {
    let swap = async |expected, content: &'static [u8]| match bucket
        .compare_and_swap(path, expected, Bytes::from_static(content))
        .await?
    {
        Swap::Swapped(tag) => Ok(Some(tag)),
        Swap::Conflict => Ok(None),
        Swap::Unknown(error) => Err(error),
    };
    let Some(first) = swap(None, b"1").await? else {
        return Err(Error::unavailable(
            "the probe's object was there before it was made",
        ));
    };
    if swap(None, b"2").await?.is_some() {
        return Ok(Some("if-none-match"));
    }
    if swap(Some(&first), b"0123456789").await?.is_none() {
        return Err(Error::unavailable(
            "the store refused a conditional write that was due",
        ));
    }
    if swap(Some(&first), b"4").await?.is_some() {
        return Ok(Some("if-match"));
    }
    bucket.check_ranges(path, b"0123456789").await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let file = ClusterFile {
            id: ClusterId::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            format: 1,
            least_reader: 1,
        };
        let mut golden = b"s3stream\x00\x01\x00\x01".to_vec();
        golden.extend_from_slice(&(1..=16).collect::<Vec<u8>>());
        golden.extend_from_slice(&crc32c::crc32c(&golden).to_be_bytes());
        assert_eq!(file.encode(), golden);
        assert_eq!(ClusterFile::decode(&golden).unwrap(), file);
        for len in 0..golden.len() {
            assert!(ClusterFile::decode(&golden[..len]).is_err());
        }
        for at in 0..golden.len() {
            let mut flipped = golden.clone();
            flipped[at] ^= 1;
            assert!(ClusterFile::decode(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_that_this_version_can_read_may_have_more_bytes() {
        let newer = |least_reader| {
            let mut bytes = ClusterFile {
                id: ClusterId::new(7),
                format: 2,
                least_reader,
            }
            .encode()
            .to_vec();
            bytes.extend_from_slice(b"more");
            ClusterFile::decode(&bytes)
        };
        assert_eq!(newer(1).unwrap().id, ClusterId::new(7));
        assert!(
            newer(2)
                .unwrap_err()
                .to_string()
                .contains("must be upgraded")
        );
    }

    #[tokio::test]
    async fn the_first_opener_makes_the_cluster_and_the_others_find_it() {
        let entropy = Entropy::seeded(1);
        let bucket = Bucket::memory(&entropy).unwrap();
        let made = ClusterFile::open(&bucket, &entropy, None).await.unwrap();
        let found = ClusterFile::open(&bucket, &entropy, Some(made.id))
            .await
            .unwrap();
        assert_eq!(made, found);
        let other = ClusterId::new(1);
        let error = ClusterFile::open(&bucket, &entropy, Some(other))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("another cluster"), "{error}");
        let empty = Bucket::memory(&entropy).unwrap();
        let error = ClusterFile::open(&empty, &entropy, Some(made.id))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("holds no cluster"), "{error}");
        assert_eq!(empty.list(empty.prefix(), 10).await.unwrap(), []);
        // The probe leaves nothing behind.
        assert_eq!(
            bucket.list(bucket.prefix(), 10).await.unwrap(),
            [bucket.path(NAME)]
        );
    }
}
