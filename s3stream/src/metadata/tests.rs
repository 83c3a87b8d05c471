//! A node's handle: batches, order, fencing, failures, and what a look is worth.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::{ErrorKind, GroupId, NodeId};

const STEP: Duration = Duration::from_millis(10);

/// A log in memory whose every append and look takes [`STEP`], and fails when told.
#[derive(Clone, Debug, Default)]
struct SlowSequencer {
    log: MemorySequencer,
    failures: Arc<Mutex<Vec<Error>>>,
    requests: Arc<AtomicU64>,
    panics: Arc<AtomicBool>,
}

impl SlowSequencer {
    async fn pass(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(STEP).await;
        assert!(!self.panics.load(Ordering::Relaxed), "as told");
        let failure = self.failures.lock().pop();
        failure.map_or(Ok(()), Err)
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn fail(&self, error: Error) {
        self.failures.lock().push(error);
    }
}

#[async_trait]
impl Sequencer for SlowSequencer {
    async fn load(&mut self) -> Result<Loaded> {
        self.log.load().await
    }
    async fn append(&mut self, entry: &EncodedEntry) -> Result<News> {
        self.pass().await?;
        self.log.append(entry).await
    }
    async fn look(&mut self, tip: Tip) -> Result<News> {
        self.pass().await?;
        self.log.look(tip).await
    }
    fn wants_snapshot(&self) -> bool {
        false
    }
    async fn snapshot(&mut self, tip: Tip, state: Bytes) -> Result<()> {
        self.log.snapshot(tip, state).await
    }
}

/// A clock that moves when told.
#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

async fn open(sequencer: &SlowSequencer, clock: &Arc<ManualClock>) -> Metadata {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Metadata::open(Box::new(sequencer.clone()), clock, Entropy::seeded(1))
        .await
        .unwrap()
}

fn registration(node: u64, incarnation: u128) -> Registration {
    Registration {
        node: NodeId::new(node),
        incarnation,
        attempt: 1,
        log: None,
    }
}

async fn joined() -> (Metadata, SlowSequencer, Arc<ManualClock>) {
    let (sequencer, clock) = (SlowSequencer::default(), Arc::default());
    let metadata = open(&sequencer, &clock).await;
    metadata.register(registration(1, 1)).await.unwrap();
    (metadata, sequencer, clock)
}

fn prepare() -> Vec<Command> {
    vec![Command::Prepare { count: 1 }]
}

fn open_groups() -> Vec<Command> {
    vec![Command::Open {
        groups: vec![GroupId::new(1)],
    }]
}

#[tokio::test(start_paused = true)]
async fn everything_that_waits_goes_into_the_next_batch() {
    let (metadata, sequencer, _) = joined().await;
    let before = sequencer.requests();
    let calls = (0..50).map(|_| metadata.submit(prepare()));
    let answers = futures::future::join_all(calls).await;
    let mut ids: Vec<_> = answers
        .into_iter()
        .map(|answers| match &answers.unwrap()[..] {
            [Answer::Prepared { objects }] => objects.start,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    assert!(ids.is_sorted());
    // The first may go alone; the other forty-nine wait for it together.
    assert!(
        sequencer.requests() - before <= 2,
        "{}",
        sequencer.requests()
    );
}

#[tokio::test(start_paused = true)]
async fn ownership_goes_first_and_nothing_overtakes_within_its_kind() {
    let (metadata, sequencer, _) = joined().await;
    let first = metadata.submit(prepare());
    let waiting = async {
        tokio::time::sleep(STEP / 2).await;
        tokio::join!(biased;
            metadata.submit(prepare()),
            metadata.submit(open_groups()),
            metadata.submit(prepare()),
        )
    };
    let (first, waiting) = tokio::join!(biased; first, waiting);
    first.unwrap();
    assert!(waiting.0.is_ok() && waiting.1.is_ok() && waiting.2.is_ok());
    let entries = sequencer.log.clone().load().await.unwrap().entries;
    let Body::Batch(batch) = entries.last().unwrap().decode().unwrap().body else {
        panic!("not a batch");
    };
    let expected = [open_groups(), prepare(), prepare()].concat();
    assert_eq!(batch.commands, expected);
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_at_its_size_and_a_submission_above_the_limit_is_refused() {
    let (metadata, sequencer, _) = joined().await;
    let put = |key: &str, len| {
        Command::KvPut(KvPut {
            key: Bytes::copy_from_slice(key.as_bytes()),
            expect: None,
            value: Some(Bytes::from(vec![7; len])),
        })
    };
    let before = sequencer.requests();
    let calls = (0..4).map(|count| metadata.submit(vec![put(&count.to_string(), 40 << 10)]));
    for answers in futures::future::join_all(calls).await {
        assert!(matches!(answers.unwrap()[..], [Answer::KvDone { .. }]));
    }
    assert_eq!(sequencer.requests() - before, 4);
    let huge = (0..20)
        .map(|count| put(&count.to_string(), 1 << 20))
        .collect();
    let error = metadata.submit(huge).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        metadata.submit(vec![]).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test(start_paused = true)]
async fn a_definite_failure_fails_its_callers_alone() {
    let (metadata, sequencer, _) = joined().await;
    sequencer.fail(Error::unavailable("throttled"));
    let error = metadata.submit(prepare()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Unavailable, false)
    );
    metadata.submit(prepare()).await.unwrap();
    // What cannot be understood ends the handle.
    sequencer.fail(Error::corrupt("rolled back"));
    for _ in 0..2 {
        assert_eq!(
            metadata.look().await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
    assert_eq!(
        metadata.submit(prepare()).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test(start_paused = true)]
async fn commands_before_a_registration_are_refused() {
    let metadata = open(&SlowSequencer::default(), &Arc::default()).await;
    let error = metadata.submit(prepare()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("not registered"));
}

#[tokio::test(start_paused = true)]
async fn a_look_is_as_old_as_the_moment_before_it_was_sent() {
    let (metadata, _, clock) = joined().await;
    let bound = Duration::from_secs(5);
    assert!(metadata.seen_current_within(bound));
    clock.advance(bound);
    assert!(metadata.seen_current_within(bound));
    clock.advance(Duration::from_millis(1));
    assert!(!metadata.seen_current_within(bound));
    // The clock passes the bound while the look is under way: what it saw may be that old.
    let slow = async {
        tokio::time::sleep(STEP / 2).await;
        clock.advance(bound + Duration::from_millis(1));
    };
    let (look, ()) = tokio::join!(biased; metadata.look(), slow);
    look.unwrap();
    assert!(!metadata.seen_current_within(bound));
    metadata.look().await.unwrap();
    assert!(metadata.seen_current_within(Duration::ZERO));
    clock.advance(bound * 2);
    // An own append is a look.
    metadata.submit(prepare()).await.unwrap();
    assert!(metadata.seen_current_within(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn looks_that_wait_are_served_by_one() {
    let (metadata, sequencer, _) = joined().await;
    let before = sequencer.requests();
    let looks = futures::future::join_all((0..20).map(|_| metadata.look())).await;
    assert!(looks.iter().all(Result::is_ok));
    assert!(sequencer.requests() - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_paused_old_owner_learns_by_a_look_that_it_is_fenced() {
    let (old, sequencer, clock) = joined().await;
    let mut watch = old.watch();
    let new = open(&sequencer, &clock).await;
    let registered = new.register(registration(1, 2)).await.unwrap();
    // It cannot know yet: only the bound on the age of its look protects readers (S8).
    assert!(old.seen_current_within(Duration::ZERO));
    let error = old.look().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(!old.seen_current_within(Duration::from_secs(3600)));
    assert!(
        watch
            .wait_for(|seen| seen.fenced == Some(registered.epoch))
            .await
            .is_ok()
    );
    assert_eq!(
        old.submit(prepare()).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_meets_its_fence_may_have_happened_before_it() {
    let (old, sequencer, clock) = joined().await;
    let new = open(&sequencer, &clock).await;
    new.register(registration(1, 2)).await.unwrap();
    let error = old.submit(prepare()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Fenced, true)
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_process_may_register_again_and_goes_on_under_its_new_epoch() {
    let (metadata, _, _) = joined().await;
    metadata.submit(prepare()).await.unwrap();
    let again = Registration {
        attempt: 2,
        ..registration(1, 1)
    };
    let registered = metadata.register(again).await.unwrap();
    metadata.submit(prepare()).await.unwrap();
    assert_eq!(metadata.watch().borrow().fenced, None);
    assert_eq!(
        metadata.view(|state| state.node_epoch(NodeId::new(1))),
        Some(registered.epoch)
    );
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_gives_its_callers_a_typed_error() {
    let (metadata, sequencer, _) = joined().await;
    sequencer.panics.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let error = metadata.submit(prepare()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_stops_nobody_and_its_commands_may_still_be_decided() {
    let (metadata, _, _) = joined().await;
    let before = metadata.view(State::next_object);
    let given_up = tokio::time::timeout(STEP / 2, metadata.submit(prepare())).await;
    assert!(given_up.is_err());
    metadata.submit(prepare()).await.unwrap();
    let after = metadata.view(State::next_object);
    assert_eq!(after.get(), before.get() + 2);
}

#[tokio::test(start_paused = true)]
async fn watchers_see_the_state_advance() {
    let (metadata, _, _) = joined().await;
    let mut watch = metadata.watch();
    let before = watch.borrow_and_update().index;
    metadata.submit(prepare()).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow().index, before + 1);
}
