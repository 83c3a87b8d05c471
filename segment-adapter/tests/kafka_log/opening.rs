//! What opening a log asks of the bucket: the meta stream, and of the data only what came after the last note.

use super::*;

/// Some segments with a little over 2 MiB of data, the last of them active.
async fn fill(log: &KafkaLog) {
    let payload = vec![7; 64 << 10];
    for _ in 0..16 {
        for timestamp in [1, 2] {
            put(log, batch(Codec::None, &[timestamp], &payload)).await;
        }
        log.roll().unwrap();
    }
    put(log, batch(Codec::None, &[3], &payload)).await;
}

#[tokio::test]
async fn opening_after_a_close_reads_the_meta_stream_alone() {
    let mut world = World::new().await;
    let log = open(&world).await;
    fill(&log).await;
    log.close().await.unwrap();
    world.leave_only_the_bucket().await;
    let before = world.requests();
    let log = open(&world).await;
    let asked = world.requests();
    assert_eq!((log.segment_count(), log.offsets().leo), (17, 33));
    // The object's tail with its index, and the one block that the edits are in; a put takes the group over.
    assert_eq!(asked.get - before.get, 2);
    assert_eq!(asked.total() - before.total(), 3);
    let bytes = asked.get_bytes - before.get_bytes;
    assert!(bytes < 128 << 10, "{bytes}");
}

#[tokio::test]
async fn opening_after_a_crash_reads_the_data_after_the_last_note_as_well() {
    let mut world = World::new().await;
    let log = open(&world).await;
    fill(&log).await;
    drop(log);
    world.leave_only_the_bucket().await;
    let before = world.requests();
    let log = open(&world).await;
    let asked = world.requests();
    assert_eq!((log.segment_count(), log.offsets().leo), (17, 33));
    assert_eq!(asked.get - before.get, 3);
    assert_eq!(asked.total() - before.total(), 4);
    let bytes = asked.get_bytes - before.get_bytes;
    assert!(bytes < 512 << 10, "a block of 256 KiB at most: {bytes}");
}

#[tokio::test]
async fn opening_what_the_write_ahead_log_holds_asks_for_nothing() {
    let mut world = World::new().await;
    let log = open(&world).await;
    fill(&log).await;
    drop(log);
    world.crash().await;
    let before = world.requests();
    let log = open(&world).await;
    assert_eq!((log.segment_count(), log.offsets().leo), (17, 33));
    assert_eq!(world.requests(), before);
}
