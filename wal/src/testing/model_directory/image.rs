//! What is in a modelled directory, as it is read and as it would be after a power cut, and how a change of it takes effect in part.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;

/// What a power cut leaves whole.
const SECTOR: usize = 512;

/// One change of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new file.
    Create {
        /// Its name.
        name: String,
        /// Its content.
        content: Bytes,
    },
    /// A second name.
    Link {
        /// Of what.
        from: String,
        /// The new name.
        to: String,
    },
    /// A name gone.
    Remove {
        /// Which.
        name: String,
    },
    /// All names durable.
    Sync,
    /// Bytes in a file.
    Write {
        /// The file's number.
        file: u64,
        /// Where.
        at: usize,
        /// What.
        data: Bytes,
    },
}

impl Change {
    /// How many parts of it can be done or not by themselves: the sectors of a write, and one for all else.
    pub fn parts(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len().div_ceil(SECTOR),
            _ => 1,
        }
    }
}

/// A file's bytes as they are read, and as they would be after a power cut.
type Content = (Arc<Vec<u8>>, Arc<Vec<u8>>);

/// What is in a directory, seen and safe.
#[derive(Clone, Debug, Default)]
pub struct DirectoryImage {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next: u64,
    /// Changes of names that no sync has covered: the name, the file, and whether it was added.
    unsynced: Vec<(String, u64, bool)>,
}

impl DirectoryImage {
    /// The names and the contents, as they are read.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let content = |file| self.files.get(file).map(|(seen, _)| seen.to_vec());
        self.names
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), content(file)?)))
            .collect()
    }

    /// Puts a file there, durably.
    pub fn put(&mut self, name: &str, content: Vec<u8>) {
        let content = Arc::new(content);
        self.next += 1;
        self.files
            .insert(self.next, (Arc::clone(&content), content));
        self.names.insert(name.to_owned(), self.next);
    }

    /// Changes a file's bytes behind the log's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn damage(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.names.get(name).expect("a file to damage");
        let (seen, _) = self.files.get(file).expect("a name leads to a file");
        let mut content = seen.to_vec();
        change(&mut content);
        let content = Arc::new(content);
        self.files.insert(*file, (Arc::clone(&content), content));
    }

    /// What is there after all hosts died: of the changes in flight, what `keep(change, part)` says is seen, and not durable.
    #[must_use]
    pub fn crash(&self, in_flight: &[Change], mut keep: impl FnMut(usize, usize) -> bool) -> Self {
        let mut image = self.clone();
        for (index, change) in in_flight.iter().enumerate() {
            image.apply_in_part(change, |part| keep(index, part), false);
        }
        image
    }

    /// What is there after the server lost its power: of the changes in flight what `keep` says, and of the names that no sync covered what `keep_name`
    /// says.
    #[must_use]
    pub fn power_cut(
        &self,
        in_flight: &[Change],
        mut keep: impl FnMut(usize, usize) -> bool,
        mut keep_name: impl FnMut(usize) -> bool,
    ) -> Self {
        let mut image = self.clone();
        for (seen, durable) in image.files.values_mut() {
            *seen = Arc::clone(durable);
        }
        for (index, change) in in_flight.iter().enumerate() {
            image.apply_in_part(change, |part| keep(index, part), true);
        }
        let unsynced = std::mem::take(&mut image.unsynced);
        for (index, (name, file, added)) in unsynced.into_iter().enumerate().rev() {
            if keep_name(index) {
                continue;
            }
            if added && image.names.get(&name) == Some(&file) {
                image.names.remove(&name);
            } else if !added {
                image.names.entry(name).or_insert(file);
            }
        }
        image
    }

    pub(super) fn apply_in_part(
        &mut self,
        change: &Change,
        mut keep: impl FnMut(usize) -> bool,
        durable: bool,
    ) {
        match change {
            Change::Write { file, at, data } => {
                for (part, bytes) in data
                    .chunks(SECTOR)
                    .enumerate()
                    .filter(|(part, _)| keep(*part))
                {
                    let at = at + part * SECTOR;
                    // Of a file that is gone nothing is left to tear.
                    let _ = self.write(*file, at, bytes, true);
                    if durable {
                        let _ = self.write(*file, at, bytes, false);
                    }
                }
            }
            change if keep(0) => {
                let _ = self.apply(change);
            }
            _ => {}
        }
    }

    pub(super) fn write(
        &mut self,
        file: u64,
        at: usize,
        data: &[u8],
        seen: bool,
    ) -> io::Result<()> {
        // As over NFS: a handle of a file without a name is stale.
        let named = self.links(file) > 0;
        let (visible, durable) = self
            .files
            .get_mut(&file)
            .filter(|_| named)
            .ok_or_else(stale)?;
        let content = Arc::make_mut(if seen { visible } else { durable });
        let to = content.get_mut(at..at + data.len());
        to.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// How many names a file has.
    pub(super) fn links(&self, file: u64) -> usize {
        self.names.values().filter(|of| **of == file).count()
    }

    /// The bytes of a file as they are read.
    pub(super) fn seen(&self, file: u64) -> io::Result<&[u8]> {
        let content = self.files.get(&file).filter(|_| self.links(file) > 0);
        content.map(|(seen, _)| seen.as_slice()).ok_or_else(stale)
    }

    pub(super) fn file(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Does all but a write, which has two steps.
    pub(super) fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Create { name, content } => {
                if self.names.contains_key(name) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.put(name, content.to_vec());
                self.unsynced.push((name.clone(), self.next, true));
            }
            Change::Link { from, to } => {
                let file = self.file(from)?;
                if self.names.contains_key(to) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.names.insert(to.clone(), file);
                self.unsynced.push((to.clone(), file, true));
            }
            Change::Remove { name } => {
                let file = self.file(name)?;
                self.names.remove(name);
                self.unsynced.push((name.clone(), file, false));
            }
            Change::Sync => self.unsynced.clear(),
            Change::Write { .. } => {}
        }
        Ok(())
    }
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}
