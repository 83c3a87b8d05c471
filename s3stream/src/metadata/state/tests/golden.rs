//! Bytes of entries and snapshots, held for ever: a change here is a change of the format, and needs a new version beside the old one.

use std::fmt::Write;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    ErrorKind,
    metadata::{
        answer::{Committed, DebtView, OpenedGroup, RangeOutcome},
        command::{CloseGroup, Expect, KvPut, TrimStream},
        wire::{self, Wire, Writer},
    },
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = Writer::default();
    value.put(&mut out);
    out.into_vec()
}

/// Encoded, compared, decoded, compared; every prefix and every longer form is refused.
fn holds<T: Wire + PartialEq + std::fmt::Debug>(value: &T, golden: &str) {
    let bytes = encode(value);
    assert_eq!(hex(&bytes), golden, "{value:?}");
    assert_eq!(wire::decode::<T>(&bytes).as_ref(), Ok(value));
    for len in 0..bytes.len() {
        assert!(
            wire::decode::<T>(&bytes[..len]).is_err(),
            "{value:?} cut to {len}"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(wire::decode::<T>(&longer).is_err());
}

fn commands() -> Vec<(Command, &'static str)> {
    let group = GroupId::new(3);
    let epoch = StreamEpoch::new(2);
    let stream = StreamId::new(300);
    let node_epoch = NodeEpoch::new(7);
    let object = ObjectId::new(200);
    let log = LogUuid::new(0xabcd);
    vec![
        (
            Command::Started(Started {
                log,
                start: Position::new(4096),
                ends: vec![(node_epoch, Position::new(4096))],
                streams: vec![(stream, 9)],
            }),
            "010000000000000000000000000000abcd80200107802001ac0209",
        ),
        (
            Command::CreateGroup(CreateGroup {
                streams: 2,
                tags: vec![("a".to_owned(), "b".to_owned())],
                open: true,
            }),
            "0202010161016201",
        ),
        (
            Command::Open {
                groups: vec![group],
            },
            "030103",
        ),
        (
            Command::Close {
                groups: vec![CloseGroup {
                    group,
                    epoch,
                    ends: vec![(stream, 9)],
                }],
            },
            "0401030201ac0209",
        ),
        (
            Command::Trim {
                streams: vec![TrimStream {
                    stream,
                    epoch,
                    start: 8,
                }],
            },
            "0501ac020208",
        ),
        (
            Command::Destroy {
                groups: vec![(group, epoch)],
            },
            "06010302",
        ),
        (Command::Prepare { count: 64 }, "0740"),
        (
            Command::Commit(Commit {
                object,
                kind: ObjectKind::StreamSet,
                size: 1 << 20,
                ranges: vec![range(stream, 2, 0..9), range(StreamId::new(301), 1, 5..6)],
                log,
                trim: vec![log_trim(node_epoch, 1, 2)],
            }),
            "08c801018080400102ac02020009010105010000000000000000000000000000abcd0107010202",
        ),
        (
            Command::Condemn {
                objects: vec![object],
            },
            "0901c801",
        ),
        (
            Command::Collect {
                object,
                ranges: vec![range(stream, 2, 0..9)],
            },
            "0ac80101ac02020009",
        ),
        (
            Command::Forget {
                objects: vec![object],
            },
            "0b01c801",
        ),
        (
            Command::Retire {
                log,
                epochs: vec![node_epoch],
            },
            "0c0000000000000000000000000000abcd0107",
        ),
        (
            Command::KvPut(KvPut {
                key: Bytes::from_static(b"k"),
                expect: Some(Expect::Version(5)),
                value: Some(Bytes::from_static(b"v")),
            }),
            "0d016b010205010176",
        ),
        (Command::Leave, "0e"),
        (Command::RaiseLevel { level: 1 }, "0f01"),
        (
            Command::TrimLog {
                log,
                trim: vec![log_trim(node_epoch, 1, 2)],
            },
            "100000000000000000000000000000abcd0107010202",
        ),
    ]
}

#[test]
fn commands_have_these_bytes() {
    for (command, golden) in commands() {
        holds(&command, golden);
    }
}

fn answers() -> Vec<(Answer, &'static str)> {
    let group = GroupId::new(3);
    let stream = StreamId::new(300);
    let node_epoch = NodeEpoch::new(7);
    let object = ObjectId::new(200);
    vec![
        (
            Answer::Started {
                groups: vec![(group, StreamEpoch::new(2))],
            },
            "01010302",
        ),
        (
            Answer::GroupCreated {
                group,
                streams: vec![stream],
                epoch: StreamEpoch::new(1),
            },
            "020301ac0201",
        ),
        (
            Answer::Opened(vec![
                Ok(OpenedGroup {
                    group,
                    epoch: StreamEpoch::new(2),
                    streams: vec![(stream, 1..9)],
                }),
                Err(Refusal::OwnedBy(B)),
            ]),
            "030201030201ac020108000202",
        ),
        (Answer::Closed(vec![Err(Refusal::NotOwner)]), "04010003"),
        (Answer::Trimmed(vec![Ok(8)]), "05010108"),
        (Answer::Destroyed(vec![Err(Refusal::NotFound)]), "06010001"),
        (Answer::Prepared { objects: 64..128 }, "074040"),
        (
            Answer::Committed(Committed {
                visible: true,
                exceptions: vec![
                    (0, RangeOutcome::Dropped),
                    (1, RangeOutcome::Trimmed),
                    (2, RangeOutcome::AlreadyThere),
                    (3, RangeOutcome::PastSealedEnd { sealed_end: 10 }),
                    (4, RangeOutcome::NotSettled { committed_end: 5 }),
                    (5, RangeOutcome::Impossible(Refusal::HeldBy(B))),
                ],
                trims: vec![(node_epoch, Ok(Position::new(2)))],
            }),
            "08010600010102020303040a0405050506070201070102",
        ),
        (Answer::Condemned(vec![Ok(object)]), "090101c801"),
        (
            Answer::Forgotten(vec![Err(Refusal::NotCondemned(object))]),
            "0a01000fc801",
        ),
        (Answer::Retired(vec![Ok(node_epoch)]), "0b010107"),
        (Answer::KvDone { version: 5 }, "0c05"),
        (Answer::KvConflict { current: None }, "0d00"),
        (Answer::Left, "0e"),
        (Answer::Level { level: 1 }, "0f01"),
        (Answer::Refused(Refusal::NotStarted), "1008"),
        (
            Answer::LogTrimmed(vec![(node_epoch, Err(Refusal::NotFound))]),
            "1101070001",
        ),
    ]
}

#[test]
fn answers_have_these_bytes() {
    for (answer, golden) in answers() {
        holds(&answer, golden);
    }
}

#[test]
fn refusals_have_these_bytes() {
    let epoch = NodeEpoch::new(7);
    let stream = StreamId::new(300);
    let at = Position::new;
    let why = "w".to_owned();
    let refusals = [
        (Refusal::StaleEpoch(StreamEpoch::new(4)), "0404"),
        (
            Refusal::NotSettled {
                stream,
                committed_end: 1,
                end: 2,
            },
            "05ac020102",
        ),
        (
            Refusal::OtherLog {
                uuid: LogUuid::new(1),
                url: "u".to_owned(),
            },
            "06000000000000000000000000000000010175",
        ),
        (Refusal::AlreadyStarted, "09"),
        (Refusal::SealedEnd(epoch), "0a07"),
        (
            Refusal::EndBelowDurable {
                epoch,
                found: at(1),
                known: at(2),
            },
            "0b070102",
        ),
        (
            Refusal::EndBelowCommitted {
                stream,
                committed_end: 2,
                end: 1,
            },
            "0cac020201",
        ),
        (Refusal::NotPrepared(ObjectId::new(1)), "0d01"),
        (Refusal::Referenced(ObjectId::new(1)), "0e01"),
        (Refusal::InUse(epoch), "1007"),
        (
            Refusal::Overlap {
                start: 1,
                end: 3,
                committed_end: 2,
            },
            "11010302",
        ),
        (Refusal::UnknownEpoch(StreamEpoch::new(4)), "1204"),
        (Refusal::Malformed(why.clone()), "130177"),
        (Refusal::TooLarge(why), "140177"),
        (
            Refusal::NotIdle {
                groups: 1,
                debts: 2,
            },
            "150102",
        ),
        (Refusal::Level(1), "1601"),
    ];
    for (refusal, golden) in refusals {
        holds(&refusal, golden);
    }
}

#[test]
fn a_debt_view_has_these_bytes() {
    let view = DebtView {
        log: LogUuid::new(1),
        url: "u".to_owned(),
        epoch: NodeEpoch::new(2),
        node: A,
        holder: B,
        trim: Position::new(3),
        durable_end: Position::new(4),
        sealed_end: Some(Position::new(5)),
        started: true,
    };
    holds(
        &view,
        "0000000000000000000000000000000101750201020304010501",
    );
}

fn history() -> Cluster {
    let mut cluster = Cluster::default();
    let epoch = cluster.join(A);
    let (_, stream) = cluster.create(A, epoch);
    cluster.commit(
        A,
        epoch,
        vec![range(stream, 1, 0..5), range(stream, 1, 9..10)],
    );
    let put = KvPut {
        key: Bytes::from_static(b"k"),
        expect: None,
        value: Some(Bytes::from_static(b"v")),
    };
    cluster.ask(A, epoch, Command::KvPut(put));
    cluster.register(A);
    cluster.join(B);
    cluster
}

#[test]
fn an_entry_and_a_snapshot_have_these_bytes() {
    let cluster = history();
    let entry = cluster.entries[1].bytes();
    assert_eq!(
        hex(entry),
        "0100000000000000024f4c68f91fe74314c65d43f39691cd5b2696ac20a187fdf0ebf93a96395cd5ea020101010101000000000000000000000000000003e8000000"
    );
    let snapshot = cluster.state.encode();
    assert_eq!(snapshot.len(), 874);
    assert_eq!(
        hex(&Sha256::digest(&snapshot)),
        "f8cc56fc1d21a53f44f9008a665a9742255fda058262d23a04f188887b23914e"
    );
}

#[test]
fn the_same_log_gives_the_same_state_and_a_snapshot_is_the_state() {
    let cluster = history();
    let mut again = State::default();
    for entry in &cluster.entries {
        again.append(entry).unwrap();
        let bytes = again.encode();
        // Derived indexes included.
        let restored = State::decode(&bytes).unwrap();
        assert_eq!(restored, again);
        assert_eq!(restored.encode(), bytes);
    }
    assert_eq!(again, cluster.state);
}

#[test]
fn a_damaged_snapshot_is_refused_or_another_state_but_never_a_panic() {
    let bytes = history().state.encode();
    for len in 0..bytes.len() {
        assert!(State::decode(&bytes[..len]).is_err(), "cut to {len}");
    }
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            if let Ok(state) = State::decode(&damaged) {
                assert_eq!(state.encode(), damaged, "byte {at}");
            }
        }
    }
}

#[test]
fn an_unknown_command_stops_the_node_and_damage_is_corrupt() {
    let cluster = history();
    let parse = |bytes: Vec<u8>| EncodedEntry::parse(bytes.into()).and_then(|entry| entry.decode());
    let entry = cluster.entries[1].bytes().to_vec();
    // The last entry body byte of `Started` is its stream count: append an unknown command instead.
    let unknown = {
        let mut bytes = entry[..41].to_vec();
        bytes.extend_from_slice(&[2, 1, 1, 1, 1, 99]);
        bytes
    };
    let error = parse(unknown).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("must be upgraded"), "{error}");
    let mut newer = entry.clone();
    newer[0] = 2;
    assert!(
        parse(newer)
            .unwrap_err()
            .to_string()
            .contains("must be upgraded")
    );
    for len in 0..entry.len() {
        let error = parse(entry[..len].to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut to {len}: {error}");
    }
}
