//! The io_uring and the operations in it: the part that must be right for memory to be safe.
//!
//! - An operation is in its slot from before its submission until its completion was reaped. Its memory is freed only after that, or never: what is in
//!   the slots of a ring that fails is [given up](Ring::give_up), at most [`SLOTS`] operations.
//! - What this needs of the kernel is asked at the opening: Linux 5.13 has it all.
//!
//! The one file with unsafe code that hands memory to the kernel for longer than a call.

#![allow(
    unsafe_code,
    reason = "an address is handed to the kernel; see the note at the place"
)]

use std::{fs::File, io, mem, os::fd::AsRawFd, sync::Arc};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};

use super::{super::pause, Bell, Operation, failed};

/// Operations in the kernel at once. A log has fewer: its commits in flight, a superblock copy, reads ahead.
pub(super) const SLOTS: usize = 64;
/// Completions of the eventfd's poll; slots are numbered below.
const RUNG: u64 = u64::MAX;
/// A kernel that takes nothing for lack of memory is asked so often in a row, a pause between: some ten seconds.
const REFUSALS_MAX: u32 = 1000;
/// What the kernel must know, by the names it has for it.
const OPCODES: [(u8, &str); 4] = [
    (opcode::Write::CODE, "IORING_OP_WRITE"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
];

pub(super) struct Ring {
    ring: IoUring,
    /// Operations in the kernel, by their number.
    slots: Vec<Option<Operation>>,
    free: Vec<usize>,
    in_flight: usize,
    /// Polled by its number, so it stays open as long as the ring.
    bell: Arc<Bell>,
    bell_armed: bool,
    /// Completions of its poll.
    rung: u64,
    /// Times in a row that the kernel took nothing and had nothing.
    refusals: u32,
}

impl Ring {
    pub(super) fn new(file: &File, bell: Arc<Bell>) -> io::Result<Self> {
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
        let mut probe = Probe::new();
        // Linux 5.6.
        let asked = ring.submitter().register_probe(&mut probe);
        asked.map_err(|e| unsupported(&format!("IORING_REGISTER_PROBE: {e}")))?;
        if let Some(name) = missing(|code| probe.is_supported(code)) {
            return Err(unsupported(name));
        }
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let mut ring = Self {
            ring,
            slots: std::iter::repeat_with(|| None).take(SLOTS).collect(),
            free: (0..SLOTS).collect(),
            in_flight: 0,
            bell,
            bell_armed: false,
            rung: 0,
            refusals: 0,
        };
        ring.try_bell()?;
        Ok(ring)
    }

    /// Rings once: the poll must answer, and go on. Before Linux 5.13 it is refused, and would be at every wake-up.
    fn try_bell(&mut self) -> io::Result<()> {
        let refused = |e| unsupported(&format!("IORING_POLL_ADD_MULTI: {e}"));
        self.bell.strike()?;
        while self.rung == 0 {
            self.enter(1)?;
            while self.next().map_err(refused)?.is_some() {}
        }
        self.bell.hush()?;
        if self.bell_armed {
            Ok(())
        } else {
            Err(unsupported("IORING_POLL_ADD_MULTI"))
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Puts an operation in a slot and in the submission queue. There must be room.
    pub(super) fn submit(&mut self, mut operation: Operation) {
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
        // emptied only in `next`, when the kernel says that it is done with it, and in `give_up`, which leaks the memory.
        // The kernel holds the registered file itself; the eventfd is open as long as `self`.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the queue has room for every slot and the bell");
    }

    /// Hands the kernel what was submitted, and waits until `want` completions are there. After an error the ring is of no use any more.
    pub(super) fn enter(&mut self, want: usize) -> io::Result<()> {
        if !self.bell_armed {
            let poll =
                opcode::PollAdd::new(types::Fd(self.bell.fd.as_raw_fd()), libc::POLLIN as u32)
                    .multi(true);
            self.push(&poll.build().user_data(RUNG));
            self.bell_armed = true;
        }
        match self.ring.submit_and_wait(want) {
            Ok(_) => self.refusals = 0,
            Err(e) => self.refused(e)?,
        }
        match self.ring.completion().overflow() {
            0 => Ok(()),
            lost => Err(io::Error::other(format!("{lost} completions were lost"))),
        }
    }

    /// A signal, or completions that must be reaped first, or no memory at the moment: the loop comes again, but not for ever.
    fn refused(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::EINTR) => return Ok(()),
            Some(libc::EBUSY | libc::EAGAIN) if self.refusals < REFUSALS_MAX => {}
            _ => return Err(error),
        }
        self.refusals += 1;
        if self.ring.completion().is_empty() {
            pause();
        }
        Ok(())
    }

    /// The next operation that the kernel is done with.
    pub(super) fn next(&mut self) -> io::Result<Option<(Operation, io::Result<usize>)>> {
        while let Some(entry) = self.ring.completion().next() {
            if entry.user_data() == RUNG {
                self.rung += 1;
                self.bell_armed = goes_on(outcome(entry.result()), entry.flags())?;
                continue;
            }
            let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            let Some(operation) = self.slots.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            self.free.push(slot);
            self.in_flight -= 1;
            return Ok(Some((operation, outcome(entry.result()))));
        }
        Ok(None)
    }

    /// Gives up a ring that failed because of `why`: what is in flight is answered with that, once, and its file descriptor is closed.
    ///
    /// Nothing is known of what was in flight: the kernel may do it later, not at all, or be done. So its memory is never freed. The exclusive use of
    /// the file is the kernel's to end: what it still does holds the file open, and with it the lock.
    pub(super) fn give_up(mut self, why: &io::Error) {
        self.abandon(why);
    }

    fn abandon(&mut self, why: &io::Error) {
        let operations = mem::take(&mut self.slots).into_iter().flatten();
        let error = || failed(why, "whether this was done is not known");
        let leaked: usize = operations.map(|of| of.give_up(error())).sum();
        let operations = self.in_flight;
        tracing::error!(%why, operations, leaked, "the io_uring of the block log failed; bytes that it may still use are never freed");
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight == 0 {
            // The kernel takes a ring apart when it likes; exclusive use of the file ends now. No request is on it, so this waits for nothing.
            let _ = self.ring.submitter().unregister_files();
        } else if !self.slots.is_empty() {
            self.abandon(&io::Error::other("it was dropped"));
        }
    }
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Whether the poll of the bell still stands, by one of its completions. One that ended with an error would end so again: that is the ring's failure.
fn goes_on(result: io::Result<usize>, flags: u32) -> io::Result<bool> {
    result.map(|_| cqueue::more(flags))
}

/// The first of the operations needed that the kernel does not know.
fn missing(known: impl Fn(u8) -> bool) -> Option<&'static str> {
    OPCODES
        .iter()
        .find(|(code, _)| !known(*code))
        .map(|(_, name)| *name)
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the kernel has no {what}"),
    )
}

#[cfg(test)]
mod tests;
