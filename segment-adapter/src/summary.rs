//! What is known of a segment without reading it. `docs/format.md` §Kafka log edits.
//!
//! A [`Summary`] of the first `n` batches, as a note in the active segment, is where a reopening goes on from and an
//! entry of the sparse time index; with the index and its leader epochs it is the attributes of a sealed segment. A leader
//! epoch that begins in the active segment is a note of its own, and the first note of a segment is the epoch in force
//! at its base. Largest timestamps never decrease along an index. `decode(encode(x)) == x`.

use bytes::{Buf, BufMut, Bytes};

use crate::epochs::EpochStart;
use crate::error::LogError;
use crate::header::BatchHeader;

const VERSION: u8 = 3;
// Persisted: never renumber.
const NOTE: u8 = 1;
const SEALED: u8 = 2;
const EPOCH: u8 = 3;
const SUMMARY_LEN: usize = 8 + 8 + 8 + 8 + 8 + 8 + 8;
const ENTRY_LEN: usize = 8 + 8;
const EPOCH_LEN: usize = 4 + 8;
const _: () = assert!(SUMMARY_LEN == 56 && ENTRY_LEN == 16 && EPOCH_LEN == 12);
/// The most leader epochs that begin in a segment; one more begins the next segment.
pub(crate) const SEGMENT_EPOCHS_MAX: usize = 512;
/// The most index entries of a sealed segment; more are thinned out, so that a log of many segments stays small.
pub(crate) const SEALED_ENTRIES_MAX: usize = 128;
const _: () = assert!(
    2 + SUMMARY_LEN + 8 + 2 + (SEGMENT_EPOCHS_MAX + 1) * EPOCH_LEN + SEALED_ENTRIES_MAX * ENTRY_LEN
        <= s3stream::segment::ATTRIBUTES_BYTES_MAX
);

/// What is known of the batches of a segment from its base up to `end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    /// One past the last offset.
    pub(crate) end: i64,
    /// Size of the batches.
    pub(crate) bytes: u64,
    /// The largest timestamp of the first batch, -1 for none: what rolling by time is measured from.
    pub(crate) first_timestamp: i64,
    /// The largest timestamp, -1 for none.
    pub(crate) max_timestamp: i64,
    /// Base offset of the first batch with the largest timestamp, -1 for none.
    pub(crate) max_timestamp_offset: i64,
    /// When the segment was begun, by the broker's clock.
    pub(crate) created_ms: i64,
    /// When it was last appended to, by the broker's clock.
    pub(crate) modified_ms: i64,
}

/// A point of the time index: no record below `end` has a larger timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) end: i64,
    pub(crate) max_timestamp: i64,
}

impl Summary {
    /// Of a segment without batches.
    pub(crate) fn new(base: i64, now_ms: i64) -> Self {
        Self {
            end: base,
            bytes: 0,
            first_timestamp: -1,
            max_timestamp: -1,
            max_timestamp_offset: -1,
            created_ms: now_ms,
            modified_ms: now_ms,
        }
    }

    /// Takes in the next batch.
    pub(crate) fn add(&mut self, header: &BatchHeader, bytes: u64, now_ms: i64) {
        if self.bytes == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        // A batch that compaction has emptied has no record with its time any more.
        if header.max_timestamp > self.max_timestamp && header.records_count > 0 {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.base_offset;
        }
        self.end = header.last_offset().saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.modified_ms = now_ms;
    }

    /// The time retention goes by: the newest record's, or of the last append if no record has one.
    pub(crate) fn retention_timestamp(&self) -> i64 {
        if self.max_timestamp >= 0 {
            self.max_timestamp
        } else {
            self.modified_ms
        }
    }

    pub(crate) fn entry(&self) -> IndexEntry {
        IndexEntry {
            end: self.end,
            max_timestamp: self.max_timestamp,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_i64(self.end);
        out.put_u64(self.bytes);
        out.put_i64(self.first_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.max_timestamp_offset);
        out.put_i64(self.created_ms);
        out.put_i64(self.modified_ms);
    }

    fn take(rest: &mut &[u8]) -> Result<Self, LogError> {
        if rest.len() < SUMMARY_LEN {
            return Err(damaged("a summary is cut off", rest.len()));
        }
        Ok(Self {
            end: rest.get_i64(),
            bytes: rest.get_u64(),
            first_timestamp: rest.get_i64(),
            max_timestamp: rest.get_i64(),
            max_timestamp_offset: rest.get_i64(),
            created_ms: rest.get_i64(),
            modified_ms: rest.get_i64(),
        })
    }
}

/// A note of the active segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// What the segment holds so far.
    Summary(Summary),
    /// A leader epoch begins, or began before the segment and goes on.
    Epoch(EpochStart),
}

impl Note {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(2 + SUMMARY_LEN);
        match self {
            Self::Summary(summary) => {
                out.put_slice(&[VERSION, NOTE]);
                summary.put(&mut out);
            }
            Self::Epoch(entry) => {
                out.put_slice(&[VERSION, EPOCH]);
                put_epoch(&mut out, entry);
            }
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, LogError> {
        let (note, rest) = match bytes.get(1) {
            Some(&EPOCH) => {
                let mut rest = checked(bytes, EPOCH)?;
                (Self::Epoch(take_epoch(&mut rest)?), rest)
            }
            _ => {
                let mut rest = checked(bytes, NOTE)?;
                (Self::Summary(Summary::take(&mut rest)?), rest)
            }
        };
        if !rest.is_empty() {
            return Err(damaged("a note is longer than its fields", bytes.len()));
        }
        Ok(note)
    }
}

fn put_epoch(out: &mut Vec<u8>, entry: &EpochStart) {
    out.put_i32(entry.epoch);
    out.put_i64(entry.start);
}

fn take_epoch(rest: &mut &[u8]) -> Result<EpochStart, LogError> {
    if rest.len() < EPOCH_LEN {
        return Err(damaged("a leader epoch is cut off", rest.len()));
    }
    Ok(EpochStart {
        epoch: rest.get_i32(),
        start: rest.get_i64(),
    })
}

/// The attributes of a sealed segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    pub(crate) summary: Summary,
    /// What lies below was compacted; at or below the base if nothing of the segment was.
    pub(crate) cleaned: i64,
    /// The leader epoch in force at its base, and all that begin in it.
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) index: Vec<IndexEntry>,
}

impl Sealed {
    /// Of a segment that was never compacted. Keeps every n-th entry, so that at most [`SEALED_ENTRIES_MAX`] stay.
    pub(crate) fn new(summary: Summary, epochs: &[EpochStart], index: &[IndexEntry]) -> Self {
        let step = index.len().div_ceil(SEALED_ENTRIES_MAX).max(1);
        let index = index.iter().skip(step - 1).step_by(step).copied().collect();
        Self {
            summary,
            cleaned: 0,
            epochs: epochs.to_vec(),
            index,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let lists = self.epochs.len() * EPOCH_LEN + self.index.len() * ENTRY_LEN;
        let mut out = Vec::with_capacity(2 + SUMMARY_LEN + 8 + 2 + lists);
        out.put_slice(&[VERSION, SEALED]);
        self.summary.put(&mut out);
        out.put_i64(self.cleaned);
        out.put_u16(self.epochs.len() as u16);
        for entry in &self.epochs {
            put_epoch(&mut out, entry);
        }
        for entry in &self.index {
            out.put_i64(entry.end);
            out.put_i64(entry.max_timestamp);
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, LogError> {
        let mut rest = checked(bytes, SEALED)?;
        let summary = Summary::take(&mut rest)?;
        if rest.len() < 8 + 2 {
            return Err(damaged("the leader epochs are cut off", rest.len()));
        }
        let cleaned = rest.get_i64();
        let count = rest.get_u16();
        let mut epochs = Vec::new();
        for _ in 0..count {
            epochs.push(take_epoch(&mut rest)?);
        }
        if rest.len() % ENTRY_LEN != 0 {
            return Err(damaged("a time index is cut off", rest.len()));
        }
        let mut index = Vec::with_capacity(rest.len() / ENTRY_LEN);
        while !rest.is_empty() {
            index.push(IndexEntry {
                end: rest.get_i64(),
                max_timestamp: rest.get_i64(),
            });
        }
        Ok(Self {
            summary,
            cleaned,
            epochs,
            index,
        })
    }
}

fn checked(bytes: &Bytes, kind: u8) -> Result<&[u8], LogError> {
    match bytes.split_first_chunk::<2>() {
        Some(([VERSION, found], rest)) if *found == kind => Ok(rest),
        Some((head, _)) => Err(LogError::StoredState(format!(
            "version and kind {head:?}, expected [{VERSION}, {kind}]"
        ))),
        None => Err(damaged("no version", bytes.len())),
    }
}

fn damaged(what: &str, len: usize) -> LogError {
    LogError::StoredState(format!("{what}: {len} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            end: 10,
            bytes: 0x1_0000,
            first_timestamp: 1,
            max_timestamp: 2,
            max_timestamp_offset: 3,
            created_ms: 6,
            modified_ms: 7,
        }
    }

    #[test]
    fn golden_bytes() {
        let body = [
            &[0, 0, 0, 0, 0, 0, 0, 10][..],
            &[0, 0, 0, 0, 0, 1, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 0, 0, 0, 0, 0, 0, 6],
            &[0, 0, 0, 0, 0, 0, 0, 7],
        ]
        .concat();
        let bytes = Bytes::from([&[3, 1][..], &body].concat());
        let note = Note::Summary(summary());
        assert_eq!(note.encode(), bytes);
        assert_eq!(Note::decode(&bytes).unwrap(), note);

        let epoch = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5];
        let bytes = Bytes::from([&[3, 3][..], &epoch].concat());
        let note = Note::Epoch(EpochStart { epoch: 4, start: 5 });
        assert_eq!(note.encode(), bytes);
        assert_eq!(Note::decode(&bytes).unwrap(), note);

        let entry = [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
        let cleaned = [0, 0, 0, 0, 0, 0, 0, 11];
        let bytes = [&[3, 2][..], &body, &cleaned, &[0, 1], &epoch, &entry];
        let bytes = Bytes::from(bytes.concat());
        let index = [IndexEntry {
            end: 8,
            max_timestamp: 9,
        }];
        let mut sealed = Sealed::new(summary(), &[EpochStart { epoch: 4, start: 5 }], &index);
        sealed.cleaned = 11;
        assert_eq!(sealed.encode(), bytes);
        assert_eq!(Sealed::decode(&bytes).unwrap(), sealed);
    }

    #[test]
    fn what_is_cut_off_or_of_another_version_is_refused() {
        let epoch = EpochStart { epoch: 4, start: 5 };
        for note in [Note::Summary(summary()), Note::Epoch(epoch)] {
            let note = note.encode();
            for len in 0..note.len() {
                let error = Note::decode(&note.slice(..len)).unwrap_err();
                assert_eq!(error.code(), 56);
            }
            assert!(Note::decode(&[&note[..], &[0]].concat().into()).is_err());
            assert!(Sealed::decode(&note).is_err());
            for other in [2, 4] {
                let other = Bytes::from([&[other][..], &note[1..]].concat());
                assert!(Note::decode(&other).is_err());
            }
        }
        let sealed = Sealed::new(summary(), &[epoch; 3], &[]).encode();
        for len in 0..sealed.len() {
            assert!(Sealed::decode(&sealed.slice(..len)).is_err(), "{len}");
        }
    }

    #[test]
    fn a_long_index_is_thinned_out_and_keeps_its_order() {
        let index: Vec<IndexEntry> = (0..1000)
            .map(|n| IndexEntry {
                end: n,
                max_timestamp: n * 2,
            })
            .collect();
        let sealed = Sealed::new(summary(), &[], &index);
        assert_eq!(sealed.index.len(), 125);
        assert_eq!(sealed.index[0].end, 7);
        assert!(sealed.index.is_sorted_by_key(|entry| entry.end));
        assert!(sealed.encode().len() < s3stream::segment::ATTRIBUTES_BYTES_MAX);
    }
}
