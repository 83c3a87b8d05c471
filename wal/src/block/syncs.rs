//! The syncs of one open file, one at a time.
//!
//! `a sync failed ⇒ every later one of the file fails`. Linux reports a failed write-back once per open file, which threads share: the sync of one may
//! take the error that is about what another wrote. So the first failure is everybody's, from then on.

use std::{io, sync::Mutex};

/// Whether a sync of the file has failed.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    failed: Mutex<bool>,
}

impl Syncs {
    pub(crate) fn run(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let before = || io::Error::other("an earlier sync of this file failed");
        // Poisoned: a sync that panicked, of which nothing is known.
        let mut failed = self.failed.lock().map_err(|_| before())?;
        if *failed {
            return Err(before());
        }
        let result = sync();
        *failed = result.is_err();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_sync_that_failed_once_fails_every_later_one_of_any_thread() {
        let syncs = Syncs::default();
        syncs.run(|| Ok(())).unwrap();
        let error = syncs.run(|| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        // The kernel would say Ok to the second: it has told its error.
        let second = thread::scope(|s| s.spawn(|| syncs.run(|| Ok(()))).join().unwrap());
        assert!(second.unwrap_err().to_string().contains("earlier sync"));
    }
}
