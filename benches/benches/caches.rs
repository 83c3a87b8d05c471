//! The caches by themselves: what an insert and a look-up cost.
//!
//! The baseline of each group is memcpy + crc32c of the same payload: what a record or a block costs before any cache
//! sees it. `cargo bench -p s3stream-bench --bench caches`.

use std::{hint::black_box, ops::Range};

use bytes::{Bytes, BytesMut};
use cache::{BlockCache, BlockKey, Entry, LogCache};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RECORD_BYTES: usize = 1 << 10;
const BLOCK_BYTES: usize = 256 << 10;

#[derive(Clone)]
struct Record {
    stream: u64,
    offsets: Range<u64>,
    payload: Bytes,
}

impl Entry for Record {
    fn stream(&self) -> u64 {
        self.stream
    }

    fn range(&self) -> Range<u64> {
        self.offsets.clone()
    }

    fn size(&self) -> usize {
        self.payload.len()
    }
}

/// A log of records that go round over the streams.
struct Filler {
    streams: u64,
    payload: Bytes,
    next: u64,
}

impl Filler {
    fn new(streams: u64) -> Self {
        Self {
            streams,
            payload: vec![7; RECORD_BYTES].into(),
            next: 0,
        }
    }

    fn insert(&mut self, cache: &mut LogCache<Record>) {
        let offset = self.next / self.streams;
        let record = Record {
            stream: self.next % self.streams,
            offsets: offset..offset + 1,
            payload: self.payload.clone(),
        };
        self.next += 1;
        let inserted = cache.insert(record, self.next);
        debug_assert!(inserted.is_ok());
    }
}

fn copy_and_checksum(bytes: &[u8], into: &mut BytesMut) -> u32 {
    into.clear();
    into.extend_from_slice(bytes);
    crc32c::crc32c(into)
}

/// Inserts with everything that comes after: sealing at 16 MiB, settling, evicting down to 64 MiB.
fn log_cache_insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log cache insert");
    group.throughput(Throughput::Elements(1));
    for streams in [1, 1_000, 100_000] {
        let mut cache = LogCache::new(16 << 20);
        let mut filler = Filler::new(streams);
        group.bench_function(BenchmarkId::new("insert", streams), |bencher| {
            bencher.iter(|| {
                filler.insert(&mut cache);
                if cache.is_full()
                    && let Some(block) = cache.seal()
                {
                    cache.settle(block.id());
                    drop(block);
                    drop(cache.evict(64 << 20));
                }
            });
        });
    }
    let payload = vec![7; RECORD_BYTES];
    let mut buffer = BytesMut::with_capacity(RECORD_BYTES);
    group.bench_function("baseline", |bencher| {
        bencher.iter(|| copy_and_checksum(black_box(&payload), &mut buffer));
    });
    group.finish();
}

/// Look-ups in 32 blocks, at offsets that are far apart.
fn log_cache_get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log cache get");
    group.throughput(Throughput::Elements(1));
    for streams in [1, 1_000] {
        let mut cache = LogCache::new(usize::MAX);
        let mut filler = Filler::new(streams);
        let records = 131_072;
        for at in 0..records {
            if at % 4_096 == 0 {
                cache.seal();
            }
            filler.insert(&mut cache);
        }
        let held = records / streams;
        let mut at = 0;
        group.bench_function(BenchmarkId::new("one record", streams), |bencher| {
            bencher.iter(|| {
                at += 7_919;
                let start = at % held;
                cache.get(at % streams, start..start + 1, usize::MAX).len()
            });
        });
        group.bench_function(BenchmarkId::new("64 records", streams), |bencher| {
            bencher.iter(|| {
                at += 7_919;
                let start = at % (held - 64);
                cache.get(at % streams, start..start + 64, usize::MAX).len()
            });
        });
    }
    let payload = vec![7; RECORD_BYTES];
    let mut buffer = BytesMut::with_capacity(RECORD_BYTES);
    group.bench_function("baseline", |bencher| {
        bencher.iter(|| copy_and_checksum(black_box(&payload), &mut buffer));
    });
    group.finish();
}

fn block_cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block cache");
    group.throughput(Throughput::Elements(1));
    let block: Bytes = vec![7; BLOCK_BYTES].into();
    let cache = BlockCache::new(64 << 20, Bytes::len);
    let key = |block| BlockKey { object: 1, block };
    let mut at = 0;
    group.bench_function("insert", |bencher| {
        bencher.iter(|| {
            at += 1;
            cache.insert(key(at), block.clone());
        });
    });
    let hot = 128;
    for _ in 0..4 {
        for at in 0..hot {
            cache.insert(key(at), block.clone());
            black_box(cache.get(key(at)));
        }
    }
    group.bench_function("hit", |bencher| {
        bencher.iter(|| {
            at += 1;
            cache.get(key(at % hot)).is_some()
        });
    });
    group.bench_function("miss", |bencher| {
        bencher.iter(|| {
            at += 1;
            cache.get(key(at + (1 << 40))).is_some()
        });
    });
    let mut buffer = BytesMut::with_capacity(BLOCK_BYTES);
    group.bench_function("baseline", |bencher| {
        bencher.iter(|| copy_and_checksum(black_box(&block), &mut buffer));
    });
    group.finish();
}

criterion_group!(caches, log_cache_insert, log_cache_get, block_cache);
criterion_main!(caches);
