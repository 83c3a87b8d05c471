//! Batches in buffers that are whole, cut off and damaged.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::{BatchBuilder, Codec, TimestampType};

/// Golden bytes G1 to G3: computed apart from this code.
pub(crate) const G1: &str = "000000000000000000000042ffffffff02bc867e5e00000000000100000000000003e800000000000003e9ffffffffffffffffffffffffffff0000000210000000026b0276000e00020201027700";
const G4: &str = "000000000000000000000042ffffffff0247d4f8d000300000000000000000000003e800000000000003e800000000000000010000ffffffff000000012000000008000000010c00000000000700";
const G5: &str = "00000000000000050000003100000003028ce3f920000000000001ffffffffffffffff00000000000003e9000000000000000900000000000400000000";

pub(crate) fn unhex(hex: &str) -> Bytes {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn one(bytes: &Bytes) -> Batch {
    let mut batches = Batches::new(bytes.clone());
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none() && batches.rest().is_empty());
    batch
}

fn heads(batch: &Batch) -> Vec<RecordHead> {
    let mut heads = Vec::new();
    batch
        .visit_records(1 << 20, |_, head| {
            heads.push(head);
            ControlFlow::Continue(())
        })
        .unwrap();
    heads
}

#[test]
fn golden_plain_batch_is_read_and_built() {
    let bytes = unhex(G1);
    let batch = one(&bytes);
    batch.verify_checksum().unwrap();
    let header = batch.header();
    assert_eq!((header.base_offset, header.last_offset()), (0, 1));
    assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1001));
    assert_eq!(
        (header.crc, header.producer_id, header.records_count),
        (0xbc86_7e5e, -1, 2)
    );
    assert_eq!(header.encode()[..], bytes[..BATCH_HEADER_LEN]);
    let read = heads(&batch);
    assert_eq!(
        (
            read[0].timestamp_delta,
            read[0].offset_delta,
            read[0].has_key
        ),
        (0, 0, true)
    );
    assert_eq!(
        (
            read[1].timestamp_delta,
            read[1].offset_delta,
            read[1].has_key
        ),
        (1, 1, false)
    );
    let built = BatchBuilder::new(Codec::None)
        .record(1000, Some(b"k"), Some(b"v"))
        .record(1001, None, Some(b"w"))
        .build()
        .unwrap();
    assert_eq!(built, bytes);
}

#[test]
fn a_decompressed_batch_is_the_same_without_its_codec() {
    let build = |codec| {
        let batch = BatchBuilder::new(codec).record(5, Some(b"k"), Some(&[b'v'; 500]));
        let batch = Batches::new(batch.build().unwrap()).next();
        batch.unwrap().unwrap()
    };
    let plain = build(Codec::None);
    for codec in Codec::ALL {
        assert_eq!(build(codec).decompressed(1 << 20).unwrap(), plain);
    }
    let refused = build(Codec::Zstd).decompressed(100);
    assert!(matches!(refused, Err(LogError::MessageTooLarge { .. })));
}

#[test]
fn golden_marker_and_empty_batch_are_read() {
    let marker = one(&unhex(G4));
    marker.verify_checksum().unwrap();
    let attributes = marker.header().attributes;
    assert!(attributes.is_control() && attributes.is_transactional());
    assert_eq!(attributes.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(heads(&marker).len(), 1);

    let empty = one(&unhex(G5));
    empty.verify_checksum().unwrap();
    assert_eq!(
        (empty.header().base_offset, empty.header().last_offset()),
        (5, 6)
    );
    assert_eq!(heads(&empty).len(), 0);
}

#[test]
fn batches_of_a_buffer_share_its_memory() {
    let golden = unhex(G1);
    let two = Bytes::from([&golden[..], &golden[..]].concat());
    let batches: Vec<Batch> = Batches::new(two.clone()).collect::<Result<_, _>>().unwrap();
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[0].bytes().as_ptr(), two.as_ptr());
    assert_eq!(batches[1].bytes().as_ptr(), two[golden.len()..].as_ptr());
}

#[test]
fn a_cut_off_batch_ends_the_iteration_silently() {
    let golden = unhex(G1);
    for len in 0..golden.len() {
        let bytes = Bytes::from([&golden[..], &golden[..len]].concat());
        let mut batches = Batches::new(bytes);
        assert!(batches.next().unwrap().is_ok());
        assert!(batches.next().is_none(), "{len}");
        assert_eq!(batches.rest().len(), len);
    }
}

#[test]
fn vector_83_damaged_headers_are_corrupt() {
    let golden = unhex(G1);
    let with = |at: usize, patch: &[u8]| {
        let mut bytes = BytesMut::from(&golden[..]);
        bytes[at..at + patch.len()].copy_from_slice(patch);
        Batches::new(bytes.freeze())
            .next()
            .unwrap()
            .and_then(|batch| batch.verify_checksum())
            .unwrap_err()
            .code()
    };
    assert_eq!(with(8, &13i32.to_be_bytes()), 2, "length below 14");
    assert_eq!(with(8, &(-1i32).to_be_bytes()), 2, "negative length");
    assert_eq!(with(8, &48i32.to_be_bytes()), 2, "shorter than a header");
    assert_eq!(with(16, &[0xff]), 2, "format -1");
    assert_eq!(with(16, &[3]), 2, "format 3");
    assert_eq!(with(16, &[1]), 43, "format 1");
    assert_eq!(with(16, &[0]), 43, "format 0");
    assert_eq!(with(70, &[0]), 2, "checksum");
}

#[test]
fn no_flipped_or_missing_byte_makes_the_walk_panic() {
    for codec in Codec::ALL {
        let golden = BatchBuilder::new(codec)
            .record_with_headers(7, Some(b"key"), Some(&[9; 300]), &[("h", Some(b"x"))])
            .record(8, None, None)
            .build()
            .unwrap();
        for at in BATCH_HEADER_LEN..golden.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = BytesMut::from(&golden[..]);
                bytes[at] ^= flip;
                let batch = one(&bytes.freeze());
                assert!(batch.verify_checksum().is_err());
                let _ = batch.visit_records(1 << 16, |_, _| ControlFlow::Continue(()));
            }
        }
    }
}
