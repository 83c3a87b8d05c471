//! Deciding an entry.
//!
//! Total: every entry that decodes has an outcome, and a refused one changes nothing but the tip.
//! A batch of a stale node epoch is refused as a whole (M2); a repeated one gets its first answers (M5).

use super::{KNOWN_LEVEL, State};
use crate::{
    Error, NodeEpoch, NodeId, Result,
    metadata::{
        answer::{Answer, Refusal, Registered},
        command::Command,
        entry::{Batch, Body, EncodedEntry},
    },
};

/// What became of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The registration was granted, now or before.
    Registered(Registered),
    /// The registration was refused.
    Refused(Refusal),
    /// The batch was decided, now or before.
    Answers(Vec<Answer>),
    /// The node epoch is stale: nothing of the entry was done.
    Fenced {
        /// The node's epoch now.
        by: NodeEpoch,
    },
    /// No batch of this sequence is expected: nothing of it was done.
    OutOfSequence {
        /// The sequence that is.
        expected: u64,
    },
}

/// The node whose batch is decided, under its current epoch.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) node: NodeId,
    pub(super) epoch: NodeEpoch,
}

impl State {
    /// Takes the next entry of the log. Refuses one that does not follow (M8), or that this version does not understand (M7);
    /// the state is then as before.
    pub fn append(&mut self, entry: &EncodedEntry) -> Result<Outcome> {
        if !entry.follows(self.tip) {
            return Err(Error::corrupt(
                "the metadata was rolled back or forked: an entry does not follow what this node has seen",
            )
            .with("seen", format_args!("{}:{}", self.tip.index, self.tip.hash))
            .with("entry", entry.index())
            .with("follows", entry.previous()));
        }
        let decoded = entry.decode()?;
        if let Body::Batch(batch) = &decoded.body {
            refuse_unknown_level(batch)?;
        }
        // Set first: what is decided below may keep the entry's index.
        self.tip = entry.tip();
        Ok(self.decide(&decoded.body))
    }

    fn decide(&mut self, body: &Body) -> Outcome {
        match body {
            Body::Register(registration) => self.register(registration),
            Body::Batch(batch) => self.decide_batch(batch),
        }
    }

    fn decide_batch(&mut self, batch: &Batch) -> Outcome {
        if let Some(settled) = self.outcome_of(batch.node, batch.epoch, batch.sequence) {
            return settled;
        }
        let caller = Caller {
            node: batch.node,
            epoch: batch.epoch,
        };
        let mut answers = Vec::with_capacity(batch.commands.len());
        let mut left = false;
        for command in &batch.commands {
            answers.push(match left {
                // Leaving ends the life within the batch too.
                true => Answer::Refused(Refusal::NotStarted),
                false => self.decide_command(caller, command),
            });
            left |= answers.last() == Some(&Answer::Left);
        }
        if let Some(node) = self.nodes.get_mut(&batch.node) {
            node.registered = None;
            node.sequence = batch.sequence;
            node.answers.clone_from(&answers);
        }
        Outcome::Answers(answers)
    }

    /// What the state already knows of a batch: its answers, or why it will never be decided.
    /// `None`: it is the next to be decided, so nothing of it has happened.
    pub fn outcome_of(&self, node: NodeId, epoch: NodeEpoch, sequence: u64) -> Option<Outcome> {
        let Some(known) = self.nodes.get(&node) else {
            return Some(Outcome::Refused(Refusal::NotFound));
        };
        if known.epoch != epoch {
            return Some(Outcome::Fenced { by: known.epoch });
        }
        if sequence == known.sequence && sequence > 0 {
            return Some(Outcome::Answers(known.answers.clone()));
        }
        if known.left {
            return Some(Outcome::Refused(Refusal::NotStarted));
        }
        let expected = known.sequence + 1;
        (sequence != expected).then_some(Outcome::OutOfSequence { expected })
    }

    fn decide_command(&mut self, caller: Caller, command: &Command) -> Answer {
        match command {
            Command::Started(started) => self.started(caller, started),
            Command::Leave => self.leave(caller),
            Command::Retire { log, epochs } => {
                let answer = |epoch: &NodeEpoch| self.retire(caller, *log, *epoch);
                Answer::Retired(epochs.iter().map(answer).collect())
            }
            Command::TrimLog { log, trim } => self.trim_log_alone(caller, *log, trim),
            Command::CreateGroup(create) => self.create_group(caller, create),
            Command::Open { groups } => {
                Answer::Opened(groups.iter().map(|id| self.open(caller, *id)).collect())
            }
            Command::Close { groups } => Answer::Closed(
                groups
                    .iter()
                    .map(|group| self.close(caller, group))
                    .collect(),
            ),
            Command::Trim { streams } => {
                Answer::Trimmed(streams.iter().map(|trim| self.trim(caller, trim)).collect())
            }
            Command::Destroy { groups } => {
                let answer = |(id, epoch): &(_, _)| self.destroy(caller, *id, *epoch);
                Answer::Destroyed(groups.iter().map(answer).collect())
            }
            Command::Prepare { count } => self.prepare(caller, *count),
            Command::Commit(commit) => self.commit(caller, commit),
            Command::Condemn { objects } => {
                let answer = |object: &_| self.condemn(caller, *object);
                Answer::Condemned(objects.iter().map(answer).collect())
            }
            Command::Collect { object, ranges } => {
                Answer::Condemned(vec![self.collect(*object, ranges)])
            }
            Command::Forget { objects } => {
                Answer::Forgotten(objects.iter().map(|object| self.forget(*object)).collect())
            }
            Command::KvPut(put) => self.kv_put(put),
            Command::RaiseLevel { level } => {
                self.level = self.level.max(*level);
                Answer::Level { level: self.level }
            }
        }
    }
}

/// A level above what this version knows ends its understanding of the log before it changes anything (M7).
fn refuse_unknown_level(batch: &Batch) -> Result<()> {
    for command in &batch.commands {
        if let Command::RaiseLevel { level } = command
            && *level > KNOWN_LEVEL
        {
            return Err(Error::invalid(
                "the cluster uses features of a newer version: this version must be upgraded",
            )
            .with("level", level)
            .with("known", KNOWN_LEVEL));
        }
    }
    Ok(())
}
