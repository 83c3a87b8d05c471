//! A log that breaks its contract, over several lives, is noticed.

use s3stream::wal::{Identity, LogEpoch, LogUuid, memory::MemoryLog};

use super::*;

struct Deaf;

impl Sink for Deaf {
    fn durable(&self, _commit: Commit) {}
    fn failed(&self, _error: &Error) {}
    fn room(&self) {}
}

fn state() -> LogState {
    let identity = Identity {
        cluster: 1,
        log: LogUuid::new(1),
        node: 1,
    };
    LogState::new(identity, LogEpoch::new(1))
}

async fn replay(backend: &dyn Backend, state: &mut LogState) -> Box<dyn Replay> {
    let mut replay = backend.open(state).await.unwrap();
    while replay.next().await.unwrap().is_some() {}
    state.begin(replay.ends(), replay.start_position());
    replay
}

/// One life that appends these records and crashes.
async fn live(backend: &dyn Backend, state: &mut LogState, records: &[&[u8]]) -> Arc<dyn Log> {
    let log = replay(backend, state)
        .await
        .start(Arc::new(Deaf))
        .await
        .unwrap();
    for record in records {
        log.append(&[record]).unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let next = LogEpoch::new(state.epoch.get() + 1);
    state.grant(next);
    log
}

#[tokio::test(start_paused = true)]
async fn a_log_that_keeps_its_contract_passes_over_many_lives() {
    let (memory, history, mut state) = (MemoryLog::new(), History::default(), state());
    let backend = Watched::new(Arc::new(memory), history.clone());
    for _ in 0..4 {
        live(&backend, &mut state, &[b"one", b"two"]).await;
    }
    assert_eq!(history.violation(), None);
    assert_eq!(history.counts(), (8, 2 + 4 + 6));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_what_it_acknowledged_is_noticed() {
    let (history, mut state) = (History::default(), state());
    let full = Watched::new(Arc::new(MemoryLog::new()), history.clone());
    live(&full, &mut state, &[b"one"]).await;
    history.0.lock().complete(&state, &BTreeSet::new());
    assert_eq!(history.violation().unwrap().contract, "W2");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_comes_back_after_a_life_began_without_it_is_noticed() {
    let (memory, history, mut state) = (MemoryLog::new(), History::default(), state());
    let backend = Watched::new(Arc::new(memory), history.clone());
    live(&backend, &mut state, &[b"one"]).await;
    for known in history.0.lock().records.values_mut() {
        known.standing = Standing::Gone;
    }
    live(&backend, &mut state, &[]).await;
    assert_eq!(history.violation().unwrap().contract, "W8");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_comes_back_changed_or_from_nowhere_is_noticed() {
    for change in [true, false] {
        let (memory, history, mut state) = (MemoryLog::new(), History::default(), state());
        let backend = Watched::new(Arc::new(memory), history.clone());
        live(&backend, &mut state, &[b"one"]).await;
        if change {
            history
                .0
                .lock()
                .records
                .values_mut()
                .for_each(|known| known.digest ^= 1);
        } else {
            history.0.lock().records.clear();
        }
        live(&backend, &mut state, &[]).await;
        assert_eq!(history.violation().unwrap().contract, "W4");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trim_that_the_metadata_does_not_know_is_noticed() {
    let (memory, history, mut state) = (MemoryLog::new(), History::default(), state());
    let backend = Watched::new(Arc::new(memory), history.clone());
    let log = live(&backend, &mut state, &[b"one"]).await;
    log.trim(log.durable_end());
    live(&backend, &mut state, &[]).await;
    assert_eq!(history.violation().unwrap().contract, "W7");
}
