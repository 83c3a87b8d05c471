//! OffsetCommit and TxnOffsetCommit: how far a group has read.

use kafka_protocol::error::ResponseError;

use super::{
    Done, Groups, GroupsOut, Record,
    group::{Group, State},
    record::Committed,
};
use crate::coordinator::{InTransaction, Now};

/// A commit of one member, or of somebody who is in no group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commit {
    pub(crate) group: String,
    /// -1 for whoever is in no group.
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    /// What is committed: topic, partition, and what is kept.
    pub(crate) offsets: Vec<(String, i32, Committed)>,
}

/// What a commit is a part of.
#[derive(Clone, Debug)]
pub(crate) enum CommitIn {
    /// Nothing, with the error for a generation of a group that there is not.
    Nothing { unknown: ResponseError },
    /// It counts when the transaction is committed.
    Transaction(InTransaction),
}

impl Groups {
    /// Commits, or says for all of it why not.
    pub(crate) fn commit(
        &mut self,
        commit: Commit,
        within: CommitIn,
        now: Now,
        out: &mut GroupsOut,
    ) -> Done {
        let in_transaction = matches!(within, CommitIn::Transaction(_));
        let checked = match self.groups.get_mut(&commit.group) {
            Some(group) if group.consumer.exists() => group.check_consumer_commit(&commit, &within),
            Some(group) => group.check_commit(&commit, in_transaction, now),
            None => self.check_unknown(&commit, &within),
        };
        checked?;
        for (topic, partition, committed) in commit.offsets {
            out.record(Record::Offset {
                group: commit.group.clone(),
                topic,
                partition,
                value: Some(committed),
            });
        }
        if let CommitIn::Transaction(transaction) = within {
            out.in_transaction(transaction);
        }
        Ok(())
    }

    /// Whoever is in no group makes one that has offsets alone (F31).
    fn check_unknown(&self, commit: &Commit, within: &CommitIn) -> Done {
        if commit.generation >= 0 {
            return Err(match within {
                CommitIn::Nothing { unknown } => *unknown,
                CommitIn::Transaction(_) => ResponseError::IllegalGeneration,
            });
        }
        if self.groups.len() >= self.settings.groups_max {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        Ok(())
    }
}

impl Group {
    fn check_commit(&mut self, commit: &Commit, in_transaction: bool, now: Now) -> Done {
        if commit.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let (id, instance) = (&commit.member_id, commit.instance.as_deref());
        let says_who = commit.generation >= 0 || !id.is_empty() || instance.is_some();
        if says_who {
            self.check_member(id, instance)?;
            if commit.generation != self.generation {
                return Err(ResponseError::IllegalGeneration);
            }
        } else if !in_transaction {
            // In a group only members commit. Old clients cannot say who they are in a transaction.
            return Err(ResponseError::UnknownMemberId);
        }
        if !in_transaction && self.state == State::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        // A commit shows that its member is there.
        if let Some(member) = self.members.get_mut(id) {
            member.touch(now.mono_ms);
        }
        Ok(())
    }

    /// Of a consumer group every member commits, at its epoch.
    fn check_consumer_commit(&self, commit: &Commit, within: &CommitIn) -> Done {
        let (id, epoch) = (&commit.member_id, commit.generation);
        let says_who = epoch >= 0 || !id.is_empty() || commit.instance.is_some();
        let may_be_anybody = matches!(within, CommitIn::Transaction(_)) && !says_who;
        if may_be_anybody || (epoch < 0 && self.consumer.is_empty()) {
            return Ok(());
        }
        let checked = self.consumer.check_epoch(id, epoch);
        match (checked, within) {
            (Err(ResponseError::StaleMemberEpoch), CommitIn::Transaction(_)) => {
                Err(ResponseError::IllegalGeneration)
            }
            // Of a version that cannot tell its member of another epoch.
            (
                Ok(()) | Err(ResponseError::StaleMemberEpoch),
                CommitIn::Nothing {
                    unknown: ResponseError::IllegalGeneration,
                },
            ) => Err(ResponseError::UnsupportedVersion),
            (checked, _) => checked,
        }
    }
}
