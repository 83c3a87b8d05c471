//! The bytes of every kind of record as Kafka writes them, and damaged ones.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Bytes {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let bytes = (0..text.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn decode(stored: &Stored) -> Result<Option<Record>, StoredError> {
    let mut key = Reader::new("key", stored.key.clone(), false);
    let kind = key.int16()?;
    Record::decode(kind, &mut key, stored.value.clone())
}

fn partitions(number: u128, of: &[i32]) -> Partitions {
    Partitions::from([(Uuid::from_u128(number), of.iter().copied().collect())])
}

fn samples() -> Vec<(Change, &'static str, &'static str)> {
    let topic = "00000000000000000000000000001234";
    let _ = topic;
    vec![
        (
            Change::Epoch(Some(Epoch {
                epoch: 10,
                fingerprint: 0,
            })),
            "0003 0001 67",
            "0000 0000000a 00",
        ),
        (
            Change::Epoch(Some(Epoch {
                epoch: 10,
                fingerprint: 0x1122,
            })),
            "0003 0001 67",
            "0000 0000000a 01 00 08 0000000000001122",
        ),
        (
            Change::Member(
                "m".into(),
                Some(Subscription {
                    instance: None,
                    rack: Some("r".into()),
                    client_id: "c".into(),
                    client_host: "/h".into(),
                    topics: ["a".to_owned(), "b".to_owned()].into(),
                    regex: Some("x.*".into()),
                    rebalance_ms: 1000,
                    assignor: Some("range".into()),
                }),
            ),
            "0005 0001 67 0001 6d",
            "0000 00 02 72 02 63 03 2f68 03 02 61 02 62 04 782e2a 000003e8 06 72616e6765 00",
        ),
        (
            Change::TargetEpoch(Some(11)),
            "0006 0001 67",
            "0000 0000000b 00",
        ),
        (
            Change::Target("m".into(), Some(partitions(0x1234, &[1, 2]))),
            "0007 0001 67 0001 6d",
            "0000 02 00000000000000000000000000001234 03 00000001 00000002 00 00",
        ),
        (
            Change::Current(
                "m".into(),
                Some(Current {
                    epoch: 5,
                    previous_epoch: 4,
                    state: MemberState::Unrevoked,
                    assigned: partitions(0x1234, &[1]),
                    revoking: partitions(0x1234, &[2]),
                }),
            ),
            "0008 0001 67 0001 6d",
            "0000 00000005 00000004 01
             02 00000000000000000000000000001234 02 00000001 00
             02 00000000000000000000000000001234 02 00000002 00 00",
        ),
        (
            Change::Regex(
                "x.*".into(),
                Some(Resolved {
                    topics: ["xa".to_owned()].into(),
                    version: 3,
                    resolved_ms: 4,
                }),
            ),
            "0010 0001 67 0003 782e2a",
            "0000 02 03 7861 0000000000000003 0000000000000004 00",
        ),
    ]
}

/// As the schemas of Kafka 4.1 say, written out by hand.
#[test]
fn golden_bytes_of_every_kind() {
    for (change, key, value) in samples() {
        let record = Record {
            group: "g".into(),
            change,
        };
        let stored = Stored {
            key: hex(key),
            value: Some(hex(value)),
        };
        assert_eq!(record.encode().unwrap(), stored, "{record:?}");
        assert_eq!(decode(&stored).unwrap(), Some(record));
    }
}

#[test]
fn a_record_without_a_value_deletes() {
    for change in [
        Change::Epoch(None),
        Change::Member("m".into(), None),
        Change::TargetEpoch(None),
        Change::Target("m".into(), None),
        Change::Current("m".into(), None),
        Change::Regex("x".into(), None),
    ] {
        let record = Record {
            group: "g".into(),
            change,
        };
        let stored = record.encode().unwrap();
        assert_eq!(stored.value, None);
        assert_eq!(decode(&stored).unwrap(), Some(record));
    }
}

/// Kafka 4.2 and later write tagged fields more; before 4.1 it wrote the topics of a group.
#[test]
fn what_others_write_more_is_passed_over() {
    let stored = |key: &str, value: &str| Stored {
        key: hex(key),
        value: Some(hex(value)),
    };
    let with_time = stored(
        "0003 0001 67",
        "0000 0000000a 02 00 08 0000000000001122 01 08 0000000000000001",
    );
    let epoch = Epoch {
        epoch: 10,
        fingerprint: 0x1122,
    };
    let change = Change::Epoch(Some(epoch));
    assert_eq!(decode(&with_time).unwrap().unwrap().change, change);
    let with_epochs = stored(
        "0008 0001 67 0001 6d",
        "0000 00000005 00000004 00
         02 00000000000000000000000000001234 02 00000001 01 00 05 02 00000005 01 00",
    );
    let Change::Current(_, Some(current)) = decode(&with_epochs).unwrap().unwrap().change else {
        panic!("another kind");
    };
    assert_eq!(current.assigned, partitions(0x1234, &[1]));
    assert_eq!(decode(&stored("0004 0001 67", "0000")).unwrap(), None);
}

#[test]
fn what_is_damaged_is_a_typed_error() {
    for (change, _, value) in samples() {
        let record = Record {
            group: "g".into(),
            change,
        };
        let whole = record.encode().unwrap();
        let bytes = hex(value);
        // The last byte says that there are no tagged fields; without it nothing is missing that is read.
        for len in 0..bytes.len() - 1 {
            let cut = Stored {
                key: whole.key.clone(),
                value: Some(bytes.slice(..len)),
            };
            assert!(decode(&cut).is_err(), "{record:?} cut at {len}");
        }
        let mut newer = bytes.to_vec();
        newer[1] = 1;
        let newer = Stored {
            key: whole.key.clone(),
            value: Some(newer.into()),
        };
        assert!(decode(&newer).is_err(), "{record:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(
        kind in 0i16..18,
        value in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut key = hex("0000 0001 67 0001 6d").to_vec();
        key[..2].copy_from_slice(&kind.to_be_bytes());
        let mut bytes = vec![0, 0];
        bytes.extend(value);
        let stored = Stored { key: key.into(), value: Some(bytes.into()) };
        if let Ok(Some(record)) = decode(&stored) {
            prop_assert_eq!(decode(&record.encode().unwrap()).unwrap(), Some(record));
        }
    }
}
