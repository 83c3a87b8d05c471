//! Clean-up: what nothing refers to is condemned, and after a grace deleted (O4).
//!
//! It runs after commits, trims and destroys, never by a timer: an idle engine sends no request. The grace counts in
//! this process; after a restart it begins anew. Set objects are collected when every range of theirs is dead and
//! their index is at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::core::Core;
use crate::{
    ObjectId, Result, StreamEpoch,
    metadata::{Answer, Command, State},
    object::{ObjectKind, StreamRange, object_path},
};

/// Objects in one round; the rest waits for the next.
const ROUND_MAX: usize = 256;

/// The clean-up's books.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    wake: Notify,
    /// When each condemned object was first seen here, boot time.
    condemned: Mutex<BTreeMap<ObjectId, Duration>>,
}

impl Cleaner {
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Core {
    /// Cleans up whenever it is woken, until the engine ends.
    pub(crate) async fn clean_all(self: Arc<Self>) {
        loop {
            self.cleaner.wake.notified().await;
            if self.ended().is_some() {
                return;
            }
            if let Err(error) = self.clean_once().await {
                tracing::debug!(%error, "clean-up goes on after the next commit");
            }
        }
    }

    async fn clean_once(&self) -> Result<()> {
        let session = self.session()?;
        let mut commands = self.metadata.view(|state| self.dead(state));
        let due = self.due();
        let mut deleted = Vec::new();
        for object in due {
            let path = object_path(self.bucket.prefix(), object);
            self.bucket.delete(&path).await?;
            deleted.push(object);
        }
        if !deleted.is_empty() {
            commands.push(Command::Forget {
                objects: deleted.clone(),
            });
        }
        if commands.is_empty() || self.is_over(session.epoch) {
            return Ok(());
        }
        for answer in self.metadata.submit(commands).await? {
            if let Answer::Refused(refusal) = answer {
                tracing::debug!(%refusal, "clean-up refused");
            }
        }
        let mut condemned = self.cleaner.condemned.lock();
        for object in deleted {
            condemned.remove(&object);
        }
        Ok(())
    }

    /// Commands that condemn what is dead.
    fn dead(&self, state: &State) -> Vec<Command> {
        let gone = |range: &StreamRange| {
            state
                .stream(range.stream)
                .is_none_or(|stream| stream.start >= range.offsets.end)
        };
        let mut commands = Vec::new();
        let mut streams = Vec::new();
        for (object, view) in state.objects() {
            match view.kind {
                ObjectKind::Stream => {
                    let range = StreamRange {
                        stream: view.streams.0,
                        epoch: StreamEpoch::default(),
                        offsets: view.offsets.clone(),
                    };
                    if gone(&range) {
                        streams.push(object);
                    }
                }
                ObjectKind::StreamSet => {
                    let Some(index) = self.objects.index_at_hand(object) else {
                        continue;
                    };
                    if index.ranges().all(|range| gone(&range)) {
                        let ranges = index.ranges().collect();
                        commands.push(Command::Collect { object, ranges });
                    }
                }
            }
            if streams.len() + commands.len() >= ROUND_MAX {
                break;
            }
        }
        if !streams.is_empty() {
            commands.push(Command::Condemn { objects: streams });
        }
        commands
    }

    /// Condemned objects whose grace is over.
    fn due(&self) -> Vec<ObjectId> {
        let now = self.clock.now();
        let seen: BTreeSet<ObjectId> = self
            .metadata
            .view(|state| state.condemned().map(|(object, _)| object).collect());
        let mut condemned = self.cleaner.condemned.lock();
        condemned.retain(|object, _| seen.contains(object));
        for object in seen {
            condemned.entry(object).or_insert(now);
        }
        condemned
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= self.config.condemn_grace())
            .map(|(object, _)| *object)
            .take(ROUND_MAX)
            .collect()
    }
}
