//! What the crash suites share: records that say their number, marks in a trace of what is known of them, and dice that fall the same every time.

#![allow(dead_code, reason = "each suite uses its part")]

use std::{collections::BTreeSet, ops::Range};

use wal::{LogState, Position};

/// What a workload notes in its trace.
#[derive(Clone, Debug)]
pub(crate) enum Mark<R> {
    /// The process restarted and finds this.
    Restart(R),
    /// The metadata now says this.
    State(LogState),
    /// An append is about to be made: what it causes may be in the trace before its position is known.
    Append {
        record: u32,
    },
    /// It was queued, or it was refused.
    Appended {
        record: u32,
        position: Option<Range<Position>>,
    },
    Acknowledged {
        record: u32,
    },
    /// The metadata recorded ends without these records: they are gone for good.
    Lost(Vec<u32>),
}

/// A record says its number, and all its bytes follow from it.
pub(crate) fn payload(record: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len)
        .map(|i| (record as usize * 7 + i * 13 + i / 256) as u8)
        .collect();
    bytes.splice(..4, record.to_be_bytes());
    bytes
}

/// The number of a record, all of whose bytes must be right.
pub(crate) fn name_of(bytes: &[u8]) -> u32 {
    let record = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let expected = payload(record, bytes.len());
    assert_eq!(
        bytes, expected,
        "W4: record {record} is not what was appended"
    );
    record
}

/// Small numbers that look random and are the same every time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// What came back is the beginning of what was appended and is not trimmed, in order and without gaps (W1), at least as far as was acknowledged (W2).
pub(crate) fn check_back(
    back: &[u32],
    appended: &[(u32, Option<Range<Position>>)],
    acknowledged: &BTreeSet<u32>,
    trim: Position,
) {
    let possible = appended
        .iter()
        .filter(|(_, position)| position.as_ref().is_none_or(|p| p.end > trim));
    let possible: Vec<_> = possible.map(|(record, _)| *record).collect();
    let owed = possible
        .iter()
        .rposition(|record| acknowledged.contains(record))
        .map_or(0, |i| i + 1);
    assert!(
        back.len() >= owed,
        "W2: {back:?} of {possible:?}, {owed} are owed"
    );
    assert!(
        possible.starts_with(back),
        "W1, or invented: {back:?} of {possible:?}"
    );
}
