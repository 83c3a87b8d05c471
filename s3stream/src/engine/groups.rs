//! Groups: create, open, trim, close, destroy. Every change of ownership is one entry of the metadata (M3).

use std::{sync::Arc, time::Duration};

use super::{
    core::{Core, Session},
    recovery::open_stream,
};
use crate::{
    Error, ErrorKind, GroupId, Result, Stream, StreamId,
    metadata::{Answer, CloseGroup, Command, CreateGroup, Refusal, TrimStream},
    stream::progress::Progress,
};

/// How long a close waits for what is in flight before it is called off.
const CLOSE_WAIT: Duration = Duration::from_secs(30);

impl Core {
    pub(crate) async fn create_group(
        self: &Arc<Self>,
        streams: u32,
        tags: Vec<(String, String)>,
    ) -> Result<(GroupId, Vec<Stream>)> {
        let session = self.session()?;
        let create = Command::CreateGroup(CreateGroup {
            streams,
            tags,
            open: true,
        });
        match self.submit_one(create).await? {
            Answer::GroupCreated { group, .. } => Ok((group, self.attach(&session, group)?)),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) async fn open_group(self: &Arc<Self>, group: GroupId) -> Result<Vec<Stream>> {
        let session = self.session()?;
        if let Some(owned) = self.metadata.view(|state| {
            let found = state.group(group)?;
            Some(found.owner == Some(self.node))
        }) && owned
        {
            return self.attach(&session, group);
        }
        let open = Command::Open {
            groups: vec![group],
        };
        match self.submit_one(open).await? {
            Answer::Opened(mut groups) => match groups.pop() {
                Some(Ok(_)) => self.attach(&session, group),
                Some(Err(refusal)) => Err(refused(refusal).with("group", group)),
                None => Err(Error::internal("no answer for the group")),
            },
            other => Err(unexpected(other)),
        }
    }

    /// Handles of an owned group's streams; the same stream always has the same state.
    fn attach(self: &Arc<Self>, session: &Session, group: GroupId) -> Result<Vec<Stream>> {
        let streams = self
            .metadata
            .view(|state| state.group(group).map(|group| group.streams.clone()))
            .ok_or_else(|| Error::not_found("no such group").with("group", group))?;
        streams
            .into_iter()
            .map(|stream| self.attach_stream(session, group, stream))
            .collect()
    }

    fn attach_stream(
        self: &Arc<Self>,
        session: &Session,
        group: GroupId,
        stream: StreamId,
    ) -> Result<Stream> {
        let mut streams = self.streams.write();
        if let Some(progress) = streams.get(&stream)
            && progress.closed().is_none()
        {
            return Ok(Stream::new(self.clone(), progress.clone()));
        }
        let found = self
            .metadata
            .view(|state| open_stream(state, self.node, stream))
            .ok_or_else(|| {
                Error::not_found("no such stream on this node").with("stream", stream)
            })?;
        let progress = Progress::new(stream, group);
        let end = session.end_of(stream, found.committed_end);
        progress.open(found.epoch, found.start, end, session.log.clone());
        streams.insert(stream, progress.clone());
        drop(streams);
        // The log may have failed between the look at the session and the insertion.
        if self.is_over(session.epoch) {
            let error = self
                .session()
                .err()
                .unwrap_or_else(|| Error::unavailable("the log was reopened meanwhile"));
            self.streams.write().remove(&stream);
            progress.shut(error.clone(), true);
            return Err(error);
        }
        Ok(Stream::new(self.clone(), progress))
    }

    pub(crate) async fn trim(&self, progress: &Progress, start: u64) -> Result<()> {
        let trim = Command::Trim {
            streams: vec![TrimStream {
                stream: progress.stream,
                epoch: progress.epoch(),
                start,
            }],
        };
        match self.submit_one(trim).await? {
            Answer::Trimmed(mut streams) => match streams.pop() {
                Some(Ok(start)) => {
                    progress.trim(start);
                    self.with_cache(0, |cache| cache.trim(progress.stream.get(), ..start));
                    self.cleaner.wake();
                    Ok(())
                }
                Some(Err(refusal)) => Err(refused(refusal).with("stream", progress.stream)),
                None => Err(Error::internal("no answer for the stream")),
            },
            other => Err(unexpected(other)),
        }
    }

    /// A move to nobody: drain, upload, and one entry; called off when that does not succeed.
    pub(crate) async fn close_group(&self, group: GroupId) -> Result<()> {
        let session = self.session()?;
        let members = self.members(group);
        let draining = Error::closed("the group is being closed").with("group", group);
        members
            .iter()
            .for_each(|progress| progress.drain(draining.clone()));
        let result = self.close_drained(group, &members).await;
        match &result {
            Ok(()) => {
                let closed = Error::closed("the group was closed").with("group", group);
                self.forget(&members, closed);
            }
            Err(_) => members
                .iter()
                .for_each(|progress| progress.resume(session.log.clone())),
        }
        result
    }

    async fn close_drained(&self, group: GroupId, members: &[Arc<Progress>]) -> Result<()> {
        let wait = async {
            for progress in members {
                progress.drained().await?;
            }
            self.flush().await
        };
        tokio::time::timeout(CLOSE_WAIT, wait)
            .await
            .map_err(|_| Error::unavailable("records of the group are still in flight"))??;
        let Some(epoch) = self
            .metadata
            .view(|state| state.group(group).map(|group| group.epoch))
        else {
            return Err(Error::not_found("no such group").with("group", group));
        };
        let ends = self.metadata.view(|state| {
            let streams = state.group(group).map(|group| group.streams.clone());
            streams
                .unwrap_or_default()
                .into_iter()
                .filter_map(|stream| {
                    let open = members.iter().find(|progress| progress.stream == stream);
                    let end = match open {
                        Some(progress) => progress.bounds().confirm,
                        None => state.stream(stream)?.end,
                    };
                    Some((stream, end))
                })
                .collect()
        });
        let close = Command::Close {
            groups: vec![CloseGroup { group, epoch, ends }],
        };
        match self.submit_one(close).await? {
            Answer::Closed(mut groups) => match groups.pop() {
                Some(Ok(_)) => Ok(()),
                Some(Err(refusal)) => Err(refused(refusal).with("group", group)),
                None => Err(Error::internal("no answer for the group")),
            },
            other => Err(unexpected(other)),
        }
    }

    pub(crate) async fn destroy_group(&self, group: GroupId) -> Result<()> {
        let Some(epoch) = self
            .metadata
            .view(|state| state.group(group).map(|group| group.epoch))
        else {
            return Err(Error::not_found("no such group").with("group", group));
        };
        let members = self.members(group);
        let destroy = Command::Destroy {
            groups: vec![(group, epoch)],
        };
        match self.submit_one(destroy).await? {
            Answer::Destroyed(mut groups) => match groups.pop() {
                Some(Ok(_) | Err(Refusal::NotFound)) => {}
                Some(Err(refusal)) => return Err(refused(refusal).with("group", group)),
                None => return Err(Error::internal("no answer for the group")),
            },
            other => return Err(unexpected(other)),
        }
        let gone = Error::not_found("the group was destroyed").with("group", group);
        self.forget(&members, gone);
        self.with_cache(0, |cache| {
            members
                .iter()
                .for_each(|progress| cache.remove(progress.stream.get()));
        });
        self.cleaner.wake();
        Ok(())
    }

    /// The group's streams that are open here.
    fn members(&self, group: GroupId) -> Vec<Arc<Progress>> {
        let ids = self
            .metadata
            .view(|state| state.group(group).map(|group| group.streams.clone()));
        let streams = self.streams.read();
        ids.unwrap_or_default()
            .iter()
            .filter_map(|id| streams.get(id).cloned())
            .collect()
    }

    fn forget(&self, members: &[Arc<Progress>], error: Error) {
        let mut streams = self.streams.write();
        for progress in members {
            streams.remove(&progress.stream);
        }
        drop(streams);
        for progress in members {
            progress.shut(error.clone(), true);
        }
    }

    pub(crate) async fn submit_one(&self, command: Command) -> Result<Answer> {
        match self.metadata.submit(vec![command]).await {
            Ok(mut answers) => match answers.pop() {
                Some(Answer::Refused(refusal)) => Err(refused(refusal)),
                Some(answer) => Ok(answer),
                None => Err(Error::internal("no answer from the metadata")),
            },
            Err(error) => {
                if error.kind() == ErrorKind::Fenced {
                    self.end(error.clone());
                }
                Err(error)
            }
        }
    }
}

fn unexpected(answer: Answer) -> Error {
    Error::internal("unexpected answer from the metadata").with("answer", format!("{answer:?}"))
}

pub(crate) fn refused(refusal: Refusal) -> Error {
    let kind = match &refusal {
        Refusal::NotFound => ErrorKind::NotFound,
        Refusal::OwnedBy(_) | Refusal::NotOwner | Refusal::StaleEpoch(_) => ErrorKind::Unavailable,
        Refusal::NotSettled { .. } | Refusal::NotStarted => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, "refused by the metadata").caused_by(refusal)
}
