//! The object log on real S3 servers: the suite, and owners that are replaced while they write. Run by `.ci/run s3`.
#![cfg(all(feature = "aws", feature = "testing"))]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::ObjectStore;
use s3stream::testing::{Moto, SeaweedFs};
use wal::{
    Backend, Error, Identity, LogEpoch, LogState, LogUuid,
    object::{Config, ObjectLog},
    testing::{Hear, HostileStore, Whims, conformance},
};

async fn keeps_the_contract(store: Arc<dyn ObjectStore>) {
    let cases = AtomicU64::new(0);
    let config = Config {
        capacity: 4 << 20,
        ..Config::default()
    };
    conformance(|| {
        let prefix = format!("conformance/{}", cases.fetch_add(1, Ordering::Relaxed));
        let (store, config) = (Arc::clone(&store), config.clone());
        move || {
            let log = ObjectLog::new(Arc::clone(&store), &prefix, 7).expect("a place");
            Arc::new(log.with_config(config.clone())) as Arc<dyn Backend>
        }
    })
    .await;
}

/// Owner after owner is replaced while it writes as fast as it can: what each of them acknowledged is replayed by all after it.
async fn replaced_while_they_write(store: Arc<dyn ObjectStore>) {
    const LIVES: u64 = 12;
    let identity = Identity {
        cluster: 1,
        log: LogUuid::new(2),
        node: 3,
    };
    let mut state = LogState::new(identity, LogEpoch::new(1));
    let config = Config {
        overlap_bytes: 0,
        commit_bytes_max: 2_000,
        puts_per_s: 10_000,
        puts_burst: 10_000,
        ..Config::default()
    };
    let mut acknowledged: Vec<Vec<u8>> = Vec::new();
    let mut before: Option<(Arc<Hear>, tokio::task::JoinHandle<()>)> = None;
    for life in 1..=LIVES {
        let log = ObjectLog::new(Arc::clone(&store), "replaced", life.into()).expect("a place");
        let place = log.with_config(config.clone());
        let mut replay = place.open(&state).await.expect("the log opens");
        let mut replayed = Vec::new();
        while let Some(piece) = replay.next().await.expect("a replay") {
            replayed.extend(piece.into_iter().map(|record| record.payload.to_vec()));
        }
        if let Some((hear, writer)) = before.take() {
            writer.await.expect("the owner before ends, fenced");
            let heard = hear.heard();
            assert!(
                matches!(heard.failed, Some(Error::Fenced { .. })),
                "{:?}",
                heard.failed
            );
            acknowledged.extend(heard.records.iter().map(|record| record.payload.to_vec()));
        }
        let mut rest = replayed.iter();
        for record in &acknowledged {
            assert!(
                rest.any(|replayed| replayed == record),
                "W5: acknowledged by the {life}th, not replayed or out of order"
            );
        }
        state.begin(replay.ends(), replay.start_position());
        state.grant(LogEpoch::new(life + 1));
        let hear = Hear::new();
        let log = replay
            .start(Arc::clone(&hear) as _)
            .await
            .expect("the log starts");
        let told = Arc::clone(&hear);
        let writer = tokio::spawn(async move {
            for n in 0.. {
                let mut payload = vec![0; 700];
                payload[..16].copy_from_slice(&[life.to_be_bytes(), u64::to_be_bytes(n)].concat());
                match log.append(&[&payload]) {
                    Ok(_) => {}
                    Err(Error::Fenced { .. }) => return,
                    Err(error) => panic!("{error}"),
                }
                // Some are always on their way.
                told.until("an answer", |h| {
                    h.records.len() as u64 + 8 > n || h.failed.is_some()
                })
                .await;
            }
        });
        hear.until_durable(20).await;
        before = Some((hear, writer));
    }
    if let Some((_, writer)) = before {
        writer.abort();
    }
    assert!(acknowledged.len() as u64 >= 20 * (LIVES - 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn the_object_log_on_seaweedfs_keeps_the_contract_and_fences_owners_that_write() {
    let server = SeaweedFs::start().expect("an S3 server");
    let store: Arc<dyn ObjectStore> = Arc::new(server.store().expect("a client"));
    keeps_the_contract(Arc::clone(&store)).await;
    replaced_while_they_write(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn the_object_log_on_seaweedfs_behind_a_hostile_way_fences_owners_that_write() {
    let server = SeaweedFs::start().expect("an S3 server");
    let whims = Whims {
        refuses: 5,
        forgets: 5,
        conflicts: 5,
        cuts: 5,
        wait_max: Duration::from_millis(2),
        ..Whims::default()
    };
    let store = Arc::new(server.store().expect("a client"));
    replaced_while_they_write(Arc::new(HostileStore::new(store, whims, 7))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto: .ci/run s3"]
async fn the_object_log_on_moto_keeps_the_contract_and_fences_owners_that_write() {
    let server = Moto::start().expect("moto");
    let store: Arc<dyn ObjectStore> = Arc::new(server.store().expect("a client"));
    keeps_the_contract(Arc::clone(&store)).await;
    replaced_while_they_write(store).await;
}
