//! What an idle partition costs in memory, counted byte by byte: alone in its binary, because the allocator is the process's.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use object_store::memory::InMemory;
use peak_alloc::PeakAlloc;
use s3stream::wal::memory::MemoryLog;
use s3stream::{Engine, GroupId};
use segment_adapter::{BatchBuilder, Codec, KafkaLog, LogConfig, WallClock};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Enough that what an engine costs by itself does not count.
const PARTITIONS: usize = 500;
const IDLE_BYTES_MAX: usize = 16 << 10;

struct Standing;

impl WallClock for Standing {
    fn now_ms(&self) -> i64 {
        1_000_000
    }
}

async fn start(log: &MemoryLog, bucket: &Arc<InMemory>) -> Engine {
    let engine = Engine::builder()
        .object_store(bucket.clone(), "test")
        .wal_backend(Arc::new(log.clone()));
    engine.open().await.unwrap()
}

async fn open(engine: &Engine, group: GroupId) -> KafkaLog {
    let streams = engine.open_group(group).await.unwrap();
    let log = KafkaLog::open(streams, LogConfig::default(), Arc::new(Standing));
    log.await.unwrap()
}

async fn append(log: &KafkaLog, producer_id: i64, base_sequence: i32) {
    let batch = BatchBuilder::new(Codec::None)
        .producer(producer_id, 0, base_sequence)
        .record(1_000_000, Some(b"key"), Some(&[7; 100]));
    let append = log.append_as_leader(batch.build().unwrap(), 0).unwrap();
    append.durable().await.unwrap();
}

/// With everything that is kept of it: its state, its streams', the metadata's, its records in the log and in caches;
/// the bucket is in memory too and counts.
#[tokio::test]
async fn an_idle_partition_costs_at_most_16_kib() {
    let before = ALLOCATED.current_usage();
    let (wal, bucket) = (MemoryLog::new(), Arc::new(InMemory::new()));
    let engine = start(&wal, &bucket).await;
    let mut groups = Vec::new();
    for producer in 0..PARTITIONS as i64 {
        let created = engine.create_group(KafkaLog::STREAMS, Vec::new());
        let (group, _) = created.await.unwrap();
        append(&open(&engine, group).await, producer, 0).await;
        groups.push(group);
    }
    engine.flush().await.unwrap();
    for (producer, group) in groups.iter().enumerate() {
        append(&open(&engine, *group).await, producer as i64, 1).await;
    }
    // A crash: nothing was closed.
    drop(engine);

    let engine = start(&wal, &bucket).await;
    let mut logs = Vec::new();
    for group in &groups {
        logs.push(open(&engine, *group).await);
    }
    let each = (ALLOCATED.current_usage() - before) / PARTITIONS;
    println!("{each} bytes for an idle partition");
    assert!(logs.iter().all(|log| log.offsets().hw == 2));
    assert!(each <= IDLE_BYTES_MAX, "{each}");
}
