//! What is removed, by whom and when: nothing that may be owed, and in the end all that is not.

use std::collections::BTreeSet;

use tokio::time::sleep;
use wal::{
    Error, Identity, LogEpoch, LogState, LogUuid,
    nfs::Directory,
    testing::{Hear, ModelDirectory, ModelHost},
};

use crate::support::*;

/// A log that owes nothing, and its next state.
async fn closed(directory: &ModelDirectory) -> LogState {
    let (mut state, life) = first_life(&directory.host()).await;
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

#[test]
fn a_clean_up_that_was_cut_short_is_finished_by_the_next_opening() {
    for asleep in 0..60 {
        run(async {
            let directory = ModelDirectory::default();
            let first = closed(&directory).await.identity.log.to_string();
            let (host, mut state) = (directory.host(), another());
            let opened = open(&log_on(&host), &state).await.unwrap();
            state.begin(opened.replay.ends(), opened.replay.start_position());
            host.pause_at(asleep);
            tokio::spawn(async move { opened.replay.start(Hear::new()).await });
            sleep(3 * LEASE).await;
            grant_next(&mut state);
            let life = run_from(&directory.host(), &mut state).await.unwrap();
            let names = names(&directory).await;
            let left: Vec<_> = names.iter().filter(|n| n.starts_with(&first)).collect();
            assert!(left.is_empty(), "asleep at {asleep}: {left:?}");
            drop(life);
        });
    }
}

#[test]
fn an_epochs_files_stay_until_both_superblock_copies_are_past_it() {
    for copies in [1, 2] {
        run(async {
            let directory = ModelDirectory::default();
            let mut state = fresh();
            let life = run_from(&directory.host(), &mut state).await.unwrap();
            append(&*life.log, 0, 500).unwrap();
            life.hear.until_durable(1).await;
            let before = names(&directory).await;
            grant_next(&mut state);
            let host = directory.host();
            let life = run_from(&host, &mut state).await.unwrap();
            append(&*life.log, 1, 500).unwrap();
            life.hear.until_durable(1).await;
            let end = life.log.durable_end();
            state.trim(end, end);
            host.fault(refuse("write", copies, EIO));
            life.log.trim(end);
            sleep(SETTLED).await;
            let after = names(&directory).await;
            let gone = before.difference(&after).filter(|n| n.contains(".0000"));
            let gone = gone.filter(|n| !n.starts_with("lease.")).count();
            assert_eq!(gone > 0, copies == 2, "{copies} copies: {gone} files gone");
        });
    }
}

#[test]
fn an_owner_that_was_taken_over_makes_no_more_files() {
    run(async {
        let directory = ModelDirectory::default();
        let (host, mut state) = (directory.host(), fresh());
        let old = run_from(&host, &mut state).await.unwrap();
        append(&*old.log, 0, 3000).unwrap();
        old.hear.until_durable(1).await;
        sleep(SETTLED).await;
        host.pause();
        sleep(3 * LEASE).await;
        grant_next(&mut state);
        let _new = run_from(&directory.host(), &mut state).await.unwrap();
        sleep(SETTLED).await;
        let before = names(&directory).await;
        host.resume();
        for record in 1..6 {
            let _ = append(&*old.log, record, 3000);
        }
        sleep(SETTLED).await;
        let after = names(&directory).await;
        let made: Vec<_> = after.difference(&before).collect();
        assert!(made.is_empty(), "{made:?}");
        let failed = old.hear.heard().failed;
        assert!(matches!(failed, Some(Error::Fenced { .. })), "{failed:?}");
    });
}

#[test]
fn an_owner_whose_files_its_successor_removed_is_fenced_and_not_only_failed() {
    for own_stays in [false, true] {
        run(async {
            let directory = ModelDirectory::default();
            let (host, mut state) = (directory.host(), fresh());
            let old = run_from(&host, &mut state).await.unwrap();
            append(&*old.log, 0, 500).unwrap();
            old.hear.until_durable(1).await;
            sleep(SETTLED).await;
            host.pause();
            let own = names(&directory)
                .await
                .into_iter()
                .find(|n| n.starts_with("lease."));
            let own = own.unwrap();
            let content = directory.image().contents()[&own].clone();
            grant_next(&mut state);
            let new = run_from(&directory.host(), &mut state).await.unwrap();
            append(&*new.log, 1, 500).unwrap();
            new.hear.until_durable(1).await;
            let end = new.log.durable_end();
            new.log.trim(end);
            sleep(SETTLED).await;
            // The clean-up of old numbers may lag behind: then the own one is there.
            if own_stays {
                let mut image = directory.image();
                image.put(&own, content);
                directory.restore(image);
            }
            host.resume();
            let _ = append(&*old.log, 2, 500);
            sleep(SETTLED).await;
            let failed = old.hear.heard().failed;
            assert!(matches!(failed, Some(Error::Fenced { .. })), "{failed:?}");
        });
    }
}
