//! A device that writes down what is asked of it and what completes, in one order with the marks of the test.
//!
//! - An operation is recorded before the device below hears of it, and its completion before whoever asked hears of that. So in the trace, whatever a
//!   completion caused stands behind it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::block::{Device, Geometry, ReadDone, WriteDone};

/// One entry of a trace. `M` is what the test marks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation<M> {
    /// A write was asked for.
    Write {
        /// Its number, the same at its completion.
        id: u64,
        /// Where.
        at: u64,
        /// What.
        data: Bytes,
    },
    /// A sync was asked for.
    Sync {
        /// Its number, the same at its completion.
        id: u64,
    },
    /// A write or sync completed.
    Done {
        /// Of which.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The test noted something.
    Mark(M),
}

/// Records over any device. Clones share the trace.
#[derive(Debug)]
pub struct RecordingDevice<M> {
    device: Arc<dyn Device>,
    trace: Arc<Mutex<Vec<Operation<M>>>>,
    next_id: Arc<AtomicU64>,
}

impl<M> Clone for RecordingDevice<M> {
    fn clone(&self) -> Self {
        Self {
            device: Arc::clone(&self.device),
            trace: Arc::clone(&self.trace),
            next_id: Arc::clone(&self.next_id),
        }
    }
}

impl<M: Clone + Send + 'static> RecordingDevice<M> {
    /// An empty trace over `device`.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self {
            device,
            trace: Arc::default(),
            next_id: Arc::default(),
        }
    }

    /// The same trace, over another device: what the next life of a place uses.
    #[must_use]
    pub fn over(&self, device: Arc<dyn Device>) -> Self {
        Self {
            device,
            ..self.clone()
        }
    }

    /// Notes something in the trace.
    pub fn mark(&self, mark: M) {
        self.trace.lock().push(Operation::Mark(mark));
    }

    /// The trace so far.
    pub fn trace(&self) -> Vec<Operation<M>> {
        self.trace.lock().clone()
    }

    fn begin(&self, operation: impl FnOnce(u64) -> Operation<M>, done: WriteDone) -> WriteDone {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.trace.lock().push(operation(id));
        let trace = Arc::clone(&self.trace);
        Box::new(move |result: io::Result<()>| {
            trace.lock().push(Operation::Done {
                id,
                ok: result.is_ok(),
            });
            done(result);
        })
    }
}

impl<M: Clone + Send + std::fmt::Debug + 'static> Device for RecordingDevice<M> {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let done = self.begin(
            |id| Operation::Write {
                id,
                at,
                data: data.clone(),
            },
            done,
        );
        self.device.write(at, data, done);
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        self.device.read(at, len, done);
    }

    fn sync(&self, done: WriteDone) {
        let done = self.begin(|id| Operation::Sync { id }, done);
        self.device.sync(done);
    }

    fn name(&self) -> String {
        self.device.name()
    }
}
