//! The checker sees each breach that it is there for.

use super::*;

fn checker() -> StreamChecker {
    StreamChecker::new(1, 5)
}

/// Queues an append of two offsets.
fn queue(checker: &mut StreamChecker, start: u64) -> (u64, Range<u64>, Bytes) {
    let (sequence, payload) = checker.payload(40);
    checker.queued(sequence, start..start + 2).unwrap();
    (sequence, start..start + 2, payload)
}

fn acknowledged(checker: &mut StreamChecker, start: u64) -> (Range<u64>, Bytes) {
    let (sequence, offsets, payload) = queue(checker, start);
    checker.acknowledged(sequence, &offsets).unwrap();
    (offsets, payload)
}

fn fetch(
    checker: &mut StreamChecker,
    from: u64,
    found: &[(Range<u64>, Bytes)],
    confirm: u64,
) -> Verdict {
    checker.fetched(
        from,
        found.iter().map(|(offsets, payload)| (offsets, payload)),
        confirm,
    )
}

fn contract(verdict: Verdict) -> &'static str {
    verdict.unwrap_err().contract
}

#[test]
fn what_was_acknowledged_reads_back() {
    let mut checker = checker();
    let found = [acknowledged(&mut checker, 0), acknowledged(&mut checker, 2)];
    fetch(&mut checker, 1, &found, 4).unwrap();
    checker
        .bounds(Bounds {
            start: 0,
            confirm: 4,
            next: 4,
        })
        .unwrap();
    checker.read_whole(0, 4).unwrap();
    assert_eq!(checker.checked, 2);
}

#[test]
fn an_acknowledged_append_that_is_gone_is_noticed() {
    let mut checker = checker();
    acknowledged(&mut checker, 0);
    acknowledged(&mut checker, 2);
    assert_eq!(
        contract(checker.bounds(Bounds {
            start: 0,
            confirm: 2,
            next: 2
        })),
        "S4"
    );
}

#[test]
fn an_offset_is_never_given_twice_once_it_is_fixed() {
    let mut checker = checker();
    acknowledged(&mut checker, 0);
    let (sequence, _) = checker.payload(40);
    assert_eq!(contract(checker.queued(sequence, 1..3)), "S1");
}

#[test]
fn an_ambiguous_append_may_be_there_or_not_but_not_both() {
    let mut checker = checker();
    let (_, offsets, lost) = queue(&mut checker, 0);
    // Not there after a restart: the offsets are given again, and what is seen there is final.
    let taken = acknowledged(&mut checker, 0);
    assert_eq!(
        contract(fetch(&mut checker, 0, &[(offsets, lost)], 2)),
        "W8"
    );
    fetch(&mut checker, 0, &[taken], 2).unwrap();

    let (_, offsets, possible) = queue(&mut checker, 2);
    fetch(&mut checker, 2, &[(offsets, possible)], 4).unwrap();
    assert_eq!(
        contract(checker.bounds(Bounds {
            start: 0,
            confirm: 2,
            next: 2
        })),
        "S4"
    );
}

#[test]
fn a_record_nobody_appended_or_that_was_refused_is_an_invention() {
    let mut checker = checker();
    let (_, refused) = checker.payload(40);
    assert_eq!(
        contract(fetch(&mut checker, 0, &[(0..2, refused)], 2)),
        "S4"
    );
    let (_, _, payload) = queue(&mut checker, 0);
    assert_eq!(
        contract(fetch(&mut checker, 2, &[(2..4, payload)], 4)),
        "S4"
    );
    let other = StreamChecker::new(1, 6).payload(40).1;
    assert_eq!(contract(fetch(&mut checker, 0, &[(0..2, other)], 2)), "S4");
}

#[test]
fn a_gap_an_overlap_and_a_fetch_past_confirm_are_noticed() {
    let mut checker = checker();
    let one = acknowledged(&mut checker, 0);
    let two = acknowledged(&mut checker, 2);
    let three = acknowledged(&mut checker, 4);
    assert_eq!(
        contract(fetch(&mut checker, 0, &[one.clone(), three.clone()], 6)),
        "S1"
    );
    assert_eq!(
        contract(fetch(&mut checker, 0, std::slice::from_ref(&two), 6)),
        "S1"
    );
    assert_eq!(
        contract(fetch(&mut checker, 0, &[one, two, three], 4)),
        "S3"
    );
    assert_eq!(contract(checker.read_whole(0, 8)), "S1");
}

#[test]
fn bounds_stay_in_order_and_never_go_back() {
    let mut checker = checker();
    assert_eq!(
        contract(checker.bounds(Bounds {
            start: 0,
            confirm: 3,
            next: 2
        })),
        "S2"
    );
    acknowledged(&mut checker, 0);
    checker
        .bounds(Bounds {
            start: 0,
            confirm: 2,
            next: 4,
        })
        .unwrap();
    assert_eq!(
        contract(checker.bounds(Bounds {
            start: 1,
            confirm: 2,
            next: 2
        })),
        "W7"
    );
    checker.trim_asked(2);
    checker
        .bounds(Bounds {
            start: 1,
            confirm: 2,
            next: 2,
        })
        .unwrap();
    checker.trimmed(2);
    assert_eq!(
        contract(checker.bounds(Bounds {
            start: 1,
            confirm: 2,
            next: 2
        })),
        "W7"
    );
}
