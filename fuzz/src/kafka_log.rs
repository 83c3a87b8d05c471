//! The meta stream of a Kafka log: a log of any edits is refused, or is one that can be read, appended to and opened again.
//!
//! The input is a list of records of the meta stream, each behind two bytes of length, beside the data of a log that was
//! written before. What is opened has `log_start <= lso <= hw <= leo`, and says the same of itself when it is opened again.
//!
//! [`run_producers`] has its input in the place of what such a log keeps of its producers and their transactions alone.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use s3stream::{Engine, Stream};
use segment_adapter::{
    BatchBuilder, Codec, EndTxn, Isolation, KafkaLog, LogConfig, LogError, TransactionVersion,
    WallClock,
};

/// Records of one input: more would only make each slower.
const RECORDS_MAX: usize = 64;

/// Version of a record of edits, and the kind of an edit of the owner's state.
const STATE_EDIT: [u8; 2] = [2, 7];
/// The kind and the length of an edit.
const STATE_HEAD: usize = 1 + 4;

struct StoppedClock;

impl WallClock for StoppedClock {
    fn now_ms(&self) -> i64 {
        2_000
    }
}

/// What a log has written: its batches with the offsets they take, and its edits.
struct Written {
    data: Vec<(u64, Bytes)>,
    meta: Vec<Bytes>,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| block_on(write()));

/// Opens a log whose meta stream is `data`.
pub fn run(data: &[u8]) {
    let _opened = opens(data);
}

/// Whether there is a log.
fn opens(data: &[u8]) -> bool {
    let written = &*WRITTEN;
    block_on(async {
        let (_engine, streams) = streams().await;
        for (count, batch) in &written.data {
            append(&streams[0], *count, batch).await;
        }
        for record in records(data) {
            append(&streams[1], 1, record).await;
        }
        check(streams).await
    })
}

/// Opens a log that keeps `data` as the state of its producers: version and kind of an edit, its length, itself.
pub fn run_producers(data: &[u8]) {
    let _opened = opens_with_producers(data);
}

fn opens_with_producers(data: &[u8]) -> bool {
    let written = &*WRITTEN;
    let edit = [&STATE_EDIT[..], &(data.len() as u32).to_be_bytes(), data].concat();
    block_on(async {
        let (_engine, streams) = streams().await;
        for (count, batch) in &written.data {
            append(&streams[0], *count, batch).await;
        }
        for record in &written.meta[..1] {
            append(&streams[1], 1, record).await;
        }
        append(&streams[1], 1, &edit).await;
        check(streams).await
    })
}

/// What a log has kept of its producers, and the whole of it as a checkpoint has it.
pub fn producer_seeds() -> Vec<Vec<u8>> {
    let edits = WRITTEN.meta.iter().flat_map(|record| {
        let at = (1..record.len()).find(|at| is_state(&record[*at..]))?;
        Some(record[at + STATE_HEAD..].to_vec())
    });
    edits.collect()
}

/// Whether a record ends with an edit of the owner's state that begins here.
fn is_state(rest: &[u8]) -> bool {
    let Some((head, body)) = rest.split_first_chunk::<STATE_HEAD>() else {
        return false;
    };
    let [kind, len @ ..] = *head;
    kind == STATE_EDIT[1] && u32::from_be_bytes(len) as usize == body.len()
}

/// A log with producers, transactions and three leader epochs in two segments, whole and with its first records alone.
pub fn seeds() -> Vec<Vec<u8>> {
    let meta = &WRITTEN.meta;
    let framed = |records: &[Bytes]| {
        let framed = records
            .iter()
            .map(|record| [&(record.len() as u16).to_be_bytes(), &record[..]].concat());
        framed.collect::<Vec<_>>().concat()
    };
    vec![framed(meta), framed(&meta[..meta.len() / 2])]
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// The engine must outlive its streams.
async fn streams() -> (Engine, Vec<Stream>) {
    let engine = Engine::builder().bucket("memory:").wal("memory:");
    let engine = engine.open().await.expect("an engine in memory");
    let created = engine.create_group(KafkaLog::STREAMS, Vec::new()).await;
    let streams = created.expect("a group").1;
    (engine, streams)
}

async fn append(stream: &Stream, count: u64, record: &[u8]) {
    let append = stream.append(count, &[record]).expect("room in memory");
    append.await.expect("memory does not fail");
}

fn records(data: &[u8]) -> Vec<&[u8]> {
    let mut rest = data;
    let mut records = Vec::new();
    while records.len() < RECORDS_MAX
        && let Some((len, behind)) = rest.split_first_chunk::<2>()
    {
        let len = usize::from(u16::from_be_bytes(*len)).min(behind.len());
        if len > 0 {
            records.push(&behind[..len]);
        }
        rest = &behind[len..];
    }
    records
}

fn builder(producer: i64, epoch: i16, sequence: i32) -> BatchBuilder {
    let batch = BatchBuilder::new(Codec::None).record(1_000, Some(b"key"), Some(b"value"));
    batch.producer(producer, epoch, sequence)
}

fn batch(producer: i64, epoch: i16, sequence: i32) -> Bytes {
    let batch = builder(producer, epoch, sequence).build();
    batch.expect("a small batch")
}

async fn open(streams: Vec<Stream>) -> Result<KafkaLog, LogError> {
    let config = LogConfig {
        verify_transactions: false,
        ..LogConfig::default()
    };
    KafkaLog::open(streams, config, Arc::new(StoppedClock)).await
}

/// Ends a transaction of producer 9.
async fn end_txn(log: &KafkaLog, commit: bool, leader_epoch: i32) -> Result<(), LogError> {
    let end = EndTxn {
        producer_id: 9,
        producer_epoch: 0,
        coordinator_epoch: 3,
        commit,
        version: TransactionVersion::V1,
    };
    log.append_end_txn(end, leader_epoch)?.durable().await
}

async fn write() -> Written {
    let (_engine, streams) = streams().await;
    let log = open(streams.clone()).await.expect("a new log");
    for (sequence, leader_epoch) in [(0, 1), (1, 1), (2, 3), (3, 3), (4, 4)] {
        for producer in [7, 8] {
            let append = log.append_as_leader(batch(producer, 0, sequence), leader_epoch);
            let append = append.expect("a batch in order").durable().await;
            append.expect("memory does not fail");
        }
        let batch = builder(9, 0, sequence).transactional().build();
        let append = log.append_as_leader(batch.expect("a small batch"), leader_epoch);
        let append = append.expect("a batch in order").durable().await;
        append.expect("memory does not fail");
        if sequence % 3 != 1 {
            let ended = end_txn(&log, sequence == 0, leader_epoch).await;
            ended.expect("it is open");
        }
        if sequence == 2 {
            log.roll().expect("room in memory");
        }
    }
    log.delete_records(1).await.expect("below the end");
    log.close().await.expect("nothing in flight");
    let (mut data, mut meta) = (Vec::new(), Vec::new());
    for (stream, of_data) in [(&streams[0], true), (&streams[1], false)] {
        let fetched = stream.fetch(stream.start(), 1 << 20).await;
        for record in fetched.expect("what was written").records {
            let count = record.offsets.end - record.offsets.start;
            // A copy, as it outlives its engine.
            let payload = Bytes::copy_from_slice(&record.payload);
            if of_data {
                data.push((count, payload));
            } else {
                meta.push(payload);
            }
        }
    }
    Written { data, meta }
}

/// `false` if it is refused.
async fn check(streams: Vec<Stream>) -> bool {
    let Ok(log) = open(streams.clone()).await else {
        return false;
    };
    let offsets = log.offsets();
    assert!(offsets.log_start <= offsets.lso && offsets.lso <= offsets.hw);
    assert!(offsets.hw <= offsets.leo);
    let starts = log.epoch_starts();
    assert!(starts.is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start));
    let committed = Isolation::TxnCommitted;
    if let Ok(read) = log.read(offsets.log_start, 1 << 20, true, committed).await {
        assert_eq!(read.offsets, offsets);
        assert!(read.aborted.is_some());
    }
    // In order, or refused: the edits may know the producer otherwise than the data.
    if let Ok(append) = log.append_as_leader(batch(7, 0, 5), 9)
        && !append.info.duplicate
    {
        assert_eq!(append.info.first_offset, offsets.leo);
        append.durable().await.expect("memory does not fail");
        assert_eq!(log.offsets().hw, offsets.leo + 1);
    }
    // Whoever has an open transaction can be ended, which lets what is stable move on.
    for producer in log.active_producers() {
        let ended = log.append_end_txn(
            EndTxn {
                producer_id: producer.producer_id,
                producer_epoch: producer.epoch,
                coordinator_epoch: producer.coordinator_epoch,
                commit: false,
                version: TransactionVersion::V1,
            },
            9,
        );
        ended
            .expect("epochs that are known")
            .durable()
            .await
            .expect("memory does not fail");
    }
    assert_eq!(
        (log.first_unstable_offset(), log.offsets().lso),
        (None, log.offsets().hw)
    );
    let producers = log.active_producers();
    // Older epochs may be others when the notes contradict one another, which no log writes.
    let (offsets, epoch) = (log.offsets(), log.latest_epoch());
    drop(log);
    let again = open(streams).await.expect("what was opened opens again");
    assert_eq!((again.offsets(), again.latest_epoch()), (offsets, epoch));
    assert_eq!(again.active_producers(), producers);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_logs_and_have_transactions() {
        assert!(seeds().iter().all(|seed| opens(seed)));
        let producers = producer_seeds();
        assert!(producers.iter().all(|seed| opens_with_producers(seed)));
        // Kind 3 is an aborted transaction, at the end of a change.
        let aborted = |seed: &Vec<u8>| seed.len() > 33 && seed[seed.len() - 33] == 3;
        assert!(producers.iter().any(aborted), "{producers:?}");
    }
}
