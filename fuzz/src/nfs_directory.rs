//! The NFS log's opening: any bytes as lease, head and segment files either open, or are refused with no epoch's file changed.
//!
//! The input is a small directory in brief: what the metadata claims, for each of its epochs the head and the ring (as in
//! `wal_replay`), then lease files. If it opens: records ascend within what is owed, a second pass gives the same, and a later
//! opening replays exactly them, whatever else the files hold (W8), and then what was appended since.

use std::sync::Arc;

use s3stream::wal::{
    Backend, Error, LogEpoch, LogState, Position, block,
    nfs::{Config, NfsLog},
    testing::{DirectoryImage, Hear, ModelDirectory, RuntimeClock},
};

use crate::wal_replay::{
    BLOCK, CAPACITY, RING_BLOCKS, RING_START, UUID, all, check_records, config, described_image,
    described_state, identity, parse_image, parse_state, sealed_after, take,
};

const LEASE: usize = 128;

/// What an input describes.
struct Described {
    state: LogState,
    /// Of each epoch, as on a device.
    epochs: Vec<(LogEpoch, Vec<u8>)>,
    leases: Vec<(u64, Vec<u8>)>,
}

/// Opens what `data` describes, as it is, and again with ids, chain and checksums made right.
pub fn run(data: &[u8]) {
    let Some(described) = parse(data) else {
        return;
    };
    in_runtime(check(&described.state, image(&described)));
    let described = sealed(described);
    in_runtime(check(&described.state, image(&described)));
}

/// Logs of up to three epochs, trimmed, wrapped around the ring, taken over.
pub fn seeds() -> Vec<Vec<u8>> {
    in_runtime(async {
        let mut seeds = Vec::new();
        let directory = ModelDirectory::<()>::default();
        let mut state = LogState::new(identity(), LogEpoch::new(1));
        for (epoch, records, len, trim) in [(1, 3, 50, 0), (2, 2, 5_000, 0), (3, 9, 3_000, 20_000)]
        {
            state.epoch = LogEpoch::new(epoch);
            let replay = log(&directory).open(&state).await.expect("a sound log");
            state.begin(replay.ends(), replay.start_position());
            let hear = Hear::new();
            let log = replay
                .start(hear.clone())
                .await
                .expect("a sound log starts");
            for record in 0..records {
                log.append(&[&vec![record as u8; len]]).expect("room");
                hear.until_durable(record + 1).await;
            }
            seeds.push(described(&state, &directory.image()));
            let trim = Position::new(trim).min(log.durable_end());
            state.trim(trim, log.durable_end());
            log.trim(trim);
            log.close().await.expect("a close");
            seeds.push(described(&state, &directory.image()));
        }
        seeds
    })
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn log(directory: &ModelDirectory) -> NfsLog {
    NfsLog::on(Arc::new(directory.host()), CAPACITY as u64)
        .with_config(Config {
            commits: block::Config { ..config() },
            ..Config::default()
        })
        .with_clock(Arc::new(RuntimeClock::default()))
}

fn head(epoch: LogEpoch) -> String {
    format!("{:032x}.{:020}.head", UUID.get(), epoch.get())
}

fn segment(epoch: LogEpoch, number: usize) -> String {
    format!("{:032x}.{:020}.{number:02}", UUID.get(), epoch.get())
}

fn described(state: &LogState, image: &DirectoryImage) -> Vec<u8> {
    let mut out = described_state(state);
    let files = image.contents();
    for owed in &state.owed {
        let mut device = vec![0; RING_START + CAPACITY];
        if let Some(head) = files.get(&head(owed.epoch)) {
            device[..RING_START].copy_from_slice(head);
        }
        for (number, block) in device[RING_START..].chunks_mut(BLOCK).enumerate() {
            if let Some(segment) = files.get(&segment(owed.epoch, number)) {
                block.copy_from_slice(segment);
            }
        }
        let mut brief = Vec::new();
        described_image(&mut brief, &device);
        out.extend_from_slice(&(brief.len() as u32).to_be_bytes());
        out.extend_from_slice(&brief);
    }
    for (name, content) in files.iter().filter(|(name, _)| name.starts_with("lease.")) {
        let number: u64 = name[6..].parse().expect("a number");
        out.push(number as u8);
        out.extend_from_slice(&content[..LEASE]);
    }
    out
}

fn parse(data: &[u8]) -> Option<Described> {
    let mut rest = data;
    let state = parse_state(&mut rest)?;
    let mut epochs = Vec::new();
    for owed in &state.owed {
        let len = u32::from_be_bytes(*take(&mut rest, 4)?.first_chunk()?) as usize;
        epochs.push((owed.epoch, parse_image(take(&mut rest, len)?)?));
    }
    let mut leases = Vec::new();
    while let Some(lease) = take(&mut rest, 1 + LEASE) {
        leases.push((u64::from(lease[0]), lease[1..].to_vec()));
    }
    Some(Described {
        state,
        epochs,
        leases,
    })
}

/// Makes everything right that a writer computes or copies.
fn sealed(mut described: Described) -> Described {
    let mut predecessor = crc32c::crc32c(&UUID.get().to_be_bytes());
    for (_, image) in &mut described.epochs {
        *image = sealed_after(std::mem::take(image), &mut predecessor);
    }
    for (number, lease) in &mut described.leases {
        lease[..12].copy_from_slice(b"S3WLEASE\0\0\0\x01");
        lease[16..24].copy_from_slice(&number.to_be_bytes());
        let crc = crc32c::crc32c(&lease[..LEASE - 4]);
        lease[LEASE - 4..].copy_from_slice(&crc.to_be_bytes());
    }
    described
}

fn image(described: &Described) -> DirectoryImage {
    let mut image = DirectoryImage::default();
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    for (epoch, device) in &described.epochs {
        let (front, ring) = device.split_at(RING_START);
        if !zero(front) {
            image.put(&head(*epoch), front.to_vec());
        }
        for number in 0..RING_BLOCKS {
            let block = &ring[number * BLOCK..][..BLOCK];
            if !zero(block) {
                image.put(&segment(*epoch, number), block.to_vec());
            }
        }
    }
    for (number, lease) in &described.leases {
        let mut content = lease.clone();
        content.resize(BLOCK, 0);
        image.put(&format!("lease.{number:020}"), content);
    }
    image
}

/// The files of epochs.
fn written(directory: &ModelDirectory) -> Vec<(String, Vec<u8>)> {
    let uuid = format!("{:032x}.0", UUID.get());
    let files = directory.image().contents().into_iter();
    files.filter(|(name, _)| name.starts_with(&uuid)).collect()
}

async fn check(state: &LogState, image: DirectoryImage) {
    let directory = ModelDirectory::<()>::holding(image);
    let before = directory.image().contents();
    let _ = log(&directory).identify().await;
    assert_eq!(
        directory.image().contents(),
        before,
        "identify changed a file"
    );
    let before = written(&directory);

    let mut state = state.clone();
    let mut replay = match log(&directory).open(&state).await {
        Ok(replay) => replay,
        Err(error) => {
            assert!(
                !matches!(error, Error::Io { .. } | Error::Failed { .. }),
                "{error}"
            );
            assert_eq!(
                written(&directory),
                before,
                "a refused log was changed: {error}"
            );
            return;
        }
    };
    assert_eq!(
        written(&directory),
        before,
        "an opening changed an epoch's file"
    );
    let (ends, start) = (replay.ends().to_vec(), replay.start_position());
    // A record's content may turn out to be damaged only while it is read.
    let Ok(records) = all(&mut *replay).await else {
        return;
    };
    replay.rewind().await.expect("a rewind");
    assert_eq!(all(&mut *replay).await.expect("a second pass"), records);
    check_records(&state, &ends, start, &records);

    state.begin(&ends, start);
    let hear = Hear::new();
    let started = match replay.start(hear.clone()).await {
        Ok(started) => started,
        Err(error) => panic!("a replayed log does not start: {error}"),
    };
    let appended = started.append(&[b"one more"]);
    if appended.is_ok() {
        hear.until_durable(1).await;
    }
    drop(started);
    state.grant(LogEpoch::new((1 << 20) + 1));
    let mut replay = match log(&directory).open(&state).await {
        Ok(replay) => replay,
        Err(error) => panic!("a started log does not open again: {error}"),
    };
    let mut later = all(&mut *replay).await.expect("a replay");
    if let Ok(position) = appended {
        let (epoch, range, payload) = later.pop().expect("the appended record");
        assert_eq!(epoch, LogEpoch::new(1 << 20));
        assert_eq!((range, payload.as_ref()), (position, &b"one more"[..]));
    }
    assert_eq!(later, records, "a later opening replays something else");
}
