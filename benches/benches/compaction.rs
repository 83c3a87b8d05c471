//! A pass of log compaction by itself, over batches in memory: keys noted, batches kept, written anew or removed.
//!
//! Beside each, over the same bytes, memcpy + crc32c. `cargo bench -p s3stream-bench --bench compaction`.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use segment_adapter::testing::Compaction;
use segment_adapter::{Batch, BatchBuilder, Batches, Codec};

const LOG_BYTES: usize = 64 << 20;
const BATCH_BYTES: usize = 16 << 10;

/// About `LOG_BYTES` of records of `keys` keys in no order, uncompressed size.
fn log(codec: Codec, record_bytes: usize, keys: usize) -> Vec<Batch> {
    // Half of a value compresses.
    let value: Vec<u8> = (0..record_bytes)
        .map(|at| {
            if at % 2 == 0 {
                7
            } else {
                (at * 31 % 251) as u8
            }
        })
        .collect();
    let mut random = 1_u64;
    let mut next = 0_i64;
    let mut batches = Vec::new();
    for _ in 0..LOG_BYTES / BATCH_BYTES {
        let mut builder = BatchBuilder::new(codec);
        for _ in 0..(BATCH_BYTES / record_bytes).max(1) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let key = ((random >> 33) as usize % keys).to_be_bytes();
            builder = builder.record(1_700_000_000_000, Some(&key), Some(&value));
        }
        let mut bytes = builder.build().unwrap_or_default().to_vec();
        bytes[..8].copy_from_slice(&next.to_be_bytes());
        for batch in Batches::new(bytes.into()).flatten() {
            next = batch.header().last_offset() + 1;
            batches.push(batch);
        }
    }
    batches
}

fn pass(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compaction");
    group.sample_size(10);
    let compaction = Compaction {
        map_bytes: 128 << 20,
        first_dirty: 0,
        now_ms: 0,
        delete_retention_ms: 0,
        decompressed_bytes_max: 1 << 20,
    };
    for (codec, record_bytes, share) in [
        (Codec::None, 1 << 10, 1),
        (Codec::None, 1 << 10, 10),
        (Codec::None, 100, 1),
        (Codec::None, 100, 10),
        (Codec::Lz4, 1 << 10, 1),
        (Codec::Zstd, 1 << 10, 1),
        (Codec::Zstd, 100, 10),
    ] {
        let keys = LOG_BYTES / record_bytes / share;
        let batches = log(codec, record_bytes, keys);
        let left = compaction.run(&batches).map(|(left, _)| left);
        let left = left.unwrap_or_default();
        assert!(
            !left.is_empty() && left != batches,
            "something is kept and something goes"
        );
        drop(left);
        let name = format!("{codec}, {record_bytes} B, {keys} keys");
        let stored: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
        let mut buffer = BytesMut::with_capacity(BATCH_BYTES * 2);
        group.throughput(Throughput::Bytes(LOG_BYTES as u64));
        group.bench_function(BenchmarkId::new("pass", &name), |bencher| {
            bencher.iter_with_large_drop(|| compaction.run(black_box(&batches)).is_ok());
        });
        group.throughput(Throughput::Bytes(stored as u64));
        group.bench_function(BenchmarkId::new("baseline", &name), |bencher| {
            bencher.iter(|| {
                batches.iter().fold(0, |all, batch| {
                    buffer.clear();
                    buffer.extend_from_slice(batch.bytes());
                    all ^ crc32c::crc32c(&buffer)
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pass);
criterion_main!(benches);
