//! Reading: whole batches, bounds, sizes.

use super::*;

#[tokio::test]
async fn vectors_5_and_93_a_read_begins_with_the_batch_that_holds_the_offset() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 5).await;
    put_records(&log, 1).await;
    put_records(&log, 4).await;
    for (start, base) in [(0, 0), (2, 0), (4, 0), (5, 5), (6, 6), (9, 6)] {
        let data = log.read(start, 1, true, HW).await.unwrap();
        assert_eq!(batches(&data)[0].header().base_offset, base, "{start}");
        assert_eq!(data.records.len(), 1);
    }
}

#[tokio::test]
async fn vector_94_bounds_of_a_read() {
    let world = World::new().await;
    let log = open(&world).await;
    assert!(log.read(0, 100, true, HW).await.unwrap().records.is_empty());
    put_records(&log, 5).await;
    log.delete_records(3).await.unwrap();
    let end = log.read(5, 100, true, HW).await.unwrap();
    assert!(end.records.is_empty());
    assert_eq!(
        (end.offsets.log_start, end.offsets.hw, end.offsets.leo),
        (3, 5, 5)
    );
    for start in [i64::MIN, -1, 0, 2, 6, i64::MAX] {
        let error = log.read(start, 100, true, HW).await.unwrap_err();
        assert_eq!(error.code(), 1, "{start}");
    }
    // The batch that holds the log start is whole.
    let data = log.read(3, 100, true, HW).await.unwrap();
    assert_eq!(batches(&data)[0].header().base_offset, 0);
}

#[tokio::test]
async fn vector_95_max_bytes_and_the_first_batch() {
    let world = World::new().await;
    let log = open(&world).await;
    for _ in 0..10 {
        put(&log, batch(Codec::None, &[1000], &[7; 10_000])).await;
    }
    let one = log.read(0, 1, true, HW).await.unwrap().records[0].len();
    // What the engine keeps beside each batch counts against the bound.
    let slack = 500;
    for start in 0..10 {
        let data = log.read(start, 1, true, HW).await.unwrap();
        assert_eq!(batches(&data)[0].header().base_offset, start);
    }
    let lens = |data: FetchData| data.records.len();
    assert_eq!(lens(log.read(0, 0, false, HW).await.unwrap()), 0);
    assert_eq!(lens(log.read(0, one - 1, false, HW).await.unwrap()), 0);
    assert_eq!(lens(log.read(0, one, false, HW).await.unwrap()), 1);
    assert_eq!(
        lens(log.read(0, one * 3 + slack, false, HW).await.unwrap()),
        3
    );
    assert_eq!(lens(log.read(0, 0, true, HW).await.unwrap()), 1);
    assert_eq!(lens(log.read(0, one * 3 - 1, true, HW).await.unwrap()), 2);
    assert_eq!(lens(log.read(0, 1 << 20, true, HW).await.unwrap()), 10);
}

#[tokio::test]
async fn vector_95_limits_of_a_read_in_a_log_of_gaps() {
    let world = World::new().await;
    let log = open(&world).await;
    // Only every seventh offset has a record.
    for base in (0..70).step_by(7) {
        let mut bytes = batch(Codec::None, &[1000], &[7; 10_000]).to_vec();
        bytes[..8].copy_from_slice(&i64::to_be_bytes(base));
        bytes[12..16].copy_from_slice(&EPOCH.to_be_bytes());
        let handle = log.append_as_follower(bytes.into(), EPOCH).unwrap();
        handle.durable().await.unwrap();
        if base == 28 {
            log.roll().unwrap();
        }
    }
    let one = log.read(0, 1, true, HW).await.unwrap().records[0].len();
    for start in 0..=63 {
        let next = (start + 6) / 7 * 7;
        for (max_bytes, min_one, at_most) in [
            (1, true, 1),
            (one - 1, false, 0),
            (one * 2 + 500, false, 2),
            (one * 4, true, 4),
        ] {
            let data = log.read(start, max_bytes, min_one, HW).await.unwrap();
            let bases = batches(&data);
            let bases: Vec<_> = bases.iter().map(|b| b.header().base_offset).collect();
            let there: Vec<_> = (next..70).step_by(7).take(bases.len()).collect();
            assert_eq!(bases, there, "from {start}");
            assert!(bases.len() <= at_most && bases.is_empty() == (at_most == 0));
        }
    }
    assert!(
        log.read(64, 100, true, HW)
            .await
            .unwrap()
            .records
            .is_empty()
    );
}

#[tokio::test]
async fn vector_97_any_offset_within_a_compressed_batch_gives_the_whole_batch() {
    let world = World::new().await;
    let log = open(&world).await;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let base = put(&log, batch(codec, &[1, 2, 3, 4], b"v"))
            .await
            .first_offset;
        for start in base..base + 4 {
            let data = log.read(start, 1, true, HW).await.unwrap();
            assert_eq!(batches(&data)[0].header().base_offset, base, "{codec}");
        }
    }
}

#[tokio::test]
async fn vector_87_null_keys_values_and_times_are_kept() {
    let world = World::new().await;
    let log = open(&world).await;
    let sent = BatchBuilder::new(Codec::None)
        .record(-1, None, Some(b"v"))
        .record(-1, Some(b"k"), None)
        .record_with_headers(-1, None, None, &[("h", None), ("", Some(b"x"))])
        .build()
        .unwrap();
    let info = put(&log, sent.clone()).await;
    assert_eq!((info.max_timestamp, info.last_offset), (-1, 2));
    assert_eq!(
        log.read(0, 1, true, HW).await.unwrap().records[0][16..],
        sent[16..]
    );
}

#[tokio::test]
async fn a_reader_keeps_what_it_has_when_the_log_goes_on_without_it() {
    let world = World::new().await;
    let log = open(&world).await;
    put_records(&log, 3).await;
    let data = log.read(0, 100, true, HW).await.unwrap();
    log.roll().unwrap();
    put_records(&log, 1).await;
    log.delete_records(-1).await.unwrap();
    log.close().await.unwrap();
    assert_eq!(batches(&data)[0].header().last_offset(), 2);
}
