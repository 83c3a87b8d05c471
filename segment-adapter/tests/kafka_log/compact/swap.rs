//! The swap: what is given up, what a crash in the middle leaves, and who may come in between.

use std::time::Duration;

use futures::poll;

use super::*;

/// Segments with one record each of these keys.
async fn fill(log: &KafkaLog, rounds: usize, keys: &[&str]) {
    for round in 0..rounds {
        for key in keys {
            put_keyed(log, &[(key, &round.to_string())]).await;
        }
        log.roll().unwrap();
    }
}

/// Polls a pass until it waits for what is held.
async fn begin(pass: &mut std::pin::Pin<Box<impl Future<Output = Result<Compacted, LogError>>>>) {
    for _ in 0..100 {
        assert!(poll!(pass.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn lesson_25_the_metadata_of_a_swap_is_one_small_record() {
    let world = World::new().await;
    let log = new_log(&world).await;
    fill(&log, 40, &["a", "b"]).await;
    let meta = world.streams().await.swap_remove(1);
    let before = meta.next();
    compact(&log).await;
    let written = meta.fetch(before, 1 << 20).await.unwrap().records;
    // The swap, and an edit that waits for those before it.
    assert_eq!(written.len(), 2);
    let bytes: usize = written.iter().map(|record| record.payload.len()).sum();
    assert!(bytes < 300, "{bytes}");
}

#[tokio::test]
async fn a_crash_between_what_was_written_and_the_swap_changes_nothing_and_costs_no_space_for_long()
{
    for retention_comes_first in [false, true] {
        let mut world = World::new().await;
        let log = new_log(&world).await;
        fill(&log, 3, &["a", "b"]).await;
        let before = View::of(&log, HW).await;
        world.hold();
        {
            let mut small = compactor(10);
            let mut pass = Box::pin(log.compact(&mut small, NOW));
            begin(&mut pass).await;
            // What it wrote becomes durable, and it ends before it can go on.
            world.release();
        }
        log.roll().unwrap();
        put_keyed(&log, &[("c", "1")]).await;
        let compacted = world.streams().await.pop().unwrap();
        assert_eq!(compacted.confirm(), 6, "it was written");
        drop(log);
        world.crash().await;
        let log = new_log(&world).await;
        let compacted = world.streams().await.pop().unwrap();
        assert_eq!((compacted.start(), compacted.confirm()), (0, 6));
        let after = View::of(&log, HW).await;
        assert_eq!(after.batches[..6], before.batches);
        if retention_comes_first {
            log.delete_old_segments(NOW).await.unwrap();
            assert_eq!(compacted.start(), 6);
        }
        compact(&log).await;
        assert_eq!(compacted.start(), 6, "what was written in vain is gone");
        assert_eq!(offsets(&log).await, [4, 5, 6]);
        log.delete_old_segments(NOW).await.unwrap();
        assert_eq!(compacted.start(), 6, "what is named stays");
    }
}

#[tokio::test]
async fn passes_leave_one_copy_of_what_is_kept_in_the_streams() {
    let world = World::new().await;
    let log = new_log(&world).await;
    let mut end = 0;
    for _ in 0..5 {
        fill(&log, 3, &["a", "b", "c"]).await;
        compact(&log).await;
        end += 9;
        let streams = world.streams().await;
        assert_eq!(
            streams[0].start(),
            end,
            "nothing sealed is in the data stream"
        );
        let left = streams[2].next() - streams[2].start();
        assert_eq!(left, end, "the offsets of one segment");
        assert_eq!(offsets(&log).await.len(), 3);
        assert_eq!(log.segment_count(), 2);
    }
}

/// A pass whose caller goes away when its batches are durable and its edit is on its way, and held.
async fn drop_in_swap(world: &World, log: &KafkaLog) {
    world.hold();
    let mut small = compactor(10);
    let mut pass = Box::pin(log.compact(&mut small, NOW));
    begin(&mut pass).await;
    world.release();
    while world.streams().await[2].confirm() < world.streams().await[2].next() {
        tokio::task::yield_now().await;
    }
    world.hold();
    begin(&mut pass).await;
}

#[tokio::test]
async fn a_swap_that_is_not_durable_is_not_seen_and_takes_effect_without_its_caller() {
    let mut world = World::new().await;
    for crashes in [true, false] {
        let log = new_log(&world).await;
        let base = log.offsets().leo;
        fill(&log, 2, &["a"]).await;
        let both = View::of(&log, HW).await;
        drop_in_swap(&world, &log).await;
        assert_eq!(View::of(&log, HW).await, both);
        if crashes {
            drop(log);
            world.crash().await;
            world.release();
            let log = new_log(&world).await;
            assert_eq!(View::of(&log, HW).await, both);
            compact(&log).await;
        } else {
            world.release();
            put_keyed(&log, &[("z", "1")]).await;
            assert_eq!(offsets(&log).await, [base + 1, base + 2]);
        }
    }
}

/// Retention gives up what nothing names of the third stream: not what the edit names that is on its way.
#[tokio::test]
async fn a_swap_whose_caller_went_away_loses_nothing_to_retention() {
    let mut world = World::new().await;
    let log = new_log(&world).await;
    fill(&log, 2, &["a"]).await;
    drop_in_swap(&world, &log).await;
    let retained = log.clone();
    let retention = tokio::spawn(async move { retained.delete_old_segments(NOW).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.release();
    retention.await.unwrap().unwrap();
    put_keyed(&log, &[("z", "1")]).await;
    assert_eq!(offsets(&log).await, [1, 2]);
    drop(log);
    world.crash().await;
    let log = new_log(&world).await;
    assert_eq!(offsets(&log).await, [1, 2]);
}

#[tokio::test]
async fn a_cut_ends_a_pass_and_what_was_cleaned_above_it_is_dirty_again() {
    let world = World::new().await;
    let log = new_log(&world).await;
    fill(&log, 3, &["a", "b"]).await;
    world.hold();
    let mut small = compactor(10);
    let mut pass = Box::pin(log.compact(&mut small, NOW));
    begin(&mut pass).await;
    world.release();
    assert!(log.truncate_to(5).await.unwrap());
    let done = pass.await.unwrap();
    assert!(!done.finished);
    assert_eq!(offsets(&log).await, [0, 1, 2, 3, 4]);
    log.roll().unwrap();
    assert_eq!(compact(&log).await.cleaned, 5);
    assert_eq!(offsets(&log).await, [3, 4]);
    // Within a gap, below what is clean.
    assert!(log.truncate_to(4).await.unwrap());
    assert_eq!(offsets(&log).await, [3]);
    assert_eq!(compact(&log).await.cleaned, 4);
    assert!(log.truncate_to(1).await.unwrap());
    assert_eq!(offsets(&log).await, Vec::<i64>::new());
    assert_eq!(log.offsets().leo, 1);
    assert_eq!(put_keyed(&log, &[("c", "1")]).await.first_offset, 1);
    log.roll().unwrap();
    compact(&log).await;
    assert_eq!(offsets(&log).await, [1]);
}

#[tokio::test]
async fn retention_during_a_pass_is_not_held_up_by_it() {
    let world = World::new().await;
    let both = LogConfig {
        delete: true,
        ..compacted()
    };
    let log = open_with(&world, both).await;
    fill(&log, 3, &["a", "b"]).await;
    let mut small = compactor(10);
    let mut pass = Box::pin(log.compact(&mut small, NOW));
    assert!(poll!(pass.as_mut()).is_pending());
    assert_eq!(log.delete_records(3).await.unwrap(), 3);
    log.delete_old_segments(NOW).await.unwrap();
    let done = pass.await.unwrap();
    assert!(!done.finished, "its first segment is gone");
    assert_eq!(offsets(&log).await, [3, 4, 5]);
    assert!(compact(&log).await.finished);
    assert_eq!(offsets(&log).await, [4, 5]);
    assert_eq!(log.offsets().log_start, 3);
}

#[tokio::test]
async fn a_log_that_was_opened_anew_during_a_pass_is_not_disturbed_by_it() {
    let world = World::new().await;
    let old = new_log(&world).await;
    fill(&old, 3, &["a", "b"]).await;
    let mut small = compactor(10);
    let mut pass = Box::pin(old.compact(&mut small, NOW));
    assert!(poll!(pass.as_mut()).is_pending());
    let log = world.open_again(compacted()).await;
    let mut other = compactor(10);
    let mut second = Box::pin(log.compact(&mut other, NOW));
    let (first, second) = futures::join!(&mut pass, &mut second);
    // Whoever finds somebody else's batches among its own gives up.
    for done in [first, second] {
        let _either = done.map(|done| done.finished);
    }
    let log = world.open_again(compacted()).await;
    compact(&log).await;
    assert_eq!(offsets(&log).await, [4, 5]);
}

#[tokio::test]
async fn somebody_elses_batches_among_its_own_end_a_pass() {
    let mut world = World::new().await;
    let log = new_log(&world).await;
    let large = "v".repeat(700 << 10);
    for key in ["a", "b", "a"] {
        put_keyed(&log, &[(key, &large)]).await;
    }
    log.roll().unwrap();
    let compacted = world.streams().await.pop().unwrap();
    let mut small = compactor(10);
    let mut pass = Box::pin(log.compact(&mut small, NOW));
    while compacted.next() == 0 {
        assert!(poll!(pass.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    compacted.append(5, &[b"foreign"]).unwrap().await.unwrap();
    assert!(!pass.await.unwrap().finished);
    assert_eq!(offsets(&log).await, [0, 1, 2]);
    compact(&log).await;
    assert_eq!(offsets(&log).await, [1, 2]);
    drop(log);
    world.crash().await;
    assert_eq!(offsets(&new_log(&world).await).await, [1, 2]);
}

#[tokio::test]
async fn a_reader_that_a_swap_overtakes_reads_what_took_its_place() {
    let mut world = World::new().await;
    let log = new_log(&world).await;
    fill(&log, 3, &["a", "b"]).await;
    log.close().await.unwrap();
    drop(log);
    world.leave_only_the_bucket().await;
    let log = new_log(&world).await;
    world.slow_reads(Duration::from_millis(200));
    let mut read = Box::pin(log.read(0, 1 << 20, true, HW));
    assert!(poll!(read.as_mut()).is_pending());
    compact(&log).await;
    compact(&log).await;
    let read = batches(&read.await.unwrap());
    let bases: Vec<i64> = read
        .iter()
        .map(|batch| batch.header().base_offset)
        .collect();
    eprintln!(
        "{bases:?} {:?}",
        world
            .streams()
            .await
            .iter()
            .map(|s| s.start())
            .collect::<Vec<_>>()
    );
    // As it was, or as it is; nothing in between.
    assert!(
        bases == [0, 1, 2, 3, 4, 5] || bases == [0, 1] || bases == [4, 5],
        "{bases:?}"
    );
}

#[tokio::test]
async fn a_damaged_batch_makes_its_log_uncleanable_and_no_other() {
    let world = World::new().await;
    let log = new_log(&world).await;
    let other_world = World::new().await;
    let other = new_log(&other_world).await;
    fill(&other, 2, &["a"]).await;
    put_keyed(&log, &[("a", "1")]).await;
    // A follower takes what has the right checksum; its records are not what it says.
    let mut damaged = keyed(&[("b", "1")]).build().unwrap().to_vec();
    damaged[..8].copy_from_slice(&1i64.to_be_bytes());
    damaged[57..61].copy_from_slice(&7i32.to_be_bytes());
    let crc = crc32c(&damaged[21..]);
    damaged[17..21].copy_from_slice(&crc.to_be_bytes());
    damaged[12..16].copy_from_slice(&EPOCH.to_be_bytes());
    let handle = log.append_as_follower(damaged.into(), EPOCH).unwrap();
    handle.durable().await.unwrap();
    log.roll().unwrap();
    let before = View::from(&log, 0, 1, Isolation::LogEnd);
    let mut shared = compactor(10);
    let error = log.compact(&mut shared, NOW).await.unwrap_err();
    assert_eq!(error.code(), 87, "{error}");
    assert_eq!(log.uncleanable().unwrap().code(), 87);
    assert_eq!(log.dirty(NOW).unwrap(), None);
    drop(before);
    let read = log.read(0, 1 << 20, true, HW).await.unwrap();
    assert_eq!(read.records.len(), 2, "it reads as before");
    assert!(other.compact(&mut shared, NOW).await.unwrap().finished);
    assert_eq!(offsets(&other).await, [1]);
    // Cut off, it is as good as new.
    log.truncate_to(1).await.unwrap();
    assert!(log.uncleanable().is_none());
    log.roll().unwrap();
    assert_eq!(compact(&log).await.cleaned, 1);
}

/// Castagnoli's polynomial, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    !crc
}

#[tokio::test]
async fn times_and_epochs_are_those_of_what_is_left() {
    let mut world = World::new().await;
    let mut log = new_log(&world).await;
    for (epoch, key, timestamp) in [(1, "a", 100), (2, "b", 900), (4, "a", 300), (5, "b", 400)] {
        let batch =
            BatchBuilder::new(Codec::None).record(timestamp, Some(key.as_bytes()), Some(b"v"));
        let handle = log.append_as_leader(batch.build().unwrap(), epoch).unwrap();
        handle.durable().await.unwrap();
        log.roll().unwrap();
    }
    let epochs = log.epoch_starts();
    compact(&log).await;
    for reload in [false, true] {
        if reload {
            drop(log);
            world.crash().await;
            log = new_log(&world).await;
        }
        assert_eq!(log.epoch_starts(), epochs);
        let view = View::of(&log, HW).await;
        assert_eq!(
            view.records()
                .map(|record| record.offset)
                .collect::<Vec<_>>(),
            [2, 3]
        );
        for timestamp in [0, 100, 101, 300, 301, 400, 401, 900] {
            let spec = segment_adapter::TimestampSpec::At(timestamp);
            let found = log.fetch_offset_for_timestamp(spec, HW).await.unwrap();
            assert_eq!(
                (found.offset, found.timestamp),
                view.find(timestamp),
                "{timestamp}"
            );
        }
        let spec = segment_adapter::TimestampSpec::MaxTimestamp;
        let found = log.fetch_offset_for_timestamp(spec, HW).await.unwrap();
        assert_eq!(
            (found.offset, found.timestamp, found.leader_epoch),
            (3, 400, 5)
        );
    }
}
