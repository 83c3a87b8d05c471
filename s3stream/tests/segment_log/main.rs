//! A segment log on real streams: what it promises, one behaviour at a time, and against a model.

#![allow(clippy::unwrap_used)]

mod cuts;
mod model;
mod world;

use bytes::Bytes;
use s3stream::segment::{LogBounds, LogRecord, Segment, SegmentLog, Slice, Truncation};
use s3stream::{ErrorKind, Stream};
use world::World;

async fn open(world: &World) -> SegmentLog {
    let mut streams = world.streams().await;
    streams.truncate(2);
    let meta = streams.pop().unwrap();
    let data = streams.pop().unwrap();
    SegmentLog::open(data, meta).await.unwrap()
}

/// Appends one record and waits for it.
async fn put(log: &SegmentLog, count: u64, payload: &str) {
    let at = log.bounds().next;
    log.append(at, count, &[payload.as_bytes()])
        .unwrap()
        .await
        .unwrap();
}

async fn read_all(log: &SegmentLog) -> Vec<(u64, String)> {
    let LogBounds { start, confirm, .. } = log.bounds();
    let mut at = start;
    let mut out = Vec::new();
    while at < confirm {
        let fetched = log.fetch(at, 64).await.unwrap();
        let Some(last) = fetched.records.last() else {
            break;
        };
        at = last.offsets.end;
        out.extend(fetched.records.iter().map(text));
    }
    out
}

fn text(record: &LogRecord) -> (u64, String) {
    (
        record.offsets.start,
        String::from_utf8(record.payload.to_vec()).unwrap(),
    )
}

fn bases(log: &SegmentLog) -> Vec<(u64, Option<u64>)> {
    log.segments()
        .iter()
        .map(|segment| (segment.base, segment.end))
        .collect()
}

fn expected(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
    pairs
        .iter()
        .map(|(offset, text)| (*offset, text.to_string()))
        .collect()
}

#[tokio::test]
async fn appends_roll_and_are_read_over_segment_bounds() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    assert_eq!((log.bounds().next, log.segment_count()), (0, 0));
    put(&log, 2, "a").await;
    log.roll(Bytes::from_static(b"first"), None, None)
        .unwrap()
        .await
        .unwrap();
    put(&log, 1, "b").await;
    assert_eq!(bases(&log), [(0, Some(2)), (2, None)]);
    assert_eq!(read_all(&log).await, expected(&[(0, "a"), (2, "b")]));
    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(bases(&log), [(0, Some(2)), (2, None)]);
    assert_eq!(log.segments()[0].attributes, "first");
    assert_eq!(read_all(&log).await, expected(&[(0, "a"), (2, "b")]));
}

#[tokio::test]
async fn an_append_at_another_offset_than_the_next_is_refused() {
    let world = World::new(2).await;
    let log = open(&world).await;
    put(&log, 3, "a").await;
    for at in [0, 2, 4] {
        let error = log.append(at, 1, &[b"x"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{at}");
    }
    put(&log, 1, "b").await;
}

#[tokio::test]
async fn a_log_can_begin_at_a_later_offset_and_jump() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    log.begin(100).await.unwrap();
    assert_eq!(log.bounds().start, 100);
    put(&log, 2, "a").await;
    assert_eq!(log.begin(200).await.unwrap_err().kind(), ErrorKind::Invalid);
    log.seal(Bytes::new()).unwrap().await.unwrap();
    assert_eq!(log.begin(101).await.unwrap_err().kind(), ErrorKind::Invalid);
    log.begin(200).await.unwrap();
    let bounds = log.bounds();
    assert_eq!((bounds.confirm, bounds.next), (200, 200));
    put(&log, 1, "b").await;
    // In the gap, the next record answers.
    let fetched = log.fetch(150, 1).await.unwrap();
    assert_eq!(fetched.records[0].offsets, 200..201);
    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(read_all(&log).await, expected(&[(100, "a"), (200, "b")]));
    assert_eq!(bases(&log), [(100, Some(102)), (200, None)]);
}

#[tokio::test]
async fn trimming_the_front_drops_whole_segments_and_their_records() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    for text in ["a", "b", "c"] {
        put(&log, 10, text).await;
        log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    }
    put(&log, 10, "d").await;
    assert_eq!(
        log.trim_front(..41).await.unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    log.trim_front(..25).await.unwrap();
    assert_eq!(log.bounds().start, 25);
    assert_eq!(bases(&log), [(20, Some(30)), (30, None)]);
    assert_eq!(world.streams().await[0].start(), 20);
    assert_eq!(
        log.fetch(24, 1).await.unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    // Hidden, but kept with its segment.
    let kept = log.fetch_kept(20, 1).await.unwrap();
    assert_eq!(kept.records[0].offsets, 20..30);
    assert!(log.fetch_kept(19, 1).await.is_err());
    // The record that holds the start is whole.
    assert_eq!(log.fetch(25, 1).await.unwrap().records[0].offsets, 20..30);
    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(log.bounds().start, 25);
    assert_eq!(bases(&log), [(20, Some(30)), (30, None)]);
}

#[tokio::test]
async fn a_run_is_replaced_by_segments_of_another_stream_in_one_step() {
    let mut world = World::new(3).await;
    let log = open(&world).await;
    for text in ["a", "b"] {
        put(&log, 10, text).await;
        log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    }
    put(&log, 10, "c").await;
    let other = world.streams().await.pop().unwrap();
    other.append(15, &[b"ab"]).unwrap().await.unwrap();
    let compacted = Segment {
        base: 0,
        end: Some(20),
        slices: vec![Slice {
            stream: other.id(),
            start: 0,
            end: Some(15),
            base: 3,
        }],
        attributes: Bytes::from_static(b"compacted"),
    };
    let refused = log
        .replace(0..20, vec![compacted.clone()], || ((), None))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "not attached");
    log.attach(other).unwrap();
    let mut beyond = compacted.clone();
    beyond.slices[0].end = Some(16);
    let refused = log
        .replace(0..20, vec![beyond], || ((), None))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "past the stream's end");
    let refused = log.replace(0..30, vec![], || ((), None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "the active segment");
    log.replace(0..20, vec![compacted], || ((), None))
        .await
        .unwrap();
    assert_eq!(read_all(&log).await, expected(&[(3, "ab"), (20, "c")]));
    assert_eq!(world.streams().await[0].start(), 20);

    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(
        log.fetch(0, 1).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    log.attach(world.streams().await.pop().unwrap()).unwrap();
    assert_eq!(read_all(&log).await, expected(&[(3, "ab"), (20, "c")]));
    log.trim_front(..20).await.unwrap();
    assert_eq!(world.streams().await[2].start(), 15);
}

/// A segment whose one slice is this window.
fn segment_of(run: std::ops::Range<u64>, stream: &Stream, window: std::ops::Range<u64>) -> Segment {
    Segment {
        base: run.start,
        end: Some(run.end),
        slices: vec![Slice {
            stream: stream.id(),
            start: window.start,
            end: Some(window.end),
            base: run.start,
        }],
        attributes: Bytes::new(),
    }
}

#[tokio::test]
async fn what_a_replacement_that_never_came_has_left_is_given_up() {
    let mut world = World::new(3).await;
    let log = open(&world).await;
    for text in ["a", "b"] {
        put(&log, 10, text).await;
        log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    }
    let other = world.streams().await.pop().unwrap();
    other.append(7, &[b"left"]).unwrap().await.unwrap();

    world.crash(true).await;
    let log = open(&world).await;
    let other = world.streams().await.pop().unwrap();
    log.attach(other.clone()).unwrap();
    assert_eq!(read_all(&log).await, expected(&[(0, "a"), (10, "b")]));
    // Nothing names it, so all of it goes.
    log.trim_unnamed(other.id()).await.unwrap();
    assert_eq!((other.start(), other.next()), (7, 7));

    other.append(5, &[b"left"]).unwrap().await.unwrap();
    other.append(10, &[b"A"]).unwrap().await.unwrap();
    let first = segment_of(0..10, &other, 12..22);
    log.replace(0..10, vec![first], || ((), None))
        .await
        .unwrap();
    assert_eq!(other.start(), 12, "what lies below the first that is named");
    other.append(3, &[b"left"]).unwrap().await.unwrap();
    log.trim_unnamed(other.id()).await.unwrap();
    assert_eq!(other.start(), 12, "what lies above waits");
    other.append(20, &[b"AB"]).unwrap().await.unwrap();
    let both = segment_of(0..20, &other, 25..45);
    log.replace(0..20, vec![both], || ((), None)).await.unwrap();
    assert_eq!(other.start(), 25);
    assert_eq!(read_all(&log).await, expected(&[(0, "AB")]));
    log.trim_unnamed(other.id()).await.unwrap();
    assert_eq!(other.start(), 25, "what is named stays");
}

#[tokio::test]
async fn a_replacement_and_a_change_of_the_owners_state_are_one_step() {
    let mut world = World::new(3).await;
    let log = open(&world).await;
    put(&log, 10, "a").await;
    log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    let other = world.streams().await.pop().unwrap();
    log.attach(other.clone()).unwrap();
    other.append(10, &[b"A"]).unwrap().await.unwrap();
    let segment = segment_of(0..10, &other, 0..10);
    let change = Bytes::from_static(b"change");
    {
        world.hold();
        let replaced = log.replace(0..10, vec![segment.clone()], || ((), Some(change.clone())));
        let mut replaced = Box::pin(replaced);
        assert!(futures::poll!(replaced.as_mut()).is_pending());
        assert_eq!(read_all(&log).await, expected(&[(0, "a")]));
    }
    world.crash(true).await;
    world.release();
    let log = open(&world).await;
    assert!(log.take_state().is_empty());
    assert_eq!(read_all(&log).await, expected(&[(0, "a")]));
    let other = world.streams().await.pop().unwrap();
    log.attach(other).unwrap();
    log.replace(0..10, vec![segment], || ((), Some(change)))
        .await
        .unwrap();
    world.crash(true).await;
    let log = open(&world).await;
    log.attach(world.streams().await.pop().unwrap()).unwrap();
    assert_eq!(log.take_state(), ["change"]);
    assert_eq!(read_all(&log).await, expected(&[(0, "A")]));
}

#[tokio::test]
async fn a_slice_of_what_an_attached_stream_does_not_have_is_corrupt() {
    let world = World::new(3).await;
    let log = open(&world).await;
    put(&log, 10, "a").await;
    log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    let other = world.streams().await.pop().unwrap();
    log.attach(other.clone()).unwrap();
    other.append(10, &[b"A"]).unwrap().await.unwrap();
    let segment = segment_of(0..10, &other, 0..10);
    log.replace(0..10, vec![segment], || ((), None))
        .await
        .unwrap();
    other.trim(..10).await.unwrap();
    let log = open(&world).await;
    let refused = log.attach(other).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    let data = world.streams().await.swap_remove(0);
    assert_eq!(log.attach(data).unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn annotations_last_until_the_segment_is_sealed() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    // There is no segment yet: the note begins one.
    log.annotate(Bytes::from_static(b"one"), None)
        .unwrap()
        .await
        .unwrap();
    assert_eq!(log.bounds().active_base, Some(0));
    put(&log, 1, "a").await;
    log.annotate(Bytes::from_static(b"two"), None)
        .unwrap()
        .await
        .unwrap();
    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(log.annotations(), ["one", "two"]);
    let carried = Bytes::from_static(b"three");
    log.roll(Bytes::new(), Some(carried), None)
        .unwrap()
        .await
        .unwrap();
    assert_eq!(log.annotations(), ["three"]);
    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(log.annotations(), ["three"]);
    log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    assert!(log.annotations().is_empty());
}

#[tokio::test]
async fn the_owners_state_comes_back_as_its_checkpoint_and_the_changes_since() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    assert!(log.take_state().is_empty());
    let some = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let note = Bytes::from_static(b"note");
    drop(log.annotate(note.clone(), some("a")).unwrap());
    drop(log.roll(Bytes::new(), None, some("b")).unwrap());
    let last = log.change_state(Bytes::from_static(b"c")).unwrap();
    last.await.unwrap();
    world.crash(true).await;
    let log = open(&world).await;
    assert_eq!(log.take_state(), ["a", "b", "c"]);
    assert!(log.take_state().is_empty());
    // Not due: the state is not asked for.
    log.maintain(|| -> ((), Bytes) { panic!("not due") })
        .await
        .unwrap();
    for _ in 0..70 {
        drop(log.annotate(note.clone(), some("d")).unwrap());
    }
    let whole = Bytes::from(vec![7; 300 * 1024]);
    log.maintain(|| ((), whole.clone())).await.unwrap();
    log.change_state(Bytes::from_static(b"e"))
        .unwrap()
        .await
        .unwrap();
    world.crash(true).await;
    let log = open(&world).await;
    assert_eq!(log.take_state(), [whole, Bytes::from_static(b"e")]);
    assert_eq!(log.annotations().len(), 70);
    // A large state is written again only after as many KiB of it as there are edits.
    for _ in 0..200 {
        drop(log.annotate(note.clone(), None).unwrap());
    }
    log.maintain(|| -> ((), Bytes) { panic!("not due") })
        .await
        .unwrap();
}

#[tokio::test]
async fn the_meta_stream_stays_short_however_many_edits_there_were() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    for _ in 0..40 {
        for _ in 0..20 {
            put(&log, 1, "a").await;
            log.roll(Bytes::from(vec![7; 200]), None, None)
                .unwrap()
                .await
                .unwrap();
        }
        log.trim_front(..log.bounds().confirm - 5).await.unwrap();
        log.maintain(|| ((), Bytes::new())).await.unwrap();
    }
    let streams = world.streams().await;
    let kept = streams[1].next() - streams[1].start();
    assert!(
        kept < 200,
        "{kept} records are kept of {}",
        streams[1].next()
    );
    let before = bases(&log);
    world.crash(false).await;
    assert_eq!(bases(&open(&world).await), before);
}

#[tokio::test]
async fn a_checkpoint_of_many_segments_is_written_in_parts() {
    let mut world = World::new(2).await;
    let log = open(&world).await;
    let attributes = Bytes::from(vec![7; 16 * 1024]);
    for _ in 0..80 {
        put(&log, 1, "a").await;
        log.roll(attributes.clone(), None, None)
            .unwrap()
            .await
            .unwrap();
    }
    let before = world.streams().await[1].next();
    log.maintain(|| ((), Bytes::new())).await.unwrap();
    let meta = world.streams().await[1].clone();
    assert!(meta.next() - before > 5, "{} parts", meta.next() - before);
    assert_eq!(meta.start(), before);
    world.crash(false).await;
    let log = open(&world).await;
    assert_eq!(log.segment_count(), 81);
    assert_eq!(log.segments()[79].attributes, attributes);
}

#[tokio::test]
async fn an_active_slice_of_another_stream_is_corrupt() {
    let world = World::new(2).await;
    let streams = world.streams().await;
    // Edits of version 2: one of kind 1, 24 bytes, a segment at 0 in stream 99 from 0 on.
    let mut begin = vec![2, 1, 0, 0, 0, 24];
    for field in [0u64, 99, 0] {
        begin.extend_from_slice(&field.to_be_bytes());
    }
    let append = streams[1].append(1, &[&begin]).unwrap();
    append.await.unwrap();
    let [data, meta] = <[_; 2]>::try_from(streams).unwrap();
    let error = SegmentLog::open(data, meta).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_edit_whose_caller_went_away_still_takes_effect() {
    let world = World::new(2).await;
    let log = open(&world).await;
    for text in ["a", "b"] {
        put(&log, 10, text).await;
        log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
    }
    {
        // Polled once, so that the edit is queued, and dropped.
        let mut trim = Box::pin(log.trim_front(..10));
        let _ = futures::poll!(trim.as_mut());
    }
    log.flushed().await.unwrap();
    log.trim_front(..15).await.unwrap();
    assert_eq!(bases(&log), [(10, Some(20)), (20, None)]);
}

#[tokio::test]
async fn a_log_whose_streams_were_reopened_stops() {
    let world = World::new(2).await;
    let log = open(&world).await;
    put(&log, 1, "a").await;
    assert!(log.stopped().is_none());
    world.lose_log().await;
    let reopened = open(&world).await;
    put(&reopened, 1, "b").await;
    assert!(log.stopped().is_some());
    assert_eq!(
        log.append(1, 1, &[b"x"]).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(log.roll(Bytes::new(), None, None).is_err() && log.trim_front(..1).await.is_err());
    assert_eq!(read_all(&reopened).await, expected(&[(0, "a"), (1, "b")]));
}

#[tokio::test]
async fn a_replacement_is_there_whole_or_not_at_all() {
    for forgets in [false, true] {
        let mut world = World::new(3).await;
        let log = open(&world).await;
        for text in ["a", "b"] {
            put(&log, 10, text).await;
            log.roll(Bytes::new(), None, None).unwrap().await.unwrap();
        }
        let other = world.streams().await.pop().unwrap();
        other.append(10, &[b"c"]).unwrap().await.unwrap();
        log.attach(other.clone()).unwrap();
        world.hold();
        {
            let with = vec![segment_of(0..10, &other, 0..10)];
            let mut replaced = Box::pin(log.replace(0..20, with, || ((), None)));
            assert!(futures::poll!(replaced.as_mut()).is_pending());
            // Not before it is durable.
            assert_eq!(read_all(&log).await, expected(&[(0, "a"), (10, "b")]));
        }
        world.crash(forgets).await;
        world.release();
        let log = open(&world).await;
        log.attach(world.streams().await.pop().unwrap()).unwrap();
        let records = [(0, "a"), (10, "b")];
        let now = if forgets {
            expected(&records)
        } else {
            expected(&[(0, "c")])
        };
        assert_eq!(read_all(&log).await, now);
    }
}
