//! The suite that every backend passes: what of W1 to W8 can be seen from outside.
//!
//! It runs on a storage that is made blank for each case, and "restarts" by dropping all and asking the storage for a backend again. It panics with the
//! contract's id. It cannot see a power cut (W8's other half) nor a late completion (W5): the crash tests of a backend do.

mod places;
mod records;

use std::{sync::Arc, time::Duration};

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
    records::a_new_log_is_blank_then_live_and_replays_nothing(&blank()).await;
    records::records_of_every_size_replay_in_order(&blank()).await;
    records::impossible_records_are_refused(&blank()).await;
    records::a_replay_can_be_repeated_and_changes_nothing(&blank()).await;
    records::a_sealed_epoch_replays_exactly_and_before_the_next(&blank()).await;
    records::an_epoch_that_was_never_started_is_skipped(&blank()).await;
    records::a_start_that_was_recorded_and_not_made_is_no_missing_log(&blank()).await;
    places::a_trimmed_record_stays_away_and_the_rest_comes_back(&blank()).await;
    places::a_full_log_takes_appends_again_after_a_trim(&blank()).await;
    places::a_log_takes_what_it_says_that_it_has_room_for(&blank()).await;
    places::a_log_that_owes_nothing_closes_and_can_be_made_anew(&blank()).await;
    places::a_log_that_owes_closes_and_comes_back(&blank()).await;
    places::a_place_that_does_not_fit_the_state_is_refused(&blank()).await;
    places::what_the_state_knows_to_be_durable_may_not_be_missing(&blank()).await;
    places::two_owners_never_both_acknowledge(&blank()).await;
    records::appends_of_many_threads_keep_each_threads_order(&blank()).await;
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
