//! Random histories with transactions, aborts, tombstones, passes of every size, cuts, crashes and take-overs: after every
//! step every read, at every offset and isolation, shows what a reader must see.

use std::collections::BTreeSet;

use proptest::prelude::*;
use segment_adapter::{ActiveProducer, EpochStart, TimestampSpec};

use super::view::Record;
use super::*;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const IDS: i64 = 3;

#[derive(Clone, Debug)]
enum Call {
    /// By nobody, or by a producer, in its transaction if so.
    Send {
        id: Option<i64>,
        txn: bool,
        records: Vec<(usize, bool)>,
    },
    End {
        id: i64,
        commit: bool,
    },
    Again {
        id: i64,
    },
    Roll,
    Compact {
        keys: usize,
        wait_ms: i64,
        /// After so many steps it is dropped, and the log opened again if so.
        dropped: Option<(usize, bool)>,
    },
    DeleteRecords {
        percent: i64,
    },
    Retain,
    Truncate {
        percent: i64,
    },
    Reopen,
    Crash,
    TakeOver,
}

fn call() -> impl Strategy<Value = Call> {
    let records = prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.2)), 1..4);
    let id = prop::option::weighted(0.7, 0..IDS);
    let dropped = prop::option::weighted(0.3, (0..30usize, any::<bool>()));
    prop_oneof![
        20 => (id, any::<bool>(), records).prop_map(|(id, txn, records)| Call::Send { id, txn, records }),
        8 => (0..IDS, any::<bool>()).prop_map(|(id, commit)| Call::End { id, commit }),
        2 => (0..IDS).prop_map(|id| Call::Again { id }),
        6 => Just(Call::Roll),
        8 => (1..12usize, 0..=RETENTION_MS, dropped)
            .prop_map(|(keys, wait_ms, dropped)| Call::Compact { keys, wait_ms, dropped }),
        1 => (0..=100i64).prop_map(|percent| Call::DeleteRecords { percent }),
        1 => Just(Call::Retain),
        1 => (50..=100i64).prop_map(|percent| Call::Truncate { percent }),
        1 => Just(Call::Reopen),
        1 => Just(Call::Crash),
        1 => Just(Call::TakeOver),
    ]
}

/// A record that was written.
#[derive(Clone, Debug)]
struct Written {
    record: Record,
    /// Who wrote it in a transaction.
    txn: Option<i64>,
    /// Whether that was aborted, once it is over.
    aborted: Option<bool>,
    /// When a pass first went by that may have begun its time.
    first_pass: Option<i64>,
}

/// What stays the same whatever compaction does.
#[derive(Clone, PartialEq, Debug)]
struct Known {
    producers: Vec<ActiveProducer>,
    epochs: Vec<EpochStart>,
    offsets: segment_adapter::Offsets,
    unstable: Option<i64>,
}

impl Known {
    fn of(log: &KafkaLog) -> Self {
        Self {
            producers: log.active_producers(),
            epochs: log.epoch_starts(),
            offsets: log.offsets(),
            unstable: log.first_unstable_offset(),
        }
    }
}

struct Run {
    world: World,
    log: KafkaLog,
    written: Vec<Written>,
    /// First offset and bytes of each batch of a producer, by producer.
    sent: BTreeMap<i64, Vec<(i64, Bytes)>>,
    sequences: BTreeMap<i64, i32>,
    /// Who has an open transaction.
    open: BTreeSet<i64>,
    now_ms: i64,
    /// The last pass.
    last_pass: i64,
    /// The log start was moved into a segment, so sizes are not what can be read.
    has_hidden: bool,
}

impl Run {
    async fn new() -> Self {
        let world = World::new().await;
        Self {
            log: new_log(&world).await,
            world,
            written: Vec::new(),
            sent: BTreeMap::new(),
            sequences: BTreeMap::new(),
            open: BTreeSet::new(),
            now_ms: NOW,
            last_pass: 0,
            has_hidden: false,
        }
    }

    fn note(&mut self, first: i64, batch: &Bytes, txn: Option<i64>) {
        let parsed = Batches::new(batch.clone()).next().unwrap().unwrap();
        for mut record in records(&parsed) {
            record.offset += first;
            self.written.push(Written {
                record,
                txn,
                aborted: None,
                first_pass: None,
            });
        }
    }

    async fn send(&mut self, id: Option<i64>, txn: bool, picked: &[(usize, bool)]) {
        let value = self.written.len().to_string();
        let picked: Vec<(&str, &str)> = picked
            .iter()
            .map(|(key, deletes)| (KEYS[*key], if *deletes { "" } else { &value }))
            .collect();
        let mut batch = keyed(&picked);
        // Within a transaction everything is.
        let txn = id.filter(|id| txn || self.open.contains(id));
        if let Some(id) = id {
            let sequence = self.sequences.entry(id).or_default();
            batch = batch.producer(id, 0, *sequence);
            *sequence += picked.len() as i32;
        }
        if let Some(id) = txn {
            batch = batch.transactional();
            self.open.insert(id);
        }
        let batch = batch.build().unwrap();
        let info = put(&self.log, batch.clone()).await;
        assert!(!info.duplicate);
        self.note(info.first_offset, &batch, txn);
        if let Some(id) = id {
            let sent = self.sent.entry(id).or_default();
            sent.push((info.first_offset, batch));
        }
    }

    async fn end(&mut self, id: i64, commit: bool) {
        end_txn(&self.log, id, commit).await;
        self.open.remove(&id);
        for written in &mut self.written {
            if written.txn == Some(id) && written.aborted.is_none() {
                written.aborted = Some(!commit);
            }
        }
    }

    /// One of its last five batches is sent again.
    async fn again(&mut self, id: i64) {
        let Some((first, batch)) = self.sent.get(&id).and_then(|sent| sent.last()).cloned() else {
            return;
        };
        let info = put(&self.log, batch).await;
        assert_eq!((info.duplicate, info.first_offset), (true, first));
    }

    async fn compact(&mut self, keys: usize, wait_ms: i64, dropped: Option<(usize, bool)>) {
        self.now_ms += wait_ms;
        let before = Known::of(&self.log);
        let active = self.log.offsets().leo;
        for written in &mut self.written {
            written.first_pass.get_or_insert(self.now_ms);
        }
        self.last_pass = self.now_ms;
        let mut compactor = compactor(keys);
        let mut pass = Box::pin(self.log.compact(&mut compactor, self.now_ms));
        let Some((steps, reopens)) = dropped else {
            let done = pass.await.unwrap();
            assert!(done.finished);
            assert_eq!(Known::of(&self.log), before);
            self.check_clean(done.cleaned).await;
            assert!(done.cleaned <= active);
            return;
        };
        for _ in 0..steps {
            if futures::poll!(pass.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(pass);
        if reopens {
            self.reopen(before).await;
        }
    }

    /// Below, a reader of committed data gets one record of a key at most, and nobody gets what was aborted.
    async fn check_clean(&self, cleaned: i64) {
        let view = View::of(&self.log, COMMITTED).await;
        // A batch that the log start lies in is seen whole.
        let clean = self.log.offsets().log_start..cleaned;
        let mut seen = BTreeSet::new();
        for record in view.data().filter(|record| clean.contains(&record.offset)) {
            assert!(
                seen.insert(record.key.clone()),
                "{record:?} again below {cleaned}"
            );
        }
    }

    async fn reopen(&mut self, before: Known) {
        self.log = self.world.open_again(compacted()).await;
        assert_eq!(Known::of(&self.log), before);
    }

    async fn truncate(&mut self, percent: i64) {
        let offsets = self.log.offsets();
        let end = offsets.log_start + (offsets.leo - offsets.log_start) * percent / 100;
        let before = View::of(&self.log, HW).await;
        self.log.truncate_to(end).await.unwrap();
        let view = View::of(&self.log, HW).await;
        let kept = before.batches.iter();
        let kept = kept.take_while(|batch| batch.header.last_offset() < end);
        assert!(view.batches.iter().eq(kept));
        let cut = view
            .batches
            .last()
            .map_or(0, |last| last.header.last_offset() + 1);
        // Who was touched goes on as the log says; what became of its transaction is as if it never was.
        let producers = self.log.active_producers();
        self.open = producers
            .iter()
            .filter(|known| known.txn_first_offset >= 0)
            .map(|known| known.producer_id)
            .collect();
        self.sequences = producers
            .iter()
            .map(|known| (known.producer_id, known.last_sequence + 1))
            .collect();
        for sent in self.sent.values_mut() {
            sent.clear();
        }
        for written in &mut self.written {
            let in_cut = written.record.offset >= cut;
            let open = producers
                .iter()
                .find(|known| Some(known.producer_id) == written.txn);
            let first = open.map_or(-1, |known| known.txn_first_offset);
            if in_cut || (first >= 0 && written.record.offset >= first) {
                written.aborted = None;
            }
        }
        // What newer records had superseded that are cut off now does not come back.
        let seen: BTreeSet<i64> = view.data().map(|record| record.offset).collect();
        self.written
            .retain(|written| seen.contains(&written.record.offset));
    }

    /// All of the promises to readers.
    async fn check(&self) {
        let offsets = self.log.offsets();
        let all = View::of(&self.log, HW).await;
        let committed = View::of(&self.log, COMMITTED).await;
        let written: BTreeMap<i64, &Written> = self
            .written
            .iter()
            .map(|written| (written.record.offset, written))
            .collect();
        for record in all.data() {
            assert_eq!(&written[&record.offset].record, record);
        }
        for record in committed.data() {
            let written = written[&record.offset];
            assert_eq!(&written.record, record);
            assert!(
                written.txn.is_none() || written.aborted == Some(false),
                "{written:?}"
            );
        }
        self.check_latest(&committed, offsets);
        self.check_every_offset(&all, &committed, offsets).await;
        if !self.has_hidden {
            assert_eq!(self.log.size().unwrap(), all.bytes());
        }
    }

    /// The last committed record of every key is there, unless it deletes and its time is over; never an older one after it.
    fn check_latest(&self, committed: &View, offsets: segment_adapter::Offsets) {
        let mut latest: BTreeMap<&Option<Vec<u8>>, &Written> = BTreeMap::new();
        for written in &self.written {
            let is_committed = written.txn.is_none() || written.aborted == Some(false);
            let offset = written.record.offset;
            if is_committed && offset < offsets.lso {
                latest.insert(&written.record.key, written);
            }
        }
        let table = committed.table();
        for (key, last) in latest {
            let seen = table.get(key.as_ref().unwrap());
            let seen = seen.filter(|(offset, _)| *offset >= offsets.log_start);
            let expected = (last.record.offset, last.record.value.clone());
            if seen == Some(&expected) || last.record.offset < offsets.log_start {
                continue;
            }
            let time_is_over = last
                .first_pass
                .is_some_and(|first| self.last_pass >= first + RETENTION_MS);
            let is_gone = last.record.value.is_none() && time_is_over;
            assert!(
                is_gone && seen.is_none(),
                "{key:?}: {last:?}, seen {seen:?}"
            );
        }
    }

    async fn check_every_offset(
        &self,
        all: &View,
        committed: &View,
        offsets: segment_adapter::Offsets,
    ) {
        for from in offsets.log_start..=offsets.leo {
            let data = self.log.read(from, 1, true, HW).await.unwrap();
            let next = all
                .batches
                .iter()
                .find(|batch| batch.header.last_offset() >= from);
            let read = batches(&data).pop();
            assert_eq!(
                read.map(|b| b.bytes().clone()),
                next.map(|b| b.bytes.clone())
            );
            for bytes in [1, 300] {
                let seen = View::from(&self.log, from, bytes, COMMITTED).await;
                let rest = committed.data().filter(|record| record.offset >= from);
                let seen = seen.data().filter(|record| record.offset >= from);
                assert!(seen.eq(rest), "{from}");
            }
        }
        for timestamp in [0, 1000, 1001, NOW] {
            let spec = TimestampSpec::At(timestamp);
            let found = self.log.fetch_offset_for_timestamp(spec, HW).await.unwrap();
            let visible = all
                .records()
                .find(|record| record.timestamp >= timestamp && record.offset >= offsets.log_start);
            let expected = visible.map_or((-1, -1), |found| (found.offset, found.timestamp));
            assert_eq!((found.offset, found.timestamp), expected, "{timestamp}");
        }
    }

    async fn call(&mut self, call: Call) {
        match call {
            Call::Send { id, txn, records } => self.send(id, txn, &records).await,
            Call::End { id, commit } => self.end(id, commit).await,
            Call::Again { id } => self.again(id).await,
            Call::Roll => self.log.roll().unwrap(),
            Call::Compact {
                keys,
                wait_ms,
                dropped,
            } => self.compact(keys, wait_ms, dropped).await,
            Call::DeleteRecords { percent } => {
                let offsets = self.log.offsets();
                let to = offsets.log_start + (offsets.hw - offsets.log_start) * percent / 100;
                self.log
                    .update_config(LogConfig {
                        delete: true,
                        retention_ms: -1,
                        ..compacted()
                    })
                    .unwrap();
                self.log.delete_records(to).await.unwrap();
                self.log.update_config(compacted()).unwrap();
                self.has_hidden = true;
            }
            Call::Retain => {
                self.log.delete_old_segments(self.now_ms).await.unwrap();
            }
            Call::Truncate { percent } => self.truncate(percent).await,
            Call::Reopen => {
                self.log.close().await.unwrap();
                let before = Known::of(&self.log);
                self.reopen(before).await;
            }
            Call::Crash => {
                let before = Known::of(&self.log);
                self.world.crash().await;
                self.log = new_log(&self.world).await;
                assert_eq!(Known::of(&self.log), before, "all of it was acknowledged");
            }
            Call::TakeOver => {
                let before = Known::of(&self.log);
                let held = self.world.take_over().await;
                let old = self.log.clone();
                self.log = new_log(&self.world).await;
                assert_eq!(Known::of(&self.log), before);
                // What the old owner compacts from now on is nowhere.
                let _ends = old.compact(&mut compactor(10), self.now_ms).await;
                drop(held);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn lesson_6_a_compacted_log_shows_every_reader_what_it_must(
        calls in prop::collection::vec(call(), 1..60)
    ) {
        block_on(async {
            let mut run = Run::new().await;
            for call in calls {
                run.call(call).await;
                run.check().await;
            }
        });
    }
}
