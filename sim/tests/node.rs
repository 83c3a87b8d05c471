//! One node in a faulty world: twenty seeds per build, and a seed twice.

use sim::{Counters, LogKind, Settings, simulate};

/// Simulates seeds of a node with its log on the disk or in the bucket, and asks for enough of everything to have been done.
fn keep_every_contract(log: LogKind, seeds: u64, part: &str) {
    let settings = Settings {
        log,
        ..Settings::default()
    };
    let mut sum = Counters::default();
    for seed in 0..seeds {
        let outcome = simulate(seed, &settings);
        if let Some(violation) = outcome.violation {
            panic!(
                "seed {seed}: {violation}\nreplay: cargo run --release -p s3stream-sim -- --part {part} --seeds 1 --seed {seed} --hours {} --trace",
                settings.time.as_secs_f64() / 3_600.0
            );
        }
        sum.add(&outcome.counters);
    }
    println!("{sum:?}");
    assert!(sum.lives > 5 * seeds, "hardly any crash: {sum:?}");
    assert!(
        sum.acknowledged > 500 * seeds,
        "hardly anything was appended: {sum:?}"
    );
    assert!(
        sum.replayed > 50 * seeds,
        "hardly anything came back from the log: {sum:?}"
    );
    // A log in the bucket meets no fault of a disk.
    let kinds = if log == LogKind::Block { 8 } else { 6 };
    assert!(
        sum.faults.len() >= kinds,
        "too few kinds of faults: {sum:?}"
    );
}

#[test]
fn twenty_seeds_of_a_node_keep_every_contract() {
    keep_every_contract(LogKind::Block, 20, "node");
}

#[test]
fn ten_seeds_of_a_node_whose_log_is_in_the_bucket_keep_every_contract() {
    keep_every_contract(LogKind::Object, 10, "node-object");
}

#[test]
fn a_seed_of_a_node_twice_is_the_same_trace() {
    for (seed, log) in [
        (3, LogKind::Block),
        (5, LogKind::Block),
        (3, LogKind::Object),
    ] {
        let settings = Settings {
            lines: true,
            log,
            ..Settings::default()
        };
        let (one, two) = (simulate(seed, &settings), simulate(seed, &settings));
        let differs = one
            .lines
            .iter()
            .zip(&two.lines)
            .position(|(one, two)| one != two);
        if let Some(at) = differs {
            panic!(
                "seed {seed} differs at event {at}:\n{}\n{}",
                one.lines[at], two.lines[at]
            );
        }
        assert_eq!(one.digest, two.digest);
        assert_eq!(one.counters, two.counters);
        assert!(one.lines.len() > 1_000, "{} events", one.lines.len());
    }
}
