//! A log of batches in memory that is compacted by passes, and how its readers see it.

mod model;
mod readers;
mod rules;
mod vectors;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::pass::Stats;
use super::*;
use crate::aborted::Aborted;
use crate::batch::Batches;
use crate::builder::BatchBuilder;
use crate::marker::Marker;
use crate::producers::{Entry, Producers};
use crate::record::Records;

/// `delete.retention.ms` of these logs.
const RETENTION_MS: i64 = 1000;
const PRODUCERS_MAX: usize = 100;

/// Segments of batches, of which the last is active.
#[derive(Clone)]
struct Log {
    segments: Vec<LogSegment>,
    next: i64,
    producers: Producers,
    /// Markers of aborted transactions that readers need not be told of any more.
    emptied: BTreeSet<i64>,
    checkpoint: Option<i64>,
    /// What passes have rewritten, those that were given up too.
    cleaned: i64,
    segment_bytes: u64,
    start: i64,
}

#[derive(Clone)]
struct LogSegment {
    base: i64,
    batches: Vec<Batch>,
}

/// A record as a reader gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Read {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    has_value: bool,
    /// All that follows the timestamp.
    body: Vec<u8>,
}

impl Log {
    fn new() -> Self {
        Self {
            segments: vec![LogSegment {
                base: 0,
                batches: Vec::new(),
            }],
            next: 0,
            producers: Producers::default(),
            emptied: BTreeSet::new(),
            checkpoint: None,
            cleaned: 0,
            segment_bytes: 1 << 20,
            start: 0,
        }
    }

    /// Appends a batch as a leader does, and gives its first offset.
    fn append(&mut self, bytes: &Bytes) -> i64 {
        let mut stamped = bytes.to_vec();
        stamped[..8].copy_from_slice(&self.next.to_be_bytes());
        stamped[12..16].copy_from_slice(&3_i32.to_be_bytes());
        let batch = only(stamped.into());
        batch.verify_checksum().unwrap();
        self.producers.add(&Entry::of(&batch), PRODUCERS_MAX);
        let first = self.next;
        self.next = batch.header().last_offset() + 1;
        self.segments.last_mut().unwrap().batches.push(batch);
        first
    }

    /// Records without a producer, key and value each; an empty value is a tombstone.
    fn plain(&mut self, records: &[(&str, &str)]) -> i64 {
        self.append(&records_of(BatchBuilder::new(Codec::None), records))
    }

    fn of_producer(&mut self, id: i64, sequence: i32, records: &[(&str, &str)]) -> i64 {
        let builder = BatchBuilder::new(Codec::None).producer(id, 0, sequence);
        self.append(&records_of(builder, records))
    }

    fn in_txn(&mut self, id: i64, sequence: i32, records: &[(&str, &str)]) -> i64 {
        let builder = BatchBuilder::new(Codec::None).producer(id, 0, sequence);
        self.append(&records_of(builder.transactional(), records))
    }

    fn marker(&mut self, id: i64, epoch: i16, commit: bool) -> i64 {
        let marker = Marker {
            commit,
            coordinator_epoch: 0,
        };
        self.append(&marker.build(id, epoch, 1).unwrap())
    }

    fn roll(&mut self) {
        if !self.segments.last().unwrap().batches.is_empty() {
            self.segments.push(LogSegment {
                base: self.next,
                batches: Vec::new(),
            });
        }
    }

    /// A follower's gap: the next segment begins at `base`.
    fn roll_at(&mut self, base: i64) {
        self.roll();
        self.next = base;
        self.segments.last_mut().unwrap().base = base;
    }

    /// The log starts at the base of its segment at `at` now.
    fn delete_below(&mut self, at: usize) {
        self.segments.drain(..at);
        self.start = self.segments[0].base;
    }

    fn active(&self) -> i64 {
        self.segments.last().unwrap().base
    }

    fn bounds(&mut self) -> Bounds {
        let next = self.next;
        Bounds {
            checkpoint: self.checkpoint,
            start: self.start,
            end: next,
            active: self.active(),
            stable: self.producers.first_unstable(next).unwrap_or(next),
        }
    }

    fn spans(&self) -> Vec<Span> {
        let sealed = self.segments.windows(2);
        let spans = sealed.map(|pair| Span {
            base: pair[0].base,
            end: last_end(&pair[0]).unwrap_or(pair[1].base),
            bytes: pair[0].bytes(),
            first_timestamp: 0,
            max_timestamp: 0,
            epochs: 0,
        });
        spans.collect()
    }

    fn aborted(&self) -> Vec<Aborted> {
        let all = self.producers.aborted();
        let is_needed = |offset: i64| offset >= self.start && !self.emptied.contains(&offset);
        all.filter(|entry| is_needed(entry.last_offset))
            .copied()
            .collect()
    }

    fn dirtiness(&mut self) -> Dirtiness {
        let limits = Limits {
            dirty_ratio_min: 0.0,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
        };
        let bounds = self.bounds();
        Dirtiness::of(&self.spans(), bounds, &limits, 0)
    }

    /// One pass, with a map of so many slots.
    fn clean(&mut self, slots: usize, now_ms: i64) -> Result<Stats, LogError> {
        self.clean_groups(slots, now_ms, usize::MAX)
    }

    /// One pass that is given up after so many groups.
    fn clean_groups(
        &mut self,
        slots: usize,
        now_ms: i64,
        groups_max: usize,
    ) -> Result<Stats, LogError> {
        let dirty = self.dirtiness();
        let aborts = Aborts::new(&self.aborted());
        let mut map = OffsetMap::new(slots * 24);
        map.clear((dirty.end - dirty.first_dirty) as u64);
        let mut fold = DirtyFold::new(&mut map, &aborts, dirty.first_dirty, 1 << 20);
        let sealed = self.segments.len() - 1;
        'fold: for (at, segment) in self.segments[..sealed].iter().enumerate() {
            let next = self.segments[at + 1].base;
            if next <= dirty.first_dirty || segment.base >= dirty.end {
                continue;
            }
            for batch in &segment.batches {
                if fold.add(batch)? == Folded::Full {
                    break 'fold;
                }
            }
            fold.segment_ended(next);
        }
        let end = fold.end();
        let mut pass = Pass::new(Round {
            map: &map,
            aborts,
            last_offsets: self.producers.last_offsets(),
            now_ms,
            delete_retention_ms: RETENTION_MS,
            end: dirty.end,
            decompressed_bytes_max: 1 << 20,
        });
        let spans = self.spans();
        let count = spans.iter().take_while(|span| span.base < end).count();
        let mut cleaned = Vec::new();
        let mut replaced = 0;
        let all = groups(&spans[..count], self.segment_bytes, 100);
        let is_whole = groups_max >= all.len();
        for group in all.into_iter().take(groups_max) {
            replaced = group.end;
            let mut batches = Vec::new();
            for batch in group.clone().flat_map(|at| &self.segments[at].batches) {
                match pass.add(batch)? {
                    Fate::Untouched => batches.push(batch.clone()),
                    Fate::Rewritten(rewritten) => batches.push(rewritten),
                    Fate::Removed => {}
                }
            }
            let base = spans[group.start].base;
            cleaned.push(LogSegment { base, batches });
            let emptied = pass.take_emptied();
            self.emptied
                .extend(emptied.iter().map(|entry| entry.last_offset));
        }
        let stats = *pass.stats();
        let rewritten = end.min(self.segments[replaced].base);
        self.cleaned = self.cleaned.max(rewritten);
        self.segments.splice(..replaced, cleaned);
        if is_whole {
            self.checkpoint = Some(end);
        }
        Ok(stats)
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.segments.iter().flat_map(|segment| &segment.batches)
    }

    /// Offsets of all records, markers included.
    fn offsets(&self) -> Vec<i64> {
        let batches = self.batches();
        batches
            .flat_map(|batch| records(batch).into_iter().map(|read| read.offset))
            .collect()
    }

    /// Last offsets of all batches.
    fn batch_ends(&self) -> Vec<i64> {
        let ends = self.batches().map(|batch| batch.header().last_offset());
        ends.collect()
    }

    /// Keys of all records of data, as text.
    fn keys(&self) -> Vec<String> {
        let data = self
            .batches()
            .filter(|batch| !batch.header().attributes.is_control());
        let keys = data.flat_map(records).filter_map(|read| read.key);
        keys.map(|key| String::from_utf8(key).unwrap()).collect()
    }

    fn stable(&mut self) -> i64 {
        self.bounds().stable
    }

    fn at(&self, offset: i64) -> Option<&Batch> {
        self.batches()
            .find(|batch| batch.header().base_offset == offset)
    }
}

impl LogSegment {
    fn bytes(&self) -> u64 {
        let sizes = self.batches.iter().map(|batch| batch.bytes().len() as u64);
        sizes.sum()
    }
}

fn last_end(segment: &LogSegment) -> Option<i64> {
    Some(segment.batches.last()?.header().last_offset() + 1)
}

fn only(bytes: Bytes) -> Batch {
    let mut batches = Batches::new(bytes);
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none() && batches.rest().is_empty());
    batch
}

fn records_of(mut builder: BatchBuilder, records: &[(&str, &str)]) -> Bytes {
    for (key, value) in records {
        let value = (!value.is_empty()).then_some(value.as_bytes());
        builder = builder.record(5, Some(key.as_bytes()), value);
    }
    builder.build().unwrap()
}

/// The records of a batch, as a reader gets them.
fn records(batch: &Batch) -> Vec<Read> {
    let header = batch.header();
    let mut scratch = Vec::new();
    let bytes = plain(batch, 1 << 20, &mut scratch).unwrap();
    let read = |record: crate::record::RecordView| {
        let mut body = Vec::new();
        record.put_with_timestamp_delta(0, &mut body);
        Read {
            offset: header.base_offset + i64::from(record.offset_delta),
            timestamp: header.record_timestamp(record.timestamp_delta),
            key: record.key.map(<[u8]>::to_vec),
            has_value: record.has_value,
            body,
        }
    };
    Records::new(bytes, header.records_count)
        .map(|record| read(record.unwrap()))
        .collect()
}
