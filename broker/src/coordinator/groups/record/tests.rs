//! Records as Kafka writes them, byte by byte, and bytes that nobody writes.

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Bytes {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect::<Vec<u8>>()
        .into()
}

fn stored(key: &str, value: Option<&str>) -> Stored {
    Stored {
        key: bytes(key),
        value: value.map(bytes),
    }
}

/// Group "g", topic "t", partition 5.
const OFFSET_KEY: &str = "0001 0001 67 0001 74 00000005";
const GROUP_KEY: &str = "0002 0001 67";

fn offset(value: Option<Committed>) -> Record {
    Record::Offset {
        group: "g".into(),
        topic: "t".into(),
        partition: 5,
        value,
    }
}

fn committed() -> Committed {
    Committed {
        offset: 10,
        leader_epoch: 2,
        metadata: "m".into(),
        committed_ms: 1000,
        expires_ms: None,
    }
}

fn group() -> GroupValue {
    GroupValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("a".into()),
        since_ms: 1000,
        members: vec![MemberValue {
            id: "a".into(),
            instance: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_ms: 300,
            session_ms: 100,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

fn in_group(value: GroupValue) -> Record {
    Record::Group {
        group: "g".into(),
        value: Some(value),
    }
}

#[test]
fn golden_offset() {
    let golden = stored(
        OFFSET_KEY,
        Some("0003 000000000000000a 00000002 0001 6d 00000000000003e8"),
    );
    let record = offset(Some(committed()));
    assert_eq!(record.encode(), Ok(golden.clone()));
    assert_eq!(Record::decode(&golden), Ok(Some(record)));
    let deleted = stored(OFFSET_KEY, None);
    assert_eq!(offset(None).encode(), Ok(deleted.clone()));
    assert_eq!(Record::decode(&deleted), Ok(Some(offset(None))));
}

#[test]
fn golden_offset_with_a_time_of_its_own() {
    let value = Committed {
        leader_epoch: -1,
        expires_ms: Some(2000),
        ..committed()
    };
    let golden = "0001 000000000000000a 0001 6d 00000000000003e8 00000000000007d0";
    let golden = stored(OFFSET_KEY, Some(golden));
    assert_eq!(offset(Some(value.clone())).encode(), Ok(golden.clone()));
    assert_eq!(Record::decode(&golden), Ok(Some(offset(Some(value)))));
}

#[test]
fn offsets_of_all_versions_are_read() {
    let without_epoch = Committed {
        leader_epoch: -1,
        ..committed()
    };
    for (value, expected) in [
        (
            "0000 000000000000000a 0001 6d 00000000000003e8",
            without_epoch.clone(),
        ),
        (
            "0001 000000000000000a 0001 6d 00000000000003e8 ffffffffffffffff",
            without_epoch.clone(),
        ),
        (
            "0002 000000000000000a 0001 6d 00000000000003e8",
            without_epoch,
        ),
        // Compact text, and a tagged field with the topic's id.
        (
            "0004 000000000000000a 00000002 02 6d 00000000000003e8 01 00 10 00000000000000000000000000000007",
            committed(),
        ),
    ] {
        let read = Record::decode(&stored(OFFSET_KEY, Some(value)));
        assert_eq!(read, Ok(Some(offset(Some(expected)))), "{value}");
    }
    // The key of the first version is the same.
    let old = stored("0000 0001 67 0001 74 00000005", None);
    assert_eq!(Record::decode(&old), Ok(Some(offset(None))));
}

#[test]
fn golden_group() {
    let golden = "0003 0008 636f6e73756d6572 00000003 0005 72616e6765 0001 61 00000000000003e8
        00000001 0001 61 0001 69 0001 63 0002 2f68 0000012c 00000064
        00000002 0102 00000001 03";
    let golden = stored(GROUP_KEY, Some(golden));
    let record = in_group(group());
    assert_eq!(record.encode(), Ok(golden.clone()));
    assert_eq!(Record::decode(&golden), Ok(Some(record)));
    let deleted = Record::Group {
        group: "g".into(),
        value: None,
    };
    assert_eq!(deleted.encode(), Ok(stored(GROUP_KEY, None)));
}

#[test]
fn groups_of_all_versions_are_read() {
    let head = "0008 636f6e73756d6572 00000003 0005 72616e6765 0001 61";
    let tail = "00000002 0102 00000001 03";
    let change = |edit: fn(&mut GroupValue)| {
        let mut value = group();
        edit(&mut value);
        value
    };
    for (value, expected) in [
        (
            format!("0000 {head} 00000001 0001 61 0001 63 0002 2f68 00000064 {tail}"),
            change(|group| {
                group.since_ms = -1;
                group.members[0].instance = None;
                group.members[0].rebalance_ms = 100;
            }),
        ),
        (
            format!("0001 {head} 00000001 0001 61 0001 63 0002 2f68 0000012c 00000064 {tail}"),
            change(|group| {
                group.since_ms = -1;
                group.members[0].instance = None;
            }),
        ),
        (
            format!(
                "0002 {head} 00000000000003e8 00000001 0001 61 0001 63 0002 2f68 0000012c 00000064 {tail}"
            ),
            change(|group| group.members[0].instance = None),
        ),
        (
            "0004 09 636f6e73756d6572 00000003 06 72616e6765 02 61 00000000000003e8
             02 02 61 02 69 02 63 03 2f68 0000012c 00000064 03 0102 02 03 00 00"
                .to_owned(),
            group(),
        ),
    ] {
        let read = Record::decode(&stored(GROUP_KEY, Some(&value)));
        assert_eq!(read, Ok(Some(in_group(expected))), "{value}");
    }
}

#[test]
fn records_of_other_kinds_are_passed_over() {
    // What Kafka once wrote of consumer groups; groups of shares, of streams.
    for kind in [4i16, 10, 15, 17, 23] {
        let stored = Stored {
            key: kind.to_be_bytes().to_vec().into(),
            value: None,
        };
        assert_eq!(Record::decode(&stored), Ok(None), "{kind}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_panic() {
    for (key, value) in [
        ("", None),
        ("00", None),
        ("0001 0001", None),
        ("0001 ffff 0001 74 00000005", None),
        ("0002 0001 ff", None),
        (OFFSET_KEY, Some("0005")),
        (OFFSET_KEY, Some("ffff")),
        (OFFSET_KEY, Some("0003 00")),
        // 2^31 - 1 members in no bytes.
        (GROUP_KEY, Some("0000 0000 00000001 ffff ffff 7fffffff")),
    ] {
        let stored = stored(key, value);
        assert!(Record::decode(&stored).is_err(), "{key} {value:?}");
    }
    let too_long = Record::Group {
        group: "g".repeat(1 << 15),
        value: None,
    };
    assert!(too_long.encode().is_err());
}

#[test]
fn the_topics_of_a_subscription_are_read_in_every_version() {
    // Version 3: topics, user data, owned partitions, generation, rack.
    let known = bytes("0003 00000002 0001 61 0001 62 ffffffff 00000000 ffffffff ffff");
    assert_eq!(
        subscribed(&known),
        Some(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(subscribed(&bytes("0000 00000000 ffffffff")), Some(vec![]));
    assert_eq!(subscribed(&bytes("0000 7fffffff")), None);
    assert_eq!(subscribed(&Bytes::new()), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 0u8..4,
        key in proptest::collection::vec(any::<u8>(), 0..40),
        version in 0u8..6,
        value in proptest::collection::vec(prop_oneof![2 => 0u8..4, 1 => any::<u8>()], 0..120),
    ) {
        let key = [&[0, kind], &key[..]].concat();
        let value = [&[0, version], &value[..]].concat();
        let stored = Stored { key: key.into(), value: Some(value.into()) };
        if let Ok(Some(record)) = Record::decode(&stored) {
            // What is read is written, and read again as the same.
            let written = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&written).unwrap(), Some(record));
        }
    }
}
