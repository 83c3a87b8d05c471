//! The clients of one stream: each does one kind of thing at random moments until the life is over.
//!
//! They believe errors as they are documented (S5): a refused append never happened, any other may have.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use s3stream::{Append, ErrorKind, Stream};
use tokio::time::sleep;

use crate::{Entropy, Violation, life::Life};

/// Appends queued before the first of them is waited for.
const BURST_MAX: u64 = 12;
/// Offsets of one record at most.
const COUNT_MAX: u64 = 5;

/// What an actor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Append,
    Fetch,
    Tail,
    Trim,
    Flush,
}

impl Role {
    pub(crate) const ALL: [Self; 5] = [
        Self::Append,
        Self::Fetch,
        Self::Tail,
        Self::Trim,
        Self::Flush,
    ];
}

/// One client.
#[derive(Debug)]
pub(crate) struct Actor {
    life: Arc<Life>,
    stream: Stream,
    role: Role,
    entropy: Entropy,
}

impl Actor {
    pub(crate) fn new(life: Arc<Life>, stream: Stream, role: Role) -> Self {
        let entropy = life.entropy.fork("actor");
        Self {
            life,
            stream,
            role,
            entropy,
        }
    }

    /// Acts for ever, or to the first violation.
    pub(crate) async fn act(self) -> Result<(), Violation> {
        // Some clients are busy, most hardly ever call.
        let shortest = Duration::from_millis(20);
        let longest = Duration::from_secs(2)..Duration::from_secs(400);
        let longest = self.entropy.wait(longest);
        loop {
            sleep(self.entropy.wait(shortest..longest)).await;
            match self.role {
                Role::Append => self.append().await?,
                Role::Fetch => self.fetch().await?,
                Role::Tail => self.tail().await?,
                Role::Trim => self.trim().await?,
                Role::Flush => self.flush().await?,
            }
            self.life.observe(&self.stream)?;
        }
    }

    async fn append(&self) -> Result<(), Violation> {
        let mut queued = Vec::new();
        for _ in 0..self.entropy.within(1..BURST_MAX) {
            if let Some(append) = self.queue().await? {
                queued.push(append);
            }
        }
        for (sequence, append) in queued {
            // A dropped future does not cancel its append (S9).
            if self.entropy.chance(50) {
                continue;
            }
            match append.await {
                Ok(offsets) => {
                    self.life.world.promised.lock().acknowledged += 1;
                    self.life.check(self.stream.id(), |checker| {
                        checker.acknowledged(sequence, &offsets)
                    })?;
                }
                Err(error) if error.may_have_happened() => self.life.tolerate("append", &error)?,
                Err(error) => {
                    let what = format!("a queued append failed as if it never happened: {error:?}");
                    return Err(Violation::new("S5", what));
                }
            }
        }
        Ok(())
    }

    /// Queues one append, waiting for room if there is none.
    async fn queue(&self) -> Result<Option<(u64, Append)>, Violation> {
        let stream = &self.stream;
        let large = self.entropy.chance(30);
        let len = self
            .entropy
            .within(if large { 0..60_000 } else { 0..3_000 }) as usize;
        let count = self.entropy.within(1..COUNT_MAX);
        let (sequence, payload) = {
            let mut promised = self.life.world.promised.lock();
            promised.checker(stream.id()).payload(len)
        };
        let parts: [&[u8]; 2] = {
            let (head, body) = payload.split_at(payload.len() / 3);
            [head, body]
        };
        let queued = match stream.append(count, &parts) {
            Err(error) if error.kind() == ErrorKind::Full => {
                match stream.ready(payload.len()).await {
                    Ok(permit) => stream.append_with(permit, count, &parts),
                    Err(error) => Err(error),
                }
            }
            other => other,
        };
        match queued {
            Ok(append) => {
                let offsets = append.offsets();
                self.life.world.note(format_args!(
                    "{} append {sequence} at {offsets:?}",
                    stream.id()
                ));
                self.life
                    .check(stream.id(), |checker| checker.queued(sequence, offsets))?;
                Ok(Some((sequence, append)))
            }
            Err(error) => {
                self.life.tolerate("queue an append", &error)?;
                Ok(None)
            }
        }
    }

    async fn fetch(&self) -> Result<(), Violation> {
        let (start, confirm) = (self.stream.start(), self.stream.confirm());
        let from = self.entropy.within(start..confirm + 1);
        let bytes = self.entropy.within(1..100_000) as usize;
        match self.stream.fetch(from, bytes).await {
            Ok(fetched) => {
                let found = fetched
                    .records
                    .iter()
                    .map(|record| (&record.offsets, &record.payload));
                self.life.world.note(format_args!(
                    "{} fetch {from}: {} records",
                    self.stream.id(),
                    fetched.records.len()
                ));
                self.life.check(self.stream.id(), |checker| {
                    checker.fetched(from, found, fetched.confirm)
                })
            }
            Err(error) if error.kind() == ErrorKind::OutOfRange => self.trimmed_away(from),
            Err(error) => self.life.tolerate("fetch", &error),
        }
    }

    /// Follows the stream for a while.
    async fn tail(&self) -> Result<(), Violation> {
        let from = self
            .entropy
            .within(self.stream.start()..self.stream.confirm() + 1);
        let mut tail = self.stream.tail(from);
        let mut at = from;
        for _ in 0..self.entropy.within(1..50) {
            match tail.next().await {
                Some(Ok(record)) => {
                    let found = [(&record.offsets, &record.payload)].into_iter();
                    self.life.check(self.stream.id(), |checker| {
                        checker.fetched(at, found, self.stream.confirm())
                    })?;
                    at = record.offsets.end;
                }
                Some(Err(error)) if error.kind() == ErrorKind::OutOfRange => {
                    return self.trimmed_away(at);
                }
                Some(Err(error)) => self.life.tolerate("tail", &error)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// "Trimmed" is an answer only below a trim that was asked for.
    fn trimmed_away(&self, from: u64) -> Result<(), Violation> {
        self.life.check(self.stream.id(), |checker| {
            if from < checker.may_be_trimmed() {
                return Ok(());
            }
            Err(Violation::new(
                "S4",
                format!("{from} is out of range and was not trimmed"),
            ))
        })
    }

    async fn trim(&self) -> Result<(), Violation> {
        let (start, confirm) = (self.stream.start(), self.stream.confirm());
        // Mostly a little, now and then all.
        let reach = if self.entropy.chance(50) { 1 } else { 4 };
        let below = self
            .entropy
            .within(start..start + (confirm - start) / reach + 1);
        self.life.check(self.stream.id(), |checker| {
            checker.trim_asked(below);
            Ok(())
        })?;
        self.life
            .world
            .note(format_args!("{} trim below {below}", self.stream.id()));
        match self.stream.trim(..below).await {
            Ok(()) => self.life.check(self.stream.id(), |checker| {
                checker.trimmed(below);
                Ok(())
            }),
            Err(error) => self.life.tolerate("trim", &error),
        }
    }

    async fn flush(&self) -> Result<(), Violation> {
        match self.stream.flush().await {
            Ok(()) => Ok(()),
            Err(error) => self.life.tolerate("flush", &error),
        }
    }
}
