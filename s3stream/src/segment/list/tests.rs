//! Lists of segments against what their edits say, step by step and at random.

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn begin(base: u64, start: u64) -> Edit {
    Edit::Begin {
        base,
        stream: StreamId::new(1),
        start,
    }
}

fn seal(end: u64) -> Edit {
    Edit::Seal {
        end,
        attributes: Bytes::from(format!("to {end}")),
    }
}

fn note(text: &'static str) -> Edit {
    Edit::Annotate {
        note: Bytes::from_static(text.as_bytes()),
    }
}

fn list(edits: &[Edit]) -> SegmentList {
    let mut list = SegmentList::default();
    for edit in edits {
        list.apply(edit).unwrap();
    }
    list
}

/// Segments 0..10, 10..20, 20..30 and an active one, over stream offsets that are 5 higher.
fn four() -> SegmentList {
    list(&[
        begin(0, 5),
        seal(10),
        begin(10, 15),
        seal(20),
        begin(20, 25),
        seal(30),
        begin(30, 35),
        note("a"),
    ])
}

fn bounds(list: &SegmentList) -> Vec<(u64, Option<u64>)> {
    list.segments()
        .iter()
        .map(|segment| (segment.base, segment.end))
        .collect()
}

fn sealed(base: u64, end: u64, slices: Vec<Slice>) -> Segment {
    Segment {
        base,
        end: Some(end),
        slices,
        attributes: Bytes::new(),
    }
}

fn slice(stream: u64, window: Range<u64>, base: u64) -> Slice {
    Slice {
        stream: StreamId::new(stream),
        start: window.start,
        end: Some(window.end),
        base,
    }
}

#[test]
fn offsets_map_through_the_base_of_each_slice() {
    let mut list = four();
    list.apply(&seal(40)).unwrap();
    list.apply(&begin(100, 45)).unwrap();
    assert_eq!(list.slice_at(12).unwrap().stream_offset(12), 17);
    assert_eq!(list.slice_at(39).unwrap().stream_offset(39), 44);
    // Nothing is at 40..100: the next slice answers.
    assert_eq!(list.slice_at(40).unwrap().base, 100);
    assert_eq!(list.slice_at(103).unwrap().stream_offset(103), 48);
}

#[test]
fn a_trim_drops_whole_segments_only_and_never_the_active_one() {
    let mut list = four();
    list.apply(&Edit::Trim { start: 19 }).unwrap();
    assert_eq!((list.start(), bounds(&list)[0]), (19, (10, Some(20))));
    list.apply(&Edit::Trim { start: 7 }).unwrap();
    assert_eq!(list.start(), 19, "a trim never goes back");
    list.apply(&Edit::Trim { start: 33 }).unwrap();
    assert_eq!((list.start(), bounds(&list)), (33, vec![(30, None)]));
    assert_eq!(list.lowest_offset_of(StreamId::new(1)), Some(35));
}

#[test]
fn a_trim_and_a_roll_commute() {
    let (mut one, mut two) = (four(), four());
    let trim = Edit::Trim { start: 33 };
    for edit in [&trim, &seal(33), &begin(33, 38)] {
        one.apply(edit).unwrap();
    }
    for edit in [&seal(33), &begin(33, 38), &trim] {
        two.apply(edit).unwrap();
    }
    assert_eq!(one, two);
    assert_eq!(bounds(&one), [(33, None)]);
}

#[test]
fn a_run_is_replaced_whole_and_offsets_stay() {
    let mut list = four();
    let with = vec![sealed(0, 20, vec![slice(9, 0..4, 2), slice(9, 4..6, 18)])];
    list.apply(&Edit::Replace {
        run: 0..20,
        segments: with,
    })
    .unwrap();
    assert_eq!(bounds(&list), [(0, Some(20)), (20, Some(30)), (30, None)]);
    assert_eq!(list.slice_at(0).unwrap().base, 2);
    assert_eq!(list.slice_at(19).unwrap().stream_offset(19), 5);
    assert_eq!(list.lowest_offset_of(StreamId::new(1)), Some(25));
    assert_eq!(list.lowest_offset_of(StreamId::new(9)), Some(0));
}

#[test]
fn an_empty_segment_goes_when_it_is_sealed_but_its_offset_stays_taken() {
    let mut list = four();
    list.apply(&seal(30)).unwrap();
    assert_eq!(bounds(&list).last(), Some(&(20, Some(30))));
    list.apply(&begin(50, 35)).unwrap();
    list.apply(&seal(50)).unwrap();
    assert_eq!(bounds(&list).last(), Some(&(20, Some(30))));
    assert_eq!(list.sealed_end(), 50);
    assert!(list.apply(&begin(49, 35)).is_err());
}

#[test]
fn edits_that_break_the_list_are_refused_and_change_nothing() {
    let replace = |run: Range<u64>, segments: Vec<Segment>| Edit::Replace { run, segments };
    let open = Segment {
        end: None,
        ..sealed(0, 20, vec![])
    };
    let long = Edit::Seal {
        end: 40,
        attributes: vec![0; ATTRIBUTES_BYTES_MAX + 1].into(),
    };
    let backwards = Range { start: 20, end: 10 };
    let refused = [
        begin(40, 45),
        seal(29),
        long,
        replace(0..15, vec![]),
        replace(5..20, vec![]),
        replace(backwards.clone(), vec![]),
        replace(20..40, vec![]),
        replace(0..20, vec![open]),
        replace(0..20, vec![sealed(0, 21, vec![])]),
        replace(10..20, vec![sealed(9, 20, vec![])]),
        replace(0..20, vec![sealed(0, 12, vec![]), sealed(11, 20, vec![])]),
        replace(0..20, vec![sealed(0, 20, vec![slice(9, 0..21, 0)])]),
        replace(0..20, vec![sealed(0, 20, vec![slice(9, backwards, 0)])]),
        replace(0..20, vec![sealed(0, 20, vec![slice(9, 0..u64::MAX, 1)])]),
        Edit::Annotate {
            note: vec![0; ANNOTATION_BYTES_MAX + 1].into(),
        },
    ];
    for edit in refused {
        let mut list = four();
        let error = list.apply(&edit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{edit:?}");
        assert_eq!(list, four(), "{edit:?}");
    }
}

#[test]
fn annotations_belong_to_the_active_segment_and_are_bounded() {
    let mut list = four();
    for _ in 1..ANNOTATIONS_MAX {
        list.apply(&note("b")).unwrap();
    }
    assert_eq!(
        list.apply(&note("c")).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    list.apply(&seal(30)).unwrap();
    assert!(list.annotations().is_empty());
    assert!(list.apply(&note("d")).is_err());
}

fn parts(list: &SegmentList, len: usize) -> Vec<Vec<Edit>> {
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, b"state");
    bytes.extend_from_slice(&list.encode());
    let bytes = Bytes::from(bytes);
    let count = bytes.len().div_ceil(len) as u32;
    (0..count)
        .map(|index| {
            let from = index as usize * len;
            let part = bytes.slice(from..(from + len).min(bytes.len()));
            vec![Edit::Checkpoint { index, count, part }]
        })
        .collect()
}

#[test]
fn a_checkpoint_replaces_what_came_before_once_it_is_whole() {
    let mut replay = Replay::default();
    let change = |change: &'static [u8]| Edit::State {
        change: Bytes::from_static(change),
    };
    replay.apply(vec![begin(0, 0), change(b"gone")]).unwrap();
    let parts = parts(&four(), 50);
    assert!(parts.len() > 3);
    // Cut short by a full log, then edits, then a whole one.
    for part in &parts[..2] {
        replay.apply(part.clone()).unwrap();
    }
    replay.apply(vec![seal(3), begin(3, 3)]).unwrap();
    for part in &parts {
        replay.apply(part.clone()).unwrap();
    }
    replay.apply(vec![note("b"), change(b"more")]).unwrap();
    let (list, state, edits) = replay.finish();
    assert_eq!(state, ["state", "more"]);
    let mut expected = four();
    expected.apply(&note("b")).unwrap();
    assert_eq!((list, edits), (expected, 2));
}

#[test]
fn a_checkpoint_with_a_missing_part_is_corrupt() {
    let parts = parts(&four(), 50);
    let mut replay = Replay::default();
    replay.apply(parts[0].clone()).unwrap();
    let error = replay.apply(parts[2].clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_damaged_checkpoint_is_corrupt_or_another_valid_list() {
    let bytes = four().encode();
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            if let Ok(list) = SegmentList::decode(bytes.into()) {
                list.check().unwrap();
                assert_ne!(list, four());
            }
        }
        assert!(
            SegmentList::decode(Bytes::copy_from_slice(&bytes[..at])).is_err()
                || at == bytes.len() - 5
        );
    }
}

/// Small numbers, so that edits fit each other, and the largest there are.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..40u64, 1 => u64::MAX - 2..=u64::MAX, 1 => any::<u64>()]
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let slice = (1..3u64, number(), prop::option::of(number()), number());
    let slices = prop::collection::vec(slice, 0..3);
    (number(), prop::option::of(number()), slices).prop_map(|(base, end, slices)| Segment {
        base,
        end,
        slices: slices
            .into_iter()
            .map(|(stream, start, end, base)| Slice {
                stream: StreamId::new(stream),
                start,
                end,
                base,
            })
            .collect(),
        attributes: Bytes::new(),
    })
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let segments = prop::collection::vec(any_segment(), 0..3);
    prop_oneof![
        3 => (number(), number()).prop_map(|(base, start)| begin(base, start)),
        3 => number().prop_map(seal),
        1 => number().prop_map(|start| Edit::Trim { start }),
        1 => (number(), number(), segments)
            .prop_map(|(from, to, segments)| Edit::Replace { run: from..to, segments }),
        1 => Just(note("n")),
        1 => any::<Vec<u8>>().prop_map(|change| Edit::State { change: change.into() }),
        1 => (0..3u32, 0..3u32, any::<Vec<u8>>()).prop_map(|(index, count, part)| {
            Edit::Checkpoint { index, count, part: part.into() }
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_edits_come_the_list_stays_valid_and_survives_its_encoding(
        edits in prop::collection::vec(any_edit(), 0..40)
    ) {
        let mut list = SegmentList::default();
        for edit in edits {
            // Refused or applied, never half of it.
            let before = list.clone();
            if list.apply(&edit).is_err() {
                prop_assert_eq!(&list, &before);
            }
            list.check().unwrap();
            prop_assert_eq!(SegmentList::decode(list.encode().into()).unwrap(), list.clone());
            for offset in [0, 7, 20, u64::MAX] {
                if let Some(slice) = list.slice_at(offset) {
                    slice.stream_offset(offset.clamp(slice.base, OFFSET_MAX));
                }
            }
            let mut replay = Replay::default();
            let _ = replay.apply(vec![edit]);
        }
    }

    #[test]
    fn no_bytes_make_a_replay_panic(
        edits in prop::collection::vec(any_edit(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = crate::segment::edit::encode(&edits);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(edits) = crate::segment::edit::decode(bytes.into()) {
            let _ = Replay::default().apply(edits);
        }
    }
}
