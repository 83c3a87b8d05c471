//! Which part of a log a pass may clean, how much of it is dirty, and which segments become one.

use std::ops::Range;

/// The most that a segment's last offset may lie past its base.
const SPAN_MAX: i64 = i32::MAX as i64;

/// A segment that takes no more appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Its first offset.
    pub(crate) base: i64,
    /// One past its last offset.
    pub(crate) end: i64,
    /// Size of its batches.
    pub(crate) bytes: u64,
    /// The largest timestamp of its first batch; 0 or less for none.
    pub(crate) first_timestamp: i64,
    /// The newest timestamp in it, or when it was last appended to if it has none.
    pub(crate) max_timestamp: i64,
    /// How many leader epochs begin in it.
    pub(crate) epochs: usize,
}

/// The bounds of a log that is to be cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// Where the last pass ended, if there was one.
    pub(crate) checkpoint: Option<i64>,
    /// The log start.
    pub(crate) start: i64,
    /// The log end.
    pub(crate) end: i64,
    /// The base of the active segment, which is never cleaned.
    pub(crate) active: i64,
    /// The last stable offset.
    pub(crate) stable: i64,
}

/// What decides when a log is cleaned.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Limits {
    /// `min.cleanable.dirty.ratio`, 0 to 1: a log is cleaned when more of it is dirty.
    pub(crate) dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`: records stay for so long at least; 0 for no limit.
    pub(crate) min_lag_ms: i64,
    /// `max.compaction.lag.ms`: a log is cleaned when the first record that is dirty is older.
    pub(crate) max_lag_ms: i64,
}

/// What is dirty of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dirtiness {
    /// The first offset that was not cleaned.
    pub(crate) first_dirty: i64,
    /// Where what may be cleaned ends: `first_dirty`, or the base of the first segment that may not.
    pub(crate) end: i64,
    /// Size of the segments below `first_dirty`.
    pub(crate) clean_bytes: u64,
    /// Size of the other segments below `end`; the one that `first_dirty` lies in is one of these.
    pub(crate) dirty_bytes: u64,
    /// Something dirty is older than it may become.
    pub(crate) is_late: bool,
}

impl Dirtiness {
    /// Of a log whose sealed segments are `segments`, in their order.
    pub(crate) fn of(segments: &[Span], bounds: Bounds, limits: &Limits, now_ms: i64) -> Self {
        let within = |offset: &i64| (bounds.start..=bounds.end).contains(offset);
        let first_dirty = bounds.checkpoint.filter(within).unwrap_or(bounds.start);
        let clean = segments.partition_point(|segment| segment.end <= first_dirty);
        let (clean, rest) = segments.split_at(clean);
        let is_young = |segment: &Span| {
            limits.min_lag_ms > 0
                && segment.max_timestamp > now_ms.saturating_sub(limits.min_lag_ms)
        };
        let cleanable = rest
            .iter()
            .take_while(|segment| segment.end <= bounds.stable && !is_young(segment))
            .count();
        let dirty_bytes = bytes(&rest[..cleanable]);
        let end = match cleanable {
            0 => first_dirty,
            _ => rest.get(cleanable).map_or(bounds.active, |next| next.base),
        };
        let since = now_ms.saturating_sub(limits.max_lag_ms.max(0));
        let is_old = |segment: &Span| (1..since).contains(&segment.first_timestamp);
        Self {
            first_dirty,
            end,
            clean_bytes: bytes(clean),
            dirty_bytes,
            is_late: dirty_bytes > 0 && rest.iter().any(is_old),
        }
    }

    /// How much of what a pass would read is dirty, 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        let all = self.clean_bytes.saturating_add(self.dirty_bytes);
        if all == 0 {
            return 0.0;
        }
        self.dirty_bytes as f64 / all as f64
    }

    /// Whether the log is to be cleaned.
    pub(crate) fn is_due(&self, limits: &Limits) -> bool {
        self.is_late || self.ratio() > limits.dirty_ratio_min
    }
}

fn bytes(segments: &[Span]) -> u64 {
    let sizes = segments.iter().map(|segment| segment.bytes);
    sizes.fold(0, u64::saturating_add)
}

/// Which of `segments`, by their places, become one each: neighbours of together at most `bytes_max` bytes and
/// `epochs_max` leader epochs, whose offsets lie within 2³¹. A segment without batches goes with its neighbours however far
/// its offsets lie; one that is too large stays alone.
pub(crate) fn groups(segments: &[Span], bytes_max: u64, epochs_max: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut base, mut bytes, mut epochs) = (0, 0_u64, 0_usize);
    for (at, segment) in segments.iter().enumerate() {
        let fits = bytes.saturating_add(segment.bytes) <= bytes_max
            && epochs.saturating_add(segment.epochs) <= epochs_max
            && (segment.bytes == 0 || segment.end - 1 - base <= SPAN_MAX);
        match groups.last_mut() {
            Some(group) if fits => {
                group.end = at + 1;
                bytes += segment.bytes;
                epochs += segment.epochs;
            }
            _ => {
                groups.push(at..at + 1);
                (base, bytes, epochs) = (segment.base, segment.bytes, segment.epochs);
            }
        }
    }
    groups
}
