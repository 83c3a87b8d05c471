//! Markers: the control batches by which a transaction coordinator ends a transaction on a partition.
//!
//! A marker is a batch of one uncompressed record: its key says what happens to the transaction, its value who says so.
//! Other control records, and control batches that compaction has emptied, are no markers and mean nothing here.

use std::io;

use bytes::{BufMut, Bytes};

use crate::builder::BatchBuilder;
use crate::compress::Codec;
use crate::header::BatchHeader;
use crate::record::first_key_and_value;

const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// A version (2), then the type (2); longer keys are of later versions, which may only add.
const KEY_LEN: usize = 2 + 2;
/// A version (2), then the coordinator's epoch (4); likewise.
const VALUE_LEN: usize = 2 + 4;

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Marker {
    pub(crate) commit: bool,
    pub(crate) coordinator_epoch: i32,
}

impl Marker {
    /// What a batch with this header and these records says, if it is a marker.
    pub(crate) fn of(header: &BatchHeader, records: &[u8]) -> Option<Self> {
        let attributes = header.attributes;
        let is_marker = attributes.is_control() && attributes.is_transactional();
        if !is_marker || header.producer_id < 0 || attributes.codec().ok()? != Codec::None {
            return None;
        }
        let (key, value) = first_key_and_value(records)?;
        let [_, _, high, low] = key.first_chunk::<KEY_LEN>()?;
        let [_, _, epoch @ ..] = value.first_chunk::<VALUE_LEN>()?;
        let commit = match i16::from_be_bytes([*high, *low]) {
            ABORT => false,
            COMMIT => true,
            _ => return None,
        };
        Some(Self {
            commit,
            coordinator_epoch: i32::from_be_bytes(*epoch),
        })
    }

    /// The batch that ends the transaction of a producer.
    pub(crate) fn build(
        self,
        producer_id: i64,
        producer_epoch: i16,
        now_ms: i64,
    ) -> io::Result<Bytes> {
        let mut key = Vec::with_capacity(KEY_LEN);
        key.put_i16(0);
        key.put_i16(if self.commit { COMMIT } else { ABORT });
        let mut value = Vec::with_capacity(VALUE_LEN);
        value.put_i16(0);
        value.put_i32(self.coordinator_epoch);
        BatchBuilder::new(Codec::None)
            .producer(producer_id, producer_epoch, -1)
            .transactional()
            .control()
            .record(now_ms, Some(&key), Some(&value))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Batches};

    const COMMITTED: Marker = Marker {
        commit: true,
        coordinator_epoch: 7,
    };

    fn batch(bytes: Bytes) -> Batch {
        Batches::new(bytes).next().unwrap().unwrap()
    }

    fn marker(bytes: Bytes) -> Option<Marker> {
        let batch = batch(bytes);
        Marker::of(batch.header(), &batch.records())
    }

    #[test]
    fn golden_bytes() {
        // Contract page, golden batch 4.
        let golden = "000000000000000000000042ffffffff0247d4f8d000300000000000000000000003e8\
                      00000000000003e800000000000000010000ffffffff000000012000000008000000010c\
                      00000000000700";
        let golden: Vec<u8> = (0..golden.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
            .collect();
        let built = COMMITTED.build(1, 0, 1000).unwrap();
        assert_eq!(built, golden);
        assert_eq!(marker(built), Some(COMMITTED));
    }

    #[test]
    fn what_is_not_a_marker_is_none() {
        let abort = Marker {
            commit: false,
            coordinator_epoch: -1,
        };
        let bytes = abort.build(9, 3, 5).unwrap();
        assert_eq!(marker(bytes.clone()), Some(abort));
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = to;
            marker(bytes.into())
        };
        // Not control, not transactional, compressed, of nobody, another type of control record.
        for (at, to) in [(22, 0x10), (22, 0x20), (22, 0x31), (43, 0xff), (69, 2)] {
            assert_eq!(changed(at, to), None, "{at}");
        }
        let whole = batch(bytes);
        let records = whole.records();
        for len in 0..records.len() {
            assert_eq!(Marker::of(whole.header(), &records[..len]), None, "{len}");
        }
    }
}
