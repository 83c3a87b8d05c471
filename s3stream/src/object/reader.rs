//! Reading objects from a bucket: the index from an object's end, and data blocks with ranged GETs.
//!
//! Bytes that are too few or wrong are an error, never other data: `NotFound` if the object is not there, `Corrupt` if
//! it is not what was written, `Unavailable` for everything that may pass. Each block that is returned owns its memory:
//! keeping one does not keep the GET it came with. It does not retry, hedge, cache or read ahead.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, path::Path,
};

use super::{BlockRef, ObjectIndex, TailStep, decode_block};
use crate::{ClusterId, Error, ObjectId, RecordBatch, Result};

/// How much one read may ask for at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// Bytes of an object's end to fetch first; an index that is larger takes a second GET.
    pub tail_bytes: u64,
    /// Blocks that lie end to end are fetched together up to this many bytes; a larger block is fetched alone.
    pub get_bytes_max: u64,
    /// GETs of one call in flight at the same time.
    pub gets_in_flight: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            tail_bytes: 64 << 10,
            get_bytes_max: 4 << 20,
            gets_in_flight: 4,
        }
    }
}

/// Reads and verifies the index of `object` of `cluster`, which the metadata says is `object_len` bytes long.
pub async fn read_index(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    object_len: u64,
    cluster: ClusterId,
    object: ObjectId,
    limits: &ReadLimits,
) -> Result<ObjectIndex> {
    let mut from = object_len.saturating_sub(limits.tail_bytes.max(1));
    let mut tail = Bytes::new();
    let mut tail_start = object_len;
    // Two rounds at most: the footer is within `tail_bytes` or asks for itself, then the index asks for itself.
    for _ in 0..3 {
        let head = get(store, path, from..tail_start, object_len).await?;
        tail = if tail.is_empty() {
            head
        } else {
            [head, tail].concat().into()
        };
        tail_start = from;
        match ObjectIndex::decode_tail(&tail, object_len, cluster, object) {
            Ok(TailStep::Index(index)) => return Ok(index),
            Ok(TailStep::NeedMore { from: more }) if more < tail_start => from = more,
            Ok(TailStep::NeedMore { from: more }) => {
                return Err(Error::internal("index decoder asks for what it has")
                    .with("path", path)
                    .with("from", more));
            }
            Err(error) => return Err(error.with("path", path)),
        }
    }
    Err(Error::internal("index decoder does not end").with("path", path))
}

/// Reads and verifies blocks of one object, in the order given; blocks that lie end to end share GETs.
pub async fn read_blocks(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    object_len: u64,
    blocks: &[BlockRef],
    limits: &ReadLimits,
) -> Result<Vec<Vec<RecordBatch>>> {
    // Collected first: a lazy map over borrowed slices makes a future that no task may run.
    let gets: Vec<_> = plan(blocks, limits.get_bytes_max)
        .into_iter()
        .map(|blocks| read_span(store, path, object_len, blocks))
        .collect();
    let read: Vec<_> = stream::iter(gets)
        .buffered(limits.gets_in_flight.max(1))
        .try_collect()
        .await?;
    Ok(read.into_iter().flatten().collect())
}

/// Cuts `blocks` into stretches that are each one GET.
fn plan(blocks: &[BlockRef], get_bytes_max: u64) -> Vec<&[BlockRef]> {
    let mut gets = Vec::new();
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let joined = rest
            .windows(2)
            .take_while(|pair| {
                pair[0].position.end == pair[1].position.start
                    && pair[1].position.end - first.position.start <= get_bytes_max
            })
            .count();
        let (get, after) = rest.split_at(joined + 1);
        gets.push(get);
        rest = after;
    }
    gets
}

async fn read_span(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    object_len: u64,
    blocks: &[BlockRef],
) -> Result<Vec<Vec<RecordBatch>>> {
    let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
        return Ok(Vec::new());
    };
    let range = first.position.start..last.position.end;
    let mut got = Chunks::new(open(store, path, range, object_len).await?, path);
    let mut decoded = Vec::with_capacity(blocks.len());
    for block in blocks {
        let bytes = got.take(block.len()).await?;
        decoded.push(decode_block(bytes, block).map_err(|error| error.with("path", path))?);
    }
    Ok(decoded)
}

/// Exactly the bytes of `range`.
async fn get(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    range: Range<u64>,
    object_len: u64,
) -> Result<Bytes> {
    let len = range.end - range.start;
    let got = open(store, path, range, object_len).await?;
    Chunks::new(got, path).take(len).await
}

/// Sends a ranged GET, and checks that the answer is about these bytes of an object of this length.
async fn open(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    range: Range<u64>,
    object_len: u64,
) -> Result<GetResult> {
    if range.is_empty() || range.end > object_len {
        return Err(Error::invalid("range outside of its object")
            .with("path", path)
            .with("range", format_args!("{range:?}"))
            .with("object length", object_len));
    }
    let options = GetOptions {
        range: Some(GetRange::Bounded(range.clone())),
        ..GetOptions::default()
    };
    let got = match store.get_opts(path, options).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Err(not_found(path)),
        Err(error) => {
            // A store refuses a range past the end in words of its own. Only the length tells damage from a hiccup.
            return Err(match store.head(path).await {
                Ok(meta) if meta.size != object_len => wrong_len(path, meta.size, object_len),
                _ => unavailable(path, &error),
            });
        }
    };
    if got.meta.size != object_len {
        return Err(wrong_len(path, got.meta.size, object_len));
    }
    if got.range != range {
        return Err(Error::unavailable("store answered with another range")
            .with("path", path)
            .with("asked", format_args!("{range:?}"))
            .with("got", format_args!("{:?}", got.range)));
    }
    Ok(got)
}

/// The body of a GET, cut into pieces that each own their memory.
struct Chunks<'a> {
    source: Source,
    /// Fetched and not yet taken.
    ready: Bytes,
    path: &'a Path,
}

enum Source {
    /// The whole answer is read at once: from a file, in small chunks, each would cost a hop to another thread.
    Whole(Option<Box<GetResult>>),
    Stream(stream::BoxStream<'static, object_store::Result<Bytes>>),
}

impl<'a> Chunks<'a> {
    fn new(got: GetResult, path: &'a Path) -> Self {
        let source = match got.payload {
            GetResultPayload::File(..) => Source::Whole(Some(Box::new(got))),
            GetResultPayload::Stream(stream) => Source::Stream(stream),
        };
        Self {
            source,
            ready: Bytes::new(),
            path,
        }
    }

    /// The next `len` bytes. An answer that was read at once and is exactly the piece is taken as it is; otherwise
    /// this is the one copy.
    async fn take(&mut self, len: u64) -> Result<Bytes> {
        let len = usize::try_from(len)
            .map_err(|_| Error::invalid("block larger than memory").with("len", len))?;
        if let Source::Whole(Some(_)) = self.source {
            self.fill(0, len).await?;
            if self.ready.len() == len {
                return Ok(std::mem::take(&mut self.ready));
            }
        }
        let mut piece = BytesMut::with_capacity(len);
        while piece.len() < len {
            if self.ready.is_empty() {
                self.fill(piece.len(), len).await?;
            }
            let wanted = (len - piece.len()).min(self.ready.len());
            piece.extend_from_slice(&self.ready.split_to(wanted));
        }
        Ok(piece.freeze())
    }

    /// Fetches the next chunk that is not empty.
    async fn fill(&mut self, have: usize, need: usize) -> Result<()> {
        loop {
            let next = match &mut self.source {
                Source::Whole(got) => match got.take() {
                    Some(got) => Some(got.bytes().await),
                    None => None,
                },
                Source::Stream(stream) => stream.next().await,
            };
            self.ready = match next {
                Some(Ok(chunk)) => chunk,
                Some(Err(object_store::Error::NotFound { .. })) => {
                    return Err(not_found(self.path));
                }
                Some(Err(error)) => return Err(unavailable(self.path, &error)),
                None => {
                    return Err(Error::unavailable("store answered with too few bytes")
                        .with("path", self.path)
                        .with("got", have)
                        .with("need", need));
                }
            };
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
    }
}

fn not_found(path: &Path) -> Error {
    Error::not_found("object is not in the bucket").with("path", path)
}

fn wrong_len(path: &Path, found: u64, expected: u64) -> Error {
    Error::corrupt("object of another length than was committed")
        .with("path", path)
        .with("found", found)
        .with("expected", expected)
}

fn unavailable(path: &Path, error: &object_store::Error) -> Error {
    Error::unavailable("reading an object")
        .with("path", path)
        .caused_by(without_secrets(&error.to_string()))
}

/// Cuts user names, passwords and queries out of the URLs in a text: some stores sign requests in them.
fn without_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = url
            .find(|c: char| c.is_whitespace() || "\"'<>()".contains(c))
            .unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        let (place, query) = url.split_once(['?', '#']).unwrap_or((url, ""));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        clean.push_str(host);
        clean.push_str(path);
        if !query.is_empty() {
            clean.push_str("?...");
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests;
