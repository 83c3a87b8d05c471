//! All randomness of a simulation comes from one seed through here.
//!
//! Every part forks an entropy of its own by name, so that one more draw in one part does not shift the others.
//! Not for anything that has to be unpredictable.

use std::{ops::Range, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// A shared source of numbers (SplitMix64). Clones draw from the same sequence.
#[derive(Clone, Debug)]
pub struct Entropy(Arc<Mutex<u64>>);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of `value` over the whole word; a bijection.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Entropy {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(mix(seed.wrapping_add(GOLDEN)))))
    }

    /// A sequence of its own for the part `name`.
    pub fn fork(&self, name: &str) -> Self {
        let start = name
            .bytes()
            .fold(self.next(), |hash, byte| mix(hash ^ u64::from(byte)));
        Self(Arc::new(Mutex::new(start)))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(GOLDEN);
        mix(*state)
    }

    /// A number in `range`; its start if it is empty.
    pub fn within(&self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        range.start + self.next() % width
    }

    /// True `per_mille` times of a thousand.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.within(0..1_000) < per_mille
    }

    /// A time in `range`, in whole microseconds. Small ones are as likely as large ones per octave: most waits are
    /// short, a few are very long.
    pub fn wait(&self, range: Range<Duration>) -> Duration {
        let low = micros(range.start).max(1);
        let high = micros(range.end).max(low + 1);
        let octaves = u64::from((high / low).max(1).ilog2()) + 1;
        let top = low.saturating_mul(
            2u64.saturating_pow(u32::try_from(self.within(1..octaves + 1)).unwrap_or(u32::MAX)),
        );
        Duration::from_micros(self.within(low..top.min(high)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_and_forks_do_not_shift_one_another() {
        let draw = |extra: usize| {
            let root = Entropy::new(7);
            let (one, other) = (root.fork("one"), root.fork("other"));
            for _ in 0..extra {
                one.next();
            }
            (other.next(), other.next())
        };
        assert_eq!(draw(0), draw(9));
        assert_ne!(Entropy::new(1).next(), Entropy::new(2).next());
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_both_ends() {
        let entropy = Entropy::new(3);
        let drawn: Vec<u64> = (0..1_000).map(|_| entropy.within(5..8)).collect();
        assert!((5..8).all(|value| drawn.contains(&value)));
        assert!(drawn.iter().all(|value| (5..8).contains(value)));
        let range = Duration::from_micros(100)..Duration::from_secs(10);
        let waits: Vec<Duration> = (0..10_000).map(|_| entropy.wait(range.clone())).collect();
        assert!(waits.iter().all(|wait| range.contains(wait)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_micros(200)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(5)));
        assert_eq!(entropy.within(4..4), 4);
    }
}
