//! The upload pipeline: blocks of the log cache become objects in parallel and are committed in order (O1, O2).
//!
//! `log trim <= committed <= sealed <= durable`, as positions. A block is cut only when an upload can begin, so a slow
//! bucket makes larger objects instead of a queue. A failing bucket is tried again for as long as the session lasts.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use cache::Block;
use object_store::{ObjectStoreExt, PutPayload};
use wal::{LogUuid, Position};

use super::{
    backoff::Backoff,
    core::{Core, Session},
    object_ids::PREPARE,
    task::{Owned, spawn},
};
use crate::{
    Error, ErrorKind, NodeEpoch, ObjectId, RecordBatch, Result,
    metadata::{Answer, Command, Commit, LogTrim, RangeOutcome},
    object::{Built, FooterInfo, ObjectKind, ObjectWriter, StreamRange, object_path},
    store::store_error,
};

const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// A block that is in the bucket and not yet visible.
#[derive(Debug)]
pub(crate) struct Uploaded {
    block: u64,
    position_end: Position,
    objects: Vec<UploadedObject>,
}

#[derive(Debug)]
struct UploadedObject {
    id: ObjectId,
    kind: ObjectKind,
    size: u64,
    ranges: Vec<StreamRange>,
}

/// What is settled so far, in the order of blocks.
#[derive(Debug)]
pub(crate) struct Settling {
    log_uuid: LogUuid,
    epoch: NodeEpoch,
    /// None during a replay: the log takes no trim yet, the metadata does.
    log: Option<Arc<dyn wal::Log>>,
    /// Log epochs with their sealed ends that still owe something; the session's own has none.
    owed: Vec<(NodeEpoch, Option<Position>)>,
    settled: Position,
    /// A range was refused for good: the log keeps everything from here on.
    stuck: bool,
}

impl Settling {
    /// Everything below `settled` is settled; the epochs end where they are sealed.
    pub(crate) fn replaying(
        log_uuid: LogUuid,
        epoch: NodeEpoch,
        sealed: Vec<(NodeEpoch, Position)>,
        settled: Position,
    ) -> Self {
        let sealed = sealed.into_iter().map(|(epoch, end)| (epoch, Some(end)));
        Self {
            log_uuid,
            epoch,
            log: None,
            owed: sealed.chain([(epoch, None)]).collect(),
            settled,
            stuck: false,
        }
    }

    /// The log takes appends and trims from now on.
    pub(crate) fn serve(&mut self, log: Arc<dyn wal::Log>) {
        log.trim(self.settled);
        self.log = Some(log);
    }

    /// Gives up the log; nothing more is settled with it.
    pub(crate) fn let_go(&mut self) {
        self.log = None;
    }

    pub(crate) fn epoch(&self) -> NodeEpoch {
        self.epoch
    }

    fn trims(&self, with_this: Position) -> Vec<LogTrim> {
        let durable_end = self
            .log
            .as_ref()
            .map_or(with_this, |log| log.durable_end().max(with_this));
        self.owed
            .iter()
            .map(|&(epoch, sealed)| {
                let clamp =
                    |position: Position| sealed.map_or(position, |sealed| position.min(sealed));
                LogTrim {
                    epoch,
                    settled: clamp(self.settled),
                    with_this: clamp(with_this),
                    durable_end: clamp(durable_end),
                }
            })
            .collect()
    }

    /// Sealed log epochs that owe nothing below `position`.
    fn paid(&self, position: Position) -> Vec<NodeEpoch> {
        self.owed
            .iter()
            .filter(|(_, sealed)| sealed.is_some_and(|sealed| sealed <= position))
            .map(|(epoch, _)| *epoch)
            .collect()
    }
}

impl Core {
    /// Uploads and commits until the session is over.
    pub(crate) async fn upload_all(self: &Arc<Self>, session: &Session, settling: &mut Settling) {
        let mut uploads: VecDeque<Owned<Result<Uploaded>>> = VecDeque::new();
        while !self.is_over(session.epoch) {
            while uploads.len() < self.config.uploads_in_flight
                && let Some(block) = self.cut(uploads.is_empty())
            {
                let upload = upload(self.clone(), session.epoch, block);
                uploads.push_back(Owned::new(spawn("upload", self, upload)));
            }
            let next = async {
                match uploads.front_mut() {
                    Some(upload) => upload.join().await,
                    None => std::future::pending().await,
                }
            };
            // Finished uploads first: they free memory. The other branch cannot starve, it only cuts more blocks.
            let done = tokio::select! {
                biased;
                done = next => done,
                () = self.wake.notified() => continue,
            };
            uploads.pop_front();
            match done {
                Some(Ok(uploaded)) => {
                    if let Err(error) = self.settle(settling, uploaded).await {
                        self.fail(error);
                    }
                }
                Some(Err(error)) => self.fail(error),
                // It panicked, and the engine was ended by its guard.
                None => return,
            }
        }
    }

    /// The next block, if it is time: enough bytes, somebody waits for a flush, or room runs out.
    fn cut(&self, idle: bool) -> Option<Arc<Block<RecordBatch>>> {
        let flushed = self.flushed();
        let full = self.admission.is_short();
        let least_under_pressure = if idle {
            1
        } else {
            self.config.upload_bytes / 4
        };
        let block = self.with_cache(0, |cache| {
            let active = cache.active_bytes() as u64;
            let unsettled = cache.unsettled_bytes() as u64;
            let pressed = full || unsettled > self.config.log_cache_bytes / 2;
            let due = active >= self.config.upload_bytes
                || flushed.wanted > flushed.sealed
                || (pressed && active >= least_under_pressure);
            if due { cache.seal() } else { None }
        })?;
        self.note_sealed(block.position_end());
        Some(block)
    }

    /// Commits one block and gives up its part of the log.
    pub(crate) async fn settle(&self, settling: &mut Settling, uploaded: Uploaded) -> Result<()> {
        let log = settling.log_uuid;
        let mut objects = uploaded.objects;
        let last = objects.pop();
        // The trim may travel only with what it depends on being decided.
        let first: Vec<_> = objects
            .into_iter()
            .map(|object| commit(log, object, Vec::new()))
            .collect();
        if !first.is_empty() {
            settling.stuck |= !self.submit_commits(first).await?;
        }
        let to = if settling.stuck {
            settling.settled
        } else {
            uploaded.position_end
        };
        let trim = settling.trims(to);
        let mut commands = match last {
            Some(object) => vec![commit(log, object, trim)],
            // All of the block was trimmed or destroyed before it was cut.
            None => vec![Command::TrimLog { log, trim }],
        };
        let paid = settling.paid(to);
        if !paid.is_empty() {
            let epochs = paid.clone();
            commands.push(Command::Retire { log, epochs });
        }
        settling.stuck |= !self.submit_commits(commands).await?;
        if settling.stuck {
            self.note_stuck();
        } else {
            settling.owed.retain(|(epoch, _)| !paid.contains(epoch));
            settling.settled = uploaded.position_end;
            if let Some(log) = &settling.log {
                log.trim(uploaded.position_end);
            }
        }
        self.with_cache(0, |cache| cache.settle(uploaded.block));
        self.note_committed(uploaded.position_end.get());
        self.make_room(self.admission.waiting_bytes());
        self.cleaner.wake();
        Ok(())
    }

    /// True if every range is settled.
    async fn submit_commits(&self, mut commands: Vec<Command>) -> Result<bool> {
        let ranges: Vec<Vec<StreamRange>> = commands
            .iter()
            .map(|command| match command {
                Command::Commit(commit) => commit.ranges.clone(),
                _ => Vec::new(),
            })
            .collect();
        if self.object_ids.is_low() {
            commands.push(Command::Prepare { count: PREPARE });
        }
        let answers = self.metadata.submit(commands).await?;
        let mut settled = true;
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Answer::Committed(committed) => {
                    for (range, outcome) in &committed.exceptions {
                        if outcome.is_settled() {
                            continue;
                        }
                        settled = false;
                        if let Some(range) = ranges.get(index).and_then(|r| r.get(*range as usize))
                        {
                            self.refuse_stream(range, outcome);
                        }
                    }
                }
                Answer::Prepared { objects } => self.object_ids.add(objects),
                Answer::Retired(_) | Answer::LogTrimmed(_) => {}
                other => {
                    return Err(Error::internal("the metadata refused a commit")
                        .with("answer", format!("{other:?}")));
                }
            }
        }
        Ok(settled)
    }

    /// One stream's records cannot be committed: it stops, the others go on (M4, S6).
    fn refuse_stream(&self, range: &StreamRange, outcome: &RangeOutcome) {
        let error = Error::internal("records were refused by the metadata and stay in the log")
            .with("stream", range.stream)
            .with("start", range.offsets.start)
            .with("end", range.offsets.end)
            .with("outcome", format!("{outcome:?}"));
        tracing::error!(%error);
        if let Some(progress) = self.streams.read().get(&range.stream) {
            progress.shut(error, true);
        }
    }

    async fn object_id(&self) -> Result<ObjectId> {
        loop {
            if let Some(id) = self.object_ids.take() {
                return Ok(id);
            }
            let prepare = vec![Command::Prepare { count: PREPARE }];
            match self.metadata.submit(prepare).await?.pop() {
                Some(Answer::Prepared { objects }) => self.object_ids.add(objects),
                other => {
                    return Err(Error::internal("no object ids from the metadata")
                        .with("answer", format!("{other:?}")));
                }
            }
        }
    }

    /// Puts one object, for as long as it takes.
    async fn put_object(&self, id: ObjectId, built: &Built) -> Result<()> {
        let path = object_path(self.bucket.prefix(), id);
        let mut backoff = Backoff::new(&self.entropy, BACKOFF_MOST);
        loop {
            let payload: PutPayload = built.parts.iter().cloned().collect();
            let put = self.bucket.store().put(&path, payload).await;
            match put.map_err(|error| store_error("write", &path, error)) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(%error, object = %id, "upload will be tried again");
                }
                Err(error) => return Err(error),
            }
            if let Some(error) = self.ended() {
                return Err(error);
            }
            backoff.wait().await;
        }
    }
}

/// Writes the objects of a block: one for each stream that has enough, one for all the others.
pub(crate) async fn upload(
    core: Arc<Core>,
    epoch: NodeEpoch,
    block: Arc<Block<RecordBatch>>,
) -> Result<Uploaded> {
    let (own, shared): (Vec<_>, Vec<_>) = block.streams().partition(|(_, entries)| {
        let bytes: u64 = entries.iter().map(|entry| entry.encoded_len() as u64).sum();
        bytes >= core.config.stream_object_bytes
    });
    let own = own.into_iter().map(|run| (ObjectKind::Stream, vec![run]));
    let shared = (!shared.is_empty()).then_some((ObjectKind::StreamSet, shared));
    let mut objects = Vec::new();
    for (kind, runs) in own.chain(shared) {
        let id = core.object_id().await?;
        let built = build(&core, epoch, id, kind, &runs)?;
        core.put_object(id, &built).await?;
        objects.push(UploadedObject {
            id,
            kind,
            size: built.len,
            ranges: built.ranges,
        });
    }
    Ok(Uploaded {
        block: block.id(),
        position_end: Position::new(block.position_end()),
        objects,
    })
}

fn build(
    core: &Core,
    epoch: NodeEpoch,
    object: ObjectId,
    kind: ObjectKind,
    runs: &[(u64, &[RecordBatch])],
) -> Result<Built> {
    let footer = FooterInfo {
        cluster: core.cluster,
        object,
        node_epoch: epoch,
        kind,
    };
    let mut writer = ObjectWriter::new(footer, core.config.data_block_bytes as usize);
    for (_, entries) in runs {
        for entry in *entries {
            writer.push(entry)?;
        }
    }
    let built = writer.finish()?;
    core.objects.remember(object, &built);
    Ok(built)
}

fn commit(log: LogUuid, object: UploadedObject, trim: Vec<LogTrim>) -> Command {
    Command::Commit(Commit {
        object: object.id,
        kind: object.kind,
        size: object.size,
        ranges: object.ranges,
        log,
        trim,
    })
}
