//! A few threads for what whoever asks must not do itself: blocking calls, and telling of operations that nobody finished.
//!
//! They end when all that can send to them is dropped; what was asked for before that is still done.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Jobs that may wait for a thread. A log has far fewer: its commits in flight, a lease, a segment, one read.
const QUEUE_LEN: usize = 4096;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    jobs: Sender<Job>,
}

impl Threads {
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let (jobs, todo) = bounded(QUEUE_LEN);
        for n in 0..count.max(1) {
            let todo = todo.clone();
            thread::Builder::new()
                .name(format!("{name}-{n}"))
                .spawn(move || work(&todo))?;
        }
        Ok(Self { jobs })
    }

    pub(crate) fn send(&self, job: impl FnOnce() + Send + 'static) {
        // The threads outlive the sender. A job that were lost would drop its completion, which counts as a failure.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn work(todo: &Receiver<Job>) {
    while let Ok(job) = todo.recv() {
        // A completion that panics ends neither the thread nor what waits behind it.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a completion of the NFS log panicked");
        }
    }
}

/// A completion that is called once, whatever becomes of what should call it.
///
/// A task that a runtime refuses, or drops when it ends, is dropped by whoever spawned it, inside the call that must not be answered inside. So one that
/// is dropped uncalled is told its failure by a thread.
pub(crate) struct Answer<T: Send + 'static> {
    done: Option<Box<dyn FnOnce(io::Result<T>) + Send>>,
    threads: Threads,
}

impl<T: Send + 'static> Answer<T> {
    pub(crate) fn new(done: Box<dyn FnOnce(io::Result<T>) + Send>, threads: &Threads) -> Self {
        Self {
            done: Some(done),
            threads: threads.clone(),
        }
    }

    pub(crate) fn tell(mut self, result: io::Result<T>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl<T: Send + 'static> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            let gone = "the runtime of the log, or the file, dropped the operation";
            let gone = io::Error::new(io::ErrorKind::BrokenPipe, gone);
            self.threads.send(move || done(Err(gone)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heard(told: impl FnOnce(Answer<u32>)) -> Vec<(bool, Option<u32>)> {
        let threads = Threads::start("test", 1).unwrap();
        let (tell, hear) = bounded(2);
        let here = thread::current().id();
        let done = move |result: io::Result<u32>| {
            let _ = tell.send((thread::current().id() == here, result.ok()));
        };
        told(Answer::new(Box::new(done), &threads));
        let first = hear.recv_timeout(Duration::from_secs(60)).unwrap();
        // The completion is gone with its sender: there can be no second.
        [first].into_iter().chain(hear).collect()
    }

    #[test]
    fn an_answer_comes_once_and_one_that_is_dropped_by_another_thread() {
        assert_eq!(heard(|answer| answer.tell(Ok(7))), [(true, Some(7))]);
        assert_eq!(heard(drop), [(false, None)]);
    }

    #[test]
    fn a_job_that_panics_does_not_end_its_thread() {
        let threads = Threads::start("test", 1).unwrap();
        threads.send(|| panic!("once"));
        let (tell, hear) = bounded(2);
        threads.send(move || tell.send(()).unwrap());
        hear.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
