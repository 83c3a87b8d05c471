//! The metadata's head and what it names: a bucket of any objects is refused and left alone, or is a log.
//!
//! The input is a list of objects: a byte of name length, the name, two bytes of length, the content. If it loads: its
//! entries form a chain, loading again gives the same, and a log that takes one more entry is read back with it.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use s3stream::{
    ClusterId, Entropy, ErrorKind, NodeId,
    metadata::{
        Body, BucketLimits, BucketSequencer, Entry, Loaded, News, Registration, Sequencer, State,
        Tip,
    },
    store::Bucket,
};

const CLUSTER: ClusterId = ClusterId::new(1);
const OBJECTS_MAX: usize = 32;

/// Loads the bucket that `data` describes, as it is, and again with the checksums of its frames made right.
pub fn run(data: &[u8]) {
    let objects = parse(data);
    let runtime = runtime();
    runtime.block_on(check(objects.clone()));
    let sealed = objects
        .into_iter()
        .map(|(name, bytes)| (name, sealed(bytes)));
    runtime.block_on(check(sealed.collect()));
}

/// A head alone, one with segments and a large entry, and one with a snapshot too.
pub fn seeds() -> Vec<Vec<u8>> {
    runtime().block_on(async {
        let (bucket, store) = bucket();
        let mut sequencer = sequencer(&bucket);
        let mut state = State::default();
        let mut seeds = Vec::new();
        for (number, body) in crate::metadata_entry::life().into_iter().enumerate() {
            let entry = Entry::after(state.tip(), body).encode();
            sequencer
                .append(&entry)
                .await
                .expect("an entry that follows");
            state.append(&entry).expect("an entry that follows");
            if number == 4 {
                let bytes = state.encode().into();
                let kept = sequencer.snapshot(state.tip(), bytes).await;
                kept.expect("a snapshot of the tip");
            }
            seeds.push(described(&store).await);
        }
        seeds
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

fn bucket() -> (Bucket, Arc<dyn ObjectStore>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let entropy = Entropy::seeded(7);
    let bucket = Bucket::new(Arc::clone(&store), "", &entropy).expect("a bucket in memory");
    (bucket, store)
}

/// Small limits, so that a short log has segments, chunks and large entries.
fn sequencer(bucket: &Bucket) -> BucketSequencer {
    let limits = BucketLimits {
        inline_bytes: 120,
        segments_bytes: 400,
        chunk_bytes: 100,
    };
    BucketSequencer::new(bucket.clone(), CLUSTER, Entropy::seeded(9)).with_limits(limits)
}

async fn described(store: &Arc<dyn ObjectStore>) -> Vec<u8> {
    let mut paths: Vec<_> = store
        .list(None)
        .map_ok(|meta| meta.location)
        .try_collect()
        .await
        .expect("a listing");
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let got = store.get(&path).await.expect("a listed object");
        let bytes = got.bytes().await.expect("its content");
        let name = path.to_string();
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

fn parse(data: &[u8]) -> Vec<(Path, Vec<u8>)> {
    let mut rest = data;
    let mut take = |len: usize| {
        let (taken, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        taken
    };
    let mut objects = Vec::new();
    while objects.len() < OBJECTS_MAX {
        let [name_len] = *take(1) else {
            break;
        };
        let name = String::from_utf8_lossy(take(name_len.into())).into_owned();
        let [high, low] = *take(2) else {
            break;
        };
        let bytes = take(u16::from_be_bytes([high, low]).into()).to_vec();
        // A name that is no path names nothing.
        objects.extend(Path::parse(&name).ok().map(|path| (path, bytes)));
    }
    objects
}

/// The frame with its checksum made right: the last four bytes, over all before.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(body) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}

async fn check(objects: Vec<(Path, Vec<u8>)>) {
    let (bucket, store) = bucket();
    for (path, bytes) in objects {
        let put = store.put(&path, PutPayload::from(bytes)).await;
        put.expect("a put into memory");
    }
    let before = described(&store).await;
    let loaded = match sequencer(&bucket).load().await {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid),
                "{error}"
            );
            assert_eq!(described(&store).await, before, "a refused log was changed");
            return;
        }
    };
    let tip = check_chain(&loaded);
    let mut second = sequencer(&bucket);
    let again = second.load().await.expect("a second load");
    assert_eq!(
        (again.entries.len(), check_chain(&again)),
        (loaded.entries.len(), tip)
    );
    assert_eq!(described(&store).await, before, "a load changed something");
    match second.look(tip).await.expect("a look") {
        News::Entries(entries) => assert!(entries.is_empty()),
        News::Reload(_) => panic!("the tip that was just loaded is not kept"),
    }
    if tip.index < u64::MAX {
        check_append(&bucket, &mut second, tip).await;
    }
}

fn check_chain(loaded: &Loaded) -> Tip {
    let mut tip = loaded
        .snapshot
        .as_ref()
        .map_or(Tip::default(), |(tip, _)| *tip);
    for entry in &loaded.entries {
        assert!(entry.follows(tip), "the entries are no chain");
        tip = entry.tip();
    }
    tip
}

async fn check_append(bucket: &Bucket, sequencer: &mut BucketSequencer, tip: Tip) {
    let body = Body::Register(Registration {
        node: NodeId::new(1),
        incarnation: 1,
        attempt: 1,
        log: None,
    });
    let entry = Entry::after(tip, body).encode();
    match sequencer.append(&entry).await {
        Ok(News::Entries(entries)) => assert_eq!(entries, std::slice::from_ref(&entry)),
        Ok(News::Reload(_)) => panic!("an entry was lost"),
        Err(error) => panic!("a log that loads takes no entry: {error}"),
    }
    let mut third = self::sequencer(bucket);
    let loaded = third.load().await.expect("a log that took an entry");
    assert_eq!(check_chain(&loaded), entry.tip());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_load_with_segments_large_entries_and_a_snapshot() {
        let seeds = seeds();
        let folders = |seed: &[u8]| {
            let mut folders: Vec<String> = parse(seed)
                .iter()
                .filter_map(|(path, _)| Some(path.as_ref().split('/').nth(1)?.to_owned()))
                .collect();
            folders.dedup();
            folders
        };
        let last = folders(&seeds[seeds.len() - 1]);
        assert_eq!(
            last.len(),
            4,
            "head, entries, segments and a snapshot: {last:?}"
        );
        for (number, seed) in seeds.iter().enumerate() {
            runtime().block_on(async {
                let (bucket, store) = bucket();
                for (path, bytes) in parse(seed) {
                    let put = store.put(&path, PutPayload::from(bytes)).await;
                    put.expect("a put into memory");
                }
                let loaded = sequencer(&bucket).load().await.expect("a seed");
                assert_eq!(check_chain(&loaded).index, number as u64 + 1);
            });
        }
    }
}
