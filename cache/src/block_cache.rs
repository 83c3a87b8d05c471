//! Blocks that were read back from objects, by object and block: a bounded map with an admission filter.
//!
//! After every insert, `weight() <= capacity_bytes()`. Nothing expires with time, and the hasher is fixed, so that the
//! same calls in the same order keep the same blocks.
//!
//! It does not load: that one load per block is in flight is the reader's matter. A block that the filter does not admit
//! is dropped at once, so a reader that fetched ahead holds its blocks itself until it has used them.

use std::hash::{BuildHasherDefault, DefaultHasher};

use moka::sync::Cache;

/// Bytes charged for each block beside its weight: the key, the map's node and its place in the order of eviction.
pub const BLOCK_OVERHEAD_BYTES: usize = 256;

/// Which block of which object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockKey {
    /// The object's id.
    pub object: u64,
    /// The block's number or position in the object.
    pub block: u64,
}

/// A map from [`BlockKey`] to `V`, bounded by weight. Clones share the content.
#[derive(Clone)]
pub struct BlockCache<V> {
    blocks: Cache<BlockKey, V, BuildHasherDefault<DefaultHasher>>,
    capacity_bytes: u64,
}

impl<V: Clone + Send + Sync + 'static> BlockCache<V> {
    /// A cache for `capacity_bytes` of blocks; `weigh` says how many bytes a block holds. A capacity of 0 holds nothing.
    pub fn new(capacity_bytes: u64, weigh: impl Fn(&V) -> usize + Send + Sync + 'static) -> Self {
        let blocks = Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(move |_: &BlockKey, value: &V| {
                let bytes = weigh(value).saturating_add(BLOCK_OVERHEAD_BYTES);
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build_with_hasher(BuildHasherDefault::default());
        Self {
            blocks,
            capacity_bytes,
        }
    }

    /// The block, if it is held. Counts as a use.
    pub fn get(&self, key: BlockKey) -> Option<V> {
        self.blocks.get(&key)
    }

    /// Offers a block; a block already held under `key` is replaced.
    pub fn insert(&self, key: BlockKey, value: V) {
        self.blocks.insert(key, value);
        // The map settles its books when a clock or a count says so. Doing it here makes the bound hold at every
        // moment and takes the clock out of what is evicted.
        self.blocks.run_pending_tasks();
    }

    /// Drops a block, for instance one whose bytes turned out to be wrong.
    pub fn remove(&self, key: BlockKey) {
        self.blocks.invalidate(&key);
        self.blocks.run_pending_tasks();
    }

    /// Bytes charged now.
    pub fn weight(&self) -> u64 {
        self.blocks.run_pending_tasks();
        self.blocks.weighted_size()
    }

    /// The bound.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Blocks held now.
    pub fn len(&self) -> u64 {
        self.blocks.run_pending_tasks();
        self.blocks.entry_count()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V> std::fmt::Debug for BlockCache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache")
            .field("capacity_bytes", &self.capacity_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 1_000;
    const CHARGE: u64 = (BLOCK + BLOCK_OVERHEAD_BYTES) as u64;

    fn key(block: u64) -> BlockKey {
        BlockKey { object: 1, block }
    }

    fn cache_for(blocks: u64) -> BlockCache<Vec<u8>> {
        BlockCache::new(blocks * CHARGE, Vec::len)
    }

    #[test]
    fn the_bound_holds_after_every_insert_and_counts_the_overhead() {
        let cache = cache_for(4);
        for block in 0..100 {
            cache.insert(key(block), vec![0; BLOCK]);
            assert!(cache.weight() <= 4 * CHARGE, "after block {block}");
        }
        assert_eq!(cache.weight(), 4 * CHARGE);
        assert_eq!(cache.len(), 4);
    }

    #[test]
    fn a_block_larger_than_the_cache_is_not_held() {
        let cache = cache_for(4);
        cache.insert(key(1), vec![0; 5 * BLOCK]);
        assert!(cache.get(key(1)).is_none());
        assert_eq!(cache.weight(), 0);
    }

    #[test]
    fn a_cache_without_capacity_holds_nothing() {
        let cache: BlockCache<Vec<u8>> = BlockCache::new(0, Vec::len);
        cache.insert(key(1), Vec::new());
        assert!(cache.get(key(1)).is_none());
    }

    #[test]
    fn a_scan_does_not_evict_what_is_used_again_and_again() {
        let cache = cache_for(8);
        for block in 0..4 {
            cache.insert(key(block), vec![0; BLOCK]);
        }
        for _ in 0..20 {
            for block in 0..4 {
                assert!(cache.get(key(block)).is_some());
            }
        }
        for block in 1_000..2_000 {
            cache.insert(key(block), vec![0; BLOCK]);
        }
        for block in 0..4 {
            assert!(cache.get(key(block)).is_some(), "block {block}");
        }
    }

    #[test]
    fn the_same_calls_keep_the_same_blocks() {
        let kept = || {
            let cache = cache_for(16);
            for step in 0..2_000_u64 {
                let block = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
                if cache.get(key(block)).is_none() {
                    cache.insert(key(block), vec![0; BLOCK]);
                }
            }
            (0..64)
                .filter(|block| cache.get(key(*block)).is_some())
                .collect::<Vec<_>>()
        };
        let first = kept();
        assert_eq!(first.len(), 16);
        assert_eq!(first, kept());
    }

    #[test]
    fn a_removed_block_is_gone_and_its_bytes_are_free() {
        let cache = cache_for(4);
        cache.insert(key(1), vec![0; BLOCK]);
        cache.remove(key(1));
        assert!(cache.get(key(1)).is_none());
        assert!(cache.is_empty());
        assert_eq!(cache.weight(), 0);
    }
}
