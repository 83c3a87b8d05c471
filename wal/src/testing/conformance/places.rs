//! Cases about places: trims, room, closing, refusals, and who may have them.

use super::*;

pub(super) async fn a_trimmed_record_stays_away_and_the_rest_comes_back(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let all: Vec<_> = (0..60).map(|n| payload(n, 1 + n * 97)).collect();
    life.write(&all).await;
    let ends = life.ends();
    for keep_from in [1, 25, 26, 59] {
        let to = ends[keep_from - 1];
        state.trim(to, life.log.durable_end());
        life.log.trim(to);
        life.log.trim(ends[0]); // lower: ignored (W7)
    }
    life.write(&[payload(60, 5)]).await;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let floor = ends[58];
    let back: Vec<_> = life
        .back
        .iter()
        .filter(|r| r.position.end > floor)
        .collect();
    assert_eq!(back.len(), 2, "W2: two records are above the trim");
    assert_eq!(&back[0].payload[..], &all[59][..]);
    assert_eq!(&back[1].payload[..], &payload(60, 5)[..]);

    // A trim of everything, past the end: it counts as the durable end.
    let end = life.log.durable_end();
    state.trim(end, end);
    life.log.trim(Position::new(u64::MAX));
    life.write(&[payload(61, 5)]).await;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let last = life
        .back
        .last()
        .expect("W2: what came after the trim is there");
    assert_eq!(&last.payload[..], &payload(61, 5)[..]);
}

/// S9: whoever asks for room first is not refused, up to the last byte.
pub(super) async fn a_log_takes_what_it_says_that_it_has_room_for(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let log = &*life.log;
    if log.usage().capacity > FILL_BYTES_MAX {
        return;
    }
    let admitted = |most: usize| {
        let fits = |len: &usize| log.usage().admits(0, *len as u64);
        (1..=most.min(log.max_record_len())).rev().find(fits)
    };
    let (mut appended, mut filled) = (0, 0);
    while filled < 3 {
        let most = [usize::MAX, 3_000, 1, 17, 100_000][appended % 5];
        if let Some(len) = admitted(most) {
            let append = Hear::append(log, &[&payload(appended, len)]);
            append.unwrap_or_else(|error| panic!("S9: a record of {len} bytes: {error}"));
            appended += 1;
            continue;
        }
        // Perhaps only until what waits is written.
        life.hear.until_durable(appended).await;
        if admitted(1).is_some() {
            continue;
        }
        filled += 1;
        let end = log.durable_end();
        state.trim(end, end);
        log.trim(end);
        let room = |_: &_| admitted(1).is_some();
        life.hear.until("room", room).await;
    }
}

pub(super) async fn a_full_log_takes_appends_again_after_a_trim(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let capacity = life.log.usage().capacity;
    if capacity > FILL_BYTES_MAX {
        return;
    }
    let len = life.log.max_record_len().min(50_000);
    let mut appended = 0;
    for lap in 1..=3 {
        loop {
            match Hear::append(&*life.log, &[&payload(appended, len)]) {
                Ok(_) => appended += 1,
                Err(Error::Full { needed, free }) => {
                    assert!(
                        needed > free,
                        "full with {free} bytes free and {needed} needed"
                    );
                    if life.hear.count() == appended {
                        break;
                    }
                    // Bytes on their way to the storage are bounded too: they become room as they become durable.
                    life.hear.until_durable(appended).await;
                }
                Err(e) => panic!("{e}"),
            }
            assert!(life.log.usage().used <= capacity, "more used than there is");
        }
        life.hear.until_durable(appended).await;
        assert!(
            life.log.usage().used > capacity / 2,
            "full while half empty"
        );
        let ends = life.ends();
        let (to, before) = (ends[appended - 3], life.log.usage().used);
        let rooms = life.hear.heard().rooms;
        state.trim(to, life.log.durable_end());
        life.log.trim(to);
        life.hear
            .until(&format!("room in lap {lap}"), |h| h.rooms > rooms)
            .await;
        // A room that was still on its way from before the trim may have been heard.
        for _ in 0..1000 {
            if life.log.usage().used < before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(life.log.usage().used < before, "a trim gives space back");
    }
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let wanted: Vec<_> = (appended - 2..appended).map(|n| payload(n, len)).collect();
    let floor = state.owed.first().map(|e| e.trim).expect("an owed epoch");
    let back: Vec<_> = life
        .back
        .iter()
        .filter(|r| r.position.end > floor)
        .cloned()
        .collect();
    assert_eq!(
        payloads(&back),
        wanted.iter().map(|p| &p[..]).collect::<Vec<_>>(),
        "W2 after laps"
    );
}

pub(super) async fn a_log_that_owes_nothing_closes_and_can_be_made_anew(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10), payload(2, 9000)]).await;
    let end = life.log.durable_end();
    life.log.trim(end);
    life.log.close().await.expect("a close");
    life.log.close().await.expect("a second close does nothing");
    let refused = Hear::append(&*life.log, &[b"late"]);
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    // The closed log is still held by someone: exclusive use ended all the same.
    let found = storage
        .backend()
        .identify()
        .await
        .expect("a closed log can be read");
    assert_eq!(found, Found::Closed(identity()));

    let mut resumed = LogState::new(identity(), LogEpoch::new(2));
    let second = live(storage, &mut resumed).await;
    assert!(second.back.is_empty(), "a retired epoch does not replay");
    let start = resumed
        .owed
        .first()
        .map(|e| e.trim)
        .expect("the new epoch is owed");
    assert!(start >= end, "positions go on in the same log");
    second.write(&[payload(3, 10)]).await;
    second.log.trim(second.log.durable_end());
    second.log.close().await.expect("a close");

    let other = Identity {
        log: LogUuid::new(99),
        ..identity()
    };
    let mut anew = LogState::new(other.clone(), LogEpoch::new(3));
    let third = live(storage, &mut anew).await;
    assert!(third.back.is_empty(), "another log's records do not replay");
    third.write(&[payload(4, 10)]).await;
    drop(third);
    assert_eq!(identify(storage).await, Found::Live(other));
    grant_next(&mut anew);
    let fourth = live(storage, &mut anew).await;
    assert_eq!(payloads(&fourth.back), [&payload(4, 10)[..]]);
}

pub(super) async fn a_log_that_owes_closes_and_comes_back(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    // Not awaited: a close waits for what is in flight.
    let all: Vec<_> = (0..50).map(|n| payload(n, 700)).collect();
    for payload in &all {
        Hear::append(&*life.log, &[payload]).expect("an append with room");
    }
    life.log.close().await.expect("a close");
    assert_eq!(
        life.hear.count(),
        all.len(),
        "a close waits for the last delivery"
    );
    assert_eq!(
        identify(storage).await,
        Found::Live(identity()),
        "what owes is not closed for good"
    );
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    assert_eq!(
        payloads(&life.back),
        all.iter().map(|p| &p[..]).collect::<Vec<_>>()
    );
}

pub(super) async fn a_place_that_does_not_fit_the_state_is_refused(storage: &impl Storage) {
    let mut state = fresh();
    let mut blank = state.clone();
    blank.begin(&[], Position::default());
    grant_next(&mut blank);
    let refused = open(storage, &blank).await.err();
    assert!(
        matches!(refused, Some(Error::Missing { .. })),
        "blank though started: {refused:?}"
    );

    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10)]).await;
    drop(life);
    grant_next(&mut state);
    let mut forgetful = state.clone();
    forgetful.owed.clear();
    let refused = open(storage, &forgetful).await.err();
    assert!(
        matches!(refused, Some(Error::NotNew { .. })),
        "not new: {refused:?}"
    );
    for other in [
        Identity {
            cluster: 12,
            ..identity()
        },
        Identity {
            log: LogUuid::new(23),
            ..identity()
        },
        Identity {
            node: 34,
            ..identity()
        },
    ] {
        let foreign = LogState {
            identity: other,
            ..state.clone()
        };
        let refused = open(storage, &foreign).await.err();
        assert!(
            matches!(refused, Some(Error::Mismatch { .. })),
            "foreign: {refused:?}"
        );
    }
    let late = LogState {
        epoch: LogEpoch::new(1),
        owed: Vec::new(),
        ..state.clone()
    };
    let refused = open(storage, &late).await.err();
    assert!(
        refused.is_some(),
        "an epoch that was started is not started again"
    );
    let broken = LogState {
        epoch: LogEpoch::new(0),
        ..state.clone()
    };
    let refused = open(storage, &broken).await.err();
    assert!(
        matches!(refused, Some(Error::Invalid(_))),
        "out of order: {refused:?}"
    );

    let life = live(storage, &mut state).await;
    assert_eq!(
        payloads(&life.back),
        [&payload(1, 10)[..]],
        "a refusal changes nothing"
    );
}

pub(super) async fn what_the_state_knows_to_be_durable_may_not_be_missing(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10)]).await;
    let end = life.log.durable_end();
    drop(life);
    grant_next(&mut state);
    let far = Position::new(end.get() + 100_000);
    for sealed in [None, Some(far)] {
        let mut wrong = state.clone();
        if let Some(owed) = wrong.owed.first_mut() {
            owed.durable_end = far;
            owed.sealed_end = sealed;
        }
        let refused = open(storage, &wrong).await.err();
        assert!(
            matches!(refused, Some(Error::Corrupt { .. })),
            "F2: {refused:?}"
        );
    }
}

pub(super) async fn two_owners_never_both_acknowledge(storage: &impl Storage) {
    let mut state = fresh();
    let first = live(storage, &mut state).await;
    first.write(&[payload(1, 10)]).await;
    grant_next(&mut state);
    let replay = match storage.backend().open(&state).await {
        Err(Error::InUse { .. }) => {
            first.write(&[payload(2, 10)]).await;
            return;
        }
        Err(e) => panic!("a second owner: {e}"),
        Ok(replay) => replay,
    };
    // Whoever lets the second one in must have fenced the first (W5).
    let acknowledged = first.hear.count();
    let refused = Hear::append(&*first.log, &[&payload(2, 10)]);
    if refused.is_ok() {
        first
            .hear
            .until("the failure of a fenced log", |h| h.failed.is_some())
            .await;
    }
    assert_eq!(
        first.hear.count(),
        acknowledged,
        "W5: acknowledged after the fence"
    );
    let refused = Hear::append(&*first.log, &[&payload(3, 10)]);
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    drop(replay);
}
