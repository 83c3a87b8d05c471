//! Random calls and crashes against a model: a vector of records and a list of segment bounds.

use bytes::Bytes;
use proptest::prelude::*;
use s3stream::segment::{Segment, SegmentLog, Truncation};

use super::{World, open};

#[derive(Clone, Debug)]
enum Call {
    Append { count: u64, len: usize, wait: bool },
    Roll,
    Seal,
    Begin { gap: u64 },
    Annotate,
    Trim { percent: u64 },
    Merge { from: usize, len: usize },
    Maintain { times: usize },
    Truncate { percent: u64, past: u64 },
    Fetch { percent: u64, bytes: usize },
    Crash { forgets: bool },
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => (1..5u64, 0..40usize, any::<bool>())
            .prop_map(|(count, len, wait)| Call::Append { count, len, wait }),
        3 => Just(Call::Roll),
        1 => Just(Call::Seal),
        1 => (0..20u64).prop_map(|gap| Call::Begin { gap }),
        2 => Just(Call::Annotate),
        2 => (0..=100u64).prop_map(|percent| Call::Trim { percent }),
        2 => (0..4usize, 1..4usize).prop_map(|(from, len)| Call::Merge { from, len }),
        1 => (1..40usize).prop_map(|times| Call::Maintain { times }),
        1 => (0..=100u64, prop_oneof![4 => Just(0), 1 => 1..9u64])
            .prop_map(|(percent, past)| Call::Truncate { percent, past }),
        4 => (0..=100u64, 0..100usize)
            .prop_map(|(percent, bytes)| Call::Fetch { percent, bytes }),
        1 => any::<bool>().prop_map(|forgets| Call::Crash { forgets }),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    start: u64,
    next: u64,
    /// Everything below is acknowledged.
    acknowledged: u64,
    records: Vec<(u64, u64, Vec<u8>)>,
    segments: Vec<(u64, Option<u64>)>,
    notes: usize,
    /// Every change of the owner's state, a byte each.
    owner_state: Vec<u8>,
}

impl Model {
    fn is_active(&self) -> bool {
        self.segments.last().is_some_and(|(_, end)| end.is_none())
    }

    fn seal(&mut self) {
        if let Some((base, end)) = self.segments.last_mut() {
            *end = Some(self.next);
            if *base == self.next {
                self.segments.pop();
            }
        }
        self.notes = 0;
        self.trim(self.start);
    }

    fn begin(&mut self, base: u64) {
        if self.segments.is_empty() {
            self.start = base;
        }
        self.next = base;
        self.segments.push((base, None));
    }

    fn trim(&mut self, start: u64) {
        self.start = self.start.max(start);
        let start = self.start;
        self.segments
            .retain(|(_, end)| end.is_none_or(|end| end > start));
    }

    /// What goes with everything from `end` on: the record or gap that holds it begins at the offset that is returned.
    fn truncate(&mut self, end: u64) -> u64 {
        let first = self
            .records
            .iter()
            .find(|(_, record_end, _)| *record_end > end);
        let cut = first.map_or(self.next, |(start, ..)| *start).min(end);
        self.records.retain(|(_, end, _)| *end <= cut);
        self.segments.retain(|(base, _)| *base < cut);
        if let Some((_, last)) = self.segments.last_mut() {
            *last = Some(last.map_or(cut, |last| last.min(cut)));
        }
        self.start = self.start.min(end);
        self.trim(self.start);
        self.segments.push((end, None));
        (self.next, self.acknowledged, self.notes) = (end, end, 0);
        cut
    }

    /// What a reader sees from an offset on.
    fn from(&self, offset: u64) -> impl Iterator<Item = &(u64, u64, Vec<u8>)> {
        self.records.iter().filter(move |(_, end, _)| *end > offset)
    }

    fn check_shape(&self, log: &SegmentLog) {
        let bounds = log.bounds();
        assert_eq!((bounds.start, bounds.next), (self.start, self.next));
        assert!(
            (self.acknowledged..=self.next).contains(&bounds.confirm)
                || bounds.confirm == self.start
        );
        let shape: Vec<_> = log.segments().iter().map(|s| (s.base, s.end)).collect();
        assert_eq!(shape, self.segments);
        assert_eq!(log.annotations().len(), self.notes);
    }

    async fn check_fetch(&self, log: &SegmentLog, from: u64, bytes: usize) {
        let fetched = log.fetch(from, bytes).await.unwrap();
        let expected: Vec<_> = self.from(from).take(fetched.records.len()).collect();
        for (record, (start, end, payload)) in fetched.records.iter().zip(&expected) {
            assert_eq!((record.offsets.start, record.offsets.end), (*start, *end));
            assert_eq!(record.payload, payload);
        }
        let first = self
            .from(from)
            .next()
            .filter(|(start, ..)| *start < fetched.confirm);
        assert_eq!(fetched.records.is_empty(), first.is_none());
    }

    /// After a crash: a prefix of what was appended, with all that was acknowledged.
    fn crashed(&mut self, log: &SegmentLog) {
        let next = log.bounds().next;
        assert!((self.acknowledged..=self.next).contains(&next), "{next}");
        self.records.retain(|(_, end, _)| *end <= next);
        assert!(self.records.last().is_none_or(|(_, end, _)| *end <= next));
        self.next = next;
        self.start = log.bounds().start;
        self.acknowledged = next;
        // The last edits may be lost with the appends that followed them, never others.
        let shape: Vec<_> = log.segments().iter().map(|s| (s.base, s.end)).collect();
        for (base, end) in &shape {
            let known = self.segments.iter().any(|known| known == &(*base, *end));
            let unsealed = end.is_none() && self.segments.iter().any(|(known, _)| known == base);
            assert!(known || unsealed, "{shape:?} of {:?}", self.segments);
        }
        self.segments = shape;
        self.notes = log.annotations().len();
        let state = log.take_state().concat();
        assert!(self.owner_state.starts_with(&state), "{state:?}");
        self.owner_state = state;
    }

    fn change(&mut self) -> Option<Bytes> {
        let change = self.owner_state.len() as u8;
        self.owner_state.push(change);
        Some(Bytes::copy_from_slice(&[change]))
    }
}

async fn merge(log: &SegmentLog, model: &mut Model, from: usize, len: usize) {
    log.flushed().await.unwrap();
    let sealed: Vec<_> = log
        .segments()
        .into_iter()
        .filter(|s| s.is_sealed())
        .collect();
    let Some(run) = sealed.get(from..(from + len).min(sealed.len())) else {
        return;
    };
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return;
    };
    let end = last.end.unwrap();
    let merged = Segment {
        base: first.base,
        end: Some(end),
        slices: run
            .iter()
            .flat_map(|segment| segment.slices.clone())
            .collect(),
        attributes: Bytes::from_static(b"merged"),
    };
    let bounds = first.base..end;
    let change = model.change();
    log.replace(bounds.clone(), vec![merged], || ((), change))
        .await
        .unwrap();
    let at = model
        .segments
        .iter()
        .position(|(base, _)| *base == bounds.start)
        .unwrap();
    model
        .segments
        .retain(|(base, end)| *base < bounds.start || end.is_none_or(|end| end > bounds.end));
    model.segments.insert(at, (bounds.start, Some(bounds.end)));
}

async fn run(calls: Vec<Call>) {
    let mut world = World::new(2).await;
    let mut log = open(&world).await;
    let mut model = Model::default();
    let mut payload = 0u8;
    for call in calls {
        match call {
            Call::Append { count, len, wait } => {
                payload = payload.wrapping_add(1);
                let bytes = vec![payload; len];
                let append = log.append(model.next, count, &[&bytes]).unwrap();
                if !model.is_active() {
                    model.begin(model.next);
                }
                model.records.push((model.next, model.next + count, bytes));
                model.next += count;
                if wait {
                    append.await.unwrap();
                    model.acknowledged = model.next;
                }
            }
            Call::Roll => {
                let change = model.is_active().then(|| model.change()).flatten();
                let rolled = log.roll(Bytes::from_static(b"rolled"), None, change);
                assert_eq!(rolled.is_ok(), model.is_active());
                if model.is_active() {
                    model.seal();
                    model.begin(model.next);
                }
            }
            Call::Seal => {
                assert_eq!(log.seal(Bytes::new()).is_ok(), model.is_active());
                if model.is_active() {
                    model.seal();
                }
            }
            Call::Begin { gap } => {
                let base = model.next + gap;
                assert_eq!(log.begin(base).await.is_ok(), !model.is_active());
                if !model.is_active() {
                    model.begin(base);
                    model.acknowledged = base;
                }
            }
            Call::Annotate => {
                let note = Bytes::from_static(b"note");
                drop(log.annotate(note, model.change()).unwrap());
                if !model.is_active() {
                    model.begin(model.next);
                }
                model.notes += 1;
            }
            Call::Trim { percent } => {
                let bounds = log.bounds();
                let to = bounds.start + (bounds.confirm - bounds.start) * percent / 100;
                log.trim_front(..to).await.unwrap();
                model.trim(to);
            }
            Call::Merge { from, len } => merge(&log, &mut model, from, len).await,
            Call::Maintain { times } => {
                if model.is_active() {
                    for _ in 0..times {
                        drop(log.annotate(Bytes::from_static(b"note"), None).unwrap());
                    }
                    model.notes += times;
                }
                drop(log.change_state(model.change().unwrap()).unwrap());
                let state = model.owner_state.clone().into();
                log.maintain(|| ((), state)).await.unwrap();
            }
            Call::Truncate { percent, past } => {
                log.flushed().await.unwrap();
                let bounds = log.bounds();
                let end = bounds.start + (bounds.next - bounds.start) * percent / 100 + past;
                let cut = model.truncate(end);
                let durable = log.truncate(&Truncation {
                    cut,
                    end,
                    start: model.start,
                    attributes: Bytes::from_static(b"cut"),
                    note: None,
                    state: model.owner_state.clone().into(),
                });
                durable.unwrap().await.unwrap();
            }
            Call::Fetch { percent, bytes } => {
                let bounds = log.bounds();
                let from = bounds.start + (bounds.confirm - bounds.start) * percent / 100;
                model.check_fetch(&log, from, bytes).await;
            }
            Call::Crash { forgets } => {
                world.crash(forgets).await;
                log = open(&world).await;
                model.crashed(&log);
            }
        }
        model.check_shape(&log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_log_answers_as_a_vector_does(calls in prop::collection::vec(call(), 1..60)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(calls));
    }
}
