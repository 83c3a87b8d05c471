//! Holds the tree to its shape: lengths, names, words, dependency directions, and documents that stay true.
//!
//! One module per kind of rule. Every rule reports all its findings at once, as `path:line: what`, and is a test of its own.
//! Does not replace clippy or rustfmt: what they can say, they say.

mod crates;
mod docs;
mod shape;
mod source;
mod tree;
mod words;

/// Fails with every finding on a line of its own.
fn report(rule: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{rule}: {} findings\n  {}\n",
        findings.len(),
        findings.join("\n  ")
    );
}
