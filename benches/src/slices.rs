//! A run cut in slices, engine and baseline in turn, so that a noisy neighbour hits both.
//!
//! `ratio = median over the pairs of engine / baseline`: one disturbed slice moves it little.

use std::time::Duration;

use crate::{Result, latency::Latency};

/// What one side did in one slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) latency: Latency,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) elapsed: Duration,
    /// CPU time of the whole process meanwhile, that of the generator included.
    pub(crate) cpu: Duration,
    /// Of it, what the generator spun before paced starts.
    pub(crate) spun: Duration,
    /// The largest resident set meanwhile.
    pub(crate) peak_rss_mib: Option<f64>,
}

impl Slice {
    pub(crate) fn mib_per_s(&self) -> Option<f64> {
        per_s(self.bytes as f64 / MIB, self.elapsed)
    }

    pub(crate) fn records_per_s(&self) -> Option<f64> {
        per_s(self.records as f64, self.elapsed)
    }

    fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.bytes += other.bytes;
        self.records += other.records;
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        self.spun += other.spun;
        self.peak_rss_mib = match (self.peak_rss_mib, other.peak_rss_mib) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
    }
}

pub(crate) const MIB: f64 = 1_048_576.0;
pub(crate) const GIB: f64 = 1_073_741_824.0;

fn per_s(amount: f64, elapsed: Duration) -> Option<f64> {
    (amount > 0.0 && !elapsed.is_zero()).then(|| amount / elapsed.as_secs_f64())
}

/// One slice of each side, measured right after one another.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) engine: Slice,
    pub(crate) baseline: Slice,
}

/// Measures `count` pairs: engine, baseline, engine, baseline and so on.
pub(crate) fn interleave<S>(
    side: &mut S,
    count: usize,
    mut engine: impl FnMut(&mut S, usize) -> Result<Slice>,
    mut baseline: impl FnMut(&mut S, usize) -> Result<Slice>,
) -> Result<Vec<Pair>> {
    (0..count)
        .map(|index| {
            Ok(Pair {
                engine: engine(side, index)?,
                baseline: baseline(side, index)?,
            })
        })
        .collect()
}

/// All slices of one side as one.
pub(crate) fn total<'a>(slices: impl Iterator<Item = &'a Slice>) -> Slice {
    let mut sum = Slice::default();
    for slice in slices {
        sum.merge(slice);
    }
    sum
}

/// The median over the pairs of engine / baseline; pairs where one side has no figure are left out.
pub(crate) fn median_ratio(pairs: &[Pair], figure: impl Fn(&Slice) -> Option<f64>) -> Option<f64> {
    let ratios = pairs
        .iter()
        .filter_map(|pair| {
            let (engine, baseline) = (figure(&pair.engine)?, figure(&pair.baseline)?);
            (baseline > 0.0).then(|| engine / baseline)
        })
        .collect();
    median(ratios)
}

/// The middle of the values, or the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values
        .get(values.len() / 2 - 1)
        .map(|lower| (lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(micros: u64, bytes: u64) -> Slice {
        let mut slice = Slice {
            bytes,
            records: 1,
            elapsed: Duration::from_secs(1),
            ..Slice::default()
        };
        slice.latency.record(Duration::from_micros(micros));
        slice
    }

    #[test]
    fn engine_and_baseline_take_turns() {
        let mut calls = Vec::new();
        let pairs = interleave(
            &mut calls,
            3,
            |calls, index| {
                calls.push(("engine", index));
                Ok(Slice::default())
            },
            |calls, index| {
                calls.push(("baseline", index));
                Ok(Slice::default())
            },
        )
        .unwrap();
        assert_eq!(pairs.len(), 3);
        assert_eq!(
            calls,
            [
                ("engine", 0),
                ("baseline", 0),
                ("engine", 1),
                ("baseline", 1),
                ("engine", 2),
                ("baseline", 2)
            ]
        );
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_not_of_the_sums() {
        let pair = |engine, baseline| Pair {
            engine: slice(engine, 1),
            baseline: slice(baseline, 1),
        };
        // The second pair hit a slow spell on both sides, the third on the engine's alone.
        let pairs = [pair(120, 100), pair(2_200, 2_000), pair(9_000, 100)];
        let ratio = median_ratio(&pairs, |slice| slice.latency.micros(0.5)).unwrap();
        assert!((ratio - 1.2).abs() < 0.01, "{ratio}");
    }

    #[test]
    fn throughput_is_bytes_over_time_and_its_ratio_is_engine_over_baseline() {
        let pairs = [Pair {
            engine: slice(1, 6 << 20),
            baseline: slice(1, 10 << 20),
        }];
        let ratio = median_ratio(&pairs, Slice::mib_per_s).unwrap();
        assert!((ratio - 0.6).abs() < 1e-9);
        assert_eq!(total(pairs.iter().map(|pair| &pair.engine)).bytes, 6 << 20);
    }

    #[test]
    fn without_a_figure_there_is_no_ratio() {
        let pairs = [Pair {
            engine: slice(1, 1),
            baseline: Slice::default(),
        }];
        assert_eq!(median_ratio(&pairs, Slice::mib_per_s), None);
        assert_eq!(median(Vec::new()), None);
        assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
    }
}
