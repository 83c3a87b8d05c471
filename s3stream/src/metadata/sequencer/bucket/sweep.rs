//! Snapshots, and the deletion of what they make superfluous: condemned by one swap, deleted behind a later one.
//!
//! Before a sweeping swap the metadata's folders are listed; the swap moves the head and its `swept`, so that every swap prepared
//! earlier fails, and every object written earlier and not listed in the new head is nobody's. Only then are such objects deleted.
//! A crash in between leaves objects that the next sweep finds.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{BucketSequencer, Head, InlineEntry, ObjectRef, SeenHead, SnapshotRef, Tip};
use crate::{Error, Result};

/// Folders of immutable objects.
const FOLDERS: [&str; 3] = ["log", "snapshot", "entry"];
/// More than this in a folder is for an operator to look at.
const NAMES_MAX: usize = 100_000;
/// Segments after the snapshot.
const SEGMENTS_MAX: usize = 256;
/// A snapshot that others pass this often is tried again after the next entry.
const SWAPS_MAX: u32 = 4;

impl BucketSequencer {
    pub(super) fn is_snapshot_due(&self, head: &Head) -> bool {
        let from = head
            .snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.tip.index);
        let size = head.snapshot.as_ref().map_or(0, SnapshotRef::len);
        let newer = head
            .segments
            .iter()
            .filter(|segment| segment.tip.index > from);
        let count = newer.clone().count();
        let replayed: u64 = newer
            .map(|segment| {
                let large = segment.large.iter().map(|object| object.len);
                segment.object.len + large.sum::<u64>()
            })
            .sum();
        // The list of segments is written with every swap.
        count > SEGMENTS_MAX || replayed > (size / 2).max(self.limits.segments_bytes)
    }

    pub(super) async fn install(&mut self, tip: Tip, state: Bytes) -> Result<()> {
        let Some(swept) = self.seen.as_ref().map(|seen| seen.head.swept) else {
            return Ok(());
        };
        let snapshot = self.write_chunks(tip, state).await?;
        self.swing(swept, snapshot).await
    }

    pub(super) async fn write_chunks(&self, tip: Tip, state: Bytes) -> Result<SnapshotRef> {
        let mut chunks = Vec::new();
        for start in (0..state.len()).step_by(self.limits.chunk_bytes) {
            let end = state.len().min(start + self.limits.chunk_bytes);
            let chunk = state.slice(start..end);
            chunks.push(self.put_object("snapshot", tip.index, chunk).await?);
        }
        Ok(SnapshotRef { tip, chunks })
    }

    /// Makes the head list a snapshot whose chunks were written while the head said `swept`.
    pub(super) async fn swing(&mut self, swept: u64, snapshot: SnapshotRef) -> Result<()> {
        for _ in 0..SWAPS_MAX {
            let base = self.refresh().await?.clone();
            let listed = base.head.snapshot.as_ref();
            let newest = listed.map_or(0, |listed| listed.tip.index);
            // The chunks may be swept already, or another node was quicker: this snapshot is dropped, and swept in time.
            if base.head.swept != swept || newest >= snapshot.tip.index {
                return Ok(());
            }
            if self.sweep(&base, snapshot.clone()).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lists, swaps, deletes. `false`: another head came first, nothing was deleted.
    async fn sweep(&mut self, base: &SeenHead, snapshot: SnapshotRef) -> Result<bool> {
        let mut listed = Vec::new();
        for folder in FOLDERS {
            let folder = self.object_path(folder);
            listed.extend(self.bucket.list(&folder, NAMES_MAX).await?);
        }
        let next = with_snapshot(&base.head, snapshot)?;
        if !self.swap(base, next.clone()).await? {
            return Ok(false);
        }
        // What this swap condemned stays until the next sweep: nodes may be reading it.
        let mut kept = named_by(&next);
        kept.extend(next.condemned.iter().cloned());
        let kept: BTreeSet<_> = kept.iter().map(|name| self.object_path(name)).collect();
        for path in listed.into_iter().filter(|path| !kept.contains(path)) {
            if let Err(error) = self.bucket.delete(&path).await {
                // The next sweep finds it.
                tracing::warn!(%error, "deleting a superfluous metadata object");
                break;
            }
        }
        Ok(true)
    }
}

/// `head` with a newer snapshot. Segments since the snapshot before stay, for nodes that are a little behind.
fn with_snapshot(head: &Head, snapshot: SnapshotRef) -> Result<Head> {
    let mut next = head.clone();
    next.sequence += 1;
    next.swept = next.sequence;
    let before = head
        .snapshot
        .as_ref()
        .map_or(0, |snapshot| snapshot.tip.index);
    next.segments.retain(|segment| segment.tip.index > before);
    if next.listed_after().index > snapshot.tip.index || snapshot.tip.index > head.tip.index {
        return Err(
            Error::internal("a snapshot that the head's entries do not continue")
                .with("snapshot", snapshot.tip.index)
                .with("head", head.tip.index),
        );
    }
    next.snapshot = Some(snapshot);
    let kept = named_by(&next);
    next.condemned = named_by(head).difference(&kept).cloned().collect();
    Ok(next)
}

/// Every object that a reader of the head may open.
fn named_by(head: &Head) -> BTreeSet<String> {
    let chunks = head.snapshot.iter().flat_map(|snapshot| &snapshot.chunks);
    let segments = head
        .segments
        .iter()
        .flat_map(|segment| std::iter::once(&segment.object).chain(&segment.large));
    let inline = head.inline.iter().filter_map(|entry| match entry {
        InlineEntry::Object(object) => Some(object),
        InlineEntry::Here(_) => None,
    });
    let name = |object: &ObjectRef| object.name.clone();
    chunks.chain(segments).chain(inline).map(name).collect()
}
