//! The object log's replay: any bytes as a folder of objects either open, or are refused with nothing overwritten.
//!
//! The input is a folder in brief: what the metadata claims, and objects and marks under small numbers. If it opens: records
//! ascend within what is owed, a second pass gives the same, and a later opening replays exactly them, whatever else is
//! there (W8), and then what was appended since. If it is refused, what was there is there, and it is refused again.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use object_store::path::Path;
use s3stream::wal::{
    Backend, EpochEnd, EpochState, Error, Identity, LogEpoch, LogState, LogUuid, Position, Replay,
    object::{Config, ObjectLog},
    testing::{Hear, ModelStore, Objects},
};

const UUID: LogUuid = LogUuid::new(0x0123_4567_89AB_CDEF_0011_2233_4455_6677);
const HEADER: usize = 128;
const MARK: usize = 96;
const MARKS: u8 = 0xff;

/// Opens what `data` describes, as it is, and again with ids, chain and checksums made right.
pub fn run(data: &[u8]) {
    let Some((state, folder)) = parse(data) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(check(&state, objects(&folder)));
    runtime.block_on(check(&state, objects(&sealed(folder))));
}

/// Logs of up to three epochs: trimmed, closed, fenced.
pub fn seeds() -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut seeds = Vec::new();
        let store = ModelStore::<()>::default();
        let mut state = LogState::new(identity(), LogEpoch::new(1));
        for (epoch, records, trimmed) in [(1, 3, 1), (2, 2, 0), (3, 4, 4)] {
            state.epoch = LogEpoch::new(epoch);
            let replay = log(&store).open(&state).await.expect("a sound log");
            state.begin(replay.ends(), replay.start_position());
            let hear = Hear::new();
            let log = replay
                .start(hear.clone())
                .await
                .expect("a sound log starts");
            for record in 1..=records {
                log.append(&[&vec![record as u8; 20 * record]])
                    .expect("room");
                hear.until_durable(record).await;
            }
            seeds.push(described(&state, &store.objects()));
            if trimmed > 0 {
                let to = hear.heard().records[trimmed - 1].position.end;
                state.trim(to, log.durable_end());
                log.trim(to);
            }
            log.close().await.expect("a close");
            seeds.push(described(&state, &store.objects()));
        }
        seeds
    })
}

fn identity() -> Identity {
    Identity {
        cluster: 1,
        log: UUID,
        node: 3,
    }
}

fn log(store: &ModelStore) -> ObjectLog {
    let log = ObjectLog::new(store.host(1), "l", 7).expect("a place");
    log.with_config(Config {
        commit_bytes_max: 200,
        ..Config::default()
    })
}

/// Epoch, or `MARKS`, and number.
type Folder = BTreeMap<(u8, u8), Vec<u8>>;

fn path((epoch, number): (u8, u8)) -> Path {
    match epoch {
        MARKS => Path::from(format!("l/marks/{number:016x}")),
        _ => Path::from(format!("l/{UUID}/{epoch:016x}/{number:016x}")),
    }
}

fn objects(folder: &Folder) -> Objects {
    let objects = folder.iter();
    objects
        .map(|(name, bytes)| (path(*name), Bytes::from(bytes.clone())))
        .collect()
}

/// A position in five bytes: number, byte within the object.
fn position(bytes: &[u8]) -> Position {
    let byte = u32::from_be_bytes(*bytes[1..].first_chunk().expect("five bytes"));
    Position::new(u64::from(bytes[0]) << 26 | u64::from(byte & 0x3ff_ffff))
}

/// The state and the folder in the form that `parse` reads.
fn described(state: &LogState, objects: &Objects) -> Vec<u8> {
    let mut out = vec![state.owed.len() as u8];
    for owed in &state.owed {
        out.push(owed.epoch.get() as u8);
        out.push(u8::from(owed.started) | u8::from(owed.sealed_end.is_some()) << 1);
        for at in [
            owed.trim,
            owed.durable_end,
            owed.sealed_end.unwrap_or_default(),
        ] {
            out.push((at.get() >> 26) as u8);
            out.extend_from_slice(&(at.get() as u32 & 0x3ff_ffff).to_be_bytes());
        }
    }
    for epoch in [1, 2, 3, MARKS] {
        for number in 0..=u8::MAX {
            if let Some(bytes) = objects.get(&path((epoch, number))) {
                out.extend_from_slice(&[epoch, number]);
                out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

fn parse(data: &[u8]) -> Option<(LogState, Folder)> {
    let mut rest = data;
    let mut take = |len: usize| {
        let (taken, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(taken)
    };
    let epochs = take(1)?[0] % 4;
    let mut state = LogState::new(identity(), LogEpoch::new(1 << 20));
    for _ in 0..epochs {
        let epoch = take(17)?;
        state.owed.push(EpochState {
            epoch: LogEpoch::new(u64::from(epoch[0])),
            started: epoch[1] & 1 != 0,
            trim: position(&epoch[2..]),
            durable_end: position(&epoch[7..]),
            sealed_end: (epoch[1] & 2 != 0).then(|| position(&epoch[12..])),
        });
    }
    let mut folder = Folder::new();
    while let Some(head) = take(4) {
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        folder.insert((head[0], head[1]), take(len)?.to_vec());
    }
    Some((state, folder))
}

/// Makes everything right that a writer computes or copies; kinds, writers, counts, and what they know of each other stay.
fn sealed(mut folder: Folder) -> Folder {
    let mut before = None;
    for ((epoch, number), bytes) in &mut folder {
        if *epoch == MARKS {
            if bytes.len() == MARK {
                bytes[..12].copy_from_slice(b"S3WALMK\n\0\0\0\x01");
                ids(bytes);
                let crc = crc32c::crc32c(&bytes[..MARK - 4]);
                bytes[MARK - 4..].copy_from_slice(&crc.to_be_bytes());
            }
            continue;
        }
        if bytes.len() < HEADER {
            continue;
        }
        let (header, body) = bytes.split_at_mut(HEADER);
        header[..12].copy_from_slice(b"S3WALOB\n\0\0\0\x01");
        ids(header);
        header[56..64].copy_from_slice(&u64::from(*epoch).to_be_bytes());
        header[64..72].copy_from_slice(&u64::from(*number).to_be_bytes());
        if header[12] == 1 {
            header[88..96].copy_from_slice(&u64::from(*epoch).to_be_bytes());
            let predecessor = match before {
                Some((of, crc)) if of == *epoch => crc,
                _ => crc32c::crc32c(&UUID.get().to_be_bytes()),
            };
            header[104..108].copy_from_slice(&(body.len() as u32).to_be_bytes());
            header[112..116].copy_from_slice(&predecessor.to_be_bytes());
            header[116..120].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
        }
        let crc = crc32c::crc32c(&header[..HEADER - 4]);
        header[HEADER - 4..].copy_from_slice(&crc.to_be_bytes());
        before = Some((*epoch, crc));
    }
    folder
}

/// Cluster, log and node, where both formats have them.
fn ids(bytes: &mut [u8]) {
    bytes[16..32].copy_from_slice(&1_u128.to_be_bytes());
    bytes[32..48].copy_from_slice(&UUID.get().to_be_bytes());
    bytes[48..56].copy_from_slice(&3_u64.to_be_bytes());
}

type Records = Vec<(LogEpoch, Range<Position>, Bytes)>;

async fn check(state: &LogState, objects: Objects) {
    let store = ModelStore::<()>::holding(objects.clone());
    // Whatever it says, it only looks.
    let _ = log(&store).identify().await;
    assert!(store.objects() == objects, "identify changed the folder");

    let mut state = state.clone();
    let opened = log(&store).open(&state).await;
    let now = store.objects();
    for (path, bytes) in &objects {
        assert!(
            now.get(path) == Some(bytes),
            "{path} was changed by an opening"
        );
    }
    let mut replay = match opened {
        Ok(replay) => replay,
        Err(error) => {
            assert!(
                !matches!(error, Error::Io { .. } | Error::Failed { .. }),
                "{error}"
            );
            assert!(
                log(&store).open(&state).await.is_err(),
                "refused once, then opened: {error}"
            );
            return;
        }
    };
    let (ends, start) = (replay.ends().to_vec(), replay.start_position());
    // A record's content may turn out to be damaged only while it is read.
    let Ok(records) = all(&mut *replay).await else {
        return;
    };
    replay.rewind().await.expect("a rewind");
    let again = all(&mut *replay).await.expect("a second pass");
    assert_eq!(again, records);
    check_records(&state, &ends, start, &records);

    // From here on it is a log like any other.
    state.begin(&ends, start);
    let hear = Hear::new();
    let started = match replay.start(hear.clone()).await {
        Ok(started) => started,
        Err(error) => panic!("a replayed log does not start: {error}"),
    };
    let position = started.append(&[b"one more"]).expect("room");
    hear.until_durable(1).await;
    drop(started);
    state.grant(LogEpoch::new((1 << 20) + 1));
    let mut replay = match log(&store).open(&state).await {
        Ok(replay) => replay,
        Err(error) => panic!("a started log does not open again: {error}"),
    };
    let mut later = all(&mut *replay).await.expect("a replay");
    let (epoch, range, payload) = later.pop().expect("the appended record");
    assert_eq!(epoch, LogEpoch::new(1 << 20));
    assert_eq!((range, payload.as_ref()), (position, &b"one more"[..]));
    assert_eq!(later, records, "a later opening replays something else");
}

async fn all(replay: &mut dyn Replay) -> Result<Records, Error> {
    let mut records = Vec::new();
    while let Some(piece) = replay.next().await? {
        assert!(!piece.is_empty(), "an empty piece");
        for record in piece {
            assert!(record.footprint >= record.payload.len());
            records.push((record.epoch, record.position, record.payload));
        }
    }
    Ok(records)
}

fn check_records(state: &LogState, ends: &[EpochEnd], start: Position, records: &Records) {
    let started: Vec<_> = state.started().collect();
    assert_eq!(ends.len(), started.len());
    let mut lowest = Position::default();
    for (epoch, position, payload) in records {
        assert!(position.start >= lowest && position.end > position.start);
        assert!(!payload.is_empty(), "an empty record");
        lowest = position.end;
        let of = started.iter().position(|owed| owed.epoch == *epoch);
        let at = of.expect("a record of an owed epoch");
        assert!(position.end <= ends[at].end);
    }
    for (owed, end) in started.iter().zip(ends) {
        assert_eq!(owed.epoch, end.epoch);
        assert!(owed.sealed_end.is_none_or(|sealed| sealed == end.end));
        assert!(end.end >= owed.trim && end.end >= owed.durable_end && end.end <= start);
    }
}
