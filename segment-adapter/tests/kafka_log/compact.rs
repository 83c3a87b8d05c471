//! Compaction on a whole log: what its readers see before and after passes, and what a crash in the middle of one leaves.

mod model;
mod settings;
mod swap;
mod transactions;
mod vectors;
mod view;

use std::collections::BTreeMap;

use segment_adapter::{Compacted, Compactor, CompactorConfig, EndTxn, TransactionVersion};

use super::*;
use view::{View, records};

const COMMITTED: Isolation = Isolation::TxnCommitted;
/// `delete.retention.ms` of these logs.
const RETENTION_MS: i64 = 100;
const NOW: i64 = 1_000_000;

fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        delete_retention_ms: RETENTION_MS,
        min_cleanable_dirty_ratio: 0.0,
        producer_expiration_ms: i64::MAX,
        verify_transactions: false,
        index_interval_bytes: 4096,
        ..LogConfig::default()
    }
}

async fn new_log(world: &World) -> KafkaLog {
    open_with(world, compacted()).await
}

/// With room for so many keys.
fn compactor(keys: usize) -> Compactor {
    let config = CompactorConfig {
        dedupe_buffer_bytes: keys * 24,
        io_bytes_per_second: None,
    };
    Compactor::new(config).unwrap()
}

/// A pass with room for all keys.
async fn compact_at(log: &KafkaLog, now_ms: i64) -> Compacted {
    let done = log.compact(&mut compactor(10_000), now_ms).await.unwrap();
    assert!(done.finished);
    done
}

async fn compact(log: &KafkaLog) -> Compacted {
    compact_at(log, NOW).await
}

/// Records with these keys and values; an empty value is a tombstone.
fn keyed(records: &[(&str, &str)]) -> BatchBuilder {
    let builder = BatchBuilder::new(Codec::None);
    records.iter().fold(builder, |batch, (key, value)| {
        let value = (!value.is_empty()).then_some(value.as_bytes());
        batch.record(1000, Some(key.as_bytes()), value)
    })
}

async fn put_keyed(log: &KafkaLog, records: &[(&str, &str)]) -> AppendInfo {
    put(log, keyed(records).build().unwrap()).await
}

/// Producers that never go wrong, in epoch 0.
#[derive(Default)]
struct Senders(BTreeMap<i64, i32>);

impl Senders {
    fn next(&mut self, id: i64, records: &[(&str, &str)]) -> BatchBuilder {
        let sequence = self.0.entry(id).or_default();
        let batch = keyed(records).producer(id, 0, *sequence);
        *sequence += records.len() as i32;
        batch
    }

    async fn send(&mut self, log: &KafkaLog, id: i64, records: &[(&str, &str)]) -> AppendInfo {
        put(log, self.next(id, records).build().unwrap()).await
    }

    async fn send_in_txn(
        &mut self,
        log: &KafkaLog,
        id: i64,
        records: &[(&str, &str)],
    ) -> AppendInfo {
        let batch = self.next(id, records).transactional();
        put(log, batch.build().unwrap()).await
    }
}

async fn end_txn(log: &KafkaLog, id: i64, commit: bool) -> AppendInfo {
    let end = EndTxn {
        producer_id: id,
        producer_epoch: 0,
        coordinator_epoch: 0,
        commit,
        version: TransactionVersion::V1,
    };
    let handle = log.append_end_txn(end, EPOCH).unwrap();
    let info = handle.info.clone();
    handle.durable().await.unwrap();
    info
}

/// Offsets of the records that can be read, markers included.
async fn offsets(log: &KafkaLog) -> Vec<i64> {
    let view = View::of(log, HW).await;
    view.records().map(|record| record.offset).collect()
}

/// Keys of the data that can be read.
async fn keys(log: &KafkaLog) -> String {
    let view = View::of(log, HW).await;
    let keys = view.data().map(|record| record.key_text());
    keys.collect::<Vec<_>>().join(" ")
}
