//! What a log refuses when it holds as much as it may, and how it gets room again.

use segment_adapter::EndTxn;
use segment_adapter::TransactionVersion::V1;

use super::*;

fn txn(id: i64, sequence: i32) -> Bytes {
    let batch = BatchBuilder::new(Codec::None).record(1000, Some(b"k"), Some(b"v"));
    let batch = batch.producer(id, 0, sequence).transactional();
    batch.build().unwrap()
}

async fn end(log: &KafkaLog, id: i64, commit: bool) {
    let end = EndTxn {
        producer_id: id,
        producer_epoch: 0,
        coordinator_epoch: 0,
        commit,
        version: V1,
    };
    let handle = log.append_end_txn(end, EPOCH).unwrap();
    handle.durable().await.unwrap();
}

async fn told(log: &KafkaLog) -> usize {
    let start = log.offsets().log_start;
    let read = log.read(start, 1 << 20, true, Isolation::TxnCommitted);
    read.await.unwrap().aborted.unwrap().len()
}

#[tokio::test]
async fn no_transaction_begins_when_as_many_are_aborted_as_are_kept_and_all_of_them_are_told() {
    let mut world = World::new().await;
    let config = LogConfig {
        verify_transactions: false,
        aborted_max: 3,
        ..LogConfig::default()
    };
    let log = open_with(&world, config.clone()).await;
    for id in [1, 2] {
        put(&log, txn(id, 0)).await;
    }
    end(&log, 1, false).await;
    put(&log, txn(3, 0)).await;
    // One is kept, and two are open.
    assert_eq!(refused(&log, txn(4, 0)).code(), 7);
    // Those go on, and their markers are taken.
    put(&log, txn(2, 1)).await;
    for id in [2, 3] {
        end(&log, id, false).await;
    }
    assert_eq!(told(&log).await, 3);
    assert_eq!(refused(&log, txn(4, 0)).code(), 7);
    // What is no part of a transaction is taken.
    put_records(&log, 1).await;
    log.close().await.unwrap();
    world.crash().await;
    let log = open_with(&world, config).await;
    assert_eq!(told(&log).await, 3);
    assert_eq!(refused(&log, txn(4, 0)).code(), 7);
    // Until the log start passes a marker, or one more may be kept.
    log.delete_records(3).await.unwrap();
    assert_eq!(told(&log).await, 2);
    put(&log, txn(4, 0)).await;
    end(&log, 4, true).await;
    put(&log, txn(5, 0)).await;
    assert_eq!(refused(&log, txn(6, 0)).code(), 7);
    let more = LogConfig {
        aborted_max: 4,
        ..(*log.config()).clone()
    };
    log.update_config(more).unwrap();
    put(&log, txn(6, 0)).await;
}
