//! Documents stay true: the paths, types and tests that they name exist.

use std::collections::BTreeSet;

use super::{
    report,
    source::{blank, identifier, places},
    tree::{File, root, rust_files, text_files},
};

/// Lines of the document that a newcomer reads first.
const ARCHITECTURE_LINES_MAX: usize = 250;

fn markdown() -> Vec<File> {
    text_files()
        .into_iter()
        .filter(|file| file.path.ends_with(".md"))
        .collect()
}

/// What stands between single backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Names declared in the tree by one of these keywords.
fn declared(keywords: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in rust_files() {
        let code = blank(&file.text);
        for keyword in keywords {
            names.extend(
                places(&code, keyword)
                    .iter()
                    .map(|at| identifier(&code, at + keyword.len()).to_owned()),
            );
        }
    }
    names
}

/// Whether a quoted word is meant as a path of this repository.
fn is_path(word: &str) -> bool {
    let first = word.split('/').next().unwrap_or("");
    let known = [
        "wal",
        "cache",
        "s3stream",
        "segment-adapter",
        "broker",
        "sim",
        "examples",
        "fuzz",
        "benches",
        "docs",
        ".ci",
    ];
    word.contains('/')
        && known.contains(&first)
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
}

#[test]
fn architecture_is_at_most_250_lines() {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md"))
        .expect("docs/ARCHITECTURE.md is kept");
    assert!(
        text.lines().count() <= ARCHITECTURE_LINES_MAX,
        "docs/ARCHITECTURE.md: {} lines",
        text.lines().count()
    );
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut findings = Vec::new();
    for file in markdown() {
        for (number, line) in file.text.lines().enumerate() {
            for word in quoted(line).filter(|word| is_path(word)) {
                if !root().join(word).exists() {
                    findings.push(format!(
                        "{}:{}: `{word}` does not exist",
                        file.path,
                        number + 1
                    ));
                }
            }
        }
    }
    report("paths in documents", &findings);
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut findings = Vec::new();
    for file in markdown() {
        let folder = root()
            .join(&file.path)
            .parent()
            .expect("a file has a folder")
            .to_path_buf();
        for (number, line) in file.text.lines().enumerate() {
            for target in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
            {
                let path = target.split('#').next().unwrap_or("");
                if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                    findings.push(format!("{}:{}: link to {target}", file.path, number + 1));
                }
            }
        }
    }
    report("links", &findings);
}

#[test]
fn the_types_and_tests_that_keep_a_contract_exist() {
    let text = std::fs::read_to_string(root().join("docs/contracts.md"))
        .expect("docs/contracts.md is kept");
    let functions = declared(&["fn"]);
    let types = declared(&["struct", "enum", "trait", "type", "fn", "const", "mod"]);
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (names, what) = match line.trim_start() {
            kept if kept.starts_with("- Kept by:") => (&types, "type"),
            tested if tested.starts_with("- Tested by:") => (&functions, "test"),
            _ => continue,
        };
        for word in quoted(line).filter(|word| !is_path(word)) {
            if word
                .split("::")
                .any(|part| !names.contains(part) && !types.contains(part))
            {
                findings.push(format!(
                    "docs/contracts.md:{}: no {what} `{word}`",
                    number + 1
                ));
            }
        }
    }
    report("contracts", &findings);
}

#[test]
fn every_contract_says_what_keeps_it_and_what_tests_it() {
    let text = std::fs::read_to_string(root().join("docs/contracts.md"))
        .expect("docs/contracts.md is kept");
    let mut findings = Vec::new();
    for section in text.split("\n### ").skip(1) {
        let title = section.lines().next().unwrap_or("");
        for needed in ["- Kept by:", "- Tested by:"] {
            if !section.contains(needed) {
                findings.push(format!("{title}: no `{needed}`"));
            }
        }
    }
    report("contracts", &findings);
}
