//! What the log acknowledged and nobody has thrown away yet: blocks cut at log positions, with an index per stream.
//!
//! A block goes through active → sealed → settled → evicted. Invariants:
//! - `unsettled_bytes() <= bytes()`, and only settled blocks are ever evicted, oldest first;
//! - position ends never go back: `block[i].position_end() <= block[i + 1].position_end()`;
//! - the entries of one stream are inserted in offset order, `entry.start == previous.end`; after everything held of a
//!   stream was evicted, trimmed or removed, its next entry may start anywhere;
//! - `bytes()` counts the entries' sizes, what the cache itself allocates for them, and what the filler charged beside
//!   (padding, frame headers): with many small records that is the larger part.
//!
//! A look-up is O(log blocks + log entries of a block), an insert is O(1) amortised, sealing and evicting are
//! O(streams in the block).
//!
//! **What is freed when.** Entries of one commit usually share one slab, so dropping one of them frees nothing that can
//! be named. Therefore a trim or a removal takes back the bytes of a block only when nothing in the block is held any
//! more: at once for the active block and for settled ones, at `settle` for a sealed one that its uploader still holds.
//! Until then, the bytes of what was trimmed stay charged to its block. A fetch that holds clones of entries keeps
//! their memory alive: that is charged to the fetch by its caller, not here.
//!
//! It is a plain data structure, for use behind one short lock. It does not upload, wait or look at a clock.

mod block;
mod stream_runs;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasherDefault, DefaultHasher},
    ops::{Range, RangeTo},
    sync::Arc,
};

pub use block::Block;

use self::{block::Run, stream_runs::StreamRuns};
use crate::Entry;

/// Why an entry was not inserted. Nothing has changed then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InsertError {
    /// The entry holds no offsets.
    #[error("entry of stream {stream} holds no offsets: {start}..{end}")]
    Empty {
        /// The stream.
        stream: u64,
        /// Its first offset.
        start: u64,
        /// Its end, which should be larger.
        end: u64,
    },
    /// Offsets between what is held and the entry are missing.
    #[error("gap in stream {stream}: offset {expected} expected, {found} found")]
    Gap {
        /// The stream.
        stream: u64,
        /// The end of what was inserted last.
        expected: u64,
        /// Where the entry starts.
        found: u64,
    },
    /// The entry starts below the end of what was inserted last.
    #[error("overlap in stream {stream}: offset {expected} expected, {found} found")]
    Overlap {
        /// The stream.
        stream: u64,
        /// The end of what was inserted last.
        expected: u64,
        /// Where the entry starts.
        found: u64,
    },
    /// The entry's position is below one that was already seen.
    #[error("log position went back from {expected} to {found}")]
    Position {
        /// The highest position end seen.
        expected: u64,
        /// The entry's position end.
        found: u64,
    },
}

/// What an eviction took out. Dropping it frees the memory: do that outside the lock.
#[derive(Debug)]
pub struct Evicted<E> {
    /// Bytes that are no longer charged.
    pub bytes: usize,
    /// The blocks.
    pub blocks: Vec<Arc<Block<E>>>,
}

/// Entries by stream and offset, in blocks cut at log positions.
pub struct LogCache<E> {
    block_bytes: usize,
    streams: HashMap<u64, StreamRuns<E>, BuildHasherDefault<DefaultHasher>>,
    /// Oldest first, ids ascending.
    sealed: VecDeque<Sealed<E>>,
    sealed_bytes: usize,
    settled_bytes: usize,
    active: Active,
    position_end: u64,
    next_block: u64,
}

struct Sealed<E> {
    block: Arc<Block<E>>,
    settled: bool,
    /// Runs of the block that the stream index still refers to.
    live_runs: usize,
}

/// The books of the active block; its entries are with their streams.
#[derive(Default)]
struct Active {
    /// Streams that have entries here; a stream that was removed and came back is in it twice.
    streams: Vec<u64>,
    live_runs: usize,
    bytes: usize,
    /// Whether anything was inserted since the last seal, even if it is gone again.
    touched: bool,
}

impl<E: Entry> LogCache<E> {
    /// Charged for each stream in each block: the run, its place in the block and in its stream, and the stream's place
    /// in the index (a table at least a third full, at 8 slots for 7 places).
    const RUN_OVERHEAD_BYTES: usize = size_of::<Run<E>>()
        + 2 * size_of::<usize>()
        + size_of::<Arc<Run<E>>>()
        + StreamRuns::<E>::PLACE_BYTES
        + size_of::<u64>() * 4
        + (size_of::<(u64, StreamRuns<E>)>() + 1) * 7 / 2;

    /// Charged for each block.
    const BLOCK_OVERHEAD_BYTES: usize = 2 * (size_of::<Block<E>>() + size_of::<Sealed<E>>());

    /// An empty cache. `block_bytes` is only what [`is_full`](Self::is_full) compares with; the filler decides when to
    /// seal, so that it can cut at a commit.
    pub fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            streams: HashMap::default(),
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            settled_bytes: 0,
            active: Active::default(),
            position_end: 0,
            next_block: 0,
        }
    }

    /// Adds an entry that the log has made durable. `position_end` is where its record ends in the log.
    pub fn insert(&mut self, entry: E, position_end: u64) -> Result<(), InsertError> {
        let (stream, range) = (entry.stream(), entry.range());
        let held = self.streams.get_mut(&stream);
        let expected = held.as_ref().map_or(range.start, |held| held.end());
        check(stream, &range, expected, self.position_end, position_end)?;

        let size = entry.size();
        let (new_run, grown) = match held {
            Some(held) => held.push(entry, &range),
            None => {
                let mut runs = StreamRuns::new();
                let pushed = runs.push(entry, &range);
                self.streams.insert(stream, runs);
                pushed
            }
        };
        self.position_end = position_end;
        let active = &mut self.active;
        if new_run {
            active.streams.push(stream);
            active.live_runs += 1;
            active.bytes += Self::RUN_OVERHEAD_BYTES;
        }
        if !active.touched {
            active.touched = true;
            active.bytes += Self::BLOCK_OVERHEAD_BYTES;
        }
        active.bytes += size + grown;
        Ok(())
    }

    /// Charges the active block for memory that its entries pin beside their own size: padding, frame headers.
    pub fn charge(&mut self, bytes: usize) {
        self.active.bytes += bytes;
    }

    /// Bytes charged to the active block.
    pub fn active_bytes(&self) -> usize {
        self.active.bytes
    }

    /// Whether the active block has reached its size.
    pub fn is_full(&self) -> bool {
        self.active.bytes >= self.block_bytes
    }

    /// Makes the active block immutable and begins another. `None` if nothing was inserted since the last seal.
    ///
    /// A block whose entries were all trimmed meanwhile comes out empty: it still stands for its log positions, and
    /// is settled like the others. Cut between commits, so that no slab is pinned by two blocks.
    pub fn seal(&mut self) -> Option<Arc<Block<E>>> {
        if !self.active.touched {
            return None;
        }
        let mut active = std::mem::take(&mut self.active);
        active.streams.sort_unstable();
        active.streams.dedup();
        let id = self.next_block;
        self.next_block += 1;
        let mut runs = Vec::with_capacity(active.live_runs);
        for stream in active.streams {
            if let Some(run) = self
                .streams
                .get_mut(&stream)
                .and_then(|held| held.seal(stream, id))
            {
                runs.push(run);
            }
        }
        debug_assert_eq!(runs.len(), active.live_runs);
        let block = Arc::new(Block::new(id, self.position_end, active.bytes, runs));
        self.sealed_bytes += block.bytes();
        self.sealed.push_back(Sealed {
            live_runs: active.live_runs,
            settled: false,
            block: Arc::clone(&block),
        });
        Some(block)
    }

    /// What the block holds is safe elsewhere, or will never be needed: it may be evicted. Settling twice, or a block
    /// that is gone, changes nothing. Blocks may settle in any order.
    pub fn settle(&mut self, block_id: u64) {
        let Ok(index) = self.find(block_id) else {
            return;
        };
        let sealed = &mut self.sealed[index];
        if !sealed.settled {
            sealed.settled = true;
            self.settled_bytes += sealed.block.bytes();
        }
        if sealed.live_runs == 0 {
            self.forget(index);
        }
    }

    /// Drops settled blocks, oldest first, until at most `bytes_max` are charged or only unsettled ones are left.
    ///
    /// A block that does not settle holds up none of the younger ones; the stream then has a hole, at which
    /// [`get`](Self::get) ends.
    pub fn evict(&mut self, bytes_max: usize) -> Evicted<E> {
        let mut evicted = Evicted {
            bytes: 0,
            blocks: Vec::new(),
        };
        let mut index = 0;
        while self.bytes() > bytes_max && index < self.sealed.len() {
            if !self.sealed[index].settled {
                index += 1;
                continue;
            }
            let block = self.forget(index);
            for run in block.runs() {
                let Some(held) = self.streams.get_mut(&run.stream()) else {
                    continue;
                };
                held.forget(block.id());
                if held.is_empty() {
                    self.streams.remove(&run.stream());
                }
            }
            evicted.bytes += block.bytes();
            evicted.blocks.push(block);
        }
        self.shrink();
        evicted
    }

    /// Entries from the one that holds `offsets.start` on, without gaps, across blocks, until one starts at or past
    /// `offsets.end` or their sizes would pass `bytes_max`. The first is returned whatever its size. Empty if
    /// `offsets.start` is not held.
    pub fn get(&self, stream: u64, offsets: Range<u64>, bytes_max: usize) -> Vec<E> {
        match self.streams.get(&stream) {
            Some(held) if offsets.start < offsets.end => held.get(&offsets, bytes_max),
            _ => Vec::new(),
        }
    }

    /// The lowest offset held of a stream. Above it there may be holes (see [`evict`](Self::evict)).
    pub fn first_offset(&self, stream: u64) -> Option<u64> {
        self.streams.get(&stream)?.first_offset()
    }

    /// Gives up the entries of a stream that lie wholly below the bound. The entry that holds the bound stays whole.
    /// A block that was sealed before still lists what it held.
    pub fn trim(&mut self, stream: u64, below: RangeTo<u64>) {
        let Some(held) = self.streams.get_mut(&stream) else {
            return;
        };
        let dropped = held.trim(below.end);
        if held.is_empty() {
            self.streams.remove(&stream);
        }
        self.drop_runs(dropped);
    }

    /// Gives up everything held of a stream.
    pub fn remove(&mut self, stream: u64) {
        if let Some(mut held) = self.streams.remove(&stream) {
            let dropped = held.trim(u64::MAX);
            self.drop_runs(dropped);
        }
    }

    /// All bytes charged.
    pub fn bytes(&self) -> usize {
        self.sealed_bytes + self.active.bytes
    }

    /// Bytes that cannot be evicted yet: the active block and sealed ones that are not settled.
    pub fn unsettled_bytes(&self) -> usize {
        self.bytes() - self.settled_bytes
    }

    fn drop_runs(&mut self, dropped: stream_runs::Dropped) {
        for block in dropped.blocks {
            let index = self.find(block).expect("a run's block is held");
            let sealed = &mut self.sealed[index];
            sealed.live_runs -= 1;
            if sealed.live_runs == 0 && sealed.settled {
                self.forget(index);
            }
        }
        if dropped.active {
            self.active.live_runs -= 1;
            if self.active.live_runs == 0 {
                self.active.streams.clear();
                self.active.bytes = Self::BLOCK_OVERHEAD_BYTES;
            }
        }
        self.shrink();
    }

    fn find(&self, block: u64) -> Result<usize, usize> {
        self.sealed
            .binary_search_by_key(&block, |sealed| sealed.block.id())
    }

    /// Takes a settled block out of the books.
    fn forget(&mut self, index: usize) -> Arc<Block<E>> {
        let sealed = self.sealed.remove(index).expect("the index was just found");
        assert!(sealed.settled, "block {} is not settled", sealed.block.id());
        self.sealed_bytes -= sealed.block.bytes();
        self.settled_bytes -= sealed.block.bytes();
        sealed.block
    }

    /// Keeps the stream table at least a third full, which is what `RUN_OVERHEAD_BYTES` is charged for.
    fn shrink(&mut self) {
        if self.streams.capacity() / 3 > self.streams.len() {
            self.streams.shrink_to_fit();
        }
    }
}

fn check(
    stream: u64,
    range: &Range<u64>,
    expected: u64,
    seen: u64,
    position_end: u64,
) -> Result<(), InsertError> {
    let found = range.start;
    if range.is_empty() {
        return Err(InsertError::Empty {
            stream,
            start: range.start,
            end: range.end,
        });
    }
    if position_end < seen {
        return Err(InsertError::Position {
            expected: seen,
            found: position_end,
        });
    }
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(InsertError::Overlap {
            stream,
            expected,
            found,
        }),
        std::cmp::Ordering::Greater => Err(InsertError::Gap {
            stream,
            expected,
            found,
        }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

impl<E> fmt::Debug for LogCache<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCache")
            .field("streams", &self.streams.len())
            .field("sealed_blocks", &self.sealed.len())
            .field("sealed_bytes", &self.sealed_bytes)
            .field("settled_bytes", &self.settled_bytes)
            .field("active_bytes", &self.active.bytes)
            .field("position_end", &self.position_end)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
