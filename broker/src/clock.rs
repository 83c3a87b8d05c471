//! The wall clock: times of records and the age of segments. Nothing waits on it and no order depends on it.

use std::{
    sync::{Arc, LazyLock},
    time::{SystemTime, UNIX_EPOCH},
};

use segment_adapter::WallClock;

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl SystemClock {
    /// One for all logs.
    pub(crate) fn shared() -> Arc<dyn WallClock> {
        static CLOCK: LazyLock<Arc<SystemClock>> = LazyLock::new(|| Arc::new(SystemClock));
        CLOCK.clone()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the time of day comes in"
)]
impl WallClock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemClock.now_ms()
}
