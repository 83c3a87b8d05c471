//! Operations of a file through an io_uring that one thread submits to and reaps from.
//!
//! - At most [`SLOTS`] operations are in the kernel at once; what waits is bounded by the queue.
//! - The memory of an operation lives in its slot from before its submission until its completion was reaped, whatever panics meanwhile.
//! - The thread sleeps in the kernel when there is nothing to do: an eventfd that the ring polls wakes it. It never spins.
//! - After the end was asked for nothing is begun; what was queued drops its completion, what is in the kernel completes.
//!
//! The one file of this crate with unsafe code: the kernel is handed addresses. Only for direct I/O: through the page cache the ring would
//! run each operation on a thread of its own anyway.

#![allow(
    unsafe_code,
    reason = "an address is handed to the kernel; see the note at each place"
)]

use std::{
    fs::File,
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, Sender, bounded};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use super::{Job, QUEUE_LEN, forget_cached, unaligned};
use crate::block::{
    aligned,
    device::{ReadDone, WriteDone},
};

/// Operations in the kernel at once. A log has fewer: its commits in flight, a superblock copy, reads ahead.
const SLOTS: usize = 64;
/// The file's index among the registered ones, of which it is the only one: before Linux 6.13 to unregister waits for every request that
/// uses a registered file, and the poll of the eventfd never ends.
const FILE: types::Fixed = types::Fixed(0);
/// Completions of the eventfd's poll; slots are numbered below.
const RUNG: u64 = u64::MAX;
/// One operation reads or writes at most this much: what the kernel does at once, in whole blocks. The rest follows.
const PIECE_MAX: usize = 1 << 30;

/// The thread and its ring, as long as this lives.
#[derive(Debug)]
pub(super) struct Uring {
    jobs: Sender<Job>,
    bell: Arc<Bell>,
    ending: Arc<AtomicBool>,
}

impl Uring {
    /// Fails where the kernel has no io_uring, or none for this process: the reason is the error.
    pub(super) fn start(file: &Arc<File>) -> io::Result<Self> {
        let (jobs, todo) = bounded(QUEUE_LEN);
        let ending = Arc::new(AtomicBool::new(false));
        let bell = Arc::new(Bell::new()?);
        let (tell, told) = bounded(1);
        let worker = (Arc::clone(file), Arc::clone(&bell), Arc::clone(&ending));
        // Made by the thread that submits: the kernel then knows that there is no other.
        thread::Builder::new()
            .name("wal-uring".to_owned())
            .spawn(move || {
                let (file, bell, ending) = worker;
                match Ring::new(&file, Arc::clone(&bell)) {
                    Err(e) => drop(tell.send(Err(e))),
                    Ok(ring) => {
                        let worker = Worker {
                            ring,
                            file,
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
        // The thread outlives the sender, unless the kernel refused it; a job that is lost drops its completion, which counts as a failure.
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
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }
}

struct Worker {
    ring: Ring,
    file: Arc<File>,
    bell: Arc<Bell>,
    todo: Receiver<Job>,
    ending: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        let error = loop {
            self.begin();
            if self.ending.load(Ordering::Acquire) && self.ring.in_flight == 0 {
                return;
            }
            if let Err(e) = self.sleep() {
                break e;
            }
            while let Some((slot, result)) = self.ring.next() {
                self.end(slot, result);
            }
        };
        tracing::error!(%error, "the io_uring of the block log failed");
        let Self { ring, todo, .. } = self;
        drop(ring);
        // What waits and what will come drops its completion, here and never inside the call that asked.
        while let Ok(job) = todo.recv() {
            quietly(move || drop(job));
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
            match Operation::of(job) {
                Ok(operation) => self.ring.submit(operation),
                Err((done, error)) => quietly(move || done(Err(error))),
            }
        }
    }

    /// Until something completed, or somebody rang.
    fn sleep(&mut self) -> io::Result<()> {
        self.bell.asleep.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        let more = !self.todo.is_empty() && self.ring.has_room();
        let over = self.ending.load(Ordering::SeqCst) && self.ring.in_flight == 0;
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
        let file = &self.file;
        match operation.after(result) {
            After::More(operation) => self.ring.submit(operation),
            After::Wrote(done, result) => quietly(move || done(result)),
            After::Read(done, result) => quietly(move || done(result)),
            After::Synced(done, result) => {
                let result = result.and_then(|()| forget_cached(file));
                quietly(move || done(result));
            }
        }
    }
}

/// A completion that panics ends neither the thread nor what waits behind it.
fn quietly(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a completion of the block log panicked");
    }
}

/// What is in the kernel, with its memory. `through` bytes of it are done.
enum Operation {
    Write {
        at: u64,
        data: Bytes,
        through: usize,
        done: WriteDone,
    },
    Read {
        at: u64,
        buffer: BytesMut,
        through: usize,
        done: ReadDone,
    },
    Sync {
        done: WriteDone,
    },
}

enum After {
    More(Operation),
    Wrote(WriteDone, io::Result<()>),
    Read(ReadDone, io::Result<Bytes>),
    Synced(WriteDone, io::Result<()>),
}

impl Operation {
    fn of(job: Job) -> Result<Self, (WriteDone, io::Error)> {
        Ok(match job {
            Job::Write { data, done, .. } if !aligned::is_aligned(&data) => {
                return Err((done, unaligned()));
            }
            Job::Write { at, data, done } => Self::Write {
                at,
                data,
                through: 0,
                done,
            },
            Job::Read { at, len, done } => Self::Read {
                at,
                buffer: aligned::zeroed(len),
                through: 0,
                done,
            },
            Job::Sync { done } => Self::Sync { done },
        })
    }

    /// The submission. Its addresses are those of memory that this value owns: they hold while it lives, wherever it is moved to.
    fn entry(&mut self) -> squeue::Entry {
        match self {
            Self::Write {
                at, data, through, ..
            } => {
                let rest = data.get(*through..).unwrap_or_default();
                let len = rest.len().min(PIECE_MAX) as u32;
                opcode::Write::new(FILE, rest.as_ptr(), len)
                    .offset(*at + *through as u64)
                    .build()
            }
            Self::Read {
                at,
                buffer,
                through,
                ..
            } => {
                let rest = buffer.get_mut(*through..).unwrap_or_default();
                let len = rest.len().min(PIECE_MAX) as u32;
                opcode::Read::new(FILE, rest.as_mut_ptr(), len)
                    .offset(*at + *through as u64)
                    .build()
            }
            Self::Sync { .. } => opcode::Fsync::new(FILE)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        }
    }

    /// As `write_all_at` and `read_exact_at` do: what was cut short goes on, what was interrupted is asked again, all else is the outcome.
    fn after(self, result: io::Result<usize>) -> After {
        let interrupted = |e: &io::Error| e.kind() == io::ErrorKind::Interrupted;
        if result.as_ref().is_err_and(interrupted) {
            return After::More(self);
        }
        match self {
            Self::Sync { done } => After::Synced(done, result.map(drop)),
            Self::Write {
                at,
                data,
                through,
                done,
            } => match result {
                Err(e) => After::Wrote(done, Err(e)),
                Ok(n) if through + n >= data.len() => After::Wrote(done, Ok(())),
                Ok(0) => After::Wrote(done, Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => After::More(Self::Write {
                    at,
                    data,
                    through: through + n,
                    done,
                }),
            },
            Self::Read {
                at,
                buffer,
                through,
                done,
            } => match result {
                Err(e) => After::Read(done, Err(e)),
                Ok(n) if through + n >= buffer.len() => After::Read(done, Ok(buffer.freeze())),
                Ok(0) => After::Read(done, Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => After::More(Self::Read {
                    at,
                    buffer,
                    through: through + n,
                    done,
                }),
            },
        }
    }
}

/// The ring and the operations in it: the part that must be right for memory to be safe.
struct Ring {
    ring: IoUring,
    /// Operations in the kernel, by their number.
    slots: Vec<Option<Operation>>,
    free: Vec<usize>,
    in_flight: usize,
    /// Polled by its number, so it stays open as long as the ring.
    bell: Arc<Bell>,
    bell_armed: bool,
}

impl Ring {
    fn new(file: &File, bell: Arc<Bell>) -> io::Result<Self> {
        // Every slot and the bell: a slot has one submission at a time.
        let entries = (SLOTS as u32 + 1).next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            .or_else(|e| match e.kind() {
                // A kernel before 6.1 does not know the flags.
                io::ErrorKind::InvalidInput => IoUring::builder().build(entries),
                _ => Err(e),
            })?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let mut ring = Self {
            ring,
            slots: std::iter::repeat_with(|| None).take(SLOTS).collect(),
            free: (0..SLOTS).collect(),
            in_flight: 0,
            bell,
            bell_armed: false,
        };
        ring.enter(0)?;
        Ok(ring)
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Puts an operation in a slot and in the submission queue. There must be room.
    fn submit(&mut self, mut operation: Operation) {
        let slot = self.free.pop().expect("the caller looked for room");
        let entry = operation.entry().user_data(slot as u64);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(operation);
        }
        self.in_flight += 1;
        self.push(&entry);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry's addresses, if it has any, are in heap memory owned by the operation that `submit` has put in a slot. A slot is
        // emptied only in `next`, when the kernel says that it is done with it, and in `drop`, which waits for that or leaks the memory.
        // The kernel holds the registered file itself; the eventfd is open as long as `self`.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the queue has room for every slot and the bell");
    }

    /// Hands the kernel what was submitted, and waits until `want` completions are there.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        if !self.bell_armed {
            let poll =
                opcode::PollAdd::new(types::Fd(self.bell.fd.as_raw_fd()), libc::POLLIN as u32)
                    .multi(true);
            self.push(&poll.build().user_data(RUNG));
            self.bell_armed = true;
        }
        match self.ring.submit_and_wait(want) {
            Ok(_) => Ok(()),
            // A signal, or completions that must be reaped first: the loop comes again.
            Err(e)
                if e.raw_os_error()
                    .is_some_and(|e| [libc::EINTR, libc::EBUSY, libc::EAGAIN].contains(&e)) =>
            {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The next operation that the kernel is done with.
    fn next(&mut self) -> Option<(Operation, io::Result<usize>)> {
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() == RUNG {
                self.bell_armed = cqueue::more(entry.flags());
                continue;
            }
            let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            let Some(operation) = self.slots.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            self.free.push(slot);
            self.in_flight -= 1;
            let result = usize::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            return Some((operation, result));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.enter(1).is_err() {
                // The kernel may still use the memory: it is lost, not given back.
                mem::forget(mem::take(&mut self.slots));
                return;
            }
            while let Some((operation, _)) = self.next() {
                quietly(move || drop(operation));
            }
        }
        // The kernel takes a ring apart when it likes; exclusive use of the file ends now. No request is on it, so this waits for nothing.
        let _ = self.ring.submitter().unregister_files();
    }
}
