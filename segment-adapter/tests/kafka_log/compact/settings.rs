//! What the settings of a compactor and the policies of a log do.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_log_that_is_compacted_and_deleted_is_both() {
    let world = World::new().await;
    let both = LogConfig {
        delete: true,
        retention_ms: 500,
        ..compacted()
    };
    let log = open_with(&world, both).await;
    for round in 0..3 {
        put_keyed(&log, &[("a", "1"), ("b", &round.to_string())]).await;
        log.roll().unwrap();
    }
    compact(&log).await;
    assert_eq!(offsets(&log).await, [4, 5]);
    // Records have the time 1000.
    assert_eq!(log.delete_old_segments(1500).await.unwrap(), 0);
    assert_eq!(log.delete_old_segments(1501).await.unwrap(), 1);
    let offsets = log.offsets();
    assert_eq!((offsets.log_start, offsets.leo), (6, 6));
    // Nothing is left of what compaction has written, either.
    let compacted = world.streams().await.pop().unwrap();
    assert_eq!(compacted.start(), compacted.next());
}

#[tokio::test]
async fn retention_by_size_goes_by_what_compaction_has_left() {
    let world = World::new().await;
    let small = LogConfig {
        segment_bytes: MIB,
        ..compacted()
    };
    let log = open_with(&world, small).await;
    // Of the first two segments nothing is left but their offsets; they are too large to become one with the last.
    for _ in 0..3 {
        put_keyed(&log, &[("a", &"v".repeat(700 << 10))]).await;
        log.roll().unwrap();
    }
    assert_eq!(compact(&log).await.segments, (3, 3));
    let left = log.size().unwrap();
    for (limit, deleted) in [(left + 1, 0), (left, 2), (0, 1)] {
        log.update_config(LogConfig {
            delete: true,
            retention_bytes: limit as i64,
            retention_ms: -1,
            ..compacted()
        })
        .unwrap();
        assert_eq!(
            log.delete_old_segments(NOW).await.unwrap(),
            deleted,
            "{limit}"
        );
    }
    assert_eq!(log.offsets().log_start, 3);
}

#[tokio::test(start_paused = true)]
async fn lesson_21_a_pass_keeps_under_its_bound_of_bytes() {
    let world = World::new().await;
    let log = new_log(&world).await;
    for _ in 0..100 {
        put_keyed(&log, &[("a", &"v".repeat(1000))]).await;
    }
    log.roll().unwrap();
    let bytes = log.size().unwrap();
    let config = CompactorConfig {
        io_bytes_per_second: Some(10_000),
        ..CompactorConfig::default()
    };
    let begun = tokio::time::Instant::now();
    let mut slow = Compactor::new(config).unwrap();
    log.compact(&mut slow, NOW).await.unwrap();
    // All of it was read twice; one read of all is the last, and what it costs is paid for by what comes after it.
    let least = Duration::from_millis(bytes * 1000 / 10_000);
    let took = begun.elapsed();
    assert!(took >= least && took < least * 3, "{took:?}, {least:?}");
}

#[tokio::test]
async fn one_pass_at_a_time() {
    let world = World::new().await;
    let log = new_log(&world).await;
    put_keyed(&log, &[("a", "1")]).await;
    log.roll().unwrap();
    let (mut one, mut other) = (compactor(10), compactor(10));
    let mut first = Box::pin(log.compact(&mut one, NOW));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let refused = log.compact(&mut other, NOW).await.unwrap_err();
    assert!(matches!(refused, LogError::Busy(_)), "{refused}");
    assert!(first.await.unwrap().finished);
    assert!(log.compact(&mut other, NOW).await.unwrap().finished);
}
