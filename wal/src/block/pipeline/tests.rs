//! The state machine alone: what goes to the device when, and what a completion means.

use super::*;
use crate::{
    Identity, LogUuid,
    block::{Config, superblock::Copy},
};

const START: u64 = 8192;

fn pipeline(config: Config) -> Pipeline {
    let ring = Ring::new(64 * 4096).unwrap();
    let limits = config.limits(ring);
    let superblock = Superblock {
        sequence: 4,
        identity: Identity {
            cluster: 1,
            log: LogUuid::new(2),
            node: 3,
        },
        started: Some((LogEpoch::new(5), START)),
        closed: false,
        tail: START,
        durable_end: START,
        ring,
        window: limits.window,
    };
    let link = Link {
        checksum: 77,
        records_end: START,
    };
    Pipeline::new(
        "place".to_owned(),
        limits,
        superblock,
        0,
        link,
        VecDeque::new(),
    )
}

fn eager() -> Config {
    Config {
        overlap_bytes: 0,
        ..Config::default()
    }
}

fn headers(requests: &[Request]) -> Vec<Header> {
    let frames = requests.iter().filter(|r| matches!(r.tag, Tag::Frame(_)));
    frames.map(|r| Header::decode(&r.data).unwrap().0).collect()
}

fn commits(pipeline: &mut Pipeline) -> Vec<Commit> {
    let mut commits = Vec::new();
    if pipeline.begin_delivery() {
        while let Some(event) = pipeline.next_event() {
            if let Event::Durable(flight) = event {
                commits.push(flight.commit());
            }
        }
    }
    commits
}

#[test]
fn an_idle_log_submits_in_the_append_and_a_busy_one_gathers() {
    let mut log = pipeline(Config::default());
    log.append(&[b"one"]).unwrap();
    let first = log.submit();
    assert_eq!(headers(&first).len(), 1);
    for _ in 0..10 {
        log.append(&[b"more"]).unwrap();
        assert!(
            log.submit().is_empty(),
            "a few bytes wait for the commit in flight"
        );
    }
    let next = log.complete(first[0].tag, Ok(()));
    let [header] = headers(&next)[..] else {
        panic!("{next:?}")
    };
    assert_eq!((header.records, header.sequence), (10, 1));
    assert_eq!(
        header.durable_through,
        START + 87,
        "sealed after the first was acknowledged"
    );
}

#[test]
fn a_further_commit_is_begun_when_enough_waits_for_it() {
    let mut log = pipeline(Config {
        overlap_bytes: 8192,
        in_flight_max: 2,
        ..Config::default()
    });
    log.append(&[&[1; 100]]).unwrap();
    assert_eq!(log.submit().len(), 1);
    log.append(&[&[2; 9000]]).unwrap();
    assert_eq!(log.submit().len(), 1);
    log.append(&[&[3; 9000]]).unwrap();
    assert!(log.submit().is_empty(), "two are the most in flight");
}

#[test]
fn a_slow_write_does_not_keep_the_device_from_what_comes_after_it() {
    let mut log = pipeline(Config {
        in_flight_max: 2,
        ..eager()
    });
    let mut tags = Vec::new();
    for n in 0..4_u8 {
        log.append(&[&[n; 10]]).unwrap();
        tags.extend(log.submit().iter().map(|r| r.tag));
    }
    assert_eq!(tags.len(), 2, "two are the most in flight");
    // The second is done, the first is not: the place of the second is free, nothing is acknowledged.
    let next = log.complete(tags[1], Ok(()));
    assert_eq!(next.len(), 1);
    assert!(log.complete(next[0].tag, Ok(())).is_empty());
    assert!(commits(&mut log).is_empty());
    assert!(log.complete(tags[0], Ok(())).is_empty());
    assert_eq!(commits(&mut log).len(), 3);
}

#[test]
fn what_is_kept_in_memory_of_the_largest_log_is_bounded() {
    // 64 TiB of frames of one block each: 2^34 of them.
    let ring = Ring::new(1 << 46).unwrap();
    let mut kept = VecDeque::new();
    let piece = ring.capacity() >> 16;
    for at in (0..ring.capacity()).step_by(usize::try_from(piece / 4).unwrap()) {
        let frame = Kept {
            position: at,
            records_end: at + 100,
        };
        frame.add(&mut kept, ring, 0);
    }
    assert_eq!(kept.len(), 1 << 16);
    assert_eq!(kept[1].records_end, 2 * piece - piece / 4 + 100);
    // A small ring gives back every frame by itself, and frames of two epochs never share an entry.
    let small = Ring::new(1 << 20).unwrap();
    let mut kept = VecDeque::new();
    for (position, floor) in [(0, 0), (4096, 0), (8192, 8192)] {
        let records_end = position + 100;
        let frame = Kept {
            position,
            records_end,
        };
        frame.add(&mut kept, small, floor);
    }
    assert_eq!(kept.len(), 3);
}

#[test]
fn no_frame_is_submitted_further_above_the_acknowledged_than_the_window() {
    // The window of this ring is one largest frame: two of them are never in flight at once.
    let config = Config {
        in_flight_max: 4,
        commit_bytes_max: 8192,
        ..eager()
    };
    let mut log = pipeline(config);
    let len = log.max_record_len();
    log.append(&[&vec![1; len]]).unwrap();
    let first = log.submit();
    assert!(!first.is_empty());
    log.append(&[&vec![2; len]]).unwrap();
    assert!(log.submit().is_empty());
    let mut next = Vec::new();
    for request in &first {
        next.extend(log.complete(request.tag, Ok(())));
    }
    assert!(!next.is_empty());
}

#[test]
fn completions_out_of_order_are_acknowledged_in_order() {
    let mut log = pipeline(eager());
    let mut tags = Vec::new();
    for n in 0..3_u8 {
        log.append(&[&[n; 10]]).unwrap();
        tags.extend(log.submit().iter().map(|r| r.tag));
    }
    log.complete(tags[2], Ok(()));
    log.complete(tags[1], Ok(()));
    assert!(commits(&mut log).is_empty());
    assert_eq!(log.durable_end(), Position::new(START));
    log.complete(tags[0], Ok(()));
    let commits = commits(&mut log);
    let records: Vec<_> = commits
        .iter()
        .flat_map(|c| &c.records)
        .map(|r| r.payload[0])
        .collect();
    assert_eq!(records, [0, 1, 2]);
    assert_eq!(log.durable_end(), commits[2].range.end);
}

#[test]
fn frames_link_to_the_one_before() {
    let mut log = pipeline(eager());
    let mut links = vec![(77, START)];
    let mut found = Vec::new();
    for _ in 0..3 {
        log.append(&[b"x"]).unwrap();
        let requests = log.submit();
        let (header, checksum) = Header::decode(&requests[0].data).unwrap();
        links.push((checksum, header.records_end()));
        found.push((header.predecessor, header.predecessor_end));
    }
    assert_eq!(found, links[..3]);
}

#[test]
fn a_device_that_was_fenced_says_so_and_by_whom() {
    let mut log = pipeline(eager());
    log.append(&[b"x"]).unwrap();
    let written = log.submit();
    let by = "node 4".to_owned();
    log.complete(written[0].tag, Err(io::Error::other(Error::Fenced { by })));
    let refused = log.append(&[b"y"]);
    assert!(
        matches!(&refused, Err(Error::Fenced { by }) if by == "node 4"),
        "{refused:?}"
    );
}

#[test]
fn after_a_failed_write_nothing_is_submitted_acknowledged_or_retried() {
    let mut log = pipeline(eager());
    let mut tags = Vec::new();
    for _ in 0..3 {
        log.append(&[b"x"]).unwrap();
        tags.extend(log.submit().iter().map(|r| r.tag));
    }
    assert!(
        log.complete(tags[1], Err(io::ErrorKind::StorageFull.into()))
            .is_empty()
    );
    assert!(log.complete(tags[0], Ok(())).is_empty());
    assert!(
        log.complete(tags[2], Err(io::ErrorKind::Other.into()))
            .is_empty()
    );
    assert!(log.begin_delivery());
    let Some(Event::Failed(Error::Failed { cause })) = log.next_event() else {
        panic!()
    };
    let Error::Io { source, .. } = &*cause else {
        panic!("{cause}")
    };
    assert_eq!(
        source.kind(),
        io::ErrorKind::StorageFull,
        "the first cause counts"
    );
    assert!(log.next_event().is_none());
    assert!(matches!(log.append(&[b"y"]), Err(Error::Failed { .. })));
    log.trim(Position::new(u64::MAX));
    assert!(log.submit().is_empty());
}

#[test]
fn space_is_free_only_when_both_copies_hold_the_trim() {
    let mut log = pipeline(eager());
    log.append(&[&[1; 5000]]).unwrap();
    let frame = log.submit();
    log.complete(frame[0].tag, Ok(()));
    commits(&mut log);
    let used = log.usage().used;
    log.trim(log.durable_end());
    let first = log.submit();
    assert_eq!(
        (first.len(), first[0].at),
        (1, COPIES[0]),
        "one copy at a time"
    );
    assert_eq!(log.usage().used, used);
    let second = log.complete(Tag::Superblock, Ok(()));
    assert_eq!((second.len(), second[0].at), (1, COPIES[1]));
    assert_eq!(second[0].data, first[0].data);
    assert_eq!(
        log.usage().used,
        used,
        "F2: the older copy still needs the space"
    );
    assert!(log.complete(Tag::Superblock, Ok(())).is_empty());
    assert_eq!(log.usage().used, 0);
}

#[test]
fn trims_while_the_copies_are_written_become_one_more_write() {
    let mut log = pipeline(eager());
    let mut ends = Vec::new();
    for _ in 0..4 {
        ends.push(log.append(&[&[1; 10]]).unwrap().end);
        let frame = log.submit();
        log.complete(frame[0].tag, Ok(()));
    }
    commits(&mut log);
    let mut copies = Vec::new();
    for end in &ends {
        log.trim(*end);
        copies.extend(log.submit());
    }
    assert_eq!(copies.len(), 1);
    copies.extend(log.complete(Tag::Superblock, Ok(())));
    copies.extend(log.complete(Tag::Superblock, Ok(())));
    copies.extend(log.complete(Tag::Superblock, Ok(())));
    assert!(log.complete(Tag::Superblock, Ok(())).is_empty());
    assert_eq!(copies.len(), 4);
    assert_eq!(log.usage().used, 0);
}

#[test]
fn a_trim_inside_a_frame_keeps_the_frame() {
    let mut log = pipeline(Config::default());
    let first = log.append(&[b"first in flight"]).unwrap();
    let frame = log.submit();
    let inside = log.append(&[&[1; 10]]).unwrap();
    log.append(&[&[2; 10]]).unwrap();
    let frame = log.complete(frame[0].tag, Ok(()));
    log.complete(frame[0].tag, Ok(()));
    commits(&mut log);
    log.trim(inside.end);
    assert_eq!(log.submit().len(), 1);
    log.complete(Tag::Superblock, Ok(()));
    log.complete(Tag::Superblock, Ok(()));
    assert!(first.end < inside.start);
    assert_eq!(
        log.usage().used,
        4096,
        "the second record of the second frame is owed"
    );
}

#[test]
fn a_trim_ahead_of_what_is_durable_gives_up_only_what_is() {
    let mut log = pipeline(eager());
    log.append(&[&[1; 10]]).unwrap();
    let first = log.submit();
    log.complete(first[0].tag, Ok(()));
    let in_flight = log.append(&[&[2; 10]]).unwrap();
    let second = log.submit();
    commits(&mut log);
    log.trim(in_flight.end);
    let copy = log.submit();
    let Copy::Valid(marked) = Superblock::decode(&copy[0].data) else {
        panic!("no superblock");
    };
    assert_eq!(marked.tail, START + 4096, "the frame in flight is owed");
    log.complete(Tag::Superblock, Ok(()));
    log.complete(Tag::Superblock, Ok(()));
    log.complete(second[0].tag, Ok(()));
    assert_eq!(log.usage().used, 4096);
}

#[test]
fn a_full_queue_refuses_until_a_completion_makes_room() {
    let config = Config {
        queue_bytes_max: 8192,
        in_flight_max: 1,
        ..Config::default()
    };
    let mut log = pipeline(config);
    // The bound is never below a quarter of the ring, so that the longest record always fits: 64 KiB here.
    log.append(&[&[1; 10]]).unwrap();
    let frame = log.submit();
    let refused = loop {
        match log.append(&[&[2; 4000]]) {
            Ok(_) => assert!(log.submit().is_empty()),
            Err(e) => break e,
        }
    };
    assert!(
        matches!(
            refused,
            Error::Full {
                needed: 4096,
                free: 0
            }
        ),
        "{refused}"
    );
    log.complete(frame[0].tag, Ok(()));
    assert!(log.begin_delivery());
    let events: Vec<_> = std::iter::from_fn(|| log.next_event()).collect();
    assert!(
        matches!(events[..], [Event::Durable(_), Event::Room]),
        "{events:?}"
    );
    log.append(&[&[2; 4000]]).unwrap();
}

#[test]
fn a_close_waits_for_deliveries_then_marks_the_end_in_both_copies() {
    let mut log = pipeline(eager());
    let end = log.append(&[b"x"]).unwrap().end;
    let frame = log.submit();
    log.close();
    assert!(log.submit().is_empty());
    assert!(matches!(log.append(&[b"y"]), Err(Error::Closed)));
    assert!(
        log.complete(frame[0].tag, Ok(())).is_empty(),
        "not delivered yet"
    );
    assert_eq!(commits(&mut log).len(), 1);
    let copy = log.submit();
    let super::super::superblock::Copy::Valid(content) = Superblock::decode(&copy[0].data) else {
        panic!("{copy:?}")
    };
    assert_eq!(
        (content.durable_end, content.closed, content.sequence),
        (end.get(), false, 5)
    );
    assert!(log.ended().is_none());
    log.complete(Tag::Superblock, Ok(()));
    log.complete(Tag::Superblock, Ok(()));
    assert!(matches!(log.ended(), Some(Ok(()))));
}

#[test]
fn a_frame_over_the_rings_end_is_durable_when_both_pieces_are() {
    let mut log = pipeline(eager());
    let mut wrapped = None;
    while wrapped.is_none() {
        log.append(&[&[9; 9000]]).unwrap();
        let requests = log.submit();
        if requests.len() == 2 {
            wrapped = Some(requests);
        } else {
            log.complete(requests[0].tag, Ok(()));
            commits(&mut log);
            log.trim(log.durable_end());
            log.submit();
            log.complete(Tag::Superblock, Ok(()));
            log.complete(Tag::Superblock, Ok(()));
            commits(&mut log);
        }
    }
    let pieces = wrapped.unwrap();
    assert_eq!(pieces[0].data.len() + pieces[1].data.len(), 12_288);
    assert_eq!(pieces[1].at, crate::block::ring::RING_START);
    log.complete(pieces[0].tag, Ok(()));
    assert!(commits(&mut log).is_empty());
    log.complete(pieces[1].tag, Ok(()));
    assert_eq!(commits(&mut log).len(), 1);
}
