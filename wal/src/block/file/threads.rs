//! Operations of a file as blocking calls, each on one of a few threads. Works everywhere.
//!
//! - At most as many operations are under way as there are threads; what waits is bounded by the queue.
//! - After the end was asked for nothing is begun; what was queued drops its completion.
//! - After a sync failed none succeeds: the kernel tells a failed write-back once, to whichever thread asks first.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Job, QUEUE_LEN, Way, forget_cached, refuse};
use crate::block::{aligned, device::Geometry, syncs::Syncs};

/// The threads, as long as this lives.
#[derive(Debug)]
pub(super) struct Threads {
    jobs: Sender<Job>,
    ending: Arc<AtomicBool>,
}

impl Threads {
    pub(super) fn start(
        file: &Arc<File>,
        geometry: Geometry,
        way: Way,
        count: usize,
    ) -> io::Result<Self> {
        let (jobs, todo) = bounded(QUEUE_LEN);
        let ending = Arc::new(AtomicBool::new(false));
        let syncs = Arc::new(Syncs::default());
        for n in 0..count.max(1) {
            let thread = Thread {
                file: Arc::clone(file),
                geometry,
                way,
                syncs: Arc::clone(&syncs),
                todo: todo.clone(),
                ending: Arc::clone(&ending),
            };
            thread::Builder::new()
                .name(format!("wal-io-{n}"))
                .spawn(move || thread.run())?;
        }
        Ok(Self { jobs, ending })
    }

    pub(super) fn send(&self, job: Job) {
        // The threads outlive the sender, so this fails never; a job that were lost would drop its completion, which counts as a failure.
        let _ = self.jobs.send(job);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
    }
}

struct Thread {
    file: Arc<File>,
    geometry: Geometry,
    way: Way,
    syncs: Arc<Syncs>,
    todo: Receiver<Job>,
    ending: Arc<AtomicBool>,
}

impl Thread {
    fn run(self) {
        while let Ok(job) = self.todo.recv() {
            // A completion that panics, called or dropped, ends neither the thread nor what waits behind it.
            let work = || match self.ending.load(Ordering::Acquire) {
                true => drop(job),
                false => self.work(job),
            };
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("a completion of the block log panicked");
            }
        }
    }

    fn work(&self, job: Job) {
        if let Err(error) = job.admitted(self.geometry) {
            return refuse(job, error);
        }
        match job {
            Job::Write { at, data, done } => done(self.write(at, &data)),
            Job::Read { at, len, done } => done(self.read(at, len)),
            Job::Sync { done } => done(self.sync()),
        }
    }

    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        match self.way {
            Way::Direct => self.file.write_all_at(data, at),
            Way::Buffered => {
                self.file.write_all_at(data, at)?;
                self.syncs.run(|| self.file.sync_data())
            }
        }
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = aligned::zeroed(len);
        self.file.read_exact_at(&mut buffer, at)?;
        Ok(buffer.freeze())
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.run(|| self.file.sync_data())?;
        forget_cached(&self.file)
    }
}
