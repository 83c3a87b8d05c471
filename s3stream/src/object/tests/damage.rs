//! Damage: flipped bits, missing ends, and rows that a right checksum does not make right.

use super::*;

/// Where the parts of `small()` in blocks of 100 bytes are; `golden_bytes` spells them out.
const INDEX: usize = 178;
const BLOCK_TABLE: usize = INDEX + 3 * 40;
const FOOTER: usize = BLOCK_TABLE + 3 * 16;

fn object() -> Vec<u8> {
    let object = joined(&build(&small(), 100)).to_vec();
    assert_eq!(object.len(), FOOTER + 88);
    object
}

/// Makes the checksums of index and footer right again.
fn reseal(object: &mut [u8]) {
    let crc = crc32c::crc32c(&object[INDEX..FOOTER]);
    object[FOOTER + 64..FOOTER + 68].copy_from_slice(&crc.to_be_bytes());
    let crc = crc32c::crc32c(&object[FOOTER..FOOTER + 84]);
    object[FOOTER + 84..].copy_from_slice(&crc.to_be_bytes());
}

fn put(object: &mut [u8], at: usize, value: u64) {
    object[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// `(offset in the run table, offset in the block table)` of a field.
fn run(number: usize, field: usize) -> usize {
    INDEX + number * 40 + field * 8
}

fn block(number: usize, field: usize) -> usize {
    BLOCK_TABLE + number * 16 + field * 8
}

#[test]
fn every_flipped_bit_is_an_error_and_never_other_data() {
    let sound = object();
    for bit in 0..sound.len() * 8 {
        let mut object = sound.clone();
        object[bit / 8] ^= 1 << (bit % 8);
        let error = read_all(&object.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}");
    }
}

#[test]
fn every_missing_or_added_end_is_an_error() {
    let sound = object();
    for len in 0..sound.len() {
        // As an object that the metadata knows to be longer, and as one whose length nobody questions.
        let short = &sound[..len];
        assert!(read_all(&Bytes::copy_from_slice(short)).is_err(), "{len}");
        let step = ObjectIndex::decode_tail(short, sound.len() as u64, CLUSTER, OBJECT);
        assert!(!matches!(step, Ok(TailStep::Index(_))), "{len}");
    }
    let mut long = sound;
    long.push(0);
    assert_eq!(
        read_all(&long.into()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn a_block_that_is_not_the_one_asked_for_is_corrupt() {
    let object: Bytes = object().into();
    let index = index_of(&object).unwrap();
    let block = index.all_blocks().next().unwrap();
    let bytes = object.slice(..block.position.end as usize);
    assert!(decode_block(bytes.clone(), &block).is_ok());
    let other = |change: fn(&mut BlockRef)| {
        let mut other = block.clone();
        change(&mut other);
        decode_block(bytes.clone(), &other).unwrap_err()
    };
    let errors = [
        other(|block| block.stream = StreamId::new(4)),
        other(|block| block.epoch = StreamEpoch::new(4)),
        other(|block| block.offsets.start -= 1),
        other(|block| block.offsets.start += 1),
        other(|block| block.offsets.end -= 1),
        other(|block| block.offsets.end += 1),
        other(|block| block.position.end += 1),
        other(|block| block.position.start = u64::MAX),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("position"), "{error}");
    }
}

#[test]
fn a_block_without_records_or_with_half_a_record_is_corrupt_whatever_its_checksum() {
    let expected = |len: u64| BlockRef {
        position: 0..len,
        stream: StreamId::new(3),
        epoch: StreamEpoch::new(1),
        offsets: 10..12,
    };
    let record = record(3, 1, 10..12, b"ab");
    let mut whole = record.header().encode().to_vec();
    whole.extend_from_slice(&record.payload);
    for len in 0..whole.len() {
        let mut bytes = whole[..len].to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        let expected = expected(bytes.len() as u64);
        let error = decode_block(bytes.into(), &expected).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}");
    }
    for len in 0..4 {
        let bytes = Bytes::copy_from_slice(&whole[..len]);
        assert!(decode_block(bytes, &expected(len as u64)).is_err());
    }
}

#[test]
fn rows_that_contradict_each_other_are_corrupt_whatever_their_checksum() {
    // Runs: stream 3 epoch 1 10..13 block 0, stream 3 epoch 2 13..20 block 1, stream 8 epoch 1 0..1 block 2.
    let forged: &[(&str, usize, u64)] = &[
        ("first block not at 0", block(0, 0), 1),
        ("second block inside the first", block(1, 0), 43),
        ("second block at the first", block(1, 0), 0),
        ("third block before the second", block(2, 0), 50),
        ("third block past the index", block(2, 0), INDEX as u64),
        (
            "third block with no room for a record",
            block(2, 0),
            INDEX as u64 - 43,
        ),
        ("position that would wrap", block(2, 0), u64::MAX),
        ("block that starts before its run", block(1, 1), 12),
        ("block that starts after its run", block(1, 1), 14),
        ("run that is empty", run(0, 2), 13),
        ("run that is reversed", run(1, 3), 2),
        ("runs that overlap", run(1, 2), 12),
        ("runs whose epochs go down", run(1, 1), 0),
        ("runs that are one", run(1, 1), 1),
        ("streams that go down", run(2, 0), 2),
        ("first run without the first block", run(0, 4), 1),
        ("two runs with one block", run(1, 4), 0),
        ("run with a block past the table", run(2, 4), 3),
        ("run with a block far past the table", run(2, 4), u64::MAX),
        ("index that is elsewhere", FOOTER + 40, 177),
        ("one run fewer", FOOTER + 48, 2),
        ("run count that would wrap", FOOTER + 48, u64::MAX / 40 + 1),
        (
            "block count that would wrap",
            FOOTER + 56,
            u64::MAX / 16 + 1,
        ),
        ("many runs", FOOTER + 48, 1 << 40),
        ("another length", FOOTER + 32, 433),
    ];
    for (what, at, value) in forged {
        let mut object = object();
        put(&mut object, *at, *value);
        reseal(&mut object);
        let error = index_of(&object).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.to_string().contains("reading object: 42"), "{error}");
    }
}

#[test]
fn an_object_without_runs_is_corrupt() {
    let mut object = object()[FOOTER..].to_vec();
    put(&mut object, 32, 88);
    for field in [40, 48, 56] {
        put(&mut object, field, 0);
    }
    object[64..68].copy_from_slice(&[0; 4]);
    let crc = crc32c::crc32c(&object[..84]);
    object[84..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(index_of(&object).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn two_streams_in_a_stream_object_and_unknown_kinds_and_flags_are_corrupt() {
    for (at, value) in [(68, 2), (68, 0), (68, 3), (69, 1), (70, 1), (71, 1)] {
        let mut object = object();
        object[FOOTER + at] = value;
        reseal(&mut object);
        let error = index_of(&object).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at} {value}: {error}");
    }
}

#[test]
fn an_object_of_another_cluster_or_id_is_corrupt_and_both_are_named() {
    let object = object();
    let len = object.len() as u64;
    let read = |cluster, object_id| {
        let error = ObjectIndex::decode_tail(&object, len, cluster, object_id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        error.to_string()
    };
    let text = read(ClusterId::new(5), OBJECT);
    assert!(text.contains(&CLUSTER.to_string()), "{text}");
    assert!(text.contains(&ClusterId::new(5).to_string()), "{text}");
    let text = read(CLUSTER, ObjectId::new(43));
    assert!(text.contains("found: 42, expected: 43"), "{text}");
}

#[test]
fn a_newer_format_asks_for_newer_software_and_is_not_taken_for_damage() {
    let mut newer = object();
    newer[FOOTER + 79] = 2;
    reseal(&mut newer);
    let error = index_of(&newer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("newer"), "{error}");

    // A newer footer may be longer or shorter; only its last 16 bytes are fixed.
    for len in [16_u32, 40, 200, 300] {
        let mut footer = vec![0xFF; len as usize - 16];
        footer.extend_from_slice(&len.to_be_bytes());
        footer.extend_from_slice(&2_u32.to_be_bytes());
        footer.extend_from_slice(b"S3SO");
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_be_bytes());
        let mut newer = vec![0; 200];
        newer.extend_from_slice(&footer);
        let error = index_of(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{len}: {error}");
        let object_len = newer.len() as u64;
        let tail = &newer[newer.len() - 16..];
        match ObjectIndex::decode_tail(tail, object_len, CLUSTER, OBJECT) {
            Ok(TailStep::NeedMore { from }) => assert_eq!(from, object_len - u64::from(len)),
            Ok(TailStep::Index(_)) => panic!("a newer object was read"),
            Err(error) => assert_eq!((error.kind(), len), (ErrorKind::Invalid, 16)),
        }
    }

    let mut older = object();
    older[FOOTER + 79] = 0;
    reseal(&mut older);
    assert_eq!(index_of(&older).unwrap_err().kind(), ErrorKind::Corrupt);
}
