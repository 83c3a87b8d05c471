//! One node in a faulty world: twenty seeds per build, and a seed twice.

use sim::{Counters, Settings, simulate};

#[test]
fn twenty_seeds_of_a_node_keep_every_contract() {
    let mut sum = Counters::default();
    for seed in 0..20 {
        let outcome = simulate(seed, &Settings::default());
        if let Some(violation) = outcome.violation {
            panic!(
                "seed {seed}: {violation}\nreplay: cargo run --release -p s3stream-sim -- --seeds 1 --seed {seed} --hours {} --trace",
                Settings::default().time.as_secs_f64() / 3_600.0
            );
        }
        sum.add(&outcome.counters);
    }
    println!("{sum:?}");
    assert!(sum.lives > 100, "hardly any crash: {sum:?}");
    assert!(
        sum.acknowledged > 10_000,
        "hardly anything was appended: {sum:?}"
    );
    assert!(
        sum.replayed > 1_000,
        "hardly anything came back from the log: {sum:?}"
    );
    assert!(sum.faults.len() >= 8, "too few kinds of faults: {sum:?}");
}

#[test]
fn a_seed_of_a_node_twice_is_the_same_trace() {
    let settings = Settings {
        lines: true,
        ..Settings::default()
    };
    for seed in [3, 5] {
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
