//! The block log's replay: any bytes as a device either open, or are refused with nothing written.
//!
//! The input is a small device in brief: what the metadata claims, two superblocks, and pieces of the ring. If it opens:
//! records ascend within what is owed, their sum fits the ring, a second pass gives the same, and a later opening
//! replays exactly them, whatever else the device holds (W8), and then what was appended since.

use std::sync::Arc;

use bytes::Bytes;
use s3stream::wal::{
    Backend, EpochEnd, EpochState, Error, Identity, LogEpoch, LogState, LogUuid, Position,
    block::{BlockLog, Config},
    testing::{Hear, MemoryDevice},
};

pub(crate) const BLOCK: usize = 4096;
const COPIES: [usize; 2] = [0, 64 * 1024];
pub(crate) const RING_START: usize = 128 * 1024;
pub(crate) const RING_BLOCKS: usize = 16;
pub(crate) const CAPACITY: usize = RING_BLOCKS * BLOCK;
const SECTOR: usize = 512;
const FRAME_HEADER: usize = 80;
pub(crate) const UUID: LogUuid = LogUuid::new(0x0123_4567_89AB_CDEF_0011_2233_4455_6677);

/// Opens what `data` describes, as it is, and again with ids, chain and checksums made right.
pub fn run(data: &[u8]) {
    let Some((state, image)) = parse(data) else {
        return;
    };
    check(&state, image.clone());
    check(&state, sealed(image));
}

/// Logs of one and two epochs, trimmed, closed, wrapped around the ring.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let device = MemoryDevice::manual(RING_START + CAPACITY);
    let mut state = LogState::new(identity(), LogEpoch::new(1));
    for (epoch, records, len, trim) in [(1, 3, 50, 0), (2, 2, 5_000, 0), (3, 9, 3_000, 20_000)] {
        state.epoch = LogEpoch::new(epoch);
        let log = BlockLog::on(Arc::new(device.clone())).with_config(config());
        let replay = device.drive(log.open(&state)).expect("a sound log");
        state.begin(replay.ends(), replay.start_position());
        let log = device
            .drive(replay.start(Hear::new()))
            .expect("a sound log starts");
        for record in 0..records {
            log.append(&[&vec![record as u8; len]]).expect("room");
            while device.waiting() > 0 {
                device.complete(0);
            }
        }
        seeds.push(described(&state, &device.content()));
        let trim = Position::new(trim).min(log.durable_end());
        state.trim(trim, log.durable_end());
        log.trim(trim);
        while device.waiting() > 0 {
            device.complete(0);
        }
        device.drive(log.close()).expect("a close");
        seeds.push(described(&state, &device.content()));
    }
    seeds
}

pub(crate) fn identity() -> Identity {
    Identity {
        cluster: 1,
        log: UUID,
        node: 3,
    }
}

pub(crate) fn config() -> Config {
    Config {
        commit_bytes_max: 2 * BLOCK,
        in_flight_max: 2,
        slab_bytes: 4 * BLOCK,
        ..Config::default()
    }
}

/// The state and the image in the form that `parse` reads.
fn described(state: &LogState, image: &[u8]) -> Vec<u8> {
    let mut out = described_state(state);
    described_image(&mut out, image);
    out
}

pub(crate) fn described_state(state: &LogState) -> Vec<u8> {
    let mut out = vec![state.owed.len() as u8];
    for owed in &state.owed {
        out.push(owed.epoch.get() as u8);
        out.push(u8::from(owed.started) | u8::from(owed.sealed_end.is_some()) << 1);
        for position in [
            owed.trim,
            owed.durable_end,
            owed.sealed_end.unwrap_or_default(),
        ] {
            out.extend_from_slice(&(position.get() as u32).to_be_bytes());
        }
    }
    out
}

pub(crate) fn described_image(out: &mut Vec<u8>, image: &[u8]) {
    for copy in COPIES {
        out.extend_from_slice(&image[copy..copy + SECTOR]);
    }
    for (number, block) in image[RING_START..].chunks(BLOCK).enumerate() {
        let len = block
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if len > 0 {
            out.push(number as u8);
            out.extend_from_slice(&(len as u16).to_be_bytes());
            out.extend_from_slice(&block[..len]);
        }
    }
}

fn parse(data: &[u8]) -> Option<(LogState, Vec<u8>)> {
    let mut rest = data;
    let state = parse_state(&mut rest)?;
    Some((state, parse_image(rest)?))
}

pub(crate) fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

pub(crate) fn parse_state(rest: &mut &[u8]) -> Option<LogState> {
    let mut take = |len: usize| take(rest, len);
    let epochs = take(1)?[0] % 4;
    let mut state = LogState::new(identity(), LogEpoch::new(1 << 20));
    for _ in 0..epochs {
        let epoch = take(14)?;
        let position = |at: usize| {
            let bytes = epoch[at..].first_chunk().expect("14 bytes");
            Position::new(u64::from(u32::from_be_bytes(*bytes)))
        };
        state.owed.push(EpochState {
            epoch: LogEpoch::new(u64::from(epoch[0])),
            started: epoch[1] & 1 != 0,
            trim: position(2),
            durable_end: position(6),
            sealed_end: (epoch[1] & 2 != 0).then(|| position(10)),
        });
    }
    Some(state)
}

pub(crate) fn parse_image(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut take = |len: usize| take(&mut rest, len);
    let mut image = vec![0; RING_START + CAPACITY];
    for copy in COPIES {
        image[copy..copy + SECTOR].copy_from_slice(take(SECTOR)?);
    }
    while let Some(head) = take(3) {
        let at = RING_START + usize::from(head[0]) % RING_BLOCKS * BLOCK;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]])).min(image.len() - at);
        image[at..at + len].copy_from_slice(take(len)?);
    }
    Some(image)
}

/// Makes everything right that a writer computes or copies; epochs, sequences, positions, ends and lengths stay.
fn sealed(image: Vec<u8>) -> Vec<u8> {
    let mut predecessor = crc32c::crc32c(&UUID.get().to_be_bytes());
    sealed_after(image, &mut predecessor)
}

pub(crate) fn sealed_after(mut image: Vec<u8>, predecessor: &mut u32) -> Vec<u8> {
    for copy in COPIES {
        let sector = &mut image[copy..copy + SECTOR];
        if sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        sector[..8].copy_from_slice(b"S3WALSB\n");
        sector[8..12].copy_from_slice(&1_u32.to_be_bytes());
        sector[24..40].copy_from_slice(&1_u128.to_be_bytes());
        sector[40..56].copy_from_slice(&UUID.get().to_be_bytes());
        sector[56..64].copy_from_slice(&3_u64.to_be_bytes());
        sector[96..104].copy_from_slice(&(CAPACITY as u64).to_be_bytes());
        sector[112..120].copy_from_slice(&(RING_START as u64).to_be_bytes());
        sector[120..124].copy_from_slice(&(BLOCK as u32).to_be_bytes());
        sector[124..508].fill(0);
        let crc = crc32c::crc32c(&sector[..508]);
        sector[508..].copy_from_slice(&crc.to_be_bytes());
    }
    let uuid = UUID.get();
    let salt = (uuid >> 64) as u64 ^ uuid as u64;
    let ring = &mut image[RING_START..];
    let mut at = 0;
    while at < CAPACITY {
        let (header, after) = ring[at..].split_at_mut(FRAME_HEADER);
        if !header.starts_with(b"S3WF") {
            at += BLOCK;
            continue;
        }
        let len = u32::from_be_bytes(*header[56..].first_chunk().expect("80 bytes")) as usize;
        let body = &after[..len.min(after.len())];
        header[4..8].copy_from_slice(b"\0\x01\0\x50");
        header[8..16].copy_from_slice(&salt.to_be_bytes());
        header[64..68].copy_from_slice(&predecessor.to_be_bytes());
        header[68..72].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
        header[72..76].fill(0);
        *predecessor = crc32c::crc32c(&header[..76]);
        header[76..80].copy_from_slice(&predecessor.to_be_bytes());
        at += (FRAME_HEADER + body.len()).next_multiple_of(BLOCK);
    }
    image
}

pub(crate) type Records = Vec<(LogEpoch, std::ops::Range<Position>, Bytes)>;

fn check(state: &LogState, image: Vec<u8>) {
    let device = MemoryDevice::with_content(image.clone());
    let log = || BlockLog::on(Arc::new(device.clone())).with_config(config());
    // Whatever it says, it only looks.
    let _ = device.drive(log().identify());
    assert_eq!(device.content(), image, "identify changed the device");

    let mut state = state.clone();
    let mut replay = match device.drive(log().open(&state)) {
        Ok(replay) => replay,
        Err(error) => {
            assert!(
                !matches!(error, Error::Io { .. } | Error::Failed { .. }),
                "{error}"
            );
            assert_eq!(
                device.content(),
                image,
                "a refused log was changed: {error}"
            );
            return;
        }
    };
    let (ends, start) = (replay.ends().to_vec(), replay.start_position());
    // A record's content may turn out to be damaged only while it is read.
    let Ok(records) = device.drive(all(&mut *replay)) else {
        return;
    };
    device.drive(replay.rewind()).expect("a rewind");
    let again = device.drive(all(&mut *replay)).expect("a second pass");
    assert_eq!(again, records);
    check_records(&state, &ends, start, &records);

    // The open may have made a new log: nothing was owed, then. From here on it is a log like any other.
    state.begin(&ends, start);
    let started = match device.drive(replay.start(Hear::new())) {
        Ok(started) => started,
        Err(error) => panic!("a replayed log does not start: {error}"),
    };
    let appended = started.append(&[b"one more"]);
    while device.waiting() > 0 {
        device.complete(0);
    }
    drop(started);
    state.grant(LogEpoch::new((1 << 20) + 1));
    let mut replay = match device.drive(log().open(&state)) {
        Ok(replay) => replay,
        Err(error) => panic!("a started log does not open again: {error}"),
    };
    let mut later = device.drive(all(&mut *replay)).expect("a replay");
    if let Ok(position) = appended {
        let (epoch, range, payload) = later.pop().expect("the appended record");
        assert_eq!(epoch, LogEpoch::new(1 << 20));
        assert_eq!((range, payload.as_ref()), (position, &b"one more"[..]));
    }
    assert_eq!(later, records, "a later opening replays something else");
}

pub(crate) async fn all(replay: &mut dyn s3stream::wal::Replay) -> Result<Records, Error> {
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

pub(crate) fn check_records(
    state: &LogState,
    ends: &[EpochEnd],
    start: Position,
    records: &Records,
) {
    let started: Vec<_> = state.started().collect();
    assert_eq!(ends.len(), started.len());
    let mut lowest = Position::default();
    let mut bytes = 0;
    for (epoch, position, payload) in records {
        assert!(position.start >= lowest && position.end > position.start);
        assert!(!payload.is_empty(), "an empty record");
        lowest = position.end;
        bytes += payload.len();
        let at = started
            .iter()
            .position(|owed| owed.epoch == *epoch)
            .expect("a record of an owed epoch");
        assert!(position.end > started[at].trim && position.end <= ends[at].end);
    }
    assert!(bytes <= CAPACITY, "{bytes} bytes in a ring of {CAPACITY}");
    for (owed, end) in started.iter().zip(ends) {
        assert_eq!(owed.epoch, end.epoch);
        assert!(owed.sealed_end.is_none_or(|sealed| sealed == end.end));
        assert!(end.end >= owed.trim && end.end >= owed.durable_end && end.end <= start);
    }
}
