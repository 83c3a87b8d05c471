//! The log cache against a model that keeps every entry in one map and knows nothing of runs.

use std::{collections::BTreeMap, ops::Range};

use cache::{Entry, InsertError, LogCache};
use proptest::prelude::*;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    stream: u64,
    range: Range<u64>,
    size: usize,
}

impl Entry for Record {
    fn stream(&self) -> u64 {
        self.stream
    }

    fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    fn size(&self) -> usize {
        self.size
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        stream: u64,
        count: u64,
        size: usize,
    },
    /// An insert that does not start where the stream ends.
    Misplace {
        stream: u64,
        by: i64,
    },
    Charge {
        bytes: usize,
    },
    Seal,
    /// Settles one of the sealed blocks, gone ones included.
    Settle {
        pick: prop::sample::Index,
    },
    /// Evicts down to this share of what is charged, in hundredths.
    Evict {
        keep: usize,
    },
    Trim {
        stream: u64,
        to: u64,
    },
    Remove {
        stream: u64,
    },
    Get {
        stream: u64,
        start: u64,
        len: u64,
        bytes_max: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..4_u64;
    prop_oneof![
        12 => (stream.clone(), 1..4_u64, 0..50_usize)
            .prop_map(|(stream, count, size)| Step::Insert { stream, count, size }),
        1 => (stream.clone(), prop_oneof![-3..0_i64, 1..3_i64])
            .prop_map(|(stream, by)| Step::Misplace { stream, by }),
        1 => (0..1_000_usize).prop_map(|bytes| Step::Charge { bytes }),
        4 => Just(Step::Seal),
        3 => any::<prop::sample::Index>().prop_map(|pick| Step::Settle { pick }),
        2 => (0..=100_usize).prop_map(|keep| Step::Evict { keep }),
        2 => (stream.clone(), 0..120_u64).prop_map(|(stream, to)| Step::Trim { stream, to }),
        1 => stream.clone().prop_map(|stream| Step::Remove { stream }),
        8 => (stream, 0..120_u64, 0..40_u64, 0..200_usize).prop_map(
            |(stream, start, len, bytes_max)| Step::Get { stream, start, len, bytes_max }
        ),
    ]
}

/// Everything held, by stream and first offset, with the block it is in; `None` is the active one.
#[derive(Default)]
struct Model {
    held: BTreeMap<(u64, u64), (Record, Option<u64>)>,
    ends: BTreeMap<u64, u64>,
    blocks: BTreeMap<u64, Sealed>,
    sealed: Vec<u64>,
    position: u64,
    inserted: bool,
}

struct Sealed {
    bytes: usize,
    settled: bool,
}

impl Model {
    fn of_stream(&self, stream: u64) -> impl Iterator<Item = &(Record, Option<u64>)> {
        self.held
            .range((stream, 0)..=(stream, u64::MAX))
            .map(|(_, held)| held)
    }

    fn get(&self, stream: u64, offsets: &Range<u64>, bytes_max: usize) -> Vec<Record> {
        let mut found: Vec<Record> = Vec::new();
        let mut next = offsets.start;
        let mut bytes = 0;
        for (record, _) in self.of_stream(stream) {
            if record.range.end <= next || offsets.is_empty() {
                continue;
            }
            bytes += record.size.max(1);
            let fits = found.is_empty() || bytes <= bytes_max;
            if record.range.start > next || record.range.start >= offsets.end || !fits {
                break;
            }
            next = record.range.end;
            found.push(record.clone());
        }
        found
    }

    fn drop_where(&mut self, gone: impl Fn(&Record, Option<u64>) -> bool) {
        self.held.retain(|_, (record, block)| !gone(record, *block));
        let held = &self.held;
        self.ends.retain(|stream, _| {
            held.range((*stream, 0)..=(*stream, u64::MAX))
                .next()
                .is_some()
        });
    }

    /// Settled blocks of which nothing is held are gone.
    fn drop_empty_blocks(&mut self) {
        let held = &self.held;
        self.blocks.retain(|id, block| {
            !block.settled || held.values().any(|(_, held_in)| *held_in == Some(*id))
        });
    }

    fn sealed_bytes(&self, of: impl Fn(&Sealed) -> bool) -> usize {
        self.blocks
            .values()
            .filter(|block| of(block))
            .map(|block| block.bytes)
            .sum()
    }
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut cache = LogCache::new(500);
    let mut model = Model::default();
    for step in steps {
        let before = cache.bytes();
        match step {
            Step::Insert {
                stream,
                count,
                size,
            } => {
                let start = model.ends.get(&stream).copied().unwrap_or(count * 7);
                let range = start..start + count;
                let record = Record {
                    stream,
                    range,
                    size,
                };
                model.position += 10;
                prop_assert_eq!(cache.insert(record.clone(), model.position), Ok(()));
                prop_assert!(cache.bytes() >= before + size);
                model.ends.insert(stream, record.range.end);
                model.held.insert((stream, start), (record, None));
                model.inserted = true;
            }
            Step::Misplace { stream, by } => {
                let Some(end) = model.ends.get(&stream).copied() else {
                    continue;
                };
                let Some(start) = end.checked_add_signed(by) else {
                    continue;
                };
                let record = Record {
                    stream,
                    range: start..start + 9,
                    size: 1,
                };
                let refused = cache.insert(record, model.position).expect_err("misplaced");
                let expected = if by < 0 {
                    InsertError::Overlap {
                        stream,
                        expected: end,
                        found: start,
                    }
                } else {
                    InsertError::Gap {
                        stream,
                        expected: end,
                        found: start,
                    }
                };
                prop_assert_eq!(refused, expected);
                prop_assert_eq!(cache.bytes(), before);
            }
            Step::Charge { bytes } => {
                cache.charge(bytes);
                prop_assert_eq!(cache.bytes(), before + bytes);
            }
            Step::Seal => {
                let active = cache.active_bytes();
                let sealed = cache.seal();
                prop_assert_eq!(sealed.is_some(), model.inserted);
                let Some(block) = sealed else { continue };
                prop_assert_eq!(block.bytes(), active);
                prop_assert_eq!(block.position_end(), model.position);
                prop_assert_eq!(cache.bytes(), before);
                let mut listed: Vec<_> = block.entries().cloned().collect();
                let mut streams: Vec<_> = block.streams().map(|(stream, _)| stream).collect();
                prop_assert!(streams.is_sorted_by(|a, b| a < b));
                streams.retain(|stream| !model.ends.contains_key(stream));
                prop_assert_eq!(&streams, &Vec::<u64>::new());
                // A run that is trimmed in part is sealed whole.
                listed.retain(|record| {
                    model
                        .held
                        .contains_key(&(record.stream, record.range.start))
                });
                let active = model
                    .held
                    .values_mut()
                    .filter(|(_, held_in)| held_in.is_none());
                let mut expected = Vec::new();
                for (record, held_in) in active {
                    *held_in = Some(block.id());
                    expected.push(record.clone());
                }
                prop_assert_eq!(listed, expected);
                let sealed = Sealed {
                    bytes: block.bytes(),
                    settled: false,
                };
                model.blocks.insert(block.id(), sealed);
                model.sealed.push(block.id());
                model.inserted = false;
            }
            Step::Settle { pick } => {
                if !model.sealed.is_empty() {
                    let id = *pick.get(&model.sealed);
                    cache.settle(id);
                    if let Some(block) = model.blocks.get_mut(&id) {
                        block.settled = true;
                    }
                    model.drop_empty_blocks();
                }
            }
            Step::Evict { keep } => {
                let bytes_max = before * keep / 100;
                let evicted = cache.evict(bytes_max);
                let mut left = before;
                let settled = model.blocks.iter().filter(|(_, block)| block.settled);
                let mut expected: Vec<_> = settled.map(|(id, block)| (*id, block.bytes)).collect();
                expected.retain(|(_, bytes)| {
                    let evict = left > bytes_max;
                    left -= if evict { *bytes } else { 0 };
                    evict
                });
                let ids: Vec<_> = evicted.blocks.iter().map(|block| block.id()).collect();
                let expected_ids: Vec<_> = expected.iter().map(|(id, _)| *id).collect();
                prop_assert_eq!(ids, expected_ids);
                prop_assert_eq!(evicted.bytes, before - left);
                for (id, _) in expected {
                    model.blocks.remove(&id);
                    model.drop_where(|_, held_in| held_in == Some(id));
                }
            }
            Step::Trim { stream, to } => {
                cache.trim(stream, ..to);
                model.drop_where(|record, _| record.stream == stream && record.range.end <= to);
                model.drop_empty_blocks();
            }
            Step::Remove { stream } => {
                cache.remove(stream);
                model.drop_where(|record, _| record.stream == stream);
                model.drop_empty_blocks();
            }
            Step::Get {
                stream,
                start,
                len,
                bytes_max,
            } => {
                let offsets = start..start + len;
                let expected = model.get(stream, &offsets, bytes_max);
                prop_assert_eq!(cache.get(stream, offsets, bytes_max), expected);
            }
        }
        check(&cache, &model)?;
    }
    Ok(())
}

fn check(cache: &LogCache<Record>, model: &Model) -> Result<(), TestCaseError> {
    let sealed = model.sealed_bytes(|_| true);
    let settled = model.sealed_bytes(|block| block.settled);
    prop_assert_eq!(cache.bytes(), cache.active_bytes() + sealed);
    prop_assert_eq!(
        cache.unsettled_bytes(),
        cache.active_bytes() + sealed - settled
    );
    let payload: usize = model.held.values().map(|(record, _)| record.size).sum();
    prop_assert!(cache.bytes() >= payload);
    for stream in 0..4 {
        let first = model.of_stream(stream).next();
        let expected = first.map(|(record, _)| record.range.start);
        prop_assert_eq!(cache.first_offset(stream), expected);
        for (record, _) in model.of_stream(stream) {
            let start = record.range.end - 1;
            let found = cache.get(stream, start..start + 1, usize::MAX);
            prop_assert_eq!(found.as_slice(), std::slice::from_ref(record));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_steps_keep_what_the_model_keeps(steps in prop::collection::vec(step(), 1..120)) {
        run(steps)?;
    }
}
