//! What readers of a compacted log must see, compared with the log as it was written.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::header::{BatchHeader, TimestampType};

/// The log as it was written: every batch that ever was, and what became of every transaction.
#[derive(Clone, Default)]
pub(super) struct Written {
    batches: Vec<Batch>,
    aborted: Vec<Aborted>,
    /// When a pass first accounted for the tombstone at an offset.
    covered: BTreeMap<i64, i64>,
}

/// The records that a reader of committed data gets from `from` on, below `stable`: what a client makes of the batches and
/// of the aborted transactions that it is told.
fn committed<'a>(
    batches: impl Iterator<Item = &'a Batch>,
    aborted: &[Aborted],
    from: i64,
    stable: i64,
) -> Vec<Read> {
    let mut told: Vec<&Aborted> = aborted
        .iter()
        .filter(|entry| entry.last_offset >= from)
        .collect();
    told.sort_by_key(|entry| entry.first_offset);
    let mut told = told.into_iter().peekable();
    let mut skipped = BTreeSet::new();
    let mut reads = Vec::new();
    for batch in batches {
        let header = batch.header();
        if header.last_offset() < from || header.last_offset() >= stable {
            continue;
        }
        while let Some(entry) = told.next_if(|entry| entry.first_offset <= header.last_offset()) {
            skipped.insert(entry.producer_id);
        }
        if header.attributes.is_control() {
            if Marker::of(header, batch.record_bytes()).is_some_and(|marker| !marker.commit) {
                skipped.remove(&header.producer_id);
            }
        } else if !header.attributes.is_transactional() || !skipped.contains(&header.producer_id) {
            reads.extend(
                records(batch)
                    .into_iter()
                    .filter(|read| read.offset >= from),
            );
        }
    }
    reads
}

/// Of each key the newest record; those without a key have none.
fn newest(reads: &[Read]) -> BTreeMap<&[u8], &Read> {
    let keyed = reads
        .iter()
        .filter_map(|read| Some((read.key.as_deref()?, read)));
    keyed.collect()
}

fn values(reads: &[Read]) -> BTreeMap<&[u8], &Read> {
    let mut newest = newest(reads);
    newest.retain(|_, read| read.has_value);
    newest
}

impl Written {
    /// Takes in what was appended to the log since it was asked last.
    pub(super) fn follow(&mut self, log: &Log) {
        let end = self
            .batches
            .last()
            .map(|batch| batch.header().last_offset());
        let new = log
            .batches()
            .filter(|batch| end.is_none_or(|end| batch.header().base_offset > end));
        self.batches.extend(new.cloned());
        self.aborted = log.producers.aborted().copied().collect();
    }

    /// Compares the log with what was written, after a pass at `now_ms`.
    pub(super) fn check(&mut self, log: &mut Log, now_ms: i64) {
        let stable = log.stable();
        self.check_batches(log);
        self.check_markers(log);
        self.check_producers(log);
        let kept: Vec<&Batch> = self
            .batches
            .iter()
            .filter(|batch| batch.header().base_offset >= log.start)
            .collect();
        let truth = committed(kept.iter().copied(), &self.aborted, log.start, stable);
        let reads = committed(log.batches(), &log.aborted(), log.start, stable);
        assert_eq!(
            values(&truth),
            values(&reads),
            "the newest value of each key"
        );
        let all: BTreeSet<i64> = truth.iter().map(|read| read.offset).collect();
        for from in (log.start..stable).step_by(3) {
            for read in committed(log.batches(), &log.aborted(), from, stable) {
                assert!(all.contains(&read.offset), "{read:?} is not committed");
            }
        }
        let there: BTreeSet<i64> = reads.iter().map(|read| read.offset).collect();
        let above = truth.iter().filter(|read| read.offset >= log.cleaned);
        for read in above {
            assert!(
                there.contains(&read.offset),
                "{read:?} is above what was cleaned"
            );
        }
        for (_, read) in newest(&truth) {
            if read.has_value {
                continue;
            }
            if read.offset < log.cleaned {
                self.covered.entry(read.offset).or_insert(now_ms);
            }
            if !there.contains(&read.offset) {
                let since = self
                    .covered
                    .get(&read.offset)
                    .expect("it was accounted for");
                assert!(
                    now_ms >= since + RETENTION_MS,
                    "{read:?} since {since}, now {now_ms}"
                );
            }
        }
    }

    /// Every batch is one that was written, with some of its records.
    fn check_batches(&self, log: &Log) {
        let written: BTreeMap<i64, &Batch> = self
            .batches
            .iter()
            .map(|batch| (batch.header().base_offset, batch))
            .collect();
        let mut end = -1;
        for batch in log.batches() {
            batch.verify_checksum().unwrap();
            let header = batch.header();
            assert!(header.base_offset > end);
            end = header.last_offset();
            let before = written[&header.base_offset];
            let (reads, was) = (records(batch), records(before));
            assert_eq!(reads.len() as i32, header.records_count);
            let expected = BatchHeader {
                batch_length: header.batch_length,
                crc: header.crc,
                attributes: header.attributes,
                base_timestamp: header.base_timestamp,
                max_timestamp: header.max_timestamp,
                records_count: header.records_count,
                ..*before.header()
            };
            assert_eq!(*header, expected);
            let attributes = before.header().attributes;
            let codec = match reads.is_empty() {
                true => Codec::None,
                false => attributes.codec().unwrap(),
            };
            let bits = attributes.with_codec(codec);
            assert_eq!(header.attributes.without_delete_horizon(), bits);
            let create_time = attributes.timestamp_type() == TimestampType::CreateTime;
            let max = reads.iter().map(|read| read.timestamp).max();
            match max {
                Some(max) if create_time => assert_eq!(header.max_timestamp, max.max(-1)),
                // That of the records that it had last.
                None if create_time => {
                    assert!(header.max_timestamp <= before.header().max_timestamp);
                }
                _ => assert_eq!(header.max_timestamp, before.header().max_timestamp),
            }
            let mut was = was.into_iter();
            for read in reads {
                assert!(
                    was.any(|was| was == read),
                    "{read:?} was not written like that"
                );
            }
        }
    }

    /// A marker is there as long as a batch of its transaction is.
    fn check_markers(&self, log: &Log) {
        let there: BTreeSet<i64> = log.offsets().into_iter().collect();
        for batch in log.batches() {
            let header = batch.header();
            let attributes = header.attributes;
            if !attributes.is_transactional() || attributes.is_control() {
                continue;
            }
            let marker = self.batches.iter().find(|other| {
                let other = other.header();
                other.attributes.is_control()
                    && other.producer_id == header.producer_id
                    && other.base_offset > header.base_offset
            });
            let marker = marker.map(|marker| marker.header().base_offset);
            assert!(
                marker.is_none_or(|marker| there.contains(&marker)),
                "{header:?}"
            );
        }
    }

    /// Who reads only what is left knows how every producer goes on.
    fn check_producers(&self, log: &Log) {
        let mut replayed = Producers::default();
        for batch in log.batches() {
            replayed.add(&Entry::of(batch), PRODUCERS_MAX);
        }
        let replayed = replayed.active();
        let last_offsets = log.producers.last_offsets();
        for known in log.producers.active() {
            let id = known.producer_id;
            if last_offsets[&id] < log.start {
                continue;
            }
            let mut batches = log.batches().map(Batch::header);
            let last = batches.find(|header| header.last_offset() == last_offsets[&id]);
            let last = last.expect("the last batch of a producer stays");
            assert_eq!((last.producer_id, last.producer_epoch), (id, known.epoch));
            if last.records_count == 0 && last.attributes.is_control() {
                // It says the epoch to who looks at batches; who replays them takes it for nothing (vector 57).
                continue;
            }
            let found = replayed.iter().find(|found| found.producer_id == id);
            let found = found.expect("a producer is known by what is left");
            assert_eq!(
                (
                    found.epoch,
                    found.last_sequence,
                    found.txn_first_offset.max(log.start)
                ),
                (
                    known.epoch,
                    known.last_sequence,
                    known.txn_first_offset.max(log.start)
                ),
            );
        }
    }

    /// After enough passes nothing is left below the active segment that is not needed.
    pub(super) fn check_is_clean(&self, log: &mut Log) {
        let stable = log.stable();
        let active = log.active();
        assert!(active <= stable && log.dirtiness().dirty_bytes == 0);
        let truth = committed(self.batches.iter(), &self.aborted, log.start, stable);
        let needed: BTreeSet<i64> = values(&truth)
            .values()
            .map(|read| read.offset)
            .filter(|offset| *offset < active)
            .collect();
        let data = log
            .batches()
            .filter(|batch| !batch.header().attributes.is_control())
            .filter(|batch| batch.header().base_offset < active);
        let there: BTreeSet<i64> = data.flat_map(records).map(|read| read.offset).collect();
        assert_eq!(there, needed);
        let last_offsets: BTreeSet<i64> = log.producers.last_offsets().into_values().collect();
        for batch in log.batches() {
            let header = batch.header();
            let last_offset = header.last_offset();
            if header.records_count == 0 {
                let is_last = last_offset + 1 == active || last_offsets.contains(&last_offset);
                assert!(is_last, "{header:?}");
            }
        }
        for entry in log.aborted() {
            let has_data = |batch: &Batch| {
                let header = batch.header();
                let within = entry.first_offset..entry.last_offset;
                header.producer_id == entry.producer_id && within.contains(&header.base_offset)
            };
            assert!(log.batches().any(has_data), "{entry:?} has no data");
        }
    }
}
