//! The files of the repository, found by walking it from its root. Does not ask git: a source archive is checked alike.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate stands one level below the root")
        .to_path_buf()
}

/// One text file. `path` is relative to the root, with `/`.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Its name without folders.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The crate folder or other top-level folder that it lies in.
    pub(crate) fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or("")
    }
}

/// Folders that hold no source.
fn is_skipped(name: &str) -> bool {
    matches!(
        name,
        "target" | ".git" | "corpus" | "artifacts" | "node_modules"
    ) || name.ends_with("-data")
}

/// Every file whose content is UTF-8, in the order of its path.
pub(crate) fn text_files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the tree can be read") {
            let entry = entry.expect("a folder of the tree can be read");
            let kind = entry.file_type().expect("an entry of the tree has a type");
            if kind.is_dir() && !is_skipped(&entry.file_name().to_string_lossy()) {
                folders.push(entry.path());
            } else if kind.is_file()
                && entry.file_name() != ".git"
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                let path = entry
                    .path()
                    .strip_prefix(&root)
                    .expect("walked from the root")
                    .to_string_lossy()
                    .replace('\\', "/");
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        found.len() > 20,
        "the tree at {} has only {} files",
        root.display(),
        found.len()
    );
    found
}

/// Every Rust file.
pub(crate) fn rust_files() -> Vec<File> {
    text_files()
        .into_iter()
        .filter(|file| file.path.ends_with(".rs"))
        .collect()
}

/// Whether a path holds production code: under a crate's `src`, neither a test module of its own file, nor what feature `testing` adds, nor a
/// fuzz target.
pub(crate) fn is_production(path: &str) -> bool {
    let is_test = |part: &str| matches!(part, "tests" | "tests.rs" | "testing" | "testing.rs");
    path.contains("/src/") && !path.starts_with("fuzz/") && !path.split('/').any(is_test)
}
