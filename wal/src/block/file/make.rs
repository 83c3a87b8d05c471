//! Making a log's file: under another name, filled with zeros and synced, and only then renamed, so that a crash never leaves half a log in its
//! place.
//!
//! A device that is not there must not become a file in memory: none is made among the devices, nor in the place of anything but nothing.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    super::{aligned, ring::BLOCK},
    in_use, io_error, lock,
    platform::{preallocate, uncached_flag},
};
use crate::Error;

/// Zeros written at once.
const FILL_BYTES: usize = 1 << 20;

/// Makes a file of `len` zero bytes.
pub(super) fn make(path: &Path, len: u64) -> Result<(), Error> {
    check_not_among_devices(path)?;
    vacant(path)?;
    let draft = draft_path(path)?;
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&draft);
    let file = file.map_err(|e| io_error("create", &draft, e))?;
    lock(&file, &draft)?;
    // The one who held the lock before may have renamed it: then this is a live log, and not ours.
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let held = file.metadata().map_err(|e| io_error("stat", &draft, e))?;
    if !fs::metadata(&draft).is_ok_and(|named| same(&named, &held)) {
        return Err(in_use(path));
    }
    // What an ended process left is zeros, as far as it came.
    let mut head = vec![0; BLOCK as usize];
    let read = file.read_at(&mut head, 0);
    read.map_err(|e| io_error("read", &draft, e))?;
    if head.iter().any(|byte| *byte != 0) {
        return Err(Error::Invalid(format!(
            "{}: in the way, and not the beginning of a log",
            draft.display()
        )));
    }
    let made = vacant(path)
        .and_then(|()| fill(&draft, &file, len).map_err(|(op, e)| io_error(op, path, e)))
        // Filling takes time.
        .and_then(|()| vacant(path))
        .and_then(|()| fs::rename(&draft, path).map_err(|e| io_error("rename to", path, e)));
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    made?;
    sync_folder(path)
}

/// Refuses a place that has anything but an empty file.
fn vacant(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("stat", path, e)),
        Ok(there) if there.is_file() && there.len() == 0 => Ok(()),
        Ok(there) if there.is_file() => Err(in_use(path)),
        Ok(_) => Err(Error::Invalid(format!(
            "{}: neither a file nor a device of some size, and no log is made in its place",
            path.display()
        ))),
    }
}

/// Refuses a place among the devices: a file there is in memory, whatever it is asked to sync.
fn check_not_among_devices(path: &Path) -> Result<(), Error> {
    let on = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let (devices, root) = (on(Path::new("/dev")), on(Path::new("/")));
    // Without a file system of its own it is a folder like others.
    if devices.is_some() && devices != root && on(folder_of(path)) == devices {
        return Err(Error::Invalid(format!(
            "{}: there is no such device, and no file is made among the devices",
            path.display()
        )));
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the name of a file durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Who may not read it has made nothing there.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(|e| io_error("sync", folder, e)),
    }
}

fn draft_path(path: &Path) -> Result<PathBuf, Error> {
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!(
            "{}: not a file name",
            path.display()
        )));
    };
    let mut name = name.to_owned();
    name.push(".new");
    Ok(path.with_file_name(name))
}

/// Allocates, then writes zeros: blocks that were never written cost a second journal write at their first use.
fn fill(draft: &Path, file: &File, len: u64) -> Result<(), (&'static str, io::Error)> {
    file.set_len(0).map_err(|e| ("truncate", e))?;
    preallocate(file, len).map_err(|e| ("preallocate", e))?;
    // Around the page cache if that can be: a log of some GiB would push everything else out of it.
    let flags = uncached_flag();
    let mut direct = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(draft)
        .ok();
    let zeros = aligned::zeroed(FILL_BYTES);
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at)
            .unwrap_or(usize::MAX)
            .min(FILL_BYTES);
        let zeros = zeros.get(..piece).unwrap_or(&zeros);
        match direct.as_ref().unwrap_or(file).write_all_at(zeros, at) {
            Ok(()) => at += piece as u64,
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && direct.is_some() => direct = None,
            Err(e) => return Err(("fill", e)),
        }
    }
    file.sync_all().map_err(|e| ("sync", e))
}
