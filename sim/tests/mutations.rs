//! The checker is checked: every planted defect is found within a few seeds.

#![cfg(feature = "mutations")]

use sim::{Mutation, Outcome, Settings, simulate, simulate_log};

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

/// Without the sync that is skipped after a replay: it needs a power cut soon after a crash that tore, which forty lives
/// of the log have and a node's few do not.
const UNDER_A_NODE: [Mutation; 5] = [
    Mutation::AcknowledgeBeforeDurable,
    Mutation::SwallowUpload,
    Mutation::SwapAlways,
    Mutation::TrimBeforeCommit,
    Mutation::SkipRecordInReplay,
];

#[test]
fn every_defect_is_in_one_of_the_lists() {
    let listed = |mutation| OF_THE_LOG.contains(&mutation) || UNDER_A_NODE.contains(&mutation);
    assert!(Mutation::ALL.into_iter().all(listed));
}

#[test]
fn every_defect_planted_under_a_node_is_found() {
    let missed: Vec<&str> = UNDER_A_NODE
        .into_iter()
        .filter(|mutation| found_after(*mutation, 20, simulate).is_none())
        .map(Mutation::name)
        .collect();
    assert!(missed.is_empty(), "not found in 20 seeds: {missed:?}");
}
