//! Golden bytes of both versions, and what is not understood.

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn going_on() -> Transaction {
    Transaction {
        producer_id: 0x1234,
        epoch: 5,
        previous: None,
        next: None,
        timeout_ms: 60_000,
        status: Status::Ongoing,
        partitions: Partitions::from([
            ("in".to_owned(), [0, 3].into()),
            ("out".to_owned(), [1].into()),
        ]),
        updated_ms: 1_001,
        started_ms: 1_000,
        version: TransactionVersion::V0,
    }
}

#[test]
fn golden_key() {
    let golden = bytes("0000 0004 74786e31");
    assert_eq!(encode_key("txn1").unwrap(), golden);
    assert_eq!(decode_key(&golden).as_deref(), Ok("txn1"));
    assert_eq!(
        decode_key(&bytes("0001 0000")),
        Err(RecordError::Version(1))
    );
    assert_eq!(decode_key(&bytes("0000 ffff")), Err(RecordError::Short));
    assert_eq!(
        decode_key(&bytes("0000 0000 00")),
        Err(RecordError::Long(1))
    );
    assert_eq!(decode_key(&bytes("0000 0001 ff")), Err(RecordError::Text));
}

/// A key that is cut may end within a letter, or be that of another id.
#[test]
fn an_id_that_a_key_cannot_hold_is_no_key() {
    let longest = "a".repeat(i16::MAX as usize);
    let key = encode_key(&longest).unwrap();
    assert_eq!(decode_key(&key).as_deref(), Ok(longest.as_str()));
    let longer = format!("{}é", &longest[1..]);
    assert_eq!(encode_key(&longer), Err(RecordError::Id(32_768)));
}

#[test]
fn golden_value_of_version_1() {
    let golden = bytes(
        "0001 0000000000001234 0005 0000ea60 01 \
         03 03 696e 03 00000000 00000003 00 04 6f7574 02 00000001 00 \
         00000000000003e9 00000000000003e8 00",
    );
    assert_eq!(encode_value(&going_on()), golden);
    assert_eq!(decode_value(&golden), Ok(going_on()));
}

#[test]
fn golden_value_with_tagged_fields() {
    let txn = Transaction {
        epoch: i16::MAX,
        previous: Some(0x1234),
        next: Some(0x1235),
        status: Status::PrepareAbort,
        partitions: Partitions::new(),
        version: TransactionVersion::V2,
        ..going_on()
    };
    let golden = bytes(
        "0001 0000000000001234 7fff 0000ea60 03 01 00000000000003e9 00000000000003e8 \
         03 00 08 0000000000001234 01 08 0000000000001235 02 02 0002",
    );
    assert_eq!(encode_value(&txn), golden);
    assert_eq!(decode_value(&golden), Ok(txn));
    // Tag 3 is of a later Kafka, and the rest of them may come in a record of it.
    let later = bytes(
        "0001 0000000000001234 7fff 0000ea60 03 01 00000000000003e9 00000000000003e8 01 03 02 0007",
    );
    assert_eq!(decode_value(&later).map(|txn| txn.epoch), Ok(i16::MAX));
}

#[test]
fn golden_value_of_an_id_without_a_transaction() {
    let golden =
        bytes("0001 0000000000000007 0000 00000001 00 00 0000000000000002 ffffffffffffffff 00");
    let txn = Transaction::new(7, 1, 2);
    assert_eq!(encode_value(&txn), golden);
    assert_eq!(decode_value(&golden), Ok(txn));
}

#[test]
fn golden_value_of_version_0_is_read() {
    let golden = bytes(
        "0000 0000000000001234 0005 0000ea60 01 \
         00000002 0002 696e 00000002 00000000 00000003 0003 6f7574 00000001 00000001 \
         00000000000003e9 00000000000003e8",
    );
    assert_eq!(decode_value(&golden), Ok(going_on()));
    let empty =
        bytes("0000 0000000000000007 0000 00000001 00 ffffffff 0000000000000002 ffffffffffffffff");
    assert_eq!(decode_value(&empty), Ok(Transaction::new(7, 1, 2)));
}

#[test]
fn what_is_not_understood_is_refused() {
    let golden = encode_value(&going_on());
    for len in 0..golden.len() {
        assert_eq!(
            decode_value(&golden[..len]),
            Err(RecordError::Short),
            "{len}"
        );
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = golden.to_vec();
        bytes[at] = to;
        decode_value(&bytes)
    };
    assert_eq!(changed(1, 2), Err(RecordError::Version(2)));
    let field = |field, value| Err(RecordError::Field { field, value });
    assert_eq!(changed(16, 7), field("status", 7));
    assert_eq!(changed(10, 0x80), field("epoch", i64::from(i16::MIN) + 5));
    // A count of topics, and one of partitions, that nobody could allocate for.
    assert_eq!(changed(17, 0x7f), Err(RecordError::Short));
    assert_eq!(changed(21, 0x7f), Err(RecordError::Short));
    let mut long = golden.to_vec();
    long.push(0);
    assert_eq!(decode_value(&long), Err(RecordError::Long(1)));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80), version in 0i16..3) {
        let mut all = version.to_be_bytes().to_vec();
        all.extend(value);
        if let Ok(txn) = decode_value(&all) {
            prop_assert_eq!(decode_value(&encode_value(&txn)).map(|again| again.producer_id), Ok(txn.producer_id));
        }
        let _ = decode_key(&all);
    }
}
