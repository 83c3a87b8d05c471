//! A fetch: log cache, else objects through the caches of [`Objects`](super::objects::Objects).
//!
//! What is confirmed is in the log cache until it is committed, so one of the two always has it while the log is
//! served. Between the two look-ups a block may be settled and evicted, or an object replaced: it looks again, a
//! stated number of times.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{core::Core, objects::Block};
use crate::{
    Error, ErrorKind, ObjectId, RecordBatch, Result, StreamId,
    metadata::{Exception, State},
    object::{ObjectIndex, StreamRange},
    stream::progress::Progress,
};

/// Looks at log cache and metadata before a fetch gives up.
const TRIES: usize = 8;

/// An object that may hold an offset.
struct Candidate {
    object: ObjectId,
    size: u64,
    /// What does not count of the stream in it (O6).
    exceptions: Vec<Exception>,
}

/// Where an object's part of a stream lies, seen from an offset.
enum Side {
    /// It holds the offset; so much of it counts.
    Holds(Range<u64>),
    Before,
    After,
    Absent,
}

/// How many fetches each of the two has answered.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) from_log_cache: AtomicU64,
    pub(crate) from_objects: AtomicU64,
}

impl Core {
    /// Whole records from the one that holds `offsets.start` on; never empty, none past `offsets.end`.
    pub(crate) async fn read(
        &self,
        progress: &Progress,
        offsets: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<RecordBatch>> {
        let stream = progress.stream;
        let mut missing = None;
        for _ in 0..TRIES {
            let cached = self
                .cache
                .lock()
                .get(stream.get(), offsets.clone(), bytes_max);
            if !cached.is_empty() {
                self.served.from_log_cache.fetch_add(1, Ordering::Relaxed);
                return Ok(cached);
            }
            match self
                .read_objects(progress, offsets.clone(), bytes_max)
                .await
            {
                Ok(Some(records)) => {
                    self.served.from_objects.fetch_add(1, Ordering::Relaxed);
                    return Ok(records);
                }
                Ok(None) => {}
                // The list may be newer elsewhere (O4). Still listed after a look: it is gone, not replaced.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.metadata.look().await?;
                    missing = Some(error);
                }
                Err(error) => return Err(error),
            }
            if let Some(error) = progress.closed() {
                return Err(error);
            }
            if offsets.start < progress.bounds().start {
                return Err(
                    Error::out_of_range("trimmed during the fetch").with("offset", offsets.start)
                );
            }
            // Neither here nor there: the log is being loaded again.
            self.session()?;
        }
        let error = Error::corrupt(
            "an object that the metadata lists is missing, or none holds the offset",
        )
        .with("stream", stream)
        .with("offset", offsets.start);
        Err(match missing {
            Some(missing) => error.caused_by(missing),
            None => error,
        })
    }

    async fn read_objects(
        &self,
        progress: &Progress,
        offsets: Range<u64>,
        bytes_max: usize,
    ) -> Result<Option<Vec<RecordBatch>>> {
        let stream = progress.stream;
        let from = offsets.start;
        let candidates = self.metadata.view(|state| candidates(state, stream, from));
        let Some((object, index, valid)) = self.find(candidates, stream, from).await? else {
            return Ok(None);
        };
        let end = valid.end.min(offsets.end);
        let ahead = if progress.is_sequential(from) {
            self.config.read_bytes_max
        } else {
            0
        };
        let blocks = self
            .objects
            .blocks(object, &index, stream, from..end, bytes_max as u64, ahead)
            .await?;
        let records = pick(&blocks, from..end, &valid, bytes_max);
        if let Some(last) = records.last() {
            progress.note_cold_read(last.offsets.end);
        }
        Ok((!records.is_empty()).then_some(records))
    }

    /// The object that holds `from`, with its index and what counts of it. Candidates are in the order of the
    /// stream's offsets, so every index that is read halves what is left, unless the stream is not in it.
    async fn find(
        &self,
        mut candidates: Vec<Candidate>,
        stream: StreamId,
        from: u64,
    ) -> Result<Option<(ObjectId, Arc<ObjectIndex>, Range<u64>)>> {
        let mut place = 0;
        while let Some(candidate) = candidates.get(place) {
            let Some(index) = self.objects.index_at_hand(candidate.object) else {
                place += 1;
                continue;
            };
            match side(&index, candidate, stream, from) {
                Side::Holds(valid) => return Ok(Some((candidate.object, index, valid))),
                Side::Absent => drop(candidates.remove(place)),
                Side::Before => {
                    candidates.drain(..=place);
                    place = 0;
                }
                Side::After => candidates.truncate(place),
            }
        }
        while !candidates.is_empty() {
            let middle = candidates.len() / 2;
            let candidate = &candidates[middle];
            let index = self.objects.index(candidate.object, candidate.size).await?;
            match side(&index, candidate, stream, from) {
                Side::Holds(valid) => return Ok(Some((candidate.object, index, valid))),
                Side::Absent => drop(candidates.remove(middle)),
                Side::Before => drop(candidates.drain(..=middle)),
                Side::After => candidates.truncate(middle),
            }
        }
        Ok(None)
    }
}

/// The stream object that holds the offset, else every set object that may.
fn candidates(state: &State, stream: StreamId, from: u64) -> Vec<Candidate> {
    let extents = state.extents(stream, from..from.saturating_add(1));
    if !extents.is_empty() {
        return extents
            .into_iter()
            .map(|extent| Candidate {
                object: extent.object,
                size: extent.size,
                exceptions: Vec::new(),
            })
            .collect();
    }
    state
        .stream_sets()
        .filter(|(_, set)| set.streams.0 <= stream && stream <= set.streams.1)
        .map(|(object, set)| Candidate {
            object,
            size: set.size,
            exceptions: set
                .exceptions
                .iter()
                .filter(|exception| exception.range.stream == stream)
                .cloned()
                .collect(),
        })
        .collect()
}

fn side(index: &ObjectIndex, candidate: &Candidate, stream: StreamId, from: u64) -> Side {
    let mut result = Side::Absent;
    for range in index.ranges_of(stream) {
        let valid = valid_part(&range, &candidate.exceptions);
        if valid.contains(&from) {
            return Side::Holds(valid);
        }
        result = if range.offsets.end <= from {
            Side::Before
        } else if matches!(result, Side::Absent) {
            Side::After
        } else {
            // The stream has ranges on both sides, and none that counts holds it.
            return Side::Absent;
        };
    }
    result
}

fn valid_part(range: &StreamRange, exceptions: &[Exception]) -> Range<u64> {
    exceptions
        .iter()
        .find(|exception| exception.range == *range)
        .map_or(range.offsets.clone(), |exception| exception.valid.clone())
}

/// Records from the one that holds `offsets.start` on that count whole.
fn pick(
    blocks: &[Block],
    offsets: Range<u64>,
    valid: &Range<u64>,
    bytes_max: usize,
) -> Vec<RecordBatch> {
    let mut records: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    let all = blocks.iter().flat_map(|block| block.iter());
    for record in all.skip_while(|record| record.offsets.end <= offsets.start) {
        let counts = record.offsets.end <= valid.end && record.offsets.start < offsets.end;
        let follows = match records.last() {
            Some(last) => {
                last.offsets.end == record.offsets.start
                    && bytes + record.encoded_len() <= bytes_max
            }
            None => record.offsets.start <= offsets.start,
        };
        if !counts || !follows {
            break;
        }
        bytes += record.encoded_len();
        records.push(record.clone());
    }
    records
}
