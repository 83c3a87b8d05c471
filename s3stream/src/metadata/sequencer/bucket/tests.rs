//! The log in a bucket through the handle that nodes use: restarts, contenders, lost answers, snapshots, damage.

mod bytes;
mod damage;

use std::sync::Arc;

use super::*;
use crate::{
    BootClock, NodeId,
    metadata::{Answer, Command, CreateGroup, Expect, KvPut, Metadata, Registration, Seen, State},
    store::tests::{Fault, FaultyStore},
};

const CLUSTER: ClusterId = ClusterId::new(42);

/// Everything moves soon.
const SMALL: BucketLimits = BucketLimits {
    inline_bytes: 300,
    segments_bytes: 600,
    chunk_bytes: 128,
};

fn memory() -> Bucket {
    Bucket::memory(&Entropy::seeded(1)).unwrap()
}

fn faulty() -> (Bucket, FaultyStore) {
    let store = FaultyStore::default();
    let bucket = Bucket::new(Arc::new(store.clone()), "c", &Entropy::seeded(1)).unwrap();
    (bucket, store)
}

fn sequencer(bucket: &Bucket, seed: u64) -> BucketSequencer {
    BucketSequencer::new(bucket.clone(), CLUSTER, Entropy::seeded(seed))
}

async fn open_with(bucket: &Bucket, seed: u64, limits: BucketLimits) -> Result<Metadata> {
    let sequencer = Box::new(sequencer(bucket, seed).with_limits(limits));
    Metadata::open(sequencer, Arc::new(BootClock), Entropy::seeded(seed)).await
}

async fn open(bucket: &Bucket, seed: u64) -> Metadata {
    open_with(bucket, seed, BucketLimits::default())
        .await
        .unwrap()
}

fn registration(node: u64, incarnation: u128) -> Registration {
    Registration {
        node: NodeId::new(node),
        incarnation,
        attempt: 1,
        log: None,
    }
}

fn put(key: &str, value: &str) -> Command {
    Command::KvPut(KvPut {
        key: Bytes::copy_from_slice(key.as_bytes()),
        expect: Some(Expect::Absent),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    })
}

async fn put_done(metadata: &Metadata, key: &str) {
    let answer = metadata.submit_one(put(key, "value")).await.unwrap();
    assert!(matches!(answer, Answer::KvDone { .. }), "{key}: {answer:?}");
}

fn bytes_of(metadata: &Metadata) -> Vec<u8> {
    metadata.view(State::encode)
}

async fn head_of(bucket: &Bucket) -> Head {
    let path = bucket.path("metadata/head");
    let (bytes, _) = bucket.read(&path).await.unwrap().unwrap();
    Head::decode(&bytes, CLUSTER).unwrap()
}

async fn a_log_survives_a_restart(bucket: Bucket) {
    let first = open(&bucket, 1).await;
    first.register(registration(1, 1)).await.unwrap();
    for key in ["a", "b", "c"] {
        put_done(&first, key).await;
    }
    let state = bytes_of(&first);
    drop(first);
    let second = open(&bucket, 2).await;
    assert_eq!(bytes_of(&second), state);
    second.register(registration(2, 2)).await.unwrap();
    put_done(&second, "d").await;
}

#[tokio::test]
async fn a_log_in_memory_survives_a_restart_of_its_node() {
    a_log_survives_a_restart(memory()).await;
}

#[tokio::test]
async fn a_log_in_a_directory_survives_a_restart_of_its_node() {
    let dir = tempfile::tempdir().unwrap();
    a_log_survives_a_restart(Bucket::local(dir.path(), &Entropy::seeded(1)).unwrap()).await;
}

async fn contenders_lose_nothing(bucket: Bucket, limits: BucketLimits) {
    let contender = |node: u64| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let metadata = open_with(&bucket, node, limits).await.unwrap();
            metadata
                .register(registration(node, u128::from(node)))
                .await
                .unwrap();
            for count in 0..20 {
                put_done(&metadata, &format!("{node}/{count}")).await;
            }
            metadata
        })
    };
    let contenders: Vec<_> = (1..5).map(contender).collect();
    let mut states = Vec::new();
    for contender in contenders {
        let metadata = contender.await.unwrap();
        states.push(metadata);
    }
    for metadata in &states {
        metadata.look().await.unwrap();
    }
    let fresh = bytes_of(&open_with(&bucket, 99, limits).await.unwrap());
    for metadata in &states {
        assert_eq!(metadata.view(|state| state.kv_prefix(b"").count()), 80);
        assert_eq!(bytes_of(metadata), fresh);
    }
}

#[tokio::test]
async fn contenders_in_memory_lose_nothing_and_agree_on_everything() {
    contenders_lose_nothing(memory(), BucketLimits::default()).await;
}

#[tokio::test]
async fn contenders_agree_while_segments_and_snapshots_come_and_go() {
    contenders_lose_nothing(memory(), SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_in_a_directory_lose_nothing_and_agree_on_everything() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::local(dir.path(), &Entropy::seeded(1)).unwrap();
    contenders_lose_nothing(bucket, SMALL).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_decided_once_whatever_the_answers_of_the_store_were() {
    use Fault::{After, Before, Conflict};
    let plans: &[&[Fault]] = &[
        &[After],
        &[Before],
        &[Conflict],
        &[After, After],
        &[Before, Conflict, Before],
        &[After, Before, Conflict],
        &[Before, After, After, Conflict],
    ];
    for (case, plan) in plans.iter().enumerate() {
        let (bucket, store) = faulty();
        let metadata = open(&bucket, 1).await;
        // The first swap makes the head; the later ones replace it.
        store.plan(plan.iter().copied().map(Some));
        metadata.register(registration(1, 1)).await.unwrap();
        store.plan(plan.iter().copied().map(Some));
        // Decided twice, `Absent` would conflict.
        put_done(&metadata, "once").await;
        store.plan(plan.iter().copied().map(Some));
        put_done(&metadata, "again").await;
        assert_eq!(metadata.view(|state| state.tip().index), 3, "case {case}");
        let fresh = open(&bucket, 2).await;
        assert_eq!(bytes_of(&fresh), bytes_of(&metadata), "case {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_swap_that_was_taken_and_then_passed_by_others_is_found_among_the_entries() {
    for limits in [BucketLimits::default(), SMALL] {
        let (bucket, store) = faulty();
        let slow = open_with(&bucket, 1, limits).await.unwrap();
        slow.register(registration(1, 1)).await.unwrap();
        let quick = open_with(&bucket, 2, limits).await.unwrap();
        quick.register(registration(2, 2)).await.unwrap();
        slow.look().await.unwrap();
        // The answer is lost; before the bytes are sent again, others append, so much that the entry leaves the head.
        store.plan([Some(Fault::After)]);
        let others = async {
            for count in 0..30 {
                put_done(&quick, &format!("q{count}")).await;
            }
        };
        let (answer, ()) = tokio::join!(biased; slow.submit_one(put("slow", "x")), others);
        assert!(matches!(answer.unwrap(), Answer::KvDone { .. }));
        put_done(&slow, "next").await;
        quick.look().await.unwrap();
        assert_eq!(bytes_of(&slow), bytes_of(&quick));
    }
}

#[tokio::test(start_paused = true)]
async fn a_definite_refusal_fails_the_call_and_leaves_nothing_behind() {
    // A local directory behind the store's own interface has no conditional update: known before anything is written.
    let dir = tempfile::tempdir().unwrap();
    let local = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let bucket = Bucket::new(Arc::new(local), "", &Entropy::seeded(1)).unwrap();
    let metadata = open(&bucket, 1).await;
    metadata.register(registration(1, 1)).await.unwrap();
    let error = metadata.submit_one(put("a", "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(!error.may_have_happened());
}

#[tokio::test]
async fn segments_and_snapshots_bound_the_head_and_the_folder() {
    let bucket = memory();
    let metadata = open_with(&bucket, 1, SMALL).await.unwrap();
    metadata.register(registration(1, 1)).await.unwrap();
    let stale = open_with(&bucket, 2, SMALL).await.unwrap();
    let mut most = 0;
    for count in 0..120 {
        let key = format!("{}", count % 7);
        let command = Command::KvPut(KvPut {
            key: key.into(),
            expect: None,
            value: Some(Bytes::from(vec![b'x'; 20])),
        });
        metadata.submit_one(command).await.unwrap();
        let listed = bucket.list(&bucket.path("metadata"), 1000).await.unwrap();
        most = most.max(listed.len());
    }
    let head = head_of(&bucket).await;
    assert!(head.snapshot.is_some());
    assert!(head.segments.len() < 40, "{}", head.segments.len());
    assert!(head.encode().len() < 10_000);
    assert!(most < 120, "{most} objects");
    // Every listed object is there, and what is not listed is condemned or was swept.
    let fresh = open_with(&bucket, 3, SMALL).await.unwrap();
    assert_eq!(bytes_of(&fresh), bytes_of(&metadata));
    // A node that slept through all of it catches up.
    stale.look().await.unwrap();
    assert_eq!(bytes_of(&stale), bytes_of(&metadata));
}

#[tokio::test]
async fn a_large_entry_is_an_object_that_the_head_names() {
    let bucket = memory();
    let metadata = open_with(&bucket, 1, SMALL).await.unwrap();
    metadata.register(registration(1, 1)).await.unwrap();
    let large = "x".repeat(5000);
    metadata.submit_one(put("large", &large)).await.unwrap();
    let head = head_of(&bucket).await;
    assert!(matches!(head.inline.last(), Some(InlineEntry::Object(_))));
    assert!(head.encode().len() < 1000);
    for count in 0..20 {
        put_done(&metadata, &format!("{count}")).await;
    }
    let fresh = open_with(&bucket, 2, SMALL).await.unwrap();
    assert_eq!(bytes_of(&fresh), bytes_of(&metadata));
}

#[tokio::test]
async fn a_paused_snapshotter_does_not_swing_the_head_to_what_was_deleted() {
    let bucket = memory();
    let metadata = open_with(&bucket, 1, SMALL).await.unwrap();
    metadata.register(registration(1, 1)).await.unwrap();
    put_done(&metadata, "a").await;
    // This node knows the head, and pauses before it writes its snapshot.
    let mut paused = sequencer(&bucket, 7).with_limits(SMALL);
    paused.load().await.unwrap();
    let (tip, state) = metadata.view(|state| (state.tip(), Bytes::from(state.encode())));
    for count in 0..60 {
        put_done(&metadata, &format!("{count}")).await;
    }
    let before = head_of(&bucket).await;
    assert!(before.swept > 0);
    paused.snapshot(tip, state).await.unwrap();
    assert_eq!(head_of(&bucket).await, before);
    // What it wrote in vain goes with the next sweeps.
    for count in 60..200 {
        put_done(&metadata, &format!("{count}")).await;
    }
    let head = head_of(&bucket).await;
    let listed = bucket
        .list(&bucket.path("metadata/snapshot"), 1000)
        .await
        .unwrap();
    let wasted = format!("{:016x}-", tip.index);
    assert!(head.swept > before.swept);
    assert!(
        !listed.iter().any(|path| path.to_string().contains(&wasted)),
        "{listed:?}"
    );
}

#[tokio::test]
async fn a_snapshotter_that_paused_behind_a_sweep_lists_none_of_its_chunks_however_new() {
    let bucket = memory();
    let metadata = open(&bucket, 1).await;
    metadata.register(registration(1, 1)).await.unwrap();
    put_done(&metadata, "a").await;
    let mut other = sequencer(&bucket, 8);
    other.load().await.unwrap();
    let (old_tip, old) = metadata.view(|state| (state.tip(), Bytes::from(state.encode())));
    put_done(&metadata, "b").await;
    // This node writes the chunks of a newer state and pauses before its swap.
    let mut paused = sequencer(&bucket, 7);
    paused.load().await.unwrap();
    let (tip, state) = metadata.view(|state| (state.tip(), Bytes::from(state.encode())));
    let chunks = paused.write_chunks(tip, state).await.unwrap();
    // Meanwhile another keeps an older one, and sweeps what nobody lists.
    other.snapshot(old_tip, old).await.unwrap();
    let head = head_of(&bucket).await;
    assert_eq!(
        head.snapshot.as_ref().map(|snapshot| snapshot.tip),
        Some(old_tip)
    );
    let swept = bucket.path(&format!("metadata/{}", chunks.chunks[0].name));
    assert_eq!(bucket.read(&swept).await.unwrap(), None);
    paused.swing(0, chunks).await.unwrap();
    assert_eq!(head_of(&bucket).await, head);
    assert_eq!(bytes_of(&open(&bucket, 9).await), bytes_of(&metadata));
}

#[tokio::test(start_paused = true)]
async fn idle_costs_nothing_and_a_look_without_news_one_small_read() {
    let bucket = memory();
    let metadata = open(&bucket, 1).await;
    metadata.register(registration(1, 1)).await.unwrap();
    let before = bucket.requests();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(bucket.requests(), before);
    metadata.look().await.unwrap();
    let after = bucket.requests();
    assert_eq!(
        (after.get, after.get_bytes),
        (before.get + 1, before.get_bytes)
    );
    assert_eq!(after.total(), before.total() + 1);
    // An append to a head that is known is one write.
    put_done(&metadata, "a").await;
    assert_eq!(bucket.requests().total(), after.total() + 1);
}

#[tokio::test]
async fn a_second_process_with_the_same_node_id_fences_the_first_for_ever() {
    let bucket = memory();
    let first = open(&bucket, 1).await;
    let granted = first.register(registration(1, 11)).await.unwrap();
    let second = open(&bucket, 2).await;
    let newer = second.register(registration(1, 22)).await.unwrap();
    assert!(newer.epoch > granted.epoch);
    for _ in 0..2 {
        let create = CreateGroup {
            streams: 1,
            tags: vec![],
            open: false,
        };
        let error = first
            .submit_one(Command::CreateGroup(create))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }
    assert_eq!(first.watch().borrow().fenced, Some(newer.epoch));
    assert!(!first.seen_current_within(Duration::from_secs(3600)));
    // It never registers again by itself, nor when told to.
    let again = first.register(registration(1, 11)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Fenced);
    put_done(&second, "a").await;
    assert_eq!(second.watch().borrow().fenced, Seen::default().fenced);
}
