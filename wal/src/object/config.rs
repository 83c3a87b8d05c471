//! What may be chosen about an object log. None of it is part of the format: each may change between two openings.

use std::time::Duration;

use super::format::{HEADER_LEN, OBJECT_LEN_MAX, PREFIX_LEN};
use crate::Error;

/// Settings of an object log. The defaults suit S3 and what speaks it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes that may be appended and not trimmed; more is refused as `Full`. Default 1 GiB. It bounds what a recovery reads.
    pub capacity: u64,
    /// Objects that may be appended and not trimmed. Default 16,384. Each counts as at least its share of `capacity`, so that a log of many small
    /// commits is trimmed too; it bounds the requests of a recovery.
    pub objects_max: u32,
    /// The most bytes that are gathered into one object; a record that alone needs more gets an object of its own. Default 8 MiB. A quarter of the
    /// capacity is the most that takes effect, so that a trim makes room.
    pub commit_bytes_max: usize,
    /// The longest record that is accepted. Default 32 MiB. A quarter of the capacity is the most that takes effect.
    pub record_bytes_max: usize,
    /// Objects that may be on their way at once. Default 8.
    pub in_flight_max: usize,
    /// While an object is on its way, a further one is begun only when this many bytes wait for it, or it is full. Default 1 MiB: small
    /// records share objects.
    pub overlap_bytes: usize,
    /// Bytes of one slab of the log's memory; objects are cut from it. Default 1 MiB. A slab lives as long as any record in it is held.
    pub slab_bytes: usize,
    /// Bytes that may be appended and not acknowledged; more is refused as `Full`. Default 64 MiB. One record is always let in.
    pub queue_bytes_max: usize,
    /// Objects and hedges in a second that may be put while another one is on its way. Default 20. An idle log never waits for it.
    pub puts_per_s: u32,
    /// How many of these may come at once after a rest. Default 20.
    pub puts_burst: u32,
    /// An attempt that has no answer after this, and after the time that its bytes take at 256 KiB a second, is given up and made again. Default
    /// 10 s. Each time-out doubles what the next attempt may take, up to 4 times, and of its bytes up to 16 times: a way that carries 16 KiB a second
    /// per object carries them all, and a store that was gone for long is found again soon.
    pub attempt_timeout: Duration,
    /// A put is made a second time when it takes longer than this many times what nine of ten took. Default 3; 0 makes none.
    pub hedge_multiple: u32,
    /// It is never made a second time earlier than after this. Default 50 ms.
    pub hedge_after_min: Duration,
    /// The longest wait between two attempts; the first is some milliseconds. Default 1 s.
    pub retry_wait_max: Duration,
    /// How long opening, replaying and closing try before they give up with `Io`. Default 30 s, and longer for a large object: three attempts
    /// that time out. An append is tried for as long as it takes.
    pub patience: Duration,
    /// Bytes that a replay reads ahead. Default 32 MiB. One object is always read.
    pub replay_bytes: usize,
    /// Objects that a replay reads at once. Default 16.
    pub replay_gets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 1 << 30,
            objects_max: 16_384,
            commit_bytes_max: 8 << 20,
            record_bytes_max: 32 << 20,
            in_flight_max: 8,
            overlap_bytes: 1 << 20,
            slab_bytes: 1 << 20,
            queue_bytes_max: 64 << 20,
            puts_per_s: 20,
            puts_burst: 20,
            attempt_timeout: Duration::from_secs(10),
            hedge_multiple: 3,
            hedge_after_min: Duration::from_millis(50),
            retry_wait_max: Duration::from_secs(1),
            patience: Duration::from_secs(30),
            replay_bytes: 32 << 20,
            replay_gets: 16,
        }
    }
}

/// The slowest way to the store that an attempt is given time for, in bytes a second; a slower one costs time-outs at first.
const BYTES_PER_S: u64 = 256 << 10;
/// Time-outs that double what the next attempt may take. A store that is gone and comes back is found again before 4 · `attempt_timeout`, and what the
/// bytes take.
const DOUBLINGS_MAX: u32 = 2;
/// Time-outs that double the time for the bytes.
const BYTES_DOUBLINGS_MAX: u32 = 4;
/// A request is patient for so many times what its bytes take: attempts that time out end after 1, 3 and 7 times.
const PATIENCE_MULTIPLE: u32 = 4;

/// The smallest capacity: a quarter of it holds a header, a prefix and some record.
const CAPACITY_MIN: u64 = 4096;

impl Config {
    /// Whether a log can run with it.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names every setting that is out of bounds.
    pub fn validate(&self) -> Result<(), Error> {
        let overhead = HEADER_LEN + PREFIX_LEN;
        let millis = |d: Duration| d.as_millis() as u64;
        let object_max = OBJECT_LEN_MAX as u64 - 1;
        let bounds = [
            ("capacity", self.capacity, CAPACITY_MIN, 1 << 50),
            (
                "objects_max",
                self.objects_max.into(),
                8,
                self.capacity.min(1 << 20),
            ),
            (
                "commit_bytes_max",
                self.commit_bytes_max as u64,
                overhead as u64 + 1,
                object_max,
            ),
            (
                "record_bytes_max",
                self.record_bytes_max as u64,
                1,
                object_max - overhead as u64,
            ),
            ("in_flight_max", self.in_flight_max as u64, 1, 1024),
            ("overlap_bytes", self.overlap_bytes as u64, 0, object_max),
            ("slab_bytes", self.slab_bytes as u64, 1, object_max),
            ("queue_bytes_max", self.queue_bytes_max as u64, 1, 1 << 40),
            ("puts_per_s", self.puts_per_s.into(), 1, 1_000_000),
            ("puts_burst", self.puts_burst.into(), 1, 1_000_000),
            (
                "attempt_timeout (ms)",
                millis(self.attempt_timeout),
                1,
                3_600_000,
            ),
            ("hedge_multiple", self.hedge_multiple.into(), 0, 1000),
            (
                "hedge_after_min (ms)",
                millis(self.hedge_after_min),
                0,
                3_600_000,
            ),
            (
                "retry_wait_max (ms)",
                millis(self.retry_wait_max),
                1,
                3_600_000,
            ),
            ("patience (ms)", millis(self.patience), 1, 3_600_000),
            ("replay_bytes", self.replay_bytes as u64, 1, 1 << 40),
            ("replay_gets", self.replay_gets as u64, 1, 1024),
        ];
        let problems: Vec<_> = bounds
            .iter()
            .filter(|(_, value, min, max)| value < min || value > max)
            .map(|(name, value, min, max)| format!("{name} {value} is not within {min} to {max}"))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(problems.join("; ")))
        }
    }

    fn quarter(&self) -> usize {
        usize::try_from(self.capacity / 4).unwrap_or(usize::MAX)
    }

    /// How long an attempt that carries so many bytes may take after `late` time-outs of its request.
    pub(crate) fn attempt_limit(&self, len: u64, late: u32) -> Duration {
        let doubled = |most: u32| 2u32.pow(late.min(most));
        self.attempt_timeout * doubled(DOUBLINGS_MAX) + time_of(len) * doubled(BYTES_DOUBLINGS_MAX)
    }

    /// How long after its beginning a request that carries so many bytes begins attempts.
    pub(crate) fn patience_for(&self, len: u64) -> Duration {
        self.patience + time_of(len) * PATIENCE_MULTIPLE
    }

    /// The longest record that is accepted.
    pub(crate) fn record_len_max(&self) -> usize {
        let room = self.quarter().saturating_sub(HEADER_LEN + PREFIX_LEN);
        self.record_bytes_max.min(room)
    }

    /// The longest object that is gathered.
    pub(crate) fn object_len_max(&self) -> usize {
        self.commit_bytes_max.min(self.quarter())
    }
}

/// What bytes take on the slowest way. No object is longer than a `u32` says.
fn time_of(len: u64) -> Duration {
    Duration::from_millis(len.min(u32::MAX.into()) * 1000 / BYTES_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_has_time_for_its_bytes_and_twice_as_much_after_each_time_out() {
        let config = Config::default();
        let seconds = |len, late| config.attempt_limit(len, late).as_secs();
        assert_eq!(
            [seconds(0, 0), seconds(8 << 20, 0), seconds(64 << 20, 0)],
            [10, 42, 266]
        );
        assert_eq!(
            [1, 2, 3, 4, 5, u32::MAX].map(|late| seconds(0, late)),
            [20, 40, 40, 40, 40, 40]
        );
        assert_eq!(
            [1, 2, 3, 4, u32::MAX].map(|late| seconds(8 << 20, late)),
            [84, 168, 296, 552, 552]
        );
        assert_eq!(config.patience_for(0), config.patience);
        let two = config.attempt_limit(8 << 20, 0) + config.attempt_limit(8 << 20, 1);
        assert!(config.patience_for(8 << 20) > two, "a third attempt begins");
        // Whatever a store says of a length, no sum overflows.
        let hour = Duration::from_secs(3600);
        let longest = Config {
            attempt_timeout: hour,
            patience: hour,
            ..config
        };
        assert!(longest.attempt_limit(u64::MAX, u32::MAX) > longest.patience_for(u64::MAX));
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn every_setting_out_of_bounds_is_named() {
        let config = Config {
            in_flight_max: 0,
            commit_bytes_max: 1 << 26,
            patience: Duration::ZERO,
            ..Config::default()
        };
        let Err(Error::Invalid(text)) = config.validate() else {
            panic!("accepted")
        };
        for name in [
            "in_flight_max 0",
            "commit_bytes_max 67108864",
            "patience (ms) 0",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }
}
