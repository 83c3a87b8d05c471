//! A reader of committed data is told which transactions were aborted.
//!
//! The transactions are written through the log of the partition, with the broker's own engine; a restart makes the broker
//! see them.

use std::sync::Arc;

use kafka_protocol::messages::{ApiKey, FetchResponse};
use segment_adapter::{
    AppendHandle, BatchBuilder, Batches, Codec, EndTxn, KafkaLog, LogConfig, TransactionVersion,
    WallClock,
};

use super::support::{Running, fetch, on_disk};

struct StoppedClock;

impl WallClock for StoppedClock {
    fn now_ms(&self) -> i64 {
        1_000
    }
}

async fn durable(append: AppendHandle) {
    append.durable().await.unwrap();
}

/// Two transactions of producers 7 and 8, of which the former is aborted, and one of 9 that is open.
async fn write(engine: &s3stream::Engine) {
    let groups = engine.groups_tagged("kafka", "partition");
    let streams = engine.open_group(groups[0]).await.unwrap();
    let config = LogConfig {
        verify_transactions: false,
        ..LogConfig::default()
    };
    let log = KafkaLog::open(streams, config, Arc::new(StoppedClock));
    let log = log.await.unwrap();
    for producer in [7, 8, 9] {
        let batch = BatchBuilder::new(Codec::None).record(1_000, None, Some(b"v"));
        let batch = batch.producer(producer, 0, 0).transactional();
        durable(log.append_as_leader(batch.build().unwrap(), 0).unwrap()).await;
    }
    for (producer_id, commit) in [(7, false), (8, true)] {
        let end = EndTxn {
            producer_id,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
            version: TransactionVersion::V1,
        };
        durable(log.append_end_txn(end, 0).unwrap()).await;
    }
    log.close().await.unwrap();
}

#[test]
fn a_reader_of_committed_data_is_told_which_transactions_were_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    running.client().create("t", 1);
    running.wait(write(running.engine()));
    running.stop();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    for version in [4, 11, 12] {
        for (level, batches, told) in [(0, 5, None), (1, 2, Some(vec![(7, 0)]))] {
            let mut request = fetch("t", &[(0, 0)]);
            request.isolation_level = level;
            let answer: FetchResponse = client.call(ApiKey::Fetch, version, &request);
            let partition = &answer.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            assert_eq!(
                (partition.high_watermark, partition.last_stable_offset),
                (5, 2)
            );
            let aborted = partition.aborted_transactions.as_ref().map(|all| {
                let pairs = all.iter().map(|txn| (txn.producer_id.0, txn.first_offset));
                pairs.collect::<Vec<_>>()
            });
            assert_eq!(aborted, told, "v{version}");
            let records = partition.records.clone().unwrap();
            assert_eq!(Batches::new(records).count(), batches, "v{version}");
        }
    }
    running.stop();
}
