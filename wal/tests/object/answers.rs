//! What an object log makes of its store's answers: ambiguous ones are neither failures nor acknowledgements (W6), and it asks for no more than it needs
//! (lessons 22 to 24, 27).

use std::{sync::Arc, time::Duration};

use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
    path::Path,
    throttle::{ThrottleConfig, ThrottledStore},
};
use tokio::time::{Instant, advance};
use wal::{
    Backend, Error, Found, Log, LogEpoch, Replay,
    object::{Config, ObjectLog},
    testing::{Asked, Hear, Lie, Request, Waiting},
};

use crate::support::{Store, four_objects, is_commit, open, settle, start, state};

/// A log with one record on its way.
async fn one_put(config: Config) -> (Store, Arc<dyn Log>, Arc<Hear>) {
    let store = Store::default();
    let (log, hear) = start(store.host(1), config, &mut state()).await;
    settle().await;
    store.hold(1);
    log.append(&[b"record"]).unwrap();
    settle().await;
    (store, log, hear)
}

fn unhedged() -> Config {
    Config {
        hedge_multiple: 0,
        ..Config::default()
    }
}

fn waits(store: &Store) -> Vec<Waiting> {
    store
        .waiting()
        .into_iter()
        .filter(|one| !one.answered)
        .collect()
}

fn only(store: &Store) -> Waiting {
    let waiting = waits(store);
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    waiting.into_iter().next().unwrap()
}

async fn do_and_answer(store: &Store, id: u64) {
    store.apply(id);
    store.answer(id);
    settle().await;
}

/// Everything from now on is answered, and what was acknowledged in the end is the one record, once.
async fn acknowledged_once(store: &Store, hear: &Hear) {
    settle().await;
    assert_eq!(hear.count(), 1);
    advance(Duration::from_secs(60)).await;
    settle().await;
    let heard = hear.heard();
    assert_eq!(heard.records.len(), 1);
    assert!(heard.failed.is_none(), "{:?}", heard.failed);
    assert!(waits(store).is_empty(), "{:?}", waits(store));
}

#[tokio::test(start_paused = true)]
async fn a_time_out_after_success_is_settled_by_reading() {
    let (store, _log, hear) = one_put(unhedged()).await;
    store.apply(only(&store).id);
    advance(Duration::from_secs(11)).await;
    settle().await;
    advance(Duration::from_millis(10)).await;
    settle().await;
    do_and_answer(&store, only(&store).id).await;
    assert_eq!(hear.count(), 0, "a conflict alone is no acknowledgement");
    let get = only(&store);
    assert!(matches!(get.request, Request::Get(_)), "{get:?}");
    do_and_answer(&store, get.id).await;
    acknowledged_once(&store, &hear).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_is_neither_anothers_object_nor_damage() {
    let (store, _log, hear) = one_put(unhedged()).await;
    let first = only(&store).id;
    store.apply(first);
    store.lie(first, Lie::Conflict);
    store.cut_reads(2);
    store.release(1);
    hear.until_durable(1).await;
    acknowledged_once(&store, &hear).await;
    // And so at an opening and in a replay.
    for cuts in 1..8 {
        let (store, state, _) = four_objects().await;
        store.cut_reads(cuts);
        assert_eq!(open(&store, &state).await.unwrap().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_500_then_success_is_a_success_whether_or_not_the_first_took_effect() {
    for applied in [false, true] {
        let (store, _log, hear) = one_put(unhedged()).await;
        let first = only(&store).id;
        if applied {
            store.apply(first);
        }
        store.lie(first, Lie::Unavailable);
        settle().await;
        assert!(
            waits(&store).is_empty(),
            "the next attempt waits for its back-off"
        );
        advance(Duration::from_millis(5)).await;
        settle().await;
        store.release(1);
        do_and_answer(&store, only(&store).id).await;
        acknowledged_once(&store, &hear).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_409_to_ones_own_hedge_is_no_failure() {
    let (store, _log, hear) = one_put(Config::default()).await;
    let first = only(&store).id;
    advance(Duration::from_millis(1001)).await;
    settle().await;
    let waiting = waits(&store);
    assert_eq!(waiting.len(), 2, "a put that takes long is hedged");
    assert_eq!(
        waiting[0].request, waiting[1].request,
        "with the same bytes"
    );
    store.lie(waiting[1].id, Lie::Conflict);
    settle().await;
    // Nothing is there: the first is still on its way, and decides.
    let get = waits(&store)
        .into_iter()
        .find(|one| one.id != first)
        .unwrap();
    do_and_answer(&store, get.id).await;
    assert_eq!(hear.count(), 0);
    do_and_answer(&store, first).await;
    acknowledged_once(&store, &hear).await;
}

#[tokio::test(start_paused = true)]
async fn a_412_of_ones_own_bytes_is_a_success_and_a_put_is_hedged_once() {
    let (store, _log, hear) = one_put(Config::default()).await;
    let first = only(&store).id;
    for _ in 0..8 {
        advance(Duration::from_millis(1001)).await;
        settle().await;
    }
    let waiting = waits(&store);
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    store.apply(first);
    do_and_answer(&store, waiting[1].id).await;
    let get = waits(&store)
        .into_iter()
        .find(|one| one.id != first)
        .unwrap();
    do_and_answer(&store, get.id).await;
    acknowledged_once(&store, &hear).await;
    assert_eq!(store.asked(1).put - puts_of_an_opening().await, 2);
}

async fn puts_of_an_opening() -> u64 {
    let store = Store::default();
    let _life = start(store.host(1), Config::default(), &mut state()).await;
    store.asked(1).put
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_cannot_be_read_is_asked_again() {
    let (store, _log, hear) = one_put(unhedged()).await;
    let first = only(&store).id;
    store.apply(first);
    store.lie(first, Lie::Conflict);
    settle().await;
    store.lie(only(&store).id, Lie::Unavailable);
    settle().await;
    advance(Duration::from_millis(5)).await;
    settle().await;
    store.release(1);
    do_and_answer(&store, only(&store).id).await;
    acknowledged_once(&store, &hear).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_for_minutes_fails_no_append() {
    // Lesson 12: one 503 killed the process.
    let (store, _log, hear) = one_put(unhedged()).await;
    let mut attempts = 0;
    for _ in 0..300 {
        for one in waits(&store) {
            let lie = if attempts % 2 == 0 {
                Lie::Unavailable
            } else {
                Lie::Forbidden
            };
            store.lie(one.id, lie);
            store.lose(one.id);
            attempts += 1;
        }
        settle().await;
        advance(Duration::from_secs(1)).await;
        settle().await;
    }
    assert!(attempts > 250, "{attempts} attempts in five minutes");
    assert!(hear.heard().failed.is_none() && hear.count() == 0);
    store.release(1);
    do_and_answer(&store, only(&store).id).await;
    acknowledged_once(&store, &hear).await;
}

#[tokio::test(start_paused = true)]
async fn anothers_object_is_the_one_thing_that_fails_a_write_and_is_named() {
    // The last is as long as what was put, and differs in one bit.
    for other in [Some("something else"), Some(""), None] {
        let named = "not of this log";
        let (store, log, hear) = one_put(unhedged()).await;
        let put = only(&store);
        let Request::Create(path, own) = put.request else {
            panic!("{put:?}")
        };
        let mut flipped = own.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        let other = other.map_or(flipped, |text| text.into());
        store.damage(|objects| drop(objects.insert(path, other.into())));
        store.release(1);
        do_and_answer(&store, put.id).await;
        let failed = hear.heard().failed;
        assert!(
            matches!(&failed, Some(Error::Fenced { by }) if by.contains(named)),
            "{failed:?}"
        );
        assert!(matches!(log.append(&[b"x"]), Err(Error::Fenced { .. })));
        assert!(matches!(log.close().await, Err(Error::Fenced { .. })));
    }
}

fn difference(before: Asked, after: Asked) -> [u64; 4] {
    let Asked {
        put,
        get,
        list,
        delete,
    } = after;
    [
        put - before.put,
        get - before.get,
        list - before.list,
        delete - before.delete,
    ]
}

#[tokio::test(start_paused = true)]
async fn an_append_to_an_idle_log_is_one_put_and_an_idle_log_asks_nothing() {
    // Lesson 23: a read before every acknowledgement. Lesson 24: an idle writer that keeps putting.
    let store = Store::default();
    let (log, hear) = start(store.host(1), Config::default(), &mut state()).await;
    settle().await;
    let before = store.asked(1);
    for n in 1..=20 {
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
    }
    let after = store.asked(1);
    assert_eq!(difference(before, after), [20, 0, 0, 0]);
    for _ in 0..24 {
        advance(Duration::from_secs(3600)).await;
        settle().await;
    }
    assert_eq!(store.asked(1), after);
}

#[tokio::test(start_paused = true)]
async fn an_opening_asks_a_handful_of_requests_whatever_the_log_holds() {
    let (store, mut state) = (Store::default(), state());
    let (log, hear) = start(store.host(1), Config::default(), &mut state).await;
    for n in 1..=200 {
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
    }
    drop(log);
    state.grant(LogEpoch::new(2));
    let _life = start(store.host(2), Config::default(), &mut state).await;
    let Asked { put, get, list, .. } = store.asked(2);
    // Probe, fence, mark; the newest mark, the probe, the last object; one listing.
    assert_eq!((put, get, list), (3, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn trimmed_objects_are_deleted_in_batches() {
    let store = Store::default();
    let (log, hear) = start(store.host(1), Config::default(), &mut state()).await;
    for n in 1..=2500 {
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
    }
    settle().await;
    let before = store.asked(1);
    let end = log.durable_end();
    log.trim(end);
    settle().await;
    assert_eq!(difference(before, store.asked(1)), [0, 0, 0, 3]);
    let left: Vec<_> = store.objects().into_keys().filter(is_commit).collect();
    assert_eq!(
        left.len(),
        1,
        "the object that the trim lies in stays: {left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn deletes_that_fail_are_tried_again_and_an_append_does_not_wait_for_them() {
    let store = Store::default();
    let (log, hear) = start(store.host(1), Config::default(), &mut state()).await;
    for n in 1..=3 {
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
    }
    settle().await;
    store.hold(1);
    log.trim(log.durable_end());
    settle().await;
    let delete = only(&store);
    store.lie(delete.id, Lie::Unavailable);
    store.lose(delete.id);
    log.append(&[b"record"]).unwrap();
    settle().await;
    do_and_answer(&store, only(&store).id).await;
    assert_eq!(hear.count(), 4);
    store.release(1);
    advance(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(store.objects().into_keys().filter(is_commit).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_close_is_marked_before_it_waits_for_deletes_and_not_undone_by_them() {
    let (store, mut state) = (Store::default(), state());
    let (log, hear) = start(store.host(1), Config::default(), &mut state).await;
    for n in 1..=3 {
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
    }
    settle().await;
    store.hold(1);
    let closing = tokio::spawn(async move {
        log.trim(log.durable_end());
        log.close().await
    });
    settle().await;
    // The delete is never answered.
    let is_put = |waiting: &Waiting| matches!(waiting.request, Request::Create(..));
    let mark = waits(&store).into_iter().find(is_put).unwrap();
    do_and_answer(&store, mark.id).await;
    advance(Config::default().patience).await;
    settle().await;
    closing.await.unwrap().unwrap();
    let place = ObjectLog::new(store.host(2), "wal", 9).unwrap();
    let found = place.identify().await.unwrap();
    assert!(matches!(found, Found::Closed(_)), "{found:?}");
}

/// A store whose puts take so long.
fn slow(store: &Store, put: Duration) -> Arc<dyn ObjectStore> {
    let config = ThrottleConfig {
        wait_put_per_call: put,
        ..ThrottleConfig::default()
    };
    Arc::new(ThrottledStore::new(store.host(1), config))
}

const PUT: Duration = Duration::from_millis(30);

#[tokio::test(start_paused = true)]
async fn a_lone_append_takes_one_put_and_nothing_else() {
    let store = Store::default();
    let (log, hear) = start(slow(&store, PUT), Config::default(), &mut state()).await;
    for n in 1..=50 {
        // Faster than the budget: it is for further objects, an idle log never waits for it.
        let began = Instant::now();
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
        let took = began.elapsed();
        assert!(
            took >= PUT && took < PUT + Duration::from_millis(2),
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_appender_reaches_100_mib_a_second_within_the_budget() {
    // Lesson 22: one producer reached 11 MB/s, for lack of pipelining.
    const SECONDS: u64 = 2;
    let store = Store::default();
    let (log, hear) = start(slow(&store, PUT), Config::default(), &mut state()).await;
    let before = store.asked(1).put;
    let record = vec![7; 256 << 10];
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let mut bytes = 0;
    while Instant::now() < until {
        match log.append(&[&record]) {
            Ok(_) => bytes += record.len(),
            Err(Error::Full { .. }) => {
                let heard = hear.heard();
                log.trim(log.durable_end());
                hear.until("room", |h| h.rooms > heard.rooms).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let rate = (bytes as u64 / SECONDS) >> 20;
    let puts = store.asked(1).put - before;
    assert!(rate >= 100, "{rate} MiB/s");
    assert!(
        puts <= 20 + 20 * SECONDS + SECONDS * 1000 / 30,
        "{puts} puts"
    );
}

#[tokio::test(start_paused = true)]
async fn the_budget_holds_however_many_objects_would_be_worth_it() {
    let config = Config {
        overlap_bytes: 0,
        in_flight_max: 1000,
        ..unhedged()
    };
    let store = Store::default();
    let (log, hear) = start(slow(&store, Duration::from_secs(1)), config, &mut state()).await;
    let before = store.asked(1).put;
    let began = Instant::now();
    for n in 0..2000 {
        log.append(&[b"record"]).unwrap();
        if n % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    hear.until_durable(2000).await;
    let seconds = began.elapsed().as_secs();
    let puts = store.asked(1).put - before;
    assert!(
        puts <= 20 + 20 * (seconds + 1),
        "{puts} puts in {seconds} s"
    );
    assert!(
        puts >= 20 * (seconds - 2),
        "{puts} puts in {seconds} s: the budget is there to be used"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_is_bounded_and_room_is_told() {
    let config = Config {
        queue_bytes_max: 100_000,
        ..unhedged()
    };
    let store = Store::default();
    let (log, hear) = start(store.host(1), config, &mut state()).await;
    settle().await;
    store.hold(1);
    let mut taken = 0;
    loop {
        match log.append(&[&[7; 1000]]) {
            Ok(_) => taken += 1,
            Err(Error::Full { needed, free }) => {
                assert!(needed > free);
                break;
            }
            Err(error) => panic!("{error}"),
        }
        settle().await;
    }
    assert!(
        (90..=100).contains(&taken),
        "{taken} records of 1 KB in 100 KB"
    );
    store.release(1);
    while let Some(one) = waits(&store).first() {
        do_and_answer(&store, one.id).await;
    }
    hear.until("room", |h| h.rooms > 0).await;
    log.append(&[&[7; 1000]]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_log_stops_at_once_and_acknowledges_nothing_more() {
    let (store, log, hear) = one_put(Config::default()).await;
    drop(log);
    settle().await;
    store.apply(store.waiting()[0].id);
    store.release(1);
    advance(Duration::from_secs(100)).await;
    settle().await;
    assert_eq!(hear.count(), 0);
    assert_eq!(store.waiting().len(), 1, "nothing is asked any more");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_conditional_put_is_refused_and_nothing_else_is_written() {
    // Lesson 27.
    let store = Store::that_overwrites();
    let place = ObjectLog::new(store.host(1), "wal", 9).unwrap();
    let refused = place.open(&state()).await.err();
    let Some(Error::Invalid(text)) = refused else {
        panic!("{refused:?}")
    };
    for word in ["conditional", "Model", "If-None-Match", "block device"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(store.objects().len(), 1, "the probe alone");
    assert_eq!(place.identify().await.unwrap(), Found::Blank);
}

#[test]
fn no_message_and_no_debug_form_holds_what_the_store_was_made_with() {
    // Lesson 28: secrets printed in logs.
    // The debug form of a store, here "Host(1)", may hold them; its display does not.
    let place = ObjectLog::new(Store::default().host(1), "wal", 9).unwrap();
    assert!(!format!("{place:?}").contains("Host"), "{place:?}");
    assert_eq!(place.url(), "object:Model/wal");
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_the_store_does_not_answer_gives_up_in_time() {
    let store = Store::default();
    store.hold(1);
    let place = ObjectLog::new(store.host(1), "wal", 9).unwrap();
    let began = Instant::now();
    let refused = place.open(&state()).await.err();
    assert!(matches!(refused, Some(Error::Io { .. })), "{refused:?}");
    assert!(
        began.elapsed() <= Duration::from_secs(41),
        "{:?}",
        began.elapsed()
    );
}

/// 8 MiB: what one object may gather.
const LARGE: usize = 8 << 20;

fn large_objects() -> Config {
    Config {
        commit_bytes_max: LARGE,
        ..unhedged()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_way_to_the_store_has_the_time_that_large_objects_take_on_it() {
    // An attempt's own time is 10 s, and with the bytes 42, 84 and 168 s.
    for (seconds, bound) in [(35, 36), (100, 42 + 84 + 101)] {
        let store = Store::default();
        let quick = ThrottleConfig::default();
        let way = Arc::new(ThrottledStore::new(store.host(1), quick));
        let (log, hear) = start(Arc::clone(&way) as _, large_objects(), &mut state()).await;
        settle().await;
        way.config_mut(|way| way.wait_put_per_call = Duration::from_secs(seconds));
        log.append(&[&vec![7; LARGE - 4096]]).unwrap();
        tokio::time::sleep(Duration::from_secs(bound)).await;
        assert_eq!(hear.count(), 1, "{seconds} s: sent again and again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_way_from_the_store_has_the_time_that_large_objects_take_on_it() {
    let (store, mut state) = (Store::default(), state());
    let (log, hear) = start(store.host(1), large_objects(), &mut state).await;
    for n in 1..=2 {
        log.append(&[&vec![7; LARGE - 4096]]).unwrap();
        hear.until_durable(n).await;
    }
    drop(log);
    state.grant(LogEpoch::new(2));
    // 67 s for each: more than the first attempt of 42 s has, and than the patience of 30 s.
    let way = ThrottleConfig {
        wait_get_per_byte: Duration::from_micros(8),
        ..ThrottleConfig::default()
    };
    let way = Arc::new(ThrottledStore::new(store.host(2), way));
    let place = ObjectLog::new(way, "wal", 9)
        .unwrap()
        .with_config(large_objects());
    let mut replay = place.open(&state).await.unwrap();
    let mut records = 0;
    while let Some(piece) = replay.next().await.unwrap() {
        records += piece.len();
    }
    assert_eq!(records, 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_gone_for_an_hour_is_found_again_soon_though_its_old_connections_are_dead()
{
    for hedged in [Config::default(), unhedged()] {
        let (store, _log, hear) = one_put(hedged).await;
        for _ in 0..3600 {
            advance(Duration::from_secs(1)).await;
            settle().await;
        }
        store.release(1);
        let back = Instant::now();
        hear.until_durable(1).await;
        let took = back.elapsed();
        assert!(took <= Duration::from_secs(41), "{took:?}");
    }
}

/// A replay of four objects that is asked for its first piece once, while the store does not answer.
async fn asked_once() -> (Store, Box<dyn Replay>) {
    let (store, state, _) = four_objects().await;
    let place = ObjectLog::new(store.host(2), "wal", 9).unwrap();
    let mut replay = place.open(&state).await.unwrap();
    store.hold(2);
    tokio::select! {
        biased;
        piece = replay.next() => panic!("{piece:?}"),
        () = settle() => {}
    }
    let asked = waits(&store);
    assert_eq!(asked.len(), 4, "all of them at once: {asked:?}");
    (store, replay)
}

#[tokio::test(start_paused = true)]
async fn a_replay_reads_on_while_nobody_asks_for_the_next_piece() {
    let (store, mut replay) = asked_once().await;
    store.release(2);
    for one in waits(&store) {
        store.lie(one.id, Lie::Unavailable);
    }
    // Longer than the patience: whoever replays is busy with the piece before.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut positions = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        positions.extend(piece.iter().map(|r| r.position.start.get() >> 26));
    }
    assert_eq!(positions, [0, 1, 2, 3], "in order");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_dropped_reads_no_more() {
    let (store, replay) = asked_once().await;
    drop(replay);
    settle().await;
    assert!(waits(&store).is_empty(), "{:?}", waits(&store));
}

/// A store that looks first and writes then: one put-if-absent after another is refused, two at once are not.
#[derive(Debug)]
struct LooksFirst(Store, Arc<dyn ObjectStore>);

impl std::fmt::Display for LooksFirst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LooksFirst")
    }
}

#[async_trait::async_trait]
impl ObjectStore for LooksFirst {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let there = self.0.objects().contains_key(path);
        tokio::task::yield_now().await;
        if !there {
            self.0.damage(|objects| drop(objects.remove(path)));
        }
        self.1.put_opts(path, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.1.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.1.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.1.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.1.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.1.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, o: CopyOptions) -> object_store::Result<()> {
        self.1.copy_opts(from, to, o).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_two_put_if_absent_at_once_is_refused() {
    let store = Store::default();
    let looks_first = LooksFirst(store.clone(), store.host(1));
    let place = ObjectLog::new(Arc::new(looks_first), "wal", 9).unwrap();
    let refused = place.open(&state()).await.err();
    assert!(
        matches!(&refused, Some(Error::Invalid(text)) if text.contains("at once")),
        "{refused:?}"
    );
    assert_eq!(store.objects().len(), 1, "the probe alone");
}

#[tokio::test(start_paused = true)]
async fn a_first_opening_whose_probes_are_not_answered_or_meet_anothers_is_not_refused() {
    // Which of the eight takes effect first, and whether its answer is lost.
    for (first, lost, theirs) in [
        (0, true, false),
        (5, true, false),
        (7, false, false),
        (3, false, true),
    ] {
        let store = Store::default();
        let place = ObjectLog::new(store.host(1), "wal", 9).unwrap();
        let opening = tokio::spawn(async move { place.open(&state()).await.map(drop) });
        store.hold(1);
        settle().await;
        for one in waits(&store) {
            do_and_answer(&store, one.id).await;
        }
        let probes = waits(&store);
        assert_eq!(probes.len(), 8, "{probes:?}");
        if theirs {
            let other = ObjectLog::new(store.host(2), "wal", 8).unwrap();
            drop(other.open(&state()).await.unwrap());
        }
        store.apply(probes[first].id);
        if lost {
            store.lie(probes[first].id, Lie::Unavailable);
        } else {
            store.answer(probes[first].id);
        }
        store.release(1);
        for (n, one) in probes.iter().enumerate().filter(|(n, _)| *n != first) {
            store.apply(one.id);
            if n == 1 {
                store.lie(one.id, Lie::Unavailable);
            } else {
                store.answer(one.id);
            }
        }
        opening.await.unwrap().unwrap();
    }
}
