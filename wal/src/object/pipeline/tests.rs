//! The object log's state machine, step by step.

use super::*;
use crate::LogUuid;

fn pipeline(config: Config) -> Pipeline {
    let author = Author {
        identity: Identity {
            cluster: 1,
            log: LogUuid::new(2),
            node: 3,
        },
        epoch: LogEpoch::new(4),
        incarnation: 5,
    };
    config.validate().unwrap();
    Pipeline::new(
        Arc::new(config),
        author,
        position_of(7),
        VecDeque::new(),
        Vec::new(),
    )
}

fn small() -> Config {
    Config {
        capacity: 1 << 20,
        objects_max: 1 << 10,
        commit_bytes_max: 1000,
        overlap_bytes: 500,
        in_flight_max: 3,
        queue_bytes_max: 4000,
        ..Config::default()
    }
}

fn durable(pipeline: &mut Pipeline) -> Vec<u64> {
    let mut lens = Vec::new();
    while let Some(event) = pipeline.next_event() {
        if let Event::Durable(commit) = event {
            lens.extend(commit.records.iter().map(|r| r.payload.len() as u64));
        }
    }
    lens
}

#[test]
fn an_idle_log_puts_at_once_and_a_busy_one_opens_a_place_for_bytes_not_for_arrivals() {
    let mut p = pipeline(small());
    assert_eq!(p.next(), Next::Nothing);
    p.append(&[b"a"]).unwrap();
    assert_eq!(p.next(), Next::Now);
    p.submit().unwrap();
    for _ in 0..20 {
        p.append(&[b"b"]).unwrap();
        assert_eq!(
            p.next(),
            Next::Nothing,
            "a hundred bytes are not worth a place"
        );
    }
    p.append(&[&[1; 400]]).unwrap();
    assert_eq!(p.next(), Next::IfBudgeted);
    p.submit().unwrap();
    p.append(&[&[1; 600]]).unwrap();
    p.submit().unwrap();
    p.append(&[&[1; 600]]).unwrap();
    assert_eq!(p.next(), Next::Nothing, "three are on their way");
}

#[test]
fn acknowledgements_are_in_order_whatever_settles_first() {
    let mut p = pipeline(small());
    for len in [1, 2, 3] {
        p.append(&[&vec![0; len]]).unwrap();
        p.submit().unwrap();
    }
    p.settled(9);
    p.settled(8);
    assert_eq!(durable(&mut p), [0; 0]);
    assert_eq!(p.durable_end(), Position::new(position_of(7)));
    p.settled(7);
    assert_eq!(durable(&mut p), [1, 2, 3]);
    assert_eq!(p.durable_end(), Position::new(position_of(9) + 128 + 7));
}

#[test]
fn after_a_failure_nothing_is_put_acknowledged_or_accepted() {
    let mut p = pipeline(small());
    for _ in 0..3 {
        p.append(&[b"x"]).unwrap();
        p.submit().unwrap();
    }
    p.append(&[b"x"]).unwrap();
    p.settled(8);
    let by = "another".to_owned();
    p.fail(Error::Fenced { by });
    p.settled(7);
    assert_eq!(p.next(), Next::Nothing);
    assert!(matches!(p.append(&[b"y"]), Err(Error::Fenced { .. })));
    assert!(
        p.flights.is_empty() && p.usage().queued == 0,
        "it holds nothing any more"
    );
    let event = p.next_event();
    assert!(
        matches!(event, Some(Event::Failed(Error::Fenced { .. }))),
        "{event:?}"
    );
    assert!(p.next_event().is_none());
}

#[test]
fn unacknowledged_bytes_are_bounded_and_one_record_is_always_let_in() {
    let mut p = pipeline(small());
    p.append(&[&[0; 100_000]]).unwrap();
    let refused = p.append(&[b"x"]);
    assert!(
        matches!(refused, Err(Error::Full { needed, free: 0 }) if needed > 0),
        "{refused:?}"
    );
    p.submit().unwrap();
    p.settled(7);
    let events: Vec<_> = std::iter::from_fn(|| p.next_event()).collect();
    assert!(
        matches!(events[..], [Event::Durable(_), Event::Room]),
        "{events:?}"
    );
    while p.append(&[&[0; 90]]).is_ok() {}
    let waits = p.gather.bytes();
    assert!((3900 - 128..=4000).contains(&waits), "{waits}");
}

#[test]
fn many_small_objects_fill_the_log_too() {
    let mut p = pipeline(Config {
        objects_max: 16,
        ..small()
    });
    for number in 7..23 {
        p.append(&[b"x"]).unwrap();
        p.submit().unwrap();
        p.settled(number);
    }
    assert_eq!(p.usage().used, p.usage().capacity);
    let refused = p.append(&[b"x"]);
    assert!(
        matches!(refused, Err(Error::Full { free: 0, .. })),
        "{refused:?}"
    );
    durable(&mut p);
    p.trim(Position::new(position_of(10)));
    assert_eq!(p.usage().used, (1 << 20) / 16 * 13);
    p.append(&[b"x"]).unwrap();
}

#[test]
fn the_object_that_a_trim_lies_in_stays_until_the_trim_has_passed_its_number() {
    let mut p = pipeline(small());
    let mut ends = Vec::new();
    for number in 7..10 {
        ends.push(p.append(&[b"x"]).unwrap().end);
        p.submit().unwrap();
        p.settled(number);
    }
    p.trim(ends[1]);
    assert_eq!(p.usage().used, 1024);
    let object = |number| Name::Object(LogUuid::new(2), LogEpoch::new(4), number);
    assert_eq!(p.garbage(10), [object(7)]);
    p.trim(ends[0]);
    assert_eq!(p.garbage(10), []);
    p.trim(Position::new(u64::MAX));
    assert_eq!(p.garbage(10), [object(8)]);
    assert_eq!(p.usage().used, 0);
}

#[test]
fn garbage_is_bounded() {
    let mut p = pipeline(small());
    p.discard((0..100_000).map(Name::Mark).collect());
    assert_eq!(p.garbage.len(), GARBAGE_MAX);
}

#[test]
fn what_usage_admits_is_taken_up_to_the_last_byte() {
    let mut dice = 1_u64;
    let mut below = |n: usize| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % n
    };
    for objects_max in [8, 8, 8, 64, 4096] {
        let mut p = pipeline(Config {
            capacity: 1 << 15,
            objects_max,
            queue_bytes_max: [1500, 30_000][below(2)],
            ..small()
        });
        let (mut taken, mut refused, mut flying) = (0, 0, VecDeque::new());
        for _ in 0..4_000 {
            let usage = p.usage();
            let (mut promised, mut lens) = (0, Vec::new());
            for most in [p.max_record_len(), 300, 20, 1].into_iter().skip(below(4)) {
                let len = (1..=most).rev().find(|l| usage.admits(promised, *l as u64));
                promised += len.map_or(0, |len| usage.room_for(len as u64));
                lens.extend(len);
            }
            refused += usize::from(lens.is_empty());
            for len in lens {
                let append = p.append(&[&vec![7; len]]);
                append.unwrap_or_else(|error| panic!("{len} in {usage:?}: {error}"));
                taken += 1;
                flying.extend(p.submit().map(|request| request.number));
            }
            match below(5) {
                0 | 1 => flying.extend(p.submit().map(|request| request.number)),
                2 => flying.pop_front().into_iter().for_each(|n| p.settled(n)),
                3 if below(8) == 0 => p.trim(p.durable_end()),
                _ => {}
            }
        }
        assert!(taken > 200 && refused > 200, "{taken}, {refused}");
    }
}
