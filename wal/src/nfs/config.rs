//! What may be chosen about an NFS log. None of it is part of the format: each may change between two openings.

use std::time::Duration;

use crate::{Error, block};

const LEASE_MIN: Duration = Duration::from_millis(10);
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(3600);
/// One tenth: a clock that is off by more is broken.
const DRIFT_PPM_MAX: u32 = 100_000;

/// Settings of an NFS log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How frames are gathered, and whether files are asked for `O_DIRECT`.
    pub commits: block::Config,
    /// How long an owner may acknowledge without looking whether someone took the directory; within a millisecond. Default 10 s. It is what a take-over from an
    /// owner that did not close waits; a busy owner makes and removes a small file each half of it.
    pub lease: Duration,
    /// How much faster the taker's clock may run than the owner's, in parts per million. Default 10,000, which is one percent.
    pub drift_ppm: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commits: block::Config::default(),
            lease: Duration::from_secs(10),
            drift_ppm: 10_000,
        }
    }
}

impl Config {
    /// Whether a log can run with it.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names every setting that is out of bounds.
    pub fn validate(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        if let Err(e) = self.commits.validate() {
            problems.push(e.to_string());
        }
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            problems.push(format!(
                "lease {:?} is not within {LEASE_MIN:?} to {LEASE_MAX:?}",
                self.lease
            ));
        }
        if self.drift_ppm > DRIFT_PPM_MAX {
            problems.push(format!(
                "drift_ppm {} is not within 0 to {DRIFT_PPM_MAX}",
                self.drift_ppm
            ));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(problems.join("; ")))
        }
    }

    /// What a taker waits, on its own clock, for a lease of this length to have ended on its owner's.
    pub(crate) fn wait_for(&self, lease: Duration) -> Duration {
        lease + lease.mul_f64(f64::from(self.drift_ppm) / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_taker_waits_longer_than_a_lease() {
        let config = Config::default();
        config.validate().unwrap();
        assert_eq!(config.wait_for(config.lease), Duration::from_millis(10_100));
    }

    #[test]
    fn every_setting_out_of_bounds_is_named() {
        let config = Config {
            commits: block::Config {
                in_flight_max: 0,
                ..block::Config::default()
            },
            lease: Duration::ZERO,
            drift_ppm: 1 << 20,
        };
        let Err(Error::Invalid(text)) = config.validate() else {
            panic!("accepted")
        };
        for name in ["in_flight_max", "lease", "drift_ppm"] {
            assert!(text.contains(name), "{text}");
        }
    }
}
