//! The metadata on a real S3 server: contenders, restarts, snapshots and clean-up. Run by `.ci/run s3`.
#![cfg(all(feature = "aws", feature = "testing"))]

use std::sync::Arc;

use bytes::Bytes;
use s3stream::{
    BootClock, Entropy, NodeId,
    metadata::{
        Answer, BucketLimits, BucketSequencer, Command, Expect, KvPut, Metadata, Registration,
    },
    store::{Bucket, BucketPlace, ClusterFile, Credentials},
    testing::SeaweedFs,
};

const NODES: u64 = 3;
const PUTS: u64 = 15;

/// Segments and snapshots come and go within the test.
const LIMITS: BucketLimits = BucketLimits {
    inline_bytes: 1 << 10,
    segments_bytes: 2 << 10,
    chunk_bytes: 1 << 10,
};

fn bucket(server: &SeaweedFs) -> Bucket {
    let place: BucketPlace = server.url("metadata-test").parse().expect("a place");
    let pairs = server.environment();
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    place
        .open(&Credentials::from_pairs(pairs), &Entropy::from_os())
        .expect("a bucket")
}

async fn open(bucket: &Bucket, node: u64) -> Metadata {
    let entropy = Entropy::from_os();
    let cluster = ClusterFile::open(bucket, &entropy, None)
        .await
        .expect("a cluster");
    let sequencer = BucketSequencer::new(bucket.clone(), cluster.id, entropy.clone());
    let sequencer = Box::new(sequencer.with_limits(LIMITS));
    let metadata = Metadata::open(sequencer, Arc::new(BootClock), entropy.clone())
        .await
        .expect("metadata");
    let registration = Registration {
        node: NodeId::new(node),
        incarnation: entropy.next_u128(),
        attempt: 1,
        log: None,
    };
    metadata.register(registration).await.expect("registered");
    metadata
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn seaweedfs_holds_the_metadata_of_contending_nodes() {
    let server = SeaweedFs::start().expect("an S3 server");
    let bucket = bucket(&server);
    // All meet an empty bucket: one makes the cluster, the others find it.
    let node = |node: u64| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let metadata = open(&bucket, node).await;
            for count in 0..PUTS {
                let put = KvPut {
                    key: Bytes::from(format!("{node}/{count}")),
                    expect: Some(Expect::Absent),
                    value: Some(Bytes::from(vec![7; 100])),
                };
                let answer = metadata
                    .submit_one(Command::KvPut(put))
                    .await
                    .expect("an answer");
                assert!(matches!(answer, Answer::KvDone { .. }), "{answer:?}");
            }
            metadata
        })
    };
    let nodes: Vec<_> = (1..=NODES).map(node).collect();
    let mut states = Vec::new();
    for node in nodes {
        let metadata = node.await.expect("a node that finished");
        states.push(metadata);
    }
    let fresh = open(&bucket, 99).await;
    let expected = fresh.view(|state| state.encode());
    assert_eq!(
        fresh.view(|state| state.kv_prefix(b"").count() as u64),
        NODES * PUTS
    );
    for metadata in states {
        metadata.look().await.expect("a look");
        assert_eq!(metadata.view(|state| state.encode()), expected);
    }
    // A look without news is answered by 304.
    let before = bucket.requests();
    fresh.look().await.expect("a look");
    let after = bucket.requests();
    assert_eq!(
        (after.get, after.get_bytes),
        (before.get + 1, before.get_bytes)
    );
}
