//! Fetch (1): records from an offset on, and the wait for more of them (F18 to F23).
//!
//! `records of an answer <= min(max_bytes, limits.fetch_bytes_max)`, and of a partition `<= partition_max_bytes`, but the
//! first batch of an answer is sent whatever its size (F20). A fetch that finds less than `min_bytes` waits for the high
//! watermark of any of its partitions to move, or the last stable offset for a reader of committed data, and for nothing else: no timer polls. There are no sessions (F23).

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use kafka_protocol::{error::ResponseError, messages::FetchRequest};
use segment_adapter::{AbortedTxn, EpochEnd, FetchData, Isolation, KafkaLog, LogError, Offsets};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use self::read_on::{OfLog, read_on};
use super::{Abort, Named, Reply, Request, Session, check_epoch, find_named, isolation, topic_of};
use crate::{
    node::Node,
    topics::partition::{Leading, Partition},
    wire::{
        fetch_response::{FetchedPartition, FetchedTopic, encode},
        response::{Head, Response},
    },
};

mod read_on;

/// First version that names topics by id alone.
const IDS: i16 = 13;
/// Partitions of one fetch that are read at one time.
const CONCURRENT: usize = 8;

/// A partition that is asked for. The log is looked up once: a fetch that outlives its topic ends with an error.
struct Wanted {
    topic: usize,
    index: i32,
    from: i64,
    /// The epoch of the record before `from`, as the asker has it; -1 if it does not say.
    epoch_before: i32,
    bytes_max: usize,
    log: Result<(Arc<Partition>, Leading), i16>,
    /// Who leads it and since which epoch, for an asker who knows another one.
    leader: Option<(i32, i32)>,
}

struct Fetch {
    node: Arc<Node>,
    head: Head,
    topics: Vec<Named>,
    wanted: Vec<Wanted>,
    bytes_min: usize,
    bytes_max: usize,
    isolation: Isolation,
    deadline: Instant,
    closing: watch::Receiver<bool>,
    /// Where the asker has connected to.
    local: SocketAddr,
}

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: FetchRequest = request.decode()?;
    let session = session.clone();
    Reply::later(async move {
        if asked.session_id != 0 {
            let code = ResponseError::FetchSessionIdNotFound.code();
            return Ok(encode(request.head, code, Vec::new(), Vec::new()));
        }
        let fetch = Fetch::new(node, request.head, asked, session).await;
        fetch.run().await
    })
}

/// What one pass over the partitions has found.
#[derive(Default)]
struct Pass {
    partitions: Vec<FetchedPartition>,
    bytes: usize,
    /// Something was found that the asker has to hear of at once.
    failed: bool,
}

impl Pass {
    fn add(&mut self, found: FetchedPartition) {
        self.failed |= found.error_code != 0 || found.diverging.is_some();
        self.bytes += found.records_len();
        self.partitions.push(found);
    }
}

impl Fetch {
    async fn new(node: Arc<Node>, head: Head, asked: FetchRequest, session: Session) -> Self {
        // A wait longer than a connection may be silent has no use.
        let wait_max = node.config.limits.idle_timeout_ms;
        let wait = (asked.max_wait_ms.max(0) as u64).min(wait_max);
        let deadline = Instant::now() + Duration::from_millis(wait);
        let mut topics = Vec::with_capacity(asked.topics.len());
        let mut wanted = Vec::new();
        for (topic, data) in asked.topics.into_iter().enumerate() {
            let named = match head.version {
                IDS.. => Named::Id(data.topic_id),
                _ => Named::Name(data.topic),
            };
            for partition in data.partitions {
                let index = partition.partition;
                let mut log = find_named(&node, &named, index).await;
                let mut leader = None;
                if let Ok((_, leading)) = &log
                    && let Err(error) = check_epoch(leading, partition.current_leader_epoch)
                {
                    if error == ResponseError::FencedLeaderEpoch {
                        leader = topic_of(&node, &named)
                            .map(|topic| (node.leader(&topic, index), leading.epoch));
                    }
                    log = Err(error.code());
                }
                wanted.push(Wanted {
                    topic,
                    index,
                    from: partition.fetch_offset,
                    epoch_before: partition.last_fetched_epoch,
                    bytes_max: partition.partition_max_bytes.max(0) as usize,
                    log,
                    leader,
                });
            }
            topics.push(named);
        }
        let limit = node.config.limits.fetch_bytes_max;
        Self {
            head,
            topics,
            wanted,
            bytes_min: asked.min_bytes.max(0) as usize,
            bytes_max: (asked.max_bytes.max(0) as usize).min(limit),
            isolation: isolation(asked.isolation_level),
            deadline,
            closing: session.closing,
            local: session.local,
            node,
        }
    }

    async fn run(mut self) -> Result<Response, Abort> {
        let mut last = false;
        loop {
            // Sampled before the look, so that a record that comes in between ends the wait.
            let seen = self.seen();
            last |= Instant::now() >= self.deadline || *self.closing.borrow();
            let due = self.is_due(&seen);
            if last || due {
                let wanted = if due { self.bytes_wanted() } else { 0 };
                let mut granted = self.node.budget.response(wanted).await?;
                let pass = self.read(due).await;
                if last || pass.failed || pass.bytes >= self.bytes_min {
                    // The rest of what was taken for the read goes back before the slow part, the writing.
                    let excess = granted.num_permits().saturating_sub(pass.bytes);
                    drop(granted.split(excess));
                    return Ok(self.answer(pass).holding(granted));
                }
            }
            last = self.wait(&seen).await;
        }
    }

    /// The offsets of each partition now; `None` where there is no log.
    fn seen(&self) -> Vec<Option<Offsets>> {
        let logs = self.wanted.iter().map(|wanted| wanted.log.as_ref().ok());
        logs.map(|log| log.map(|(_, leading)| leading.log.offsets()))
            .collect()
    }

    /// Whether a read could end the fetch: there is something to read, or something to complain about.
    fn is_due(&self, seen: &[Option<Offsets>]) -> bool {
        self.bytes_min == 0
            || self.wanted.is_empty()
            || self
                .wanted
                .iter()
                .zip(seen)
                .any(|(wanted, seen)| match seen {
                    Some(offsets) => {
                        wanted.from != offsets.bound(self.isolation) || wanted.epoch_before >= 0
                    }
                    None => true,
                })
    }

    /// What the partitions may have together, were there no limit on the answer.
    fn bytes_asked(&self) -> usize {
        let each = self.wanted.iter().map(|wanted| wanted.bytes_max);
        each.fold(0, usize::saturating_add)
    }

    fn bytes_wanted(&self) -> usize {
        self.bytes_asked().min(self.bytes_max)
    }

    /// What there is; with `due` false only where each partition ends.
    async fn read(&self, due: bool) -> Pass {
        if !due {
            return self.read_in_turn(0, false).await;
        }
        if self.bytes_asked() <= self.bytes_max {
            let pass = self.read_together().await;
            if pass.failed || pass.bytes > 0 {
                return pass;
            }
        }
        self.read_in_turn(self.bytes_max, true).await
    }

    /// No partition can take another's bytes: reads from the bucket need not wait for one another. The first partition
    /// alone may exceed its limit; clients change the order, so each comes first at some time (F20).
    async fn read_together(&self) -> Pass {
        let mut pass = Pass::default();
        let each = self.wanted.iter().enumerate();
        let reads = each.map(|(place, wanted)| self.read_one(wanted, wanted.bytes_max, place == 0));
        // Collected, for the compiler cannot see that a borrowing closure outlives the stream.
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(CONCURRENT);
        while let Some(found) = reads.next().await {
            pass.add(found);
        }
        pass
    }

    /// Each partition in the order of the request until the bytes are used up. With `min_one` the first batch that is found
    /// comes whatever its size.
    async fn read_in_turn(&self, bytes_max: usize, min_one: bool) -> Pass {
        let mut pass = Pass::default();
        for wanted in &self.wanted {
            let left = bytes_max.saturating_sub(pass.bytes);
            let first = min_one && pass.bytes == 0;
            pass.add(self.read_one(wanted, left, first).await);
        }
        pass
    }

    async fn read_one(&self, wanted: &Wanted, left: usize, first: bool) -> FetchedPartition {
        let mut answer = FetchedPartition {
            index: wanted.index,
            error_code: 0,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: None,
            diverging: None,
            leader: wanted.leader,
            records: Vec::new(),
        };
        let (partition, leading) = match &wanted.log {
            Ok(log) => log,
            Err(code) => {
                answer.error_code = *code;
                return answer;
            }
        };
        let bytes_max = wanted.bytes_max.min(left);
        let read = self.read_log(&leading.log, wanted, bytes_max, first).await;
        let offsets = match read {
            Ok((data, diverging)) => {
                answer.diverging = diverging;
                answer.records = data.records;
                let told = |txn: AbortedTxn| (txn.producer_id, txn.first_offset);
                let aborted = data.aborted.map(|all| all.into_iter().map(told).collect());
                answer.aborted = aborted;
                data.offsets
            }
            Err(error) => {
                partition.note(leading, &error);
                answer.error_code = match error {
                    // Who knows ids knows this one no more.
                    LogError::Deleted if self.head.version >= IDS => {
                        ResponseError::UnknownTopicId.code()
                    }
                    _ => error.code(),
                };
                match error {
                    LogError::OffsetOutOfRange { .. } => leading.log.offsets(),
                    _ => return answer,
                }
            }
        };
        answer.high_watermark = offsets.hw;
        answer.last_stable_offset = offsets.lso;
        answer.log_start_offset = offsets.log_start;
        answer
    }

    /// What there is of one log, or where the asker's history leaves that of the log.
    async fn read_log(
        &self,
        log: &KafkaLog,
        wanted: &Wanted,
        bytes_max: usize,
        first: bool,
    ) -> Result<(FetchData, Option<EpochEnd>), LogError> {
        if wanted.epoch_before >= 0
            && let Some(end) = diverging(log, wanted.from, wanted.epoch_before).await?
        {
            let nothing = FetchData {
                records: Vec::new(),
                offsets: log.offsets(),
                aborted: None,
            };
            return Ok((nothing, Some(end)));
        }
        let source = OfLog {
            log,
            isolation: self.isolation,
        };
        let data = read_on(&source, wanted.from, bytes_max, first).await?;
        Ok((data, None))
    }

    /// Until one may see further than was seen. `true` if there is nothing more to wait for: a log has ended,
    /// the time is up, or the connection closes.
    async fn wait(&mut self, seen: &[Option<Offsets>]) -> bool {
        let mut moves: FuturesUnordered<_> = self
            .wanted
            .iter()
            .zip(seen)
            .filter_map(|(wanted, seen)| Some((wanted.log.as_ref().ok()?, seen.as_ref()?)))
            .map(|((_, leading), seen)| {
                let log = &leading.log;
                log.wait_for(self.isolation, seen.bound(self.isolation))
            })
            .collect();
        let closing = self.closing.wait_for(|closing| *closing);
        tokio::select! {
            biased;
            _ = closing => true,
            Some(moved) = moves.next() => moved.is_err(),
            () = sleep_until(self.deadline) => true,
        }
    }

    fn answer(&self, pass: Pass) -> Response {
        let mut leaders = BTreeSet::new();
        let mut topics: Vec<FetchedTopic> = self
            .topics
            .iter()
            .map(|topic| {
                let (name, id) = match topic {
                    Named::Name(name) => (name.to_string(), Uuid::nil()),
                    Named::Id(id) => (String::new(), *id),
                };
                FetchedTopic {
                    name,
                    id,
                    partitions: Vec::new(),
                }
            })
            .collect();
        for (wanted, partition) in self.wanted.iter().zip(pass.partitions) {
            leaders.extend(partition.leader.map(|(id, _)| id));
            topics[wanted.topic].partitions.push(partition);
        }
        let leaders = leaders.into_iter();
        let endpoints = leaders
            .map(|id| self.node.endpoint(id, self.local))
            .collect();
        encode(self.head, 0, topics, endpoints)
    }
}

/// Where the log leaves the history of somebody who has `epoch` before `from`; `None` if it has the same. Of an epoch that
/// nobody knows, or below the log start, nothing can be said: that is out of range.
async fn diverging(log: &KafkaLog, from: i64, epoch: i32) -> Result<Option<EpochEnd>, LogError> {
    let end = log.offset_for_leader_epoch(epoch).await?;
    let offsets = log.offsets();
    if end == EpochEnd::NONE || from < offsets.log_start {
        return Err(LogError::OffsetOutOfRange {
            offset: from,
            start: offsets.log_start,
            end: offsets.leo,
        });
    }
    let diverges = end.epoch < epoch || end.end_offset < from;
    Ok(diverges.then_some(end))
}
