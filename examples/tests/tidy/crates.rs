//! Which crate may know which: arrows point down, leaves know nothing (docs/ARCHITECTURE.md). And that every dependency says why it is there.

use super::{
    report,
    tree::{File, text_files},
};

/// Crate folder and the workspace crates it may depend on.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("wal", &[]),
    ("cache", &[]),
    ("s3stream", &["wal", "cache"]),
    ("segment-adapter", &["s3stream"]),
    ("broker", &["s3stream", "segment-adapter"]),
    ("sim", &["s3stream"]),
    ("examples", &["s3stream"]),
    (
        "benches",
        &["s3stream", "segment-adapter", "wal", "cache", "broker"],
    ),
    (
        "fuzz",
        &["s3stream", "segment-adapter", "wal", "cache", "broker"],
    ),
];

/// A workspace crate by folder, package or library name.
fn folder_of(dependency: &str) -> Option<&'static str> {
    let name = dependency
        .strip_prefix("s3stream-")
        .unwrap_or(dependency)
        .replace('_', "-");
    let name = if name == "bench" { "benches" } else { &name };
    MAY_KNOW
        .iter()
        .map(|(folder, _)| *folder)
        .find(|folder| *folder == name)
}

fn manifests() -> Vec<File> {
    let found: Vec<_> = text_files()
        .into_iter()
        .filter(|file| file.name() == "Cargo.toml")
        .collect();
    assert!(found.len() >= 9, "only {} manifests", found.len());
    found
}

/// What tests alone may know besides.
const TESTS_MAY_KNOW: &[&str] = &["sim"];

struct Dependency<'a> {
    number: usize,
    name: &'a str,
    line: &'a str,
    of_tests: bool,
}

/// Every dependency in a manifest, features and tables excepted.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut found = Vec::new();
    let (mut within, mut of_tests) = (false, false);
    for (number, line) in manifest.lines().enumerate() {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.split(']').next().unwrap_or("");
            within = table.ends_with("dependencies");
            of_tests = table.ends_with("dev-dependencies");
        } else if within && let Some((name, _)) = line.split_once('=') {
            found.push(Dependency {
                number: number + 1,
                name: name.trim().trim_end_matches(".workspace"),
                line,
                of_tests,
            });
        }
    }
    found
}

#[test]
fn arrows_between_crates_point_down() {
    let mut findings = Vec::new();
    for manifest in manifests()
        .iter()
        .filter(|manifest| manifest.path.contains('/'))
    {
        let Some((_, allowed)) = MAY_KNOW
            .iter()
            .find(|(folder, _)| *folder == manifest.top())
        else {
            findings.push(format!(
                "{}: a crate that the table of layers does not know",
                manifest.path
            ));
            continue;
        };
        for dependency in dependencies(&manifest.text) {
            if let Some(folder) = folder_of(dependency.name)
                && folder != manifest.top()
                && !allowed.contains(&folder)
                && !(dependency.of_tests && TESTS_MAY_KNOW.contains(&folder))
            {
                findings.push(format!(
                    "{}:{}: {} may not know {folder}",
                    manifest.path,
                    dependency.number,
                    manifest.top()
                ));
            }
        }
    }
    report("direction of dependencies", &findings);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let mut findings = Vec::new();
    for manifest in manifests() {
        for Dependency {
            number, name, line, ..
        } in dependencies(&manifest.text)
        {
            let is_explained = line.contains(" # ")
                || line.contains("workspace = true")
                || line.contains("path = ");
            if !is_explained {
                findings.push(format!(
                    "{}:{number}: `{name}` has no reason beside it",
                    manifest.path
                ));
            }
        }
    }
    report("reasons of dependencies", &findings);
}

#[test]
fn every_crate_takes_the_lints_and_the_licence_of_the_workspace() {
    let mut findings = Vec::new();
    for manifest in manifests()
        .iter()
        .filter(|manifest| manifest.path.contains('/') && manifest.top() != "fuzz")
    {
        for needed in [
            "[lints]\nworkspace = true",
            "license.workspace = true",
            "rust-version.workspace = true",
        ] {
            if !manifest.text.contains(needed) {
                findings.push(format!(
                    "{}: lacks `{}`",
                    manifest.path,
                    needed.replace('\n', " ")
                ));
            }
        }
    }
    report("manifests", &findings);
}

#[test]
fn packages_come_from_the_public_registry_alone() {
    let lock = text_files()
        .into_iter()
        .find(|file| file.path == "Cargo.lock")
        .expect("Cargo.lock is kept");
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let findings: Vec<_> = lock
        .text
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != public)
        .map(str::to_owned)
        .collect();
    report("sources of packages", &findings);
}
