//! The task that sends a node's batches and takes in everybody's entries.
//!
//! One append at a time. `sequence` is that of the last batch known to be decided. Ownership goes first; nothing overtakes within
//! its kind. Once fenced, or once the log cannot be understood, every request gets that error and the store is left alone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Batch, Body, Command, EncodedEntry, Entry, Loaded, News, Outcome, Registered,
    Registration, Sequencer, Shared, State, Tip,
    wire::{Wire, Writer},
};
use crate::{Error, ErrorKind, NodeEpoch, NodeId, Result, entropy::Entropy};

/// A batch gathers submissions up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// One submission may have this many; above [`BATCH_BYTES`] it goes alone.
const SUBMISSION_BYTES_MAX: usize = 16 << 20;
/// Submissions taken out of the queue and not yet sent.
const GATHERED_MAX: usize = 1024;
/// Waits between lost races start here and double up to the most.
const RACE_WAIT: Duration = Duration::from_millis(2);
const RACE_WAIT_MAX: Duration = Duration::from_millis(128);

/// What a handle may ask of its driver.
#[derive(Debug)]
pub(super) enum Request {
    Register {
        registration: Registration,
        reply: oneshot::Sender<Result<Registered>>,
    },
    Submit(Submission),
    Look {
        reply: oneshot::Sender<Result<()>>,
    },
}

/// Commands of one caller.
#[derive(Debug)]
pub(super) struct Submission {
    commands: Vec<Command>,
    /// Encoded length of the commands.
    bytes: usize,
    reply: oneshot::Sender<Result<Vec<Answer>>>,
}

impl Submission {
    pub(super) fn new(
        commands: Vec<Command>,
        reply: oneshot::Sender<Result<Vec<Answer>>>,
    ) -> Result<Self> {
        let mut out = Writer::default();
        for command in &commands {
            command.put(&mut out);
        }
        let bytes = out.len();
        if commands.is_empty() || bytes > SUBMISSION_BYTES_MAX {
            return Err(Error::invalid("a submission of impossible size")
                .with("commands", commands.len())
                .with("bytes", bytes)
                .with("max", SUBMISSION_BYTES_MAX));
        }
        Ok(Self {
            commands,
            bytes,
            reply,
        })
    }

    fn is_ownership(&self) -> bool {
        self.commands.iter().any(Command::is_ownership)
    }
}

/// The node's life, once registered.
#[derive(Clone, Copy, Debug)]
struct Life {
    node: NodeId,
    epoch: NodeEpoch,
    sequence: u64,
}

#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    sequencer: Box<dyn Sequencer>,
    entropy: Entropy,
    queue: mpsc::Receiver<Request>,
    life: Option<Life>,
    registrations: VecDeque<(Registration, oneshot::Sender<Result<Registered>>)>,
    ownership: VecDeque<Submission>,
    others: VecDeque<Submission>,
    looks: Vec<oneshot::Sender<Result<()>>>,
    /// Why nothing more is done, once that is so.
    end: Option<Error>,
}

/// A driver that panics takes no other task with it: its callers get a typed error (S6).
impl Drop for Driver {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Error::internal("the metadata's driver panicked");
            *self.shared.stopped.lock() = Some(error);
        }
    }
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        sequencer: Box<dyn Sequencer>,
        entropy: Entropy,
        queue: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            shared,
            sequencer,
            entropy,
            queue,
            life: None,
            registrations: VecDeque::new(),
            ownership: VecDeque::new(),
            others: VecDeque::new(),
            looks: Vec::new(),
            end: None,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(request) = self.queue.recv().await {
            self.take_in(request);
            while !self.is_idle() {
                // What arrived while the last entry was on its way goes into this one.
                self.gather();
                self.step().await;
                self.keep_snapshot().await;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.gathered() == 0
    }

    fn gathered(&self) -> usize {
        self.registrations.len() + self.ownership.len() + self.others.len() + self.looks.len()
    }

    fn gather(&mut self) {
        while self.gathered() < GATHERED_MAX {
            match self.queue.try_recv() {
                Ok(request) => self.take_in(request),
                Err(_) => return,
            }
        }
    }

    fn take_in(&mut self, request: Request) {
        match request {
            Request::Register {
                registration,
                reply,
            } => self.registrations.push_back((registration, reply)),
            Request::Submit(submission) if submission.is_ownership() => {
                self.ownership.push_back(submission);
            }
            Request::Submit(submission) => self.others.push_back(submission),
            Request::Look { reply } => self.looks.push(reply),
        }
    }

    /// One entry, or one look. Looks that wait are served by whichever it is: an append sees the log's end too (S8).
    async fn step(&mut self) {
        if let Some(end) = self.end.clone() {
            return self.refuse_all(&end);
        }
        let looks = std::mem::take(&mut self.looks);
        let seen = if let Some((registration, reply)) = self.registrations.pop_front() {
            let outcome = self.register(registration).await;
            let seen = outcome.as_ref().map(|_| ()).map_err(Error::clone);
            let _ = reply.send(outcome);
            seen
        } else if self.ownership.is_empty() && self.others.is_empty() {
            self.look().await
        } else {
            self.send_batch().await
        };
        for look in looks {
            let _ = look.send(seen.clone());
        }
    }

    fn refuse_all(&mut self, end: &Error) {
        for (_, reply) in self.registrations.drain(..) {
            let _ = reply.send(Err(end.clone()));
        }
        for submission in self.ownership.drain(..).chain(self.others.drain(..)) {
            let _ = submission.reply.send(Err(end.clone()));
        }
        for look in self.looks.drain(..) {
            let _ = look.send(Err(end.clone()));
        }
    }

    async fn register(&mut self, registration: Registration) -> Result<Registered> {
        // The epoch that ends now is not this driver's to defend any more: what ends it may be its own entry.
        self.life = None;
        let body = Body::Register(registration.clone());
        let settled = |state: &State| state.registration_outcome(&registration);
        let (outcome, sent) = self.append_until(body, settled).await?;
        match outcome {
            Outcome::Registered(registered) => {
                self.life = Some(Life {
                    node: registration.node,
                    epoch: registered.epoch,
                    sequence: 0,
                });
                if let Some(sent) = sent {
                    self.mark_current(sent);
                }
                Ok(registered)
            }
            Outcome::Refused(refusal) => Err(Error::invalid("the registration was refused")
                .with("node", registration.node)
                .caused_by(refusal)),
            Outcome::Fenced { by } => Err(self.fenced(registration.node, by)),
            other => Err(self.stop(
                Error::internal("a registration was answered as a batch")
                    .with("outcome", format_args!("{other:?}")),
            )),
        }
    }

    async fn send_batch(&mut self) -> Result<()> {
        let mut submissions = self.next_submissions();
        let take = |submission: &mut Submission| {
            let commands = std::mem::take(&mut submission.commands);
            (commands.len(), commands)
        };
        let (counts, commands): (Vec<_>, Vec<_>) = submissions.iter_mut().map(take).unzip();
        match self.decide(commands.concat()).await {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for (submission, count) in submissions.into_iter().zip(counts) {
                    let own = answers.by_ref().take(count).collect();
                    let _ = submission.reply.send(Ok(own));
                }
                Ok(())
            }
            Err(error) => {
                for submission in submissions {
                    let _ = submission.reply.send(Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Ownership first, then the rest in order, up to the batch's size; at least one.
    fn next_submissions(&mut self) -> Vec<Submission> {
        let mut bytes = 0;
        let mut taken: Vec<Submission> = Vec::new();
        for waiting in [&mut self.ownership, &mut self.others] {
            while let Some(next) = waiting.front() {
                if !taken.is_empty() && bytes + next.bytes > BATCH_BYTES {
                    return taken;
                }
                bytes += next.bytes;
                taken.extend(waiting.pop_front());
            }
        }
        taken
    }

    async fn decide(&mut self, commands: Vec<Command>) -> Result<Vec<Answer>> {
        let Some(life) = self.life else {
            return Err(Error::invalid("the node is not registered"));
        };
        let sequence = life.sequence + 1;
        let count = commands.len();
        let body = Body::Batch(Batch {
            node: life.node,
            epoch: life.epoch,
            sequence,
            commands,
        });
        let settled = |state: &State| state.outcome_of(life.node, life.epoch, sequence);
        let (outcome, _) = self.append_until(body, settled).await?;
        match outcome {
            Outcome::Answers(answers) if answers.len() == count => {
                self.life = Some(Life { sequence, ..life });
                Ok(answers)
            }
            // It may have been decided before the node was fenced; its answers went with the epoch (M5).
            Outcome::Fenced { by } => Err(self.fenced(life.node, by).ambiguous()),
            Outcome::Refused(_) => Err(Error::closed("the node has left").with("node", life.node)),
            other => Err(self.stop(
                Error::internal("a batch was answered out of turn")
                    .with("sequence", sequence)
                    .with("outcome", format_args!("{other:?}")),
            )),
        }
    }

    /// Appends `body` behind whatever others append, until the state knows its outcome, and tells when the try that showed it was
    /// sent. The body stays the same over all tries, so that the state tells a repetition (M5).
    async fn append_until(
        &mut self,
        body: Body,
        settled: impl Fn(&State) -> Option<Outcome> + Send,
    ) -> Result<(Outcome, Option<Duration>)> {
        let mut wait = RACE_WAIT;
        let mut last_sent = None;
        let mut entry = Entry {
            index: 0,
            previous: Tip::default().hash,
            body,
        };
        loop {
            let tip = {
                let state = self.shared.state.read();
                if let Some(outcome) = settled(&state) {
                    return Ok((outcome, last_sent));
                }
                state.tip()
            };
            entry.index = tip.index + 1;
            entry.previous = tip.hash;
            let encoded = entry.encode();
            let sent = self.shared.clock.now();
            last_sent = Some(sent);
            let news = self.sequencer.append(&encoded).await;
            let outcome = match news {
                // This very entry's outcome: also a refusal that leaves no trace in the state.
                Ok(news) => self.take_news(news, Some(encoded.tip()))?,
                Err(error) => return Err(self.failed(error)),
            };
            self.mark_current(sent);
            if let Some(outcome) = outcome {
                return Ok((outcome, last_sent));
            }
            if settled(&self.shared.state.read()).is_none() {
                // Another's entry came first: let the others through, more the more there are.
                tokio::time::sleep(self.entropy.below(wait)).await;
                wait = (wait * 2).min(RACE_WAIT_MAX);
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        let tip = self.shared.state.read().tip();
        let sent = self.shared.clock.now();
        match self.sequencer.look(tip).await {
            Ok(news) => {
                self.take_news(news, None)?;
                self.mark_current(sent);
                self.end.clone().map_or(Ok(()), Err)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Applies what is new. Gives the outcome of the entry that becomes `own`, if it is among it.
    fn take_news(&mut self, news: News, own: Option<Tip>) -> Result<Option<Outcome>> {
        let taken = {
            let mut state = self.shared.state.write();
            apply_news(&mut state, news, own)
        };
        let index = self.shared.state.read().tip().index;
        self.shared.seen.send_if_modified(|seen| {
            let advanced = seen.index != index;
            seen.index = index;
            advanced
        });
        taken.map_err(|error| self.stop(error))
    }

    /// The log was seen as of `sent`: the node's epoch was current then, or the node is fenced (S8).
    fn mark_current(&mut self, sent: Duration) {
        let Some(life) = self.life else {
            return;
        };
        let current = self.shared.state.read().node_epoch(life.node);
        match current {
            Some(epoch) if epoch != life.epoch => {
                self.fenced(life.node, epoch);
            }
            _ => *self.shared.current_at.lock() = Some(sent),
        }
    }

    fn fenced(&mut self, node: NodeId, by: NodeEpoch) -> Error {
        self.shared.seen.send_modify(|seen| seen.fenced = Some(by));
        let error = Error::fenced("another process registered this node")
            .with("node", node)
            .with("by node epoch", by);
        self.stop(error)
    }

    /// An error that trying again can help leaves the driver as it is; any other ends it.
    fn failed(&mut self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Unavailable => error,
            _ => self.stop(error),
        }
    }

    fn stop(&mut self, error: Error) -> Error {
        self.end.get_or_insert(error).clone()
    }

    /// The caller has its answer: only those that come next wait for this.
    async fn keep_snapshot(&mut self) {
        if self.end.is_some() || !self.sequencer.wants_snapshot() {
            return;
        }
        let (tip, bytes) = {
            let state = self.shared.state.read();
            (state.tip(), state.encode())
        };
        if let Err(error) = self.sequencer.snapshot(tip, bytes.into()).await {
            // The log is whole without it.
            tracing::warn!(%error, index = tip.index, "metadata snapshot");
            if error.kind() != ErrorKind::Unavailable {
                self.stop(error);
            }
        }
    }
}

/// Replaces `state` by what was loaded, which must not be older (M8).
pub(super) fn load(state: &mut State, loaded: Loaded) -> Result<()> {
    let mut fresh = match loaded.snapshot {
        Some((tip, bytes)) => {
            let fresh = State::decode(&bytes)?;
            if fresh.tip() != tip {
                return Err(Error::corrupt(
                    "metadata snapshot of another entry than it is listed for",
                )
                .with("listed", tip.index)
                .with("found", fresh.tip().index));
            }
            fresh
        }
        None => State::default(),
    };
    let mut reached = fresh.tip() == state.tip();
    for entry in &loaded.entries {
        fresh.append(entry)?;
        reached |= fresh.tip() == state.tip();
    }
    // What was seen is in it, or lies before all that is kept.
    let first = loaded
        .entries
        .first()
        .map_or(fresh.tip().index, |entry| entry.index() - 1);
    if !reached && state.tip().index >= first {
        return Err(Error::corrupt("the metadata was rolled back or forked")
            .with("seen", state.tip().index)
            .with("newest", fresh.tip().index));
    }
    *state = fresh;
    Ok(())
}

fn apply_news(state: &mut State, news: News, own: Option<Tip>) -> Result<Option<Outcome>> {
    let entries: Vec<EncodedEntry> = match news {
        News::Entries(entries) => entries,
        News::Reload(loaded) => {
            load(state, loaded)?;
            return Ok(None);
        }
    };
    let mut outcome = None;
    for entry in &entries {
        let decided = state.append(entry)?;
        if Some(entry.tip()) == own {
            outcome = Some(decided);
        }
    }
    Ok(outcome)
}
