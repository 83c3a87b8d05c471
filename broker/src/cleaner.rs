//! Compacts topics: one partition at a time, the dirtiest first, and a rest when nothing is due.
//!
//! What is due is told from memory, so an idle broker stays silent towards its bucket. A partition whose pass failed or
//! was overtaken is left alone until the next rest, so that others go on; one with a damaged batch for good. Dropping the
//! task at any point harms nothing: a pass that ends early has cleaned a little less.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use s3stream::GroupId;
use segment_adapter::{Compacted, Compactor, LogError, WallClock};
use tokio::time::{Instant, sleep};

use crate::{
    clock::SystemClock,
    node::Node,
    topics::partition::{Leading, Partition},
};

/// A partition that is to be compacted.
struct Due {
    topic: String,
    partition: Arc<Partition>,
    leading: Leading,
    ratio: f64,
}

/// Never returns; the caller ends it.
pub(crate) async fn run(node: Arc<Node>, mut compactor: Compactor) {
    let pause = Duration::from_millis(node.config.cleaner.backoff_ms);
    loop {
        // Not at once: a start has better things to do.
        sleep(pause).await;
        let mut done = BTreeSet::new();
        while let Some(due) = dirtiest(&node, &done) {
            // What is still dirty after a pass that went on to its end has more keys than the memory holds: its turn comes
            // again, when others are less dirty.
            if !clean(&mut compactor, &due).await {
                done.insert(due.partition.group);
            }
        }
        compactor.rest();
    }
}

/// The dirtiest of those that are due and not among `done`.
fn dirtiest(node: &Node, done: &BTreeSet<GroupId>) -> Option<Due> {
    let now_ms = SystemClock.now_ms();
    let mut dirtiest: Option<Due> = None;
    for topic in node.topics.all() {
        for partition in topic.partitions.iter().filter(|p| !done.contains(&p.group)) {
            // A log that is not open is opened by the next request.
            let Some(leading) = partition.current() else {
                continue;
            };
            let dirty = match leading.log.dirty(now_ms) {
                Ok(Some(dirty)) => dirty,
                Ok(None) => continue,
                Err(error) => {
                    partition.note(&leading, &error);
                    continue;
                }
            };
            if dirtiest.as_ref().is_none_or(|due| dirty.ratio > due.ratio) {
                dirtiest = Some(Due {
                    topic: topic.name.clone(),
                    partition: partition.clone(),
                    leading,
                    ratio: dirty.ratio,
                });
            }
        }
    }
    dirtiest
}

/// Whether the pass came to its end and cleaned something.
async fn clean(compactor: &mut Compactor, due: &Due) -> bool {
    let begun = Instant::now();
    let log = &due.leading.log;
    match log.compact(compactor, SystemClock.now_ms()).await {
        Ok(done) => {
            tell(due, &done, begun.elapsed());
            done.finished && done.dirty_bytes > 0
        }
        Err(error) => {
            warn(due, &error);
            due.partition.note(&due.leading, &error);
            false
        }
    }
}

fn tell(due: &Due, done: &Compacted, took: Duration) {
    tracing::info!(
        topic = due.topic,
        partition = due.partition.index,
        finished = done.finished,
        bytes_in = done.bytes_in,
        bytes_out = done.bytes_out,
        took_ms = took.as_millis() as u64,
        "compacted"
    );
}

fn warn(due: &Due, error: &LogError) {
    let (topic, partition) = (&due.topic, due.partition.index);
    if due.leading.log.uncleanable().is_some() {
        tracing::error!(
            topic,
            partition,
            %error,
            "a batch is damaged: the partition is not compacted any more, until it is opened again"
        );
    } else {
        tracing::warn!(topic, partition, %error, "not compacted; it is tried again");
    }
}
