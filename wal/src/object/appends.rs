//! The live object log as its owner sees it: the pipeline behind one short mutex, a task beside it.
//!
//! - The mutex is held for one copy, never over a request or a sink call.
//! - An append only queues and wakes the task; the task does everything else.
//! - Dropping it is a crash: the task and all it has on its way stop, and nothing is acknowledged afterwards.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use tokio::task::AbortHandle;

use super::driver::Core;
use crate::{Error, Log, Position, Usage};

/// An object log that takes appends.
#[derive(Debug)]
pub(crate) struct Appends {
    pub(crate) core: Arc<Core>,
    pub(crate) task: AbortHandle,
}

#[async_trait]
impl Log for Appends {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        let range = self.core.live.lock().append(parts)?;
        self.core.wake.notify_one();
        Ok(range)
    }

    fn trim(&self, to: Position) {
        self.core.live.lock().trim(to);
        self.core.wake.notify_one();
    }

    fn usage(&self) -> Usage {
        self.core.live.lock().usage()
    }

    fn max_record_len(&self) -> usize {
        self.core.live.lock().max_record_len()
    }

    fn durable_end(&self) -> Position {
        self.core.live.lock().durable_end()
    }

    async fn close(&self) -> Result<(), Error> {
        let mut ended = self.core.ended.subscribe();
        self.core.live.lock().close();
        self.core.wake.notify_one();
        // The sender lives in `self`, so the wait ends with a value.
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Closed),
        }
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        self.core.live.lock().abandon();
        self.task.abort();
    }
}
