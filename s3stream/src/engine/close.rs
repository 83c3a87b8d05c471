//! A graceful end: after it the bucket has everything and the log owes nothing.

use wal::Position;

use super::core::Core;
use crate::{
    Error, NodeEpoch, Result,
    metadata::{Answer, CloseGroup, Command, DebtView, LogTrim},
};

/// Groups in one command.
const GROUPS_MAX: usize = 1024;

impl Core {
    /// Drain, upload, trim and close the log, retire its epochs, give up the groups, leave.
    pub(crate) async fn close(&self) -> Result<()> {
        let session = self.session()?;
        let closing = Error::closed("the engine is being closed");
        self.admission.close(closing.clone());
        let mut open = Vec::new();
        self.for_each_stream(|progress| open.push(progress.clone()));
        for progress in &open {
            progress.drain(closing.clone());
        }
        for progress in &open {
            progress.drained().await?;
        }
        self.flush().await?;
        self.trim_all(session.log_uuid, session.log.durable_end())
            .await?;
        session.log.trim(session.log.durable_end());
        session.log.close().await.map_err(Error::from)?;

        let mut groups: Vec<CloseGroup> = self.metadata.view(|state| {
            let close = |id| {
                let group = state.group(id)?;
                let ends = group
                    .streams
                    .iter()
                    .filter_map(|stream| Some((*stream, state.stream(*stream)?.end)))
                    .collect();
                Some(CloseGroup {
                    group: id,
                    epoch: group.epoch,
                    ends,
                })
            };
            state.groups_of(self.node).filter_map(close).collect()
        });
        while !groups.is_empty() {
            let rest = groups.split_off(groups.len().min(GROUPS_MAX));
            let close = Command::Close { groups };
            if let Answer::Closed(answers) = self.submit_one(close).await? {
                for answer in answers {
                    answer.map_err(super::groups::refused)?;
                }
            }
            groups = rest;
        }
        self.leave(session.log_uuid).await
    }

    /// Everything is committed, so nothing in the log is owed up to its end: recorded before the log gives it up (W7).
    async fn trim_all(&self, log: wal::LogUuid, durable_end: Position) -> Result<()> {
        let trim: Vec<LogTrim> = self.debts_in(log, |debt| {
            let end = debt.sealed_end.unwrap_or(durable_end).min(durable_end);
            debt.started.then_some(LogTrim {
                epoch: debt.epoch,
                settled: end,
                with_this: end,
                durable_end: end,
            })
        });
        match self.submit_one(Command::TrimLog { log, trim }).await? {
            Answer::LogTrimmed(epochs) => {
                for trimmed in epochs {
                    trimmed.1.map_err(super::groups::refused)?;
                }
                Ok(())
            }
            other => Err(Error::internal("the log could not be trimmed")
                .with("answer", format!("{other:?}"))),
        }
    }

    /// Something of each of this node's debts in a log.
    fn debts_in<T>(&self, log: wal::LogUuid, of: impl Fn(DebtView) -> Option<T>) -> Vec<T> {
        self.metadata.view(|state| {
            let own = |debt: &DebtView| debt.log == log && debt.holder == self.node;
            state.debts().filter(own).filter_map(of).collect()
        })
    }

    async fn leave(&self, log: wal::LogUuid) -> Result<()> {
        let epochs: Vec<NodeEpoch> = self.debts_in(log, |debt| Some(debt.epoch));
        let commands = vec![Command::Retire { log, epochs }, Command::Leave];
        for answer in self.metadata.submit(commands).await? {
            match answer {
                Answer::Retired(epochs) => {
                    for epoch in epochs {
                        epoch.map_err(super::groups::refused)?;
                    }
                }
                Answer::Left => {}
                other => {
                    return Err(Error::internal("the node could not leave")
                        .with("answer", format!("{other:?}")));
                }
            }
        }
        Ok(())
    }
}
