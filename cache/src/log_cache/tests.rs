//! The books of the log cache: what is charged, when it is freed, and how much a look-up looks at.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// An entry that counts how often its range is asked for.
#[derive(Clone, Debug)]
struct Record {
    stream: u64,
    range: Range<u64>,
    size: usize,
    looks: Arc<AtomicUsize>,
}

impl Entry for Record {
    fn stream(&self) -> u64 {
        self.stream
    }

    fn range(&self) -> Range<u64> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.range.clone()
    }

    fn size(&self) -> usize {
        self.size
    }
}

fn record(stream: u64, range: Range<u64>) -> Record {
    Record {
        stream,
        range,
        size: 100,
        looks: Arc::default(),
    }
}

fn starts(found: &[Record]) -> Vec<u64> {
    found.iter().map(|record| record.range.start).collect()
}

/// Three blocks of stream 1 at offsets 0..10, 10..20, 20..30 in entries of 5, stream 2 in the second alone.
fn three_blocks() -> (LogCache<Record>, Vec<u64>) {
    let mut cache = LogCache::new(1_000);
    let mut blocks = Vec::new();
    for block in 0..3 {
        let start = block * 10;
        cache.insert(record(1, start..start + 5), start).unwrap();
        cache
            .insert(record(1, start + 5..start + 10), start + 5)
            .unwrap();
        if block == 1 {
            cache.insert(record(2, 0..1), start + 9).unwrap();
        }
        blocks.push(cache.seal().unwrap().id());
    }
    (cache, blocks)
}

/// Bytes that the cache's own structures take, counted from their capacities.
fn structure_bytes(cache: &LogCache<Record>) -> usize {
    let slots = cache.streams.capacity() * 8 / 7 * (size_of::<(u64, StreamRuns<Record>)>() + 1);
    let mut bytes = slots
        + cache.active.streams.capacity() * size_of::<u64>()
        + cache.sealed.len() * (size_of::<Sealed<Record>>() + size_of::<Block<Record>>());
    for stream in 0..2_000 {
        if let Some(held) = cache.streams.get(&stream) {
            bytes += held.place_bytes();
        }
    }
    for sealed in &cache.sealed {
        for run in sealed.block.runs() {
            bytes += size_of::<Run<Record>>() + 2 * size_of::<usize>() + size_of::<usize>();
            bytes += run.places() * size_of::<Record>();
        }
    }
    bytes
}

#[test]
fn what_is_charged_is_never_less_than_payload_and_structures_take() {
    for (streams, per_stream) in [(1, 1), (1, 5_000), (1_000, 1), (1_000, 5), (3, 17)] {
        let mut cache = LogCache::new(1_000);
        for block in 0..3 {
            for entry in 0..per_stream {
                for stream in 0..streams {
                    let start = block * per_stream + entry;
                    cache.insert(record(stream, start..start + 1), 0).unwrap();
                }
            }
            let payload = (streams * per_stream * (block + 1)) as usize * 100;
            let held = payload + structure_bytes(&cache);
            assert!(cache.bytes() >= held, "{} < {held}", cache.bytes());
            assert!(cache.bytes() <= 6 * held, "{} for {held}", cache.bytes());
            cache.seal().unwrap();
        }
    }
}

#[test]
fn the_stream_table_shrinks_when_most_streams_have_gone() {
    let mut cache = LogCache::new(1_000);
    for stream in 0..2_000 {
        cache.insert(record(stream, 0..1), 0).unwrap();
    }
    let block = cache.seal().unwrap().id();
    cache.insert(record(1, 1..2), 0).unwrap();
    cache.settle(block);
    cache.evict(0);
    assert!(cache.bytes() >= 100 + structure_bytes(&cache));
}

#[test]
fn charged_padding_belongs_to_the_block_and_goes_with_it() {
    let mut cache = LogCache::new(10_000);
    cache.insert(record(1, 0..1), 1).unwrap();
    let before = cache.active_bytes();
    assert!(!cache.is_full());
    cache.charge(9_999);
    assert_eq!(cache.active_bytes(), before + 9_999);
    assert!(cache.is_full());
    let block = cache.seal().unwrap();
    assert_eq!(block.bytes(), before + 9_999);
    assert_eq!(cache.active_bytes(), 0);
    cache.settle(block.id());
    assert_eq!(cache.evict(0).bytes, before + 9_999);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn a_fetch_crosses_block_borders_and_stops_at_the_byte_limit() {
    let (mut cache, _) = three_blocks();
    cache.insert(record(1, 30..40), 40).unwrap();
    assert_eq!(
        starts(&cache.get(1, 7..100, usize::MAX)),
        [5, 10, 15, 20, 25, 30]
    );
    assert_eq!(starts(&cache.get(1, 7..20, usize::MAX)), [5, 10, 15]);
    assert_eq!(starts(&cache.get(1, 7..21, usize::MAX)), [5, 10, 15, 20]);
    assert_eq!(starts(&cache.get(1, 7..100, 399)), [5, 10, 15]);
    assert_eq!(starts(&cache.get(1, 7..100, 400)), [5, 10, 15, 20]);
    assert_eq!(starts(&cache.get(1, 7..100, 0)), [5], "at least one");
    assert_eq!(starts(&cache.get(1, 39..40, usize::MAX)), [30]);
    for nothing in [40..50, 7..7] {
        assert!(cache.get(1, nothing, usize::MAX).is_empty());
    }
    assert!(cache.get(3, 0..1, usize::MAX).is_empty());
}

#[test]
fn only_settled_blocks_are_evicted_oldest_first() {
    let (mut cache, blocks) = three_blocks();
    let all = cache.bytes();
    assert_eq!(cache.unsettled_bytes(), all);
    assert_eq!(cache.evict(0).bytes, 0);

    cache.settle(blocks[1]);
    cache.settle(blocks[0]);
    cache.settle(blocks[0]);
    let evicted = cache.evict(all - 1);
    assert_eq!(evicted.blocks.len(), 1);
    assert_eq!(evicted.blocks[0].id(), blocks[0]);
    assert_eq!(cache.bytes(), all - evicted.bytes);
    assert_eq!(cache.first_offset(1), Some(10));
    assert!(cache.get(1, 9..30, usize::MAX).is_empty());

    let unsettled = cache.unsettled_bytes();
    cache.evict(0);
    assert_eq!(cache.bytes(), unsettled);
    assert_eq!(cache.first_offset(1), Some(20));
    assert_eq!(cache.first_offset(2), None);
}

#[test]
fn a_block_that_does_not_settle_keeps_no_other_and_leaves_a_hole() {
    let (mut cache, blocks) = three_blocks();
    cache.settle(blocks[1]);
    cache.evict(0);
    assert_eq!(starts(&cache.get(1, 0..30, usize::MAX)), [0, 5]);
    assert!(cache.get(1, 10..30, usize::MAX).is_empty());
    assert_eq!(starts(&cache.get(1, 20..30, usize::MAX)), [20, 25]);

    cache.settle(blocks[2]);
    cache.evict(0);
    // The next entry still has to follow what was inserted last, although that is gone.
    let gap = InsertError::Gap {
        stream: 1,
        expected: 30,
        found: 31,
    };
    assert_eq!(cache.insert(record(1, 31..32), 40), Err(gap));
    cache.insert(record(1, 30..31), 40).unwrap();
    assert_eq!(starts(&cache.get(1, 30..31, usize::MAX)), [30]);
}

#[test]
fn a_gap_an_overlap_and_an_empty_entry_change_nothing() {
    let mut cache = LogCache::new(1_000);
    cache.insert(record(1, 5..10), 7).unwrap();
    let bytes = cache.bytes();
    let refused = [
        (record(1, 11..12), 8),
        (record(1, 9..12), 8),
        (record(1, 10..10), 8),
        (record(1, 10..11), 6),
        (record(2, 3..3), 8),
    ];
    for (entry, position) in refused {
        let text = format!("{entry:?}");
        assert!(cache.insert(entry, position).is_err(), "{text}");
    }
    assert_eq!(cache.bytes(), bytes);
    assert_eq!(starts(&cache.get(1, 5..100, usize::MAX)), [5]);
    cache.insert(record(1, 10..11), 7).unwrap();
}

#[test]
fn a_stream_may_start_anywhere_after_all_of_it_is_gone() {
    let (mut cache, blocks) = three_blocks();
    for block in blocks {
        cache.settle(block);
    }
    cache.evict(0);
    cache.insert(record(1, 500..501), 100).unwrap();
    cache.trim(1, ..600);
    cache.insert(record(1, 700..701), 100).unwrap();
    cache.remove(1);
    cache.insert(record(1, 3..4), 100).unwrap();
    assert_eq!(cache.first_offset(1), Some(3));
}

#[test]
fn a_trim_inside_an_entry_keeps_it_and_frees_a_block_only_when_it_is_empty() {
    let (mut cache, blocks) = three_blocks();
    for block in &blocks {
        cache.settle(*block);
    }
    let all = cache.bytes();
    cache.trim(1, ..7);
    assert_eq!(cache.first_offset(1), Some(5));
    assert!(cache.get(1, 4..30, usize::MAX).is_empty());
    assert_eq!(starts(&cache.get(1, 5..11, usize::MAX)), [5, 10]);
    cache.trim(1, ..3);
    assert_eq!(cache.first_offset(1), Some(5), "a trim does not go back");
    assert_eq!(cache.bytes(), all);

    cache.trim(1, ..10);
    assert!(cache.bytes() < all, "the first block is empty");
    let two = cache.bytes();
    cache.trim(1, ..20);
    assert_eq!(cache.bytes(), two, "stream 2 holds the second block");
    cache.remove(2);
    assert!(cache.bytes() < two);
    assert_eq!(starts(&cache.get(1, 20..30, usize::MAX)), [20, 25]);
    cache.remove(1);
    assert_eq!(cache.bytes(), 0);
    assert_eq!(cache.unsettled_bytes(), 0);
}

#[test]
fn an_emptied_unsettled_block_stays_charged_until_it_settles() {
    let (mut cache, blocks) = three_blocks();
    let all = cache.bytes();
    cache.remove(1);
    cache.remove(2);
    assert_eq!(cache.bytes(), all, "an uploader may hold the blocks");
    for block in blocks {
        cache.settle(block);
    }
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn an_emptied_active_block_is_free_at_once_and_still_seals() {
    let mut cache = LogCache::new(1_000);
    assert!(cache.seal().is_none());
    for stream in 0..10 {
        cache.insert(record(stream, 0..1), 10).unwrap();
    }
    cache.charge(1 << 20);
    for stream in 0..9 {
        cache.remove(stream);
    }
    assert!(cache.bytes() > 1 << 20);
    cache.trim(9, ..1);
    assert_eq!(cache.bytes(), LogCache::<Record>::BLOCK_OVERHEAD_BYTES);
    let block = cache.seal().unwrap();
    assert!(block.is_empty());
    assert_eq!(block.position_end(), 10);
    cache.settle(block.id());
    assert_eq!(cache.bytes(), 0);
    assert!(cache.seal().is_none());
}

#[test]
fn a_stream_removed_from_the_active_block_and_back_is_sealed_once() {
    let mut cache = LogCache::new(1_000);
    cache.insert(record(1, 0..1), 1).unwrap();
    cache.insert(record(2, 0..1), 2).unwrap();
    cache.remove(1);
    cache.insert(record(1, 9..10), 3).unwrap();
    let block = cache.seal().unwrap();
    let streams: Vec<_> = block
        .streams()
        .map(|(stream, entries)| (stream, starts(entries)))
        .collect();
    assert_eq!(streams, [(1, vec![9]), (2, vec![0])]);
    assert_eq!(block.entries().count(), 2);
}

#[test]
fn a_look_up_looks_at_few_entries_however_many_are_held() {
    let looks = Arc::new(AtomicUsize::new(0));
    let mut cache = LogCache::new(1_000);
    let (blocks, per_block) = (64, 4_096);
    for block in 0..blocks {
        for entry in 0..per_block {
            let start = block * per_block + entry;
            let entry = Record {
                looks: Arc::clone(&looks),
                ..record(1, start..start + 1)
            };
            cache.insert(entry, start).unwrap();
        }
        cache.seal().unwrap();
    }
    looks.store(0, Ordering::Relaxed);
    let mut most = 0;
    for offset in (0..blocks * per_block).step_by(997) {
        assert_eq!(starts(&cache.get(1, offset..offset + 1, 1)), [offset]);
        most = most.max(looks.swap(0, Ordering::Relaxed));
    }
    assert!(most <= 4, "records of one size are found at once: {most}");
}

#[test]
fn a_look_up_among_entries_of_very_different_lengths_looks_at_few_of_them() {
    let looks = Arc::new(AtomicUsize::new(0));
    let mut cache = LogCache::new(1_000);
    let mut start = 0;
    let mut starts_of = Vec::new();
    for entry in 0..8_192_u64 {
        let len = if entry % 4_096 == 7 {
            1 << 30
        } else {
            1 + entry % 3
        };
        let entry = Record {
            looks: Arc::clone(&looks),
            ..record(1, start..start + len)
        };
        cache.insert(entry, 0).unwrap();
        starts_of.push(start);
        start += len;
    }
    looks.store(0, Ordering::Relaxed);
    let mut most = 0;
    for offset in starts_of {
        assert_eq!(starts(&cache.get(1, offset..offset + 1, 1)), [offset]);
        most = most.max(looks.swap(0, Ordering::Relaxed));
    }
    // Steps that double from the wrong end, then a search between the last two, and the entries taken.
    assert!(most <= 13 + 13 + 4, "{most}");
}
