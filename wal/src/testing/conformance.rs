//! The suite that every backend passes: what of W1 to W8 can be seen from outside.
//!
//! It runs on a storage that is made blank for each case, and "restarts" by dropping all and asking the storage for a backend again. It panics with the
//! contract's id. It cannot see a power cut (W8's other half) nor a late completion (W5): the crash tests of a backend do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Hear;
use crate::{
    Backend, Error, Found, Identity, Log, LogEpoch, LogState, LogUuid, Position, Replay, Replayed,
};

/// A place for one log, that a restarted process would find again.
pub trait Storage: Send + Sync {
    /// A backend on it, as a new process would make one.
    fn backend(&self) -> Arc<dyn Backend>;
}

impl<F: Fn() -> Arc<dyn Backend> + Send + Sync> Storage for F {
    fn backend(&self) -> Arc<dyn Backend> {
        self()
    }
}

/// Logs larger than this are not filled to their end by the suite.
const FILL_BYTES_MAX: u64 = 64 << 20;

/// Runs the suite. `blank` gives a new, blank storage for each case: of some MiB, so that the cases that fill it do so.
///
/// # Panics
/// At the first contract that is not kept, naming it.
pub async fn conformance<S: Storage>(blank: impl Fn() -> S) {
    a_new_log_is_blank_then_live_and_replays_nothing(&blank()).await;
    records_of_every_size_replay_in_order(&blank()).await;
    impossible_records_are_refused(&blank()).await;
    a_replay_can_be_repeated_and_changes_nothing(&blank()).await;
    a_sealed_epoch_replays_exactly_and_before_the_next(&blank()).await;
    an_epoch_that_was_never_started_is_skipped(&blank()).await;
    a_trimmed_record_stays_away_and_the_rest_comes_back(&blank()).await;
    a_full_log_takes_appends_again_after_a_trim(&blank()).await;
    a_log_that_owes_nothing_closes_and_can_be_made_anew(&blank()).await;
    a_log_that_owes_closes_and_comes_back(&blank()).await;
    a_place_that_does_not_fit_the_state_is_refused(&blank()).await;
    what_the_state_knows_to_be_durable_may_not_be_missing(&blank()).await;
    two_owners_never_both_acknowledge(&blank()).await;
    appends_of_many_threads_keep_each_threads_order(&blank()).await;
}

fn identity() -> Identity {
    Identity {
        cluster: 11,
        log: LogUuid::new(22),
        node: 33,
    }
}

fn fresh() -> LogState {
    LogState::new(identity(), LogEpoch::new(1))
}

fn grant_next(state: &mut LogState) {
    state.grant(LogEpoch::new(state.epoch.get() + 1));
}

/// Opens, waiting a little for a previous owner whose last write is still under way.
async fn open(storage: &impl Storage, state: &LogState) -> Result<Box<dyn Replay>, Error> {
    for _ in 0..500 {
        match storage.backend().open(state).await {
            Err(Error::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            result => return result,
        }
    }
    storage.backend().open(state).await
}

/// Identifies, waiting like [`open`].
async fn identify(storage: &impl Storage) -> Found {
    for _ in 0..500 {
        match storage.backend().identify().await {
            Err(Error::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            result => return result.expect("a place that can be read"),
        }
    }
    panic!("a place that stays in use");
}

async fn replay_all(replay: &mut dyn Replay) -> Vec<Replayed> {
    let mut all: Vec<Replayed> = Vec::new();
    while let Some(piece) = replay.next().await.expect("a replay of an undamaged log") {
        assert!(!piece.is_empty(), "a piece without records");
        for record in piece {
            if let Some(last) = all.last() {
                assert!(
                    record.position.start >= last.position.end,
                    "W1: {:?}",
                    record.position
                );
                assert!(record.epoch >= last.epoch, "W1: epoch {}", record.epoch);
            }
            assert!(
                record.footprint >= record.payload.len(),
                "footprint below the payload"
            );
            all.push(record);
        }
    }
    let again = replay.next().await.expect("a replay at its end");
    assert!(again.is_none(), "a replay that goes on after its end");
    all
}

/// A life of a log: what came back, and the log that takes appends.
struct Life {
    back: Vec<Replayed>,
    log: Arc<dyn Log>,
    hear: Arc<Hear>,
}

async fn live(storage: &impl Storage, state: &mut LogState) -> Life {
    let mut replay = open(storage, state).await.expect("the log opens");
    let back = replay_all(&mut *replay).await;
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay
        .start(Arc::clone(&hear) as _)
        .await
        .expect("the log starts");
    Life { back, log, hear }
}

impl Life {
    /// Appends and waits for each to be durable.
    async fn write(&self, payloads: &[Vec<u8>]) {
        let before = self.hear.count();
        let ranges: Vec<_> = payloads
            .iter()
            .map(|p| Hear::append(&*self.log, &[p]).expect("an append with room"))
            .collect();
        self.hear.until_durable(before + payloads.len()).await;
        let heard = self.hear.heard();
        for ((durable, range), payload) in
            heard.records.iter().skip(before).zip(ranges).zip(payloads)
        {
            assert_eq!(
                durable.position, range,
                "W3: the acknowledged position is the append's"
            );
            assert_eq!(
                &durable.payload[..],
                &payload[..],
                "W4: the acknowledged bytes"
            );
        }
    }

    fn ends(&self) -> Vec<Position> {
        self.hear
            .heard()
            .records
            .iter()
            .map(|r| r.position.end)
            .collect()
    }
}

fn payload(n: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (n.wrapping_mul(31).wrapping_add(i) % 251) as u8)
        .collect()
}

fn payloads(records: &[Replayed]) -> Vec<&[u8]> {
    records.iter().map(|r| &r.payload[..]).collect()
}

async fn a_new_log_is_blank_then_live_and_replays_nothing(storage: &impl Storage) {
    let found = storage
        .backend()
        .identify()
        .await
        .expect("a blank place can be read");
    assert_eq!(found, Found::Blank);
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    assert!(life.back.is_empty(), "a new log replays nothing");
    assert_eq!(life.log.usage().used, 0, "a new log holds nothing");
    match storage.backend().identify().await {
        Ok(found) => assert_eq!(found, Found::Live(identity())),
        // Where the place knows that someone has it.
        Err(e) => assert!(matches!(e, Error::InUse { .. }), "{e}"),
    }
    drop(life);
    assert_eq!(identify(storage).await, Found::Live(identity()));
}

async fn records_of_every_size_replay_in_order(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let max = life.log.max_record_len();
    let mut lens = vec![
        1, 2, 3, 511, 512, 513, 4000, 4011, 4012, 4013, 4092, 4096, 4097, 65_536,
    ];
    lens.retain(|len| *len <= max);
    lens.extend([max, 1, 7]);
    let all: Vec<_> = lens
        .iter()
        .enumerate()
        .map(|(n, len)| payload(n, *len))
        .collect();
    for payload in &all {
        life.write(std::slice::from_ref(payload)).await;
    }
    let (positions, durable_end) = (life.hear.heard().records, life.log.durable_end());
    assert_eq!(
        Some(&durable_end),
        life.ends().last(),
        "durable_end is the last record's end"
    );
    let used = life.log.usage().used;
    assert_eq!(
        used,
        life.hear.heard().footprint,
        "the footprints add up to what is used"
    );
    drop(life);

    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    assert_eq!(
        payloads(&life.back),
        all.iter().map(|p| &p[..]).collect::<Vec<_>>(),
        "W1, W2, W4"
    );
    let back: Vec<_> = life.back.iter().map(|r| r.position.clone()).collect();
    let told: Vec<_> = positions.iter().map(|r| r.position.clone()).collect();
    assert_eq!(back, told, "positions survive");
    let shares: usize = life.back.iter().map(|r| r.footprint).sum();
    assert_eq!(shares as u64, used, "the shares add up to the commits");
}

async fn impossible_records_are_refused(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let max = life.log.max_record_len();
    let long = vec![0; max + 1];
    let refused = Hear::append(&*life.log, &[&long[..]]);
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    let refused = Hear::append(&*life.log, &[b"", b""]);
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(
        life.log.usage().used,
        0,
        "a refused append reserves nothing"
    );
    let parts: Vec<&[u8]> = vec![b"", b"ga", b"", b"thered"];
    Hear::append(&*life.log, &parts).expect("empty parts are no empty record");
    life.hear.until_durable(1).await;
    let heard = life.hear.heard();
    assert_eq!(
        heard.records.first().map(|r| r.payload.clone()),
        Some(Bytes::from_static(b"gathered"))
    );
}

async fn a_replay_can_be_repeated_and_changes_nothing(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&(0..20).map(|n| payload(n, 100 + n)).collect::<Vec<_>>())
        .await;
    drop(life);
    grant_next(&mut state);
    let mut replay = open(storage, &state).await.expect("the log opens");
    let first = replay_all(&mut *replay).await;
    replay.rewind().await.expect("a rewind");
    assert_eq!(
        replay_all(&mut *replay).await,
        first,
        "a second pass gives the same"
    );
    let (ends, start) = (replay.ends().to_vec(), replay.start_position());
    drop(replay);
    // A crash before anything was recorded: the same state must give the same again (W8).
    let mut replay = open(storage, &state)
        .await
        .expect("the log opens with the same state");
    assert_eq!(
        replay_all(&mut *replay).await,
        first,
        "W8: the second opening replays the same"
    );
    assert_eq!(
        (replay.ends().to_vec(), replay.start_position()),
        (ends, start),
        "W8"
    );
}

async fn a_sealed_epoch_replays_exactly_and_before_the_next(storage: &impl Storage) {
    let mut state = fresh();
    let mut expected = Vec::new();
    for life_no in 0..4_usize {
        let life = live(storage, &mut state).await;
        assert_eq!(
            payloads(&life.back),
            expected
                .iter()
                .map(|p: &Vec<u8>| &p[..])
                .collect::<Vec<_>>(),
            "W8"
        );
        let epochs: Vec<_> = life.back.iter().map(|r| r.epoch.get()).collect();
        let written: Vec<_> = (1..=life_no as u64)
            .flat_map(|e| vec![e; e as usize])
            .collect();
        assert_eq!(
            epochs, written,
            "each record carries the epoch that wrote it"
        );
        let new: Vec<_> = (0..=life_no)
            .map(|n| payload(life_no * 10 + n, 3000))
            .collect();
        life.write(&new).await;
        expected.extend(new);
        grant_next(&mut state);
    }
    let sealed: Vec<_> = state.owed.iter().map(|e| e.sealed_end).collect();
    let replay = open(storage, &state).await.expect("the log opens");
    for (end, sealed) in replay.ends().iter().zip(sealed) {
        assert!(
            sealed.is_none_or(|sealed| sealed == end.end),
            "W8: a seal never moves"
        );
    }
}

async fn an_epoch_that_was_never_started_is_skipped(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10)]).await;
    drop(life);
    grant_next(&mut state);
    let replay = open(storage, &state).await.expect("the log opens");
    drop(replay);
    // The granted epoch is listed as owed, and was never started.
    let mut owed = state.owed.clone();
    owed.push(crate::EpochState {
        epoch: state.epoch,
        trim: Position::default(),
        durable_end: Position::default(),
        sealed_end: None,
        started: false,
    });
    let state = LogState {
        owed,
        epoch: LogEpoch::new(9),
        ..state
    };
    let mut replay = open(storage, &state)
        .await
        .expect("the log opens past an unstarted epoch");
    assert_eq!(replay.ends().len(), 1, "an end per started epoch");
    assert_eq!(
        payloads(&replay_all(&mut *replay).await),
        [&payload(1, 10)[..]]
    );
}

async fn a_trimmed_record_stays_away_and_the_rest_comes_back(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let all: Vec<_> = (0..60).map(|n| payload(n, 1 + n * 97)).collect();
    life.write(&all).await;
    let ends = life.ends();
    for keep_from in [1, 25, 26, 59] {
        let to = ends[keep_from - 1];
        state.trim(to, life.log.durable_end());
        life.log.trim(to);
        life.log.trim(ends[0]); // lower: ignored (W7)
    }
    life.write(&[payload(60, 5)]).await;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let floor = ends[58];
    let back: Vec<_> = life
        .back
        .iter()
        .filter(|r| r.position.end > floor)
        .collect();
    assert_eq!(back.len(), 2, "W2: two records are above the trim");
    assert_eq!(&back[0].payload[..], &all[59][..]);
    assert_eq!(&back[1].payload[..], &payload(60, 5)[..]);

    // A trim of everything, past the end: it counts as the durable end.
    let end = life.log.durable_end();
    state.trim(end, end);
    life.log.trim(Position::new(u64::MAX));
    life.write(&[payload(61, 5)]).await;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let last = life
        .back
        .last()
        .expect("W2: what came after the trim is there");
    assert_eq!(&last.payload[..], &payload(61, 5)[..]);
}

async fn a_full_log_takes_appends_again_after_a_trim(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let capacity = life.log.usage().capacity;
    if capacity > FILL_BYTES_MAX {
        return;
    }
    let len = life.log.max_record_len().min(50_000);
    let mut appended = 0;
    for lap in 1..=3 {
        loop {
            match Hear::append(&*life.log, &[&payload(appended, len)]) {
                Ok(_) => appended += 1,
                Err(Error::Full { needed, free }) => {
                    assert!(
                        needed > free,
                        "full with {free} bytes free and {needed} needed"
                    );
                    if life.hear.count() == appended {
                        break;
                    }
                    // Bytes on their way to the storage are bounded too: they become room as they become durable.
                    life.hear.until_durable(appended).await;
                }
                Err(e) => panic!("{e}"),
            }
            assert!(life.log.usage().used <= capacity, "more used than there is");
        }
        life.hear.until_durable(appended).await;
        assert!(
            life.log.usage().used > capacity / 2,
            "full while half empty"
        );
        let ends = life.ends();
        let (to, before) = (ends[appended - 3], life.log.usage().used);
        let rooms = life.hear.heard().rooms;
        state.trim(to, life.log.durable_end());
        life.log.trim(to);
        life.hear
            .until(&format!("room in lap {lap}"), |h| h.rooms > rooms)
            .await;
        // A room that was still on its way from before the trim may have been heard.
        for _ in 0..1000 {
            if life.log.usage().used < before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(life.log.usage().used < before, "a trim gives space back");
    }
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let wanted: Vec<_> = (appended - 2..appended).map(|n| payload(n, len)).collect();
    let floor = state.owed.first().map(|e| e.trim).expect("an owed epoch");
    let back: Vec<_> = life
        .back
        .iter()
        .filter(|r| r.position.end > floor)
        .cloned()
        .collect();
    assert_eq!(
        payloads(&back),
        wanted.iter().map(|p| &p[..]).collect::<Vec<_>>(),
        "W2 after laps"
    );
}

async fn a_log_that_owes_nothing_closes_and_can_be_made_anew(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10), payload(2, 9000)]).await;
    let end = life.log.durable_end();
    life.log.trim(end);
    life.log.close().await.expect("a close");
    life.log.close().await.expect("a second close does nothing");
    let refused = Hear::append(&*life.log, &[b"late"]);
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    // The closed log is still held by someone: exclusive use ended all the same.
    let found = storage
        .backend()
        .identify()
        .await
        .expect("a closed log can be read");
    assert_eq!(found, Found::Closed(identity()));

    let mut resumed = LogState::new(identity(), LogEpoch::new(2));
    let second = live(storage, &mut resumed).await;
    assert!(second.back.is_empty(), "a retired epoch does not replay");
    let start = resumed
        .owed
        .first()
        .map(|e| e.trim)
        .expect("the new epoch is owed");
    assert!(start >= end, "positions go on in the same log");
    second.write(&[payload(3, 10)]).await;
    second.log.trim(second.log.durable_end());
    second.log.close().await.expect("a close");

    let other = Identity {
        log: LogUuid::new(99),
        ..identity()
    };
    let mut anew = LogState::new(other.clone(), LogEpoch::new(3));
    let third = live(storage, &mut anew).await;
    assert!(third.back.is_empty(), "another log's records do not replay");
    third.write(&[payload(4, 10)]).await;
    drop(third);
    assert_eq!(identify(storage).await, Found::Live(other));
    grant_next(&mut anew);
    let fourth = live(storage, &mut anew).await;
    assert_eq!(payloads(&fourth.back), [&payload(4, 10)[..]]);
}

async fn a_log_that_owes_closes_and_comes_back(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    // Not awaited: a close waits for what is in flight.
    let all: Vec<_> = (0..50).map(|n| payload(n, 700)).collect();
    for payload in &all {
        Hear::append(&*life.log, &[payload]).expect("an append with room");
    }
    life.log.close().await.expect("a close");
    assert_eq!(
        life.hear.count(),
        all.len(),
        "a close waits for the last delivery"
    );
    assert_eq!(
        identify(storage).await,
        Found::Live(identity()),
        "what owes is not closed for good"
    );
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    assert_eq!(
        payloads(&life.back),
        all.iter().map(|p| &p[..]).collect::<Vec<_>>()
    );
}

async fn a_place_that_does_not_fit_the_state_is_refused(storage: &impl Storage) {
    let mut state = fresh();
    let mut blank = state.clone();
    blank.begin(&[], Position::default());
    grant_next(&mut blank);
    let refused = open(storage, &blank).await.err();
    assert!(
        matches!(refused, Some(Error::Missing { .. })),
        "blank though started: {refused:?}"
    );

    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10)]).await;
    drop(life);
    grant_next(&mut state);
    let mut forgetful = state.clone();
    forgetful.owed.clear();
    let refused = open(storage, &forgetful).await.err();
    assert!(
        matches!(refused, Some(Error::NotNew { .. })),
        "not new: {refused:?}"
    );
    for other in [
        Identity {
            cluster: 12,
            ..identity()
        },
        Identity {
            log: LogUuid::new(23),
            ..identity()
        },
        Identity {
            node: 34,
            ..identity()
        },
    ] {
        let foreign = LogState {
            identity: other,
            ..state.clone()
        };
        let refused = open(storage, &foreign).await.err();
        assert!(
            matches!(refused, Some(Error::Mismatch { .. })),
            "foreign: {refused:?}"
        );
    }
    let late = LogState {
        epoch: LogEpoch::new(1),
        owed: Vec::new(),
        ..state.clone()
    };
    let refused = open(storage, &late).await.err();
    assert!(
        refused.is_some(),
        "an epoch that was started is not started again"
    );
    let broken = LogState {
        epoch: LogEpoch::new(0),
        ..state.clone()
    };
    let refused = open(storage, &broken).await.err();
    assert!(
        matches!(refused, Some(Error::Invalid(_))),
        "out of order: {refused:?}"
    );

    let life = live(storage, &mut state).await;
    assert_eq!(
        payloads(&life.back),
        [&payload(1, 10)[..]],
        "a refusal changes nothing"
    );
}

async fn what_the_state_knows_to_be_durable_may_not_be_missing(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10)]).await;
    let end = life.log.durable_end();
    drop(life);
    grant_next(&mut state);
    let far = Position::new(end.get() + 100_000);
    for sealed in [None, Some(far)] {
        let mut wrong = state.clone();
        if let Some(owed) = wrong.owed.first_mut() {
            owed.durable_end = far;
            owed.sealed_end = sealed;
        }
        let refused = open(storage, &wrong).await.err();
        assert!(
            matches!(refused, Some(Error::Corrupt { .. })),
            "F2: {refused:?}"
        );
    }
}

async fn two_owners_never_both_acknowledge(storage: &impl Storage) {
    let mut state = fresh();
    let first = live(storage, &mut state).await;
    first.write(&[payload(1, 10)]).await;
    grant_next(&mut state);
    let replay = match storage.backend().open(&state).await {
        Err(Error::InUse { .. }) => {
            first.write(&[payload(2, 10)]).await;
            return;
        }
        Err(e) => panic!("a second owner: {e}"),
        Ok(replay) => replay,
    };
    // Whoever lets the second one in must have fenced the first (W5).
    let acknowledged = first.hear.count();
    let refused = Hear::append(&*first.log, &[&payload(2, 10)]);
    if refused.is_ok() {
        first
            .hear
            .until("the failure of a fenced log", |h| h.failed.is_some())
            .await;
    }
    assert_eq!(
        first.hear.count(),
        acknowledged,
        "W5: acknowledged after the fence"
    );
    let refused = Hear::append(&*first.log, &[&payload(3, 10)]);
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    drop(replay);
}

async fn appends_of_many_threads_keep_each_threads_order(storage: &impl Storage) {
    const THREADS: u32 = 4;
    const EACH: u32 = 200;
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &life.log;
            scope.spawn(move || {
                for n in 0..EACH {
                    let name = [thread.to_be_bytes(), n.to_be_bytes()].concat();
                    let filler = vec![n as u8; (n as usize * 37) % 900];
                    Hear::append(&**log, &[&name, &filler]).expect("an append with room");
                }
            });
        }
    });
    life.hear.until_durable((THREADS * EACH) as usize).await;
    let durable = life.hear.heard().records;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let told: Vec<_> = durable.iter().map(|r| &r.payload[..]).collect();
    assert_eq!(
        payloads(&life.back),
        told,
        "W1: what was acknowledged replays in its order"
    );
    let mut next = [0_u32; THREADS as usize];
    for payload in told {
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("4 bytes"));
        let thread = word(0) as usize;
        assert_eq!(
            word(4),
            next[thread],
            "W1: the order of calls of thread {thread}"
        );
        next[thread] += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
}
