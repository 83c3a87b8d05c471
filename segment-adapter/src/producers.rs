//! What a log remembers of its producers, so that a batch that is sent again is not written again.
//!
//! Per producer id: its epoch and its last [`BATCHES_MAX`] batches of that epoch. At most so many producers as the
//! settings say; past that the one that has been silent for longest in offsets is forgotten, and after a time every
//! silent one is. Who is not remembered may go on with any sequence, as in Kafka. `docs/format.md` §producers.
//!
//! It is a function of the batches of the log alone. Nothing here waits for durability: that is the log's (K2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, BufMut, Bytes};

use crate::error::LogError;
use crate::header::BatchHeader;

/// How many batches of a producer are remembered: as many as a client has in flight.
pub(crate) const BATCHES_MAX: usize = 5;

const VERSION: u8 = 1;
const PRODUCER_LEN: usize = 8 + 2 + 1;
const BATCH_LEN: usize = 4 + 8 + 4 + 8;
const _: () = assert!(PRODUCER_LEN == 11 && BATCH_LEN == 24);

/// A batch that was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Produced {
    last_sequence: i32,
    pub(crate) last_offset: i64,
    /// Last offset less first offset, and last sequence less first sequence.
    offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl Produced {
    fn new(header: &BatchHeader) -> Self {
        Self {
            last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    pub(crate) fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn is_repeated_by(&self, header: &BatchHeader) -> bool {
        // The same length and the same end are the same beginning, wherever the sequence wrapped.
        self.offset_delta == header.last_offset_delta
            && self.last_sequence == sequence_after(header.base_sequence, header.last_offset_delta)
    }
}

/// Sequences count from 0 to 2³¹ − 1 and begin again.
fn sequence_after(sequence: i32, delta: i32) -> i32 {
    ((i64::from(sequence) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: i16,
    /// Oldest first, of this epoch; never empty.
    batches: VecDeque<Produced>,
}

/// The producers of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Producers {
    known: BTreeMap<i64, Producer>,
    /// Producer ids by the last offset of each: the first has been silent for longest.
    by_offset: BTreeMap<i64, i64>,
    /// Those that have changed since [`Self::set_kept`].
    changed: BTreeSet<i64>,
}

impl Producers {
    /// Whether a batch may be appended, or is one that was: then that one.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Option<Produced>, LogError> {
        let Some(producer) = self.known.get(&header.producer_id) else {
            return Ok(None);
        };
        let same_epoch = header.producer_epoch == producer.epoch;
        if same_epoch
            && let Some(original) = producer
                .batches
                .iter()
                .find(|batch| batch.is_repeated_by(header))
        {
            return Ok(Some(*original));
        }
        if header.producer_epoch < producer.epoch {
            return Err(LogError::InvalidProducerEpoch {
                producer_id: header.producer_id,
                epoch: header.producer_epoch,
                current: producer.epoch,
            });
        }
        let expected = match producer.batches.back() {
            Some(last) if same_epoch => sequence_after(last.last_sequence, 1),
            _ => 0,
        };
        if header.base_sequence != expected {
            return Err(LogError::OutOfOrderSequence {
                producer_id: header.producer_id,
                epoch: header.producer_epoch,
                sequence: header.base_sequence,
                expected,
            });
        }
        Ok(None)
    }

    /// Takes in a batch of the log; one that is known already changes nothing.
    pub(crate) fn add(&mut self, header: &BatchHeader, max: usize) {
        if header.producer_id < 0 {
            return;
        }
        let producer = self
            .known
            .entry(header.producer_id)
            .or_insert_with(|| Producer {
                epoch: header.producer_epoch,
                batches: VecDeque::with_capacity(BATCHES_MAX),
            });
        if let Some(last) = producer.batches.back() {
            if last.last_offset >= header.last_offset() {
                return;
            }
            self.by_offset.remove(&last.last_offset);
        }
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Produced::new(header));
        self.by_offset
            .insert(header.last_offset(), header.producer_id);
        self.changed.insert(header.producer_id);
        self.forget_down_to(max);
    }

    pub(crate) fn forget_down_to(&mut self, max: usize) {
        while self.known.len() > max {
            let Some((_, silent)) = self.by_offset.pop_first() else {
                return;
            };
            self.known.remove(&silent);
            self.changed.remove(&silent);
        }
    }

    /// Forgets who has been silent for so long.
    pub(crate) fn expire(&mut self, now_ms: i64, after_ms: i64) {
        let silent: Vec<i64> = self
            .known
            .iter()
            .filter(|(_, producer)| {
                let last = producer.batches.back();
                last.is_none_or(|last| now_ms.saturating_sub(last.timestamp) >= after_ms)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: i64) {
        let last = self.known.remove(&id);
        if let Some(last) = last.as_ref().and_then(|producer| producer.batches.back()) {
            self.by_offset.remove(&last.last_offset);
        }
        self.changed.remove(&id);
    }

    /// How many have changed since [`Self::set_kept`].
    pub(crate) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// What has changed, if anything has.
    pub(crate) fn encode_changed(&self) -> Option<Bytes> {
        let changed = self.changed.iter();
        let changed = changed.filter_map(|id| Some((id, self.known.get(id)?)));
        (!self.changed.is_empty()).then(|| encode(changed))
    }

    /// What was encoded as changed is in the meta stream.
    pub(crate) fn set_kept(&mut self) {
        self.changed.clear();
    }

    /// All of it.
    pub(crate) fn encode(&self) -> Bytes {
        if self.known.is_empty() {
            return Bytes::new();
        }
        encode(self.known.iter())
    }

    /// Takes in what [`Self::encode`] or [`Self::encode_changed`] gave.
    pub(crate) fn apply(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let Some((version, mut rest)) = bytes.split_first() else {
            return Ok(());
        };
        if *version != VERSION {
            return Err(LogError::StoredState(format!(
                "producers of version {version}, known is {VERSION}"
            )));
        }
        while !rest.is_empty() {
            let (id, producer) = take(&mut rest)?;
            self.forget(id);
            let last = producer.batches.back().map(|last| last.last_offset);
            if let Some(other) = last.and_then(|last| self.by_offset.insert(last, id)) {
                return Err(LogError::StoredState(format!(
                    "producers {id} and {other} share a batch"
                )));
            }
            self.known.insert(id, producer);
        }
        Ok(())
    }
}

fn encode<'a>(producers: impl Iterator<Item = (&'a i64, &'a Producer)>) -> Bytes {
    let mut out = vec![VERSION];
    for (id, producer) in producers {
        out.put_i64(*id);
        out.put_i16(producer.epoch);
        out.put_u8(producer.batches.len() as u8);
        for batch in &producer.batches {
            out.put_i32(batch.last_sequence);
            out.put_i64(batch.last_offset);
            out.put_i32(batch.offset_delta);
            out.put_i64(batch.timestamp);
        }
    }
    out.into()
}

fn take(rest: &mut &[u8]) -> Result<(i64, Producer), LogError> {
    let wrong = |what: &str, id: i64| LogError::StoredState(format!("producer {id}: {what}"));
    if rest.len() < PRODUCER_LEN {
        return Err(wrong("cut off", -1));
    }
    let (id, epoch, count) = (rest.get_i64(), rest.get_i16(), usize::from(rest.get_u8()));
    if id < 0 || !(1..=BATCHES_MAX).contains(&count) {
        return Err(wrong(&format!("{count} batches"), id));
    }
    if rest.len() < count * BATCH_LEN {
        return Err(wrong("its batches are cut off", id));
    }
    let mut batches = VecDeque::with_capacity(BATCHES_MAX);
    let mut end = 0;
    for _ in 0..count {
        let batch = Produced {
            last_sequence: rest.get_i32(),
            last_offset: rest.get_i64(),
            offset_delta: rest.get_i32(),
            timestamp: rest.get_i64(),
        };
        let first = batch.last_offset.checked_sub(i64::from(batch.offset_delta));
        let fits = batch.last_sequence >= 0 && batch.offset_delta >= 0;
        if !fits || first.is_none_or(|first| first < end) || batch.last_offset == i64::MAX {
            return Err(wrong("its batches do not follow each other", id));
        }
        end = batch.last_offset + 1;
        batches.push_back(batch);
    }
    Ok((id, Producer { epoch, batches }))
}

#[cfg(test)]
mod tests;
