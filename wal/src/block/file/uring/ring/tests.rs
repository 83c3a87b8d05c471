//! A ring that fails with operations in flight, and kernels that are too old for it.

use std::{
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver as Receive, bounded};

use super::{
    super::{super::Job, After, Uring, Worker},
    *,
};
use crate::block::{aligned, device::Geometry, syncs::Syncs};

const PATIENCE: Duration = Duration::from_secs(60);
const LEN: usize = 1 << 20;

/// A file of zeros, and a ring of this thread on it. `None` where the kernel gives none.
fn ring() -> Option<(Arc<File>, Arc<Bell>, Ring)> {
    let file = tempfile::NamedTempFile::new_in(".").unwrap();
    file.as_file().set_len(LEN as u64).unwrap();
    let mut options = File::options();
    let direct = options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let file = Arc::new(direct.open(file.path()).unwrap());
    let bell = Arc::new(Bell::new().unwrap());
    match Ring::new(&file, Arc::clone(&bell)) {
        Ok(ring) => Some((file, bell, ring)),
        Err(e) => {
            eprintln!("no io_uring here, nothing is tested: {e}");
            None
        }
    }
}

/// Memory that says when it is freed.
struct Watched(BytesMut, Arc<AtomicUsize>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// Jobs of every kind, and what they are answered: the number of each, and its error.
struct Jobs {
    tell: std::sync::mpsc::SyncSender<(usize, Option<io::Error>)>,
    told: Receiver<(usize, Option<io::Error>)>,
    freed: Arc<AtomicUsize>,
    count: usize,
    /// The thread that may not answer.
    asked_by: Option<thread::ThreadId>,
}

impl Jobs {
    fn new() -> Self {
        let (tell, told) = sync_channel(100);
        Self {
            tell,
            told,
            freed: Arc::default(),
            count: 0,
            asked_by: None,
        }
    }

    fn next(&mut self) -> Job {
        let (tell, n) = (self.tell.clone(), self.count);
        self.count += 1;
        let not_by = self.asked_by;
        let answer = move |error| {
            assert_ne!(Some(thread::current().id()), not_by, "inside the call");
            tell.send((n, error)).unwrap();
        };
        let at = (n * 4096) as u64;
        match n % 3 {
            0 => Job::Write {
                at,
                data: Bytes::from_owner(Watched(aligned::zeroed(4096), Arc::clone(&self.freed))),
                done: Box::new(move |result| answer(result.err())),
            },
            1 => Job::Read {
                at,
                len: 4096,
                done: Box::new(move |result| answer(result.err())),
            },
            _ => Job::Sync {
                done: Box::new(move |result| answer(result.err())),
            },
        }
    }

    /// Every one of `of` is answered once, and those from `failing` on with the ring's error.
    fn all_answered(&self, of: Range<usize>, failing: usize) {
        let mut heard = Vec::new();
        for n in of.clone() {
            let answer = self.told.recv_timeout(PATIENCE);
            let (n, error) = answer.unwrap_or_else(|e| panic!("{n}: {e}"));
            let text = error.map(|e| e.to_string());
            let failed = |text: &String| text.contains("the io_uring failed");
            let right = n < failing && text.is_none() || text.as_ref().is_some_and(failed);
            assert!(right, "{n}: {text:?}");
            heard.push(n);
        }
        heard.sort_unstable();
        assert_eq!(heard, of.collect::<Vec<_>>());
    }
}

#[test]
fn what_is_in_flight_when_a_ring_fails_is_answered_once_and_its_memory_is_never_freed() {
    let Some((_file, _bell, mut ring)) = ring() else {
        return;
    };
    let mut jobs = Jobs::new();
    for _ in 0..9 {
        ring.submit(Operation::of(jobs.next()));
    }
    // In the kernel from here on; nothing is reaped.
    ring.enter(0).unwrap();
    for _ in 0..3 {
        ring.submit(Operation::of(jobs.next()));
    }
    ring.give_up(&io::ErrorKind::OutOfMemory.into());
    jobs.all_answered(0..12, 0);
    assert_eq!(jobs.freed.load(Ordering::SeqCst), 0);
}

#[test]
fn a_file_is_free_once_the_kernel_is_done_with_what_a_failed_ring_left_in_it() {
    let Some((file, _bell, mut ring)) = ring() else {
        return;
    };
    file.lock().unwrap();
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let next = File::open(link).unwrap();
    let mut jobs = Jobs::new();
    for _ in 0..9 {
        ring.submit(Operation::of(jobs.next()));
    }
    ring.enter(0).unwrap();
    ring.give_up(&io::ErrorKind::OutOfMemory.into());
    assert!(next.try_lock().is_err(), "the owner still has it open");
    drop(file);
    let (tell, told) = sync_channel(1);
    let waiter = thread::Builder::new().spawn(move || tell.send(next.lock()).unwrap());
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    waiter.unwrap().join().unwrap();
}

/// What ends the thread of a ring.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cause {
    /// The kernel refuses to be entered: the ring belongs to another thread.
    Refusal,
    /// A bug.
    Panic,
}

#[test]
fn memory_is_given_back_with_the_kernels_word_and_only_then() {
    let mut jobs = Jobs::new();
    type Case = (fn() -> io::Result<usize>, bool);
    let results: [Case; 5] = [
        (|| Ok(4096), true),
        (|| Ok(0), true),
        (|| Err(io::Error::from_raw_os_error(libc::EIO)), true),
        (|| Ok(512), false),
        (|| Err(io::ErrorKind::Interrupted.into()), false),
    ];
    for (result, over) in results {
        let before = jobs.freed.load(Ordering::SeqCst);
        while !jobs.count.is_multiple_of(3) {
            drop(jobs.next());
        }
        let after = Operation::of(jobs.next()).after(result());
        let freed = jobs.freed.load(Ordering::SeqCst) - before;
        assert_eq!(freed, usize::from(over), "{:?}", result());
        assert_eq!(matches!(after, After::More(_)), !over, "{:?}", result());
    }
}

fn worker(
    ring: Ring,
    file: Arc<File>,
    bell: Arc<Bell>,
    todo: Receive<Job>,
    ending: Arc<AtomicBool>,
) -> Worker {
    let geometry = Geometry {
        block_bytes: 512,
        len_bytes: LEN as u64,
    };
    Worker {
        ring,
        file,
        geometry,
        syncs: Syncs::default(),
        bell,
        todo,
        ending,
    }
}

#[test]
fn after_a_sync_that_failed_none_succeeds() {
    // The kernel tells it once: the sync after it would be told that all is well.
    let Some((file, bell, ring)) = ring() else {
        return;
    };
    let mut worker = worker(ring, file, bell, bounded(1).1, Arc::default());
    let mut sync = |result: io::Result<usize>| {
        let (tell, told) = sync_channel(1);
        let done = Box::new(move |result| tell.send(result).unwrap());
        worker.end(Operation::Sync { done }, result);
        told.recv().unwrap()
    };
    sync(Ok(0)).unwrap();
    let failed = sync(Err(io::Error::from_raw_os_error(libc::EIO)));
    assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
    let later = sync(Ok(0)).unwrap_err().to_string();
    assert!(later.contains("earlier sync"), "{later}");
}

#[test]
fn whatever_ends_the_thread_of_a_ring_nobody_waits_for_ever() {
    for cause in [Cause::Refusal, Cause::Panic] {
        let Some((file, bell, mut ring)) = ring() else {
            return;
        };
        if cause == Cause::Refusal && !ring.ring.params().is_setup_single_issuer() {
            continue;
        }
        let mut jobs = Jobs::new();
        jobs.asked_by = Some(thread::current().id());
        for _ in 0..6 {
            ring.submit(Operation::of(jobs.next()));
        }
        ring.enter(0).unwrap();
        if cause == Cause::Panic {
            // More than the thread believes to be in the queue, so that there is no room for the next.
            while !ring.ring.submission().is_full() {
                ring.push(&opcode::Nop::new().build().user_data(u64::from(u32::MAX)));
            }
        }
        let (todo, ending) = (bounded(100), Arc::new(AtomicBool::new(false)));
        let uring = Uring {
            jobs: todo.0,
            bell: Arc::clone(&bell),
            ending: Arc::clone(&ending),
        };
        uring.send(jobs.next());
        let worker = worker(ring, file, bell, todo.1, ending);
        let thread = thread::Builder::new().spawn(move || worker.run()).unwrap();
        // What the kernel has done and says so is done.
        jobs.all_answered(0..7, 6);
        // What comes later, too, and never inside the call.
        for n in 7..10 {
            uring.send(jobs.next());
            jobs.all_answered(n..n + 1, n);
        }
        drop(uring);
        thread.join().unwrap();
    }
}

#[test]
fn a_kernel_that_takes_nothing_is_asked_a_bounded_number_of_times() {
    let Some((_file, _bell, mut ring)) = ring() else {
        return;
    };
    let busy = || io::Error::from_raw_os_error(libc::EAGAIN);
    ring.refusals = REFUSALS_MAX - 1;
    ring.refused(busy()).unwrap();
    ring.refused(io::Error::from_raw_os_error(libc::EINTR))
        .unwrap();
    assert!(ring.refused(busy()).is_err());
    ring.enter(0).unwrap();
    ring.refused(busy()).unwrap();
    assert!(
        ring.refused(io::Error::from_raw_os_error(libc::EBADF))
            .is_err()
    );
}

#[test]
fn a_poll_of_the_bell_that_fails_is_the_rings_failure_and_is_not_asked_for_again() {
    let more = 2;
    assert!(goes_on(Ok(1), more).unwrap());
    // Ended, though it answered: it is asked for again.
    assert!(!goes_on(Ok(1), 0).unwrap());
    let refused = io::Error::from_raw_os_error(libc::EINVAL);
    assert!(goes_on(Err(refused), 0).is_err());
}

#[test]
fn the_first_operation_that_a_kernel_lacks_is_named() {
    assert_eq!(missing(|_| true), None);
    for (code, name) in OPCODES {
        assert_eq!(missing(|known| known != code), Some(name));
    }
}
