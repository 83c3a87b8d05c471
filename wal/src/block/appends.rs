//! The live block log: the pipeline behind one short mutex, a device under it, a sink above it.
//!
//! - The mutex is held for one copy, never over a device or sink call.
//! - All progress comes from `append`, `trim`, `close` and completions: no thread, no task, no clock.
//! - One thread at a time tells the sink, and it is never one that is inside `append`.
//! - The stack does not grow with the number of commits: a completion submits, and a device never completes inside a submission.

use std::{io, ops::Range, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    device::Device,
    pipeline::{Event, Pipeline, Request, Tag},
};
use crate::{Error, Log, Position, Sink, Usage};

/// A block log that takes appends.
#[derive(Debug)]
pub(crate) struct Appends {
    core: Arc<Core>,
}

struct Core {
    live: Mutex<Live>,
    sink: Arc<dyn Sink>,
    ended: watch::Sender<Option<Result<(), Error>>>,
}

#[derive(Debug)]
struct Live {
    pipeline: Pipeline,
    /// Until the log is closed: exclusive use of the device ends with it.
    device: Option<Arc<dyn Device>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

/// What is to be done once the mutex is free.
struct Due {
    requests: Vec<Request>,
    device: Option<Arc<dyn Device>>,
    ended: Option<Result<(), Error>>,
    /// A device that is not used any more, to be dropped outside the mutex.
    released: Option<Arc<dyn Device>>,
}

impl Live {
    fn due(&mut self, requests: Vec<Request>) -> Due {
        let ended = self.pipeline.ended();
        let device = if requests.is_empty() {
            None
        } else {
            self.device.clone()
        };
        let released = if ended.is_some() {
            self.device.take()
        } else {
            None
        };
        Due {
            requests,
            device,
            ended,
            released,
        }
    }
}

impl Appends {
    pub(crate) fn new(pipeline: Pipeline, device: Arc<dyn Device>, sink: Arc<dyn Sink>) -> Self {
        let live = Mutex::new(Live {
            pipeline,
            device: Some(device),
        });
        Self {
            core: Arc::new(Core {
                live,
                sink,
                ended: watch::Sender::new(None),
            }),
        }
    }
}

#[async_trait]
impl Log for Appends {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        let mut live = self.core.live.lock();
        let range = live.pipeline.append(parts)?;
        let requests = live.pipeline.submit();
        let device = if requests.is_empty() {
            None
        } else {
            live.device.clone()
        };
        drop(live);
        self.core.issue(device, requests);
        Ok(range)
    }

    fn trim(&self, to: Position) {
        let due = {
            let mut live = self.core.live.lock();
            live.pipeline.trim(to);
            let requests = live.pipeline.submit();
            live.due(requests)
        };
        self.core.settle(due);
    }

    fn usage(&self) -> Usage {
        self.core.live.lock().pipeline.usage()
    }

    fn max_record_len(&self) -> usize {
        self.core.live.lock().pipeline.max_record_len()
    }

    fn durable_end(&self) -> Position {
        self.core.live.lock().pipeline.durable_end()
    }

    async fn close(&self) -> Result<(), Error> {
        let mut ended = self.core.ended.subscribe();
        let due = {
            let mut live = self.core.live.lock();
            live.pipeline.close();
            let requests = live.pipeline.submit();
            live.due(requests)
        };
        self.core.settle(due);
        // The sender lives in `self`, so the wait ends with a value.
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Closed),
        }
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        let released = {
            let mut live = self.core.live.lock();
            live.pipeline.abandon();
            live.device.take()
        };
        drop(released);
    }
}

impl Core {
    fn issue(self: &Arc<Self>, device: Option<Arc<dyn Device>>, requests: Vec<Request>) {
        let Some(device) = device else { return };
        for Request { at, data, tag } in requests {
            let core = Some(Arc::clone(self));
            let completion = Completion {
                core,
                tag,
                _device: Arc::clone(&device),
            };
            device.write(at, data, Box::new(move |result| completion.finish(result)));
        }
    }

    fn settle(self: &Arc<Self>, due: Due) {
        self.issue(due.device, due.requests);
        if let Some(ended) = due.ended {
            self.ended.send_if_modified(|to| {
                let first = to.is_none();
                to.get_or_insert(ended);
                first
            });
        }
        drop(due.released);
    }

    fn complete(self: &Arc<Self>, tag: Tag, result: io::Result<()>) {
        let (due, deliver) = {
            let mut live = self.live.lock();
            let requests = live.pipeline.complete(tag, result);
            let deliver = live.pipeline.begin_delivery();
            (live.due(requests), deliver)
        };
        // The device first: it works while the sink does.
        self.settle(due);
        if deliver {
            self.deliver();
        }
    }

    fn deliver(self: &Arc<Self>) {
        let _guard = Fall { core: self };
        loop {
            let event = {
                let mut live = self.live.lock();
                match live.pipeline.next_event() {
                    Some(event) => event,
                    None => {
                        // A closing log waits for the last delivery.
                        let requests = live.pipeline.submit();
                        let due = live.due(requests);
                        drop(live);
                        return self.settle(due);
                    }
                }
            };
            match event {
                Event::Durable(flight) => self.sink.durable(flight.commit()),
                Event::Room => self.sink.room(),
                Event::Failed(error) => self.sink.failed(&error),
            }
        }
    }
}

/// Fails the log if a sink panics, so that nothing waits for ever for what it would have heard (lesson 13).
struct Fall<'a> {
    core: &'a Arc<Core>,
}

impl Drop for Fall<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let due = {
                let mut live = self.core.live.lock();
                live.pipeline
                    .fail(Error::Invalid("a sink panicked".to_owned()));
                live.due(Vec::new())
            };
            self.core.settle(due);
        }
    }
}

/// A write's completion. One that is dropped uncalled is a failed write, never a lost one (lesson 13).
struct Completion {
    core: Option<Arc<Core>>,
    tag: Tag,
    /// Exclusive use lasts while a write may still land.
    _device: Arc<dyn Device>,
}

impl Completion {
    fn finish(mut self, result: io::Result<()>) {
        if let Some(core) = self.core.take() {
            core.complete(self.tag, result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the device dropped the write");
            core.complete(self.tag, Err(gone));
        }
    }
}
