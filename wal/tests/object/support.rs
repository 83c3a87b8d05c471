//! What the tests of the object log share: a log's state, lives of a log in a modelled bucket, and what comes back of it.

use std::sync::Arc;

use object_store::{ObjectStore, path::Path};
use wal::{
    Backend, Error, Log, LogEpoch, LogState, Position,
    object::{Config, ObjectLog},
    testing::{Hear, ModelStore},
};

pub(crate) use wal::testing::{grant_next, new_log as state, trim_of};

pub(crate) type Store = ModelStore;

/// Lets every task do what it can without the store or the clock.
pub(crate) async fn settle() {
    for _ in 0..60 {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn start(
    store: Arc<dyn ObjectStore>,
    config: Config,
    state: &mut LogState,
) -> (Arc<dyn Log>, Arc<Hear>) {
    let place = ObjectLog::new(store, "wal", 9).unwrap().with_config(config);
    let replay = place.open(state).await.unwrap();
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await.unwrap();
    (log, hear)
}

/// Four objects in the first epoch, and the state that grants the second.
pub(crate) async fn four_objects() -> (Store, LogState, Vec<Path>) {
    let (store, mut state) = (Store::default(), state());
    let (log, hear) = start(store.host(1), Config::default(), &mut state).await;
    for n in 1..=4 {
        log.append(&[b"record"]).unwrap();
        hear.until_durable(n).await;
    }
    drop(log);
    settle().await;
    state.grant(LogEpoch::new(2));
    let commits: Vec<_> = store.objects().into_keys().filter(is_commit).collect();
    assert_eq!(commits.len(), 4);
    (store, state, commits)
}

/// Opens it elsewhere and reads all of it.
pub(crate) async fn open(store: &Store, state: &LogState) -> Result<Vec<Position>, Error> {
    let place = ObjectLog::new(store.host(2), "wal", 9).unwrap();
    let mut replay = place.open(state).await?;
    let mut positions = Vec::new();
    while let Some(piece) = replay.next().await? {
        positions.extend(piece.iter().map(|r| r.position.start));
    }
    Ok(positions)
}

/// Whether it is an object of a log, and no mark nor the probe.
pub(crate) fn is_commit(path: &Path) -> bool {
    path.parts().count() == 4
}
