//! Owners that were taken over while they cleaned up what others had left.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::sleep;
use wal::{
    Error, Identity, LogEpoch, LogState, LogUuid,
    nfs::Directory,
    testing::{ModelDirectory, ModelHost},
};

use crate::support::*;

const LEASE: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_millis(200);

/// A log that owes nothing, and its next state.
async fn closed(directory: &ModelDirectory) -> LogState {
    let mut state = fresh();
    let life = open(&log_on(&directory.host()), &state).await.unwrap();
    let life = life.start(&mut state).await.unwrap();
    append(&*life.log, 0, 500).unwrap();
    life.hear.until_durable(1).await;
    let end = life.log.durable_end();
    state.trim(end, end);
    life.log.trim(end);
    life.log.close().await.unwrap();
    grant_next(&mut state);
    state
}

fn another() -> LogState {
    let identity = Identity {
        log: LogUuid::new(77),
        ..fresh().identity
    };
    LogState::new(identity, LogEpoch::new(1))
}

async fn run_from(host: &ModelHost, state: &mut LogState) -> Result<Life, Error> {
    open(&log_on(host), state).await?.start(state).await
}

async fn names(directory: &ModelDirectory) -> BTreeSet<String> {
    let names = directory.host().list().await.unwrap();
    // A draft is its maker's to remove.
    names
        .into_iter()
        .filter(|n| !n.starts_with("draft."))
        .collect()
}

#[test]
fn an_owner_that_slept_in_its_clean_up_removes_nothing_of_a_log_that_lives_again() {
    // The first log was closed when the second one looked at the directory. While that one sleeps, anywhere in its start, the first one is opened again.
    let (mut cases, mut passed_over) = (0, 0);
    for asleep in 0..40 {
        run(async {
            let directory = ModelDirectory::default();
            let mut state = closed(&directory).await;
            let (other, mut others) = (directory.host(), another());
            let opened = open(&log_on(&other), &others).await.unwrap();
            other.pause_at(asleep);
            let starting = tokio::spawn(async move { opened.start(&mut others).await });
            sleep(3 * LEASE).await;
            cases += 1;
            let life = match run_from(&directory.host(), &mut state).await {
                Ok(life) => life,
                // The other one had removed it all: the directory is that one's.
                Err(Error::Missing { .. } | Error::Mismatch { .. }) => {
                    passed_over += 1;
                    return;
                }
                Err(error) => panic!("asleep at {asleep}: {error}"),
            };
            append(&*life.log, 1, 3000).unwrap();
            append(&*life.log, 2, 3000).unwrap();
            life.hear.until_durable(2).await;
            let before = names(&directory).await;
            other.resume();
            sleep(SETTLED).await;
            let after = names(&directory).await;
            let gone = before.difference(&after).count();
            assert!(gone <= 1, "{gone} files gone, one removal was on its way");
            append(&*life.log, 3, 3000).unwrap();
            life.hear.until_durable(3).await;
            drop(starting);
            sleep(3 * LEASE).await;

            grant_next(&mut state);
            let again = open(&log_on(&directory.host()), &state).await;
            let back = again.map(|opened| opened.back);
            assert!(
                matches!(&back, Ok(back) if back[..] == [1, 2, 3]),
                "W5: asleep at {asleep}: {back:?}"
            );
        });
    }
    assert!(cases - passed_over > 15, "{passed_over} of {cases}");
}
