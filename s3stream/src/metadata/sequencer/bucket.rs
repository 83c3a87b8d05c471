//! The log in a bucket: one head object replaced by compare-and-swap, and immutable objects that it names.
//!
//! The head holds the newest entries inline; when they exceed a bound they become a log segment; when the segments exceed half the
//! snapshot's size a new snapshot is due. Names are used once. An object that was written while the head said `swept = n` may be
//! listed only by a swap of a head that still says so: a sweep in between may have deleted it.
//! [a paused snapshotter swung an idle head to a deleted snapshot]
//! A swap without a certain answer is sent again, byte for byte, until the head is seen to be ours or another: only then is it known
//! that it never will be. It does not know commands, and it never writes a head that it has not understood.

mod head;
mod sweep;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;

use self::head::{Head, InlineEntry, ObjectRef, SegmentRef, SnapshotRef};
use super::{Loaded, News, Sequencer};
use crate::{
    ClusterId, Error, ErrorKind, Result,
    entropy::Entropy,
    metadata::entry::{EncodedEntry, Tip},
    store::{Bucket, Read, Swap, Tag},
};

/// Waits between attempts at one swap start below this and double up to the most.
const SWAP_WAIT: Duration = Duration::from_millis(5);
const SWAP_WAIT_MAX: Duration = Duration::from_secs(1);
/// A load that meets objects which were swept meanwhile starts again this often.
const LOADS_MAX: u32 = 8;

/// Decodes a head and encodes it again.
#[cfg(feature = "testing")]
pub fn head_again(bytes: &[u8], cluster: ClusterId) -> Result<Bytes> {
    Head::decode(bytes, cluster).map(|head| head.encode())
}

/// Decodes a log segment and encodes it again.
#[cfg(feature = "testing")]
pub fn segment_again(bytes: &[u8]) -> Result<Bytes> {
    head::decode_segment(bytes).map(|entries| head::encode_segment(&entries))
}

/// Sizes that decide when the head's parts move. They may differ from node to node and from start to start.
#[derive(Clone, Copy, Debug)]
pub struct BucketLimits {
    /// Inline entries above this become a segment; a larger entry is an object of its own.
    pub inline_bytes: usize,
    /// No snapshot is due below this, however small the last one was.
    pub segments_bytes: u64,
    /// A snapshot is cut into chunks of this size.
    pub chunk_bytes: usize,
}

impl Default for BucketLimits {
    fn default() -> Self {
        Self {
            inline_bytes: 64 << 10,
            segments_bytes: 1 << 20,
            chunk_bytes: 8 << 20,
        }
    }
}

/// One node's access to the log in a bucket.
#[derive(Debug)]
pub struct BucketSequencer {
    bucket: Bucket,
    cluster: ClusterId,
    entropy: Entropy,
    limits: BucketLimits,
    /// The newest head seen. `None`: none yet.
    seen: Option<SeenHead>,
    /// An own append made a segment: of all nodes, this one looks whether a snapshot is due.
    rolled: bool,
}

#[derive(Clone, Debug)]
struct SeenHead {
    head: Head,
    /// `None`: there is no head object yet.
    tag: Option<Tag>,
}

impl BucketSequencer {
    /// The log of a cluster. Asks nothing of the bucket yet.
    pub fn new(bucket: Bucket, cluster: ClusterId, entropy: Entropy) -> Self {
        Self {
            bucket,
            cluster,
            entropy,
            limits: BucketLimits::default(),
            seen: None,
            rolled: false,
        }
    }

    /// Other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: BucketLimits) -> Self {
        self.limits = limits;
        self
    }

    fn head_path(&self) -> Path {
        self.bucket.path("metadata/head")
    }

    fn object_path(&self, name: &str) -> Path {
        self.bucket.path(&format!("metadata/{name}"))
    }

    /// Writes an object under a name that nobody used or will use.
    async fn put_object(&self, folder: &str, index: u64, bytes: Bytes) -> Result<ObjectRef> {
        let name = format!("{folder}/{index:016x}-{:016x}", self.entropy.next_u64());
        let object = ObjectRef::of(name, &bytes);
        match self
            .bucket
            .put_new(&self.object_path(&object.name), bytes)
            .await?
        {
            true => Ok(object),
            false => Err(Error::unavailable("a random name was taken").with("name", object.name)),
        }
    }

    async fn get_object(&self, object: &ObjectRef) -> Result<Bytes> {
        let path = self.object_path(&object.name);
        let Some((bytes, _)) = self.bucket.read(&path).await? else {
            return Err(Error::not_found("metadata object is missing").with("path", path));
        };
        object
            .check(&bytes)
            .map_err(|error| error.with("path", path))?;
        Ok(bytes)
    }

    /// The head as of now, checked against the newest one seen: what was seen stays seen (M8).
    async fn refresh(&mut self) -> Result<&SeenHead> {
        let path = self.head_path();
        let known = self.seen.as_ref().and_then(|seen| seen.tag.as_ref());
        let read = match known {
            Some(tag) => self.bucket.read_if_changed(&path, tag).await?,
            None => match self.bucket.read(&path).await? {
                Some((bytes, tag)) => Read::Changed(bytes, tag),
                None => Read::Missing,
            },
        };
        let fresh = match read {
            Read::Unchanged => None,
            Read::Changed(bytes, tag) => {
                let head = Head::decode(&bytes, self.cluster)
                    .map_err(|error| error.with("path", &path))?;
                Some(SeenHead {
                    head,
                    tag: Some(tag),
                })
            }
            Read::Missing => Some(SeenHead {
                head: Head::empty(self.cluster),
                tag: None,
            }),
        };
        if let Some(fresh) = fresh {
            let seen = self.seen.as_ref().map(|seen| &seen.head);
            check_newer(seen, &fresh.head).map_err(|error| error.with("path", path))?;
            self.seen = Some(fresh);
        }
        self.newest()
    }

    fn newest(&self) -> Result<&SeenHead> {
        self.seen
            .as_ref()
            .ok_or_else(|| Error::internal("a head was seen"))
    }

    /// Replaces the head `base` by `next`. `true`: done. `false`: another head came first, and this one never will be; the newest is
    /// then in `seen`. An error is definite unless an attempt's outcome was open: then it is final, `may_have_happened` and not
    /// `Unavailable`.
    async fn swap(&mut self, base: &SeenHead, next: Head) -> Result<bool> {
        let path = self.head_path();
        let bytes = next.encode();
        let mut wait = SWAP_WAIT;
        let mut open = false;
        loop {
            let swap = self
                .bucket
                .compare_and_swap(&path, base.tag.as_ref(), bytes.clone())
                .await;
            match swap {
                Ok(Swap::Swapped(tag)) => {
                    self.seen = Some(SeenHead {
                        head: next,
                        tag: Some(tag),
                    });
                    return Ok(true);
                }
                Ok(Swap::Conflict) => match self.refresh().await {
                    // A 409, or a 404 after a conflict, says nothing about ours: as before, it may yet arrive.
                    Ok(now) if now.head.sequence == base.head.sequence => {}
                    Ok(now) if now.head.sequence == next.sequence => return Ok(now.head == next),
                    // Passed by others. Whether through ours, the entries tell.
                    Ok(_) => return Ok(false),
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    Err(error) => return Err(error.ambiguous()),
                },
                Ok(Swap::Unknown(error)) => {
                    tracing::warn!(%error, "swap of the metadata head: sent again until it is certain");
                    open = true;
                }
                // Nothing of this swap is under way: it never will be.
                Err(error) if !open => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "swap of the metadata head, after one whose outcome is open")
                }
            }
            tokio::time::sleep(self.entropy.below(wait)).await;
            wait = (wait * 2).min(SWAP_WAIT_MAX);
        }
    }

    /// All entries after `tip` that the head lists, or `None` if it does not go back so far.
    async fn entries_after(&self, head: &Head, tip: Tip) -> Result<Option<Vec<EncodedEntry>>> {
        if tip.index >= head.inline_after.index {
            let inline = self.resolve(head.inline_after, &head.inline).await?;
            return after(tip, head, inline).map(Some);
        }
        if tip.index < head.listed_after().index {
            return Ok(None);
        }
        let mut entries = Vec::new();
        let newer = head
            .segments
            .iter()
            .filter(|segment| tip.index < segment.tip.index);
        for segment in newer {
            let listed = head::decode_segment(&self.get_object(&segment.object).await?)?;
            let resolved = self.resolve(segment.after, &listed).await?;
            if resolved.last().map(EncodedEntry::tip) != Some(segment.tip) {
                return Err(
                    Error::corrupt("a metadata segment ends elsewhere than the head says")
                        .with("name", &segment.object.name),
                );
            }
            entries.extend(resolved);
        }
        entries.extend(self.resolve(head.inline_after, &head.inline).await?);
        after(tip, head, entries).map(Some)
    }

    async fn resolve(&self, after: Tip, listed: &[InlineEntry]) -> Result<Vec<EncodedEntry>> {
        let mut entries = Vec::with_capacity(listed.len());
        for entry in listed {
            entries.push(match entry {
                InlineEntry::Here(bytes) => bytes.clone(),
                InlineEntry::Object(object) => self.get_object(object).await?,
            });
        }
        head::chain(after, entries)
    }

    async fn load_head(&self, head: &Head) -> Result<Loaded> {
        let Some(snapshot) = &head.snapshot else {
            let entries = self.entries_after(head, Tip::default()).await?;
            return match entries {
                Some(entries) => Ok(Loaded {
                    snapshot: None,
                    entries,
                }),
                None => Err(Error::corrupt(
                    "the metadata head lists neither a snapshot nor the first entry",
                )),
            };
        };
        let mut bytes = Vec::new();
        for chunk in &snapshot.chunks {
            bytes.extend_from_slice(&self.get_object(chunk).await?);
        }
        match self.entries_after(head, snapshot.tip).await? {
            Some(entries) => Ok(Loaded {
                snapshot: Some((snapshot.tip, bytes.into())),
                entries,
            }),
            None => Err(Error::corrupt(
                "the metadata head lists no entries after its snapshot",
            )),
        }
    }

    /// Loads from the newest head. What a sweep took away meanwhile is not missing if the head has changed.
    async fn load_newest(&mut self) -> Result<Loaded> {
        for _ in 0..LOADS_MAX {
            if self.refresh().await?.tag.is_none() {
                self.check_new().await?;
            }
            let head = self.newest()?.head.clone();
            match self.load_head(&head).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if self.refresh().await?.head == head {
                        return Err(Error::corrupt(
                            "the metadata head names an object that is missing",
                        )
                        .with("head", self.head_path())
                        .caused_by(error));
                    }
                }
                loaded => return loaded,
            }
        }
        Err(Error::unavailable(
            "the metadata changes faster than it can be read",
        ))
    }

    /// No head: a new log, unless there is something that only a log can have led to. Ids would begin anew and what is
    /// there be overwritten (M8).
    async fn check_new(&mut self) -> Result<()> {
        for folder in ["metadata", "objects"] {
            let folder = self.bucket.path(folder);
            // What is there may be another node's, which made the head since it was looked for.
            if !self.bucket.is_empty(&folder).await? && self.refresh().await?.tag.is_none() {
                return Err(Error::corrupt(
                    "the metadata head is missing though the cluster has data: restore it, nothing was overwritten",
                )
                .with("head", self.head_path())
                .with("found in", folder));
            }
        }
        Ok(())
    }

    async fn news_after(&mut self, tip: Tip) -> Result<News> {
        let head = self.refresh().await?.head.clone();
        match self.entries_after(&head, tip).await {
            Ok(Some(entries)) => Ok(News::Entries(entries)),
            Ok(None) => Ok(News::Reload(self.load_newest().await?)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(News::Reload(self.load_newest().await?))
            }
            Err(error) => Err(error),
        }
    }

    /// The head with one more entry; a segment or a large entry becomes an object first.
    async fn with_entry(&self, base: &Head, entry: &EncodedEntry) -> Result<Head> {
        let mut next = base.clone();
        next.sequence += 1;
        next.tip = entry.tip();
        let inline = if entry.bytes().len() > self.limits.inline_bytes {
            let object = self
                .put_object("entry", entry.index(), entry.bytes().clone())
                .await?;
            InlineEntry::Object(object)
        } else {
            InlineEntry::Here(entry.bytes().clone())
        };
        let full = next.inline_bytes() + inline.len() > self.limits.inline_bytes;
        if full && !next.inline.is_empty() {
            let after = std::mem::replace(&mut next.inline_after, base.tip);
            let entries = std::mem::take(&mut next.inline);
            let object = self
                .put_object("log", base.tip.index, head::encode_segment(&entries))
                .await?;
            let large = entries.into_iter().filter_map(|entry| match entry {
                InlineEntry::Object(object) => Some(object),
                InlineEntry::Here(_) => None,
            });
            next.segments.push(SegmentRef {
                after,
                tip: base.tip,
                object,
                large: large.collect(),
            });
        }
        next.inline.push(inline);
        Ok(next)
    }
}

/// Whether `fresh` can come after what was seen.
fn check_newer(seen: Option<&Head>, fresh: &Head) -> Result<()> {
    let Some(seen) = seen else {
        return Ok(());
    };
    let same_entry = fresh.tip.index == seen.tip.index;
    if fresh.sequence < seen.sequence
        || fresh.tip.index < seen.tip.index
        || (same_entry && fresh.tip != seen.tip)
    {
        return Err(Error::corrupt(
            "the metadata was rolled back: this node has seen a newer head; nothing is overwritten",
        )
        .with(
            "seen",
            format_args!("swap {}, entry {}", seen.sequence, seen.tip.index),
        )
        .with(
            "found",
            format_args!("swap {}, entry {}", fresh.sequence, fresh.tip.index),
        ));
    }
    Ok(())
}

/// Those of `entries` that come after `tip`, which must be one of theirs or the one before the first.
fn after(tip: Tip, head: &Head, entries: Vec<EncodedEntry>) -> Result<Vec<EncodedEntry>> {
    let entries: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.index() > tip.index)
        .collect();
    let follows = entries
        .first()
        .map_or(head.tip == tip, |first| first.follows(tip));
    let complete = entries.last().map_or(tip, EncodedEntry::tip) == head.tip;
    if follows && complete {
        return Ok(entries);
    }
    Err(
        Error::corrupt("the metadata was rolled back or forked; nothing is overwritten")
            .with("seen", format_args!("{}:{}", tip.index, tip.hash))
            .with(
                "newest",
                format_args!("{}:{}", head.tip.index, head.tip.hash),
            ),
    )
}

#[async_trait]
impl Sequencer for BucketSequencer {
    async fn load(&mut self) -> Result<Loaded> {
        self.load_newest().await
    }

    async fn append(&mut self, entry: &EncodedEntry) -> Result<News> {
        let before = Tip {
            index: entry.index() - 1,
            hash: entry.previous(),
        };
        let base = match &self.seen {
            Some(seen) => seen.clone(),
            None => self.refresh().await?.clone(),
        };
        let sent = base.head.tip == before;
        if sent {
            let next = self.with_entry(&base.head, entry).await?;
            let segments = next.segments.len();
            if self.swap(&base, next).await? {
                self.rolled |= segments > base.head.segments.len();
                return Ok(News::Entries(vec![entry.clone()]));
            }
        }
        let mut wait = SWAP_WAIT;
        loop {
            match self.news_after(before).await {
                // The entry may have been taken before others passed it: no failure before that is known.
                Err(error) if sent && error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(%error, "reading the metadata after a swap");
                    tokio::time::sleep(self.entropy.below(wait)).await;
                    wait = (wait * 2).min(SWAP_WAIT_MAX);
                }
                news => return news,
            }
        }
    }

    async fn look(&mut self, tip: Tip) -> Result<News> {
        self.news_after(tip).await
    }

    fn wants_snapshot(&self) -> bool {
        let due = |seen: &SeenHead| self.is_snapshot_due(&seen.head);
        self.rolled && self.seen.as_ref().is_some_and(due)
    }

    async fn snapshot(&mut self, tip: Tip, state: Bytes) -> Result<()> {
        self.install(tip, state).await?;
        self.rolled = false;
        Ok(())
    }
}
