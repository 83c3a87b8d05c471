//! The meta stream of a Kafka log: a log of any edits is refused, or is one that can be read, appended to and opened again.
//!
//! The input is a list of records of the meta stream, each behind two bytes of length, beside the data of a log that was
//! written before. What is opened has `log_start <= hw <= leo`, and says the same of itself when it is opened again.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use s3stream::{Engine, Stream};
use segment_adapter::{BatchBuilder, Codec, Isolation, KafkaLog, LogConfig, LogError, WallClock};

/// Records of one input: more would only make each slower.
const RECORDS_MAX: usize = 64;

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
    let written = &*WRITTEN;
    block_on(async {
        let (_engine, streams) = streams().await;
        for (count, batch) in &written.data {
            append(&streams[0], *count, batch).await;
        }
        for record in records(data) {
            append(&streams[1], 1, record).await;
        }
        check(streams).await;
    });
}

/// A log with two producers and three leader epochs in two segments, whole and with its first records alone.
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

fn batch(producer: i64, epoch: i16, sequence: i32) -> Bytes {
    let batch = BatchBuilder::new(Codec::None).record(1_000, Some(b"key"), Some(b"value"));
    let batch = batch.producer(producer, epoch, sequence).build();
    batch.expect("a small batch")
}

async fn open(streams: Vec<Stream>) -> Result<KafkaLog, LogError> {
    KafkaLog::open(streams, LogConfig::default(), Arc::new(StoppedClock)).await
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

async fn check(streams: Vec<Stream>) {
    let Ok(log) = open(streams.clone()).await else {
        return;
    };
    let offsets = log.offsets();
    assert!(offsets.log_start <= offsets.hw && offsets.hw <= offsets.leo);
    let starts = log.epoch_starts();
    assert!(starts.is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start));
    let committed = Isolation::TxnCommitted;
    if let Ok(read) = log.read(offsets.log_start, 1 << 20, true, committed).await {
        assert_eq!(read.offsets, offsets);
    }
    // In order, or refused: the edits may know the producer otherwise than the data.
    if let Ok(append) = log.append_as_leader(batch(7, 0, 5), 9)
        && !append.info.duplicate
    {
        assert_eq!(append.info.first_offset, offsets.leo);
        append.durable().await.expect("memory does not fail");
        assert_eq!(log.offsets().hw, offsets.leo + 1);
    }
    // Older epochs may be others when the notes contradict one another, which no log writes.
    let (offsets, epoch) = (log.offsets(), log.latest_epoch());
    drop(log);
    let again = open(streams).await.expect("what was opened opens again");
    assert_eq!((again.offsets(), again.latest_epoch()), (offsets, epoch));
}
