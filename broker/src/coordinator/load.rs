//! Loading: every record of a partition's log, in order, into a new machine.

use std::time::Duration;

use kafka_protocol::records::{Record, RecordBatchDecoder};
use segment_adapter::{Isolation, KafkaLog, LogError};

use tokio::time::timeout;

use super::machine::{Machine, Stored, StoredError};

/// Read at a time, in bytes; a batch that is larger is read all the same.
const READ_BYTES: usize = 1 << 20;

/// Decompressed of one batch: as much as logs take of one.
const DECOMPRESSED_BYTES_MAX: u64 = 128 << 20;

/// How long what was written before may take to be durable.
const DURABLE_MAX: Duration = Duration::from_secs(10);

/// Why a partition was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("offset {offset}: {error}")]
    Stored { offset: i64, error: StoredError },
    #[error("what is at offset {offset} is not durable yet")]
    NotDurable { offset: i64 },
    #[error("a batch after offset {offset}: {reason}")]
    Batch { offset: i64, reason: String },
}

/// What the key of a marker says.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// Replays what the log has up to its end of now. All of it must become durable.
pub(super) async fn replay<M: Machine>(log: &KafkaLog, machine: &mut M) -> Result<(), LoadError> {
    let offsets = log.offsets();
    let (mut next, end) = (offsets.log_start, offsets.leo);
    while next < end {
        let read = log
            .read(next, READ_BYTES, true, Isolation::HighWatermark)
            .await?;
        if read.records.is_empty() {
            // What lies ahead is not durable yet, or compaction has left nothing of it.
            if read.offsets.hw >= end {
                return Ok(());
            }
            // Other partitions wait for their turn.
            let waited = timeout(DURABLE_MAX, log.wait_for_hw(read.offsets.hw)).await;
            waited.map_err(|_| LoadError::NotDurable { offset: next })??;
            continue;
        }
        for batch in read.records {
            next = replay_batch(batch, next, machine)?;
        }
    }
    Ok(())
}

/// Replays a batch; the offset that follows it.
fn replay_batch<M: Machine>(
    bytes: bytes::Bytes,
    offset: i64,
    machine: &mut M,
) -> Result<i64, LoadError> {
    let damaged = |reason: String| LoadError::Batch { offset, reason };
    let mut next = offset;
    for batch in segment_adapter::Batches::new(bytes) {
        let batch = batch?;
        next = batch.header().last_offset().saturating_add(1);
        // A batch of which compaction has left nothing.
        if batch.header().records_count == 0 {
            continue;
        }
        // The codec of the protocol is built without those of records.
        let batch = batch.decompressed(DECOMPRESSED_BYTES_MAX)?;
        let decoded = RecordBatchDecoder::decode(&mut batch.bytes().clone())
            .map_err(|error| damaged(error.to_string()))?;
        for record in decoded.records {
            // A batch may begin below the offset that was asked for.
            if record.offset < offset {
                continue;
            }
            if record.control {
                replay_control(&record, machine);
            } else {
                replay_record(record, machine)?;
            }
        }
    }
    if next > offset {
        Ok(next)
    } else {
        Err(damaged("no whole batch".into()))
    }
}

fn replay_control<M: Machine>(record: &Record, machine: &mut M) {
    let kind = record.key.as_ref().and_then(|key| key.get(2..4));
    let kind = kind.map(|kind| i16::from_be_bytes([kind[0], kind[1]]));
    match kind {
        Some(ABORT) => machine.replay_end(record.producer_id, false),
        Some(COMMIT) => machine.replay_end(record.producer_id, true),
        // Other control records mean nothing here.
        _ => {}
    }
}

fn replay_record<M: Machine>(record: Record, machine: &mut M) -> Result<(), LoadError> {
    let offset = record.offset;
    let producer_id = record.transactional.then_some(record.producer_id);
    let stored = Stored {
        // No record without a key is written; it would mean nothing.
        key: record.key.unwrap_or_default(),
        value: record.value,
    };
    match M::decode(&stored).map_err(|error| LoadError::Stored { offset, error })? {
        Some(record) => machine.replay(record, producer_id),
        None => tracing::debug!(offset, "a record of an unknown kind is passed over"),
    }
    Ok(())
}
