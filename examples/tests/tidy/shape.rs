//! The shape of the code: lengths, module documents, and constructs that have one right form.

use super::{
    report,
    source::{blank, identifier, is_word, item_end, line_of, places, production},
    tree::{File, is_production, rust_files},
};

/// Production lines of a file.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a `lib.rs`.
const LIB_LINES_MAX: usize = 120;
/// How the first line of a file begins that is longer on purpose.
const LONG_ON_PURPOSE: &str = "// Long because ";
/// Functions over the limit with their lines: may shrink, may not grow, nothing may be added without a reviewer's word.
const LONG_FUNCTIONS: &str = include_str!("long_functions.txt");
/// Files that may hold `unsafe`, each with its reasons written at every block.
const UNSAFE_FILES: &[&str] = &[
    "wal/src/block/file/persistent.rs",
    "wal/src/block/file/uring/ring.rs",
];

#[test]
fn production_files_are_at_most_600_lines_or_say_why_on_their_first_line() {
    let mut findings = Vec::new();
    for file in rust_files().iter().filter(|file| is_production(&file.path)) {
        let lines = production(&file.text)
            .lines()
            .zip(file.text.lines())
            .filter(|(code, text)| {
                text.trim().is_empty() || !code.trim().is_empty() || is_comment(text)
            })
            .count();
        if lines > FILE_LINES_MAX && !file.text.starts_with(LONG_ON_PURPOSE) {
            findings.push(format!("{}: {lines} production lines, at most {FILE_LINES_MAX}; a first line `{LONG_ON_PURPOSE}…` says why", file.path));
        }
    }
    report("length of files", &findings);
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn a_lib_rs_is_at_most_120_lines() {
    let long = |file: &&File| {
        file.path.ends_with("src/lib.rs") && file.text.lines().count() > LIB_LINES_MAX
    };
    let findings: Vec<_> = rust_files()
        .iter()
        .filter(long)
        .map(|file| format!("{}: {} lines", file.path, file.text.lines().count()))
        .collect();
    report("length of lib.rs", &findings);
}

/// `path::name`, lines and line of every production function that is too long.
fn long_functions() -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|file| is_production(&file.path)) {
        let code = production(&file.text);
        for at in places(&code, "fn") {
            let name = identifier(&code, at + 2);
            if name.is_empty() || !code[at + 2..].starts_with(' ') {
                continue;
            }
            let lines = line_of(&code, item_end(&code, at) - 1) - line_of(&code, at) + 1;
            if lines > FUNCTION_LINES_MAX {
                found.push((format!("{}::{name}", file.path), lines, line_of(&code, at)));
            }
        }
    }
    found
}

#[test]
fn functions_are_at_most_70_lines_and_the_listed_ones_do_not_grow() {
    let listed: Vec<(&str, usize)> = LONG_FUNCTIONS
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            line.split_once(' ')
                .and_then(|(name, lines)| Some((name, lines.parse().ok()?)))
                .expect("a line is `path::name lines`")
        })
        .collect();
    let found = long_functions();
    let mut findings = Vec::new();
    for (name, lines, line) in &found {
        match listed.iter().find(|(listed, _)| listed == name) {
            None => findings.push(format!(
                "{name} (line {line}): {lines} lines, at most {FUNCTION_LINES_MAX}"
            )),
            Some((_, most)) if lines > most => findings.push(format!(
                "{name} (line {line}): {lines} lines, listed with {most}"
            )),
            Some(_) => {}
        }
    }
    for (name, _) in listed
        .iter()
        .filter(|(name, _)| !found.iter().any(|(found, ..)| found == name))
    {
        findings.push(format!(
            "{name}: listed in long_functions.txt, no longer too long: take it out"
        ));
    }
    report("length of functions", &findings);
}

#[test]
fn every_module_opens_with_what_it_is() {
    let mut findings = Vec::new();
    for file in rust_files().iter().filter(|file| file.name() != "tests.rs") {
        let first = file
            .text
            .lines()
            .find(|line| !line.starts_with(LONG_ON_PURPOSE) && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//! ")) {
            findings.push(format!("{}: does not open with `//! `", file.path));
        } else if first == Some("//! Placeholder.")
            && file.name() != "lib.rs"
            && file.name() != "main.rs"
        {
            findings.push(format!("{}: its first sentence says nothing", file.path));
        }
    }
    report("module documents", &findings);
}

#[test]
fn folders_have_no_mod_rs() {
    let findings: Vec<_> = rust_files()
        .iter()
        .filter(|file| file.name() == "mod.rs")
        .map(|file| format!("{}: use a file beside the folder", file.path))
        .collect();
    report("mod.rs", &findings);
}

#[test]
fn every_tokio_select_is_biased() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let code = blank(&file.text);
        for at in places(&code, "select!") {
            let body = code[at + "select!".len()..]
                .trim_start()
                .trim_start_matches(['{', '(']);
            if !body.trim_start().starts_with("biased;") {
                findings.push(format!(
                    "{}:{}: `select!` without `biased;`: a run would depend on chance",
                    file.path,
                    line_of(&code, at)
                ));
            }
        }
    }
    report("biased select", &findings);
}

#[test]
fn unsafe_stands_only_in_the_files_named_here() {
    let mut findings = Vec::new();
    for file in rust_files()
        .iter()
        .filter(|file| !UNSAFE_FILES.contains(&file.path.as_str()))
    {
        let code = blank(&file.text);
        findings.extend(
            ["unsafe", "unsafe_code"]
                .iter()
                .flat_map(|word| places(&code, word))
                .map(|at| format!("{}:{}: unsafe", file.path, line_of(&code, at))),
        );
    }
    report("unsafe", &findings);
}

#[test]
fn production_code_unwraps_nothing_and_expects_only_what_it_can_name() {
    let mut findings = Vec::new();
    for file in rust_files().iter().filter(|file| is_production(&file.path)) {
        let code = production(&file.text);
        findings.extend(
            code.match_indices(".unwrap()")
                .map(|(at, _)| format!("{}:{}: unwrap", file.path, line_of(&code, at))),
        );
        findings.extend(places(&code, "unwrap_used").iter().map(|at| {
            format!(
                "{}:{}: the ban on unwrap is lifted",
                file.path,
                line_of(&code, *at)
            )
        }));
        for (at, _) in code.match_indices(".expect(") {
            let said = file.text[at + ".expect(".len()..]
                .trim_start()
                .trim_start_matches('"')
                .split('"')
                .next()
                .unwrap_or("");
            if said.split(' ').count() < 2 {
                findings.push(format!(
                    "{}:{}: `expect` does not name the invariant",
                    file.path,
                    line_of(&code, at)
                ));
            }
        }
    }
    report("unwrap and expect", &findings);
}

#[test]
fn an_ignored_test_says_why_and_which_command_runs_it() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let code = blank(&file.text);
        for (at, _) in code.match_indices("#[ignore") {
            let line = file.text[at..].lines().next().unwrap_or("");
            if !line.contains(".ci/run") {
                findings.push(format!(
                    "{}:{}: `#[ignore = \"…\"]` names no .ci/run command",
                    file.path,
                    line_of(&code, at)
                ));
            }
        }
    }
    report("ignored tests", &findings);
}

#[test]
fn words_are_found_whole() {
    assert_eq!(places("fn a; xfn b; fn_ c; fn", "fn"), [0, 20]);
    assert!(is_word(b'_') && !is_word(b'-'));
}
