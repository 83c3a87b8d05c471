//! Vectors of transactions: aborted data, markers and what readers of committed data are told.

use super::*;

async fn told(log: &KafkaLog) -> Vec<(i64, i64)> {
    let start = log.offsets().log_start;
    let read = log.read(start, 1 << 20, true, COMMITTED).await.unwrap();
    let told = read.aborted.unwrap();
    let told = told.iter().map(|txn| (txn.producer_id, txn.first_offset));
    told.collect()
}

#[tokio::test]
async fn vector_133_two_transactions_interleaved() {
    let world = World::new().await;
    let log = new_log(&world).await;
    let mut senders = Senders::default();
    senders
        .send_in_txn(&log, 1, &[("1", "a"), ("2", "a")])
        .await;
    senders
        .send_in_txn(&log, 2, &[("2", "b"), ("3", "b")])
        .await;
    senders
        .send_in_txn(&log, 1, &[("3", "c"), ("4", "c")])
        .await;
    end_txn(&log, 1, false).await;
    end_txn(&log, 2, true).await;
    senders.send_in_txn(&log, 1, &[("2", "d")]).await;
    end_txn(&log, 1, true).await;
    log.roll().unwrap();
    let before = told(&log).await;
    assert_eq!(before, [(1, 0)]);
    compact(&log).await;
    assert_eq!(keys(&log).await, "3 2");
    assert_eq!(offsets(&log).await, [3, 6, 7, 8, 9]);
    assert_eq!(told(&log).await, before);
    let committed = View::of(&log, COMMITTED).await;
    assert_eq!(committed.data().count(), 2);
}

#[tokio::test]
async fn vector_134_aborted_data_goes_then_its_entry_then_its_marker() {
    let mut world = World::new().await;
    let mut log = new_log(&world).await;
    let mut senders = Senders::default();
    for id in [1, 2] {
        senders
            .send_in_txn(&log, id, &[("1", "a"), ("2", "a")])
            .await;
        end_txn(&log, id, false).await;
        log.roll().unwrap();
    }
    // Nobody's last batches.
    for id in [1, 2] {
        senders.send_in_txn(&log, id, &[("3", "b")]).await;
        end_txn(&log, id, true).await;
    }
    log.roll().unwrap();
    let data = [6, 7, 8, 9];
    let passes = [
        // Data and entries.
        (NOW, vec![2, 5], vec![(1, 0), (2, 3)]),
        (NOW + 1, vec![2, 5], Vec::new()),
        (NOW + RETENTION_MS, vec![2, 5], Vec::new()),
        (NOW + RETENTION_MS + 1, Vec::new(), Vec::new()),
    ];
    for (now_ms, markers, entries) in passes {
        let mut small = compactor(4);
        log.compact(&mut small, now_ms).await.unwrap();
        for reload in [false, true] {
            if reload {
                drop(log);
                world.crash().await;
                log = new_log(&world).await;
            }
            let kept = offsets(&log).await;
            let kept = kept.into_iter().filter(|offset| *offset < 6);
            assert_eq!(kept.collect::<Vec<_>>(), markers, "{now_ms} {reload}");
            assert_eq!(told(&log).await, entries, "{now_ms} {reload}");
            let committed = View::of(&log, COMMITTED).await;
            let seen: Vec<i64> = committed
                .records()
                .map(|record| record.offset)
                .filter(|offset| *offset >= 6)
                .collect();
            // Key 3 of the first was written again by the second.
            assert_eq!(seen, data[1..], "{now_ms} {reload}");
        }
    }
}

#[tokio::test]
async fn vector_135_a_commit_marker_stays_while_its_records_do_and_for_its_time() {
    let world = World::new().await;
    let log = new_log(&world).await;
    let mut senders = Senders::default();
    senders.send_in_txn(&log, 1, &[("1", "a")]).await;
    end_txn(&log, 1, true).await;
    log.roll().unwrap();
    // Not its last batch any more.
    senders.send(&log, 1, &[("2", "b")]).await;
    log.roll().unwrap();
    compact(&log).await;
    assert_eq!(offsets(&log).await, [0, 1, 2]);
    put_keyed(&log, &[("1", "c")]).await;
    log.roll().unwrap();
    let passes = [
        (NOW, vec![1, 2, 3]),
        (NOW, vec![1, 2, 3]),
        (NOW + RETENTION_MS - 1, vec![1, 2, 3]),
        (NOW + RETENTION_MS, vec![2, 3]),
    ];
    for (now_ms, kept) in passes {
        compact_at(&log, now_ms).await;
        assert_eq!(offsets(&log).await, kept, "{now_ms}");
    }
}

#[tokio::test]
async fn vector_136_data_and_marker_in_different_segments() {
    for commit in [true, false] {
        let mut world = World::new().await;
        let log = new_log(&world).await;
        let mut senders = Senders::default();
        senders.send_in_txn(&log, 1, &[("1", "a")]).await;
        log.roll().unwrap();
        end_txn(&log, 1, commit).await;
        log.roll().unwrap();
        put_keyed(&log, &[("2", "b")]).await;
        log.roll().unwrap();
        let before = log.active_producers();
        for pass in 0..4 {
            compact_at(&log, NOW + pass * 10 * RETENTION_MS).await;
            let view = View::of(&log, HW).await;
            let bases = view.batches.iter().map(|batch| batch.header.base_offset);
            assert_eq!(bases.collect::<Vec<_>>(), [0, 1, 2]);
            let first = if commit { 1 } else { 0 };
            assert_eq!(view.batches[0].records.len(), first);
            let committed = View::of(&log, COMMITTED).await;
            assert_eq!(committed.data().count(), 1 + first);
        }
        assert_eq!(log.active_producers(), before);
        drop(log);
        world.crash().await;
        assert_eq!(new_log(&world).await.active_producers(), before);
    }
}

#[tokio::test]
async fn vectors_137_and_138_the_last_batch_of_a_producer_stays_until_it_writes_again() {
    let mut world = World::new().await;
    let mut log = new_log(&world).await;
    let mut senders = Senders::default();
    senders.send(&log, 1, &[("1", "a"), ("2", "a")]).await;
    // A transaction without a batch here.
    end_txn(&log, 2, true).await;
    put_keyed(&log, &[("1", "b"), ("2", "b")]).await;
    log.roll().unwrap();
    let before = log.active_producers();
    for pass in 0..3 {
        compact_at(&log, NOW + pass * RETENTION_MS).await;
        let view = View::of(&log, HW).await;
        let sizes = view.batches.iter().map(|batch| batch.bytes.len());
        let sizes: Vec<usize> = sizes.collect();
        assert_eq!((sizes.len(), sizes[0]), (3, 61));
        assert_eq!(
            view.batches[1].records.len(),
            usize::from(pass == 0),
            "{pass}"
        );
        assert_eq!(log.active_producers(), before);
        drop(log);
        world.crash().await;
        log = new_log(&world).await;
        assert_eq!(log.active_producers(), before);
    }
    senders.send(&log, 1, &[("3", "c")]).await;
    end_txn(&log, 2, true).await;
    log.roll().unwrap();
    compact_at(&log, NOW + 3 * RETENTION_MS).await;
    let view = View::of(&log, HW).await;
    let bases = view.batches.iter().map(|batch| batch.header.base_offset);
    assert_eq!(bases.collect::<Vec<_>>(), [3, 5, 6]);
}

#[tokio::test]
async fn what_is_committed_after_an_abort_of_which_nothing_is_left_is_seen() {
    // A reader that is told of an aborted transaction whose marker is gone would leave out what follows.
    let mut world = World::new().await;
    let mut log = new_log(&world).await;
    let mut senders = Senders::default();
    senders.send_in_txn(&log, 1, &[("1", "a")]).await;
    end_txn(&log, 1, false).await;
    senders.send_in_txn(&log, 1, &[("2", "b")]).await;
    end_txn(&log, 1, true).await;
    log.roll().unwrap();
    for pass in 0..4 {
        compact_at(&log, NOW + pass * RETENTION_MS).await;
        for _ in 0..2 {
            for from in 0..4 {
                let seen = View::from(&log, from, 1 << 20, COMMITTED).await;
                let seen: Vec<i64> = seen.data().map(|record| record.offset).collect();
                assert_eq!(seen, (from..3).filter(|at| *at == 2).collect::<Vec<_>>());
            }
            drop(log);
            world.crash().await;
            log = new_log(&world).await;
        }
    }
    assert_eq!(offsets(&log).await, [2, 3]);
}

#[tokio::test]
async fn lesson_11_a_producer_goes_on_over_compaction_and_take_overs() {
    let mut world = World::new().await;
    let mut log = new_log(&world).await;
    let mut senders = Senders::default();
    let mut committed = Vec::new();
    for round in 0..6 {
        let value = round.to_string();
        let sent = senders.next(1, &[("a", &value), ("b", &value)]);
        let batch = sent.transactional().build().unwrap();
        let first = put(&log, batch.clone()).await;
        assert!(!first.duplicate, "{round}");
        let commits = round % 2 == 0;
        end_txn(&log, 1, commits).await;
        if commits {
            committed = vec![first.first_offset, first.last_offset];
        }
        log.roll().unwrap();
        compact_at(&log, NOW + round * RETENTION_MS / 2).await;
        // Another process takes the streams over, and the client sends again what it had no answer to.
        let held = world.take_over().await;
        log = new_log(&world).await;
        let again = put(&log, batch).await;
        assert_eq!(
            (again.duplicate, again.first_offset),
            (true, first.first_offset)
        );
        drop(held);
        let seen = View::of(&log, COMMITTED).await;
        let seen: Vec<i64> = seen.data().map(|record| record.offset).collect();
        assert_eq!(
            seen, committed,
            "all of the last that was committed, nothing of what was not"
        );
    }
    let gap = keyed(&[("a", "x")]).producer(1, 0, 13).build().unwrap();
    assert_eq!(refused(&log, gap).code(), 45);
}
