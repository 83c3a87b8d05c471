//! What goes wrong how often, and how often it did.
//!
//! Rates are per mille of the operations a fault can strike, drawn per seed: most seeds have a few kinds at a moderate
//! rate, some are calm, so that what is found is not always found in a storm. Faults can be stopped as a whole: a
//! healed world must come to rest.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::Entropy;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A disk operation takes up to seconds.
    DiskSlow,
    /// A write fails; any part of it may be there.
    DiskWriteFails,
    /// A read fails.
    DiskReadFails,
    /// A request takes up to a minute.
    BucketSlow,
    /// A request is refused and has no effect.
    BucketFails,
    /// A request is refused as too many, and so are those of the next moments.
    BucketThrottles,
    /// No request has an effect for minutes.
    BucketOutage,
    /// A request has its effect, and an error is the answer.
    BucketAnswerLost,
    /// An error is the answer, and the request has its effect later.
    BucketArrivesLate,
    /// The process dies.
    ProcessCrash,
    /// The host dies.
    PowerCut,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::DiskSlow,
        Self::DiskWriteFails,
        Self::DiskReadFails,
        Self::BucketSlow,
        Self::BucketFails,
        Self::BucketThrottles,
        Self::BucketOutage,
        Self::BucketAnswerLost,
        Self::BucketArrivesLate,
        Self::ProcessCrash,
        Self::PowerCut,
    ];

    /// The highest rate that a seed may draw, per mille. Crashes are not drawn per operation.
    fn highest(self) -> u64 {
        match self {
            Self::DiskSlow => 30,
            Self::DiskWriteFails | Self::DiskReadFails => 2,
            Self::BucketSlow => 100,
            Self::BucketFails | Self::BucketAnswerLost | Self::BucketArrivesLate => 80,
            Self::BucketThrottles => 20,
            Self::BucketOutage => 5,
            Self::ProcessCrash | Self::PowerCut => 0,
        }
    }
}

/// The plan of one seed and its counters. Clones share them.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug)]
struct Plan {
    entropy: Entropy,
    rates: BTreeMap<Fault, u64>,
    struck: BTreeMap<Fault, u64>,
    stopped: bool,
}

impl Faults {
    /// A plan drawn from `entropy`.
    pub fn drawn(entropy: Entropy) -> Self {
        let calm = entropy.chance(150);
        let rates = Fault::ALL
            .into_iter()
            .filter(|_| !calm && entropy.chance(600))
            .map(|fault| (fault, entropy.within(0..fault.highest() + 1)))
            .collect();
        Self::planned(entropy, rates)
    }

    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::planned(Entropy::new(0), BTreeMap::new())
    }

    /// These rates, per mille.
    pub fn planned(entropy: Entropy, rates: BTreeMap<Fault, u64>) -> Self {
        Self(Arc::new(Mutex::new(Plan {
            entropy,
            rates,
            struck: BTreeMap::new(),
            stopped: false,
        })))
    }

    /// Whether `fault` strikes this operation; counted if so.
    pub fn strikes(&self, fault: Fault) -> bool {
        let mut plan = self.0.lock();
        let rate = plan.rates.get(&fault).copied().unwrap_or(0);
        let strikes = rate > 0 && !plan.stopped && plan.entropy.chance(rate);
        if strikes {
            *plan.struck.entry(fault).or_default() += 1;
        }
        strikes
    }

    /// Counts one that came about otherwise.
    pub fn count(&self, fault: Fault) {
        *self.0.lock().struck.entry(fault).or_default() += 1;
    }

    /// From here on nothing strikes.
    pub fn heal(&self) {
        self.0.lock().stopped = true;
    }

    /// How often each kind struck.
    pub fn struck(&self) -> BTreeMap<Fault, u64> {
        self.0.lock().struck.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_some_seeds_every_kind_that_strikes_operations_is_planned() {
        let mut planned = BTreeMap::<Fault, u64>::new();
        for seed in 0..40 {
            for (fault, rate) in &Faults::drawn(Entropy::new(seed)).0.lock().rates {
                *planned.entry(*fault).or_default() += rate;
            }
        }
        for fault in Fault::ALL {
            let planned = planned.get(&fault).copied().unwrap_or(0);
            assert_eq!(planned > 0, fault.highest() > 0, "{fault:?}");
        }
    }

    #[test]
    fn what_strikes_is_counted_and_nothing_strikes_a_healed_world() {
        let rates = BTreeMap::from([(Fault::DiskSlow, 500)]);
        let faults = Faults::planned(Entropy::new(5), rates);
        let struck = (0..100).filter(|_| faults.strikes(Fault::DiskSlow)).count() as u64;
        assert!((20..80).contains(&struck));
        assert!(!faults.strikes(Fault::BucketFails));
        assert_eq!(faults.struck(), BTreeMap::from([(Fault::DiskSlow, struck)]));
        faults.heal();
        assert!((0..100).all(|_| !faults.strikes(Fault::DiskSlow)));
    }
}
