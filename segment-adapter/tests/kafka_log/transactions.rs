//! Transactions on a log: what is stable, what was aborted, who may begin one, and what a crash leaves of it.

use std::time::Duration;

use segment_adapter::TransactionVersion::{V1, V2};
use segment_adapter::{
    AppendHandle, AppendOptions, EndTxn, Guard, Isolation, Origin, TimestampSpec,
    TransactionVersion,
};

use super::*;

const COMMITTED: Isolation = Isolation::TxnCommitted;

/// A batch of `count` records in a transaction.
fn txn(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    (0..count)
        .fold(BatchBuilder::new(Codec::None), |batch, _| {
            batch.record(1000, Some(b"key"), Some(b"value"))
        })
        .producer(id, epoch, sequence)
        .transactional()
        .build()
        .unwrap()
}

fn end(id: i64, epoch: i16, commit: bool, version: TransactionVersion) -> EndTxn {
    EndTxn {
        producer_id: id,
        producer_epoch: epoch,
        coordinator_epoch: 0,
        commit,
        version,
    }
}

/// A log that begins transactions without verification, whose records may be of any time.
fn unverified() -> LogConfig {
    LogConfig {
        verify_transactions: false,
        timestamp_after_max_ms: i64::MAX,
        segment_bytes: MIB,
        ..LogConfig::default()
    }
}

async fn durable(handle: Result<AppendHandle, LogError>) -> AppendInfo {
    let handle = handle.unwrap();
    let info = handle.info.clone();
    handle.durable().await.unwrap();
    info
}

/// Ends a transaction of version 1 in epoch 0.
async fn end_txn(log: &KafkaLog, id: i64, commit: bool) -> AppendInfo {
    durable(log.append_end_txn(end(id, 0, commit, V1), EPOCH)).await
}

/// The sequences of producers that never go wrong, in epoch 0.
#[derive(Default)]
struct Sender(std::collections::BTreeMap<i64, i32>);

impl Sender {
    fn next(&mut self, id: i64, count: usize) -> Bytes {
        let sequence = self.0.entry(id).or_default();
        let batch = txn(id, 0, *sequence, count);
        *sequence += count as i32;
        batch
    }
}

async fn aborted(log: &KafkaLog, start: i64, bytes: usize) -> Vec<(i64, i64)> {
    let read = log.read(start, bytes, true, COMMITTED).await.unwrap();
    let aborted = read.aborted.unwrap();
    aborted
        .iter()
        .map(|txn| (txn.producer_id, txn.first_offset))
        .collect()
}

fn code(appended: Result<AppendHandle, LogError>) -> i16 {
    appended.map_or_else(|error| error.code(), |_| 0)
}

#[tokio::test]
async fn vector_106_the_last_stable_offset_moves_with_the_markers() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    let mut sender = Sender::default();
    for (id, count) in [(1, 5), (0, 3), (2, 2), (1, 4), (0, 2), (1, 10)] {
        match id {
            0 => put_records(&log, count).await,
            id => put(&log, sender.next(id, count)).await,
        };
    }
    assert_eq!(log.offsets().lso, 0);
    // A marker that is not durable moves nothing.
    world.hold();
    let commit = log.append_end_txn(end(1, 0, true, V1), EPOCH);
    assert_eq!((log.offsets().lso, log.offsets().leo), (0, 27));
    world.release();
    durable(commit).await;
    assert_eq!(log.offsets().lso, 8);
    assert_eq!(log.first_unstable_offset(), Some(8));
    end_txn(&log, 2, false).await;
    let offsets = log.offsets();
    assert_eq!((offsets.lso, offsets.hw, offsets.leo), (28, 28, 28));
    assert_eq!(log.first_unstable_offset(), None);
}

/// The transactions of vector 107: every step and, after it, the first unstable offset.
async fn four_producers(log: &KafkaLog) {
    let mut sender = Sender::default();
    let steps = [
        (1, 5),
        (0, 3),
        (2, 2),
        (1, 4),
        (3, 3),
        (0, 2),
        (1, 10),
        (-1, 1),
        (2, 6),
        (4, 3),
        (0, 10),
        (3, 9),
        (13, 1),
        (4, 8),
        (2, 7),
        (-2, 1),
        (0, 10),
        (4, 4),
        (14, 1),
    ];
    for (id, count) in steps {
        match id {
            0 => put_records(log, count).await,
            ..0 => end_txn(log, -id, false).await,
            11.. => end_txn(log, id - 10, true).await,
            id => put(log, sender.next(id, count)).await,
        };
    }
}

#[tokio::test]
async fn vector_107_aborted_transactions_of_four_producers() {
    let mut world = World::new().await;
    let log = open_with(&world, unverified()).await;
    log.update_high_watermark(0);
    four_producers(&log).await;
    assert_eq!(log.offsets().leo, 90);
    for (hw, unstable) in [(0, Some(0)), (30, Some(8)), (75, Some(36)), (90, None)] {
        log.update_high_watermark(hw);
        assert_eq!(log.first_unstable_offset(), unstable);
        assert_eq!(log.offsets().lso, unstable.unwrap_or(hw));
    }
    assert_eq!(aborted(&log, 0, 1 << 20).await, [(1, 0), (2, 8)]);
    // The first marker is at 29, and says that all below 8 is decided.
    assert_eq!(aborted(&log, 0, 1).await, [(1, 0)]);
    assert_eq!(aborted(&log, 30, 1 << 20).await, [(2, 8)]);
    assert_eq!(aborted(&log, 75, 1 << 20).await, []);
    // By replication, with all of them in one call.
    let records = log.read(0, 1 << 20, true, HW).await.unwrap().records;
    let followers = World::new().await;
    let follower = open_with(&followers, unverified()).await;
    durable(follower.append_as_follower(records.concat().into(), EPOCH)).await;
    assert_as_four_producers_left_it(&follower).await;
    // By recovery, after a crash and after a close.
    let mut log = log;
    for close in [false, true] {
        if close {
            log.close().await.unwrap();
        }
        drop(log);
        world.crash().await;
        log = open_with(&world, unverified()).await;
        assert_as_four_producers_left_it(&log).await;
    }
}

async fn assert_as_four_producers_left_it(log: &KafkaLog) {
    assert_eq!(aborted(log, 0, 1 << 20).await, [(1, 0), (2, 8)]);
    assert_eq!(aborted(log, 30, 1).await, [(2, 8)]);
    assert_eq!(aborted(log, 75, 1 << 20).await, []);
    assert_eq!((log.first_unstable_offset(), log.offsets().lso), (None, 90));
    assert_eq!(log.active_producers().len(), 4);
}

#[tokio::test]
async fn vector_14_and_15_transactions_over_segments_are_known_after_a_crash() {
    let mut world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, txn(2, 0, 0, 1)).await;
    log.roll().unwrap();
    put(&log, txn(1, 0, 0, 2)).await;
    put(&log, txn(2, 0, 1, 2)).await;
    put_records(&log, 2).await;
    drop(log);
    world.crash().await;
    let log = open_with(&world, unverified()).await;
    assert_eq!(log.offsets().lso, 0);
    end_txn(&log, 2, false).await;
    assert_eq!(log.offsets().lso, 1);
    end_txn(&log, 1, true).await;
    drop(log);
    world.crash().await;
    let log = open_with(&world, unverified()).await;
    assert_eq!(log.offsets().lso, 9);
    assert_eq!(aborted(&log, 3, 1).await, [(2, 0)]);
    assert_eq!(aborted(&log, 8, 1).await, []);
}

#[tokio::test]
async fn vector_108_an_older_coordinator_is_fenced() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    for batch in [true, false] {
        let id = i64::from(batch);
        if batch {
            put(&log, txn(id, 0, 0, 1)).await;
        }
        let of = |coordinator_epoch| EndTxn {
            coordinator_epoch,
            ..end(id, 0, true, V1)
        };
        durable(log.append_end_txn(of(5), EPOCH)).await;
        assert_eq!(code(log.append_end_txn(of(4), EPOCH)), 52);
        durable(log.append_end_txn(of(5), EPOCH)).await;
    }
}

#[tokio::test]
async fn vector_109_what_is_unstable_does_not_lie_below_the_log_start() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, txn(1, 0, 0, 5)).await;
    put_records(&log, 3).await;
    log.roll().unwrap();
    put_records(&log, 1).await;
    assert_eq!(log.first_unstable_offset(), Some(0));
    log.delete_records(5).await.unwrap();
    assert_eq!(
        (log.first_unstable_offset(), log.offsets().lso),
        (Some(5), 5)
    );
    log.delete_records(8).await.unwrap();
    log.delete_old_segments(0).await.unwrap();
    assert_eq!(log.segment_count(), 1);
    assert_eq!(
        (log.first_unstable_offset(), log.offsets().lso),
        (Some(8), 8)
    );
}

#[tokio::test]
async fn vector_110_an_aborted_transaction_over_segments_is_told_once() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    for sequence in 0..4 {
        put(&log, txn(1, 0, sequence, 1)).await;
        log.roll().unwrap();
    }
    end_txn(&log, 1, false).await;
    put_records(&log, 1).await;
    for start in 0..5 {
        assert_eq!(aborted(&log, start, 1 << 20).await, [(1, 0)], "{start}");
    }
    assert_eq!(aborted(&log, 5, 1 << 20).await, []);
}

#[tokio::test]
async fn vector_111_a_marker_that_is_not_written_stops_the_log_and_is_made_up_for() {
    let mut world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, txn(1, 0, 0, 10)).await;
    world.hold();
    let abort = log.append_end_txn(end(1, 0, false, V1), EPOCH).unwrap();
    world.fail();
    assert_eq!(abort.durable().await.unwrap_err().code(), 56);
    assert_eq!(log.offsets().lso, 0);
    assert_eq!(refused(&log, txn(2, 0, 0, 1)).code(), 56);
    world.release();
    world.crash().await;
    let log = open_with(&world, unverified()).await;
    if log.offsets().leo == 10 {
        assert_eq!(log.offsets().lso, 0);
        end_txn(&log, 1, false).await;
    }
    assert_eq!((log.offsets().lso, log.offsets().leo), (11, 11));
    assert_eq!(aborted(&log, 0, 1 << 20).await, [(1, 0)]);
}

fn with(guard: &Guard) -> AppendOptions {
    AppendOptions {
        guard: guard.clone(),
        ..AppendOptions::default()
    }
}

#[tokio::test]
async fn vector_112_the_life_of_a_guard() {
    let world = World::new().await;
    let log = open(&world).await;
    assert!(log.verification_guard(1).is_none());
    let guard = log.start_verification(1, 0, 0, false).unwrap();
    assert!(!guard.is_none() && log.verification_guard(1) == guard);
    // A batch outside of a transaction keeps it.
    let idempotent = BatchBuilder::new(Codec::None).record(1000, Some(b"k"), None);
    put(&log, idempotent.producer(1, 0, 0).build().unwrap()).await;
    assert!(log.verification_guard(1) == guard);
    let asked = log.start_verification(1, 0, 1, false).unwrap();
    assert!(asked == guard);
    // The lowest sequence was 0, which was taken meanwhile.
    assert_eq!(
        code(log.append_with(txn(1, 0, 1, 1), EPOCH, &with(&guard))),
        45
    );
    let mut world = World::new().await;
    let log = open(&world).await;
    let guard = log.start_verification(1, 0, 0, false).unwrap();
    durable(log.append_with(txn(1, 0, 0, 1), EPOCH, &with(&guard))).await;
    assert!(log.has_open_transaction(1, 0) && !log.has_open_transaction(1, 1));
    assert!(log.verification_guard(1).is_none());
    // During the transaction there is nothing to verify.
    assert!(log.start_verification(1, 0, 1, false).unwrap().is_none());
    put(&log, txn(1, 0, 1, 1)).await;
    end_txn(&log, 1, true).await;
    let next = log.start_verification(1, 0, 2, false).unwrap();
    assert!(!next.is_none() && next != guard);
    // A guard of before a crash fits nothing, and neither does that of no verification.
    drop(log);
    world.crash().await;
    let log = open(&world).await;
    log.start_verification(1, 0, 2, false).unwrap();
    for guard in [next, Guard::NONE] {
        assert_eq!(
            code(log.append_with(txn(1, 0, 2, 1), EPOCH, &with(&guard))),
            48
        );
    }
}

#[tokio::test]
async fn vector_113_without_its_guard_no_transaction_begins() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    let guard = log.start_verification(1, 0, 0, false).unwrap();
    let verified = LogConfig {
        verify_transactions: true,
        ..unverified()
    };
    // Switched on while a request is on its way.
    log.update_config(verified).unwrap();
    assert_eq!(refused(&log, txn(1, 0, 0, 1)).code(), 48);
    assert_eq!(refused(&log, txn(2, 0, 0, 1)).code(), 48);
    assert!(log.verification_guard(1) == guard);
    log.update_config(unverified()).unwrap();
    put(&log, txn(1, 0, 0, 1)).await;
    assert!(log.verification_guard(1).is_none());
}

#[tokio::test]
async fn vector_114_a_marker_ends_the_verification_unless_it_is_for_what_follows() {
    let world = World::new().await;
    let log = open(&world).await;
    // Of a transaction without a batch, too.
    for (bumps, marker_epoch, version, kept) in [
        (true, 1, V2, true),
        (true, 2, V2, false),
        (false, 1, V1, false),
    ] {
        let id = i64::from(marker_epoch) * 2 + i64::from(bumps);
        log.start_verification(id, 1, 0, bumps).unwrap();
        durable(log.append_end_txn(end(id, marker_epoch, false, version), EPOCH)).await;
        assert_eq!(
            !log.verification_guard(id).is_none(),
            kept,
            "{bumps} {marker_epoch}"
        );
    }
}

#[tokio::test]
async fn vector_115_the_first_batch_of_a_producer_begins_at_0_if_epochs_rise() {
    let world = World::new().await;
    let log = open(&world).await;
    for (id, bumps, expected) in [(1, true, 45), (2, false, 0)] {
        let guard = log.start_verification(id, 1, 3, bumps).unwrap();
        let appended = log.append_with(txn(id, 1, 3, 1), EPOCH, &with(&guard));
        assert_eq!(code(appended), expected);
    }
}

#[tokio::test]
async fn vector_116_an_old_producer_is_told_that_it_is_old() {
    let world = World::new().await;
    let log = open(&world).await;
    for (id, bumps) in [(1, true), (2, false)] {
        durable(log.append_end_txn(end(id, 5, true, V2), EPOCH)).await;
        assert_eq!(
            log.start_verification(id, 4, 0, bumps).unwrap_err().code(),
            47
        );
        assert_eq!(refused(&log, txn(id, 4, 0, 1)).code(), 47);
    }
}

#[tokio::test]
async fn vector_118_a_marker_needs_a_version() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, txn(1, 0, 0, 1)).await;
    durable(log.append_end_txn(end(1, 0, true, V1), EPOCH)).await;
    let marker = log.read(1, 1, true, HW).await.unwrap().records[0].to_vec();
    let as_sent = Bytes::from([&[0; 8][..], &marker[8..]].concat());
    let coordinator = |version| AppendOptions {
        origin: Origin::Coordinator,
        version,
        ..AppendOptions::default()
    };
    let none = log.append_with(as_sent.clone(), EPOCH, &coordinator(None));
    assert!(matches!(none.unwrap_err(), LogError::NoTransactionVersion));
    durable(log.append_with(as_sent.clone(), EPOCH, &coordinator(Some(V1)))).await;
    // A client may write none, with or without.
    let client = AppendOptions {
        version: Some(V1),
        ..AppendOptions::default()
    };
    assert_eq!(code(log.append_with(as_sent, EPOCH, &client)), 87);
    // A follower needs none, also if the marker is of an epoch that is old by now; a leader refuses that.
    put(&log, txn(1, 1, 0, 1)).await;
    assert_eq!(code(log.append_end_txn(end(1, 0, true, V1), EPOCH)), 47);
    let next = log.offsets().leo.to_be_bytes();
    let followed = Bytes::from([&next[..], &marker[8..]].concat());
    durable(log.append_as_follower(followed, EPOCH)).await;
}

#[tokio::test]
async fn vector_27_a_marker_is_not_compressed_and_no_other_control_batch_is_taken() {
    let world = World::new().await;
    let config = LogConfig {
        compression: Some(Codec::Snappy),
        ..unverified()
    };
    let log = open_with(&world, config).await;
    let info = durable(log.append_end_txn(end(1, 0, true, V1), EPOCH)).await;
    assert_eq!(info.valid_bytes, 78);
    let marker = log.read(0, 1, true, HW).await.unwrap().records[0].clone();
    assert_eq!(marker[21..23], [0, 0x30]);
    // A control record of another type.
    let mut other = [&[0; 8][..], &marker[8..]].concat();
    other[69] = 2;
    let crc = crc32c::crc32c(&other[21..]);
    other[17..21].copy_from_slice(&crc.to_be_bytes());
    let options = AppendOptions {
        origin: Origin::Coordinator,
        version: Some(V1),
        ..AppendOptions::default()
    };
    assert_eq!(code(log.append_with(other.into(), EPOCH, &options)), 87);
    assert_eq!(log.offsets().leo, 1);
}

#[tokio::test]
async fn vector_48_a_late_transaction_is_seen_also_after_a_crash() {
    const LATE_MS: i64 = 1000 + 900_000 + 300_000;
    let mut world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, txn(1, 0, 0, 1)).await;
    let later = BatchBuilder::new(Codec::None).record(5000, Some(b"k"), None);
    let later = later.producer(2, 0, 0).transactional().build().unwrap();
    put(&log, later).await;
    log.close().await.unwrap();
    world.crash().await;
    let log = open_with(&world, unverified()).await;
    assert!(!log.has_late_transaction(LATE_MS));
    assert!(log.has_late_transaction(LATE_MS + 1));
    end_txn(&log, 1, false).await;
    assert!(!log.has_late_transaction(LATE_MS + 4000));
    assert!(log.has_late_transaction(LATE_MS + 4001));
    // An open one does not expire.
    log.delete_old_segments(i64::MAX / 2).await.unwrap();
    assert!(log.has_open_transaction(2, 0));
    let open: Vec<_> = log
        .active_producers()
        .iter()
        .map(|p| (p.producer_id, p.epoch, p.txn_first_offset, p.last_sequence))
        .collect();
    assert_eq!(open, [(2, 0, 1, 0)]);
    end_txn(&log, 2, true).await;
    assert!(!log.has_late_transaction(i64::MAX));
}

#[tokio::test]
async fn vector_98_a_reader_of_committed_data_sees_up_to_the_last_stable_offset() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put_records(&log, 2).await;
    put(&log, txn(1, 0, 0, 2)).await;
    put_records(&log, 2).await;
    let read = log.read(0, 1 << 20, true, COMMITTED).await.unwrap();
    assert_eq!((read.records.len(), read.aborted), (1, Some(Vec::new())));
    assert_eq!((read.offsets.lso, read.offsets.hw), (2, 6));
    for isolation in [HW, Isolation::LogEnd] {
        let read = log.read(0, 1 << 20, true, isolation).await.unwrap();
        assert_eq!((read.records.len(), read.aborted), (3, None));
    }
    // From there to the log end there is nothing, and no error.
    for start in 2..=6 {
        let read = log.read(start, 1 << 20, true, COMMITTED).await.unwrap();
        assert!(read.records.is_empty() && read.aborted == Some(Vec::new()));
    }
    assert_eq!(log.read(7, 1, true, COMMITTED).await.unwrap_err().code(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_98_a_reader_of_committed_data_while_the_high_watermark_moves() {
    const ROUNDS: i64 = 200;
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    log.update_high_watermark(0);
    let reader = tokio::spawn({
        let log = log.clone();
        async move {
            let mut next = 0;
            while next < 4 * ROUNDS {
                log.wait_for(COMMITTED, next).await.unwrap();
                let read = log.read(next, 1000, true, COMMITTED).await.unwrap();
                // Each round ends with its marker, and nothing of it is stable before.
                assert_eq!(read.offsets.lso % 4, 0);
                assert!(read.offsets.lso <= read.offsets.hw && read.aborted == Some(Vec::new()));
                for batch in batches(&read) {
                    assert_eq!(batch.header().base_offset, next);
                    next = batch.header().last_offset() + 1;
                }
                assert!(next <= read.offsets.lso);
            }
        }
    });
    let mut sender = Sender::default();
    for base in (0..ROUNDS).map(|round| 4 * round) {
        put(&log, sender.next(1, 2)).await;
        log.maybe_increment_high_watermark(base + 2).unwrap();
        put_records(&log, 1).await;
        log.maybe_increment_high_watermark(base + 3).unwrap();
        end_txn(&log, 1, true).await;
        log.maybe_increment_high_watermark(base + 4).unwrap();
        tokio::task::yield_now().await;
    }
    reader.await.unwrap();
    assert_eq!(log.offsets().lso, 4 * ROUNDS);
}

#[tokio::test]
async fn offsets_by_time_end_at_the_last_stable_offset_for_a_reader_of_committed_data() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put(&log, batch(Codec::None, &[10, 20], b"v")).await;
    put(&log, txn(1, 0, 0, 1)).await;
    let find = async |spec, isolation| {
        let found = log.fetch_offset_for_timestamp(spec, isolation).await;
        found.unwrap().offset
    };
    for (spec, in_all, in_committed) in [
        (TimestampSpec::Latest, 3, 2),
        (TimestampSpec::At(20), 1, 1),
        (TimestampSpec::At(21), 2, -1),
        (TimestampSpec::MaxTimestamp, 2, -1),
        (TimestampSpec::Earliest, 0, 0),
    ] {
        assert_eq!(find(spec, HW).await, in_all, "{spec:?}");
        assert_eq!(find(spec, COMMITTED).await, in_committed, "{spec:?}");
    }
    end_txn(&log, 1, true).await;
    assert_eq!(find(TimestampSpec::Latest, COMMITTED).await, 4);
    assert_eq!(find(TimestampSpec::At(21), COMMITTED).await, 2);
}

/// Whether it is not done although everything else had its turn.
async fn waits(future: &mut (impl Future + Unpin)) -> bool {
    tokio::time::sleep(Duration::from_millis(20)).await;
    futures::poll!(future).is_pending()
}

#[tokio::test]
async fn vector_92_who_waits_for_the_last_stable_offset_wakes_when_that_moves() {
    let world = World::new().await;
    let log = open_with(&world, unverified()).await;
    put_records(&log, 1).await;
    put(&log, txn(1, 0, 0, 1)).await;
    put(&log, txn(2, 0, 0, 1)).await;
    let mut stable = Box::pin(log.wait_for(COMMITTED, 1));
    let mut high = Box::pin(log.wait_for(HW, 3));
    assert!(waits(&mut stable).await && waits(&mut high).await);
    put_records(&log, 1).await;
    assert_eq!(high.await.unwrap().hw, 4);
    end_txn(&log, 2, true).await;
    // The high watermark moved; the first transaction is open still.
    assert!(waits(&mut stable).await);
    end_txn(&log, 1, true).await;
    assert_eq!(stable.await.unwrap().lso, 6);
    // The log start can move it, too.
    put(&log, txn(1, 0, 1, 1)).await;
    put_records(&log, 1).await;
    let mut stable = Box::pin(log.wait_for(COMMITTED, 6));
    assert!(waits(&mut stable).await);
    log.delete_records(7).await.unwrap();
    assert_eq!(stable.await.unwrap().lso, 7);
}

#[tokio::test]
async fn a_read_that_a_deletion_or_a_cut_overtakes_is_not_answered_without_what_was_aborted() {
    for cut in [false, true] {
        let mut world = World::new().await;
        let log = open_with(&world, unverified()).await;
        put(&log, txn(1, 0, 0, 1)).await;
        end_txn(&log, 1, false).await;
        put_records(&log, 1).await;
        log.close().await.unwrap();
        drop(log);
        world.leave_only_the_bucket().await;
        let log = open_with(&world, unverified()).await;
        world.slow_reads(Duration::from_millis(200));
        let mut read = Box::pin(log.read(0, 1 << 20, true, COMMITTED));
        assert!(waits(&mut read).await);
        if cut {
            log.truncate_to(2).await.unwrap();
        } else {
            // The segment stays, only the transaction is hidden.
            log.delete_records(2).await.unwrap();
        }
        match read.await {
            // Of the log as it is after the cut.
            Ok(read) => {
                assert!(cut);
                assert_eq!((read.records.len(), read.offsets.leo), (2, 2));
                assert_eq!(read.aborted.unwrap().len(), 1);
            }
            Err(error) => assert_eq!((error.code(), cut), (1, false)),
        }
    }
}

#[tokio::test]
async fn aborted_transactions_are_kept_in_small_changes_and_go_with_the_log_start() {
    let mut world = World::new().await;
    let mut log = open_with(&world, unverified()).await;
    for round in 0..4 {
        for id in 0..300 {
            drop(log.append_as_leader(txn(id, 0, round, 1), EPOCH).unwrap());
            drop(log.append_end_txn(end(id, 0, false, V1), EPOCH).unwrap());
        }
        log.wait_for_hw(log.offsets().leo - 1).await.unwrap();
        log.delete_old_segments(0).await.unwrap();
        world.crash().await;
        log = open_with(&world, unverified()).await;
        let all = 300 * (round as i64 + 1);
        let mut told = aborted(&log, 0, 4 << 20).await;
        for from in [all, all + 100] {
            told.extend(aborted(&log, from, 4 << 20).await);
        }
        told.sort_by_key(|(_, first)| *first);
        told.dedup();
        let expected: Vec<_> = (0..all).map(|n| (n % 300, n * 2)).collect();
        assert_eq!(told, expected);
    }
    let meta = world.streams().await[1].clone();
    let fetched = meta.fetch(meta.start(), 8 << 20).await.unwrap();
    assert!(fetched.records.iter().all(|r| r.payload.len() <= 160 << 10));
    log.delete_records(-1).await.unwrap();
    let end = log.offsets().leo;
    assert_eq!(aborted(&log, end, 1).await, []);
}
