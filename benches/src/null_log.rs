//! A log that keeps nothing: what is left is what its caller costs.

use std::{
    ops::Range,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use wal::{Commit, Error, Log, Position, Sink, Usage};

use crate::Result;

/// About what a fast device takes for a write.
const DELAY: Duration = Duration::from_micros(100);

/// Acknowledges, after [`DELAY`], everything that was appended until then. Its commits have no records.
#[derive(Debug)]
pub(crate) struct NullLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ends: Mutex<Ends>,
    appended: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    end: u64,
    durable: u64,
}

impl NullLog {
    /// Its thread ends with it.
    pub(crate) fn start(sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>> {
        let shared = Arc::<Shared>::default();
        let work = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("null-log".to_owned())
            .spawn(move || while acknowledge(&work, &*sink).is_some() {})?;
        Ok(Arc::new(Self(shared)))
    }
}

/// Waits a moment and acknowledges what there is; `None` when the log is gone.
fn acknowledge(shared: &Weak<Shared>, sink: &dyn Sink) -> Option<()> {
    {
        let shared = shared.upgrade()?;
        let mut ends = shared.ends.lock();
        if ends.end == ends.durable {
            shared.appended.wait_for(&mut ends, DELAY * 100);
            return Some(());
        }
    }
    thread::sleep(DELAY);
    let shared = shared.upgrade()?;
    let range = {
        let mut ends = shared.ends.lock();
        let range = Position::new(ends.durable)..Position::new(ends.end);
        ends.durable = ends.end;
        range
    };
    sink.durable(Commit {
        range,
        footprint: 0,
        records: Vec::new(),
    });
    Some(())
}

#[async_trait]
impl Log for NullLog {
    fn append(&self, parts: &[&[u8]]) -> Result<Range<Position>, Error> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut ends = self.0.ends.lock();
        let start = ends.end;
        ends.end += len as u64;
        if start == ends.durable {
            self.0.appended.notify_one();
        }
        Ok(Position::new(start)..Position::new(ends.end))
    }

    fn trim(&self, _to: Position) {}

    fn usage(&self) -> Usage {
        Usage {
            capacity: u64::MAX,
            used: 0,
            queue_capacity: u64::MAX,
            queued: 0,
            overhead: 0,
            least: 0,
        }
    }

    fn max_record_len(&self) -> usize {
        usize::MAX
    }

    fn durable_end(&self) -> Position {
        Position::new(self.0.ends.lock().durable)
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
