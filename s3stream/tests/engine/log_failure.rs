//! A log that fails: appends in it are ambiguous, the engine opens it again by itself (W6), nothing acknowledged is
//! lost, and no stream stays behind (one failed append used to fence its stream until restart elsewhere).

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use s3stream::{
    ErrorKind,
    wal::{
        Backend, Commit, EpochEnd, Error, Found, Log, LogState, Position, Replay, Replayed, Sink,
        Usage, memory::MemoryLog,
    },
};

use crate::support::{LONG, Places, check, fill, payload};

/// A log that can be told to fail its commits, and to refuse to open.
#[derive(Clone, Debug)]
struct Failing {
    log: MemoryLog,
    fail: Arc<AtomicBool>,
    refuse: Arc<AtomicU64>,
    /// It is refused as another's, not as unreachable.
    mismatch: Arc<AtomicBool>,
}

impl Failing {
    fn new(log: MemoryLog) -> Self {
        Self {
            log,
            fail: Arc::default(),
            refuse: Arc::default(),
            mismatch: Arc::default(),
        }
    }

    fn error() -> Error {
        Error::Io {
            op: "write",
            place: "test log".into(),
            source: Arc::new(std::io::Error::other("input/output error")),
        }
    }
}

#[async_trait]
impl Backend for Failing {
    fn url(&self) -> String {
        self.log.url()
    }

    async fn identify(&self) -> Result<Found, Error> {
        self.log.identify().await
    }

    async fn open(&self, state: &LogState) -> Result<Box<dyn Replay>, Error> {
        if self
            .refuse
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok()
        {
            return Err(match self.mismatch.load(Ordering::SeqCst) {
                true => Error::Mismatch {
                    place: "test log".into(),
                    found: "another".into(),
                    expected: "this one".into(),
                },
                false => Self::error(),
            });
        }
        let replay = self.log.open(state).await?;
        Ok(Box::new(FailingReplay {
            replay,
            fail: self.fail.clone(),
        }))
    }
}

struct FailingReplay {
    replay: Box<dyn Replay>,
    fail: Arc<AtomicBool>,
}

#[async_trait]
impl Replay for FailingReplay {
    fn ends(&self) -> &[EpochEnd] {
        self.replay.ends()
    }

    fn start_position(&self) -> Position {
        self.replay.start_position()
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        self.replay.next().await
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.replay.rewind().await
    }

    async fn start(self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        let sink = Arc::new(FailingSink {
            sink,
            fail: self.fail.clone(),
            failed: AtomicBool::new(false),
        });
        let log = self.replay.start(sink.clone()).await?;
        Ok(Arc::new(FailingLog { log, sink }))
    }
}

/// The record is in the log, but nobody hears of it: the worst kind of failure.
struct FailingSink {
    sink: Arc<dyn Sink>,
    fail: Arc<AtomicBool>,
    failed: AtomicBool,
}

impl Sink for FailingSink {
    fn durable(&self, commit: Commit) {
        if self.failed.load(Ordering::SeqCst) {
            return;
        }
        if self.fail.swap(false, Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            self.sink.failed(&Failing::error());
            return;
        }
        self.sink.durable(commit);
    }

    fn failed(&self, error: &Error) {
        self.sink.failed(error);
    }

    fn room(&self) {
        self.sink.room();
    }
}

struct FailingLog {
    log: Arc<dyn Log>,
    sink: Arc<FailingSink>,
}

impl std::fmt::Debug for FailingLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.log.fmt(f)
    }
}

#[async_trait]
impl Log for FailingLog {
    fn append(&self, record: &[&[u8]]) -> Result<Range<Position>, Error> {
        if self.sink.failed.load(Ordering::SeqCst) {
            return Err(Error::Failed {
                cause: Arc::new(Failing::error()),
            });
        }
        self.log.append(record)
    }

    fn trim(&self, to: Position) {
        self.log.trim(to);
    }

    fn usage(&self) -> Usage {
        self.log.usage()
    }

    fn max_record_len(&self) -> usize {
        self.log.max_record_len()
    }

    fn durable_end(&self) -> Position {
        self.log.durable_end()
    }

    async fn close(&self) -> Result<(), Error> {
        self.log.close().await
    }
}

#[tokio::test]
async fn a_failed_commit_is_ambiguous_and_the_engine_opens_the_log_again_by_itself() {
    let places = Places::new();
    let log = Failing::new(places.log.clone());
    let engine = places
        .builder()
        .wal_backend(Arc::new(log.clone()))
        .open()
        .await
        .unwrap();
    let stream = engine.create_stream().await.unwrap();
    let other = engine.create_stream().await.unwrap();
    for round in 0..5 {
        fill(&stream, 10, 500).await;
        fill(&other, 3, 500).await;
        let acknowledged = stream.confirm();
        let epoch = stream.epoch();
        log.refuse.store(round, Ordering::SeqCst);
        log.fail.store(true, Ordering::SeqCst);
        let lost = stream
            .append(1, &[&payload(&stream, stream.next(), 500)])
            .unwrap();
        let error = lost.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.may_have_happened());
        // It goes on by itself, and the record that was written is there, once.
        let waited = async {
            while stream.epoch() == epoch || other.epoch() == epoch {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, waited).await.expect("reopened");
        assert_eq!(stream.confirm(), acknowledged + 1);
        check(&stream, 0..acknowledged + 1, 500).await;
    }
    fill(&stream, 10, 500).await;
    fill(&other, 10, 500).await;
    check(&other, 0..25, 500).await;
    engine.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_close_gives_up_at_its_deadline_while_the_log_is_away() {
    let places = Places::new();
    let log = Failing::new(places.log.clone());
    let engine = places
        .builder()
        .wal_backend(Arc::new(log.clone()))
        .open()
        .await
        .unwrap();
    let stream = engine.create_stream().await.unwrap();
    fill(&stream, 10, 500).await;
    log.refuse.store(u64::MAX, Ordering::SeqCst);
    log.fail.store(true, Ordering::SeqCst);
    let _ = stream.append(1, &[b"x"]).unwrap().await;
    let error = stream.append(1, &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(engine.health().is_err());
    // Not done, and no less so for being asked again.
    for limit_ms in [50, 0, 10_000] {
        let limit = std::time::Duration::from_millis(limit_ms);
        let error = engine.close(limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(
        stream.fetch(0, 1).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    log.refuse.store(0, Ordering::SeqCst);
    let engine = places.open().await;
    let stream = engine.open_stream(stream.id()).await.unwrap();
    assert_eq!(stream.confirm(), 11);
}

#[tokio::test]
async fn waiting_for_room_outlives_a_failure_of_the_log() {
    let places = Places::new();
    let log = Failing::new(places.log.clone());
    let engine = places
        .builder()
        .wal_backend(Arc::new(log.clone()))
        .open()
        .await
        .unwrap();
    let stream = engine.create_stream().await.unwrap();
    log.refuse.store(3, Ordering::SeqCst);
    log.fail.store(true, Ordering::SeqCst);
    let _ = stream.append(1, &[b"x"]).unwrap().await;
    let permit = tokio::time::timeout(LONG, async {
        loop {
            // Which log takes how much is not known while there is none.
            match stream.ready(100).await {
                Ok(permit) => break permit,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a permit");
    stream
        .append_with(permit, 1, &[&[7; 100]])
        .unwrap()
        .await
        .unwrap();
}

/// Whether the engine goes on when the log failed and is refused so often, as another's, while it is opened again.
async fn goes_on_after(refusals: u64) -> Result<(), s3stream::Error> {
    let places = Places::new();
    let log = Failing::new(places.log.clone());
    let builder = places.builder().wal_backend(Arc::new(log.clone()));
    let engine = builder.open().await?;
    let stream = engine.create_stream().await?;
    log.mismatch.store(true, Ordering::SeqCst);
    log.refuse.store(refusals, Ordering::SeqCst);
    log.fail.store(true, Ordering::SeqCst);
    assert!(stream.append(1, &[b"x"])?.await.is_err());
    for _ in 0..1000 {
        match stream.append(1, &[b"y"]) {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            appended => return appended?.await.map(drop),
        }
    }
    panic!("it is neither served nor over");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_refused_again_and_again_while_it_is_reopened_ends_the_engine() {
    goes_on_after(15).await.unwrap();
    let error = goes_on_after(u64::MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

struct Panics;

impl std::task::Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker of the caller's panics");
    }
}

#[tokio::test]
async fn a_panic_while_a_commit_is_told_ends_every_append_and_nobody_waits() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    let other = engine.create_stream().await.unwrap();
    places.log.hold();
    let mut panics = Box::pin(stream.append(1, &[b"x"]).unwrap());
    let waker = Arc::new(Panics).into();
    let mut context = std::task::Context::from_waker(&waker);
    assert!(panics.as_mut().poll(&mut context).is_pending());
    let appends = [other.append(1, &[b"y"]), other.append(1, &[b"z"])];
    places.log.release();
    for append in appends {
        let append = tokio::time::timeout(LONG, append.unwrap()).await;
        match append.expect("nobody waits for ever") {
            // Told before.
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Internal, "{error}"),
        }
    }
    let ended = tokio::time::timeout(LONG, engine.ended()).await;
    assert_eq!(ended.expect("it ends").kind(), ErrorKind::Internal);
}
