//! Opening the log, for the first time or again: the order of F0.
//!
//! (1) register: node epoch and debt; (2) trim positions from the metadata; (3) fence the log; (4) replay; (5) one
//! entry records the sealed ends; only then is anything loaded and served. A restart is a take-over of oneself.
//! The log is read twice: first for the ends, keeping nothing; then, within the memory budget, for the records.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use wal::{Found, Identity, LogEpoch, LogState, LogUuid, Replay, Replayed};

use super::{
    core::{Core, Session},
    sink::DurableSink,
    upload::{Settling, upload},
};
use crate::{
    Error, NodeEpoch, RecordBatch, RecordHeader, Result, StreamId,
    metadata::{Answer, Command, DebtView, LogRegistration, Registration, Started, State},
};

/// How long an opening tries to upload a part of what it replays, when that is more than half of the budget.
const UPLOAD_MOST: Duration = Duration::from_secs(600);

/// Streams with records that are in the log and not yet committed: `committed end..sealed end`.
type Tails = BTreeMap<StreamId, std::ops::Range<u64>>;

impl Core {
    /// Opens the log and begins to serve.
    pub(crate) async fn establish(self: &Arc<Self>) -> Result<Settling> {
        let log_uuid = self.choose_log().await?;
        let registered = self
            .metadata
            .register(Registration {
                node: self.node,
                incarnation: self.incarnation,
                attempt: self.attempts.fetch_add(1, Ordering::Relaxed),
                log: Some(LogRegistration {
                    uuid: log_uuid,
                    url: self.wal.url(),
                }),
            })
            .await?;
        let epoch = registered.epoch;
        let owed: Vec<DebtView> = registered.log_state;
        let state = LogState {
            identity: Identity {
                cluster: self.cluster.get(),
                log: log_uuid,
                node: self.node.get(),
            },
            epoch: LogEpoch::new(epoch.get()),
            owed: owed.iter().map(epoch_state).collect(),
        };
        let mut replay = self.wal.open(&state).await.map_err(Error::from)?;
        let tails = self.find_tails(replay.as_mut()).await?;
        let start = replay.start_position();
        let sealed: Vec<_> = replay
            .ends()
            .iter()
            .map(|end| (NodeEpoch::new(end.epoch.get()), end.end))
            .collect();
        let started = Started {
            log: log_uuid,
            start,
            ends: sealed.clone(),
            streams: tails
                .iter()
                .map(|(stream, tail)| (*stream, tail.end))
                .collect(),
        };
        // What owes nothing is retired at once: a node that starts again and again leaves no trail.
        let owes = !tails.is_empty();
        let retired = owed.iter().map(|debt| debt.epoch).filter(|_| !owes);
        self.record_ends(started, retired.collect()).await?;

        self.object_ids.reset(registered.objects);
        self.with_cache(0, |cache| {
            *cache = cache::LogCache::new(self.config.upload_bytes as usize);
        });
        self.restart_positions();
        let mut settling = if owes {
            let first = owed.iter().map(|debt| debt.trim).min().unwrap_or(start);
            Settling::replaying(log_uuid, epoch, sealed, first)
        } else {
            Settling::replaying(log_uuid, epoch, Vec::new(), start)
        };
        self.load(&mut settling, replay.as_mut(), &tails).await?;

        let sink = DurableSink::new(self, epoch);
        let log = replay.start(sink).await.map_err(Error::from)?;
        let session = Session {
            epoch,
            log_uuid,
            log,
            recovered: Arc::new(
                tails
                    .into_iter()
                    .map(|(stream, tail)| (stream, tail.end))
                    .collect::<HashMap<_, _, _>>(),
            ),
        };
        settling.serve(session.log.clone());
        if !self.serve(session.clone()) {
            return Err(self
                .ended()
                .unwrap_or_else(|| Error::closed("the engine ended")));
        }
        self.reopen_streams(&session);
        Ok(settling)
    }

    /// The log that is registered, or a new name for one that is blank or owes nothing.
    async fn choose_log(&self) -> Result<LogUuid> {
        let debts: Vec<DebtView> = self.metadata.view(|state| {
            state
                .debts()
                .filter(|debt| debt.holder == self.node)
                .collect()
        });
        let registered = |uuid: LogUuid| debts.iter().any(|debt| debt.log == uuid);
        let here = self.wal.url();
        match self.wal.identify().await.map_err(Error::from)? {
            Found::Live(found) | Found::Closed(found) if registered(found.log) => Ok(found.log),
            Found::Live(found) => Err(self.foreign_log(&found)),
            Found::Blank | Found::Closed(_) => match debts.iter().find(|debt| debt.url == here) {
                // Registered and not yet formatted; a started one is missing, and the log will say so.
                Some(debt) => Ok(debt.log),
                None => Ok(LogUuid::new(self.entropy.next_u128())),
            },
        }
    }

    fn foreign_log(&self, found: &Identity) -> Error {
        let cluster = self.cluster;
        if found.cluster != cluster.get() {
            return Error::invalid(
                "the log belongs to another cluster; use the bucket it was made with, or another log",
            )
            .with("log", self.wal.url())
            .with("log's cluster", format!("{:032x}", found.cluster))
            .with("bucket's cluster", cluster);
        }
        Error::invalid(
            "the log may hold records, and this bucket's metadata does not know it for this node; \
             open it with the node it belongs to, or use another log",
        )
        .with("log", self.wal.url())
        .with("uuid", found.log)
        .with("log's node", found.node)
        .with("node", self.node)
    }

    /// First pass: where each stream ends that has records above its committed end.
    async fn find_tails(&self, replay: &mut dyn Replay) -> Result<Tails> {
        let mut tails = Tails::new();
        while let Some(records) = replay.next().await.map_err(Error::from)? {
            self.metadata.view(|state| {
                records
                    .iter()
                    .try_for_each(|record| extend(&mut tails, state, record))
            })?;
        }
        Ok(tails)
    }

    /// F0 step 5, and the end of epochs that owe nothing.
    async fn record_ends(&self, started: Started, retired: Vec<NodeEpoch>) -> Result<()> {
        let log = started.log;
        let mut commands = vec![Command::Started(started)];
        if !retired.is_empty() {
            commands.push(Command::Retire {
                log,
                epochs: retired,
            });
        }
        let mut answers = self.metadata.submit(commands).await?.into_iter();
        match answers.next() {
            Some(Answer::Started { .. }) => {
                for answer in answers {
                    if let Answer::Retired(epochs) = answer {
                        for refusal in epochs.into_iter().filter_map(Result::err) {
                            tracing::warn!(%refusal, "a log epoch stays registered");
                        }
                    }
                }
                Ok(())
            }
            Some(Answer::Refused(refusal)) => {
                Err(Error::corrupt("the log does not fit the metadata")
                    .with("log", self.wal.url())
                    .caused_by(refusal))
            }
            other => Err(Error::internal("unexpected answer to a start")
                .with("answer", format!("{other:?}"))),
        }
    }

    /// Second pass: the records themselves, uploading on the way when they are more than half of the budget.
    async fn load(
        self: &Arc<Self>,
        settling: &mut Settling,
        replay: &mut dyn Replay,
        tails: &Tails,
    ) -> Result<()> {
        if tails.is_empty() {
            return Ok(());
        }
        let mut loaded: BTreeMap<StreamId, u64> = tails
            .iter()
            .map(|(stream, tail)| (*stream, tail.start))
            .collect();
        replay.rewind().await.map_err(Error::from)?;
        while let Some(records) = replay.next().await.map_err(Error::from)? {
            self.with_cache(0, |cache| {
                for record in records {
                    let position = record.position.end.get();
                    let batch = RecordBatch::decode(record.payload)?;
                    if loaded.get(&batch.stream) != Some(&batch.offsets.start) {
                        continue;
                    }
                    loaded.insert(batch.stream, batch.offsets.end);
                    // A part of a piece would keep all of the piece in memory, and only the part is charged.
                    let batch = RecordBatch {
                        payload: Bytes::copy_from_slice(&batch.payload),
                        ..batch
                    };
                    let padding = record.footprint.saturating_sub(batch.encoded_len());
                    cache.insert(batch, position).map_err(|error| {
                        Error::internal("the log cache refused a replayed record").caused_by(error)
                    })?;
                    cache.charge(padding);
                    self.note_durable(position);
                }
                Ok::<_, Error>(())
            })?;
            let unsettled = self.cache.lock().unsettled_bytes() as u64;
            if unsettled >= self.config.log_cache_bytes / 2 {
                self.upload_replayed(settling).await?;
            }
        }
        for (stream, tail) in tails {
            if loaded.get(stream) != Some(&tail.end) {
                return Err(Error::corrupt("the log changed between two readings")
                    .with("stream", stream)
                    .with("expected end", tail.end));
            }
        }
        Ok(())
    }

    async fn upload_replayed(self: &Arc<Self>, settling: &mut Settling) -> Result<()> {
        let Some(block) = self.with_cache(0, |cache| cache.seal()) else {
            return Ok(());
        };
        self.note_sealed(block.position_end());
        let uploaded = async {
            let uploaded = upload(self.clone(), settling.epoch(), block).await?;
            self.settle(settling, uploaded).await
        };
        let in_time = tokio::time::timeout(UPLOAD_MOST, uploaded).await;
        in_time.unwrap_or_else(|_| {
            Err(
                Error::unavailable("the bucket does not take what the log holds and memory cannot")
                    .with("waited_s", UPLOAD_MOST.as_secs()),
            )
        })?;
        drop(self.with_cache(0, |cache| cache.evict(0)));
        Ok(())
    }

    /// Streams that were open go on under their new epoch; one that is gone says so.
    fn reopen_streams(&self, session: &Session) {
        self.for_each_stream(|progress| {
            let found = self
                .metadata
                .view(|state| open_stream(state, self.node, progress.stream));
            match found {
                Some(found) => {
                    let end = session.end_of(progress.stream, found.committed_end);
                    progress.open(found.epoch, found.start, end, session.log.clone());
                }
                None => progress.shut(
                    Error::not_found("the stream is not this node's any more")
                        .with("stream", progress.stream),
                    true,
                ),
            }
        });
    }
}

/// What the metadata says of a stream that this node owns.
pub(crate) struct OwnedStream {
    pub(crate) epoch: crate::StreamEpoch,
    pub(crate) start: u64,
    pub(crate) committed_end: u64,
}

pub(crate) fn open_stream(
    state: &State,
    node: crate::NodeId,
    stream: StreamId,
) -> Option<OwnedStream> {
    let view = state.stream(stream)?;
    (view.owner == Some(node)).then_some(OwnedStream {
        epoch: view.epoch,
        start: view.start,
        committed_end: view.end,
    })
}

/// Takes one replayed record into account (S7): it counts iff its epoch is current, or it ends at or below the
/// sealed end of its epoch.
fn extend(tails: &mut Tails, state: &State, record: &Replayed) -> Result<()> {
    let header = RecordHeader::decode(&record.payload)?;
    let Some(stream) = state.stream(header.stream) else {
        return Ok(());
    };
    let sealed = state.sealed_end(header.stream, header.epoch);
    let counts =
        stream.epoch == header.epoch || sealed.is_some_and(|end| header.offsets.end <= end);
    let floor = stream.end.max(stream.start);
    let tail = tails.get(&header.stream).map_or(floor, |tail| tail.end);
    if !counts || header.offsets.end <= tail {
        return Ok(());
    }
    if header.offsets.start > tail {
        return Err(Error::corrupt("records are missing in the log")
            .with("stream", header.stream)
            .with("expected", tail)
            .with("found", header.offsets.start)
            .with("position", record.position.start));
    }
    tails
        .entry(header.stream)
        .or_insert(header.offsets.start..tail)
        .end = header.offsets.end;
    Ok(())
}

fn epoch_state(debt: &DebtView) -> wal::EpochState {
    wal::EpochState {
        epoch: LogEpoch::new(debt.epoch.get()),
        trim: debt.trim,
        durable_end: debt.durable_end,
        sealed_end: debt.sealed_end,
        started: debt.started,
    }
}
