//! Cases about records: that they come back, whole, in order, and from the epochs that owe them.

use bytes::Bytes;

use super::*;

pub(super) async fn a_new_log_is_blank_then_live_and_replays_nothing(storage: &impl Storage) {
    let found = storage
        .backend()
        .identify()
        .await
        .expect("a blank place can be read");
    assert_eq!(found, Found::Blank);
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    assert!(life.back.is_empty(), "a new log replays nothing");
    assert_eq!(life.log.usage().used, 0, "a new log holds nothing");
    match storage.backend().identify().await {
        Ok(found) => assert_eq!(found, Found::Live(identity())),
        // Where the place knows that someone has it.
        Err(e) => assert!(matches!(e, Error::InUse { .. }), "{e}"),
    }
    drop(life);
    assert_eq!(identify(storage).await, Found::Live(identity()));
}

pub(super) async fn records_of_every_size_replay_in_order(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let max = life.log.max_record_len();
    let mut lens = vec![
        1, 2, 3, 511, 512, 513, 4000, 4011, 4012, 4013, 4092, 4096, 4097, 65_536,
    ];
    lens.retain(|len| *len <= max);
    lens.extend([max, 1, 7]);
    let all: Vec<_> = lens
        .iter()
        .enumerate()
        .map(|(n, len)| payload(n, *len))
        .collect();
    for payload in &all {
        life.write(std::slice::from_ref(payload)).await;
    }
    let (positions, durable_end) = (life.hear.heard().records, life.log.durable_end());
    assert_eq!(
        Some(&durable_end),
        life.ends().last(),
        "durable_end is the last record's end"
    );
    let used = life.log.usage().used;
    assert_eq!(
        used,
        life.hear.heard().footprint,
        "the footprints add up to what is used"
    );
    drop(life);

    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    assert_eq!(
        payloads(&life.back),
        all.iter().map(|p| &p[..]).collect::<Vec<_>>(),
        "W1, W2, W4"
    );
    let back: Vec<_> = life.back.iter().map(|r| r.position.clone()).collect();
    let told: Vec<_> = positions.iter().map(|r| r.position.clone()).collect();
    assert_eq!(back, told, "positions survive");
    let shares: usize = life.back.iter().map(|r| r.footprint).sum();
    assert_eq!(shares as u64, used, "the shares add up to the commits");
}

pub(super) async fn impossible_records_are_refused(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    let max = life.log.max_record_len();
    let long = vec![0; max + 1];
    let refused = Hear::append(&*life.log, &[&long[..]]);
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    let refused = Hear::append(&*life.log, &[b"", b""]);
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(
        life.log.usage().used,
        0,
        "a refused append reserves nothing"
    );
    let parts: Vec<&[u8]> = vec![b"", b"ga", b"", b"thered"];
    Hear::append(&*life.log, &parts).expect("empty parts are no empty record");
    life.hear.until_durable(1).await;
    let heard = life.hear.heard();
    assert_eq!(
        heard.records.first().map(|r| r.payload.clone()),
        Some(Bytes::from_static(b"gathered"))
    );
}

pub(super) async fn a_replay_can_be_repeated_and_changes_nothing(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&(0..20).map(|n| payload(n, 100 + n)).collect::<Vec<_>>())
        .await;
    drop(life);
    grant_next(&mut state);
    let mut replay = open(storage, &state).await.expect("the log opens");
    let first = replay_all(&mut *replay).await;
    replay.rewind().await.expect("a rewind");
    assert_eq!(
        replay_all(&mut *replay).await,
        first,
        "a second pass gives the same"
    );
    let (ends, start) = (replay.ends().to_vec(), replay.start_position());
    drop(replay);
    // A crash before anything was recorded: the same state must give the same again (W8).
    let mut replay = open(storage, &state)
        .await
        .expect("the log opens with the same state");
    assert_eq!(
        replay_all(&mut *replay).await,
        first,
        "W8: the second opening replays the same"
    );
    assert_eq!(
        (replay.ends().to_vec(), replay.start_position()),
        (ends, start),
        "W8"
    );
}

pub(super) async fn a_sealed_epoch_replays_exactly_and_before_the_next(storage: &impl Storage) {
    let mut state = fresh();
    let mut expected = Vec::new();
    for life_no in 0..4_usize {
        let life = live(storage, &mut state).await;
        assert_eq!(
            payloads(&life.back),
            expected
                .iter()
                .map(|p: &Vec<u8>| &p[..])
                .collect::<Vec<_>>(),
            "W8"
        );
        let epochs: Vec<_> = life.back.iter().map(|r| r.epoch.get()).collect();
        let written: Vec<_> = (1..=life_no as u64)
            .flat_map(|e| vec![e; e as usize])
            .collect();
        assert_eq!(
            epochs, written,
            "each record carries the epoch that wrote it"
        );
        let new: Vec<_> = (0..=life_no)
            .map(|n| payload(life_no * 10 + n, 3000))
            .collect();
        life.write(&new).await;
        expected.extend(new);
        grant_next(&mut state);
    }
    let sealed: Vec<_> = state.owed.iter().map(|e| e.sealed_end).collect();
    let replay = open(storage, &state).await.expect("the log opens");
    for (end, sealed) in replay.ends().iter().zip(sealed) {
        assert!(
            sealed.is_none_or(|sealed| sealed == end.end),
            "W8: a seal never moves"
        );
    }
}

pub(super) async fn an_epoch_that_was_never_started_is_skipped(storage: &impl Storage) {
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    life.write(&[payload(1, 10)]).await;
    drop(life);
    grant_next(&mut state);
    let replay = open(storage, &state).await.expect("the log opens");
    drop(replay);
    // The granted epoch is listed as owed, and was never started.
    let mut owed = state.owed.clone();
    owed.push(crate::EpochState {
        epoch: state.epoch,
        trim: Position::default(),
        durable_end: Position::default(),
        sealed_end: None,
        started: false,
    });
    let state = LogState {
        owed,
        epoch: LogEpoch::new(9),
        ..state
    };
    let mut replay = open(storage, &state)
        .await
        .expect("the log opens past an unstarted epoch");
    assert_eq!(replay.ends().len(), 1, "an end per started epoch");
    assert_eq!(
        payloads(&replay_all(&mut *replay).await),
        [&payload(1, 10)[..]]
    );
}

pub(super) async fn a_start_that_was_recorded_and_not_made_is_no_missing_log(
    storage: &impl Storage,
) {
    let mut state = fresh();
    // Twice: a new log, and one that died like this before.
    for _ in 0..2 {
        let replay = open(storage, &state).await.expect("a new log opens");
        state.begin(replay.ends(), replay.start_position());
        drop(replay);
        grant_next(&mut state);
    }
    let life = live(storage, &mut state).await;
    assert!(life.back.is_empty(), "nothing was ever appended");
    life.write(&[payload(1, 10)]).await;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    assert_eq!(payloads(&life.back), [&payload(1, 10)[..]]);
}

pub(super) async fn appends_of_many_threads_keep_each_threads_order(storage: &impl Storage) {
    const THREADS: u32 = 4;
    const EACH: u32 = 200;
    let mut state = fresh();
    let life = live(storage, &mut state).await;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &life.log;
            scope.spawn(move || {
                for n in 0..EACH {
                    let name = [thread.to_be_bytes(), n.to_be_bytes()].concat();
                    let filler = vec![n as u8; (n as usize * 37) % 900];
                    Hear::append(&**log, &[&name, &filler]).expect("an append with room");
                }
            });
        }
    });
    life.hear.until_durable((THREADS * EACH) as usize).await;
    let durable = life.hear.heard().records;
    drop(life);
    grant_next(&mut state);
    let life = live(storage, &mut state).await;
    let told: Vec<_> = durable.iter().map(|r| &r.payload[..]).collect();
    assert_eq!(
        payloads(&life.back),
        told,
        "W1: what was acknowledged replays in its order"
    );
    let mut next = [0_u32; THREADS as usize];
    for payload in told {
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("4 bytes"));
        let thread = word(0) as usize;
        assert_eq!(
            word(4),
            next[thread],
            "W1: the order of calls of thread {thread}"
        );
        next[thread] += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
}
