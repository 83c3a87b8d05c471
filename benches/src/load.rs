//! The load generator: one thread that offers records and waits for their acknowledgements, in order.
//!
//! `outstanding <= window`; a paced append's latency runs from the start that was *intended*, so that a stall counts
//! for every append it held up (no coordinated omission). An unpaced one's runs from its submission: it has no other.
//!
//! What the generator itself burns (measured against a target that does nothing, and the spinning before a paced
//! start) is kept apart from the engine's CPU time.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Result,
    process::{self, Meter},
    slices::Slice,
};

/// Sleeps end late by about this much: the rest is spun.
const SPIN: Duration = Duration::from_micros(120);
/// An append that does not end for this long ends the run instead.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(60);
/// The largest window that `auto` tries.
const WINDOW_MAX: usize = 1 << 18;
/// Tries of each window.
const TRIALS: usize = 3;
/// What doubling the window must gain to be worth it.
const GAIN_MIN: f64 = 1.03;

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submitted {
    /// It is outstanding.
    Accepted,
    /// There was no room; nothing happened.
    Full,
}

/// What records are offered to.
pub(crate) trait Target {
    /// Offers a record to a stream.
    fn submit(&mut self, stream: usize, payload: &Bytes) -> Result<Submitted>;

    /// When the oldest outstanding append became durable; `None` if it is not by `deadline`, or earlier if there may be
    /// room now for what was refused.
    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>>;
}

/// What is offered.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) payload: Bytes,
    pub(crate) streams: usize,
    pub(crate) window: usize,
    /// Between two starts; `None`: as fast as the window lets.
    pub(crate) interval: Option<Duration>,
}

impl Load {
    /// Offers records for `length`, waits until all are durable, and says how it went.
    pub(crate) fn run(&self, target: &mut impl Target, length: Duration) -> Result<Slice> {
        let meter = Meter::start();
        let start = Instant::now();
        let end = start + length;
        let mut run = Run {
            load: self,
            target,
            outstanding: VecDeque::with_capacity(self.window.min(WINDOW_MAX)),
            slice: Slice::default(),
            next_start: start,
            next_stream: 0,
            last_durable: start,
        };
        while run.step(end)? {}
        while !run.outstanding.is_empty() {
            run.await_oldest()?;
        }
        let mut slice = run.slice;
        slice.elapsed = run.last_durable.saturating_duration_since(start);
        meter.stop(&mut slice);
        Ok(slice)
    }

    /// The smallest window whose growth gains less than 3 %: it is doubled until neither twice nor four times its size
    /// is better.
    ///
    /// Each window is tried for `length` several times and its best counts: a neighbour only ever makes it slower, and
    /// one slow trial would end the search too early.
    pub(crate) fn find_window(&self, target: &mut impl Target, length: Duration) -> Result<usize> {
        let mut best = (1, 0.0);
        let mut window = 1;
        while window <= WINDOW_MAX && window <= best.0 * 4 {
            let load = Self {
                window,
                ..self.clone()
            };
            for _ in 0..TRIALS {
                let rate = load.run(target, length)?.records_per_s().unwrap_or(0.0);
                if rate > best.1 * GAIN_MIN {
                    best = (window, rate);
                }
            }
            window *= 2;
        }
        Ok(best.0)
    }

    /// CPU time of the generator alone, per record, when nothing is waited for.
    pub(crate) fn own_cpu_per_record(&self) -> Result<Duration> {
        self.own_cpu_per_record_of(&mut Nothing(0))
    }

    /// The same with a target of the caller's that does nothing but what is the generator's.
    pub(crate) fn own_cpu_per_record_of(&self, target: &mut impl Target) -> Result<Duration> {
        let load = Self {
            interval: None,
            ..self.clone()
        };
        let before = process::thread_cpu();
        let slice = load.run(target, Duration::from_millis(20))?;
        let spent = process::thread_cpu().saturating_sub(before);
        Ok(Duration::from_secs_f64(
            spent.as_secs_f64() / slice.records.max(1) as f64,
        ))
    }
}

/// Acknowledges at once.
struct Nothing(u64);

impl Target for Nothing {
    fn submit(&mut self, _stream: usize, payload: &Bytes) -> Result<Submitted> {
        self.0 = std::hint::black_box(self.0 + payload.len() as u64);
        Ok(Submitted::Accepted)
    }

    fn oldest(&mut self, _deadline: Instant) -> Result<Option<Instant>> {
        Ok(Some(Instant::now()))
    }
}

struct Run<'a, T> {
    load: &'a Load,
    target: &'a mut T,
    /// When each outstanding append was, or should have been, started.
    outstanding: VecDeque<Instant>,
    slice: Slice,
    next_start: Instant,
    next_stream: usize,
    last_durable: Instant,
}

impl<T: Target> Run<'_, T> {
    /// Does the next thing there is to do; false when the time is over.
    fn step(&mut self, end: Instant) -> Result<bool> {
        let mut now = Instant::now();
        while self.reap(now)? {}
        if now >= end {
            return Ok(false);
        }
        if self.outstanding.len() >= self.load.window {
            self.await_oldest()?;
            return Ok(true);
        }
        if self.load.interval.is_some() && self.next_start > now {
            if self.next_start >= end {
                return Ok(false);
            }
            if self.await_start()? {
                return Ok(true);
            }
            now = self.next_start;
        }
        let intended = self.load.interval.map_or(now, |_| self.next_start);
        match self.target.submit(self.next_stream, &self.load.payload)? {
            Submitted::Accepted => {
                self.outstanding.push_back(intended);
                self.next_stream = (self.next_stream + 1) % self.load.streams;
                self.next_start += self.load.interval.unwrap_or_default();
            }
            Submitted::Full if self.outstanding.is_empty() => {
                self.target.oldest(end)?;
            }
            Submitted::Full => {
                self.reap(end)?;
            }
        }
        Ok(true)
    }

    /// Waits until just the next start; true if an acknowledgement came first.
    fn await_start(&mut self) -> Result<bool> {
        let sleep_until = self.next_start - SPIN;
        let now = Instant::now();
        if sleep_until > now {
            if !self.outstanding.is_empty() {
                return self.reap(sleep_until);
            }
            thread::sleep(sleep_until - now);
        }
        let spinning = Instant::now();
        spin_until(self.next_start);
        self.slice.spun += spinning.elapsed();
        Ok(false)
    }

    fn await_oldest(&mut self) -> Result<()> {
        let stuck_at = Instant::now() + STUCK_AFTER;
        while !self.reap(stuck_at)? {
            if Instant::now() >= stuck_at {
                let seconds = STUCK_AFTER.as_secs();
                return Err(format!("an append was not durable after {seconds} s").into());
            }
        }
        Ok(())
    }

    /// Records the oldest append if it is durable by `deadline`.
    fn reap(&mut self, deadline: Instant) -> Result<bool> {
        let Some(intended) = self.outstanding.front() else {
            return Ok(false);
        };
        let Some(durable) = self.target.oldest(deadline)? else {
            return Ok(false);
        };
        self.slice
            .latency
            .record(durable.saturating_duration_since(*intended));
        self.slice.records += 1;
        self.slice.bytes += self.load.payload.len() as u64;
        self.last_durable = durable;
        self.outstanding.pop_front();
        Ok(true)
    }
}

/// Sleeps, then spins until `instant`: a late wake-up is not to be measured.
pub(crate) fn pause_until(instant: Instant) {
    let wait = instant.saturating_duration_since(Instant::now());
    if wait > SPIN {
        thread::sleep(wait - SPIN);
    }
    spin_until(instant);
}

fn spin_until(instant: Instant) {
    while Instant::now() < instant {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durable after a time that depends on how many were submitted before.
    struct Delayed {
        delays: Vec<Duration>,
        submitted: usize,
        due: VecDeque<Instant>,
        outstanding_max: usize,
        refuse_every: usize,
        calls: usize,
    }

    impl Delayed {
        fn new(delays: &[u64]) -> Self {
            Self {
                delays: delays.iter().copied().map(Duration::from_millis).collect(),
                submitted: 0,
                due: VecDeque::new(),
                outstanding_max: 0,
                refuse_every: usize::MAX,
                calls: 0,
            }
        }
    }

    impl Target for Delayed {
        fn submit(&mut self, _stream: usize, _payload: &Bytes) -> Result<Submitted> {
            self.calls += 1;
            if self.calls.is_multiple_of(self.refuse_every) {
                return Ok(Submitted::Full);
            }
            let delay = self.delays[self.submitted.min(self.delays.len() - 1)];
            self.submitted += 1;
            self.due.push_back(Instant::now() + delay);
            self.outstanding_max = self.outstanding_max.max(self.due.len());
            Ok(Submitted::Accepted)
        }

        fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
            let Some(due) = self.due.front().copied() else {
                return Ok(None);
            };
            pause_until(due.min(deadline));
            Ok((due <= deadline).then(|| {
                self.due.pop_front();
                due
            }))
        }
    }

    fn load(window: usize, interval_ms: Option<u64>) -> Load {
        Load {
            payload: Bytes::from_static(b"0123456789"),
            streams: 2,
            window,
            interval: interval_ms.map(Duration::from_millis),
        }
    }

    #[test]
    fn a_stall_counts_for_every_append_it_held_up() {
        // One append takes 60 ms; the six that should have started meanwhile waited 50, 40, ... ms.
        let mut target = Delayed::new(&[60, 0]);
        let slice = load(1, Some(10))
            .run(&mut target, Duration::from_millis(100))
            .unwrap();
        assert!(slice.records >= 9, "{}", slice.records);
        let median = slice.latency.micros(0.5).unwrap();
        assert!(median >= 9_000.0, "the waits were left out: {median}");
    }

    #[test]
    fn never_more_are_outstanding_than_the_window_and_all_are_waited_for() {
        let mut target = Delayed::new(&[1]);
        target.refuse_every = 7;
        let slice = load(4, None)
            .run(&mut target, Duration::from_millis(20))
            .unwrap();
        assert_eq!(slice.records as usize, target.submitted);
        assert_eq!(slice.bytes, slice.records * 10);
        assert!(target.due.is_empty());
        assert!((2..=4).contains(&target.outstanding_max));
    }

    #[test]
    fn the_window_grows_while_it_pays() {
        /// Eight appends per millisecond at most, however many wait.
        struct Eight(Delayed);
        impl Target for Eight {
            fn submit(&mut self, stream: usize, payload: &Bytes) -> Result<Submitted> {
                if self.0.due.len() >= 8 {
                    return Ok(Submitted::Full);
                }
                self.0.submit(stream, payload)
            }
            fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
                self.0.oldest(deadline)
            }
        }
        let window = load(1, None)
            .find_window(&mut Eight(Delayed::new(&[2])), Duration::from_millis(40))
            .unwrap();
        assert!((4..=32).contains(&window), "{window}");
    }

    #[test]
    fn the_generator_alone_is_charged_for_each_record() {
        let own = load(1, None).own_cpu_per_record().unwrap();
        assert!(own > Duration::ZERO && own < Duration::from_millis(1));
    }
}
