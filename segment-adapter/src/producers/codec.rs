//! Producers as bytes: the owner's state of a segment log. `docs/format.md` §producers.
//!
//! The whole and a change have one form, and each says how far into the log it is true; a change of what compaction has
//! emptied does not, and changes nothing of that. No count is trusted for an allocation.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes};

use super::producer::{Produced, Producer};
use super::{BATCHES_MAX, Producers};
use crate::aborted::Aborted;
use crate::error::LogError;

const VERSION: u8 = 3;
// Persisted: never renumber.
const PRODUCER: u8 = 1;
const GONE: u8 = 2;
const ABORTED: u8 = 3;
const EMPTIED: u8 = 4;
/// In the place of an end: as before.
const NO_END: i64 = -1;
const PRODUCER_LEN: usize = 8 + 2 + 4 + 8 + 8 + 8 + 1;
const BATCH_LEN: usize = 4 + 8 + 4 + 8;
const ABORTED_LEN: usize = 8 + 8 + 8 + 8;
const _: () = assert!(PRODUCER_LEN == 39 && BATCH_LEN == 24 && ABORTED_LEN == 32);

impl Producers {
    /// How much has changed since [`Self::set_kept`].
    pub(crate) fn changed(&self) -> usize {
        self.changed.len() + self.aborted.changed().len()
    }

    /// What has changed, if anything has.
    pub(crate) fn encode_changed(&self) -> Option<Bytes> {
        if self.changed() == 0 {
            return None;
        }
        let mut out = self.begin();
        for id in &self.changed {
            match self.known.get(id) {
                Some(producer) => put(&mut out, *id, producer),
                None => {
                    out.put_u8(GONE);
                    out.put_i64(*id);
                }
            }
        }
        put_aborted(&mut out, self.aborted.changed().iter());
        Some(out.into())
    }

    /// What was encoded as changed is in the meta stream.
    pub(crate) fn set_kept(&mut self) {
        self.changed.clear();
        self.aborted.set_kept();
    }

    /// All of it.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = self.begin();
        for (id, producer) in &self.known {
            put(&mut out, *id, producer);
        }
        put_aborted(&mut out, self.aborted.iter());
        out.into()
    }

    /// The change that nothing is left of the transactions with these markers.
    pub(super) fn encode_emptied(emptied: &[Aborted]) -> Bytes {
        let mut out = vec![VERSION];
        out.put_i64(NO_END);
        for aborted in emptied {
            out.put_u8(EMPTIED);
            out.put_i64(aborted.last_offset);
        }
        out.into()
    }

    fn begin(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_i64(self.end);
        out
    }

    /// Takes in what [`Self::encode`] or [`Self::encode_changed`] gave.
    pub(crate) fn apply(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let Some((version, mut rest)) = bytes.split_first() else {
            return Ok(());
        };
        if *version != VERSION {
            return Err(damaged(format!("version {version}, known is {VERSION}")));
        }
        match rest.try_get_i64().map_err(|_| cut_off())? {
            NO_END => {}
            end if end < self.end => {
                return Err(damaged(format!("end {end} after {}", self.end)));
            }
            end => self.end = end,
        }
        let mut emptied = Vec::new();
        while let Some((kind, behind)) = rest.split_first() {
            rest = behind;
            match *kind {
                PRODUCER => self.apply_producer(&mut rest)?,
                GONE => {
                    let id = rest.try_get_i64().map_err(|_| cut_off())?;
                    self.take_out(id);
                }
                ABORTED => self.apply_aborted(&mut rest)?,
                EMPTIED => {
                    emptied.push(rest.try_get_i64().map_err(|_| cut_off())?);
                }
                kind => return Err(damaged(format!("kind {kind}"))),
            }
        }
        self.aborted.set_kept();
        // One that is not known: the log start has passed it, or it was cut off.
        let _known = self.aborted.remove(&emptied);
        Ok(())
    }

    fn apply_producer(&mut self, rest: &mut &[u8]) -> Result<(), LogError> {
        let (id, producer) = take(rest)?;
        if producer.last_offset >= self.end {
            return Err(damaged(format!("producer {id} is past the end")));
        }
        self.take_out(id);
        match self.put_in(id, producer) {
            Some(other) => Err(damaged(format!("{id} and {other} share a batch"))),
            None => Ok(()),
        }
    }

    fn apply_aborted(&mut self, rest: &mut &[u8]) -> Result<(), LogError> {
        if rest.len() < ABORTED_LEN {
            return Err(cut_off());
        }
        let aborted = Aborted {
            producer_id: rest.get_i64(),
            first_offset: rest.get_i64(),
            last_offset: rest.get_i64(),
            stable_offset: rest.get_i64(),
        };
        let fits = aborted.producer_id >= 0
            && (0..=aborted.last_offset).contains(&aborted.first_offset)
            && aborted.last_offset < self.end
            && (0..=aborted.last_offset + 1).contains(&aborted.stable_offset);
        if !fits || !self.aborted.push(aborted) {
            return Err(damaged(format!("{aborted:?} does not fit")));
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, id: i64, producer: &Producer) {
    out.put_u8(PRODUCER);
    out.put_i64(id);
    out.put_i16(producer.epoch);
    out.put_i32(producer.coordinator_epoch);
    out.put_i64(producer.txn_first_offset.unwrap_or(-1));
    out.put_i64(producer.last_offset);
    out.put_i64(producer.last_timestamp);
    out.put_u8(producer.batches.len() as u8);
    for batch in &producer.batches {
        out.put_i32(batch.last_sequence);
        out.put_i64(batch.last_offset);
        out.put_i32(batch.offset_delta);
        out.put_i64(batch.timestamp);
    }
}

fn put_aborted<'a>(out: &mut Vec<u8>, aborted: impl Iterator<Item = &'a Aborted>) {
    for aborted in aborted {
        out.put_u8(ABORTED);
        out.put_i64(aborted.producer_id);
        out.put_i64(aborted.first_offset);
        out.put_i64(aborted.last_offset);
        out.put_i64(aborted.stable_offset);
    }
}

fn take(rest: &mut &[u8]) -> Result<(i64, Producer), LogError> {
    if rest.len() < PRODUCER_LEN {
        return Err(cut_off());
    }
    let id = rest.get_i64();
    let mut producer = Producer::new(rest.get_i16());
    producer.coordinator_epoch = rest.get_i32();
    let txn_first_offset = rest.get_i64();
    producer.last_offset = rest.get_i64();
    producer.last_timestamp = rest.get_i64();
    let count = usize::from(rest.get_u8());
    if id < 0 || count > BATCHES_MAX || !(0..i64::MAX).contains(&producer.last_offset) {
        return Err(damaged(format!("producer {id} with {count} batches")));
    }
    if !(-1..=producer.last_offset).contains(&txn_first_offset) {
        return Err(damaged(format!("a transaction of {id} that begins late")));
    }
    producer.txn_first_offset = Some(txn_first_offset).filter(|first| *first >= 0);
    take_batches(rest, count, &mut producer.batches)?;
    let last = producer.batches.back().map(|last| last.last_offset);
    if last.is_some_and(|last| last > producer.last_offset) {
        return Err(damaged(format!("the batches of {id} pass its end")));
    }
    Ok((id, producer))
}

fn take_batches(
    rest: &mut &[u8],
    count: usize,
    batches: &mut VecDeque<Produced>,
) -> Result<(), LogError> {
    if rest.len() < count * BATCH_LEN {
        return Err(cut_off());
    }
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
            return Err(damaged("batches that do not follow each other".into()));
        }
        end = batch.last_offset + 1;
        batches.push_back(batch);
    }
    Ok(())
}

fn damaged(what: String) -> LogError {
    LogError::StoredState(format!("producers: {what}"))
}

fn cut_off() -> LogError {
    damaged("cut off".into())
}
