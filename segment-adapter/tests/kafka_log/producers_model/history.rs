//! What a log should know, told from every batch there was: slow, and simple enough to be believed.

use std::collections::BTreeMap;

use segment_adapter::{AbortedTxn, ActiveProducer, Batch, Guard, KafkaLog, Offsets};

/// What stands in a batch, as far as producers are concerned.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum What {
    Plain,
    Data {
        id: i64,
        epoch: i16,
        sequence: i32,
        txn: bool,
    },
    Marker {
        id: i64,
        epoch: i16,
        coordinator: i32,
        commit: bool,
    },
}

impl What {
    fn id(&self) -> Option<i64> {
        match self {
            Self::Plain => None,
            Self::Data { id, .. } | Self::Marker { id, .. } => Some(*id),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) base: i64,
    pub(super) end: i64,
    pub(super) what: What,
}

impl Appended {
    fn count(&self) -> i32 {
        (self.end - self.base) as i32
    }
}

/// A transaction that was ended: its first offset and its marker's.
#[derive(Clone, Copy, Debug)]
struct Ended {
    id: i64,
    first: i64,
    last: i64,
    committed: bool,
}

/// A producer as its batches tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    pub(super) coordinator: i32,
    /// First sequence, count and offset of each batch of its epoch.
    pub(super) batches: Vec<(i32, i32, i64)>,
    pub(super) txn_first: Option<i64>,
}

impl Producer {
    pub(super) fn next_sequence(&self) -> i32 {
        let last = self.batches.last();
        last.map_or(0, |(sequence, count, _)| after(*sequence, *count))
    }
}

/// A verification that was started.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) guard: Guard,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
    pub(super) bumps: bool,
}

pub(super) fn after(sequence: i32, count: i32) -> i32 {
    (0..count).fold(sequence, |at, _| at.checked_add(1).unwrap_or(0))
}

#[derive(Default)]
pub(super) struct History {
    /// Every batch of which something should be known, deleted ones included.
    batches: Vec<Appended>,
    ended: Vec<Ended>,
    /// Base and end of the segments; the last is the active one.
    segments: Vec<(i64, i64)>,
    pub(super) asked: BTreeMap<i64, Asked>,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) acknowledged: i64,
    /// Whether every batch can still be read.
    pub(super) whole: bool,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            segments: vec![(0, 0)],
            whole: true,
            ..Self::default()
        }
    }

    pub(super) fn producer(&self, id: i64) -> Option<Producer> {
        let mut of = self
            .batches
            .iter()
            .filter(|b| b.what.id() == Some(id))
            .peekable();
        of.peek()?;
        let mut known = Producer {
            epoch: i16::MIN,
            coordinator: -1,
            ..Producer::default()
        };
        for batch in of {
            let (What::Data { epoch, .. } | What::Marker { epoch, .. }) = batch.what else {
                continue;
            };
            if epoch != known.epoch {
                known.epoch = epoch;
                known.batches.clear();
            }
            match batch.what {
                What::Data { sequence, txn, .. } => {
                    known.batches.push((sequence, batch.count(), batch.base));
                    if txn {
                        known.txn_first.get_or_insert(batch.base);
                    }
                }
                What::Marker { coordinator, .. } => {
                    known.coordinator = coordinator;
                    known.txn_first = None;
                }
                What::Plain => {}
            }
        }
        Some(known)
    }

    fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.batches.iter().filter_map(|b| b.what.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) fn push(&mut self, what: What, count: i64) {
        if let What::Marker { id, commit, .. } = what
            && let Some(first) = self.producer(id).and_then(|known| known.txn_first)
        {
            self.ended.push(Ended {
                id,
                first,
                last: self.end,
                committed: commit,
            });
        }
        self.settle_verification(&what);
        let (base, end) = (self.end, self.end + count);
        self.batches.push(Appended { base, end, what });
        self.end = end;
        self.segments.last_mut().unwrap().1 = end;
    }

    fn settle_verification(&mut self, what: &What) {
        let over = match what {
            What::Plain => None,
            What::Data { id, txn, .. } => txn.then_some(*id),
            What::Marker { id, epoch, .. } => {
                let goes_on = |asked: &Asked| asked.bumps && asked.epoch == *epoch;
                (!self.asked.get(id).is_some_and(goes_on)).then_some(*id)
            }
        };
        if let Some(over) = over {
            self.asked.remove(&over);
        }
    }

    pub(super) fn lso(&self, hw: i64) -> i64 {
        let open = self
            .ids()
            .into_iter()
            .filter_map(|id| self.producer(id)?.txn_first);
        let ending = self.ended.iter().filter(|ended| ended.last >= hw);
        let unstable = open.chain(ending.map(|ended| ended.first)).min();
        unstable.unwrap_or(hw).max(self.start).min(hw)
    }

    pub(super) fn roll(&mut self) {
        let (base, end) = *self.segments.last().unwrap();
        if base < end {
            self.segments.push((end, end));
        }
        self.drop_below_start();
    }

    pub(super) fn delete_below(&mut self, start: i64) {
        self.start = start;
        self.whole &= start == 0;
        self.drop_below_start();
    }

    fn drop_below_start(&mut self) {
        let active = self.segments.pop().unwrap();
        let start = self.start;
        self.segments.retain(|(_, end)| *end > start);
        self.segments.push(active);
    }

    /// Maintenance begins a new segment when nothing of the active one can be read.
    pub(super) fn maintain(&mut self) {
        let (base, end) = *self.segments.last().unwrap();
        if base < end && end <= self.start {
            self.roll();
        }
    }

    /// A crash: what was not acknowledged may be gone.
    pub(super) fn crashed(&mut self, log: &KafkaLog) {
        let end = log.offsets().leo;
        assert!((self.acknowledged..=self.end).contains(&end), "{end}");
        self.batches.retain(|batch| batch.end <= end);
        self.ended.retain(|ended| ended.last < end);
        // The last rolls may be gone with what came after them.
        while self.segments.len() > log.segment_count().max(1) {
            self.segments.pop();
        }
        if let Some((_, last)) = self.segments.last_mut() {
            *last = end;
        }
        self.reopened();
        (self.end, self.acknowledged) = (end, end);
    }

    pub(super) fn reopened(&mut self) {
        self.asked.clear();
    }

    /// The log was cut. Who has written past it is known from what can still be read.
    pub(super) fn truncate(&mut self, end: i64) {
        let kept = self.segments[0].0;
        if end <= kept {
            self.clear(end, end);
            return;
        }
        let mut touched: Vec<i64> = self
            .batches
            .iter()
            .filter(|batch| batch.end > end)
            .filter_map(|batch| batch.what.id())
            .collect();
        touched.sort_unstable();
        self.batches.retain(|batch| {
            let id = batch.what.id();
            let forgotten = id.is_some_and(|id| touched.binary_search(&id).is_ok());
            batch.end <= end && !(forgotten && batch.end <= kept)
        });
        self.ended.retain(|ended| ended.last < end);
        let last = self.batches.last().map_or(0, |batch| batch.end);
        self.cut_segments(last, end);
    }

    fn cut_segments(&mut self, cut: i64, end: i64) {
        self.segments.retain(|(base, _)| *base < cut);
        if let Some((_, last)) = self.segments.last_mut() {
            *last = cut.min(*last);
        }
        self.segments.push((end, end));
        self.start = self.start.min(end);
        (self.end, self.acknowledged) = (end, end);
        self.drop_below_start();
        self.asked.clear();
    }

    /// Everything is gone.
    pub(super) fn clear(&mut self, end: i64, start: i64) {
        self.batches.clear();
        self.ended.clear();
        self.start = start;
        self.cut_segments(0, end);
        self.whole = true;
    }

    pub(super) fn check(&self, log: &KafkaLog) {
        let offsets = log.offsets();
        let Offsets {
            log_start,
            lso,
            hw,
            confirmed,
            leo,
        } = offsets;
        assert_eq!((log_start, leo), (self.start, self.end));
        assert!((self.acknowledged..=self.end).contains(&hw), "{offsets:?}");
        assert_eq!(hw, confirmed);
        assert_eq!(lso, self.lso(hw), "{offsets:?}");
        assert_eq!(log.segment_count().max(1), self.segments.len());
        let expected: Vec<_> = self.ids().iter().map(|id| self.expected(*id)).collect();
        let active = log.active_producers();
        let active = active.into_iter().map(|active| ActiveProducer {
            last_timestamp: 0,
            ..active
        });
        assert_eq!(active.collect::<Vec<_>>(), expected);
    }

    fn expected(&self, id: i64) -> ActiveProducer {
        let known = self.producer(id).unwrap();
        let last = known.batches.last();
        ActiveProducer {
            producer_id: id,
            epoch: known.epoch,
            last_sequence: last.map_or(-1, |(sequence, count, _)| after(*sequence, count - 1)),
            last_timestamp: 0,
            coordinator_epoch: known.coordinator,
            txn_first_offset: known.txn_first.unwrap_or(-1),
        }
    }

    /// What a reader of committed data got, and what it was told, filtered as its client does: exactly what
    /// was aborted is left out.
    pub(super) fn check_committed(&self, read: &[Batch], told: &[AbortedTxn]) {
        let mut told = told.to_vec();
        told.sort_by_key(|txn| std::cmp::Reverse(txn.first_offset));
        let mut aborting = Vec::new();
        for batch in read {
            let header = batch.header();
            while let Some(txn) = told.pop_if(|txn| txn.first_offset <= header.last_offset()) {
                aborting.push(txn.producer_id);
            }
            let id = header.producer_id;
            if header.attributes.is_control() {
                if !self.commits(header.base_offset) {
                    aborting.retain(|aborting| *aborting != id);
                }
            } else if header.attributes.is_transactional() {
                let left_out = aborting.contains(&id);
                assert_eq!(
                    left_out,
                    self.is_aborted(id, header.base_offset),
                    "{header:?}"
                );
            }
        }
    }

    fn commits(&self, at: i64) -> bool {
        self.batches.iter().any(|batch| {
            batch.base == at && matches!(batch.what, What::Marker { commit: true, .. })
        })
    }

    fn is_aborted(&self, id: i64, at: i64) -> bool {
        let of = self
            .ended
            .iter()
            .filter(|ended| ended.id == id && !ended.committed);
        of.into_iter()
            .any(|ended| (ended.first..ended.last).contains(&at))
    }

    /// The batches that can be read from an offset on.
    pub(super) fn from(&self, offset: i64) -> impl Iterator<Item = &Appended> {
        self.batches.iter().filter(move |batch| batch.end > offset)
    }
}
