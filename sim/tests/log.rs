//! The block log alone: twenty seeds per build, and a seed twice.

use sim::{Counters, Settings, simulate_log};

#[test]
fn twenty_seeds_of_the_log_keep_every_contract() {
    let mut sum = Counters::default();
    for seed in 0..20 {
        let outcome = simulate_log(seed, &Settings::default());
        if let Some(violation) = outcome.violation {
            panic!(
                "seed {seed}: {violation}\nreplay: cargo run --release -p s3stream-sim -- --part log --seeds 1 --seed {seed} --trace"
            );
        }
        sum.add(&outcome.counters);
    }
    assert_eq!(sum.lives, 20 * 40);
    assert!(
        sum.acknowledged > 10_000,
        "hardly anything was tested: {sum:?}"
    );
    assert!(sum.replayed > 1_000, "hardly anything came back: {sum:?}");
}

#[test]
fn a_seed_of_the_log_twice_is_the_same_trace() {
    let settings = Settings {
        lines: true,
        ..Settings::default()
    };
    for seed in [3, 4] {
        let (one, two) = (simulate_log(seed, &settings), simulate_log(seed, &settings));
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
