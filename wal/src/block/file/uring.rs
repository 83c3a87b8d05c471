//! Operations of a file through an io_uring that one thread submits to and reaps from.
//!
//! - At most [`SLOTS`](ring::SLOTS) operations are in the kernel at once; what waits is bounded by the queue.
//! - The memory of an operation lives in its slot from before its submission until its completion was reaped, whatever panics meanwhile.
//! - The thread sleeps in the kernel when there is nothing to do: an eventfd that the ring polls wakes it. It never spins.
//! - After the end was asked for nothing is begun; what was queued drops its completion, what is in the kernel completes.
//! - Every operation is answered once, also when the ring fails or the thread panics: then with an error, and nothing is begun any more.
//!
//! Only for direct I/O: through the page cache the ring would run each operation on a thread of its own anyway.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

use super::{Job, QUEUE_LEN, forget_cached, refuse};
use crate::block::{device::Geometry, syncs::Syncs};

mod operation;
mod ring;

use operation::{After, Operation};
use ring::Ring;

/// The thread and its ring, as long as this lives.
#[derive(Debug)]
pub(super) struct Uring {
    jobs: Sender<Job>,
    bell: Arc<Bell>,
    ending: Arc<AtomicBool>,
}

impl Uring {
    /// Fails where the kernel has no io_uring, or none for this process, or an old one: the reason is the error.
    pub(super) fn start(file: &Arc<File>, geometry: Geometry) -> io::Result<Self> {
        let (jobs, todo) = bounded(QUEUE_LEN);
        let ending = Arc::new(AtomicBool::new(false));
        let bell = Arc::new(Bell::new()?);
        let (tell, told) = bounded(1);
        let shared = (Arc::clone(file), Arc::clone(&bell), Arc::clone(&ending));
        // Made by the thread that submits: the kernel then knows that there is no other.
        thread::Builder::new()
            .name("wal-uring".to_owned())
            .spawn(move || {
                let (file, bell, ending) = shared;
                match Ring::new(&file, Arc::clone(&bell)) {
                    Err(e) => drop(tell.send(Err(e))),
                    Ok(ring) => {
                        let worker = Worker {
                            ring,
                            file,
                            geometry,
                            syncs: Syncs::default(),
                            bell,
                            todo,
                            ending,
                        };
                        if tell.send(Ok(())).is_ok() {
                            worker.run();
                        }
                    }
                }
            })?;
        let gone = |_| io::Error::other("the thread of the io_uring ended");
        told.recv().map_err(gone)??;
        Ok(Self { jobs, bell, ending })
    }

    pub(super) fn send(&self, job: Job) {
        // The thread outlives the sender; a job that were lost would drop its completion, which counts as a failure.
        let _ = self.jobs.send(job);
        self.bell.ring();
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// Wakes the thread if it sleeps, and costs no system call if it does not.
///
/// The sleeper says so, then looks for work once more; a waker leaves work, then looks whether somebody sleeps. Both with sequential
/// consistency: at least one of them sees the other.
#[derive(Debug)]
struct Bell {
    fd: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Self {
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            asleep: AtomicBool::new(false),
        })
    }

    fn ring(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // The count cannot get full: each ring is answered by a wake-up, and there are 2^64 of them.
            let _ = self.strike();
        }
    }

    fn strike(&self) -> io::Result<()> {
        rustix::io::write(&self.fd, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Forgets that it was struck.
    fn hush(&self) -> io::Result<()> {
        rustix::io::read(&self.fd, &mut [0; 8])?;
        Ok(())
    }
}

struct Worker {
    ring: Ring,
    file: Arc<File>,
    geometry: Geometry,
    syncs: Syncs,
    bell: Arc<Bell>,
    todo: Receiver<Job>,
    ending: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        let why = match catch_unwind(AssertUnwindSafe(|| self.serve())) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => io::Error::other("its thread panicked"),
        };
        let Self { ring, todo, .. } = self;
        ring.give_up(&why);
        // What waits and what will come is answered here, never inside the call that asked.
        while let Ok(job) = todo.recv() {
            quietly(|| refuse(job, failed(&why, "nothing is begun any more")));
        }
    }

    /// Until the end was asked for and nothing is in flight.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.begin();
            if self.ending.load(Ordering::Acquire) && self.ring.in_flight() == 0 {
                return Ok(());
            }
            let slept = self.sleep();
            while let Some((operation, result)) = self.ring.next()? {
                self.end(operation, result);
            }
            slept?;
        }
    }

    /// Hands the kernel what waits.
    fn begin(&mut self) {
        while self.ring.has_room() {
            let Ok(job) = self.todo.try_recv() else {
                return;
            };
            if self.ending.load(Ordering::Acquire) {
                quietly(move || drop(job));
                continue;
            }
            match job.admitted(self.geometry) {
                Ok(()) => self.ring.submit(Operation::of(job)),
                Err(error) => quietly(move || refuse(job, error)),
            }
        }
    }

    /// Until something completed, or somebody rang.
    fn sleep(&mut self) -> io::Result<()> {
        self.bell.asleep.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        let more = !self.todo.is_empty() && self.ring.has_room();
        let over = self.ending.load(Ordering::SeqCst) && self.ring.in_flight() == 0;
        let slept = if more || over {
            self.ring.enter(0)
        } else {
            self.ring.enter(1)
        };
        self.bell.asleep.store(false, Ordering::SeqCst);
        slept
    }

    /// One operation is over, or goes on where the kernel stopped short.
    fn end(&mut self, operation: Operation, result: io::Result<usize>) {
        let (file, syncs) = (&self.file, &self.syncs);
        match operation.after(result) {
            After::More(operation) => self.ring.submit(operation),
            After::Wrote(done, result) => quietly(move || done(result)),
            After::Read(done, result) => quietly(move || done(result)),
            After::Synced(done, result) => {
                let result = syncs.run(|| result).and_then(|()| forget_cached(file));
                quietly(move || done(result));
            }
        }
    }
}

/// What is said of an operation when the ring failed because of `why`.
fn failed(why: &io::Error, what: &str) -> io::Error {
    io::Error::new(why.kind(), format!("the io_uring failed, {what}: {why}"))
}

/// A completion that panics ends neither the thread nor what waits behind it.
fn quietly(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a completion of the block log panicked");
    }
}
