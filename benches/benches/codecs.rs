//! The codecs by themselves: records, and objects from and to bytes in memory.
//!
//! Each group has the same baseline over the same bytes, memcpy + crc32c: about what any store that keeps one copy and
//! one checksum must spend. `cargo bench -p s3stream-bench --bench codecs`.

use std::{hint::black_box, ops::Range};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use s3stream::{
    ClusterId, NodeEpoch, ObjectId, RECORD_HEADER_LEN, RecordBatch, StreamEpoch, StreamId,
    object::{FooterInfo, ObjectIndex, ObjectKind, ObjectWriter, TailStep, decode_block},
};

const CLUSTER: ClusterId = ClusterId::new(1);
const OBJECT: ObjectId = ObjectId::new(1);
const BLOCK_BYTES: usize = 256 << 10;
const OBJECT_BYTES: usize = 8 << 20;

fn payload(len: usize) -> Bytes {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn record(stream: u64, offsets: Range<u64>, payload: &Bytes) -> RecordBatch {
    RecordBatch {
        stream: StreamId::new(stream),
        epoch: StreamEpoch::new(1),
        offsets,
        payload: payload.clone(),
    }
}

/// About `OBJECT_BYTES` of records, spread evenly over `streams`.
fn records(record_bytes: usize, streams: u64) -> Vec<RecordBatch> {
    let payload = payload(record_bytes);
    let per_stream = (OBJECT_BYTES / record_bytes) as u64 / streams;
    (0..streams)
        .flat_map(|stream| (0..per_stream).map(move |at| (stream, at)))
        .map(|(stream, at)| record(stream, at..at + 1, &payload))
        .collect()
}

fn write(records: &[RecordBatch]) -> s3stream::Result<Vec<Bytes>> {
    let info = FooterInfo {
        cluster: CLUSTER,
        object: OBJECT,
        node_epoch: NodeEpoch::new(1),
        kind: ObjectKind::StreamSet,
    };
    let mut writer = ObjectWriter::new(info, BLOCK_BYTES);
    for record in records {
        writer.push(record)?;
    }
    Ok(writer.finish()?.parts)
}

fn read(object: &Bytes) -> s3stream::Result<usize> {
    let step = ObjectIndex::decode_tail(object, object.len() as u64, CLUSTER, OBJECT)?;
    let TailStep::Index(index) = step else {
        return Ok(0);
    };
    let mut records = 0;
    for block in index.all_blocks() {
        let bytes = object.slice(block.position.start as usize..block.position.end as usize);
        records += decode_block(bytes, &block)?.len();
    }
    Ok(records)
}

fn copy_and_checksum(bytes: &[u8], into: &mut BytesMut) -> u32 {
    into.clear();
    into.extend_from_slice(bytes);
    crc32c::crc32c(into)
}

fn record_codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for len in [100, 1 << 10, 64 << 10] {
        let record = record(1, 5..9, &payload(len));
        let mut encoded = BytesMut::with_capacity(len + RECORD_HEADER_LEN);
        encoded.extend_from_slice(&record.header().encode());
        encoded.extend_from_slice(&record.payload);
        let encoded = encoded.freeze();
        let mut buffer = BytesMut::with_capacity(encoded.len());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("header", len), |bencher| {
            bencher.iter(|| black_box(&record).header().encode());
        });
        group.bench_function(BenchmarkId::new("decode", len), |bencher| {
            bencher.iter(|| RecordBatch::decode(black_box(&encoded).clone()).is_ok());
        });
        group.bench_function(BenchmarkId::new("baseline", len), |bencher| {
            bencher.iter(|| copy_and_checksum(black_box(&encoded), &mut buffer));
        });
    }
    group.finish();
}

fn object_codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("object");
    group.sample_size(20);
    for (record_bytes, streams) in [(100, 1), (1 << 10, 1), (1 << 10, 1_000), (64 << 10, 1)] {
        let records = records(record_bytes, streams);
        let object: Bytes = write(&records).unwrap_or_default().concat().into();
        assert_eq!(read(&object).unwrap_or_default(), records.len());
        let name = format!("{record_bytes} B x {streams} streams");
        let mut buffer = BytesMut::with_capacity(object.len());
        group.throughput(Throughput::Bytes(object.len() as u64));
        group.bench_function(BenchmarkId::new("write", &name), |bencher| {
            bencher.iter_with_large_drop(|| write(black_box(&records)));
        });
        group.bench_function(BenchmarkId::new("read", &name), |bencher| {
            bencher.iter(|| read(black_box(&object)));
        });
        group.bench_function(BenchmarkId::new("baseline", &name), |bencher| {
            bencher.iter(|| copy_and_checksum(black_box(&object), &mut buffer));
        });
    }
    group.finish();
}

fn index_look_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    for streams in [100_u64, 20_000] {
        let payload = payload(16);
        let records: Vec<_> = (0..streams)
            .map(|stream| record(stream * 3, 0..10, &payload))
            .collect();
        let object = write(&records).unwrap_or_default().concat();
        let step = ObjectIndex::decode_tail(&object, object.len() as u64, CLUSTER, OBJECT);
        let Ok(TailStep::Index(index)) = step else {
            panic!("an object that was just written is readable");
        };
        let mut stream = 0;
        group.bench_function(BenchmarkId::new("blocks", streams), |bencher| {
            bencher.iter(|| {
                stream = (stream + 7_919) % streams;
                index.blocks(StreamId::new(stream * 3), 3..5).count()
            });
        });
    }
    group.finish();
}

criterion_group!(codecs, record_codec, object_codec, index_look_up);
criterion_main!(codecs);
