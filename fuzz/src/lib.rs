//! What each fuzz target does with its bytes, and where it starts from.
//!
//! A target is a function from bytes to nothing: it panics when a promise is broken. Checksums would keep a fuzzer out
//! of everything behind them, so each target also tries its input with the checksums made right.
//!
//! The fuzzer itself is in `fuzz_targets`; this library does not know it.

pub mod compact;
pub mod kafka_log;
pub mod metadata_entry;
pub mod metadata_head;
pub mod metadata_snapshot;
pub mod nfs_directory;
pub mod object;
pub mod object_log;
pub mod record_batch;
pub mod wal_replay;

/// A target: its name, what it does, and inputs to start from.
pub struct Target {
    /// The name of the binary.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Makes the first inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "metadata_entry",
        run: metadata_entry::run,
        seeds: metadata_entry::seeds,
    },
    Target {
        name: "metadata_snapshot",
        run: metadata_snapshot::run,
        seeds: metadata_snapshot::seeds,
    },
    Target {
        name: "object",
        run: object::run,
        seeds: object::seeds,
    },
    Target {
        name: "record_batch",
        run: record_batch::run,
        seeds: record_batch::seeds,
    },
    Target {
        name: "compact",
        run: compact::run,
        seeds: compact::seeds,
    },
    Target {
        name: "kafka_log",
        run: kafka_log::run,
        seeds: kafka_log::seeds,
    },
    Target {
        name: "kafka_producers",
        run: kafka_log::run_producers,
        seeds: kafka_log::producer_seeds,
    },
    Target {
        name: "wal_replay",
        run: wal_replay::run,
        seeds: wal_replay::seeds,
    },
    Target {
        name: "nfs_directory",
        run: nfs_directory::run,
        seeds: nfs_directory::seeds,
    },
    Target {
        name: "object_log",
        run: object_log::run,
        seeds: object_log::seeds,
    },
    Target {
        name: "metadata_head",
        run: metadata_head::run,
        seeds: metadata_head::seeds,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_its_prefixes_and_its_bit_flips_keep_every_promise() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            for seed in seeds {
                for len in 0..=seed.len().min(400) {
                    (target.run)(&seed[..len]);
                }
                for at in 0..seed.len().min(1_000) {
                    let mut flipped = seed.clone();
                    flipped[at] ^= 1 << (at % 8);
                    (target.run)(&flipped);
                }
            }
        }
    }
}
