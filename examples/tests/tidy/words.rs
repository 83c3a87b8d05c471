//! Words: names that say nothing, words that belong to another layer, and places of somebody's machine.

use super::{
    report,
    source::{blank, identifier, line_of, places, production},
    tree::{is_production, rust_files, text_files},
};

/// Words that a name may not be made of: they say that it has a place, not what it is.
const EMPTY_WORDS: &[&str] = &[
    "manager", "helper", "helpers", "util", "utils", "common", "inner", "impl", "base", "v2",
    "misc",
];

/// Kafka's words: they stop at `segment-adapter`, so that an engine under another protocol reads as well.
const KAFKA_WORDS: &[&str] = &[
    "kafka",
    "topic",
    "high watermark",
    "high_watermark",
    "highwatermark",
    "leader epoch",
    "leader_epoch",
    "leaderepoch",
    "last stable offset",
    "producer id",
    "producer_id",
    "consumer group",
];

/// Crates that know no Kafka word.
const KAFKA_FREE: &[&str] = &["wal", "cache", "s3stream"];

/// Calls that clippy's bans (`clippy.toml`) cannot name, because their crates are not dependencies.
const BANNED_CALLS: &[&str] = &["thread_rng", "rand::random", "getrandom"];

/// Engine files that lift clippy's bans for themselves; each says why beside it.
const LIFTS: &[&str] = &[
    "s3stream/src/store/local.rs",
    "wal/src/block/file.rs",
    "wal/src/nfs/mounted.rs",
];

/// Crates that run in the simulator, where time, chance and threads are injected.
const SIMULATED: &[&str] = &["wal", "cache", "s3stream", "segment-adapter"];

/// `FooBar` and `foo_bar` as `foo`, `bar`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter.is_uppercase() {
            parts.push(String::new());
        }
        if letter != '_' {
            parts
                .last_mut()
                .expect("never empty")
                .extend(letter.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn is_empty_name(name: &str) -> bool {
    parts(name)
        .iter()
        .any(|part| EMPTY_WORDS.contains(&part.as_str()))
}

#[test]
fn names_of_types_and_modules_say_what_they_are() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let stem = file.name().trim_end_matches(".rs");
        if is_empty_name(stem) {
            findings.push(format!("{}: the file's name says nothing", file.path));
        }
        let code = blank(&file.text);
        for word in ["struct", "enum", "trait", "type", "mod", "union"] {
            for at in places(&code, word) {
                let name = identifier(&code, at + word.len());
                if is_empty_name(name) {
                    findings.push(format!(
                        "{}:{}: `{word} {name}` says nothing",
                        file.path,
                        line_of(&code, at)
                    ));
                }
            }
        }
    }
    report("empty names", &findings);
}

#[test]
fn kafka_words_stop_at_the_segment_adapter() {
    let mut findings = Vec::new();
    for file in text_files()
        .iter()
        .filter(|file| KAFKA_FREE.contains(&file.top()) && file.path.ends_with(".rs"))
    {
        for (number, line) in file.text.lines().enumerate() {
            let line = line.to_lowercase();
            findings.extend(
                KAFKA_WORDS
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{}:{}: `{word}`", file.path, number + 1)),
            );
        }
    }
    report("Kafka's words below the adapter", &findings);
}

#[test]
fn the_tree_names_no_place_of_a_machine() {
    // Spelled in pieces, so that this file passes its own rule.
    let homes = ["work", "farm", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let hosts = [
        "art|ifactory",
        "jf|rog",
        "--index|-url",
        "--extra-index|-url",
        "find|-links",
    ]
    .map(|name| name.replace('|', ""));
    let mut findings = Vec::new();
    for file in text_files()
        .iter()
        .filter(|file| file.name() != "Cargo.lock")
    {
        for (number, line) in file.text.lines().enumerate() {
            let names_home = homes.iter().any(|home| {
                line.match_indices(home.as_str())
                    .any(|(at, _)| starts_path(line, at))
            });
            if names_home || hosts.iter().any(|host| line.contains(host.as_str())) {
                findings.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    report("places of a machine", &findings);
}

/// Whether an absolute path starts here, rather than a relative one or an address going on.
fn starts_path(line: &str, at: usize) -> bool {
    !line[..at]
        .chars()
        .next_back()
        .is_some_and(|before| before.is_alphanumeric() || "_.-/{}*".contains(before))
}

#[test]
fn production_code_makes_no_banned_call() {
    let mut findings = Vec::new();
    for file in rust_files().iter().filter(|file| is_production(&file.path)) {
        let code = production(&file.text);
        for call in BANNED_CALLS {
            findings.extend(
                code.match_indices(call)
                    .map(|(at, _)| format!("{}:{}: `{call}`", file.path, line_of(&code, at))),
            );
        }
    }
    report("banned calls", &findings);
}

#[test]
fn bans_are_lifted_with_a_reason_and_in_the_engine_only_where_listed() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let code = blank(&file.text);
        for at in places(&code, "disallowed_methods") {
            let place = format!("{}:{}", file.path, line_of(&code, at));
            let attribute = code[at..].split(']').next().unwrap_or("");
            if !attribute.contains("reason =") {
                findings.push(format!("{place}: no reason"));
            }
            if SIMULATED.contains(&file.top())
                && is_production(&file.path)
                && !LIFTS.contains(&file.path.as_str())
            {
                findings.push(format!("{place}: this file is not listed"));
            }
        }
    }
    report("lifted bans", &findings);
}

#[test]
fn names_are_split_into_words() {
    assert_eq!(parts("LogCache"), ["log", "cache"]);
    assert_eq!(parts("node_epoch"), ["node", "epoch"]);
    assert!(is_empty_name("StreamManager") && is_empty_name("utils") && !is_empty_name("Database"));
}
