//! The checker is checked: every planted defect is found within a few seeds.

#![cfg(feature = "mutations")]

use sim::{Mutation, Outcome, Settings, simulate_log};

/// The first seed that finds it.
fn found_after(
    mutation: Mutation,
    seeds: u64,
    simulate: impl Fn(u64, &Settings) -> Outcome,
) -> Option<u64> {
    let settings = Settings {
        mutation: Some(mutation),
        ..Settings::default()
    };
    (0..seeds).find(|seed| {
        let violation = simulate(*seed, &settings).violation;
        if let Some(violation) = &violation {
            println!("{} after {} seeds: {violation}", mutation.name(), seed + 1);
        }
        violation.is_some()
    })
}

/// Those that the log shows without a node around it.
const OF_THE_LOG: [Mutation; 4] = [
    Mutation::AcknowledgeBeforeDurable,
    Mutation::SkipSyncAfterReplay,
    Mutation::TrimBeforeCommit,
    Mutation::SkipRecordInReplay,
];

#[test]
fn every_defect_planted_in_the_log_is_found() {
    let missed: Vec<&str> = OF_THE_LOG
        .into_iter()
        .filter(|mutation| found_after(*mutation, 20, simulate_log).is_none())
        .map(Mutation::name)
        .collect();
    assert!(missed.is_empty(), "not found in 20 seeds: {missed:?}");
}
