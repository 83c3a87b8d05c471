//! Reading objects: indexes and data blocks, cached, one load in flight for each however many ask.
//!
//! `cached bytes <= capacity` for both caches. A load is a task of its own, so that a caller who goes away harms no
//! other who waits for it; the bucket's deadline ends it. It knows no stream's bounds: the caller names the object
//! and the offsets, and clips.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cache::{BlockCache, BlockKey};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use super::core::FixedState;
use crate::{
    ClusterId, Config, Error, ObjectId, RecordBatch, Result, StreamId,
    object::{BlockRef, Built, ObjectIndex, ReadLimits, object_path, read_blocks, read_index},
    store::Bucket,
};

/// The records of one data block.
pub(crate) type Block = Arc<Vec<RecordBatch>>;
type Load<T> = Shared<BoxFuture<'static, Result<T>>>;

/// Under which block number an object's index is kept.
const INDEX: u64 = u64::MAX;

/// The read side of a bucket. Clones share everything.
#[derive(Clone)]
pub(crate) struct Objects {
    shared: Arc<Shelf>,
}

struct Shelf {
    bucket: Bucket,
    cluster: ClusterId,
    limits: ReadLimits,
    indexes: BlockCache<Arc<ObjectIndex>>,
    blocks: BlockCache<Block>,
    loading_indexes: Loads<Arc<ObjectIndex>>,
    loading_blocks: Loads<Block>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Loads under way, by what they load.
type Loads<T> = Mutex<HashMap<BlockKey, Load<T>, FixedState>>;

impl Objects {
    pub(crate) fn new(bucket: Bucket, cluster: ClusterId, config: &Config) -> Self {
        let records = |block: &Block| {
            let payload: usize = block.iter().map(RecordBatch::encoded_len).sum();
            payload + block.len() * size_of::<RecordBatch>()
        };
        Self {
            shared: Arc::new(Shelf {
                bucket,
                cluster,
                limits: ReadLimits {
                    get_bytes_max: config.read_bytes_max,
                    ..ReadLimits::default()
                },
                indexes: BlockCache::new(config.index_cache_bytes, |index: &Arc<ObjectIndex>| {
                    index.memory_bytes()
                }),
                blocks: BlockCache::new(config.block_cache_bytes, records),
                loading_indexes: Loads::default(),
                loading_blocks: Loads::default(),
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
            }),
        }
    }

    /// Blocks that were at hand when they were wanted, and those that were not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.shared.hits), count(&self.shared.misses))
    }

    /// Keeps the index of an object that was just written.
    pub(crate) fn remember(&self, object: ObjectId, built: &Built) {
        let index = Arc::new(built.index.clone());
        self.shared.indexes.insert(index_key(object), index);
    }

    /// The index, if that costs no request.
    pub(crate) fn index_at_hand(&self, object: ObjectId) -> Option<Arc<ObjectIndex>> {
        self.shared.indexes.get(index_key(object))
    }

    pub(crate) async fn index(&self, object: ObjectId, size: u64) -> Result<Arc<ObjectIndex>> {
        if let Some(index) = self.index_at_hand(object) {
            return Ok(index);
        }
        let shelf = self.shared.clone();
        let load = {
            let mut loads = self.shared.loading_indexes.lock();
            let entry = loads.entry(index_key(object));
            entry
                .or_insert_with(|| {
                    share(async move {
                        let path = object_path(shelf.bucket.prefix(), object);
                        let store = shelf.bucket.store();
                        let index =
                            read_index(&store, &path, size, shelf.cluster, object, &shelf.limits)
                                .await
                                .map(Arc::new);
                        if let Ok(index) = &index {
                            shelf.indexes.insert(index_key(object), index.clone());
                        }
                        shelf.loading_indexes.lock().remove(&index_key(object));
                        index
                    })
                })
                .clone()
        };
        load.await
    }

    /// Blocks of one stream from `offsets.start` on until they have about `bytes_max` bytes, in order; `ahead` more
    /// bytes are loaded with them and kept in the cache.
    pub(crate) async fn blocks(
        &self,
        object: ObjectId,
        index: &ObjectIndex,
        stream: StreamId,
        offsets: Range<u64>,
        bytes_max: u64,
        ahead: u64,
    ) -> Result<Vec<Block>> {
        let mut wanted = Vec::new();
        let mut further = Vec::new();
        let mut bytes = 0;
        for block in index.blocks(stream, offsets) {
            if bytes < bytes_max || wanted.is_empty() {
                bytes += block.position.end - block.position.start;
                wanted.push(block);
            } else if bytes < bytes_max + ahead {
                bytes += block.position.end - block.position.start;
                further.push(block);
            } else {
                break;
            }
        }
        let loads = self.start_loads(object, index, &wanted, &further);
        futures::future::try_join_all(loads).await
    }

    /// A load for each wanted block. What is missing of them, and of what is read ahead with them, is one load; reading
    /// ahead alone starts none.
    fn start_loads(
        &self,
        object: ObjectId,
        index: &ObjectIndex,
        wanted: &[BlockRef],
        further: &[BlockRef],
    ) -> Vec<Load<Block>> {
        let shelf = &self.shared;
        let mut loading = shelf.loading_blocks.lock();
        let at_hand = |loading: &HashMap<BlockKey, Load<Block>, FixedState>, block: &BlockRef| {
            let key = block_key(object, block);
            match shelf.blocks.get(key) {
                Some(block) => Some(futures::future::ready(Ok(block)).boxed().shared()),
                None => loading.get(&key).cloned(),
            }
        };
        let mut missing: Vec<BlockRef> = wanted
            .iter()
            .filter(|block| at_hand(&loading, block).is_none())
            .cloned()
            .collect();
        let count = |count: &AtomicU64, blocks: usize| {
            count.fetch_add(blocks as u64, Ordering::Relaxed);
        };
        count(&shelf.hits, wanted.len() - missing.len());
        count(&shelf.misses, missing.len());
        if !missing.is_empty() {
            let ahead = further
                .iter()
                .filter(|block| at_hand(&loading, block).is_none());
            missing.extend(ahead.cloned());
            let size = index.object_len();
            let get = share(self.clone().load(object, size, missing.clone()));
            for (place, block) in missing.iter().enumerate() {
                loading.insert(block_key(object, block), one_of(&get, place));
            }
        }
        wanted
            .iter()
            .filter_map(|block| at_hand(&loading, block))
            .collect()
    }

    async fn load(self, object: ObjectId, size: u64, blocks: Vec<BlockRef>) -> Result<Vec<Block>> {
        let shelf = &self.shared;
        let path = object_path(shelf.bucket.prefix(), object);
        let result: Result<Vec<Block>> =
            read_blocks(&shelf.bucket.store(), &path, size, &blocks, &shelf.limits)
                .await
                .map(|blocks| blocks.into_iter().map(Arc::new).collect());
        let mut loading = shelf.loading_blocks.lock();
        for (place, block) in blocks.iter().enumerate() {
            let key = block_key(object, block);
            if let Ok(blocks) = &result
                && let Some(block) = blocks.get(place)
            {
                shelf.blocks.insert(key, block.clone());
            }
            loading.remove(&key);
        }
        drop(loading);
        result
    }
}

/// The block at `place` of a load of several.
fn one_of(load: &Load<Vec<Block>>, place: usize) -> Load<Block> {
    let load = load.clone();
    async move {
        let blocks = load.await?;
        let block: Option<&Block> = blocks.get(place);
        block
            .cloned()
            .ok_or_else(|| Error::internal("a load lost one of its blocks"))
    }
    .boxed()
    .shared()
}

/// Runs `load` as a task of its own; everybody who holds the result gets it.
fn share<T: Clone + Send + Sync + 'static>(
    load: impl Future<Output = Result<T>> + Send + 'static,
) -> Load<T> {
    let task = tokio::spawn(load);
    async move {
        task.await
            .unwrap_or_else(|error| Err(Error::internal("a load panicked").caused_by(error)))
    }
    .boxed()
    .shared()
}

fn index_key(object: ObjectId) -> BlockKey {
    BlockKey {
        object: object.get(),
        block: INDEX,
    }
}

fn block_key(object: ObjectId, block: &BlockRef) -> BlockKey {
    BlockKey {
        object: object.get(),
        block: block.position.start,
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("index_bytes", &self.shared.indexes.weight())
            .field("block_bytes", &self.shared.blocks.weight())
            .finish()
    }
}
