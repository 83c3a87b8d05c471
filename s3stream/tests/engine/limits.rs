//! Every limit, at the limit.

use s3stream::{Config, Engine, ErrorKind};

use crate::support::{LONG, Places, check, fill, payload, small};

#[tokio::test]
async fn a_full_budget_answers_full_and_goes_on_when_uploads_make_room() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    let payload = vec![7; 100_000];
    let mut appended = 0u64;
    let mut full = 0;
    let mut appends = Vec::new();
    while full == 0 {
        match stream.append(1, &[&payload]) {
            Ok(append) => {
                appends.push(append);
                appended += 1;
                assert_eq!(stream.next(), appended);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                assert!(!error.may_have_happened());
                full += 1;
            }
        }
        assert!(appended < 1_000, "the budget has no limit");
    }
    assert_eq!(stream.next(), appended, "a refused append reserved nothing");
    for append in appends {
        append.await.unwrap();
    }
    let permit = tokio::time::timeout(LONG, stream.ready(100_000)).await;
    let append = stream.append_with(permit.unwrap().unwrap(), 1, &[&payload]);
    append.unwrap().await.unwrap();
}

#[tokio::test]
async fn more_than_memory_flows_through_and_memory_stays_within_its_bound() {
    let places = Places::new();
    let engine = places.open().await;
    let stream = engine.create_stream().await.unwrap();
    for _ in 0..20 {
        fill(&stream, 50, 20_000).await;
        let held = engine.usage().held_bytes;
        assert!(held <= small().log_cache_bytes + (64 << 10), "{held}");
    }
    check(&stream, 0..1_000, 20_000).await;
}

#[tokio::test]
async fn a_record_that_can_never_fit_is_invalid() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    let most = stream.payload_len_max().unwrap();
    assert!(most < small().log_cache_bytes as usize);
    let payload = vec![0; most + 1];
    let error = stream.append(1, &[&payload]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    stream
        .append(1, &[&payload[..most]])
        .unwrap()
        .await
        .unwrap();
    let payload = vec![0; 5 << 20];
    let error = stream.append(1, &[&payload]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = stream.ready(5 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_permit_must_be_as_large_as_its_record() {
    let engine = Places::new().open().await;
    let stream = engine.create_stream().await.unwrap();
    let permit = stream.ready(10).await.unwrap();
    let error = stream.append_with(permit, 1, &[&[0; 11]]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let permit = stream.ready(10).await.unwrap();
    let append = stream.append_with(permit, 1, &[&[1; 4], &[2; 5]]).unwrap();
    append.await.unwrap();
}

#[tokio::test]
async fn the_queue_for_room_has_an_end() {
    let places = Places::new();
    let engine = places
        .builder()
        .config(Config {
            ready_waiters_max: 2,
            ..small()
        })
        .open()
        .await
        .unwrap();
    let stream = engine.create_stream().await.unwrap();
    let all = small().log_cache_bytes as usize - 200;
    let _permit = stream.ready(all).await.unwrap();
    let first = tokio::spawn({
        let stream = stream.clone();
        async move { stream.ready(1_000).await }
    });
    let second = tokio::spawn({
        let stream = stream.clone();
        async move { stream.ready(1_000).await }
    });
    tokio::task::yield_now().await;
    let error = stream.ready(1_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    engine.close(LONG).await.unwrap();
    for waiting in [first, second] {
        let error = tokio::time::timeout(LONG, waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn reads_of_many_objects_come_through_a_small_cache() {
    let places = Places::new();
    let engine = places
        .builder()
        .config(Config {
            block_cache_bytes: 64 << 10,
            index_cache_bytes: 0,
            ..small()
        })
        .open()
        .await
        .unwrap();
    let streams = [
        engine.create_stream().await.unwrap(),
        engine.create_stream().await.unwrap(),
    ];
    for _ in 0..6 {
        for stream in &streams {
            fill(stream, 40, 1_000).await;
        }
        engine.flush().await.unwrap();
    }
    engine.close(LONG).await.unwrap();
    let engine = places
        .builder()
        .config(Config {
            index_cache_bytes: 0,
            ..small()
        })
        .open()
        .await
        .unwrap();
    for stream in &streams {
        let stream = engine.open_stream(stream.id()).await.unwrap();
        for from in [239, 0, 120, 40, 200] {
            let fetched = stream.fetch(from, 1).await.unwrap();
            assert_eq!(fetched.records.len(), 1);
            assert_eq!(fetched.records[0].payload, payload(&stream, from, 1_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_ring_is_filled_many_times_over_and_comes_back() {
    let places = Places::new();
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        Engine::builder()
            .object_store(places.bucket.clone(), "cluster")
            .wal(format!("block:{}/wal?capacity=4MiB", dir.path().display()))
            .config(Config {
                log_cache_bytes: 64 << 20,
                upload_bytes: 8 << 20,
                ..small()
            })
            .open()
    };
    let engine = open().await.unwrap();
    let stream = engine.create_stream().await.unwrap();
    let mut end = 0;
    for (count, len) in [(4_000, 1_000), (300, 30_000), (20_000, 20)] {
        fill(&stream, count, len).await;
        check(&stream, end..end + count, len).await;
        end += count;
    }
    assert!(engine.usage().log_capacity_bytes <= 4 << 20);
    let id = stream.id();
    drop((engine, stream));
    let engine = open().await.unwrap();
    let stream = engine.open_stream(id).await.unwrap();
    assert_eq!(stream.confirm(), end);
    check(&stream, 0..4_000, 1_000).await;
    check(&stream, 4_300..end, 20).await;
    engine.close(LONG).await.unwrap();
}
