//! The directory a run works in: new, below the current directory or `--dir`, removed at the end.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A directory of this run alone. Nothing outside it is written, except a log or bucket given by URL.
#[derive(Debug)]
pub struct Workplace(tempfile::TempDir);

impl Workplace {
    /// Makes it below `parent`.
    pub fn new(parent: &Path) -> io::Result<Self> {
        tempfile::Builder::new()
            .prefix(".s3stream-bench-")
            .tempdir_in(parent)
            .map(Self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        let parent = tempfile::tempdir().unwrap();
        let workplace = Workplace::new(parent.path()).unwrap();
        fs::write(workplace.join("log"), b"x").unwrap();
        drop(workplace);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
