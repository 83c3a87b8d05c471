//! What a broker counts while it serves: connections, bytes, and each API's requests and how long they took.
//!
//! Counts only grow, and counting takes no lock. What exists in memory anyway is not counted here but looked at when somebody
//! asks ([`status`](crate::status)).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use kafka_protocol::messages::ApiKey;

use crate::wire::apis::APIS;

/// Upper bounds of the classes of durations, in microseconds; what is above the last has a class of its own.
pub(crate) const BOUNDS_MICROS: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// How many classes there are.
pub(crate) const CLASSES: usize = BOUNDS_MICROS.len() + 1;

/// The counters of one broker.
#[derive(Debug)]
pub(crate) struct Metrics {
    by_api: BTreeMap<i16, OfApi>,
    pub(crate) connections: OfConnections,
}

/// How connections began and ended.
#[derive(Debug, Default)]
pub(crate) struct OfConnections {
    pub(crate) accepted: Count,
    pub(crate) refused: Count,
    /// Ended because of what the client did.
    pub(crate) broken: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct OfApi {
    classes: [Count; CLASSES],
    micros: Count,
    bytes_in: Count,
    bytes_out: Count,
}

/// What was counted of one API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ApiCounts {
    pub(crate) key: ApiKey,
    /// Requests by how long they took, from the last byte that arrived to the last that was sent.
    pub(crate) classes: [u64; CLASSES],
    pub(crate) micros: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let keys = APIS.iter().map(|api| (api.key as i16, OfApi::default()));
        Self {
            by_api: keys.collect(),
            connections: OfConnections::default(),
        }
    }

    /// A request that was answered, or that wanted no answer and is done.
    pub(crate) fn done(&self, key: ApiKey, took: Duration, bytes_in: usize, bytes_out: usize) {
        let Some(of_api) = self.by_api.get(&(key as i16)) else {
            return;
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        of_api.classes[class].add(1);
        of_api.micros.add(micros);
        of_api.bytes_in.add(bytes_in as u64);
        of_api.bytes_out.add(bytes_out as u64);
    }

    /// Every API that has been asked for, by key.
    pub(crate) fn apis(&self) -> Vec<ApiCounts> {
        let counts = APIS.iter().filter_map(|api| {
            let of_api = self.by_api.get(&(api.key as i16))?;
            Some(ApiCounts {
                key: api.key,
                classes: std::array::from_fn(|class| of_api.classes[class].get()),
                micros: of_api.micros.get(),
                bytes_in: of_api.bytes_in.get(),
                bytes_out: of_api.bytes_out.get(),
            })
        });
        counts.filter(|counts| counts.requests() > 0).collect()
    }
}

impl ApiCounts {
    pub(crate) fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// A duration that `share` of the requests stayed below, as far as the classes tell; the last bound if it is above that.
    pub(crate) fn quantile_micros(&self, share: f64) -> u64 {
        let wanted = (self.requests() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bounded = self.classes.iter().zip(BOUNDS_MICROS);
        for (count, bound) in bounded {
            seen += count;
            if seen >= wanted {
                return bound;
            }
        }
        BOUNDS_MICROS[CLASSES - 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_class_whose_bound_it_does_not_pass() {
        let metrics = Metrics::new();
        for micros in [0, 250, 251, 10_000_000, 10_000_001] {
            metrics.done(ApiKey::Fetch, Duration::from_micros(micros), 3, 5);
        }
        let [of_fetch] = &metrics.apis()[..] else {
            panic!("one API was asked for");
        };
        assert_eq!(of_fetch.classes[0], 2);
        assert_eq!(of_fetch.classes[1], 1);
        assert_eq!(of_fetch.classes[CLASSES - 2], 1);
        assert_eq!(of_fetch.classes[CLASSES - 1], 1);
        assert_eq!((of_fetch.bytes_in, of_fetch.bytes_out), (15, 25));
        assert_eq!(of_fetch.micros, 20_000_502);
    }

    #[test]
    fn quantiles_are_the_bounds_of_their_classes() {
        let metrics = Metrics::new();
        for micros in (0..99).map(|_| 900).chain([40_000]) {
            metrics.done(ApiKey::Produce, Duration::from_micros(micros), 0, 0);
        }
        let counts = &metrics.apis()[0];
        assert_eq!(counts.quantile_micros(0.5), 1_000);
        assert_eq!(counts.quantile_micros(0.99), 1_000);
        assert_eq!(counts.quantile_micros(0.999), 50_000);
    }
}
