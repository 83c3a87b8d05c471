//! From a decision to its end: every partition of the transaction gets its marker, then the transaction is complete.
//!
//! A decision is durable before the first marker is written, and every marker before the transaction is called complete:
//! a crash in between begins again with the first, and a second marker changes nothing. At most one end of a
//! transactional id is under way, also while its coordinator is loaded again: an old marker could otherwise end the next
//! transaction. A partition that is unavailable is tried for as long as it takes; a deleted one is passed over.
//!
//! An end is made of attempts. Each tells the partitions that are left once, within [`TELL`]; what it could not tell is
//! left for the next, after a pause that grows. Between attempts an end has no place among those that are under way, and
//! places are given in the order of time: ends that cannot be made do not keep others from theirs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use segment_adapter::{EndTxn, LogError, TransactionVersion};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{machine::Ending, transaction::Status};
use crate::{api::find_partition, coordinator::groups, node::Node, topics::partition::Leading};

/// Attempts under way at one time; others wait their turn.
const ATTEMPTS_MAX: usize = 1_024;
/// Partitions of one transaction that are told at one time.
const CONCURRENT: usize = 64;
/// How long a partition, or the coordinator, has for one attempt.
const TELL: Duration = Duration::from_secs(5);
/// The pause after the first attempt, and the longest: each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// About the size of a marker.
const MARKER_BYTES: usize = 128;

/// INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED.
const FENCED: [i16; 2] = [47, 52];

/// A transactional id, and the partition of the coordinator that it is of.
type Place = (i32, String);

/// Transactions that are decided and whose end waits. As many as there are transactional ids at most.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    more: Notify,
}

/// Those that wait by when they are tried, and among equals in the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    turns: BTreeMap<Turn, Place>,
    places: HashMap<Place, Turn>,
    came: u64,
}

type Turn = (Instant, u64);

impl Outbox {
    /// The transaction of `id`, which is of this partition of the coordinator, is decided.
    pub(super) fn put(&self, partition: i32, id: &str) {
        self.put_at((partition, id.to_owned()), Instant::now());
    }

    /// Its turn is then, or when it was before if that is sooner.
    fn put_at(&self, place: Place, at: Instant) {
        let mut waiting = self.waiting.lock();
        let turn = (at, waiting.came);
        if let Some(before) = waiting.places.get(&place).copied() {
            if before <= turn {
                return;
            }
            waiting.turns.remove(&before);
        }
        waiting.came += 1;
        waiting.places.insert(place.clone(), turn);
        waiting.turns.insert(turn, place);
        drop(waiting);
        self.more.notify_one();
    }

    /// The first that is not among `busy`, if its turn has come; else when the next one's is.
    fn take(&self, busy: &BTreeSet<Place>, now: Instant) -> Result<Place, Option<Instant>> {
        let mut waiting = self.waiting.lock();
        let next = waiting
            .turns
            .iter()
            .find(|(_, place)| !busy.contains(*place));
        let (turn, place) = match next {
            Some((turn, place)) if turn.0 <= now => (*turn, place.clone()),
            later => return Err(later.map(|((at, _), _)| *at)),
        };
        waiting.turns.remove(&turn);
        waiting.places.remove(&place);
        Ok(place)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().turns.len()
    }
}

/// How far the end of a transaction has come.
struct Progress {
    ending: Ending,
    /// Partitions that are to be told.
    left: Vec<(Arc<str>, i32)>,
    pause: Duration,
}

impl Progress {
    fn new(ending: Ending) -> Self {
        let topics = ending.txn.partitions.iter();
        let left = topics.flat_map(|(topic, indexes)| {
            let topic: Arc<str> = topic.as_str().into();
            indexes.iter().map(move |index| (topic.clone(), *index))
        });
        Self {
            left: left.collect(),
            pause: PAUSE_MIN,
            ending,
        }
    }

    fn marker(&self) -> EndTxn {
        let txn = &self.ending.txn;
        EndTxn {
            producer_id: txn.producer_id,
            producer_epoch: txn.epoch,
            coordinator_epoch: self.ending.coordinator_epoch,
            commit: txn.status == Status::PrepareCommit,
            version: match txn.version {
                TransactionVersion::V0 => TransactionVersion::V1,
                other => other,
            },
        }
    }
}

/// Where an attempt ends.
enum Attempt {
    /// Nothing is left to be done.
    Done,
    /// Another is needed, with what is known of this one.
    Again(Option<Progress>),
}

/// Ends what is decided. Never returns; the caller ends it.
pub(crate) async fn run(node: Arc<Node>) {
    run_at_most(node, ATTEMPTS_MAX).await;
}

async fn run_at_most(node: Arc<Node>, attempts_max: usize) {
    let outbox = node.transactions.outbox().clone();
    let mut running = JoinSet::new();
    let mut places = HashMap::new();
    let mut busy = BTreeSet::new();
    let mut progress: HashMap<Place, Progress> = HashMap::new();
    loop {
        let mut next = None;
        while running.len() < attempts_max {
            match outbox.take(&busy, Instant::now()) {
                Ok(place) => {
                    let known = progress.remove(&place);
                    busy.insert(place.clone());
                    let attempt = running.spawn(attempt(node.clone(), place.clone(), known));
                    places.insert(attempt.id(), place);
                }
                Err(at) => {
                    next = at;
                    break;
                }
            }
        }
        let turn = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            Some(ended) = running.join_next_with_id() => ended,
            () = outbox.more.notified() => continue,
            () = turn => continue,
        };
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, ended),
            Err(error) => {
                tracing::error!(%error, "the end of a transaction stopped by a defect of this program");
                (error.id(), Attempt::Again(None))
            }
        };
        let Some(place) = places.remove(&id) else {
            continue;
        };
        busy.remove(&place);
        if let Attempt::Again(known) = ended {
            let pause = known.as_ref().map_or(PAUSE_MAX, |known| known.pause);
            if let Some(known) = known {
                progress.insert(place.clone(), known);
            }
            outbox.put_at(place, Instant::now() + pause);
        }
    }
}

/// Tells partitions of a decided transaction, and completes it if that was all.
async fn attempt(node: Arc<Node>, (partition, id): Place, known: Option<Progress>) -> Attempt {
    let coordinator = node.transactions.of_partition(partition);
    // Known to be durable when it is answered.
    let ending = match timeout(TELL, coordinator.ending(&id)).await {
        Ok(Ok(Some(ending))) => ending,
        Ok(Ok(None)) => return Attempt::Done,
        failed => {
            tracing::debug!(
                id,
                ?failed,
                "whether a transaction is to be ended is not known yet"
            );
            return Attempt::Again(known.map(later));
        }
    };
    let known = known.filter(|known| known.ending == ending);
    let mut progress = known.unwrap_or_else(|| Progress::new(ending));
    let marker = progress.marker();
    let each = std::mem::take(&mut progress.left).into_iter();
    let mut tells = stream::iter(each)
        .map(|(topic, index)| {
            let node = node.clone();
            async move { (tell(&node, &topic, index, marker).await, topic, index) }
        })
        .buffer_unordered(CONCURRENT);
    while let Some((told, topic, index)) = tells.next().await {
        if !told {
            progress.left.push((topic, index));
        }
    }
    drop(tells);
    if !progress.left.is_empty() {
        return Attempt::Again(Some(later(progress)));
    }
    let completed = coordinator.complete(&id, progress.ending.clone());
    match timeout(TELL, completed).await {
        Ok(Ok(())) => Attempt::Done,
        // Its log has failed, or it has too much to do. No partition is told again.
        failed => {
            tracing::debug!(id, ?failed, "a transaction is not complete yet");
            Attempt::Again(Some(later(progress)))
        }
    }
}

/// With a longer pause.
fn later(progress: Progress) -> Progress {
    Progress {
        pause: (progress.pause * 2).min(PAUSE_MAX),
        ..progress
    }
}

/// Writes the marker on one partition; whether that has nothing to wait for any more.
async fn tell(node: &Node, topic: &str, index: i32, end: EndTxn) -> bool {
    const UNKNOWN: i16 = ResponseError::UnknownTopicOrPartition.code();
    let written = timeout(TELL, write(node, topic, index, end)).await;
    let code = match written {
        // A topic that was deleted has nothing to be decided.
        Ok(Ok(()) | Err(UNKNOWN)) => return true,
        Ok(Err(code)) => code,
        Err(_) => ResponseError::RequestTimedOut.code(),
    };
    if !FENCED.contains(&code) {
        tracing::debug!(topic, index, code, "a marker is not written yet");
        return false;
    }
    let found = timeout(TELL, find_partition(node, topic, index)).await;
    let is_over = match found {
        Ok(Ok((_, leading))) => !leading.log.is_in_transaction(end.producer_id),
        _ => false,
    };
    let producer_id = end.producer_id;
    if is_over {
        tracing::warn!(
            topic,
            index,
            producer_id,
            code,
            "a marker is refused: somebody newer has ended the transaction"
        );
    } else {
        tracing::error!(
            topic,
            index,
            producer_id,
            code,
            "a marker is refused, and the transaction is open: an operator must end it with the epochs that the partition tells"
        );
    }
    is_over
}

/// Writes the marker on one partition; it is durable then. The error is the code of the protocol.
pub(crate) async fn write(node: &Node, topic: &str, index: i32, end: EndTxn) -> Result<(), i16> {
    if topic == groups::TOPIC {
        // Its coordinator must hear of it.
        let ended = node.groups.end_transaction(index, end).answer().await;
        return ended.map_err(|error| error.code());
    }
    let (partition, leading) = find_partition(node, topic, index).await?;
    let written = append(&leading, end).await;
    written.map_err(|error| {
        partition.note(&leading, &error);
        error.code()
    })
}

/// As [`write()`], for an operator, who says which coordinator it speaks for: none that is newer than there has been, or the
/// next marker of the coordinator itself would be refused.
pub(crate) async fn write_for_operator(
    node: &Node,
    topic: &str,
    index: i32,
    end: EndTxn,
) -> Result<(), i16> {
    let written = async {
        let (_, leading) = find_partition(node, topic, index).await?;
        let newest = leading.log.coordinator_epoch(end.producer_id);
        if end.coordinator_epoch > newest.max(leading.epoch) {
            return Err(ResponseError::InvalidRequest.code());
        }
        write(node, topic, index, end).await
    };
    let late = Err(ResponseError::RequestTimedOut.code());
    timeout(TELL, written).await.unwrap_or(late)
}

/// Appends the marker, waiting for room in turn with those who produce.
async fn append(leading: &Leading, end: EndTxn) -> Result<(), LogError> {
    loop {
        match leading.log.append_end_txn(end, leading.epoch) {
            Ok(handle) => return handle.durable().await,
            Err(LogError::Overloaded(_)) => leading.log.ready(MARKER_BYTES).await?,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
