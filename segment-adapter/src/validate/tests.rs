//! What a leader refuses, sets and compresses anew: the vectors of validation.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::batch::tests::{G1, unhex};
use crate::{Attributes, BatchBuilder};

const NOW: i64 = 10_000_000;

fn config() -> LogConfig {
    LogConfig::default()
}

fn log_append_time() -> LogConfig {
    LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..config()
    }
}

fn batch(codec: Codec, timestamps: &[i64]) -> Bytes {
    timestamps
        .iter()
        .fold(BatchBuilder::new(codec), |builder, timestamp| {
            builder.record(*timestamp, Some(b"key"), Some(b"value"))
        })
        .build()
        .unwrap()
}

/// The batch with its header changed and the checksum put right.
fn patched(bytes: &Bytes, patch: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = *Batches::new(bytes.clone())
        .next()
        .unwrap()
        .unwrap()
        .header();
    patch(&mut header);
    let mut out = BytesMut::from(&bytes[..]);
    header.crc = header.checksum(&bytes[BATCH_HEADER_LEN..]);
    out[..BATCH_HEADER_LEN].copy_from_slice(&header.encode());
    out.freeze()
}

#[test]
fn no_setting_refuses_a_marker() {
    let marker = Marker {
        commit: true,
        coordinator_epoch: 1,
    };
    let marker = marker.build(7, 0, NOW).unwrap();
    let config = LogConfig {
        max_message_bytes: 0,
        compression: Some(Codec::Zstd),
        ..config()
    };
    let taken = validate(&marker, &config, NOW, Origin::Coordinator).unwrap();
    assert_eq!(taken.unwrap().codec(), Codec::None);
    let refused = validate(&marker, &config, NOW, Origin::Client);
    assert!(matches!(refused, Err(LogError::MessageTooLarge { .. })));
}

/// A batch whose records are these bytes after compression.
fn raw(codec: Codec, records: &[u8], count: i32) -> Bytes {
    packed(codec, &codec.compress(records).unwrap(), count)
}

/// A batch with these bytes behind its header.
fn packed(codec: Codec, records: &[u8], count: i32) -> Bytes {
    let mut header = *Batches::new(unhex(G1)).next().unwrap().unwrap().header();
    header.attributes = Attributes::new(codec as i16);
    header.batch_length = (49 + records.len()) as i32;
    header.records_count = count;
    header.last_offset_delta = count - 1;
    header.crc = header.checksum(records);
    Bytes::from([&header.encode()[..], records].concat())
}

fn stored(bytes: &Bytes, config: &LogConfig, base_offset: i64, leader_epoch: i32) -> Bytes {
    let valid = validate_as_leader(bytes, config, NOW).unwrap().unwrap();
    let (header, records) = valid.stamp(base_offset, leader_epoch);
    Bytes::from([&header.encode()[..], &records[..]].concat())
}

fn code(bytes: &Bytes, config: &LogConfig) -> i16 {
    validate_as_leader(bytes, config, NOW).unwrap_err().code()
}

#[test]
fn golden_append_changes_sixteen_bytes_and_copies_nothing() {
    let sent = unhex(G1);
    let valid = validate_as_leader(&sent, &config(), 2000).unwrap().unwrap();
    let (header, records) = valid.stamp(5, 3);
    assert_eq!(records.as_ptr(), sent[BATCH_HEADER_LEN..].as_ptr());
    let stored = [&header.encode()[..], &records[..]].concat();
    assert_eq!(stored[..16], unhex("00000000000000050000004200000003")[..]);
    assert_eq!(stored[16..], sent[16..]);
}

#[test]
fn golden_log_append_time_sets_bit_maximum_and_checksum() {
    let valid = validate_as_leader(&unhex(G1), &log_append_time(), 2000)
        .unwrap()
        .unwrap();
    let (header, _) = valid.stamp(5, 3);
    assert_eq!(header.attributes.get(), 0x0008);
    assert_eq!(header.max_timestamp, 0x7d0);
    assert_eq!(header.crc, 0x5584_6619);
    assert_eq!(header.base_timestamp, 1000);
}

#[test]
fn no_whole_batch_is_not_an_error() {
    let whole = unhex(G1);
    for len in 0..whole.len() {
        let cut = whole.slice(..len);
        assert!(validate_as_leader(&cut, &config(), NOW).unwrap().is_none());
    }
    let tail = Bytes::from([&whole[..], &whole[..40]].concat());
    let valid = validate_as_leader(&tail, &config(), NOW).unwrap().unwrap();
    assert_eq!(valid.size(), whole.len() as u64);
}

#[test]
fn vector_22_base_offset_of_a_producer_must_be_zero() {
    let one = patched(&unhex(G1), |header| header.base_offset = 1);
    assert_eq!(code(&one, &config()), 87);
}

#[test]
fn vector_23_one_batch_per_append() {
    let whole = unhex(G1);
    let two = Bytes::from([&whole[..], &whole[..]].concat());
    assert_eq!(code(&two, &config()), 87);
}

#[test]
fn vectors_24_and_25_counts_must_agree_with_each_other_and_the_records() {
    let config = config();
    let with = |count: i32, delta: i32| {
        patched(&batch(Codec::None, &[1, 2, 3]), |header| {
            header.records_count = count;
            header.last_offset_delta = delta;
        })
    };
    assert!(validate_as_leader(&with(3, 2), &config, NOW).is_ok());
    for (count, delta) in [
        (0, -1),
        (0, 0),
        (-1, -2),
        (3, 3),
        (2, 2),
        (i32::MIN, 0),
        (1, i32::MIN),
        (i32::MAX, i32::MAX - 1),
    ] {
        assert_eq!(code(&with(count, delta), &config), 87, "{count} {delta}");
    }
    for codec in Codec::ALL {
        let three = batch(codec, &[1, 2, 3]);
        for count in [2, 4] {
            let lie = patched(&three, |header| {
                header.records_count = count;
                header.last_offset_delta = count - 1;
            });
            assert_eq!(code(&lie, &config), 87, "{codec} {count}");
        }
    }
}

#[test]
fn vector_25_header_counts_must_match_the_headers() {
    // length, attributes, timestamp delta, offset delta, key, value, header count, headers.
    let records: [(&[u8], &str); 5] = [
        (&[18, 0, 0, 0, 1, 1, 6, 2, b'a', 1], "3 headers, 1 present"),
        (&[12, 0, 0, 0, 1, 1, 1], "negative header count"),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], "header key null"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "bytes left in the record"),
        (&[12, 0, 0, 0, 3, 1, 0], "key length -2"),
    ];
    for (record, what) in records {
        for codec in [Codec::None, Codec::Zstd] {
            assert_eq!(
                code(&raw(codec, record, 1), &config()),
                87,
                "{what} {codec}"
            );
        }
    }
}

#[test]
fn vector_26_offset_deltas_are_looked_at_in_compressed_batches_only() {
    let records = [12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 6, 1, 1, 0];
    for codec in Codec::ALL {
        let answer = validate_as_leader(&raw(codec, &records, 2), &config(), NOW);
        match codec {
            Codec::None => assert!(answer.is_ok()),
            _ => assert_eq!(answer.unwrap_err().code(), 87, "{codec}"),
        }
    }
}

#[test]
fn vectors_27_and_28_control_producer_and_transaction_bits() {
    let with = |bits: i16, producer: i64, sequence: i32| {
        patched(&batch(Codec::None, &[1]), |header| {
            header.attributes = Attributes::new(bits);
            header.producer_id = producer;
            header.base_sequence = sequence;
        })
    };
    let config = config();
    assert_eq!(code(&with(0x20, -1, -1), &config), 87, "control");
    assert_eq!(
        code(&with(0, 5, -2), &config),
        87,
        "producer without sequence"
    );
    assert!(validate_as_leader(&with(0, -1, -2), &config, NOW).is_ok());
    assert!(validate_as_leader(&with(0x10, 5, 0), &config, NOW).is_ok());
    assert_eq!(code(&with(0x05, -1, -1), &config), 76, "codec 5");
}

#[test]
fn vector_29_compacted_topics_need_keys_and_name_every_record_without() {
    let config = LogConfig {
        compact: true,
        ..config()
    };
    let bytes = BatchBuilder::new(Codec::Gzip)
        .record(1, None, Some(b"v"))
        .record(1, Some(b""), Some(b"v"))
        .record(1, None, Some(b"v"))
        .build()
        .unwrap();
    let error = validate_as_leader(&bytes, &config, NOW).unwrap_err();
    assert_eq!(error.code(), 87);
    let bad: Vec<u32> = error
        .record_errors()
        .iter()
        .map(|e| e.batch_index)
        .collect();
    assert_eq!(bad, [0, 2]);
}

#[test]
fn vector_30_timestamps_outside_the_limits_are_refused_record_by_record() {
    let config = LogConfig {
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 500,
        ..config()
    };
    let old = NOW - 1001;
    let error =
        validate_as_leader(&batch(Codec::None, &[old, old, old]), &config, NOW).unwrap_err();
    assert_eq!((error.code(), error.record_errors().len()), (32, 3));
    let edge = batch(Codec::Lz4, &[NOW - 1000, NOW + 500]);
    assert!(validate_as_leader(&edge, &config, NOW).is_ok());
    assert_eq!(code(&batch(Codec::Lz4, &[NOW + 501]), &config), 32);
    assert_eq!(code(&batch(Codec::None, &[i64::MIN]), &config), 32);
    assert_eq!(code(&batch(Codec::None, &[i64::MAX]), &config), 32);
    let any = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..config
    };
    assert!(validate_as_leader(&batch(Codec::None, &[old]), &any, NOW).is_ok());
}

#[test]
fn vector_31_a_bad_timestamp_decides_the_error_of_the_batch() {
    let config = LogConfig {
        compact: true,
        timestamp_before_max_ms: 10,
        ..config()
    };
    let bytes = BatchBuilder::new(Codec::None)
        .record(NOW, None, None)
        .record(NOW - 11, Some(b"k"), None)
        .build()
        .unwrap();
    let error = validate_as_leader(&bytes, &config, NOW).unwrap_err();
    assert_eq!((error.code(), error.record_errors().len()), (32, 2));
}

#[test]
fn vector_32_log_append_time_keeps_the_compressed_records() {
    for codec in Codec::ALL {
        let sent = batch(codec, &[1, 2, 3]);
        let config = LogConfig {
            compression: Some(codec),
            ..log_append_time()
        };
        let stored = stored(&sent, &config, 40, 9);
        assert_eq!(stored.len(), sent.len());
        assert_eq!(stored[BATCH_HEADER_LEN..], sent[BATCH_HEADER_LEN..]);
        let batch = Batches::new(stored).next().unwrap().unwrap();
        batch.verify_checksum().unwrap();
        let header = batch.header();
        assert_eq!(
            header.attributes.timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert_eq!(
            (header.max_timestamp, header.record_timestamp(1)),
            (NOW, NOW)
        );
    }
}

#[test]
fn vector_33_the_largest_timestamp_is_computed_again() {
    let sent = patched(&batch(Codec::Snappy, &[7, 99, 8]), |header| {
        header.max_timestamp = 12345;
    });
    let stored = stored(&sent, &config(), 1_234_567, 1);
    let batch = Batches::new(stored).next().unwrap().unwrap();
    batch.verify_checksum().unwrap();
    assert_eq!(batch.header().max_timestamp, 99);
    assert_eq!(batch.header().base_offset, 1_234_567);
    assert_eq!(batch.header().last_offset(), 1_234_569);
}

/// What a record is, as far as the checks look: timestamp delta, offset delta, whether it has a key.
fn heads(bytes: &Bytes) -> Vec<(i64, i32, bool)> {
    let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
    batch.verify_checksum().unwrap();
    let mut heads = Vec::new();
    let visited = batch.visit_records(1 << 20, |_, record| {
        heads.push((record.timestamp_delta, record.offset_delta, record.has_key));
        ControlFlow::Continue(())
    });
    visited.unwrap();
    heads
}

#[test]
fn vector_34_compressing_anew_keeps_producer_transaction_headers_and_null_keys() {
    let plain = BatchBuilder::new(Codec::None)
        .producer(1324, 10, 984)
        .record_with_headers(5, None, Some(b"v"), &[("name", Some(b"x")), ("null", None)])
        .record(9, Some(b"k"), None)
        .build()
        .unwrap();
    let plain = patched(&plain, |header| {
        header.attributes = Attributes::new(0x10);
    });
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let config = LogConfig {
            compression: Some(codec),
            ..config()
        };
        let packed = stored(&plain, &config, 7, 40);
        let header = *Batches::new(packed.clone())
            .next()
            .unwrap()
            .unwrap()
            .header();
        assert_eq!(
            (
                header.producer_id,
                header.producer_epoch,
                header.base_sequence
            ),
            (1324, 10, 984)
        );
        assert!(header.attributes.is_transactional());
        assert_eq!(header.attributes.codec().unwrap(), codec);
        assert_eq!((header.partition_leader_epoch, header.base_offset), (40, 7));
        assert_eq!(header.max_timestamp, 9);
        // And back: every byte of the records is what it was.
        let back = patched(&packed, |header| header.base_offset = 0);
        let config = LogConfig {
            compression: Some(Codec::None),
            ..config
        };
        let back = stored(&back, &config, 0, -1);
        assert_eq!(back, plain, "{codec}");
    }
}

#[test]
fn vector_35_only_another_codec_is_compressed_anew() {
    for sent_as in Codec::ALL {
        // A level that nobody uses by default, so that the bytes tell whether they were made again.
        let records = batch(Codec::None, &[3; 100]).slice(BATCH_HEADER_LEN..);
        let sent = match sent_as {
            Codec::Zstd => packed(sent_as, &zstd::encode_all(&records[..], 19).unwrap(), 100),
            _ => raw(sent_as, &records, 100),
        };
        for target in Codec::ALL {
            let config = LogConfig {
                compression: Some(target),
                ..config()
            };
            let stored = stored(&sent, &config, 0, 0);
            assert_eq!(heads(&stored), heads(&sent), "{sent_as} {target}");
            let same = stored[BATCH_HEADER_LEN..] == sent[BATCH_HEADER_LEN..];
            assert_eq!(same, sent_as == target, "{sent_as} {target}");
            let batch = Batches::new(stored.clone()).next().unwrap().unwrap();
            assert_eq!(batch.bytes().len(), stored.len());
        }
    }
}

#[test]
fn compressing_anew_makes_offset_deltas_dense() {
    // Offset deltas 0 and 3, which only an uncompressed batch may have.
    let records = [12, 0, 0, 0, 1, 1, 0, 12, 0, 2, 6, 1, 1, 0];
    let config = LogConfig {
        compression: Some(Codec::Lz4),
        ..config()
    };
    let stored = stored(&raw(Codec::None, &records, 2), &config, 0, 0);
    assert_eq!(heads(&stored), [(0, 0, false), (1, 1, false)]);
}

#[test]
fn a_batch_that_grows_past_the_limit_by_another_codec_is_too_large() {
    let sent = BatchBuilder::new(Codec::Zstd)
        .record(1, Some(b"k"), Some(&[0; 5000]))
        .build()
        .unwrap();
    let uncompressed = |max_message_bytes| LogConfig {
        compression: Some(Codec::None),
        max_message_bytes,
        ..config()
    };
    let stored = stored(&sent, &uncompressed(1 << 20), 0, 0);
    let len = stored.len() as u64;
    assert!(validate_as_leader(&sent, &uncompressed(len), NOW).is_ok());
    assert_eq!(code(&sent, &uncompressed(len - 1)), 10);
}

#[test]
fn vector_36_no_timestamp_is_allowed() {
    let config = LogConfig {
        timestamp_before_max_ms: 1,
        ..config()
    };
    let valid = validate_as_leader(&batch(Codec::None, &[-1]), &config, NOW).unwrap();
    assert_eq!(valid.unwrap().max_timestamp(), -1);
}

#[test]
fn a_producer_cannot_claim_log_append_time_whatever_the_topic_keeps() {
    for timestamp in [NOW, -1] {
        let sent = patched(&batch(Codec::None, &[timestamp]), |header| {
            header.attributes = Attributes::new(0x08);
        });
        assert_eq!(code(&sent, &config()), 32);
        assert_eq!(code(&sent, &log_append_time()), 32);
    }
}

#[test]
fn a_batch_of_a_transaction_has_a_producer() {
    let batch = batch(Codec::None, &[NOW]);
    let sent = patched(&batch, |header| header.attributes = Attributes::new(0x10));
    for origin in [Origin::Client, Origin::Coordinator] {
        let refused = validate(&sent, &config(), NOW, origin).unwrap_err();
        assert_eq!(refused.code(), 87);
        assert!(validate(&batch, &config(), NOW, origin).is_ok());
    }
}

#[test]
fn vector_82_a_batch_larger_than_the_topic_allows_is_refused() {
    let sent = batch(Codec::None, &[1]);
    let config = LogConfig {
        max_message_bytes: sent.len() as u64 - 1,
        ..config()
    };
    assert_eq!(code(&sent, &config), 10);
}

#[test]
fn a_decompression_bomb_is_too_large_whatever_the_codec() {
    let limit = LogConfig {
        decompressed_bytes_max: 2 << 20,
        ..config()
    };
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = BatchBuilder::new(codec)
            .record(1, None, Some(&vec![0; 4 << 20]))
            .build()
            .unwrap();
        assert!(bomb.len() < 1 << 20, "{codec} {}", bomb.len());
        assert_eq!(code(&bomb, &limit), 10, "{codec}");
        assert!(validate_as_leader(&bomb, &config(), NOW).is_ok(), "{codec}");
        // What may be sent uncompressed may be sent compressed.
        let large = LogConfig {
            max_message_bytes: i32::MAX as u64,
            ..limit.clone()
        };
        large.validate().unwrap();
        assert!(validate_as_leader(&bomb, &large, NOW).is_ok(), "{codec}");
    }
}

#[test]
fn records_that_do_not_decompress_are_told_apart_from_damage() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let nonsense = patched(&raw(Codec::None, b"nonsense", 1), |header| {
            header.attributes = Attributes::new(codec as i16);
        });
        assert_eq!(code(&nonsense, &config()), -1, "{codec}");
    }
}

#[test]
fn snappy_without_framing_is_accepted_as_librdkafka_sends_it() {
    let plain = batch(Codec::None, &[1, 2, 3]);
    let records = snap::raw::Encoder::new()
        .compress_vec(&plain[BATCH_HEADER_LEN..])
        .unwrap();
    let sent = packed(Codec::Snappy, &records, 3);
    let valid = validate_as_leader(&sent, &config(), NOW).unwrap().unwrap();
    assert_eq!((valid.count(), valid.codec()), (3, Codec::Snappy));
}

#[test]
fn record_errors_are_listed_up_to_a_limit_and_counted_in_full() {
    let timestamps = vec![1; RECORD_ERRORS_MAX + 10];
    let config = LogConfig {
        timestamp_before_max_ms: 1,
        ..config()
    };
    let error = validate_as_leader(&batch(Codec::Zstd, &timestamps), &config, NOW).unwrap_err();
    assert_eq!(error.record_errors().len(), RECORD_ERRORS_MAX);
    assert!(error.to_string().contains("4106 records"), "{error}");
}

/// Bytes that look like records often enough to get past the first checks.
fn almost_records() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0..16u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    #[test]
    fn no_records_make_the_checks_panic_or_pass_without_being_whole(
        codec in 0..5usize,
        records in almost_records(),
        count in prop_oneof![1..20i32, any::<i32>()],
        compress in any::<bool>(),
    ) {
        let codec = Codec::ALL[codec];
        let count = count.max(1);
        let sent = if compress {
            raw(codec, &records, count)
        } else {
            packed(codec, &records, count)
        };
        if let Ok(valid) = validate_as_leader(&sent, &log_append_time(), NOW) {
            let valid = valid.unwrap();
            prop_assert_eq!(valid.count(), count as u64);
            // Seven bytes are the least a record takes.
            prop_assert!(!compress || records.len() as u64 >= 7 * valid.count());
        }
    }
}
