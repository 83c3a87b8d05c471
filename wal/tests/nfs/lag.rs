//! Looks that are older than what they are used for: a clock that counts time in which the machine slept, and lists that lag behind.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use wal::{
    Error,
    nfs::Directory,
    testing::{ModelDirectory, ModelHost, RuntimeClock},
};

use crate::support::*;

async fn newest_lease(host: &ModelHost) -> String {
    let names = host.list().await.unwrap();
    let leases = names.into_iter().filter(|n| n.starts_with("lease."));
    leases.max().unwrap()
}

#[test]
fn what_was_durable_before_the_machine_slept_is_acknowledged_after_a_new_number_and_not_before() {
    let mut slept_before_the_answer = 0;
    // The moments of one write: before it is done, and before its answer is heard.
    for asleep in 0..4 {
        run(async {
            let directory = ModelDirectory::default();
            let (mut state, host) = (fresh(), directory.host());
            let clock = RuntimeClock::default();
            let log = log_on(&host).with_clock(Arc::new(clock.clone()));
            let life = open(&log, &state).await.unwrap();
            let life = life.start(&mut state).await.unwrap();
            append(&*life.log, 0, 500).unwrap();
            life.hear.until_durable(1).await;
            sleep(SETTLED).await;
            let before = newest_lease(&directory.host()).await;
            host.pause_at(asleep);
            append(&*life.log, 1, 500).unwrap();
            sleep(SETTLED).await;
            if !host.is_paused() {
                return;
            }
            clock.slept(LEASE);
            slept_before_the_answer += 1;
            // No link is made: nothing shows that nobody took the directory.
            host.resume();
            host.pause_at(2);
            sleep(SETTLED).await;
            let made = newest_lease(&directory.host()).await > before;
            assert!(
                made || life.hear.count() == 1,
                "acknowledged without a lease"
            );
            host.resume();
            life.hear.until_durable(2).await;
            assert!(newest_lease(&directory.host()).await > before);
        });
    }
    assert!(slept_before_the_answer >= 2);
}

#[test]
fn lists_that_lag_fence_no_owner() {
    run(async {
        let directory = ModelDirectory::<()>::default();
        let host = directory.host();
        let (_, life) = first_life(&host).await;
        host.lag_lists();
        for record in 0..10 {
            append(&*life.log, record, 500).unwrap();
            life.hear.until_durable(record as usize + 1).await;
            sleep(LEASE).await;
        }
        assert!(life.hear.heard().failed.is_none());
    });
}

#[test]
fn a_taker_whose_lists_lag_is_refused_after_a_while_and_takes_nothing() {
    for renewals in [1, 2, 5] {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let host = directory.host();
            let (mut state, life) = first_life(&host).await;
            let late = directory.host();
            late.lag_lists();
            for record in 0..=renewals {
                append(&*life.log, record, 500).unwrap();
                life.hear.until_durable(record as usize + 1).await;
                sleep(LEASE).await;
            }
            grant_next(&mut state);
            let refused = open(&log_on(&late), &state).await.err();
            assert!(
                matches!(refused, Some(Error::InUse { .. })),
                "{renewals}: {refused:?}"
            );
            append(&*life.log, 50, 500).unwrap();
            life.hear.until_durable(renewals as usize + 2).await;
            let taken = open(&log_on(&directory.host()), &state).await.unwrap();
            assert_eq!(taken.back, heard(&life.hear));
        });
    }
}

#[test]
fn a_taker_whose_list_lacks_a_head_asks_for_it_by_name() {
    for rotten in [false, true] {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let (mut state, host) = (fresh(), directory.host());
            let opened = open(&log_on(&host), &state).await.unwrap();
            let late = directory.host();
            late.lag_lists();
            let life = opened.start(&mut state).await.unwrap();
            let first = append(&*life.log, 0, 500).unwrap().end;
            for record in 1..4 {
                life.hear.until_durable(record as usize).await;
                append(&*life.log, record, 500).unwrap();
            }
            life.hear.until_durable(4).await;
            // The head knows from now on what is durable, and alone does.
            state.trim(first, first);
            life.log.trim(first);
            sleep(SETTLED).await;
            if rotten {
                let mut image = directory.image();
                let names = image.contents().into_keys();
                let last = names.filter(|name| name.ends_with(".03")).max();
                image.damage(&last.unwrap(), |bytes| bytes[90] ^= 1);
                directory.restore(image);
            }
            grant_next(&mut state);
            let taken = open(&log_on(&late), &state).await;
            match taken {
                Ok(taken) if !rotten => assert_eq!(taken.back, [1, 2, 3]),
                Err(Error::Corrupt { .. }) if rotten => {}
                other => panic!("rotten: {rotten}: {:?}", other.map(|o| o.back)),
            }
        });
    }
}

#[test]
fn a_number_of_an_earlier_try_renews_nothing_where_lists_lag_and_old_numbers_stay() {
    // Nothing but the number after it tells the owner of its successor.
    let mut acknowledged = 0;
    for late in 0..40 {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let host = directory.host();
            let (mut state, life) = first_life(&host).await;
            append(&*life.log, 0, 500).unwrap();
            life.hear.until_durable(1).await;
            sleep(LEASE / 2 + SETTLED).await;
            host.lag_lists();
            // The renewal that this append asks for fails after its link.
            host.fault(refuse("open", 0, EIO));
            append(&*life.log, 1, 500).unwrap();
            life.hear.until_durable(2).await;
            sleep(SETTLED).await;

            let taker = directory.host();
            for _ in 0..10 {
                taker.fault(refuse("remove", 1, EIO));
            }
            grant_next(&mut state);
            let granted = state.clone();
            let opening = tokio::spawn(async move { open(&log_on(&taker), &granted).await });
            sleep(Duration::from_millis(300) * late).await;
            let _ = append(&*life.log, 2, 500);
            sleep(LEASE / 2).await;
            let _ = append(&*life.log, 3, 500);
            let back = opening.await.unwrap().unwrap().back;
            sleep(LEASE).await;
            let heard = heard(&life.hear);
            let lost: Vec<_> = heard.iter().filter(|r| !back.contains(r)).collect();
            assert!(lost.is_empty(), "W5: {late}: {lost:?}");
            acknowledged += heard.len() - 2;
        });
    }
    assert!(acknowledged > 5, "{acknowledged}");
}

#[test]
fn a_server_that_lost_its_power_after_a_renewal_does_not_forget_the_owner() {
    // Of the names that nothing synced any may be there or not; the owner lives on, and may believe in its lease.
    for kept in 0..256_usize {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let (mut state, host) = (fresh(), directory.host());
            // One segment for all of it: nothing else syncs the names.
            let life = open(&log_of(&host, 1 << 20), &state).await.unwrap();
            let life = life.start(&mut state).await.unwrap();
            // Two renewals: the number of the opening is removed by the second.
            for record in 0..3 {
                append(&*life.log, record, 500).unwrap();
                life.hear.until_durable(record as usize + 1).await;
                sleep(LEASE / 2 + SETTLED).await;
            }
            let image = directory.image();
            let keep = |name: usize| kept & (1 << name.min(7)) != 0;
            directory.restore(image.power_cut(&[], |_, _| true, keep));

            grant_next(&mut state);
            let taker = directory.host();
            let opening = tokio::spawn(async move { open(&log_on(&taker), &state).await });
            sleep(LEASE / 10).await;
            let _ = append(&*life.log, 3, 500);
            let back = opening.await.unwrap().unwrap().back;
            sleep(LEASE).await;
            let heard = heard(&life.hear);
            let lost: Vec<_> = heard.iter().filter(|r| !back.contains(r)).collect();
            assert!(lost.is_empty(), "W5: {kept:#b}: {lost:?}");
        });
    }
}
