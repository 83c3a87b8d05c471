//! Randomness that can be given: names of things, jitter. Not for secrets.
//!
//! The same seed gives the same numbers in the same order of calls.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A source of random numbers; clones draw from the same sequence.
#[derive(Clone, Debug)]
pub struct Entropy {
    counter: Arc<AtomicU64>,
    salt: u64,
}

impl Entropy {
    /// A fixed sequence.
    pub fn seeded(seed: u64) -> Self {
        Self {
            counter: Arc::new(AtomicU64::new(seed)),
            salt: 0,
        }
    }

    /// A sequence that the operating system's randomness starts: 128 bits, by way of the standard library's hash keys.
    pub fn from_os() -> Self {
        let keys = RandomState::new();
        Self {
            counter: Arc::new(AtomicU64::new(keys.hash_one(0u64))),
            salt: keys.hash_one(1u64),
        }
    }

    /// The next number.
    pub fn next_u64(&self) -> u64 {
        let step = self.counter.fetch_add(GAMMA, Ordering::Relaxed);
        mix(mix(step) ^ self.salt)
    }

    /// The next two, as one.
    pub fn next_u128(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// Something below `bound`, or nothing if the bound is.
    pub fn below(&self, bound: Duration) -> Duration {
        let nanos = bound.as_nanos().min(u128::from(u64::MAX)) as u64;
        match nanos {
            0 => Duration::ZERO,
            // The bias of the remainder is below one part in 2^20 for anything under an hour: fine for jitter.
            _ => Duration::from_nanos(self.next_u64() % nanos),
        }
    }
}

/// SplitMix64's increment: odd, so the counter visits every number.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function.
const fn mix(step: u64) -> u64 {
    let a = (step ^ (step >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_seed_others() {
        let draw = |entropy: Entropy| (0..8).map(|_| entropy.next_u64()).collect::<Vec<_>>();
        assert_eq!(draw(Entropy::seeded(7)), draw(Entropy::seeded(7)));
        assert_ne!(draw(Entropy::seeded(7)), draw(Entropy::seeded(8)));
        assert_ne!(draw(Entropy::from_os()), draw(Entropy::from_os()));
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        let entropy = Entropy::seeded(1);
        let bound = Duration::from_millis(3);
        assert!((0..1000).all(|_| entropy.below(bound) < bound));
        assert_eq!(entropy.below(Duration::ZERO), Duration::ZERO);
    }
}
