//! The head's bytes, and those of log segments. `docs/format.md` §Metadata.
//!
//! Segments and inline entries follow each other without gaps; the snapshot's entry is one of theirs, or the one before the first.
//! `sequence` grows by one each swap, so no two heads have the same bytes and no ETag occurs twice.

use bytes::Bytes;

use crate::{
    ClusterId, Error, Result,
    metadata::{
        entry::{EncodedEntry, Tip},
        wire::{self, Reader, Wire, WireError, Writer, wire_enum, wire_struct},
    },
};

const HEAD_MAGIC: [u8; 8] = *b"s3smhead";
const SEGMENT_MAGIC: [u8; 8] = *b"s3smlogs";
const VERSION: u8 = 1;
/// Magic and version before the body, a checksum after it.
const FRAME_BYTES: usize = 8 + 1 + 4;

/// The metadata's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) cluster: ClusterId,
    /// Swaps so far.
    pub(super) sequence: u64,
    /// The swap that last allowed objects to be deleted: what was written before it and is not listed here may be gone.
    pub(super) swept: u64,
    pub(super) tip: Tip,
    pub(super) snapshot: Option<SnapshotRef>,
    /// Ascending; some may lie before the snapshot, for nodes that are a little behind.
    pub(super) segments: Vec<SegmentRef>,
    /// Names of objects that an earlier swap dropped, to be deleted behind a later one.
    pub(super) condemned: Vec<String>,
    /// What the first inline entry follows.
    pub(super) inline_after: Tip,
    pub(super) inline: Vec<InlineEntry>,
}
wire_struct!(Head {
    cluster,
    sequence,
    swept,
    tip,
    snapshot,
    segments,
    condemned,
    inline_after,
    inline
});

/// An immutable object by name (below the metadata's folder), length and checksum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ObjectRef {
    pub(super) name: String,
    pub(super) len: u64,
    /// crc32c of the whole object, big-endian.
    pub(super) crc: [u8; 4],
}
wire_struct!(ObjectRef { name, len, crc });

impl ObjectRef {
    pub(super) fn of(name: String, bytes: &[u8]) -> Self {
        Self {
            name,
            len: bytes.len() as u64,
            crc: crc32c::crc32c(bytes).to_be_bytes(),
        }
    }

    pub(super) fn check(&self, bytes: &[u8]) -> Result<()> {
        let found = Self::of(self.name.clone(), bytes);
        if found == *self {
            return Ok(());
        }
        Err(Error::corrupt("metadata object")
            .with("name", &self.name)
            .with("len", found.len)
            .with("expected len", self.len)
            .with("crc", format_args!("{:08x}", u32::from_be_bytes(found.crc)))
            .with(
                "expected crc",
                format_args!("{:08x}", u32::from_be_bytes(self.crc)),
            ))
    }
}

/// The state at an entry, in pieces that are joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SnapshotRef {
    pub(super) tip: Tip,
    pub(super) chunks: Vec<ObjectRef>,
}
wire_struct!(SnapshotRef { tip, chunks });

impl SnapshotRef {
    pub(super) fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len).sum()
    }
}

/// A run of entries that were inline once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SegmentRef {
    /// What its first entry follows.
    pub(super) after: Tip,
    /// Its last entry.
    pub(super) tip: Tip,
    pub(super) object: ObjectRef,
    /// Names of the large entries it lists, so that they go when it goes.
    pub(super) large: Vec<ObjectRef>,
}
wire_struct!(SegmentRef {
    after,
    tip,
    object,
    large
});

/// An entry, here or in an object of its own when it is large.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum InlineEntry {
    Here(Bytes),
    Object(ObjectRef),
}
// Persisted: never renumber.
wire_enum!(InlineEntry as "inline entry" { 1 => Here(bytes), 2 => Object(object) });

impl InlineEntry {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Object(object) => object.name.len() + 16,
        }
    }
}

impl Head {
    /// The head before the first entry; it is never written.
    pub(super) fn empty(cluster: ClusterId) -> Self {
        Self {
            cluster,
            sequence: 0,
            swept: 0,
            tip: Tip::default(),
            snapshot: None,
            segments: Vec::new(),
            condemned: Vec::new(),
            inline_after: Tip::default(),
            inline: Vec::new(),
        }
    }

    /// The entry before the first that is listed.
    pub(super) fn listed_after(&self) -> Tip {
        let first = self.segments.first();
        first.map_or(self.inline_after, |segment| segment.after)
    }

    pub(super) fn inline_bytes(&self) -> usize {
        self.inline.iter().map(InlineEntry::len).sum()
    }

    pub(super) fn encode(&self) -> Bytes {
        frame(HEAD_MAGIC, |out| self.put(out))
    }

    pub(super) fn decode(bytes: &[u8], cluster: ClusterId) -> Result<Self> {
        let body = unframe(HEAD_MAGIC, "metadata head", bytes)?;
        let head: Self =
            wire::decode(body).map_err(|error| not_understood("metadata head", error))?;
        if head.cluster != cluster {
            return Err(Error::invalid("the metadata head is another cluster's")
                .with("found", head.cluster)
                .with("expected", cluster));
        }
        head.check_order()?;
        Ok(head)
    }

    fn check_order(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::corrupt(format!("metadata head: {what}")));
        let mut before: Option<Tip> = None;
        for segment in &self.segments {
            if before.is_some_and(|before| before != segment.after)
                || segment.after.index >= segment.tip.index
            {
                return wrong("its segments leave a gap");
            }
            before = Some(segment.tip);
        }
        if before.is_some_and(|before| before != self.inline_after) {
            return wrong("its entries do not follow its segments");
        }
        let from = self
            .snapshot
            .as_ref()
            .map(|snapshot| snapshot.tip)
            .unwrap_or_default();
        if self.listed_after().index > from.index || from.index > self.tip.index {
            return wrong("its snapshot is not among its entries");
        }
        let newest = self
            .inline_after
            .index
            .checked_add(self.inline.len() as u64);
        if newest != Some(self.tip.index) {
            return wrong("its entries do not add up to its tip");
        }
        Ok(())
    }
}

/// The entries of a segment, as the inline part of a head lists them.
pub(super) fn encode_segment(entries: &[InlineEntry]) -> Bytes {
    frame(SEGMENT_MAGIC, |out| {
        out.varint(entries.len() as u64);
        entries.iter().for_each(|entry| entry.put(out));
    })
}

pub(super) fn decode_segment(bytes: &[u8]) -> Result<Vec<InlineEntry>> {
    let body = unframe(SEGMENT_MAGIC, "metadata segment", bytes)?;
    wire::decode(body).map_err(|error| not_understood("metadata segment", error))
}

fn frame(magic: [u8; 8], body: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = Writer::default();
    out.raw(&magic);
    out.raw(&[VERSION]);
    body(&mut out);
    let mut bytes = out.into_vec();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn unframe<'a>(magic: [u8; 8], what: &str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let corrupt = |why: &str| Error::corrupt(format!("{what}: {why}")).with("len", bytes.len());
    if bytes.len() < FRAME_BYTES {
        return Err(corrupt("too short"));
    }
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt("too short"));
    };
    let mut reader = Reader::new(content);
    let (found, version) = (reader.array::<8>(), reader.array::<1>());
    let (Ok(found), Ok([version])) = (found, version) else {
        return Err(corrupt("too short"));
    };
    if found != magic {
        return Err(corrupt("not one at all"));
    }
    // Before the checksum: another version may have another one.
    if version != VERSION {
        return Err(Error::invalid(format!(
            "{what} of a newer format: this version must be upgraded"
        ))
        .with("format", version)
        .with("known", VERSION));
    }
    if crc32c::crc32c(content).to_be_bytes() != *crc {
        return Err(corrupt("wrong checksum"));
    }
    content.get(9..).ok_or_else(|| corrupt("too short"))
}

fn not_understood(what: &str, error: WireError) -> Error {
    match error {
        WireError::UnknownTag { .. } => Error::invalid(format!(
            "{what} written by a newer version: this version must be upgraded"
        )),
        _ => Error::corrupt(what),
    }
    .caused_by(error)
}

/// Parses entries and checks that each follows the one before (M8).
pub(super) fn chain(after: Tip, entries: Vec<Bytes>) -> Result<Vec<EncodedEntry>> {
    let mut tip = after;
    let mut chained = Vec::with_capacity(entries.len());
    for bytes in entries {
        let entry = EncodedEntry::parse(bytes)?;
        if !entry.follows(tip) {
            return Err(
                Error::corrupt("a metadata entry does not follow the one before")
                    .with("before", tip.index)
                    .with("entry", entry.index()),
            );
        }
        tip = entry.tip();
        chained.push(entry);
    }
    Ok(chained)
}
