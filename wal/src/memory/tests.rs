//! The log in memory, held, failed and crashed by its test.

use tokio::sync::mpsc;

use super::*;
use crate::LogUuid;

#[derive(Debug)]
enum Heard {
    Durable(Vec<Bytes>),
    Failed(Error),
    Room,
}

struct Tell(mpsc::Sender<Heard>);

impl Sink for Tell {
    fn durable(&self, commit: Commit) {
        let payloads = commit.records.into_iter().map(|r| r.payload).collect();
        self.0.try_send(Heard::Durable(payloads)).unwrap();
    }

    fn failed(&self, error: &Error) {
        self.0.try_send(Heard::Failed(error.clone())).unwrap();
    }

    fn room(&self) {
        self.0.try_send(Heard::Room).unwrap();
    }
}

fn state(epoch: u64) -> LogState {
    let identity = Identity {
        cluster: 1,
        log: LogUuid::new(2),
        node: 3,
    };
    LogState::new(identity, LogEpoch::new(epoch))
}

async fn start(
    place: &MemoryLog,
    state: &mut LogState,
) -> (Vec<Bytes>, Arc<dyn Log>, mpsc::Receiver<Heard>) {
    let mut replay = place.open(state).await.unwrap();
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        back.extend(piece.into_iter().map(|r| r.payload));
    }
    state.begin(replay.ends(), replay.start_position());
    let (tell, heard) = mpsc::channel(64);
    (
        back,
        replay.start(Arc::new(Tell(tell))).await.unwrap(),
        heard,
    )
}

#[tokio::test]
async fn an_opening_fences_the_log_before_it_and_replays_all_it_acknowledged() {
    let place = MemoryLog::new();
    let mut state = state(1);
    let (_, old, mut heard) = start(&place, &mut state).await;
    old.append(&[b"o", b"ne"]).unwrap();
    match heard.recv().await {
        Some(Heard::Durable(payloads)) => assert_eq!(payloads, [Bytes::from_static(b"one")]),
        other => panic!("{other:?}"),
    }
    place.hold();
    old.append(&[b"two"]).unwrap();
    tokio::task::yield_now().await;
    assert!(heard.try_recv().is_err());

    state.grant(LogEpoch::new(2));
    place.forget_unacknowledged(true);
    let (back, new, _heard) = start(&place, &mut state).await;
    assert_eq!(back, [Bytes::from_static(b"one")]);
    place.release();
    assert!(matches!(
        heard.recv().await,
        Some(Heard::Failed(Error::Fenced { .. }))
    ));
    assert!(matches!(old.append(&[b"late"]), Err(Error::Fenced { .. })));
    assert!(matches!(old.close().await, Err(Error::Fenced { .. })));
    new.append(&[b"three"]).unwrap();
}

#[tokio::test]
async fn a_failure_stops_every_later_append_until_the_log_is_reopened() {
    let place = MemoryLog::new();
    let mut state = state(1);
    let (_, log, mut heard) = start(&place, &mut state).await;
    place.fail(Error::Invalid("a test".to_owned()));
    assert!(matches!(log.append(&[b"x"]), Err(Error::Failed { .. })));
    assert!(matches!(
        heard.recv().await,
        Some(Heard::Failed(Error::Failed { .. }))
    ));
    state.grant(LogEpoch::new(2));
    let (_, log, _heard) = start(&place, &mut state).await;
    log.append(&[b"x"]).unwrap();
}

#[tokio::test]
async fn a_full_log_refuses_and_tells_when_a_trim_made_room() {
    let place = MemoryLog::with_capacity(8);
    let (_, log, mut heard) = start(&place, &mut state(1)).await;
    assert!(matches!(
        log.append(&[b"123"]),
        Err(Error::TooLarge { len: 3, max: 2 })
    ));
    for _ in 0..4 {
        log.append(&[b"12"]).unwrap();
    }
    assert!(matches!(
        log.append(&[b"12"]),
        Err(Error::Full { needed: 2, free: 0 })
    ));
    assert!(matches!(heard.recv().await, Some(Heard::Durable(_))));
    log.trim(Position::new(5));
    assert!(matches!(heard.recv().await, Some(Heard::Room)));
    assert_eq!(
        log.usage(),
        Usage {
            capacity: 8,
            used: 4,
            queue_capacity: u64::MAX,
            ..Usage::default()
        }
    );
}
