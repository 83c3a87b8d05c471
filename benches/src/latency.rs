//! Latencies in a histogram: 3 significant digits from 1 ns to 10 minutes; what is longer counts as 10 minutes.

use std::time::Duration;

use hdrhistogram::Histogram;

/// 10 minutes in nanoseconds.
const LONGEST_NS: u64 = 600_000_000_000;

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, LONGEST_NS, 3)
                .expect("1 < LONGEST_NS, and 3 digits are allowed"),
        )
    }
}

impl Latency {
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("both histograms have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value at `quantile` (0 to 1) in microseconds; nothing when nothing was recorded.
    pub(crate) fn micros(&self, quantile: f64) -> Option<f64> {
        (self.count() > 0).then(|| self.0.value_at_quantile(quantile) as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_back_within_a_thousandth() {
        let mut latency = Latency::default();
        for micros in 1..=1_000 {
            latency.record(Duration::from_micros(micros));
        }
        let p50 = latency.micros(0.5).unwrap();
        assert!((p50 - 500.0).abs() < 1.0, "{p50}");
        assert!((latency.micros(0.99).unwrap() - 990.0).abs() < 2.0);
    }

    #[test]
    fn an_empty_distribution_has_no_quantile() {
        assert_eq!(Latency::default().micros(0.5), None);
    }

    #[test]
    fn merging_keeps_every_value_and_an_endless_one_saturates() {
        let mut one = Latency::default();
        one.record(Duration::from_micros(1));
        let mut other = Latency::default();
        other.record(Duration::MAX);
        one.merge(&other);
        assert_eq!(one.count(), 2);
        assert!(one.micros(1.0).unwrap() > 5e8);
    }
}
