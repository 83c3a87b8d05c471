//! Compacts topics: one partition at a time, the dirtiest first, and a rest when nothing is due.
//!
//! What is due is told from memory, so an idle broker stays silent towards its bucket. A partition whose pass failed or
//! was overtaken is left alone for a while, so that others go on: for `cleaner.backoff_ms`, then twice as long each time, up
//! to [`PAUSE_MAX`]; one with a damaged batch for good. Dropping the task at any point harms nothing: a pass that ends early
//! has cleaned a little less.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use s3stream::GroupId;
use segment_adapter::{Compacted, Compactor, LogError, WallClock};
use tokio::time::{Instant, sleep};

use crate::{
    clock::SystemClock,
    node::Node,
    topics::partition::{Leading, Partition},
};

/// The longest that a partition is left alone after a failure, unless `cleaner.backoff_ms` is longer.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A partition that is to be compacted.
struct Due {
    topic: String,
    partition: Arc<Partition>,
    ratio: f64,
}

/// Never returns; the caller ends it.
pub(crate) async fn run(node: Arc<Node>, mut compactor: Compactor) {
    let pause = Duration::from_millis(node.config.cleaner.backoff_ms);
    let mut failures = Failures::new(pause);
    loop {
        // Not at once: a start has better things to do.
        sleep(pause).await;
        loop {
            let round = all_due(&node, &failures).await;
            if round.is_empty() {
                break;
            }
            // What is still dirty after a pass that went on to its end has more keys than the memory holds: its turn comes
            // again, after the others.
            for due in round {
                let group = due.partition.group;
                match clean(&mut compactor, &due).await {
                    true => failures.forget(group),
                    false => failures.add(group, Instant::now()),
                }
            }
        }
        compactor.rest();
    }
}

/// Groups whose last pass failed, and until when each is left alone.
struct Failures {
    first_pause: Duration,
    by_group: BTreeMap<GroupId, Failure>,
}

struct Failure {
    pause: Duration,
    until: Instant,
}

impl Failures {
    fn new(first_pause: Duration) -> Self {
        Self {
            first_pause,
            by_group: BTreeMap::new(),
        }
    }

    fn add(&mut self, group: GroupId, now: Instant) {
        let longest = PAUSE_MAX.max(self.first_pause);
        let before = self.by_group.get(&group);
        let pause = before.map_or(self.first_pause, |last| (last.pause * 2).min(longest));
        // A failure that is long past says nothing, and its partition may be deleted.
        self.by_group
            .retain(|_, last| now.saturating_duration_since(last.until) < longest);
        let until = now + pause;
        self.by_group.insert(group, Failure { pause, until });
    }

    fn forget(&mut self, group: GroupId) {
        self.by_group.remove(&group);
    }

    fn may_try(&self, group: GroupId, now: Instant) -> bool {
        self.by_group
            .get(&group)
            .is_none_or(|last| now >= last.until)
    }
}

/// Those that are due and have not just failed, the dirtiest first.
async fn all_due(node: &Node, failures: &Failures) -> Vec<Due> {
    let now = Instant::now();
    let now_ms = SystemClock.now_ms();
    let mut all = Vec::new();
    for topic in node.topics.all() {
        for partition in topic.partitions.iter() {
            if !failures.may_try(partition.group, now) {
                continue;
            }
            if let Some((_, ratio)) = is_due(partition, now_ms) {
                all.push(Due {
                    topic: topic.name.clone(),
                    partition: partition.clone(),
                    ratio,
                });
            }
        }
        // There may be thousands of partitions.
        tokio::task::yield_now().await;
    }
    all.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    all
}

/// The log of a partition that is to be compacted, and how dirty it is. A log that is not open is opened by the next request.
fn is_due(partition: &Partition, now_ms: i64) -> Option<(Leading, f64)> {
    let leading = partition.current()?;
    match leading.log.dirty(now_ms) {
        Ok(dirty) => dirty.map(|dirty| (leading, dirty.ratio)),
        Err(error) => {
            partition.note(&leading, &error);
            None
        }
    }
}

/// Whether the pass came to its end and cleaned something, or there is nothing to clean any more.
async fn clean(compactor: &mut Compactor, due: &Due) -> bool {
    let begun = Instant::now();
    let Some((leading, _)) = is_due(&due.partition, SystemClock.now_ms()) else {
        return true;
    };
    match leading.log.compact(compactor, SystemClock.now_ms()).await {
        Ok(done) => {
            tell(due, &done, begun.elapsed());
            done.finished && done.dirty_bytes > 0
        }
        Err(error) => {
            warn(due, &leading, &error);
            due.partition.note(&leading, &error);
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

fn warn(due: &Due, leading: &Leading, error: &LogError) {
    let (topic, partition) = (&due.topic, due.partition.index);
    if leading.log.uncleanable().is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(15);

    #[test]
    fn a_partition_that_failed_is_tried_again_after_a_time_whatever_others_do() {
        let (failed, other) = (GroupId::new(1), GroupId::new(2));
        let begun = Instant::now();
        let mut failures = Failures::new(FIRST);
        failures.add(failed, begun);
        assert!(failures.may_try(other, begun));
        assert!(!failures.may_try(failed, begun + FIRST - Duration::from_millis(1)));
        assert!(failures.may_try(failed, begun + FIRST));
        failures.add(failed, begun + FIRST);
        assert!(!failures.may_try(failed, begun + 3 * FIRST - Duration::from_millis(1)));
        assert!(failures.may_try(failed, begun + 3 * FIRST));
        failures.forget(failed);
        assert!(failures.may_try(failed, begun));
    }

    #[test]
    fn the_pause_after_a_failure_is_bounded_and_what_is_long_past_is_forgotten() {
        let group = GroupId::new(1);
        let mut now = Instant::now();
        let mut failures = Failures::new(FIRST);
        for _ in 0..40 {
            failures.add(group, now);
            assert!(failures.may_try(group, now + PAUSE_MAX));
            now += PAUSE_MAX;
        }
        assert!(!failures.may_try(group, now - Duration::from_millis(1)));
        let later = now + PAUSE_MAX;
        failures.add(GroupId::new(2), later);
        assert_eq!(failures.by_group.len(), 1);
    }
}
