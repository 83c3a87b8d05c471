//! A partition's log on an engine: Kafka's acceptance vectors by their numbers, and what a crash leaves.

#![allow(clippy::unwrap_used)]

mod append;
mod compact;
mod epochs;
mod follower;
mod limits;
mod model;
mod opening;
mod producers;
mod producers_model;
mod races;
mod read;
mod reopen;
mod retention;
mod segments;
mod times;
mod transactions;
mod truncate;
mod watermark;
mod world;

use bytes::Bytes;
use segment_adapter::{
    AppendInfo, Batch, BatchBuilder, Batches, Codec, FetchData, Isolation, KafkaLog, LogConfig,
    LogError,
};
use world::{World, block_on, block_on_paused};

const EPOCH: i32 = 7;
const HW: Isolation = Isolation::HighWatermark;
const MIB: u64 = 1 << 20;

async fn open_with(world: &World, config: LogConfig) -> KafkaLog {
    let open =
        async || KafkaLog::open(world.streams().await, config.clone(), world.clock.clone()).await;
    world.again().until_done(open).await
}

async fn open(world: &World) -> KafkaLog {
    open_with(world, LogConfig::default()).await
}

/// A batch of records `timestamp`, each with a key and the value `payload`.
fn batch(codec: Codec, timestamps: &[i64], payload: &[u8]) -> Bytes {
    timestamps
        .iter()
        .fold(BatchBuilder::new(codec), |batch, timestamp| {
            batch.record(*timestamp, Some(b"key"), Some(payload))
        })
        .build()
        .unwrap()
}

/// Appends and waits until it is durable.
async fn put(log: &KafkaLog, records: Bytes) -> AppendInfo {
    let handle = log.append_as_leader(records, EPOCH).unwrap();
    let info = handle.info.clone();
    handle.durable().await.unwrap();
    info
}

/// Appends one batch of `count` small records with time 1000.
async fn put_records(log: &KafkaLog, count: usize) -> AppendInfo {
    put(log, batch(Codec::None, &vec![1000; count], b"value")).await
}

fn refused(log: &KafkaLog, records: Bytes) -> LogError {
    log.append_as_leader(records, EPOCH).unwrap_err()
}

/// The one batch of each payload.
fn batches(data: &FetchData) -> Vec<Batch> {
    data.records
        .iter()
        .map(|bytes| {
            let mut batches = Batches::new(bytes.clone());
            let batch = batches.next().unwrap().unwrap();
            assert!(batches.next().is_none() && batches.rest().is_empty());
            batch.verify_checksum().unwrap();
            batch
        })
        .collect()
}

/// Base and last offset of every batch from `start` on, read in small pieces.
async fn extents(log: &KafkaLog, start: i64) -> Vec<(i64, i64)> {
    let mut at = start;
    let mut out = Vec::new();
    loop {
        let data = log.read(at, 100, true, HW).await.unwrap();
        for batch in batches(&data) {
            out.push((batch.header().base_offset, batch.header().last_offset()));
            at = batch.header().last_offset() + 1;
        }
        if data.records.is_empty() {
            return out;
        }
    }
}
