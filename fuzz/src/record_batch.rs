//! Kafka record batches as a client may send them: any bytes are refused, or are batches whose every record is readable.
//!
//! Iterating accounts for every byte; a batch that a leader accepts has dense offsets, and what the leader stores is a
//! batch again, with the same records and a right checksum.

use std::ops::ControlFlow;

use bytes::Bytes;
use segment_adapter::{
    BATCH_HEADER_LEN, BatchBuilder, Batches, Codec, LogConfig, TimestampType, validate_as_leader,
};

/// Far less than any real bound, so that the fuzzer stays fast.
const DECOMPRESSED_BYTES_MAX: u64 = 1 << 20;
const CRC_FIELD: std::ops::Range<usize> = 17..21;
const NOW_MS: i64 = 1_700_000_000_000;

/// Parses and validates `data` as it is, and again as one batch with the right length and checksum.
pub fn run(data: &[u8]) {
    check(&Bytes::copy_from_slice(data));
    if let Some(sealed) = sealed(data) {
        check(&sealed);
    }
}

/// A batch in each codec, and two batches in one buffer.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Codec::ALL
        .into_iter()
        .map(|codec| {
            let batch = BatchBuilder::new(codec)
                .record(NOW_MS, Some(b"key"), Some(b"value value value"))
                .record_with_headers(NOW_MS + 5, None, Some(b""), &[("name", Some(b"x"))])
                .record(NOW_MS - 5, Some(b""), None);
            batch.build().expect("a small batch").to_vec()
        })
        .collect();
    seeds.push([seeds[0].as_slice(), &seeds[1]].concat());
    seeds
}

fn sealed(data: &[u8]) -> Option<Bytes> {
    let mut batch = data.to_vec();
    let length = i32::try_from(batch.len().checked_sub(12)?).ok()?;
    if batch.len() < BATCH_HEADER_LEN {
        return None;
    }
    batch[..8].fill(0);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c::crc32c(&batch[CRC_FIELD.end..]);
    batch[CRC_FIELD].copy_from_slice(&crc.to_be_bytes());
    Some(batch.into())
}

fn check(bytes: &Bytes) {
    let mut batches = Batches::new(bytes.clone());
    let mut seen = 0;
    let mut failed = false;
    for batch in batches.by_ref() {
        let Ok(batch) = batch else {
            failed = true;
            break;
        };
        assert_eq!(
            batch.bytes(),
            &bytes.slice(seen..seen + batch.bytes().len())
        );
        seen += batch.bytes().len();
        let mut records = 0;
        let visited = batch.visit_records(DECOMPRESSED_BYTES_MAX, |index, _| {
            assert_eq!(index, records);
            records += 1;
            ControlFlow::Continue(())
        });
        if visited.is_ok() {
            assert_eq!(
                i64::from(records),
                i64::from(batch.header().records_count.max(0))
            );
        }
    }
    assert!(failed || seen + batches.rest().len() == bytes.len());
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        check_leader(bytes, timestamp_type, None);
        for codec in Codec::ALL {
            check_leader(bytes, timestamp_type, Some(codec));
        }
    }
}

fn check_leader(bytes: &Bytes, timestamp_type: TimestampType, compression: Option<Codec>) {
    let config = LogConfig {
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        max_message_bytes: DECOMPRESSED_BYTES_MAX,
        timestamp_type,
        compression,
        ..LogConfig::default()
    };
    let Ok(Some(accepted)) = validate_as_leader(bytes, &config, NOW_MS) else {
        return;
    };
    let (count, size) = (accepted.count(), accepted.size());
    let (header, records) = accepted.stamp(1 << 40, 7);
    let stored: Bytes = [&header.encode(), records.as_ref()].concat().into();
    assert_eq!(stored.len() as u64, size);
    let mut batches = Batches::new(stored.clone());
    let batch = match batches.next() {
        Some(Ok(batch)) => batch,
        other => panic!("what a leader stores is not a batch: {other:?}"),
    };
    assert!(batches.next().is_none() && batches.rest().is_empty());
    batch
        .verify_checksum()
        .expect("what a leader stores has a right checksum");
    assert_eq!(batch.header().base_offset, 1 << 40);
    assert_eq!(batch.header().last_offset() + 1, (1 << 40) + count as i64);
    let mut records = 0;
    let visited = batch.visit_records(DECOMPRESSED_BYTES_MAX, |_, _| {
        records += 1;
        ControlFlow::Continue(())
    });
    visited.expect("what a leader has accepted is readable");
    assert_eq!(records, count);
}
