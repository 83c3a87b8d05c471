//! Metadata entries: a log of any entries is refused entry by entry, or applied, and the state stays a state.
//!
//! The input is a list of entry bodies, each behind two bytes of length. What decodes has one form only; a refused entry
//! changes nothing; after an accepted one the state's snapshot gives the same state back, every stream is
//! `start <= end`, and its extents neither overlap nor pass its end.

use bytes::Bytes;
use s3stream::{
    ErrorKind, GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId,
    metadata::{
        Batch, Body, CloseGroup, Command, Commit, CreateGroup, EncodedEntry, Entry, Expect, KvPut,
        LogRegistration, LogTrim, Registration, Started, State, TrimStream,
    },
    object::{ObjectKind, StreamRange},
    wal::{LogUuid, Position},
};

/// Entries of one input: more would only make each slower.
const ENTRIES_MAX: usize = 64;
const FIXED_LEN: usize = 1 + 8 + 32;
const LOG: LogUuid = LogUuid::new(5);

/// Applies the entries of `data`, and again with the epochs and sequences that batches need to be decided.
pub fn run(data: &[u8]) {
    apply(data, false);
    apply(data, true);
}

/// The life of a node, in one log and cut into single entries.
pub fn seeds() -> Vec<Vec<u8>> {
    let bodies: Vec<Vec<u8>> = life().into_iter().map(body_bytes).collect();
    let mut seeds = vec![framed(&bodies)];
    seeds.extend((1..bodies.len()).map(|len| framed(&bodies[..len])));
    seeds
}

fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
    bodies
        .iter()
        .flat_map(|body| [&(body.len() as u16).to_be_bytes(), body.as_slice()].concat())
        .collect()
}

fn body_bytes(body: Body) -> Vec<u8> {
    let entry = Entry::after(State::default().tip(), body).encode();
    entry.bytes()[FIXED_LEN..].to_vec()
}

pub(crate) fn life() -> Vec<Body> {
    let node = NodeId::new(1);
    let registration = |attempt| {
        Body::Register(Registration {
            node,
            incarnation: 77,
            attempt,
            log: Some(LogRegistration {
                uuid: LOG,
                url: "block:log".into(),
            }),
        })
    };
    let started = |ends| {
        Command::Started(Started {
            log: LOG,
            start: Position::new(4_096),
            ends,
            streams: Vec::new(),
        })
    };
    let batch = |epoch, sequence, commands| {
        Body::Batch(Batch {
            node,
            epoch: NodeEpoch::new(epoch),
            sequence,
            commands,
        })
    };
    vec![
        registration(1),
        batch(1, 1, vec![started(Vec::new())]),
        batch(1, 2, make_and_commit()),
        batch(1, 3, close_and_clean()),
        registration(2),
        batch(
            2,
            1,
            vec![started(vec![(NodeEpoch::new(1), Position::new(9_000))])],
        ),
        batch(2, 2, retire_and_leave()),
    ]
}

fn make_and_commit() -> Vec<Command> {
    let range = |stream, offsets| StreamRange {
        stream: StreamId::new(stream),
        epoch: StreamEpoch::new(1),
        offsets,
    };
    let commit = |object, kind, ranges| {
        Command::Commit(Commit {
            object: ObjectId::new(object),
            kind,
            size: 4_000,
            ranges,
            log: LOG,
            trim: vec![LogTrim {
                epoch: NodeEpoch::new(1),
                settled: Position::new(4_096),
                with_this: Position::new(5_000),
                durable_end: Position::new(9_000),
            }],
        })
    };
    let kv = |expect, value: Option<&'static [u8]>| {
        Command::KvPut(KvPut {
            key: Bytes::from_static(b"topic"),
            expect,
            value: value.map(Bytes::from_static),
        })
    };
    vec![
        Command::CreateGroup(CreateGroup {
            streams: 2,
            tags: vec![("topic".into(), "a".into())],
            open: true,
        }),
        Command::Prepare { count: 3 },
        commit(
            1,
            ObjectKind::StreamSet,
            vec![range(1, 0..10), range(2, 0..4)],
        ),
        commit(2, ObjectKind::Stream, vec![range(1, 10..30)]),
        kv(Some(Expect::Absent), Some(b"one")),
        kv(None, None),
    ]
}

fn close_and_clean() -> Vec<Command> {
    let (group, epoch) = (GroupId::new(1), StreamEpoch::new(1));
    vec![
        Command::Trim {
            streams: vec![TrimStream {
                stream: StreamId::new(1),
                epoch,
                start: 12,
            }],
        },
        Command::Condemn {
            objects: vec![ObjectId::new(3)],
        },
        Command::Close {
            groups: vec![CloseGroup {
                group,
                epoch,
                ends: vec![(StreamId::new(1), 30), (StreamId::new(2), 4)],
            }],
        },
        Command::Open {
            groups: vec![group],
        },
        Command::Destroy {
            groups: vec![(group, StreamEpoch::new(2))],
        },
        Command::Forget {
            objects: vec![ObjectId::new(3)],
        },
    ]
}

fn retire_and_leave() -> Vec<Command> {
    vec![
        Command::TrimLog {
            log: LOG,
            trim: vec![LogTrim {
                epoch: NodeEpoch::new(1),
                settled: Position::new(9_000),
                with_this: Position::new(9_000),
                durable_end: Position::new(9_000),
            }],
        },
        Command::Retire {
            log: LOG,
            epochs: vec![NodeEpoch::new(1)],
        },
        Command::RaiseLevel { level: 1 },
        Command::Leave,
    ]
}

fn apply(data: &[u8], steer: bool) {
    let mut state = State::default();
    let mut rest = data;
    for _ in 0..ENTRIES_MAX {
        let Some((len, after)) = rest.split_first_chunk::<2>() else {
            return;
        };
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (body, after) = after.split_at(len);
        rest = after;
        append(&mut state, body, steer);
    }
}

fn append(state: &mut State, body: &[u8], steer: bool) {
    let tip = state.tip();
    let template = Entry::after(
        tip,
        Body::Batch(Batch {
            node: NodeId::new(0),
            epoch: NodeEpoch::new(0),
            sequence: 0,
            commands: Vec::new(),
        }),
    );
    let fixed = &template.encode().bytes()[..FIXED_LEN].to_vec();
    let bytes: Bytes = [fixed, body].concat().into();
    let encoded = EncodedEntry::parse(bytes).expect("the fixed part is right");
    let mut entry = match encoded.decode() {
        Ok(entry) => entry,
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::Corrupt | ErrorKind::Invalid
            ));
            return;
        }
    };
    assert_eq!(entry.encode(), encoded, "what decodes has one form");
    if steer {
        aim(state, &mut entry.body);
    }
    let before = state.encode();
    match state.append(&entry.encode()) {
        Ok(_) => check(state),
        Err(_) => assert_eq!(state.encode(), before, "a refused entry changes nothing"),
    }
}

/// Gives a batch the epoch and the sequence that its node would send now.
fn aim(state: &State, body: &mut Body) {
    if let Body::Batch(batch) = body
        && let Some(epoch) = state.node_epoch(batch.node)
    {
        batch.epoch = epoch;
        let last = state.last_answers(batch.node);
        batch.sequence = last.map_or(1, |(sequence, _)| sequence + 1);
    }
}

fn check(state: &State) {
    let snapshot = state.encode();
    let again = State::decode(&snapshot).expect("a snapshot that was just made");
    assert_eq!(again.encode(), snapshot);
    for (_, group) in state.groups() {
        for stream in &group.streams {
            let view = state.stream(*stream).expect("a group's stream exists");
            assert!(view.start <= view.end, "{view:?}");
            let mut lowest = 0;
            for extent in state.extents(*stream, 0..u64::MAX) {
                assert!(lowest <= extent.offsets.start && !extent.offsets.is_empty());
                assert!(extent.offsets.end <= view.end, "{extent:?} of {view:?}");
                lowest = extent.offsets.end;
            }
        }
    }
}
