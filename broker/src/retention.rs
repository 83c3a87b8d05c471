//! Deletes old segments: one timer for all partitions, one partition after another.
//!
//! A log that has nothing to delete looks only at what it has in memory, so an idle broker stays silent towards its bucket.

use std::{sync::Arc, time::Duration};

use segment_adapter::WallClock;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{clock::SystemClock, node::Node};

/// Never returns; the caller ends it.
pub(crate) async fn run(node: Arc<Node>) {
    let pause = Duration::from_millis(node.config.topics.retention_check_interval_ms);
    // Not at once: a start has better things to do.
    let mut timer = interval_at(Instant::now() + pause, pause);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        pass(&node).await;
    }
}

async fn pass(node: &Node) {
    let now_ms = SystemClock.now_ms();
    for topic in node.topics.all() {
        for partition in &topic.partitions {
            // A log that is not open has no reader to free space for; the next request opens it.
            let Some(leading) = partition.current() else {
                continue;
            };
            match leading.log.delete_old_segments(now_ms).await {
                Ok(0) => {}
                Ok(segments) => {
                    tracing::info!(
                        topic = topic.name,
                        partition = partition.index,
                        segments,
                        "old segments deleted"
                    );
                }
                Err(error) => {
                    tracing::warn!(topic = topic.name, partition = partition.index, %error, "old segments not deleted");
                    partition.note(&leading, &error);
                }
            }
        }
    }
}
