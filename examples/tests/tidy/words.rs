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

/// Calls that wait or remember without a bound, or look at a clock that nobody injected, wherever they are spelled.
const BANNED_CALLS: &[&str] = &[
    "unbounded_channel",
    "channel::unbounded",
    "SystemTime::now",
    "std::time::Instant",
    "std::env::var",
    "thread_rng",
    "rand::random",
    "getrandom",
];

/// Files that may make a banned call, and why.
const ALLOWED_CALLS: &[(&str, &str, &str)] = &[];

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
            if !ALLOWED_CALLS
                .iter()
                .any(|(path, allowed, _)| path == &file.path && allowed == call)
            {
                findings.extend(
                    code.match_indices(call)
                        .map(|(at, _)| format!("{}:{}: `{call}`", file.path, line_of(&code, at))),
                );
            }
        }
    }
    report("banned calls", &findings);
}

#[test]
fn names_are_split_into_words() {
    assert_eq!(parts("LogCache"), ["log", "cache"]);
    assert_eq!(parts("node_epoch"), ["node", "epoch"]);
    assert!(is_empty_name("StreamManager") && is_empty_name("utils") && !is_empty_name("Database"));
}
