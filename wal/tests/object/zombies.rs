//! Zombies of an object log: an owner that is paused at any step, and resumed at each step of whoever takes over, never acknowledges what the taker
//! does not replay (W5, F1). Nobody has a clock or a lease here: only the order in which requests take effect.
//!
//! Every test walks through all combinations of where the old owner stood, where the taker stands when it wakes up, and, in a take-over of a take-over,
//! where the first taker was paused.

use std::{sync::Arc, time::Duration};

use object_store::path::Path;
use tokio::task::JoinHandle;
use wal::{
    Backend, Error, Identity, Log, LogEpoch, LogState, LogUuid, Position, Replay,
    object::{Config, ObjectLog},
    testing::{Hear, Request},
};

use crate::support::{Store, grant_next, settle, state, trim_of};

fn config() -> Config {
    Config {
        commit_bytes_max: 300,
        overlap_bytes: 0,
        in_flight_max: 4,
        puts_per_s: 1_000_000,
        puts_burst: 1_000_000,
        ..Config::default()
    }
}

fn name_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// The metadata: what it says, and how it changes.
struct Metadata {
    state: LogState,
}

impl Metadata {
    fn new() -> Self {
        Self::of_log(2)
    }

    fn of_log(uuid: u128) -> Self {
        let identity = Identity {
            log: LogUuid::new(uuid),
            ..state().identity
        };
        Self {
            state: LogState::new(identity, LogEpoch::new(1)),
        }
    }

    /// Grants an epoch; one that was granted before and not started stays listed, and is never started any more.
    fn register(&mut self) -> LogState {
        grant_next(&mut self.state);
        self.state.clone()
    }

    fn record_start(&mut self, replay: &dyn Replay) {
        self.state.begin(replay.ends(), replay.start_position());
    }
}

/// Someone who has, or had, the log.
struct Owner {
    host: u32,
    log: Arc<dyn Log>,
    hear: Arc<Hear>,
    next: u32,
}

impl Owner {
    async fn start(host: u32, replay: Box<dyn Replay>) -> Self {
        let hear = Hear::new();
        let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
        Self {
            host,
            log,
            hear,
            next: host * 1000,
        }
    }

    fn append(&mut self, len: usize) {
        let mut payload = vec![7; len.max(4)];
        payload[..4].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        match Hear::append(&*self.log, &[&payload]) {
            Ok(_) | Err(Error::Fenced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn acknowledged(&self) -> Vec<u32> {
        let heard = self.hear.heard();
        heard.records.iter().map(|r| name_of(&r.payload)).collect()
    }

    /// Wakes up: all it asked takes effect and is answered, and it goes on.
    async fn resume(&mut self, store: &Store) {
        resume(store, self.host).await;
        self.append(4);
        self.append(200);
        self.append(200);
        settle().await;
    }
}

async fn resume(store: &Store, host: u32) {
    store.release(host);
    for one in store.waiting().iter().filter(|one| one.host == host) {
        if !one.applied {
            store.apply(one.id);
        }
        store.answer(one.id);
    }
    settle().await;
}

/// Where the old owner stands when it is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stand {
    /// Nothing on its way.
    Idle,
    /// It has started, and never wrote.
    NeverWrote,
    /// Three puts on their way, none of which took effect.
    Asked,
    /// Of three puts the second took effect.
    Gap,
    /// And it was answered.
    GapAnswered,
    /// Three puts took effect, none was answered.
    Unanswered,
    /// All is trimmed; the deletes and a put are on their way.
    Trimmed,
    /// All is trimmed and deleted; nothing is on its way.
    Deleted,
    /// A put and its hedge are on their way.
    Hedged,
    /// The first attempt of a put was answered by a 500 and is still on its way; so are the second and its hedge.
    Late,
}

const STANDS: [Stand; 10] = [
    Stand::Idle,
    Stand::NeverWrote,
    Stand::Asked,
    Stand::Gap,
    Stand::GapAnswered,
    Stand::Unanswered,
    Stand::Trimmed,
    Stand::Deleted,
    Stand::Hedged,
    Stand::Late,
];

fn backend(store: &Store, host: u32) -> ObjectLog {
    let log = ObjectLog::new(store.host(host), "wal", u128::from(host) << 40).unwrap();
    log.with_config(config())
}

fn puts(store: &Store, host: u32) -> Vec<u64> {
    let waiting = store.waiting();
    let puts = waiting
        .iter()
        .filter(|one| one.host == host && matches!(one.request, Request::Create(..)));
    puts.map(|one| one.id).collect()
}

/// An owner of epoch 1 that has acknowledged something, paused at `stand`.
async fn paused_owner(store: &Store, metadata: &mut Metadata, stand: Stand) -> Owner {
    let replay = backend(store, 1).open(&metadata.state).await.unwrap();
    metadata.record_start(&*replay);
    let mut owner = Owner::start(1, replay).await;
    if stand == Stand::NeverWrote {
        store.hold(1);
        return owner;
    }
    for len in [4, 250, 250, 20] {
        owner.append(len);
        settle().await;
    }
    assert_eq!(owner.acknowledged().len(), 4);
    let trimmed = matches!(stand, Stand::Trimmed | Stand::Deleted);
    if stand != Stand::Deleted {
        store.hold(1);
    }
    if trimmed {
        let end = owner.log.durable_end();
        metadata.state.trim(end, end);
        owner.log.trim(end);
        settle().await;
        store.hold(1);
    }
    match stand {
        Stand::Idle | Stand::NeverWrote | Stand::Deleted => {}
        Stand::Trimmed => owner.append(20),
        Stand::Hedged | Stand::Late => {
            owner.append(20);
            settle().await;
            if stand == Stand::Late {
                store.lie(puts(store, 1)[0], wal::testing::Lie::Unavailable);
                settle().await;
            }
            tokio::time::advance(Duration::from_millis(1500)).await;
            settle().await;
            let expected = if stand == Stand::Late { 3 } else { 2 };
            assert_eq!(puts(store, 1).len(), expected);
        }
        Stand::Asked | Stand::Gap | Stand::GapAnswered | Stand::Unanswered => {
            for _ in 0..3 {
                owner.append(250);
            }
            settle().await;
            let puts = puts(store, 1);
            assert_eq!(puts.len(), 3);
            match stand {
                Stand::Gap => store.apply(puts[1]),
                Stand::GapAnswered => {
                    store.apply(puts[1]);
                    store.answer(puts[1]);
                }
                Stand::Unanswered => puts.iter().for_each(|id| store.apply(*id)),
                _ => {}
            }
        }
    }
    settle().await;
    owner
}

/// Someone who opens the log, one request at a time.
struct Taker {
    host: u32,
    opening: Option<JoinHandle<Result<Box<dyn Replay>, Error>>>,
    /// Which of the requests that wait goes first.
    last_first: bool,
}

impl Taker {
    async fn begin(store: &Store, host: u32, state: LogState, last_first: bool) -> Self {
        store.hold(host);
        let log = backend(store, host);
        let opening = tokio::spawn(async move { log.open(&state).await });
        settle().await;
        Self {
            host,
            opening: Some(opening),
            last_first,
        }
    }

    /// One request takes effect and is answered; whether there was one.
    async fn step(&self, store: &Store) -> bool {
        let waiting = store.waiting();
        let mut own = waiting.iter().filter(|one| one.host == self.host);
        let one = if self.last_first {
            own.next_back()
        } else {
            own.next()
        };
        let Some(one) = one else { return false };
        store.apply(one.id);
        store.answer(one.id);
        settle().await;
        true
    }

    async fn steps(&self, store: &Store, most: usize) -> usize {
        let mut taken = 0;
        while taken < most && self.step(store).await {
            taken += 1;
        }
        taken
    }

    /// The rest of the opening.
    async fn finish(&mut self, store: &Store) -> Box<dyn Replay> {
        self.steps(store, 1000).await;
        store.release(self.host);
        self.opening.take().unwrap().await.unwrap().unwrap()
    }
}

async fn names(replay: &mut dyn Replay) -> Vec<u32> {
    let mut names = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        names.extend(piece.iter().map(|r| name_of(&r.payload)));
    }
    names
}

/// Nothing that `owner` ever acknowledged is missing from what was replayed, but what is trimmed.
fn covered(owner: &Owner, trim: Position, replayed: &[u32], what: &str) {
    let heard = owner.hear.heard();
    for record in heard.records.iter().filter(|r| r.position.end > trim) {
        let name = name_of(&record.payload);
        assert!(
            replayed.contains(&name),
            "W5, {what}: {name} was acknowledged and is not replayed: {replayed:?}"
        );
    }
}

/// One take-over; the old owner wakes up after `wakes` requests of the taker. Whether the taker had so many.
async fn take_over(stand: Stand, wakes: usize, last_first: bool) -> bool {
    let what = format!("{stand:?}, wakes after {wakes}, last first: {last_first}");
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let mut old = paused_owner(&store, &mut metadata, stand).await;
    let state = metadata.register();
    let trim = trim_of(&state);
    let mut taker = Taker::begin(&store, 2, state, last_first).await;
    let reached = taker.steps(&store, wakes).await == wakes;
    old.resume(&store).await;
    let mut replay = taker.finish(&store).await;
    let replayed = names(&mut *replay).await;
    metadata.record_start(&*replay);
    let mut new = Owner::start(2, replay).await;
    new.append(50);
    settle().await;
    old.resume(&store).await;
    covered(&old, trim, &replayed, &what);
    let failed = old.hear.heard().failed;
    let by = match failed {
        Some(Error::Fenced { by }) => by,
        other => panic!("{what}: the old owner is not fenced: {other:?}"),
    };
    assert!(by.contains("epoch 2"), "{what}: {by}");
    assert_eq!(new.acknowledged(), [2000], "{what}");

    // And what was replayed stays what it was.
    let state = metadata.register();
    let mut replay = backend(&store, 3).open(&state).await.unwrap();
    let mut expected = replayed;
    expected.push(2000);
    assert_eq!(names(&mut *replay).await, expected, "W8, {what}");
    reached
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_wakes_at_any_step_of_a_take_over_acknowledges_nothing_that_is_not_replayed()
{
    for stand in STANDS {
        for last_first in [false, true] {
            let mut wakes = 0;
            while take_over(stand, wakes, last_first).await {
                wakes += 1;
            }
            assert!(wakes >= 4, "{stand:?}: an opening of {wakes} requests");
        }
    }
}

/// How far the first taker comes before it is paused too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// So many requests of its opening.
    Steps(usize),
    /// Its start is recorded; it has not begun.
    Recorded,
    /// It has acknowledged something; something is on its way.
    Live,
}

async fn take_over_twice(stand: Stand, reach: Reach, wakes: usize) -> (bool, bool) {
    let what = format!("{stand:?}, first taker {reach:?}, all wake after {wakes}");
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let mut old = paused_owner(&store, &mut metadata, stand).await;
    let state = metadata.register();
    let trim = trim_of(&state);
    let mut first = Taker::begin(&store, 2, state, false).await;
    let mut reached = true;
    let mut live = None;
    let mut unstarted = None;
    match reach {
        Reach::Steps(steps) => reached = first.steps(&store, steps).await == steps,
        Reach::Recorded | Reach::Live => {
            let replay = first.finish(&store).await;
            metadata.record_start(&*replay);
            if reach == Reach::Recorded {
                unstarted = Some(replay);
            } else {
                let mut owner = Owner::start(2, replay).await;
                owner.append(50);
                settle().await;
                store.hold(2);
                owner.append(250);
                owner.append(250);
                settle().await;
                live = Some(owner);
            }
        }
    }
    let state = metadata.register();
    let mut second = Taker::begin(&store, 3, state, true).await;
    let woke = second.steps(&store, wakes).await == wakes;
    old.resume(&store).await;
    resume(&store, 2).await;
    if let Some(owner) = &mut live {
        owner.resume(&store).await;
    }
    // The metadata let it start, so it may yet begin, late.
    if let Some(replay) = unstarted {
        let hear = Hear::new();
        if let Ok(log) = replay.start(Arc::clone(&hear) as _).await {
            let mut owner = Owner {
                host: 2,
                log,
                hear,
                next: 2000,
            };
            owner.resume(&store).await;
            live = Some(owner);
        }
    }
    let mut replay = second.finish(&store).await;
    let replayed = names(&mut *replay).await;
    metadata.record_start(&*replay);
    let new = Owner::start(3, replay).await;
    old.resume(&store).await;
    covered(&old, trim, &replayed, &what);
    if let Some(owner) = &mut live {
        owner.resume(&store).await;
        covered(owner, trim, &replayed, &what);
    }
    assert!(
        new.hear.heard().failed.is_none(),
        "{what}: {:?}",
        new.hear.heard().failed
    );
    let state = metadata.register();
    let mut replay = backend(&store, 4).open(&state).await.unwrap();
    assert_eq!(names(&mut *replay).await, replayed, "W8, {what}");
    (reached, woke)
}

#[tokio::test(start_paused = true)]
async fn a_take_over_of_a_take_over_at_any_step_of_both_loses_nothing_that_anybody_acknowledged() {
    for stand in STANDS {
        let mut reach = Reach::Steps(0);
        loop {
            let mut reached = true;
            for wakes in 0.. {
                let (so_far, woke) = take_over_twice(stand, reach, wakes).await;
                reached = so_far;
                if !woke {
                    break;
                }
            }
            reach = match reach {
                Reach::Steps(steps) if reached => Reach::Steps(steps + 1),
                Reach::Steps(_) => Reach::Recorded,
                Reach::Recorded => Reach::Live,
                Reach::Live => break,
            };
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_outlives_the_clean_up_of_its_epoch_and_meets_an_owner_that_was_paused_all_the_while()
 {
    // Lesson 2: a fence was collected while an old writer was paused; it woke, its put succeeded, and it acknowledged lost writes.
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let mut old = paused_owner(&store, &mut metadata, Stand::Asked).await;
    for host in 2..6 {
        replace_and_trim(&store, &mut metadata, host).await;
    }
    assert!(
        metadata.state.owed.iter().all(|e| e.epoch.get() == 5),
        "all else is retired"
    );
    let left: Vec<_> = store.objects().into_keys().map(|p| p.to_string()).collect();
    let of_first: Vec<_> = left
        .iter()
        .filter(|p| p.contains("/0000000000000001/"))
        .collect();
    assert_eq!(of_first.len(), 1, "nothing but the fence is left: {left:?}");
    let acknowledged = old.acknowledged();
    old.resume(&store).await;
    assert_eq!(old.acknowledged(), acknowledged);
    assert!(matches!(
        old.hear.heard().failed,
        Some(Error::Fenced { .. })
    ));
}

/// Someone who takes the log over, and trims all of it.
async fn replace_and_trim(store: &Store, metadata: &mut Metadata, host: u32) -> Owner {
    let state = metadata.register();
    let replay = backend(store, host).open(&state).await.unwrap();
    metadata.record_start(&*replay);
    let mut owner = Owner::start(host, replay).await;
    owner.append(50);
    settle().await;
    let end = owner.log.durable_end();
    metadata.state.trim(end, end);
    owner.log.trim(end);
    settle().await;
    owner
}

/// Names and lengths of what is there of a log.
fn left_of(store: &Store, log: u128) -> Vec<(String, usize)> {
    let of_log = format!("wal/{log:032x}/");
    let objects = store.objects().into_iter();
    let objects = objects.map(|(path, bytes)| (path.to_string(), bytes.len()));
    objects
        .filter(|(path, _)| path.starts_with(&of_log))
        .collect()
}

const FENCE_LEN: usize = 128;

#[tokio::test(start_paused = true)]
async fn what_an_earlier_log_left_is_swept_but_its_fences_and_so_is_the_late_put_of_its_zombie() {
    let (store, mut earlier) = (Store::default(), Metadata::new());
    let mut old = paused_owner(&store, &mut earlier, Stand::Asked).await;
    let owner = replace_and_trim(&store, &mut earlier, 2).await;
    owner.log.close().await.unwrap();
    let acknowledged = old.acknowledged();
    // Another log is made at the place, which owes nothing.
    let mut later = Metadata::of_log(9);
    later.state.grant(LogEpoch::new(10));
    replace_and_trim(&store, &mut later, 3).await;
    let left = left_of(&store, 2);
    assert!(
        !left.is_empty() && left.iter().all(|(_, len)| *len == FENCE_LEN),
        "{left:?}"
    );
    // The zombie of the earlier log: its first put meets the fence, those after it take effect.
    old.resume(&store).await;
    assert_eq!(old.acknowledged(), acknowledged, "W5");
    let failed = old.hear.heard().failed;
    assert!(matches!(failed, Some(Error::Fenced { .. })), "{failed:?}");
    assert!(
        left_of(&store, 2).len() > left.len(),
        "it has brought garbage back"
    );
    replace_and_trim(&store, &mut later, 4).await;
    assert_eq!(left_of(&store, 2), left);
}

#[tokio::test(start_paused = true)]
async fn a_place_without_marks_that_holds_another_logs_objects_is_not_new() {
    let (store, mut earlier) = (Store::default(), Metadata::new());
    drop(paused_owner(&store, &mut earlier, Stand::Idle).await);
    store.damage(|objects| objects.retain(|path, _| !path.as_ref().contains("/marks/")));
    store.release(1);
    let before = store.objects();
    // Its own, too: a state that has forgotten it, where no mark contradicts.
    for new in [Metadata::of_log(9), Metadata::new()] {
        let refused = backend(&store, 2).open(&new.state).await.err();
        assert!(matches!(refused, Some(Error::NotNew { .. })), "{refused:?}");
        assert_eq!(store.objects(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_was_shown_old_marks_does_not_begin_below_what_was_written_since() {
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let owner = replace_and_trim(&store, &mut metadata, 1).await;
    owner.log.close().await.unwrap();
    metadata.state.owed.clear();
    metadata.state.grant(LogEpoch::new(7));
    // A listing that lags shows that the log was made, and neither its start nor its close.
    let whole = store.objects();
    let later = |path: &Path| path.as_ref().contains("/marks/") && !path.as_ref().ends_with('0');
    store.damage(|objects| objects.retain(|path, _| !later(path)));
    let replay = backend(&store, 2).open(&metadata.state).await.unwrap();
    assert_eq!(replay.start_position(), Position::default());
    store.damage(|objects| objects.extend(whole));
    let before = store.objects();
    let refused = replay.start(Hear::new() as _).await.err();
    assert!(
        matches!(refused, Some(Error::Mismatch { .. })),
        "{refused:?}"
    );
    assert_eq!(store.objects(), before);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_lands_after_the_clean_up_does_not_stand_in_for_the_one_that_counts() {
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let replay = backend(&store, 1).open(&metadata.state).await.unwrap();
    metadata.record_start(&*replay);
    let mut old = Owner::start(1, replay).await;
    for len in [250; 4] {
        old.append(len);
        settle().await;
    }
    // A taker asks for its first fence, and is paused.
    let slow = Taker::begin(&store, 2, metadata.register(), false).await;
    let asks_to_fence = || {
        let waiting = store.waiting();
        waiting.iter().any(|one| {
            one.host == 2
                && matches!(&one.request, Request::Create(path, _) if path.as_ref().contains("/0000000000000001/"))
        })
    };
    while !asks_to_fence() {
        assert!(slow.step(&store).await, "it never asks");
    }
    // The owner goes on, and is paused with a put on its way.
    for len in [250; 5] {
        old.append(len);
        settle().await;
    }
    store.hold(1);
    old.append(20);
    settle().await;
    let acknowledged = old.acknowledged();
    assert_eq!(acknowledged.len(), 9);
    // Others have it after that; all of the first epoch is trimmed and retired. The slow fence lands where a commit was.
    for host in 3..7 {
        replace_and_trim(&store, &mut metadata, host).await;
        if host == 3 {
            resume(&store, 2).await;
        }
    }
    old.resume(&store).await;
    assert_eq!(old.acknowledged(), acknowledged, "W5");
    assert!(matches!(
        old.hear.heard().failed,
        Some(Error::Fenced { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn an_owner_with_many_puts_on_their_way_is_overtaken_by_fences_that_double() {
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let replay = backend(&store, 1).open(&metadata.state).await.unwrap();
    metadata.record_start(&*replay);
    let mut old = Owner::start(1, replay).await;
    let state = metadata.register();
    let mut taker = Taker::begin(&store, 2, state, false).await;
    // Whatever the taker asks at once takes as long as four objects of the owner.
    let mut rounds = 0;
    loop {
        let waiting = store.waiting();
        let asked: Vec<_> = waiting.iter().filter(|one| one.host == 2).collect();
        if asked.is_empty() {
            break;
        }
        rounds += 1;
        for _ in 0..4 {
            old.append(250);
            settle().await;
        }
        for one in asked {
            store.apply(one.id);
            store.answer(one.id);
        }
        settle().await;
    }
    let mut replay = taker.finish(&store).await;
    let replayed = names(&mut *replay).await;
    assert_eq!(replayed, old.acknowledged());
    assert!(
        replayed.len() > 10,
        "{} objects in {rounds} rounds",
        replayed.len()
    );
    assert!(matches!(
        old.hear.heard().failed,
        Some(Error::Fenced { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_hole_that_a_taker_left_below_its_own_fence_is_settled_by_the_next() {
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let replay = backend(&store, 1).open(&metadata.state).await.unwrap();
    metadata.record_start(&*replay);
    let mut old = Owner::start(1, replay).await;
    settle().await;
    let state = metadata.register();
    let first = Taker::begin(&store, 2, state, false).await;
    let number = |one: &wal::testing::Waiting| match &one.request {
        Request::Create(path, _) if path.as_ref().contains("/0000000000000001/") => {
            u64::from_str_radix(path.filename().unwrap(), 16).ok()
        }
        _ => None,
    };
    let fences = |store: &Store| -> Vec<_> {
        let waiting = store.waiting();
        let fences = waiting.iter().filter(|one| one.host == 2);
        fences
            .filter_map(|one| Some((number(one)?, one.id)))
            .collect()
    };
    while fences(&store).is_empty() {
        first.step(&store).await;
    }
    // The first fence comes too late; of the two after it the upper one takes effect, and then the first taker is gone.
    old.append(250);
    settle().await;
    while fences(&store).len() < 2 {
        first.step(&store).await;
    }
    let [(lower, _), (upper, fence)] = fences(&store)[..] else {
        panic!("{:?}", fences(&store))
    };
    assert_eq!((lower, upper), (1, 2));
    store.apply(fence);
    first.opening.iter().for_each(JoinHandle::abort);
    store.hold(1);
    old.append(250);
    settle().await;

    let state = metadata.register();
    let mut replay = backend(&store, 3).open(&state).await.unwrap();
    let replayed = names(&mut *replay).await;
    old.resume(&store).await;
    covered(
        &old,
        Position::default(),
        &replayed,
        "the owner wakes with a put for the hole",
    );
    assert!(matches!(
        old.hear.heard().failed,
        Some(Error::Fenced { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_granted_epoch_that_wrote_though_it_was_never_started_is_noticed() {
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let owner = paused_owner(&store, &mut metadata, Stand::Idle).await;
    drop(owner);
    let state = metadata.register();
    let before = store.objects();
    // Its caller records nothing, and starts it all the same.
    let replay = backend(&store, 2).open(&state).await.unwrap();
    let mut rogue = Owner::start(2, replay).await;
    rogue.append(50);
    settle().await;
    assert_eq!(rogue.acknowledged(), [2000]);
    // Without the marks, which would say so at once.
    store.damage(|objects| {
        objects.retain(|path, _| !path.as_ref().contains("/marks/"));
        let marks = before
            .into_iter()
            .filter(|(path, _)| path.as_ref().contains("/marks/"));
        objects.extend(marks);
    });
    let state = metadata.register();
    let refused = backend(&store, 3).open(&state).await.err();
    assert!(
        matches!(refused, Some(Error::Mismatch { .. })),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn several_late_objects_of_an_old_epoch_are_all_left_out_of_every_later_replay() {
    // Lesson 3: a late put of a zombie survived. Lesson 4: of what an old epoch had left over, the first alone was found and left out.
    let (store, mut metadata) = (Store::default(), Metadata::new());
    let replay = backend(&store, 1).open(&metadata.state).await.unwrap();
    metadata.record_start(&*replay);
    let mut old = Owner::start(1, replay).await;
    for len in [250; 3] {
        old.append(len);
        settle().await;
    }
    store.hold(1);
    for len in [250; 3] {
        old.append(len);
        settle().await;
    }
    let late = store.waiting().len();
    assert!(late >= 2, "{late} puts are on their way");
    let mut expected = old.acknowledged();
    for host in 2..4 {
        let state = metadata.register();
        let mut replay = backend(&store, host).open(&state).await.unwrap();
        assert_eq!(names(&mut *replay).await, expected, "host {host}");
        metadata.record_start(&*replay);
        let mut owner = Owner::start(host, replay).await;
        for len in [250; 2] {
            owner.append(len);
            settle().await;
        }
        expected.extend(owner.acknowledged());
        // All that was late arrives now, above the fence of its epoch.
        old.resume(&store).await;
    }
    assert_eq!(old.acknowledged().len(), 3, "W5");
    let mut replay = backend(&store, 4).open(&metadata.register()).await.unwrap();
    assert_eq!(names(&mut *replay).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_a_later_one_or_one_of_its_own_epoch_has_passed_never_starts() {
    for later in [0, 1] {
        let (store, mut metadata) = (Store::default(), Metadata::new());
        drop(paused_owner(&store, &mut metadata, Stand::Idle).await);
        let state = metadata.register();
        let slow = backend(&store, 2).open(&state).await.unwrap();
        if later > 0 {
            metadata.register();
        }
        let replay = backend(&store, 3).open(&metadata.state).await.unwrap();
        metadata.record_start(&*replay);
        let mut new = Owner::start(3, replay).await;
        let before = store.objects();
        let refused = slow.start(Hear::new() as _).await.err();
        assert!(
            matches!(refused, Some(Error::Fenced { .. })),
            "{later}: {refused:?}"
        );
        assert_eq!(store.objects(), before, "{later}: it has marked its start");
        new.append(50);
        settle().await;
        assert_eq!(new.acknowledged(), [3000]);
        metadata
            .state
            .trim(new.log.durable_end(), new.log.durable_end());
        new.log.trim(new.log.durable_end());
        new.log.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_of_a_log_that_owed_nothing_never_starts_over_one_that_was_made_since() {
    let (store, mut earlier) = (Store::default(), Metadata::new());
    let owner = replace_and_trim(&store, &mut earlier, 1).await;
    owner.log.close().await.unwrap();
    // Everything is trimmed, so nothing of it is owed.
    earlier.state.owed.clear();
    earlier.state.grant(LogEpoch::new(7));
    let slow = backend(&store, 2).open(&earlier.state).await.unwrap();
    let mut later = Metadata::of_log(9);
    let replay = backend(&store, 3).open(&later.state).await.unwrap();
    later.record_start(&*replay);
    let mut new = Owner::start(3, replay).await;
    new.append(50);
    settle().await;
    let refused = slow.start(Hear::new() as _).await.err();
    assert!(matches!(refused, Some(Error::Fenced { .. })), "{refused:?}");
    assert_eq!(new.acknowledged(), [3000]);
    let mut replay = backend(&store, 4).open(&later.register()).await.unwrap();
    assert_eq!(names(&mut *replay).await, [3000]);
}

#[tokio::test(start_paused = true)]
async fn no_number_serves_two_epochs_not_even_that_of_a_fence() {
    let (store, mut metadata) = (Store::default(), Metadata::new());
    drop(paused_owner(&store, &mut metadata, Stand::Idle).await);
    store.release(1);
    for host in 2..5 {
        let replay = backend(&store, host)
            .open(&metadata.register())
            .await
            .unwrap();
        metadata.record_start(&*replay);
        let mut owner = Owner::start(host, replay).await;
        // One of them writes nothing.
        if host != 3 {
            owner.append(50);
        }
        settle().await;
    }
    drop(backend(&store, 5).open(&metadata.register()).await.unwrap());
    let mut numbers: Vec<_> = left_of(&store, 2)
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    numbers.retain(|path| path.matches('/').count() == 3);
    let mut numbers: Vec<_> = numbers
        .iter()
        .map(|path| path.rsplit('/').next().unwrap().to_owned())
        .collect();
    let all = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), all, "{:?}", left_of(&store, 2));
    assert!(numbers.is_sorted() && all >= 4 + 4 + 2, "{numbers:?}");
}

#[tokio::test(start_paused = true)]
async fn openings_that_fail_one_after_another_make_the_next_one_no_longer() {
    // Each was granted an epoch and never started. Fencing them all again made each opening longer than the one before, until none ended in time.
    let (store, mut metadata) = (Store::default(), Metadata::new());
    drop(paused_owner(&store, &mut metadata, Stand::Idle).await);
    let mut asked = Vec::new();
    for host in 2..40 {
        let state = metadata.register();
        drop(backend(&store, host).open(&state).await.unwrap());
        asked.push(store.asked(host));
    }
    assert!(
        asked[2..].windows(2).all(|pair| pair[0] == pair[1]),
        "{asked:?}"
    );
}
