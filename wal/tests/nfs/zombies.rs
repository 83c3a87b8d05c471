//! Owners that sleep longer than their lease and wake at each step of a take-over, takers that are taken over themselves, and races for one number.
//!
//! Each time: whatever an owner ever acknowledges is in what its successor replays (W5), and who lost the log knows it and by whom (W6).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;
use wal::{
    Backend, Error, LogState,
    nfs::{Config, Directory},
    testing::{DirectoryFault, ModelDirectory, ModelHost, RuntimeClock},
};

use crate::support::*;

/// An owner with three records that it has acknowledged, half of its lease over.
struct Owner {
    host: ModelHost,
    state: LogState,
    life: Life,
}

async fn owner(directory: &ModelDirectory) -> Owner {
    owner_of(directory, CAPACITY).await
}

async fn owner_of(directory: &ModelDirectory, capacity: u64) -> Owner {
    let host = directory.host();
    let mut state = fresh();
    let life = open(&log_of(&host, capacity), &state).await.unwrap();
    let life = life.start(&mut state).await.unwrap();
    for record in 0..3 {
        append(&*life.log, record, 500).unwrap();
    }
    life.hear.until_durable(3).await;
    sleep(LEASE / 2 + SETTLED).await;
    Owner { host, state, life }
}

/// Appends what is accepted, up to `count` records from number `first`.
fn append_some(life: &Life, first: u32, count: u32) {
    for record in first..first + count {
        if append(&*life.log, record, 3000).is_err() {
            return;
        }
    }
}

fn assert_replayed(acknowledged: &[u32], back: &[u32], case: &str) {
    let back: BTreeSet<_> = back.iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|r| !back.contains(r)).collect();
    assert!(
        lost.is_empty(),
        "W5: {case}: acknowledged and not replayed: {lost:?}"
    );
}

/// Runs `taker`'s opening up to its moment `step`, wakes the owner there for long enough to do all it can, and lets the taker go on.
async fn take_over(owner: &Owner, taker: &ModelHost, step: u64) -> (Vec<u32>, Opened, LogState) {
    let mut state = owner.state.clone();
    grant_next(&mut state);
    taker.pause_at(step);
    let log = log_on(taker);
    let granted = state.clone();
    let opening = tokio::spawn(async move { open(&log, &granted).await });
    while !taker.is_paused() && !opening.is_finished() {
        sleep(Duration::from_millis(10)).await;
    }
    owner.host.resume();
    append_some(&owner.life, 100, 2);
    sleep(SETTLED).await;
    taker.resume();
    let opened = opening.await.unwrap().unwrap();
    let at_replay = heard(&owner.life.hear);
    (at_replay, opened, state)
}

#[test]
fn an_owner_that_slept_never_acknowledges_what_its_successor_did_not_replay() {
    let (mut cases, mut fenced) = (0, 0);
    // Every moment of three appends and of the renewal that goes with them: with a segment made for each, or with hardly anything but the renewal.
    let moments = (0..36)
        .map(|n| (n, CAPACITY))
        .chain((0..24).map(|n| (n, 1 << 20)));
    for (asleep, capacity) in moments {
        for step in (0..90).step_by(if asleep % 4 == 0 { 1 } else { 7 }) {
            let case = format!(
                "{capacity}: owner asleep at its moment {asleep}, awake at the taker's {step}"
            );
            let ended = run(async {
                let directory = ModelDirectory::default();
                let owner = owner_of(&directory, capacity).await;
                owner.host.pause_at(asleep);
                append_some(&owner.life, 3, 3);
                sleep(3 * LEASE).await;
                let taker = directory.host();
                let (_, opened, mut state) = take_over(&owner, &taker, step).await;
                let back = opened.back.clone();
                let new = opened.start(&mut state).await.unwrap();
                append_some(&owner.life, 200, 1);
                append_some(&new, 300, 2);
                new.hear.until_durable(2).await;
                sleep(2 * LEASE).await;
                append_some(&owner.life, 210, 1);
                sleep(SETTLED).await;
                assert_replayed(&heard(&owner.life.hear), &back, &case);

                // Nothing that it wrote after all has touched what its successor holds.
                let (expected, last) = ([&back[..], &[300, 301]].concat(), directory.host());
                grant_next(&mut state);
                let again = open(&log_on(&last), &state).await.unwrap();
                assert_eq!(again.back, expected, "W8: {case}");
                owner.life.hear.heard().failed
            });
            match ended {
                Some(Error::Fenced { by }) => {
                    assert!(by.contains("epoch 2"), "{case}: fenced by {by}");
                    fenced += 1;
                }
                other => panic!("{case}: an owner that was taken over: {other:?}"),
            }
            cases += 1;
        }
    }
    assert!(cases > 1000 && fenced == cases, "{fenced} of {cases}");
}

#[test]
fn an_owner_that_is_awake_acknowledges_nothing_after_its_successors_scan() {
    // It appends all the time; where in the term of its lease the taker comes is tried all over.
    // Most closely around the moment at which it has just renewed.
    let coarse = (0..40).map(|phase| LEASE / 20 * phase);
    let fine = (0..40).map(|phase| LEASE / 2 + Duration::from_millis(3) * phase);
    let mut meanwhile = 0;
    for phase in coarse.chain(fine) {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let (mut state, host) = (fresh(), directory.host());
            let slower = Arc::new(RuntimeClock::slow_by(9_000));
            let log = log_of(&host, 32 << 20).with_clock(slower);
            let life = open(&log, &state).await.unwrap();
            let life = Arc::new(life.start(&mut state).await.unwrap());
            let busy = Arc::clone(&life);
            let work = tokio::spawn(async move {
                for record in 0.. {
                    if append(&*busy.log, record, 100).is_err() {
                        return;
                    }
                    let heard = busy.hear.until("durable or fenced", |h| {
                        h.failed.is_some() || h.records.len() > record as usize
                    });
                    heard.await;
                    sleep(Duration::from_millis(10)).await;
                }
            });
            sleep(phase).await;
            grant_next(&mut state);
            let first = life.hear.count();
            let opened = open(&log_of(&directory.host(), 32 << 20), &state)
                .await
                .unwrap();
            work.await.unwrap();
            sleep(SETTLED).await;
            let acknowledged = heard(&life.hear);
            meanwhile += acknowledged.len() - first;
            assert_replayed(&acknowledged, &opened.back, &format!("phase {phase:?}"));
        });
    }
    assert!(
        meanwhile > 1000,
        "{meanwhile}: a fence that ends a lease at once needs no wait"
    );
}

#[test]
fn a_quiet_owner_on_a_slow_clock_acknowledges_nothing_after_its_successors_scan() {
    // It writes once, just before it may not any more by its own clock; its successor's runs faster.
    let mut acknowledged = 0;
    for late in 0..40 {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let (mut state, host) = (fresh(), directory.host());
            let log = log_on(&host).with_clock(Arc::new(RuntimeClock::slow_by(9_000)));
            let life = open(&log, &state).await.unwrap();
            let life = life.start(&mut state).await.unwrap();
            append_some(&life, 0, 1);
            life.hear.until_durable(1).await;
            grant_next(&mut state);
            let taker = directory.host();
            let granted = state.clone();
            let opening = tokio::spawn(async move { open(&log_on(&taker), &granted).await });
            sleep(LEASE + Duration::from_millis(90) - Duration::from_millis(5 * late)).await;
            append_some(&life, 1, 1);
            sleep(SETTLED).await;
            let opened = opening.await.unwrap().unwrap();
            let heard = heard(&life.hear);
            assert_replayed(&heard, &opened.back, &format!("{late}"));
            acknowledged += heard.len() - 1;
        });
    }
    assert!(
        acknowledged > 20,
        "{acknowledged}: the owner believes in no lease"
    );
}

#[test]
fn a_taker_waits_for_every_lease_that_the_taker_before_it_waited_for() {
    run(async {
        let directory = ModelDirectory::<()>::default();
        let (mut state, host) = (fresh(), directory.host());
        let patient = Config {
            lease: 6 * LEASE,
            ..config()
        };
        let log = log_on(&host).with_config(patient);
        let life = open(&log, &state).await.unwrap();
        let life = life.start(&mut state).await.unwrap();
        let first = directory.host();
        grant_next(&mut state);
        let granted = state.clone();
        tokio::spawn(async move { open(&log_on(&first), &granted).await });
        sleep(LEASE).await;
        let before = tokio::time::Instant::now();
        grant_next(&mut state);
        let opened = open(&log_on(&directory.host()), &state).await.unwrap();
        assert!(before.elapsed() >= 6 * LEASE, "{:?}", before.elapsed());
        drop((opened, life));
    });
}

#[test]
fn a_taker_that_is_taken_over_itself_leaves_nothing_undone() {
    for step in 0..90 {
        for owner_first in [true, false] {
            for trimmed in [true, false] {
                let case = format!("first taker asleep at {step}, {owner_first}, {trimmed}");
                run(async {
                    let directory = ModelDirectory::default();
                    let mut owner = owner(&directory).await;
                    if trimmed {
                        let end = owner.life.log.durable_end();
                        owner.state.trim(end, end);
                        owner.life.log.trim(end);
                        sleep(SETTLED).await;
                    }
                    owner.host.pause_at(4);
                    append_some(&owner.life, 3, 3);
                    sleep(SETTLED).await;
                    let first = directory.host();
                    first.pause_at(step);
                    let mut state = owner.state.clone();
                    grant_next(&mut state);
                    let (log, granted) = (log_on(&first), state.clone());
                    let opening = tokio::spawn(async move { open(&log, &granted).await });
                    sleep(3 * LEASE).await;

                    // Epoch 2 was granted and never wrote.
                    grant_next(&mut state);
                    let second = open(&log_on(&directory.host()), &state).await.unwrap();
                    let back = second.back.clone();
                    if owner_first {
                        owner.host.resume();
                    }
                    first.resume();
                    owner.host.resume();
                    append_some(&owner.life, 100, 2);
                    sleep(SETTLED).await;
                    let second = second.start(&mut state).await.unwrap();
                    append_some(&second, 300, 2);
                    second.hear.until_durable(2).await;
                    sleep(2 * LEASE).await;
                    let beaten = match opening.await.unwrap() {
                        // It got the directory before it slept. Its caller could record nothing; if it starts all the same, it is told.
                        Ok(opened) => {
                            let mut unrecorded = owner.state.clone();
                            grant_next(&mut unrecorded);
                            opened.start(&mut unrecorded).await.err()
                        }
                        Err(e) => Some(e),
                    };
                    assert!(
                        matches!(&beaten, Some(Error::Fenced { by }) if by.contains("epoch 3")),
                        "{case}: {beaten:?}"
                    );
                    assert_replayed(
                        &heard(&owner.life.hear),
                        &[&[0, 1, 2], &back[..]].concat(),
                        &case,
                    );
                    let trimmed_away = trimmed && !back.is_empty() && back[0] < 3;
                    assert!(
                        !trimmed_away,
                        "{case}: what was trimmed came back: {back:?}"
                    );

                    append_some(&second, 310, 1);
                    second.hear.until_durable(3).await;
                    grant_next(&mut state);
                    let third = open(&log_on(&directory.host()), &state).await.unwrap();
                    assert_eq!(
                        third.back,
                        [&back[..], &[300, 301, 310]].concat(),
                        "W8: {case}"
                    );
                });
            }
        }
    }
}

#[test]
fn an_owner_that_slept_through_many_leases_does_not_fill_the_gap_they_left() {
    // The numbers after its own were made and removed again: the first missing one is a hole, not the end of the chain.
    for (asleep, lags) in (0..30).flat_map(|n| [(n, false), (n, true)]) {
        run(async {
            let directory = ModelDirectory::default();
            let owner = owner(&directory).await;
            // What decides is the number before its own, not a list that may show neither the gap nor what lies behind it.
            if lags {
                owner.host.lag_lists();
            }
            owner.host.pause_at(asleep);
            append_some(&owner.life, 3, 3);
            sleep(3 * LEASE).await;
            let mut state = owner.state.clone();
            let mut back = Vec::new();
            for _ in 0..3 {
                grant_next(&mut state);
                let life = open(&log_on(&directory.host()), &state).await.unwrap();
                let life = life.start(&mut state).await.unwrap();
                back.clone_from(&life.back);
                for record in 0..3 {
                    append_some(&life, 1000 * state.epoch.get() as u32 + record, 1);
                    sleep(LEASE).await;
                }
                let end = life.log.durable_end();
                state.trim(end, end);
            }
            let leases = names(&directory).await;
            let leases = leases.iter().filter(|n| n.starts_with("lease.")).count();
            assert!(leases <= 3, "{leases} lease files");
            let acknowledged = heard(&owner.life.hear).len();
            owner.host.resume();
            append_some(&owner.life, 100, 2);
            sleep(SETTLED).await;
            let heard = owner.life.hear.heard();
            assert!(
                matches!(heard.failed, Some(Error::Fenced { .. })),
                "{asleep}: {:?}",
                heard.failed
            );
            // What was durable and lay in an answer that it had not heard is no new acknowledgement, but it may not tell it any more either.
            assert_eq!(heard.records.len(), acknowledged, "{asleep}");
            assert!(back.len() < 10);
        });
    }
}

async fn names(directory: &ModelDirectory) -> Vec<String> {
    directory.host().list().await.unwrap()
}

#[test]
fn an_owner_whose_lease_ran_out_goes_on_if_nobody_took_the_directory() {
    run(async {
        let directory = ModelDirectory::default();
        let owner = owner(&directory).await;
        let before = names(&directory).await;
        sleep(100 * LEASE).await;
        assert_eq!(names(&directory).await, before, "an idle log costs nothing");
        append_some(&owner.life, 3, 3);
        owner.life.hear.until_durable(6).await;
        assert_ne!(names(&directory).await, before, "a new number");
    });
}

#[test]
fn a_link_whose_answer_was_lost_is_settled_by_the_count_of_names() {
    for (errno, parts) in [(EEXIST, 1), (EIO, 1), (EIO, 0), (ESTALE, 0)] {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let host = directory.host();
            let fault = DirectoryFault {
                operation: "link",
                after: 0,
                errno,
                parts,
            };
            // The first link is the lease of the opening, later ones a log's first superblock, a head, segments, renewals.
            for after in 0..8 {
                host.fault(DirectoryFault {
                    after,
                    ..fault.clone()
                });
            }
            let (_, life) = first_life(&host).await;
            for record in 0..6 {
                append_some(&life, record, 1);
                life.hear.until_durable(record as usize + 1).await;
                sleep(LEASE).await;
            }
            let failed = life.hear.heard().failed;
            assert!(failed.is_none(), "error {errno}, done {parts}: {failed:?}");
        });
    }
}

#[test]
fn of_two_that_race_for_a_number_one_has_it_and_the_lower_epoch_learns_by_whom() {
    for step in 0..60 {
        run(async {
            let directory = ModelDirectory::default();
            let owner = owner(&directory).await;
            let (low, high) = (directory.host(), directory.host());
            low.pause_at(step);
            let mut state = owner.state.clone();
            grant_next(&mut state);
            let (log, granted) = (log_on(&low), state.clone());
            let lower = tokio::spawn(async move { open(&log, &granted).await });
            sleep(Duration::from_millis(1)).await;
            grant_next(&mut state);
            let (log, granted) = (log_on(&high), state.clone());
            let higher = tokio::spawn(async move { open(&log, &granted).await });
            // The second one is half-way when the first one goes on.
            sleep(Duration::from_millis(step % 7)).await;
            low.resume();
            let higher = higher.await.unwrap().unwrap();
            assert_replayed(&heard(&owner.life.hear), &higher.back, "race");
            let mut unrecorded = owner.state.clone();
            grant_next(&mut unrecorded);
            let beaten = match lower.await.unwrap() {
                Ok(opened) => opened.start(&mut unrecorded).await.err(),
                Err(e) => Some(e),
            };
            assert!(
                matches!(&beaten, Some(Error::Fenced { by }) if by.contains("epoch 3")),
                "{step}: {beaten:?}"
            );
            let life = higher.start(&mut state).await.unwrap();
            append_some(&life, 300, 1);
            life.hear.until_durable(1).await;
        });
    }
}

#[test]
fn two_of_the_same_epoch_never_both_start() {
    for step in 0..60 {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let (one, two) = (directory.host(), directory.host());
            one.pause_at(step);
            let (log, granted) = (log_on(&one), fresh());
            let first = tokio::spawn(async move {
                let opened = open(&log, &granted).await?;
                opened.start(&mut granted.clone()).await
            });
            sleep(Duration::from_millis(20)).await;
            let mut state = fresh();
            let second = match open(&log_on(&two), &state).await {
                Ok(opened) => opened.start(&mut state).await,
                Err(e) => Err(e),
            };
            one.resume();
            let first = first.await.unwrap();
            if let (Ok(first), Ok(second)) = (&first, &second) {
                // One of them started first, and was fenced by the other's opening before that one could start.
                append_some(first, 1, 1);
                append_some(second, 2, 1);
                sleep(2 * LEASE).await;
                let heard = [first.hear.count(), second.hear.count()];
                assert!(heard.contains(&0), "{step}: both acknowledged: {heard:?}");
            }
            assert!(
                first.is_ok() || second.is_ok(),
                "{step}: neither started: {:?}",
                first.err()
            );
        });
    }
}

#[test]
fn a_log_that_was_closed_is_taken_without_a_wait() {
    run(async {
        let directory = ModelDirectory::default();
        let mut owner = owner(&directory).await;
        owner.life.log.close().await.unwrap();
        let before = tokio::time::Instant::now();
        grant_next(&mut owner.state);
        let opened = open(&log_on(&directory.host()), &owner.state)
            .await
            .unwrap();
        assert_eq!(opened.back, [0, 1, 2]);
        assert!(
            before.elapsed() < LEASE / 10,
            "waited {:?}",
            before.elapsed()
        );
        drop(opened);
        // And one that was not is waited for.
        sleep(SETTLED).await;
        let life = open(&log_on(&directory.host()), &owner.state)
            .await
            .unwrap();
        let life = life.start(&mut owner.state).await.unwrap();
        let before = tokio::time::Instant::now();
        grant_next(&mut owner.state);
        open(&log_on(&directory.host()), &owner.state)
            .await
            .unwrap();
        assert!(before.elapsed() >= LEASE, "waited {:?}", before.elapsed());
        drop(life);
    });
}

#[test]
fn a_lease_that_was_damaged_is_corrupt_and_not_passed_over() {
    run(async {
        let directory = ModelDirectory::default();
        let mut owner = owner(&directory).await;
        let newest = names(&directory)
            .await
            .into_iter()
            .filter(|n| n.starts_with("lease."))
            .max();
        let mut image = directory.image();
        image.damage(&newest.unwrap(), |bytes| bytes[40] ^= 1);
        directory.restore(image);
        grant_next(&mut owner.state);
        let refused = log_on(&directory.host()).open(&owner.state).await.err();
        assert!(
            matches!(refused, Some(Error::Corrupt { .. })),
            "{refused:?}"
        );
    });
}
