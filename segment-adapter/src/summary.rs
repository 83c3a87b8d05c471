//! What is known of a segment without reading it. `docs/format.md` §Kafka log edits.
//!
//! A [`Summary`] of the first `n` batches, as a note in the active segment, is where a reopening goes on from and an
//! entry of the sparse time index; with the index it is the attributes of a sealed segment. Largest timestamps never
//! decrease along an index. `decode(encode(x)) == x`.

use bytes::{Buf, BufMut, Bytes};

use crate::error::LogError;
use crate::header::BatchHeader;

const VERSION: u8 = 1;
// Persisted: never renumber.
const NOTE: u8 = 1;
const SEALED: u8 = 2;
const SUMMARY_LEN: usize = 8 + 8 + 8 + 8 + 8 + 4 + 4 + 8 + 8;
const ENTRY_LEN: usize = 8 + 8;
const _: () = assert!(SUMMARY_LEN == 64 && ENTRY_LEN == 16);
/// The most index entries of a sealed segment; more are thinned out, so that a log of many segments stays small.
pub(crate) const SEALED_ENTRIES_MAX: usize = 128;

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
    /// Leader epoch of the first batch, -1 for none.
    pub(crate) first_epoch: i32,
    /// Leader epoch of the last batch, -1 for none.
    pub(crate) last_epoch: i32,
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
            first_epoch: -1,
            last_epoch: -1,
            created_ms: now_ms,
            modified_ms: now_ms,
        }
    }

    /// Takes in the next batch.
    pub(crate) fn add(&mut self, header: &BatchHeader, bytes: u64, now_ms: i64) {
        if self.bytes == 0 {
            self.first_timestamp = header.max_timestamp;
            self.first_epoch = header.partition_leader_epoch;
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.base_offset;
        }
        self.end = header.last_offset().saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.last_epoch = header.partition_leader_epoch;
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

    pub(crate) fn encode_note(&self) -> Bytes {
        let mut out = Vec::with_capacity(2 + SUMMARY_LEN);
        out.put_slice(&[VERSION, NOTE]);
        self.put(&mut out);
        out.into()
    }

    pub(crate) fn decode_note(bytes: &Bytes) -> Result<Self, LogError> {
        let mut rest = checked(bytes, NOTE)?;
        let summary = Self::take(&mut rest)?;
        if !rest.is_empty() {
            return Err(damaged("a note is longer than a summary", bytes.len()));
        }
        Ok(summary)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_i64(self.end);
        out.put_u64(self.bytes);
        out.put_i64(self.first_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.max_timestamp_offset);
        out.put_i32(self.first_epoch);
        out.put_i32(self.last_epoch);
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
            first_epoch: rest.get_i32(),
            last_epoch: rest.get_i32(),
            created_ms: rest.get_i64(),
            modified_ms: rest.get_i64(),
        })
    }
}

/// The attributes of a sealed segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    pub(crate) summary: Summary,
    pub(crate) index: Vec<IndexEntry>,
}

impl Sealed {
    /// Keeps every n-th entry, so that at most [`SEALED_ENTRIES_MAX`] stay.
    pub(crate) fn new(summary: Summary, index: &[IndexEntry]) -> Self {
        let step = index.len().div_ceil(SEALED_ENTRIES_MAX).max(1);
        let index = index.iter().skip(step - 1).step_by(step).copied().collect();
        Self { summary, index }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(2 + SUMMARY_LEN + self.index.len() * ENTRY_LEN);
        out.put_slice(&[VERSION, SEALED]);
        self.summary.put(&mut out);
        for entry in &self.index {
            out.put_i64(entry.end);
            out.put_i64(entry.max_timestamp);
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, LogError> {
        let mut rest = checked(bytes, SEALED)?;
        let summary = Summary::take(&mut rest)?;
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
        Ok(Self { summary, index })
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
            first_epoch: 4,
            last_epoch: 5,
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
            &[0, 0, 0, 4, 0, 0, 0, 5],
            &[0, 0, 0, 0, 0, 0, 0, 6],
            &[0, 0, 0, 0, 0, 0, 0, 7],
        ]
        .concat();
        let note = Bytes::from([&[1, 1][..], &body].concat());
        assert_eq!(summary().encode_note(), note);
        assert_eq!(Summary::decode_note(&note).unwrap(), summary());

        let entry = [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
        let bytes = Bytes::from([&[1, 2][..], &body, &entry].concat());
        let index = [IndexEntry {
            end: 8,
            max_timestamp: 9,
        }];
        let sealed = Sealed::new(summary(), &index);
        assert_eq!(sealed.encode(), bytes);
        assert_eq!(Sealed::decode(&bytes).unwrap(), sealed);
    }

    #[test]
    fn what_is_cut_off_or_of_another_version_is_refused() {
        let note = summary().encode_note();
        for len in 0..note.len() {
            let error = Summary::decode_note(&note.slice(..len)).unwrap_err();
            assert_eq!(error.code(), 56);
        }
        assert!(Sealed::decode(&note).is_err());
        let newer = Bytes::from([&[2, 1][..], &note[2..]].concat());
        assert!(Summary::decode_note(&newer).is_err());
    }

    #[test]
    fn a_long_index_is_thinned_out_and_keeps_its_order() {
        let index: Vec<IndexEntry> = (0..1000)
            .map(|n| IndexEntry {
                end: n,
                max_timestamp: n * 2,
            })
            .collect();
        let sealed = Sealed::new(summary(), &index);
        assert_eq!(sealed.index.len(), 125);
        assert_eq!(sealed.index[0].end, 7);
        assert!(sealed.index.is_sorted_by_key(|entry| entry.end));
        assert!(sealed.encode().len() < s3stream::segment::ATTRIBUTES_BYTES_MAX);
    }
}
